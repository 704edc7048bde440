/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a grammar means, the slow and obvious way: a recogniser that walks the tree over all ends that a node
 * may have, and a vocabulary that has something of everything. The tests of masks compare with these.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/grammar/grammar.h"
#include "engine/grammar/ir.h"
#include "engine/grammar/vocabulary.h"

#define CHECKER_BYTES_MAX 63

/* What may become of a text. */
enum checker_answer {
    CHECKER_VIABLE = 1 << 0, /* more may follow, and has to or can */
    CHECKER_WHOLE = 1 << 1,  /* it is a text of the grammar */
};

/**
 * checker_ask() - about a text of at most CHECKER_BYTES_MAX bytes. All rules of @ir must be able to end.
 */
unsigned checker_ask(const struct ir *ir, const char *text, size_t n);

/**
 * checker_vocabulary() - 256 bytes, words, runs, parts of characters, ends: see checker.c
 */
struct grammar_vocabulary *checker_vocabulary(void);
uint32_t checker_n_tokens(void);

/**
 * checker_piece() - bytes of a token, as of grammar_vocabulary_piece
 */
size_t checker_piece(const void *userdata, int32_t token, const char **ret);
bool checker_is_end(const void *userdata, int32_t token);

#define CHECKER_CONTROL 256 /* a control token: stands for no text */
#define CHECKER_END     257 /* ends the answer */

/**
 * checker_random() - SplitMix64
 */
uint64_t checker_random(uint64_t *state);
