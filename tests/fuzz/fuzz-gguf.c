/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Model files: the directory, and the tokenizer that is made from its metadata. What is accepted has to keep the
 * promises of read.h and tokenizer.h; what is refused has to say so with an offset inside the file. A second "GGUF" in
 * the input begins the second part of a split model.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "engine/gguf/read.h"
#include "engine/gguf/types.h"
#include "engine/token/detokenise.h"
#include "engine/token/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool promise)
{
    if (!promise)
        abort();
}

static void check_tensors(const struct gguf *g, const struct gguf_part *parts)
{
    volatile uint8_t sum = 0;

    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);
        const uint8_t *start = parts[t->part].data;

        check(tensor_traits(t->type) && t->n_bytes > 0 && t->row_bytes * t->n_rows == t->n_bytes);
        check((const uint8_t *)t->data == start + t->offset && t->offset + t->n_bytes <= parts[t->part].n_bytes);
        check(gguf_find_tensor(g, t->name) == t);
        sum = (uint8_t)(sum + ((const uint8_t *)t->data)[0] + ((const uint8_t *)t->data)[t->n_bytes - 1]);
    }
}

static void check_keys(const struct gguf *g)
{
    static const enum gguf_value_type types[] = {GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING};
    volatile double sum = 0;

    for (size_t i = 0; i < gguf_n_keys(g); i++) {
        const struct gguf_key *key = gguf_key(g, i);
        struct gguf_string s;
        struct gguf_array a;
        int64_t integer;
        float real;

        check(gguf_find_key(g, key->name) == key);
        if (gguf_get_string(g, key->name, &s, NULL) == 0 && s.n_bytes > 0)
            sum += s.data[0] + s.data[s.n_bytes - 1];
        if (gguf_get_i64(g, key->name, &integer, NULL) == 0)
            sum += (double)integer;
        if (gguf_get_f32(g, key->name, &real, NULL) == 0)
            sum += (double)real;
        for (size_t k = 0; k < sizeof(types) / sizeof(*types); k++) {
            if (gguf_get_array(g, key->name, types[k], &a, NULL) < 0 || a.n == 0)
                continue;
            check(gguf_array_offset(&a, a.n - 1) >= a.offset);
            if (types[k] == GGUF_STRING) {
                s = gguf_array_string(&a, a.n - 1);
                sum += s.n_bytes ? s.data[s.n_bytes - 1] : 0;
            } else if (types[k] == GGUF_F32) {
                sum += (double)gguf_array_f32(&a, a.n - 1);
            } else if (types[k] == GGUF_BOOL) {
                sum += gguf_array_bool(&a, a.n - 1);
            } else {
                sum += gguf_array_u32(&a, a.n - 1);
            }
        }
    }
    (void)sum;
}

/* A user's text as part of one of the service's. */
static void check_shield(const struct tokenizer *t, const char *text, size_t n_text)
{
    char *shielded = NULL;
    int32_t *ids;
    size_t n_shielded = n_text, n;
    int r = tokenizer_shield(t, text, n_text, &shielded, &n_shielded);

    check(r < 0 || r == (shielded != NULL));
    if (r >= 0 && tokenizer_encode(t, shielded ? shielded : text, n_shielded, TOKENIZE_SPECIAL | TOKENIZE_SHIELDED,
                                   &ids, &n) == 0)
        free(ids);
    free(shielded);
}

static void check_tokenizer(const struct tokenizer *t, const char *text, size_t n_text)
{
    static const unsigned modes[] = {0, TOKENIZE_SPECIAL, TOKENIZE_BOS_EOS, TOKENIZE_SPECIAL | TOKENIZE_BOS_EOS};

    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
        struct detokenizer d;
        int32_t *ids;
        size_t n, n_part;
        const char *part;

        if (tokenizer_encode(t, text, n_text, modes[i], &ids, &n) < 0)
            continue;
        detokenizer_init(&d, t, DETOKENIZE_SPECIAL);
        for (size_t k = 0; k < n; k++) {
            check(ids[k] >= 0 && (uint32_t)ids[k] < tokenizer_n_vocab(t));
            detokenizer_push(&d, ids[k], &part, &n_part);
        }
        detokenizer_flush(&d, &part, &n_part);
        detokenizer_done(&d);
        free(ids);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *second = size > 4 ? memmem(data + 4, size - 4, "GGUF", 4) : NULL;
    size_t sizes[2] = {second ? (size_t)(second - data) : size, second ? size - (size_t)(second - data) : 0};
    size_t n_parts = second ? 2 : 1;
    struct gguf_part parts[2] = {0};
    struct fault fault = {0};
    struct tokenizer *t = NULL;
    struct gguf *g = NULL;
    int r;

    /* Buffers of exactly the right size, so that a byte read too far is seen. */
    for (size_t i = 0; i < n_parts; i++) {
        uint8_t *bytes = malloc(sizes[i] ? sizes[i] : 1);

        if (!bytes)
            abort();
        memcpy(bytes, i == 0 ? data : second, sizes[i]);
        parts[i] = (struct gguf_part){.data = bytes, .n_bytes = sizes[i]};
    }
    r = gguf_read(parts, n_parts, &g, &fault);
    if (r < 0) {
        check(fault.kind == FAULT_MODEL_INVALID && fault.reason[0]);
        check(fault.offset >= FAULT_NO_OFFSET && fault.offset <= (int64_t)size);
    } else {
        check_tensors(g, parts);
        check_keys(g);
        fault = (struct fault){0};
        r = tokenizer_new(g, &t, &fault);
        if (r == 0)
            check_tokenizer(t, (const char *)data + size / 2, size - size / 2);
        if (r == 0)
            check_shield(t, (const char *)data + size / 2, size - size / 2);
        else
            check(r != -EINVAL || fault.kind == FAULT_MODEL_INVALID);
    }
    tokenizer_free(t);
    gguf_free(g);
    for (size_t i = 0; i < n_parts; i++)
        free((void *)parts[i].data);
    return 0;
}
