/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Puts the parts of a tokenizer together. A text goes through three stages: tokens that are searched for by
 * spelling cut it into stretches (special.c); byte-pair vocabularies cut those into words (pretokenise.c);
 * the rest is what the kind of vocabulary does with a word or a stretch (spm.c, bpe.c, wpm.c, ugm.c).
 * Called by the worker and the tools; a tokenizer is never written after tokenizer_new().
 */
#include "engine/token/tokenizer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "engine/gguf/read.h"
#include "engine/token/bpe.h"
#include "engine/token/families.h"
#include "engine/token/ids.h"
#include "engine/token/merge.h"
#include "engine/token/pretokenise.h"
#include "engine/token/shield.h"
#include "engine/token/special.h"
#include "engine/token/spm.h"
#include "engine/token/ugm.h"
#include "engine/token/vocabulary.h"
#include "engine/token/wpm.h"

struct tokenizer {
    struct vocabulary vocabulary;
    struct special special;
    const char *kind; /* as tokenizer.ggml.model spells it */
    bool adds_bos, adds_eos;
    bool words_apart, space_prefix; /* SPM */
    struct merges merges;           /* BPE and RAW_BPE */
    struct pretokenizer pre;
    struct wpm wpm;
    struct ugm ugm;
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
    wpm_done(&t->wpm);
    ugm_done(&t->ugm);
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

static const struct kind {
    const char *name; /* as tokenizer.ggml.model spells it */
    enum vocabulary_kind kind;
    const char *family; /* where the format does not name one */
} kinds[] = {
    {"llama", VOCABULARY_SPM, NULL}, {"gpt2", VOCABULARY_BPE, NULL}, {"gemma4", VOCABULARY_RAW_BPE, "gemma4"},
    {"bert", VOCABULARY_WPM, NULL},  {"t5", VOCABULARY_UGM, NULL},
};

static int read_kind(const struct gguf *g, const struct kind **ret, struct fault *reterr)
{
    struct gguf_string name;
    char buffer[64];
    int r;

    r = gguf_get_string(g, "tokenizer.ggml.model", &name, reterr);
    if (r < 0)
        return r;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
        if (is(name, kinds[i].name)) {
            *ret = &kinds[i];
            return 0;
        }
    }
    fault_model_invalid(reterr, (int64_t)gguf_find_key(g, "tokenizer.ggml.model")->offset,
                        "tokenizers of the kind \"%s\" are not read, only \"llama\", \"gpt2\", \"gemma4\", "
                        "\"bert\" and \"t5\"", shown(name, buffer));
    return -EINVAL;
}

static int read_family(const struct gguf *g, const struct kind *kind, const struct family **ret, struct fault *reterr)
{
    struct gguf_string name = {.data = "default", .n_bytes = 7};
    char buffer[64];
    int r = 0;

    if (kind->family)
        name = (struct gguf_string){.data = kind->family, .n_bytes = strlen(kind->family)};
    else
        r = gguf_get_string(g, "tokenizer.ggml.pre", &name, reterr);
    if (r < 0 && r != -ENOENT)
        return r;
    *ret = family_find(name.data, name.n_bytes);
    if (!*ret) {
        fault_model_invalid(reterr, (int64_t)gguf_find_key(g, "tokenizer.ggml.pre")->offset,
                            "the pre-tokenizer \"%s\" is not known", shown(name, buffer));
        return -EINVAL;
    }
    return 0;
}

/* A flag of the metadata; keeps *value when it is absent. */
static int read_flag(const struct gguf *g, const char *key, bool *value, struct fault *reterr)
{
    int r = gguf_get_bool(g, key, value, reterr);

    return r == -ENOENT ? 0 : r;
}

/* What the vocabulary's kind needs besides the vocabulary; and what it takes for granted of flags that are absent. */
static int read_kind_parts(struct tokenizer *t, const struct gguf *g, const struct family *family, struct fault *reterr)
{
    switch (t->vocabulary.kind) {
    case VOCABULARY_SPM:
        t->adds_bos = true;
        t->space_prefix = true;
        t->words_apart = spm_words_apart(&t->vocabulary);
        return read_flag(g, "tokenizer.ggml.add_space_prefix", &t->space_prefix, reterr);
    case VOCABULARY_BPE:
    case VOCABULARY_RAW_BPE: {
        int r = pretokenizer_init(&t->pre, family);

        t->adds_bos = family->flags & FAMILY_ADDS_BOS;
        return r < 0 ? r : merges_init(&t->merges, &t->vocabulary, g, reterr);
    }
    case VOCABULARY_WPM:
        return wpm_init(&t->wpm, &t->vocabulary, g, reterr);
    case VOCABULARY_UGM:
        t->adds_eos = true;
        return ugm_init(&t->ugm, &t->vocabulary, g, reterr);
    case VOCABULARY_KIND_MAX:
        break;
    }
    return -EINVAL;
}

