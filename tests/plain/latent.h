/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What DeepSeek's models have of their own, as their papers write it (arXiv 2405.04434, 2.1.2 and 2412.19437, 2.1.2):
 * keys and values of every head are made from the latent, nothing is absorbed into anything. Only where activations are
 * to be rounded as the engine rounds them (plain_options.act_int8), they have to be multiplied in the engine's order.
 */

#include "tests/plain/parts.h"

/**
 * plain_latent() - @y[n, dim] = the layer's attention of the normed stream @x[n, dim], output matrix included
 * @rope: frequencies; its magnitude is not looked at
 */
void plain_latent(const struct gguf *g, const struct plain_options *o, int layer, const struct plain_rope *rope,
                  double epsilon, const double *x, uint32_t n, double *y);

/**
 * plain_latent_route() - @scores[@n], logits of experts, become the weights of the @n_used that are chosen, 0 elsewhere
 */
void plain_latent_route(const struct gguf *g, int layer, double *scores, uint32_t n, uint32_t n_used);
