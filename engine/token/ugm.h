/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * SentencePiece's unigram model ("t5", XLM-R): characters are normalised by the model's map, and of all ways to write
 * the text in tokens the one with the highest sum of scores is taken. Private to engine/token.
 */

#include <stdbool.h>
#include <stddef.h>

#include "engine/token/charsmap.h"
#include "engine/token/trie.h"

struct ids;
struct vocabulary;

struct ugm {
    struct charsmap charsmap;
    struct trie trie;
    double unknown_score; /* of a character that no token covers */
    bool words_apart;     /* no token reaches over the beginning of a word */
    bool space_prefix, merge_spaces;
};

/**
 * ugm_init() - read what the kind needs besides the vocabulary; @u is all zero
 * Returns 0, -EINVAL (with *reterr), -ENOMEM; ugm_done() has to be called even then.
 */
int ugm_init(struct ugm *u, const struct vocabulary *v, const struct gguf *g, struct fault *reterr);

/**
 * ugm_done() - release what is embedded in @u
 */
void ugm_done(struct ugm *u);

/**
 * ugm_encode() - append the ids of a piece of plain text; what is no UTF-8 is U+FFFD
 * Returns 0; -ERANGE (normalised, the text has more than NORMALISED_BYTES_MAX bytes); -ENOMEM.
 */
int ugm_encode(const struct ugm *u, const struct vocabulary *v, const char *text, size_t n_bytes, struct ids *to);
