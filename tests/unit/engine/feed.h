/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Feeding an engine from a test: one sequence in chunks, and models by path or as bytes. What can't go wrong in a test
 * ends the program with a message.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fault.h"
#include "engine/engine.h"

/**
 * feed_open_path() - engine_open() of the file @path; config->fds and n_fds are set here
 * Returns what engine_open() does.
 */
int feed_open_path(const char *path, struct engine_config *config, struct engine **ret, struct fault *reterr);

/**
 * feed_step() - one step of @n tokens of one sequence that continue it
 * @ret_logits: [n, n_vocab] with a row for every token (facts.outputs_max must allow it), or NULL: wants none
 * Returns what engine_step() does.
 */
int feed_step(struct engine *e, uint32_t sequence, const int32_t *tokens, uint32_t n, const float **ret_logits);

/**
 * feed_tokens() - @n tokens in steps of @chunk that continue the sequence; every step has to work
 * @ret_logits: [n, n_vocab], the caller's array, or NULL
 */
void feed_tokens(struct engine *e, uint32_t sequence, const int32_t *tokens, uint32_t n, uint32_t chunk,
                 float *ret_logits);

/**
 * feed_new() - feed_tokens() into a sequence of its own, which is closed again
 */
void feed_new(struct engine *e, const int32_t *tokens, uint32_t n, uint32_t chunk, float *ret_logits);

/**
 * feed_greedy() - feed @prompt into a sequence of its own and continue it with @n most likely tokens
 */
void feed_greedy(struct engine *e, const int32_t *prompt, uint32_t n_prompt, uint32_t n, int32_t *ret);

/**
 * feed_most_likely() - the first of the largest of @n_vocab logits
 */
int32_t feed_most_likely(const float *logits, uint32_t n_vocab);

/**
 * feed_n_vocab() - facts.n_vocab
 */
uint32_t feed_n_vocab(const struct engine *e);
