/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The numbers of a model: keys with the architecture's prefix, each with the range in which it makes sense.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/fault.h"
#include "engine/arch/blocks.h"
#include "engine/arch/limits.h"

#define KEY_BYTES 160

/* The key's full name into @buffer, and its place in the file (FAULT_NO_OFFSET when it is absent). */
static int64_t key_locate(const struct arch_build *b, const char *key, char *buffer)
{
    const struct gguf_key *k;

    snprintf(buffer, KEY_BYTES, "%s.%s", b->name, key);
    k = gguf_find_key(b->gguf, buffer);
    return k ? (int64_t)k->offset : FAULT_NO_OFFSET;
}

const char *arch_text(const struct gguf_string *s, char *buffer, size_t size)
{
    size_t n = s->n_bytes < size - 1 ? (size_t)s->n_bytes : size - 1;

    for (size_t i = 0; i < n; i++)
        buffer[i] = s->data[i] >= 0x20 && s->data[i] < 0x7f ? s->data[i] : '?';
    buffer[n] = '\0';
    return buffer;
}

static int key_missing(struct arch_build *b, const char *full, enum arch_need need)
{
    if (need == ARCH_OPTIONAL)
        return 0;
    fault_model_invalid(b->fault, FAULT_NO_OFFSET, "the key %s is missing", full);
    return -EINVAL;
}

int arch_key_u32(struct arch_build *b, const char *key, enum arch_need need, uint32_t min, uint32_t max, uint32_t *ret)
{
    char full[KEY_BYTES];
    int64_t offset = key_locate(b, key, full);
    uint32_t value;
    int r;

    r = gguf_get_u32(b->gguf, full, &value, b->fault);
    if (r == -ENOENT)
        return key_missing(b, full, need);
    if (r < 0)
        return r;
    if (value < min || value > max) {
        fault_model_invalid(b->fault, offset, "%s is %" PRIu32 ", expected %" PRIu32 " to %" PRIu32, full, value, min,
                            max);
        return -EINVAL;
    }
    *ret = value;
    return 0;
}

int arch_key_f32(struct arch_build *b, const char *key, enum arch_need need, float min, float max, float *ret)
{
    char full[KEY_BYTES];
    int64_t offset = key_locate(b, key, full);
    float value;
    int r;

    r = gguf_get_f32(b->gguf, full, &value, b->fault);
    if (r == -ENOENT)
        return key_missing(b, full, need);
    if (r < 0)
        return r;
    if (!(value >= min && value <= max)) {
        fault_model_invalid(b->fault, offset, "%s is %g, expected %g to %g", full, (double)value, (double)min,
                            (double)max);
        return -EINVAL;
    }
    *ret = value;
    return 0;
}

int arch_key_bool(struct arch_build *b, const char *key, enum arch_need need, bool *ret)
{
    char full[KEY_BYTES];
    int r;

    key_locate(b, key, full);
    r = gguf_get_bool(b->gguf, full, ret, b->fault);
    return r == -ENOENT ? key_missing(b, full, need) : r;
}

int arch_key_u32_same(struct arch_build *b, const char *key, enum arch_need need, uint32_t min, uint32_t max,
                      uint32_t *ret)
{
    char full[KEY_BYTES];
    int64_t offset = key_locate(b, key, full);
    const struct gguf_key *k = gguf_find_key(b->gguf, full);
    struct gguf_array array;
    uint32_t value;
    int r;

    if (!k || k->type != GGUF_ARRAY)
        return arch_key_u32(b, key, need, min, max, ret);

    r = gguf_get_array(b->gguf, full, GGUF_U32, &array, b->fault);
    if (r < 0)
        return r;
    if (array.n != b->config->n_layers) {
        fault_model_invalid(b->fault, offset,
                            "%s has %" PRIu64 " elements, expected one for each of %" PRIu32 " layers", full,
                            array.n, b->config->n_layers);
        return -EINVAL;
    }
    value = gguf_array_u32(&array, 0);
    for (uint64_t i = 1; i < array.n; i++) {
        if (gguf_array_u32(&array, i) != value) {
            fault_model_invalid(b->fault, offset,
                                "%s differs between layers (%" PRIu32 " in layer 0, %" PRIu32 " in layer %" PRIu64
                                "), which architecture %s can't have",
                                full, value, gguf_array_u32(&array, i), i, b->name);
            return -EINVAL;
        }
    }
    if (value < min || value > max) {
        fault_model_invalid(b->fault, offset, "%s is %" PRIu32 ", expected %" PRIu32 " to %" PRIu32, full, value, min,
                            max);
        return -EINVAL;
    }
    *ret = value;
    return 0;
}

/*
 * The number of tokens: that of the embedding's rows, which the tokenizer must agree with. The key vocab_size is not
 * asked: what it counts differs between converters.
 */
