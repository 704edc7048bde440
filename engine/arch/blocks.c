/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of a transformer as operations of a graph. Each function looks up the tensors it needs, declares the
 * values between its operations and appends the operations; the residual stream x is changed in place.
 */

#include "engine/arch/blocks.h"

#include <errno.h>
#include <stdio.h>

#define NAME_BYTES 64

int arch_packs_need(struct arch_build *b, struct arch_packs *packs, enum graph_rows rows,
                    const struct graph_tensor *weight, uint32_t *ret)
{
    uint32_t format = (uint32_t)b->target->format(b->target->userdata, weight->type);
    int r;

    for (uint32_t i = 0; i < packs->n; i++) {
        if (b->graph->values[packs->ids[i]].format == format) {
            *ret = packs->ids[i];
            return 0;
        }
    }
    r = graph_value_packed(b->graph, rows, weight->n_cols, format, &packs->ids[packs->n]);
    if (r < 0)
        return r;
    *ret = packs->ids[packs->n++];
    return 0;
}

int arch_linear_init(struct arch_build *b, uint32_t layer, const char *name, uint32_t n_cols, uint32_t n_rows,
                     struct graph_linear *ret)
{
    char full[NAME_BYTES];
    int r;

    *ret = (struct graph_linear){};
    snprintf(full, sizeof(full), "%s.weight", name);
    r = arch_matrix(b, layer, full, ARCH_REQUIRED, n_cols, n_rows, &ret->weight);
    if (r < 0)
        return r;
    snprintf(full, sizeof(full), "%s.bias", name);
    r = arch_vector(b, layer, full, ARCH_OPTIONAL, n_rows, &ret->bias);
    if (r < 0)
        return r;
    return graph_value_f32(b->graph, GRAPH_ROWS_TOKENS, n_rows, &ret->out);
}

int arch_norm_init(struct arch_build *b, uint32_t layer, const char *name, uint32_t in, enum graph_rows rows,
                   struct graph_op *ret)
{
    char full[NAME_BYTES];
    int r;

    *ret = (struct graph_op){.type = GRAPH_NORM,
                             .norm = {.kind = GRAPH_NORM_RMS,
                                      .in = in,
                                      .epsilon = b->config->epsilon,
                                      .add = b->pending.value,
                                      .add_weight = b->pending.weight}};
    b->pending.value = GRAPH_NONE;
    snprintf(full, sizeof(full), "%s.weight", name);
    r = arch_vector(b, layer, full, ARCH_REQUIRED, b->config->n_embedding, &ret->norm.weight);
    if (r < 0)
        return r;
    return graph_value_f32(b->graph, rows, b->config->n_embedding, &ret->norm.out);
}

int arch_layer_norm_init(struct arch_build *b, uint32_t layer, const char *name, uint32_t in, struct graph_op *ret)
{
    char full[NAME_BYTES];
    int r;

    r = arch_norm_init(b, layer, name, in, GRAPH_ROWS_TOKENS, ret);
    if (r < 0)
        return r;
    ret->norm.kind = GRAPH_NORM_LAYER;
    snprintf(full, sizeof(full), "%s.bias", name);
    return arch_vector(b, layer, full, ARCH_REQUIRED, b->config->n_embedding, &ret->norm.bias);
}

int arch_norm_add(struct arch_build *b, struct graph_op *op, const struct arch_packs *packs)
{
    op->norm.n_packs = packs->n;
    for (uint32_t i = 0; i < packs->n; i++)
        op->norm.packs[i] = packs->ids[i];
    return graph_add(b->graph, op);
}

struct graph_op arch_linear_op(uint32_t n_parts)
{
    return (struct graph_op){
        .type = GRAPH_LINEAR,
        .linear = {.n_parts = n_parts, .scale = 1.0f, .residual = GRAPH_NONE, .residual_gate = GRAPH_NONE}};
}

int arch_project(struct arch_build *b, const struct arch_decoder *d, uint32_t layer, uint32_t in,
                 struct graph_linear *l, const char *post_norm, uint32_t x)
{
    struct arch_packs packs = {};
    struct graph_op pack = {.type = GRAPH_PACK, .pack = {.in = in}}, linear = arch_linear_op(1);
    int r;

    r = arch_packs_need(b, &packs, GRAPH_ROWS_TOKENS, &l->weight, &l->in);
    if (r < 0)
        return r;
    pack.pack.n_packs = packs.n;
    pack.pack.packs[0] = packs.ids[0];
    r = graph_add(b->graph, &pack);
    if (r < 0)
        return r;
    linear.linear.parts[0] = *l;
    linear.linear.scale = d->residual_scale;
    if (post_norm) {
        b->pending.value = l->out;
        r = arch_vector(b, layer, post_norm, ARCH_REQUIRED, b->config->n_embedding, &b->pending.weight);
        if (r < 0)
            return r;
    } else {
        linear.linear.residual = x;
    }
    return graph_add(b->graph, &linear);
}

