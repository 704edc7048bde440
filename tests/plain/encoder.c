/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Encoders, as the papers write them: bert (learned positions, biases, GELU) and nomic-bert (rotated positions, SwiGLU).
 * Every token attends to all; norms of mean and deviation stand behind each sum.
 */
#include <math.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "tests/plain/parts.h"

struct encoder {
    const struct gguf *gguf;
    const struct plain_options *options;
    uint32_t dim, ff, n_heads, head_dim;
    double epsilon;
    bool rotated;
    struct plain_rope rope;
};

static double gelu(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

static void layer_norm(const struct encoder *e, int layer, const char *weight, const char *bias, double *x, uint32_t n)
{
    _cleanup_free_ double *w = plain_new(e->dim), *b = plain_new(e->dim);

    plain_row(plain_tensor(e->gguf, layer, weight), 0, w);
    plain_row(plain_tensor(e->gguf, layer, bias), 0, b);
    for (uint32_t t = 0; t < n; t++, x += e->dim) {
        double mean = 0, variance = 0;

        for (uint32_t i = 0; i < e->dim; i++)
            mean += x[i] / e->dim;
        for (uint32_t i = 0; i < e->dim; i++)
            variance += (x[i] - mean) * (x[i] - mean) / e->dim;
        for (uint32_t i = 0; i < e->dim; i++)
            x[i] = (x[i] - mean) / sqrt(variance + e->epsilon) * w[i] + b[i];
    }
}

/* Each query with all keys of its head. */
static void attend(const struct encoder *e, const double *q, const double *k, const double *v, uint32_t n, double *y)
{
    _cleanup_free_ double *weights = plain_new(n);

    for (uint32_t t = 0; t < n; t++) {
        for (uint32_t h = 0; h < e->n_heads; h++) {
            double sum = 0;

            for (uint32_t s = 0; s < n; s++) {
                double score = 0;

                for (uint32_t i = 0; i < e->head_dim; i++)
                    score += q[(uint64_t)t * e->dim + h * e->head_dim + i] * k[(uint64_t)s * e->dim + h * e->head_dim + i];
                sum += weights[s] = exp(score / sqrt(e->head_dim));
            }
            for (uint32_t i = 0; i < e->head_dim; i++) {
                double value = 0;

                for (uint32_t s = 0; s < n; s++)
                    value += weights[s] / sum * v[(uint64_t)s * e->dim + h * e->head_dim + i];
                y[(uint64_t)t * e->dim + h * e->head_dim + i] = value;
            }
        }
    }
}

static void add(double *x, const double *y, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        x[i] += y[i];
}

static void attention(const struct encoder *e, int layer, double *x, uint32_t n)
{
    uint64_t size = (uint64_t)n * e->dim;
    _cleanup_free_ double *q = plain_new(size), *k = plain_new(size), *v = plain_new(size), *y = plain_new(size);
    const struct gguf_tensor *all = plain_tensor(e->gguf, layer, "attn_qkv.weight");

    if (all) {
        plain_multiply(all, 0, e->dim, e->options, x, n, q);
        plain_multiply(all, e->dim, e->dim, e->options, x, n, k);
        plain_multiply(all, 2 * (uint64_t)e->dim, e->dim, e->options, x, n, v);
    } else {
        plain_linear(e->gguf, e->options, layer, "attn_q", x, n, q);
        plain_linear(e->gguf, e->options, layer, "attn_k", x, n, k);
        plain_linear(e->gguf, e->options, layer, "attn_v", x, n, v);
    }
    if (e->rotated) {
        plain_rope(&e->rope, q, n, e->n_heads, e->head_dim);
        plain_rope(&e->rope, k, n, e->n_heads, e->head_dim);
    }
    attend(e, q, k, v, n, y);
    plain_linear(e->gguf, e->options, layer, "attn_output", y, n, q);
    add(x, q, size);
    layer_norm(e, layer, "attn_output_norm.weight", "attn_output_norm.bias", x, n);
}

static void feed_forward(const struct encoder *e, int layer, double *x, uint32_t n)
{
    uint64_t size = (uint64_t)n * e->dim, n_ff = (uint64_t)n * e->ff;
    _cleanup_free_ double *up = plain_new(n_ff), *gate = plain_new(n_ff), *y = plain_new(size);

    plain_linear(e->gguf, e->options, layer, "ffn_up", x, n, up);
    if (plain_tensor(e->gguf, layer, "ffn_gate.weight")) {
        plain_linear(e->gguf, e->options, layer, "ffn_gate", x, n, gate);
        for (uint64_t i = 0; i < n_ff; i++)
            up[i] *= plain_silu(gate[i]);
    } else {
        for (uint64_t i = 0; i < n_ff; i++)
            up[i] = gelu(up[i]);
    }
    plain_linear(e->gguf, e->options, layer, "ffn_down", up, n, y);
    add(x, y, size);
    layer_norm(e, layer, "layer_output_norm.weight", "layer_output_norm.bias", x, n);
}

void plain_embeddings(const struct gguf *g, const struct plain_options *options, const int32_t *tokens,
                      uint32_t n_tokens, double *ret)
{
    const struct gguf_tensor *positions = plain_tensor(g, -1, "position_embd.weight");
    const struct gguf_tensor *kinds = plain_tensor(g, -1, "token_types.weight");
    struct encoder e = {
        .gguf = g,
        .options = options,
        .dim = plain_u32(g, "embedding_length", 0),
        .ff = plain_u32(g, "feed_forward_length", 0),
        .n_heads = plain_u32(g, "attention.head_count", 1),
        .epsilon = plain_f32(g, "attention.layer_norm_epsilon", 0),
        .rotated = !positions,
    };
    _cleanup_free_ double *row = plain_new(e.dim);
    uint32_t n_layers = plain_u32(g, "block_count", 0);

    e.head_dim = e.dim / e.n_heads;
    plain_rope_read(g, e.head_dim, /* interleaved= */ false, 10000, &e.rope);
    for (uint32_t t = 0; t < n_tokens; t++) {
        double *x = ret + (uint64_t)t * e.dim;

        plain_row(plain_tensor(g, -1, "token_embd.weight"), (uint64_t)tokens[t], x);
        if (kinds) {
            plain_row(kinds, 0, row);
            add(x, row, e.dim);
        }
        if (positions) {
            plain_row(positions, t, row);
            add(x, row, e.dim);
        }
    }
    layer_norm(&e, -1, "token_embd_norm.weight", "token_embd_norm.bias", ret, n_tokens);
    for (uint32_t layer = 0; layer < n_layers; layer++) {
        attention(&e, (int)layer, ret, n_tokens);
        feed_forward(&e, (int)layer, ret, n_tokens);
    }
}
