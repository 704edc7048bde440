/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Latent attention (MLA; DeepSeek-V2, arXiv 2405.04434, 2.1): keys and values of all heads are products of one short
 * vector a token, the latent c, and of a part k_rope that carries the position and is the same for all heads:
 *
 *     k_h = [K_h c, k_rope]        v_h = V_h c        q_h = [q_nope, q_rope]
 *
 * Since q_nope · (K_h c) = (K_hᵀ q_nope) · c, the cache may hold c and k_rope alone, if a file has K_hᵀ (attn_k_b) and
 * V_h (attn_v_b) apart: then all heads share one key [k_rope, c] and one value c, and what attention gives is
 * multiplied with V_h. Older files have [K_h; V_h] in one matrix (attn_kv_b), whose transposed rows can't be had
 * without unpacking them: there keys and values are computed and cached head by head.
 *
 * The part with the position stands first in a head, where rotation is; files have it last in q.
 */

#include "engine/arch/latent.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/fault.h"
#include "engine/arch/blocks.h"

/* One layer under construction. Values: */
struct latent_layer {
    const struct arch_latent *l;
    uint32_t q, latent, k_rope; /* f32 [tokens, n_heads * (n_nope + n_rot)], [tokens, kv_rank], [tokens, n_rot] */
    uint32_t joined_q, joined_k, v;
};

/* A norm of @n columns over @in, whose result is packed for products with @weight, if there is one. */
static int inner_norm(struct arch_build *b, uint32_t layer, const char *name, uint32_t n, uint32_t in,
                      struct graph_linear *reader, uint32_t *ret)
{
    struct graph_op op = {.type = GRAPH_NORM,
                          .norm = {.kind = GRAPH_NORM_RMS, .in = in, .epsilon = b->config->epsilon, .add = GRAPH_NONE}};
    struct arch_packs packs = {};
    int r;

    r = arch_vector(b, layer, name, ARCH_REQUIRED, n, &op.norm.weight);
    if (r == 0)
        r = graph_value_f32(b->graph, GRAPH_ROWS_TOKENS, n, &op.norm.out);
    if (r == 0 && reader)
        r = arch_packs_need(b, &packs, GRAPH_ROWS_TOKENS, &reader->weight, &reader->in);
    if (r < 0)
        return r;
    *ret = op.norm.out;
    return arch_norm_add(b, &op, &packs);
}

/* q (or its own latent), c and k_rope, which are products of the same normed input. */
static int first_products(struct arch_build *b, uint32_t layer, struct latent_layer *s, uint32_t x)
{
    const struct arch_config *c = b->config;
    const struct arch_latent *l = s->l;
    uint32_t n_q = c->n_heads * (l->n_nope + c->n_rot);
    struct graph_op norm, op = arch_linear_op(3);
    struct graph_linear *part = op.linear.parts;
    struct arch_packs packs = {};
    struct graph_tensor kv;
    int r;

    r = arch_norm_init(b, layer, "attn_norm", x, GRAPH_ROWS_TOKENS, &norm);
    if (r == 0)
        r = arch_linear_init(b, layer, l->q_rank ? "attn_q_a" : "attn_q", c->n_embedding, l->q_rank ? l->q_rank : n_q,
                             &part[0]);
    if (r == 0)
        r = arch_matrix(b, layer, "attn_kv_a_mqa.weight", ARCH_REQUIRED, c->n_embedding, l->kv_rank + c->n_rot, &kv);
    if (r < 0)
        return r;
    part[1] = (struct graph_linear){.weight = arch_rows(&kv, 0, l->kv_rank)};
    part[2] = (struct graph_linear){.weight = arch_rows(&kv, l->kv_rank, c->n_rot)};
    r = graph_value_f32(b->graph, GRAPH_ROWS_TOKENS, l->kv_rank, &part[1].out);
    if (r == 0)
        r = graph_value_f32(b->graph, GRAPH_ROWS_TOKENS, c->n_rot, &part[2].out);
    for (uint32_t i = 0; r == 0 && i < 3; i++)
        r = arch_packs_need(b, &packs, GRAPH_ROWS_TOKENS, &part[i].weight, &part[i].in);
    if (r == 0)
        r = arch_norm_add(b, &norm, &packs);
    if (r < 0)
        return r;
    s->q = part[0].out;
    s->latent = part[1].out;
    s->k_rope = part[2].out;
    return graph_add(b->graph, &op);
}

/* Where q has a latent of its own: its norm, and q. */
static int second_product(struct arch_build *b, uint32_t layer, struct latent_layer *s)
{
    struct graph_op op = arch_linear_op(1);
    uint32_t normed;
    int r;

    if (s->l->q_rank == 0)
        return 0;
    r = arch_linear_init(b, layer, "attn_q_b", s->l->q_rank, b->config->n_heads * (s->l->n_nope + b->config->n_rot),
                         &op.linear.parts[0]);
    if (r == 0)
        r = inner_norm(b, layer, "attn_q_a_norm.weight", s->l->q_rank, s->q, &op.linear.parts[0], &normed);
    if (r < 0)
        return r;
    s->q = op.linear.parts[0].out;
    return graph_add(b->graph, &op);
}

static int join(struct arch_build *b, struct graph_op *op, uint32_t *ret)
{
    uint32_t n = 0;
    int r;

    op->type = GRAPH_JOIN;
    for (uint32_t i = 0; i < op->join.n_parts; i++)
        n += op->join.parts[i].n;
    r = graph_value_f32(b->graph, GRAPH_ROWS_TOKENS, op->join.n_heads * n, &op->join.out);
    if (r < 0)
        return r;
    *ret = op->join.out;
    return graph_add(b->graph, op);
}

