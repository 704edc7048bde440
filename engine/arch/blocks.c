/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of a transformer as operations of a graph. Each function looks up the tensors it needs, declares the
 * values between its operations and appends the operations; the residual stream x is changed in place.
 */

#include "engine/arch/blocks.h"

#include <errno.h>

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

/* Declares the result of @weight times something: the weight itself, its bias, and the value that it writes. */
static int linear_init(struct arch_build *b, uint32_t layer, const char *weight, const char *bias, uint32_t n_cols,
                       uint32_t n_rows, struct graph_linear *ret)
{
    int r;

    *ret = (struct graph_linear){};
    r = arch_matrix(b, layer, weight, ARCH_REQUIRED, n_cols, n_rows, &ret->weight);
    if (r < 0)
        return r;
    r = arch_vector(b, layer, bias, ARCH_OPTIONAL, n_rows, &ret->bias);
    if (r < 0)
        return r;
    return graph_value_f32(b->graph, GRAPH_ROWS_TOKENS, n_rows, &ret->out);
}

static int norm_init(struct arch_build *b, uint32_t layer, const char *weight, uint32_t in, enum graph_rows rows,
                     struct graph_op *ret)
{
    int r;

    *ret = (struct graph_op){.type = GRAPH_NORM, .norm = {.in = in, .epsilon = b->config->epsilon}};
    r = arch_vector(b, layer, weight, ARCH_REQUIRED, b->config->n_embedding, &ret->norm.weight);
    if (r < 0)
        return r;
    return graph_value_f32(b->graph, rows, b->config->n_embedding, &ret->norm.out);
}

static void norm_set_packs(struct graph_op *op, const struct arch_packs *packs)
{
    op->norm.n_packs = packs->n;
    for (uint32_t i = 0; i < packs->n; i++)
        op->norm.packs[i] = packs->ids[i];
}

/* Packs @in for the one product @l and appends that product with its sum into @x. */
static int project_to(struct arch_build *b, uint32_t in, struct graph_linear *l, uint32_t x)
{
    struct arch_packs packs = {};
    struct graph_op pack = {.type = GRAPH_PACK, .pack = {.in = in}};
    struct graph_op linear = {.type = GRAPH_LINEAR, .linear = {.n_parts = 1, .residual = x}};
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
    return graph_add(b->graph, &linear);
}

int arch_embed(struct arch_build *b, uint32_t *ret, struct graph_tensor *ret_weight)
{
    struct graph_op op = {.type = GRAPH_EMBED};
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

int arch_attention_block(struct arch_build *b, uint32_t layer, const struct arch_attention *a, uint32_t x)
{
    const struct arch_config *c = b->config;
    struct arch_packs packs = {};
    struct graph_op norm, op = {.type = GRAPH_LINEAR, .linear = {.n_parts = 3, .residual = GRAPH_NONE}};
    struct graph_linear out, *part = op.linear.parts;
    uint32_t q, k, v, attended;
    int r;

    r = norm_init(b, layer, "attn_norm.weight", x, GRAPH_ROWS_TOKENS, &norm);
    if (r < 0)
        return r;
    r = linear_init(b, layer, "attn_q.weight", "attn_q.bias", c->n_embedding, c->n_heads * c->k_dim, &part[0]);
    if (r < 0)
        return r;
    r = linear_init(b, layer, "attn_k.weight", "attn_k.bias", c->n_embedding, c->n_kv_heads * c->k_dim, &part[1]);
    if (r < 0)
        return r;
    r = linear_init(b, layer, "attn_v.weight", "attn_v.bias", c->n_embedding, c->n_kv_heads * c->v_dim, &part[2]);
    if (r < 0)
        return r;
    r = linear_init(b, layer, "attn_output.weight", "attn_output.bias", c->n_heads * c->v_dim, c->n_embedding, &out);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < op.linear.n_parts; i++) {
        r = arch_packs_need(b, &packs, GRAPH_ROWS_TOKENS, &part[i].weight, &part[i].in);
        if (r < 0)
            return r;
    }
    norm_set_packs(&norm, &packs);
    r = graph_add(b->graph, &norm);
    if (r < 0)
        return r;
    r = graph_add(b->graph, &op);
    if (r < 0)
        return r;

    q = part[0].out;
    k = part[1].out;
    v = part[2].out;
    r = graph_add(b->graph, &(struct graph_op){.type = GRAPH_ROPE_WRITE,
                                               .rope_write = {.q = q,
                                                              .k = k,
                                                              .v = v,
                                                              .rope_table = a->rope_table,
                                                              .n_heads = c->n_heads,
                                                              .n_kv_heads = c->n_kv_heads,
                                                              .k_dim = c->k_dim,
                                                              .v_dim = c->v_dim,
                                                              .n_rot = a->n_rot,
                                                              .group = a->group,
                                                              .group_layer = a->group_layer,
                                                              .interleaved = a->interleaved}});
    if (r < 0)
        return r;
    r = graph_value_f32(b->graph, GRAPH_ROWS_TOKENS, c->n_heads * c->v_dim, &attended);
    if (r < 0)
        return r;
    r = graph_add(b->graph, &(struct graph_op){.type = GRAPH_ATTENTION,
                                               .attention = {.q = q,
                                                             .out = attended,
                                                             .n_heads = c->n_heads,
                                                             .n_kv_heads = c->n_kv_heads,
                                                             .k_dim = c->k_dim,
                                                             .v_dim = c->v_dim,
                                                             .group = a->group,
                                                             .group_layer = a->group_layer,
                                                             .scale = a->scale,
                                                             .window = b->graph->groups[a->group].window}});
    if (r < 0)
        return r;
    return project_to(b, attended, &out, x);
}

