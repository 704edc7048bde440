/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Puts the parts of a tokenizer together. A text goes through three stages: tokens that are searched for by spelling
 * cut it into stretches (special.c); byte-level vocabularies cut those into words (pretokenise.c); the rest is merging
 * (spm.c, bpe.c). Called by the worker and the tools; a tokenizer is never written after tokenizer_new().
 */
#include "engine/token/tokenizer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "engine/gguf/read.h"
#include "engine/token/bpe.h"
#include "engine/token/ids.h"
#include "engine/token/merge.h"
#include "engine/token/pretokenise.h"
#include "engine/token/special.h"
#include "engine/token/spm.h"
#include "engine/token/vocabulary.h"

struct tokenizer {
    struct vocabulary vocabulary;
    struct special special;
    bool adds_bos, adds_eos;
    bool words_apart, space_prefix; /* "llama" */
    struct merges merges;           /* "gpt2" */
    struct pretokenizer pre;
};

DEFINE_CLEANUP(struct tokenizer *, tokenizer_free)

/* What one call of tokenizer_encode() carries along. */
struct encoding {
    const struct tokenizer *t;
    struct merger merger;
    struct ids ids;
};

struct tokenizer *tokenizer_free(struct tokenizer *t)
{
    if (!t)
        return NULL;
    vocabulary_done(&t->vocabulary);
    special_done(&t->special);
    merges_done(&t->merges);
    pretokenizer_done(&t->pre);
    free(t);
    return NULL;
}

/* A name from the file, for a message: cut, and "?" for what can't be shown. */
static const char *shown(struct gguf_string name, char buffer[64])
{
    size_t n = name.n_bytes < 63 ? name.n_bytes : 63;

    for (size_t i = 0; i < n; i++)
        buffer[i] = name.data[i] >= 0x20 && name.data[i] < 0x7F ? name.data[i] : '?';
    buffer[n] = 0;
    return buffer;
}

static bool is(struct gguf_string name, const char *wanted)
{
    return name.n_bytes == strlen(wanted) && memcmp(name.data, wanted, name.n_bytes) == 0;
}

static int read_kind(const struct gguf *g, bool *ret_byte_level, struct fault *reterr)
{
    struct gguf_string kind;
    char buffer[64];
    int r;

    r = gguf_get_string(g, "tokenizer.ggml.model", &kind, reterr);
    if (r < 0)
        return r;
    if (!is(kind, "llama") && !is(kind, "gpt2")) {
        fault_model_invalid(reterr, (int64_t)gguf_find_key(g, "tokenizer.ggml.model")->offset,
                            "tokenizers of the kind \"%s\" are not read, only \"llama\" and \"gpt2\"",
                            shown(kind, buffer));
        return -EINVAL;
    }
    *ret_byte_level = is(kind, "gpt2");
    return 0;
}

static int read_pretokenizer(struct tokenizer *t, const struct gguf *g, struct fault *reterr)
{
    struct gguf_string name = {.data = "default", .n_bytes = 7};
    char buffer[64];
    int r;

    r = gguf_get_string(g, "tokenizer.ggml.pre", &name, reterr);
    if (r < 0 && r != -ENOENT)
        return r;
    r = pretokenizer_init(&t->pre, name.data, name.n_bytes);
    if (r == -ENOENT) {
        fault_model_invalid(reterr, (int64_t)gguf_find_key(g, "tokenizer.ggml.pre")->offset,
                            "the pre-tokenizer \"%s\" is not known", shown(name, buffer));
        return -EINVAL;
    }
    return r;
}

/* A flag of the metadata; keeps *value when it is absent. */
static int read_flag(const struct gguf *g, const char *key, bool *value, struct fault *reterr)
{
    int r = gguf_get_bool(g, key, value, reterr);

    return r == -ENOENT ? 0 : r;
}

static int read_kind_parts(struct tokenizer *t, const struct gguf *g, struct fault *reterr)
{
    int r;

    if (t->vocabulary.byte_level) {
        r = read_pretokenizer(t, g, reterr);
        if (r < 0)
            return r;
        t->adds_bos = t->pre.adds_bos;
        return merges_init(&t->merges, &t->vocabulary, g, reterr);
    }
    t->adds_bos = true;
    t->space_prefix = true;
    t->words_apart = spm_words_apart(&t->vocabulary);
    return read_flag(g, "tokenizer.ggml.add_space_prefix", &t->space_prefix, reterr);
}

int tokenizer_new(const struct gguf *g, struct tokenizer **ret, struct fault *reterr)
{
    _cleanup_(tokenizer_freep) struct tokenizer *t = NULL;
    bool byte_level;
    int r;

    r = read_kind(g, &byte_level, reterr);
    if (r < 0)
        return r;
    t = calloc(1, sizeof(*t));
    if (!t)
        return -ENOMEM;
    r = vocabulary_init(&t->vocabulary, g, byte_level, reterr);
    if (r < 0)
        return r;
    r = read_kind_parts(t, g, reterr);
    if (r < 0)
        return r;
    r = read_flag(g, "tokenizer.ggml.add_bos_token", &t->adds_bos, reterr);
    if (r < 0)
        return r;
    r = read_flag(g, "tokenizer.ggml.add_eos_token", &t->adds_eos, reterr);
    if (r < 0)
        return r;
    t->adds_bos = t->adds_bos && t->vocabulary.bos >= 0;
    t->adds_eos = t->adds_eos && t->vocabulary.eos >= 0;
    r = special_init(&t->special, &t->vocabulary);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(t);
    return 0;
}

