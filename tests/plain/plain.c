/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The transformer of the llama family, layer by layer over all tokens at once. A family that differs says so
 * in model_read(), and where the difference is one of shape, in a branch of the layer.
 */
#include "tests/plain/plain.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "tests/plain/parts.h"

struct model {
    const struct gguf *gguf;
    const struct plain_options *options;
    uint32_t n_layers, dim, ff, n_vocab;
    double epsilon;
    struct plain_attention attention;
    struct plain_rope rope;
};

static void model_read(const struct gguf *g, const struct plain_options *o, struct model *m)
{
    uint32_t head;

    *m = (struct model){
        .gguf = g,
        .options = o,
        .n_layers = plain_u32(g, "block_count", 0),
        .dim = plain_u32(g, "embedding_length", 0),
        .ff = plain_u32(g, "feed_forward_length", 0),
        .n_vocab = plain_n_vocab(g),
        .epsilon = plain_f32(g, "attention.layer_norm_rms_epsilon", 0),
    };
    m->attention.n_heads = plain_u32(g, "attention.head_count", 1);
    m->attention.n_kv_heads = plain_u32(g, "attention.head_count_kv", m->attention.n_heads);
    head = m->dim / m->attention.n_heads;
    m->attention.k_dim = plain_u32(g, "attention.key_length", head);
    m->attention.v_dim = plain_u32(g, "attention.value_length", head);
    m->attention.scale = 1 / sqrt(m->attention.k_dim);
    plain_rope_read(g, plain_u32(g, "rope.dimension_count", m->attention.k_dim), /* interleaved= */ true,
                    10000, &m->rope);
}

static void add(double *x, const double *y, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        x[i] += y[i];
}

static void attention_block(const struct model *m, int layer, double *x, uint32_t n)
{
    const struct plain_attention *a = &m->attention;
    uint64_t n_q = (uint64_t)n * a->n_heads * a->k_dim, n_out = (uint64_t)n * a->n_heads * a->v_dim;
    uint64_t n_k = (uint64_t)n * a->n_kv_heads * a->k_dim, n_v = (uint64_t)n * a->n_kv_heads * a->v_dim;
    _cleanup_free_ double *normed = plain_new((uint64_t)n * m->dim), *q = plain_new(n_q), *k = plain_new(n_k);
    _cleanup_free_ double *v = plain_new(n_v), *out = plain_new(n_out), *y = plain_new((uint64_t)n * m->dim);

    plain_norm(plain_tensor(m->gguf, layer, "attn_norm.weight"), m->epsilon, x, n, m->dim, normed);
    plain_linear(m->gguf, m->options, layer, "attn_q", normed, n, q);
    plain_linear(m->gguf, m->options, layer, "attn_k", normed, n, k);
    plain_linear(m->gguf, m->options, layer, "attn_v", normed, n, v);
    plain_rope(&m->rope, q, n, a->n_heads, a->k_dim);
    plain_rope(&m->rope, k, n, a->n_kv_heads, a->k_dim);
    if (m->options->kv_f16) {
        plain_round_f16(k, n_k);
        plain_round_f16(v, n_v);
    }
    plain_attend(a, q, k, v, n, out);
    plain_linear(m->gguf, m->options, layer, "attn_output", out, n, y);
    add(x, y, (uint64_t)n * m->dim);
}

static void ffn_block(const struct model *m, int layer, double *x, uint32_t n)
{
    uint64_t n_ff = (uint64_t)n * m->ff;
    _cleanup_free_ double *normed = plain_new((uint64_t)n * m->dim), *gate = plain_new(n_ff),
                          *up = plain_new(n_ff);
    _cleanup_free_ double *y = plain_new((uint64_t)n * m->dim);

    plain_norm(plain_tensor(m->gguf, layer, "ffn_norm.weight"), m->epsilon, x, n, m->dim, normed);
    plain_linear(m->gguf, m->options, layer, "ffn_gate", normed, n, gate);
    plain_linear(m->gguf, m->options, layer, "ffn_up", normed, n, up);
    for (uint64_t i = 0; i < n_ff; i++)
        gate[i] = plain_silu(gate[i]) * up[i];
    plain_linear(m->gguf, m->options, layer, "ffn_down", gate, n, y);
    add(x, y, (uint64_t)n * m->dim);
}

uint32_t plain_n_vocab(const struct gguf *g)
{
    return (uint32_t)plain_tensor(g, -1, "token_embd.weight")->n_rows;
}

void plain_logits(const struct gguf *g, const struct plain_options *options, const int32_t *tokens,
                  uint32_t n_tokens, double *ret_logits)
{
    const struct gguf_tensor *embedding = plain_tensor(g, -1, "token_embd.weight");
    const struct gguf_tensor *head = plain_tensor(g, -1, "output.weight");
    _cleanup_free_ double *x = NULL, *normed = NULL;
    struct model m;

    model_read(g, options, &m);
    x = plain_new((uint64_t)n_tokens * m.dim);
    normed = plain_new((uint64_t)n_tokens * m.dim);
    for (uint32_t t = 0; t < n_tokens; t++)
        plain_row(embedding, (uint64_t)tokens[t], x + (uint64_t)t * m.dim);
    for (uint32_t layer = 0; layer < m.n_layers; layer++) {
        attention_block(&m, (int)layer, x, n_tokens);
        ffn_block(&m, (int)layer, x, n_tokens);
    }
    plain_norm(plain_tensor(g, -1, "output_norm.weight"), m.epsilon, x, n_tokens, m.dim, normed);
    plain_multiply(head ? head : embedding, 0, m.n_vocab, options, normed, n_tokens, ret_logits);
}