int arch_ffn_block(struct arch_build *b, uint32_t layer, uint32_t x)
{
    const struct arch_config *c = b->config;
    struct arch_packs packs = {};
    struct graph_op norm, op = {.type = GRAPH_GLU};
    struct graph_linear down;
    int r;

    r = norm_init(b, layer, "ffn_norm.weight", x, GRAPH_ROWS_TOKENS, &norm);
    if (r < 0)
        return r;
    r = linear_init(b, layer, "ffn_gate.weight", "ffn_gate.bias", c->n_embedding, c->n_ff, &op.glu.gate);
    if (r < 0)
        return r;
    r = linear_init(b, layer, "ffn_up.weight", "ffn_up.bias", c->n_embedding, c->n_ff, &op.glu.up);
    if (r < 0)
        return r;
    r = linear_init(b, layer, "ffn_down.weight", "ffn_down.bias", c->n_ff, c->n_embedding, &down);
    if (r < 0)
        return r;
    r = graph_value_f32(b->graph, GRAPH_ROWS_TOKENS, c->n_ff, &op.glu.out);
    if (r < 0)
        return r;
    r = arch_packs_need(b, &packs, GRAPH_ROWS_TOKENS, &op.glu.gate.weight, &op.glu.gate.in);
    if (r < 0)
        return r;
    r = arch_packs_need(b, &packs, GRAPH_ROWS_TOKENS, &op.glu.up.weight, &op.glu.up.in);
    if (r < 0)
        return r;
    norm_set_packs(&norm, &packs);
    r = graph_add(b->graph, &norm);
    if (r < 0)
        return r;
    r = graph_add(b->graph, &op);
    if (r < 0)
        return r;
    return project_to(b, op.glu.out, &down, x);
}

int arch_output(struct arch_build *b, uint32_t x, const struct graph_tensor *tied)
{
    const struct arch_config *c = b->config;
    struct arch_packs packs = {};
    struct graph_op norm, op = {.type = GRAPH_LINEAR, .linear = {.n_parts = 1, .residual = GRAPH_NONE}};
    struct graph_linear *head = &op.linear.parts[0];
    int r;

    /* Embeddings are the same norm of every row, for the steps that ask. */
    r = norm_init(b, ARCH_NO_LAYER, "output_norm.weight", x, GRAPH_ROWS_TOKENS, &norm);
    if (r < 0)
        return r;
    norm.embeddings_only = true;
    b->graph->embeddings = norm.norm.out;
    r = graph_add(b->graph, &norm);
    if (r < 0)
        return r;

    r = norm_init(b, ARCH_NO_LAYER, "output_norm.weight", x, GRAPH_ROWS_OUTPUTS, &norm);
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
    norm_set_packs(&norm, &packs);
    r = graph_add(b->graph, &norm);
    if (r < 0)
        return r;
    r = graph_value_f32(b->graph, GRAPH_ROWS_OUTPUTS, c->n_vocab, &head->out);
    if (r < 0)
        return r;
    b->graph->logits = head->out;
    return graph_add(b->graph, &op);
}