int arch_embed(struct arch_build *b, float scale, uint32_t *ret, struct graph_tensor *ret_weight)
{
    struct graph_op op = {.type = GRAPH_EMBED, .embed = {.scale = scale}};
    int r;

    r = arch_matrix(b, ARCH_NO_LAYER, "token_embd.weight", ARCH_REQUIRED, b->config->n_embedding, b->config->n_vocab,
                    &op.embed.weight);
    if (r < 0)
        return r;
    r = graph_value_f32(b->graph, GRAPH_ROWS_TOKENS, b->config->n_embedding, &op.embed.out);
    if (r < 0)
        return r;
    *ret = op.embed.out;
    *ret_weight = op.embed.weight;
    return graph_add(b->graph, &op);
}

int arch_rope_table(struct arch_build *b, const struct arch_rope *rope, uint32_t *ret)
{
    struct graph_op op = {
        .type = GRAPH_ROPE_TABLE,
        .rope_table = {.frequency = rope->frequency, .n_rot = rope->n_rot, .magnitude = rope->magnitude},
    };
    int r;

    r = graph_value_f32(b->graph, GRAPH_ROWS_TOKENS, rope->n_rot, &op.rope_table.out);
    if (r < 0)
        return r;
    *ret = op.rope_table.out;
    return graph_add(b->graph, &op);
}

/* One matrix that holds the rows of q, k and v, in this order; *ret_found tells whether the file has it. */
static int qkv_fused_init(struct arch_build *b, uint32_t layer, const uint32_t n_rows[3], struct graph_linear *parts,
                          bool *ret_found)
{
    uint32_t row0 = 0, n_all = n_rows[0] + n_rows[1] + n_rows[2];
    struct graph_tensor all;
    const float *bias;
    int r;

    r = arch_matrix(b, layer, "attn_qkv.weight", ARCH_OPTIONAL, b->config->n_embedding, n_all, &all);
    if (r < 0)
        return r;
    *ret_found = all.data != NULL;
    if (!all.data)
        return 0;
    r = arch_vector(b, layer, "attn_qkv.bias", ARCH_OPTIONAL, n_all, &bias);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < 3; row0 += n_rows[i++]) {
        parts[i] = (struct graph_linear){.weight = arch_rows(&all, row0, n_rows[i])};
        parts[i].bias = bias ? bias + row0 : NULL;
        r = graph_value_f32(b->graph, GRAPH_ROWS_TOKENS, n_rows[i], &parts[i].out);
        if (r < 0)
            return r;
    }
    return 0;
}

int arch_qkv_init(struct arch_build *b, uint32_t layer, struct graph_linear *parts)
{
    static const char *const names[3] = {"attn_q", "attn_k", "attn_v"};
    const struct arch_config *c = b->config;
    const uint32_t n_rows[3] = {c->n_heads * c->k_dim, c->n_kv_heads * c->k_dim, c->n_kv_heads * c->v_dim};
    bool found;
    int r;

    r = qkv_fused_init(b, layer, n_rows, parts, &found);
    for (uint32_t i = 0; r == 0 && !found && i < 3; i++)
        r = arch_linear_init(b, layer, names[i], c->n_embedding, n_rows[i], &parts[i]);
    return r;
}

/* Norms and rotation of q and k, and the KV cache, in one operation. */
static int rope_write(struct arch_build *b, const struct arch_decoder *d, uint32_t layer,
                      const struct arch_attention *a, const struct graph_linear *qkv)
{
    const struct arch_config *c = b->config;
    struct graph_op op = {.type = GRAPH_ROPE_WRITE,
                          .rope_write = {.q = qkv[0].out,
                                         .k = qkv[1].out,
                                         .v = qkv[2].out,
                                         .epsilon = c->epsilon,
                                         .rope_table = a->rope_table,
                                         .n_heads = c->n_heads,
                                         .n_kv_heads = c->n_kv_heads,
                                         .k_dim = c->k_dim,
                                         .v_dim = c->v_dim,
                                         .n_rot = c->n_rot,
                                         .group = a->group,
                                         .group_layer = a->group_layer,
                                         .interleaved = d->interleaved}};
    int r;

    if (d->qk_norm) {
        r = arch_vector(b, layer, "attn_q_norm.weight", ARCH_REQUIRED, c->k_dim, &op.rope_write.q_norm);
        if (r < 0)
            return r;
        r = arch_vector(b, layer, "attn_k_norm.weight", ARCH_REQUIRED, c->k_dim, &op.rope_write.k_norm);
        if (r < 0)
            return r;
    }
    return graph_add(b->graph, &op);
}

