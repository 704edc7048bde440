/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The transformer, layer by layer over all tokens at once. What a family has of its own stands in family.c, and where
 * the difference is one of shape, in a branch here.
 */
#include "tests/plain/plain.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "tests/plain/family.h"
#include "tests/plain/latent.h"

struct model {
    const struct gguf *gguf;
    const struct plain_family *family;
    const struct plain_options *options;
    uint32_t n_layers, dim, ff, n_vocab;
    double epsilon;
    double embedding_scale, residual_scale, logit_divisor, logit_cap;
    struct plain_attention attention;
    uint32_t window;
    struct plain_rope rope, window_rope;
};

static void model_read(const struct gguf *g, const struct plain_options *o, struct model *m)
{
    const struct plain_family *f = plain_family(g);
    uint32_t head, n_rot;

    *m = (struct model){
        .gguf = g,
        .family = f,
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
    n_rot = plain_u32(g, "rope.dimension_count", m->attention.k_dim);
    m->attention.scale = 1 / sqrt(f->layers_27b == m->n_layers && m->n_layers ? head : m->attention.k_dim);
    m->attention.scale = plain_f32(g, "attention.scale", m->attention.scale);
    m->attention.softcap = plain_f32(g, "attn_logit_softcapping", 0);
    m->window = plain_u32(g, "attention.sliding_window", 0);
    m->embedding_scale = plain_f32(g, "embedding_scale", f->scaled_embedding ? sqrt(m->dim) : 1);
    m->residual_scale = plain_f32(g, "residual_scale", 1);
    m->logit_divisor = plain_f32(g, "logit_scale", 1);
    m->logit_cap = plain_f32(g, "final_logit_softcapping", 0);
    plain_rope_read(g, n_rot, f->interleaved, 10000, &m->rope);
    m->window_rope = m->rope;
    for (uint32_t i = 0; f->window_rope_base > 0 && i < n_rot / 2; i++)
        m->window_rope.frequency[i] = pow(f->window_rope_base, -2.0 * i / n_rot);
}

static bool is_nth(uint32_t layer, uint32_t period)
{
    return period > 0 && (layer + 1) % period == 0;
}

/* x = x + scale * y, where y has a norm of its own first if the family has such norms. */
static void add(const struct model *m, int layer, const char *post_norm, double *x, double *y, uint32_t n)
{
    if (m->family->post_norms)
        plain_norm(plain_tensor(m->gguf, layer, post_norm), m->epsilon, y, n, m->dim, y);
    for (uint64_t i = 0; i < (uint64_t)n * m->dim; i++)
        x[i] += m->residual_scale * y[i];
}

/* q, k and v from their matrices, or from the one that has the rows of all three. */
static void qkv(const struct model *m, int layer, const double *x, uint32_t n, double *q, double *k, double *v)
{
    const struct gguf_tensor *all = plain_tensor(m->gguf, layer, "attn_qkv.weight");
    const struct plain_attention *a = &m->attention;
    uint64_t n_q = a->n_heads * a->k_dim, n_k = a->n_kv_heads * a->k_dim, n_v = a->n_kv_heads * a->v_dim;

    if (all) {
        plain_multiply(all, 0, n_q, m->options, x, n, q);
        plain_multiply(all, n_q, n_k, m->options, x, n, k);
        plain_multiply(all, n_q + n_k, n_v, m->options, x, n, v);
    } else {
        plain_linear(m->gguf, m->options, layer, "attn_q", x, n, q);
        plain_linear(m->gguf, m->options, layer, "attn_k", x, n, k);
        plain_linear(m->gguf, m->options, layer, "attn_v", x, n, v);
    }
}

static void attention_block(const struct model *m, int layer, double *x, uint32_t n)
{
    struct plain_attention a = m->attention;
    uint64_t n_q = (uint64_t)n * a.n_heads * a.k_dim, n_out = (uint64_t)n * a.n_heads * a.v_dim;
    uint64_t n_k = (uint64_t)n * a.n_kv_heads * a.k_dim, n_v = (uint64_t)n * a.n_kv_heads * a.v_dim;
    _cleanup_free_ double *normed = plain_new((uint64_t)n * m->dim), *q = plain_new(n_q), *k = plain_new(n_k);
    _cleanup_free_ double *v = plain_new(n_v), *out = plain_new(n_out), *y = plain_new((uint64_t)n * m->dim);
    _cleanup_free_ double *sinks = plain_new(a.n_heads);
    bool windowed = m->window > 0 && !is_nth((uint32_t)layer, m->family->window_period);
    const struct plain_rope *rope = windowed ? &m->window_rope : &m->rope;

    plain_norm(plain_tensor(m->gguf, layer, "attn_norm.weight"), m->epsilon, x, n, m->dim, normed);
    qkv(m, layer, normed, n, q, k, v);
    if (m->family->qk_norm) {
        plain_norm(plain_tensor(m->gguf, layer, "attn_q_norm.weight"), m->epsilon, q, n * a.n_heads, a.k_dim, q);
        plain_norm(plain_tensor(m->gguf, layer, "attn_k_norm.weight"), m->epsilon, k, n * a.n_kv_heads, a.k_dim, k);
    }
    if (!is_nth((uint32_t)layer, m->family->unrotated_period)) {
        plain_rope(rope, q, n, a.n_heads, a.k_dim);
        plain_rope(rope, k, n, a.n_kv_heads, a.k_dim);
    }
    if (m->options->kv_f16) {
        plain_round_f16(k, n_k);
        plain_round_f16(v, n_v);
    }
    a.window = windowed ? m->window : 0;
    if (m->family->sinks) {
        plain_row(plain_tensor(m->gguf, layer, "attn_sinks.weight"), 0, sinks);
        a.sinks = sinks;
    }
    plain_attend(&a, q, k, v, n, out);
    plain_linear(m->gguf, m->options, layer, "attn_output", out, n, y);
    add(m, layer, "post_attention_norm.weight", x, y, n);
}

/* gate, up and down; gate and up may be one matrix, gate first. */
static void dense(const struct model *m, int layer, const double *x, uint32_t n, double *y)
{
    const struct gguf_tensor *up_weight = plain_tensor(m->gguf, layer, "ffn_up.weight");
    uint64_t n_ff = (uint64_t)n * m->ff;
    _cleanup_free_ double *gate = plain_new(n_ff), *up = plain_new(n_ff);

    if (up_weight->n_rows == 2 * (uint64_t)m->ff) {
        plain_multiply(up_weight, 0, m->ff, m->options, x, n, gate);
        plain_multiply(up_weight, m->ff, m->ff, m->options, x, n, up);
    } else {
        plain_linear(m->gguf, m->options, layer, "ffn_gate", x, n, gate);
        plain_linear(m->gguf, m->options, layer, "ffn_up", x, n, up);
    }
    plain_activate(m->family, gate, up, n_ff);
    plain_linear(m->gguf, m->options, layer, "ffn_down", gate, n, y);
}

static void latent_block(const struct model *m, int layer, double *x, uint32_t n)
{
    _cleanup_free_ double *normed = plain_new((uint64_t)n * m->dim), *y = plain_new((uint64_t)n * m->dim);

    plain_norm(plain_tensor(m->gguf, layer, "attn_norm.weight"), m->epsilon, x, n, m->dim, normed);
    plain_latent(m->gguf, m->options, layer, &m->rope, m->epsilon, normed, n, y);
    add(m, layer, NULL, x, y, n);
}

static void ffn_block(const struct model *m, int layer, double *x, uint32_t n)
{
    _cleanup_free_ double *normed = plain_new((uint64_t)n * m->dim), *y = plain_new((uint64_t)n * m->dim);
    const char *norm = m->family->ffn_norm ? m->family->ffn_norm : "ffn_norm.weight";

    plain_norm(plain_tensor(m->gguf, layer, norm), m->epsilon, x, n, m->dim, normed);
    if (plain_tensor(m->gguf, layer, "ffn_gate_inp.weight"))
        plain_experts(m->gguf, m->family, m->options, layer, normed, n, m->dim, y);
    else
        dense(m, layer, normed, n, y);
    add(m, layer, "post_ffw_norm.weight", x, y, n);
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
    for (uint32_t t = 0; options->router_margins && t < n_tokens; t++)
        options->router_margins[t] = INFINITY;
    for (uint32_t t = 0; t < n_tokens; t++)
        plain_row(embedding, (uint64_t)tokens[t], x + (uint64_t)t * m.dim);
    for (uint64_t i = 0; i < (uint64_t)n_tokens * m.dim; i++)
        x[i] *= m.embedding_scale;
    for (uint32_t layer = 0; layer < m.n_layers; layer++) {
        if (m.family->latent)
            latent_block(&m, (int)layer, x, n_tokens);
        else
            attention_block(&m, (int)layer, x, n_tokens);
        ffn_block(&m, (int)layer, x, n_tokens);
    }
    plain_norm(plain_tensor(g, -1, "output_norm.weight"), m.epsilon, x, n_tokens, m.dim, normed);
    plain_multiply(head ? head : embedding, 0, m.n_vocab, options, normed, n_tokens, ret_logits);
    for (uint64_t i = 0; i < (uint64_t)n_tokens * m.n_vocab; i++) {
        ret_logits[i] /= m.logit_divisor;
        if (m.logit_cap > 0)
            ret_logits[i] = m.logit_cap * tanh(ret_logits[i] / m.logit_cap);
    }
}
