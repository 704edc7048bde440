/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * SentencePiece's BPE ("llama"): characters merge in the order of the scores of what comes out; what is no token in the
 * end becomes byte tokens. Private to engine/token.
 */

#include <stdbool.h>
#include <stddef.h>

struct ids;
struct merger;
struct vocabulary;

/**
 * spm_words_apart() - whether no token reaches over the beginning of a word, so that words can be merged one by one
 * That is: no token has U+2581 behind another character. O(size of the vocabulary), once a model.
 */
bool spm_words_apart(const struct vocabulary *v);

/**
 * spm_encode() - append the ids of a piece of plain text
 * @words_apart: what spm_words_apart() said
 * @space_first: the text begins as if there were a space before it
 * Returns 0 or -ENOMEM.
 */
int spm_encode(const struct vocabulary *v, bool words_apart, struct merger *m, const char *text, size_t n_bytes,
               bool space_first, struct ids *to);
