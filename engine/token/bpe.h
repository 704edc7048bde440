/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Byte-pair encoding ("gpt2"): the bytes of a word merge in the order of the model's list of merges. In raw
 * vocabularies ("gemma4") characters merge, with U+2581 for spaces. Private to engine/token.
 */

#include <stddef.h>
#include <stdint.h>

struct fault;
struct gguf;
struct ids;
struct merger;
struct vocabulary;

struct merge {
    uint64_t pair; /* left id << 32 | right id */
    uint32_t rank; /* place in the list; MERGE_NONE: the slot is empty */
    int32_t id;    /* what comes out */
};

struct merges {
    struct merge *slots; /* [mask + 1], open addressing */
    uint64_t mask, seed;
};

/**
 * merges_init() - read tokenizer.ggml.merges; @m is all zero
 * Merges that name spellings which are no tokens (or control tokens) are left out: no text could show their result.
 * Returns 0, -EINVAL (with *reterr), -ENOMEM; merges_done() has to be called even then.
 */
int merges_init(struct merges *m, const struct vocabulary *v, const struct gguf *g, struct fault *reterr);

/**
 * merges_done() - release the table
 */
void merges_done(struct merges *m);

/**
 * bpe_encode_word() - append the ids of one word, as the pre-tokenizer cut it
 * @flags: enum family_flags: FAMILY_WHOLE_WORDS takes the word as a token if it is one, whatever the merges say
 * A byte that the vocabulary has no token for is left out. Returns 0 or -ENOMEM.
 */
int bpe_encode_word(const struct vocabulary *v, const struct merges *merges, unsigned flags, struct merger *m,
                    const char *word, size_t n_bytes, struct ids *to);

/**
 * bpe_encode_raw_word() - the same for raw vocabularies: a character without a token is its bytes' tokens
 */
int bpe_encode_raw_word(const struct vocabulary *v, const struct merges *merges, unsigned flags, struct merger *m,
                        const char *word, size_t n_bytes, struct ids *to);