/* Each head's matrix of @name, [n_rows, n_cols], times its columns of @in. */
static int heads_product(struct arch_build *b, uint32_t layer, const char *name, uint32_t n_cols, uint32_t n_rows,
                         uint32_t in, uint32_t stride, uint32_t *ret)
{
    struct graph_op op = {.type = GRAPH_HEADS,
                          .heads = {.linear = {.in = in}, .n_heads = b->config->n_heads, .stride = stride}};
    int r;

    r = arch_matrices(b, layer, name, ARCH_REQUIRED, n_cols, n_rows, b->config->n_heads, &op.heads.linear.weight);
    if (r == 0)
        r = graph_value_f32(b->graph, GRAPH_ROWS_TOKENS, b->config->n_heads * n_rows, &op.heads.linear.out);
    if (r < 0)
        return r;
    *ret = op.heads.linear.out;
    return graph_add(b->graph, &op);
}

/* One key and value for all heads: [k_rope, c] and c. */
static int compressed(struct arch_build *b, uint32_t layer, struct latent_layer *s)
{
    const struct arch_latent *l = s->l;
    uint32_t n_rot = b->config->n_rot, n_head = l->n_nope + n_rot, absorbed;
    struct graph_op q = {.join = {.n_heads = b->config->n_heads, .n_parts = 2}};
    struct graph_op k = {.join = {.n_heads = 1, .n_parts = 2}};
    int r;

    r = inner_norm(b, layer, "attn_kv_a_norm.weight", l->kv_rank, s->latent, NULL, &s->v);
    if (r == 0)
        r = heads_product(b, layer, "attn_k_b.weight", l->n_nope, l->kv_rank, s->q, n_head, &absorbed);
    if (r < 0)
        return r;
    q.join.parts[0].in = s->q;
    q.join.parts[0].stride = n_head;
    q.join.parts[0].first = l->n_nope;
    q.join.parts[0].n = n_rot;
    q.join.parts[1].in = absorbed;
    q.join.parts[1].stride = q.join.parts[1].n = l->kv_rank;
    k.join.parts[0].in = s->k_rope;
    k.join.parts[0].n = n_rot;
    k.join.parts[1].in = s->v;
    k.join.parts[1].n = l->kv_rank;
    r = join(b, &q, &s->joined_q);
    return r < 0 ? r : join(b, &k, &s->joined_k);
}

/* Keys and values of each head: [k_rope, K_h c] and V_h c. */
static int expanded(struct arch_build *b, uint32_t layer, struct latent_layer *s)
{
    const struct arch_latent *l = s->l;
    uint32_t n_heads = b->config->n_heads, n_rot = b->config->n_rot, n_head = l->n_nope + n_rot, normed;
    struct graph_op q = {.join = {.n_heads = n_heads, .n_parts = 2}}, k = q;
    struct graph_op v = {.join = {.n_heads = n_heads, .n_parts = 1}}, op = arch_linear_op(1);
    struct graph_linear *kv = &op.linear.parts[0];
    int r;

    r = arch_linear_init(b, layer, "attn_kv_b", l->kv_rank, n_heads * (l->n_nope + l->v_dim), kv);
    if (r == 0)
        r = inner_norm(b, layer, "attn_kv_a_norm.weight", l->kv_rank, s->latent, kv, &normed);
    if (r == 0)
        r = graph_add(b->graph, &op);
    if (r < 0)
        return r;
    q.join.parts[0].in = q.join.parts[1].in = s->q;
    q.join.parts[0].stride = q.join.parts[1].stride = n_head;
    q.join.parts[0].first = l->n_nope;
    q.join.parts[0].n = n_rot;
    q.join.parts[1].n = l->n_nope;
    k.join.parts[0].in = s->k_rope;
    k.join.parts[0].n = n_rot;
    k.join.parts[1].in = v.join.parts[0].in = kv->out;
    k.join.parts[1].stride = v.join.parts[0].stride = l->n_nope + l->v_dim;
    k.join.parts[1].n = l->n_nope;
    v.join.parts[0].first = l->n_nope;
    v.join.parts[0].n = l->v_dim;
    r = join(b, &q, &s->joined_q);
    if (r == 0)
        r = join(b, &k, &s->joined_k);
    return r < 0 ? r : join(b, &v, &s->v);
}

int arch_latent_block(struct arch_build *b, const struct arch_decoder *d, uint32_t layer,
                      const struct arch_attention *a, uint32_t x)
{
    const struct arch_latent *l = &d->latent;
    struct latent_layer s = {.l = l};
    struct graph_linear qkv[3], out;
    uint32_t attended;
    int r;

    r = first_products(b, layer, &s, x);
    if (r == 0)
        r = second_product(b, layer, &s);
    if (r == 0)
        r = l->is_compressed ? compressed(b, layer, &s) : expanded(b, layer, &s);
    if (r < 0)
        return r;
    qkv[0] = (struct graph_linear){.out = s.joined_q};
    qkv[1] = (struct graph_linear){.out = s.joined_k};
    qkv[2] = (struct graph_linear){.out = s.v};
    r = arch_attend(b, d, layer, a, qkv, &attended);
    if (r == 0 && l->is_compressed)
        r = heads_product(b, layer, "attn_v_b.weight", l->kv_rank, l->v_dim, attended, l->kv_rank, &attended);
    if (r == 0)
        r = arch_linear_init(b, layer, "attn_output", b->config->n_heads * l->v_dim, b->config->n_embedding, &out);
    return r < 0 ? r : arch_project(b, d, layer, attended, &out, NULL, x);
}
