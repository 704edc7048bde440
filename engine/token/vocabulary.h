/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A model's tokens: spelling, bytes, type, score, and the way back from a spelling to an id. Private to engine/token.
 * Everything lies in a few flat arrays, sized before they are filled: a vocabulary of 256k tokens loads in
 * milliseconds.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fault;
struct gguf;

/* The numbers of tokenizer.ggml.token_type. */
enum token_type {
    TOKEN_UNDEFINED = 0,
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_USER_DEFINED = 4, /* found in any text, before everything else */
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6,
    TOKEN_TYPE_MAX,
};

enum token_flags {
    TOKEN_IS_END = 1 << 0,     /* ends an answer */
    TOKEN_EATS_SPACE = 1 << 1, /* white space behind it in a text is dropped */
    TOKEN_IS_SHADOWED = 1 << 2, /* an earlier token has the same spelling */
};

/* How tokens are spelled, and how a text becomes tokens. */
enum vocabulary_kind {
    VOCABULARY_SPM,     /* "llama": U+2581 is a space; characters merge by score */
    VOCABULARY_BPE,     /* "gpt2": one character of a spelling is one byte; merges are listed */
    VOCABULARY_RAW_BPE, /* "gpt2" or "gemma4": spelled as SPM, merges are listed */
    VOCABULARY_WPM,     /* "bert": U+2581 begins a word; the longest token that fits */
    VOCABULARY_UGM,     /* "t5": spelled as SPM; the best sum of scores */
    VOCABULARY_KIND_MAX,
};

struct vocabulary {
    enum vocabulary_kind kind;
    uint32_t n;
    uint32_t longest; /* bytes of the longest spelling */
    char *texts;
    uint32_t *text_at; /* [n + 1] */
    char *pieces;
    uint32_t *piece_at; /* [n + 1] */
    uint8_t *types;     /* [n] enum token_type */
    uint8_t *flags;     /* [n] enum token_flags */
    float *scores;      /* [n], SPM and UGM only; no NaN */
    uint64_t *slots;    /* [slot_mask + 1] hash of the spelling << 32 | id + 1; 0: empty. Open addressing */
    uint64_t slot_mask;
    uint64_t seed; /* of the hash: a file can't choose spellings that all fall into one slot */
    int32_t bytes[256]; /* the token of a single byte; -1: none */
    int32_t bos, eos, unknown, separator; /* -1: none */
};

/**
 * vocabulary_init() - read tokenizer.ggml.{tokens,token_type,scores,*_token_id}; @v is all zero
 * vocabulary_done() has to be called even on failure. Returns 0, -EINVAL (with *reterr), -ENOMEM.
 */
int vocabulary_init(struct vocabulary *v, const struct gguf *g, enum vocabulary_kind kind, struct fault *reterr);

/**
 * vocabulary_done() - release the arrays
 */
void vocabulary_done(struct vocabulary *v);

/**
 * vocabulary_find() - the first token with this spelling, of any type; -1 when there is none
 */
int32_t vocabulary_find(const struct vocabulary *v, const char *text, size_t n_bytes);

/**
 * vocabulary_find_plain() - the same, but only tokens that plain text may turn into: no control, unknown or byte tokens
 */
int32_t vocabulary_find_plain(const struct vocabulary *v, const char *text, size_t n_bytes);

/**
 * vocabulary_find_near() - vocabulary_find_plain() for somebody who expects the token @guess (any number)
 * A right guess costs no look into the hash table, which for large vocabularies lies outside the caches.
 */
int32_t vocabulary_find_near(const struct vocabulary *v, int32_t guess, const char *text, size_t n_bytes);

/**
 * vocabulary_text() - the spelling of token @id < v->n
 */
const char *vocabulary_text(const struct vocabulary *v, uint32_t id, size_t *ret_n);

/**
 * vocabulary_is_special() - whether @id stands for no text: control and unknown tokens
 */
bool vocabulary_is_special(const struct vocabulary *v, uint32_t id);
