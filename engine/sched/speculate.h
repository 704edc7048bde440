/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Speculation: tokens that a sequence may go on with are computed in the same step as its last known one, so that
 * a step that reads all weights anyway may bring several tokens. Whether a draft is right the model alone says: what
 * is sampled behind each token is compared with it. So drafts change how long an answer takes and not a bit of it.
 *
 * A draft comes from the sequence itself (what followed the last time when the same tokens stood there; Saxena 2023,
 * "prompt lookup decoding"), from a grammar that leaves no choice, or from a smaller model. How long it should be
 * follows from how often such drafts were right and from what a further token costs beside the step: with the
 * probability p that a token is right, a draft of k brings (1 - p^(k+1)) / (1 - p) tokens for 1 + k * cost steps
 * (Leviathan et al. 2023, arXiv 2211.17192).
 *
 * Pure; no state but the caller's.
 */

#include <stdint.h>

/* Drafts longer than this hardly ever pay: a matrix multiplication of more rows is bound by arithmetic. */
#define SPECULATE_TOKENS_MAX 12

/* How well drafts for one sequence did; zeroed at its beginning. Older ones count less. */
struct speculation {
    double n_tried;
    double n_right;
};

/**
 * speculate_length() - how many tokens a draft for a sequence should have
 * @token_cost: what one token more in a step costs, in steps
 * Returns 0 (it would not pay) to @n_max.
 */
uint32_t speculate_length(const struct speculation *s, double token_cost, uint32_t n_max);

/**
 * speculate_learn() - how a draft did: of @n_drafted tokens the first @n_right were right
 * With 0 and 0 for a step without one: what was bad is tried again after a while.
 */
void speculate_learn(struct speculation *s, uint32_t n_drafted, uint32_t n_right);

/**
 * speculate_lookup() - what followed the longest earlier place that ends with the same tokens as the whole
 * @tokens: [n_tokens + n_max]; the draft is written behind the first n_tokens. Of equally long places the last counts
 * Returns its length: n_max, or 0 when there is no such place. O(n_tokens), bounded.
 */
uint32_t speculate_lookup(int32_t *tokens, uint32_t n_tokens, uint32_t n_max);
