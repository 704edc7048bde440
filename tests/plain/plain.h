/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The forward pass as the papers write it: every value a double, every matrix dequantised whole, no cache, no batch, no
 * kernels, no threads. It shares the file reader and dequantise_row() with the engine (which are compared with the
 * reference folder's blocks) and nothing else, so that the two are wrong in the same way only by chance.
 *
 * For tests: a model that is no model ends the program with a message.
 */

#include <stdbool.h>
#include <stdint.h>

#include "engine/gguf/read.h"

/* What the engine does to its numbers on purpose. All false: the true answer. */
struct plain_options {
    bool kv_f16;    /* keys and values are rounded to F16 before attention reads them */
    bool act_int8;  /* a product with a quantised matrix sees its activations through int8: one scale for each block of
                       the matrix's type (docs/decisions.md, the rule of sums) */
    double *router_margins; /* NULL, or [n_tokens]: how near the token's experts were to be others: the least layer's
                               distance between the router's last chosen and first other logit; INFINITY where there is
                               no such choice (none, all, or one by groups) */
    const struct gguf *adapter; /* NULL: none. Every product with a matrix W becomes W x + alpha / rank * B (A x) */
};

/**
 * plain_logits() - run @tokens (positions from 0) through the model
 * @ret_logits: [n_tokens, n_vocab], row-major
 * Takes time of the order n_tokens * weights + layers * n_tokens^2.
 */
void plain_logits(const struct gguf *g, const struct plain_options *options, const int32_t *tokens, uint32_t n_tokens,
                  double *ret_logits);

/**
 * plain_embeddings() - run @tokens through an encoder
 * @ret: [n_tokens, dim], row-major: the last norm's result
 */
void plain_embeddings(const struct gguf *g, const struct plain_options *options, const int32_t *tokens,
                      uint32_t n_tokens, double *ret);

/**
 * plain_n_vocab() - tokens of the model's vocabulary
 */
uint32_t plain_n_vocab(const struct gguf *g);