int arch_attend(struct arch_build *b, const struct arch_decoder *d, uint32_t layer, const struct arch_attention *a,
                const struct graph_linear *qkv, uint32_t *ret)
{
    const struct arch_config *c = b->config;
    struct graph_op op = {.type = GRAPH_ATTENTION,
                          .attention = {.q = qkv[0].out,
                                        .n_heads = c->n_heads,
                                        .n_kv_heads = c->n_kv_heads,
                                        .k_dim = c->k_dim,
                                        .v_dim = c->v_dim,
                                        .group = a->group,
                                        .group_layer = a->group_layer,
                                        .scale = d->attention_scale,
                                        .softcap = d->attention_softcap,
                                        .window = b->graph->groups[a->group].window}};
    int r;

    r = rope_write(b, d, layer, a, qkv);
    if (r < 0)
        return r;
    if (d->sinks) {
        r = arch_vector(b, layer, "attn_sinks.weight", ARCH_REQUIRED, c->n_heads, &op.attention.sinks);
        if (r < 0)
            return r;
    }
    r = graph_value_f32(b->graph, GRAPH_ROWS_TOKENS, c->n_heads * c->v_dim, &op.attention.out);
    if (r < 0)
        return r;
    *ret = op.attention.out;
    return graph_add(b->graph, &op);
}

int arch_attention_block(struct arch_build *b, const struct arch_decoder *d, uint32_t layer,
                         const struct arch_attention *a, uint32_t x)
{
    const struct arch_config *c = b->config;
    struct arch_packs packs = {};
    struct graph_op norm, op = arch_linear_op(3);
    struct graph_linear out, *part = op.linear.parts;
    uint32_t attended;
    int r;

    r = arch_norm_init(b, layer, "attn_norm", x, GRAPH_ROWS_TOKENS, &norm);
    if (r < 0)
        return r;
    r = arch_qkv_init(b, layer, part);
    if (r < 0)
        return r;
    r = arch_linear_init(b, layer, "attn_output", c->n_heads * c->v_dim, c->n_embedding, &out);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < op.linear.n_parts; i++) {
        r = arch_packs_need(b, &packs, GRAPH_ROWS_TOKENS, &part[i].weight, &part[i].in);
        if (r < 0)
            return r;
    }
    r = arch_norm_add(b, &norm, &packs);
    if (r < 0)
        return r;
    r = graph_add(b->graph, &op);
    if (r < 0)
        return r;
    r = arch_attend(b, d, layer, a, part, &attended);
    if (r < 0)
        return r;
    return arch_project(b, d, layer, attended, &out, d->post_norms ? "post_attention_norm.weight" : NULL, x);
}

/* The last block's norm and sum, which no norm of a block comes after. */
static int pending_flush(struct arch_build *b, uint32_t x)
{
    struct graph_op op = {.type = GRAPH_NORM,
                          .norm = {.in = x,
                                   .out = GRAPH_NONE,
                                   .epsilon = b->config->epsilon,
                                   .add = b->pending.value,
                                   .add_weight = b->pending.weight}};

    if (b->pending.value == GRAPH_NONE)
        return 0;
    b->pending.value = GRAPH_NONE;
    return graph_add(b->graph, &op);
}

int arch_output(struct arch_build *b, const struct arch_decoder *d, uint32_t x, const struct graph_tensor *tied)
{
    const struct arch_config *c = b->config;
    struct arch_packs packs = {}, none = {};
    struct graph_op norm, op = arch_linear_op(1);
    struct graph_linear *head = &op.linear.parts[0];
    int r;

    r = pending_flush(b, x);
    if (r < 0)
        return r;
    /* Embeddings are the same norm of every row, for the steps that ask. */
    r = arch_norm_init(b, ARCH_NO_LAYER, "output_norm", x, GRAPH_ROWS_TOKENS, &norm);
    if (r < 0)
        return r;
    norm.embeddings_only = true;
    b->graph->embeddings = norm.norm.out;
    r = arch_norm_add(b, &norm, &none);
    if (r < 0)
        return r;

    r = arch_norm_init(b, ARCH_NO_LAYER, "output_norm", x, GRAPH_ROWS_OUTPUTS, &norm);
    if (r < 0)
        return r;
    r = arch_matrix(b, ARCH_NO_LAYER, "output.weight", ARCH_OPTIONAL, c->n_embedding, c->n_vocab, &head->weight);
    if (r < 0)
        return r;
    if (!head->weight.data)
        head->weight = *tied;
    r = arch_packs_need(b, &packs, GRAPH_ROWS_OUTPUTS, &head->weight, &head->in);
    if (r < 0)
        return r;
    r = arch_norm_add(b, &norm, &packs);
    if (r < 0)
        return r;
    r = graph_value_f32(b->graph, GRAPH_ROWS_OUTPUTS, c->n_vocab, &head->out);
    if (r < 0)
        return r;
    op.linear.scale = d->logit_scale;
    op.linear.softcap = d->logit_softcap;
    b->graph->logits = head->out;
    return graph_add(b->graph, &op);
}
