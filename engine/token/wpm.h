/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * WordPiece ("bert"): words by white space and punctuation, each taken apart by the longest token that fits, from the
 * left; a word that can't be taken apart wholly is one unknown token. Private to engine/token.
 */

#include <stdbool.h>
#include <stddef.h>

#include "engine/token/trie.h"

struct gguf;
struct ids;
struct vocabulary;

struct wpm {
    struct trie trie;
    bool lowercase, strip_accents;
};

/**
 * wpm_init() - read tokenizer.ggml.normalizer.*, and put the spellings into a trie; @w is all zero
 * Returns 0, -EINVAL (with *reterr), -ENOMEM; wpm_done() has to be called even then.
 */
int wpm_init(struct wpm *w, const struct vocabulary *v, const struct gguf *g, struct fault *reterr);

/**
 * wpm_done() - release what is embedded in @w
 */
void wpm_done(struct wpm *w);

/**
 * wpm_encode() - append the ids of a piece of plain text
 * What is no UTF-8 is left out, as control characters are. Returns 0 or -ENOMEM.
 */
int wpm_encode(const struct wpm *w, const struct vocabulary *v, const char *text, size_t n_bytes, struct ids *to);