/* Which tokens stand before and behind a text. */
static int read_ends(struct tokenizer *t, const struct gguf *g, struct fault *reterr)
{
    struct vocabulary *v = &t->vocabulary;
    int r;

    r = read_flag(g, "tokenizer.ggml.add_bos_token", &t->adds_bos, reterr);
    if (r < 0)
        return r;
    r = read_flag(g, "tokenizer.ggml.add_eos_token", &t->adds_eos, reterr);
    if (r < 0)
        return r;
    /* BERT's texts always stand between [CLS] and [SEP], and Gemma 4's files deny the token that the model needs. */
    if (v->kind == VOCABULARY_WPM) {
        t->adds_bos = t->adds_eos = true;
        v->eos = v->separator >= 0 ? v->separator : v->eos;
    }
    if (v->kind == VOCABULARY_RAW_BPE && (t->pre.family->flags & FAMILY_ADDS_BOS))
        t->adds_bos = true;
    t->adds_bos = t->adds_bos && v->bos >= 0;
    t->adds_eos = t->adds_eos && v->eos >= 0;
    return 0;
}

int tokenizer_new(const struct gguf *g, struct tokenizer **ret, struct fault *reterr)
{
    _cleanup_(tokenizer_freep) struct tokenizer *t = NULL;
    const struct family *family = NULL;
    const struct kind *kind;
    enum vocabulary_kind spelled;
    int r;

    r = read_kind(g, &kind, reterr);
    if (r < 0)
        return r;
    spelled = kind->kind;
    if (spelled == VOCABULARY_BPE || spelled == VOCABULARY_RAW_BPE) {
        r = read_family(g, kind, &family, reterr);
        if (r < 0)
            return r;
        spelled = family->flags & FAMILY_RAW ? VOCABULARY_RAW_BPE : VOCABULARY_BPE;
    }
    t = calloc(1, sizeof(*t));
    if (!t)
        return -ENOMEM;
    t->kind = kind->name;
    r = vocabulary_init(&t->vocabulary, g, spelled, reterr);
    if (r < 0)
        return r;
    r = read_kind_parts(t, g, family, reterr);
    if (r < 0)
        return r;
    r = read_ends(t, g, reterr);
    if (r < 0)
        return r;
    r = special_init(&t->special, &t->vocabulary);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(t);
    return 0;
}

static int encode_word(void *context, const char *word, size_t n_bytes)
{
    struct encoding *e = context;
    const struct tokenizer *t = e->t;
    unsigned flags = t->pre.family->flags;

    if (t->vocabulary.kind == VOCABULARY_RAW_BPE)
        return bpe_encode_raw_word(&t->vocabulary, &t->merges, flags, &e->merger, word, n_bytes, &e->ids);
    return bpe_encode_word(&t->vocabulary, &t->merges, flags, &e->merger, word, n_bytes, &e->ids);
}

/* A stretch of text without spelled-out tokens. @first: at the beginning, or behind such a token. */
static int encode_stretch(struct encoding *e, const char *text, size_t n_bytes, bool first)
{
    const struct tokenizer *t = e->t;
    const struct vocabulary *v = &t->vocabulary;

    if (n_bytes == 0)
        return 0;
    switch (v->kind) {
    case VOCABULARY_SPM:
        return spm_encode(v, t->words_apart, &e->merger, text, n_bytes, first && t->space_prefix, &e->ids);
    case VOCABULARY_BPE:
    case VOCABULARY_RAW_BPE:
        return pretokenizer_split(&t->pre, text, n_bytes, encode_word, e);
    case VOCABULARY_WPM:
        return wpm_encode(&t->wpm, v, text, n_bytes, &e->ids);
    case VOCABULARY_UGM:
        return ugm_encode(&t->ugm, v, text, n_bytes, &e->ids);
    case VOCABULARY_KIND_MAX:
        break;
    }
    return -EINVAL;
}

/* A stretch in which users' texts may have marks. */
static int encode_shielded(struct encoding *e, const char *text, size_t n_bytes, bool first)
{
    _cleanup_free_ char *copy = NULL;

    if (!shield_is_in(text, n_bytes))
        return encode_stretch(e, text, n_bytes, first);
    copy = malloc(n_bytes);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, text, n_bytes);
    return encode_stretch(e, copy, shield_remove(copy, n_bytes), first);
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

        r = flags & TOKENIZE_SHIELDED ? encode_shielded(e, text, at, first) : encode_stretch(e, text, at, first);
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

int tokenizer_shield(const struct tokenizer *t, const char *text, size_t n_bytes, char **ret, size_t *ret_n)
{
    return shield_add(&t->special, &t->vocabulary, text, n_bytes, ret, ret_n);
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
    return t->kind;
}