static int encode_word(void *context, const char *word, size_t n_bytes)
{
    struct encoding *e = context;

    return bpe_encode_word(&e->t->vocabulary, &e->t->merges, e->t->pre.whole_words, &e->merger, word, n_bytes, &e->ids);
}

/* A stretch of text without spelled-out tokens. @first: at the beginning, or behind such a token. */
static int encode_stretch(struct encoding *e, const char *text, size_t n_bytes, bool first)
{
    const struct tokenizer *t = e->t;

    if (n_bytes == 0)
        return 0;
    if (t->vocabulary.byte_level)
        return pretokenizer_split(&t->pre, text, n_bytes, encode_word, e);
    return spm_encode(&t->vocabulary, t->words_apart, &e->merger, text, n_bytes, first && t->space_prefix, &e->ids);
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int encode(struct encoding *e, const char *text, size_t n_bytes, unsigned flags)
{
    const struct vocabulary *v = &e->t->vocabulary;
    bool first = true;
    int r;

    while (n_bytes > 0) {
        size_t at = n_bytes, n_token = 0;
        int32_t id = special_find(&e->t->special, v, text, n_bytes, flags & TOKENIZE_SPECIAL, &at);

        r = encode_stretch(e, text, at, first);
        if (r < 0)
            return r;
        if (id < 0)
            return 0;
        r = ids_add(&e->ids, id);
        if (r < 0)
            return r;
        vocabulary_text(v, (uint32_t)id, &n_token);
        text += at + n_token;
        n_bytes -= at + n_token;
        while ((v->flags[id] & TOKEN_EATS_SPACE) && n_bytes > 0 && is_space(*text)) {
            text++;
            n_bytes--;
        }
        first = true;
    }
    return 0;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n_bytes, unsigned flags, int32_t **ret_ids,
                     size_t *ret_n)
{
    struct encoding e = {.t = t};
    bool round = flags & TOKENIZE_BOS_EOS;
    int r = 0;

    if (n_bytes > TOKENIZE_BYTES_MAX)
        return -E2BIG;
    if (round && t->adds_bos)
        r = ids_add(&e.ids, t->vocabulary.bos);
    if (r == 0)
        r = encode(&e, text, n_bytes, flags);
    if (r == 0 && round && t->adds_eos)
        r = ids_add(&e.ids, t->vocabulary.eos);
    merger_done(&e.merger);
    /* Never NULL, also for no ids. */
    if (r == 0 && !e.ids.ids) {
        e.ids.ids = malloc(sizeof(*e.ids.ids));
        r = e.ids.ids ? 0 : -ENOMEM;
    }
    if (r < 0) {
        free(e.ids.ids);
        return r;
    }
    *ret_ids = e.ids.ids;
    *ret_n = e.ids.n;
    return 0;
}

static bool is_token(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->vocabulary.n;
}

size_t tokenizer_piece(const struct tokenizer *t, int32_t id, bool special, const char **ret)
{
    const struct vocabulary *v = &t->vocabulary;

    *ret = "";
    if (!is_token(t, id) || (!special && vocabulary_is_special(v, (uint32_t)id)))
        return 0;
    *ret = v->pieces + v->piece_at[id];
    return v->piece_at[id + 1] - v->piece_at[id];
}

const char *tokenizer_token_text(const struct tokenizer *t, int32_t id, size_t *ret_n)
{
    if (!is_token(t, id)) {
        *ret_n = 0;
        return NULL;
    }
    return vocabulary_text(&t->vocabulary, (uint32_t)id, ret_n);
}

int32_t tokenizer_find(const struct tokenizer *t, const char *text, size_t n_bytes)
{
    return vocabulary_find(&t->vocabulary, text, n_bytes);
}

uint32_t tokenizer_n_vocab(const struct tokenizer *t)
{
    return t->vocabulary.n;
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->vocabulary.bos;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->vocabulary.eos;
}

bool tokenizer_is_end(const struct tokenizer *t, int32_t id)
{
    return is_token(t, id) && (t->vocabulary.flags[id] & TOKEN_IS_END);
}

bool tokenizer_is_control(const struct tokenizer *t, int32_t id)
{
    return is_token(t, id) && vocabulary_is_special(&t->vocabulary, (uint32_t)id);
}

bool tokenizer_adds_bos(const struct tokenizer *t)
{
    return t->adds_bos;
}

const char *tokenizer_kind(const struct tokenizer *t)
{
    return t->vocabulary.byte_level ? "gpt2" : "llama";
}