static int vocabulary_read(struct arch_build *b)
{
    const struct gguf_tensor *embedding = gguf_find_tensor(b->gguf, "token_embd.weight");
    struct gguf_array tokens;
    int r;

    if (!embedding) {
        fault_model_invalid(b->fault, FAULT_NO_OFFSET, "the tensor token_embd.weight is missing");
        return -EINVAL;
    }
    if (embedding->n_rows == 0 || embedding->n_rows > ARCH_VOCAB_MAX) {
        fault_model_invalid(b->fault, (int64_t)embedding->offset,
                            "token_embd.weight has %" PRIu64 " rows, expected 1 to %u (one for each token)",
                            embedding->n_rows, ARCH_VOCAB_MAX);
        return -EINVAL;
    }
    b->config->n_vocab = (uint32_t)embedding->n_rows;

    r = gguf_get_array(b->gguf, "tokenizer.ggml.tokens", GGUF_STRING, &tokens, b->fault);
    if (r < 0 && r != -ENOENT)
        return r;
    if (r == 0 && tokens.n != b->config->n_vocab) {
        fault_model_invalid(b->fault, (int64_t)tokens.offset,
                            "tokenizer.ggml.tokens has %" PRIu64 " tokens, but token_embd.weight has %" PRIu32 " rows",
                            tokens.n, b->config->n_vocab);
        return -EINVAL;
    }
    return 0;
}

static int heads_read(struct arch_build *b)
{
    struct arch_config *c = b->config;
    int r;

    r = arch_key_u32_same(b, "attention.head_count", ARCH_REQUIRED, 1, ARCH_HEADS_MAX, &c->n_heads);
    if (r < 0)
        return r;
    c->n_kv_heads = c->n_heads;
    r = arch_key_u32_same(b, "attention.head_count_kv", ARCH_OPTIONAL, 1, ARCH_HEADS_MAX, &c->n_kv_heads);
    if (r < 0)
        return r;
    if (c->n_heads % c->n_kv_heads) {
        fault_model_invalid(b->fault, FAULT_NO_OFFSET,
                            "%s.attention.head_count is %" PRIu32
                            ", expected a multiple of attention.head_count_kv (%" PRIu32 ")",
                            b->name, c->n_heads, c->n_kv_heads);
        return -EINVAL;
    }

    /* A head is its share of the embedding unless the file says otherwise. */
    if (c->n_embedding % c->n_heads == 0)
        c->k_dim = c->v_dim = c->n_embedding / c->n_heads;
    r = arch_key_u32(b, "attention.key_length", ARCH_OPTIONAL, 1, ARCH_HEAD_DIM_MAX, &c->k_dim);
    if (r < 0)
        return r;
    r = arch_key_u32(b, "attention.value_length", ARCH_OPTIONAL, 1, ARCH_HEAD_DIM_MAX, &c->v_dim);
    if (r < 0)
        return r;
    if (c->k_dim == 0 || c->v_dim == 0 || c->k_dim > ARCH_HEAD_DIM_MAX || c->v_dim > ARCH_HEAD_DIM_MAX) {
        fault_model_invalid(b->fault, FAULT_NO_OFFSET,
                            "%s.embedding_length (%" PRIu32 ") divided by attention.head_count (%" PRIu32
                            ") gives no head of 1 to %u dimensions", b->name, c->n_embedding, c->n_heads,
                            ARCH_HEAD_DIM_MAX);
        return -EINVAL;
    }

    c->n_rot = c->k_dim;
    r = arch_key_u32(b, "rope.dimension_count", ARCH_OPTIONAL, 2, c->k_dim, &c->n_rot);
    if (r < 0)
        return r;
    if (c->n_rot % 2) {
        fault_model_invalid(b->fault, FAULT_NO_OFFSET,
                            "%s.rope.dimension_count is %" PRIu32 ", expected an even number", b->name, c->n_rot);
        return -EINVAL;
    }
    return 0;
}

int arch_config_read(struct arch_build *b, const char *epsilon_key)
{
    struct arch_config *c = b->config;
    int r;

    r = arch_key_u32(b, "block_count", ARCH_REQUIRED, 1, ARCH_LAYERS_MAX, &c->n_layers);
    if (r < 0)
        return r;
    r = arch_key_u32(b, "embedding_length", ARCH_REQUIRED, 1, ARCH_EMBEDDING_MAX, &c->n_embedding);
    if (r < 0)
        return r;
    r = arch_key_u32(b, "context_length", ARCH_REQUIRED, 1, ARCH_CONTEXT_MAX, &c->context_tokens);
    if (r < 0)
        return r;
    r = arch_key_u32_same(b, "feed_forward_length", ARCH_REQUIRED, 1, ARCH_FF_MAX, &c->n_ff);
    if (r < 0)
        return r;
    r = arch_key_f32(b, epsilon_key, ARCH_REQUIRED, 0.0f, 1.0f, &c->epsilon);
    if (r < 0)
        return r;
    r = vocabulary_read(b);
    if (r < 0)
        return r;
    return heads_read(b);
}
