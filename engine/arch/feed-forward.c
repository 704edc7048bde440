/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The second half of a layer: a gated feed-forward network, or a router with many of them.
 */

#include <errno.h>
#include <inttypes.h>

#include "base/fault.h"
#include "engine/arch/blocks.h"

/* gate, up and down; gate and up may be one matrix. */
static int dense_init(struct arch_build *b, const struct arch_decoder *d, uint32_t layer, struct graph_op *glu,
                      struct graph_linear *down)
{
    const struct arch_config *c = b->config;
    struct graph_linear *gate = &glu->glu.gate, *up = &glu->glu.up, both;
    int r;

    *glu = (struct graph_op){.type = GRAPH_GLU, .glu = {.activation = d->activation}};
    if (d->gate_up_fused) {
        r = arch_linear_init(b, layer, "ffn_up", c->n_embedding, 2 * c->n_ff, &both);
        if (r < 0)
            return r;
        *gate = (struct graph_linear){.weight = arch_rows(&both.weight, 0, c->n_ff), .bias = both.bias};
        *up = (struct graph_linear){.weight = arch_rows(&both.weight, c->n_ff, c->n_ff),
                                    .bias = both.bias ? both.bias + c->n_ff : NULL};
        r = graph_value_f32(b->graph, GRAPH_ROWS_TOKENS, c->n_ff, &gate->out);
        if (r == 0)
            r = graph_value_f32(b->graph, GRAPH_ROWS_TOKENS, c->n_ff, &up->out);
    } else {
        r = arch_linear_init(b, layer, "ffn_gate", c->n_embedding, c->n_ff, gate);
        if (r == 0)
            r = arch_linear_init(b, layer, "ffn_up", c->n_embedding, c->n_ff, up);
    }
    if (r < 0)
        return r;
    r = graph_value_f32(b->graph, GRAPH_ROWS_TOKENS, c->n_ff, &glu->glu.out);
    if (r < 0)
        return r;
    return arch_linear_init(b, layer, "ffn_down", c->n_ff, c->n_embedding, down);
}

int arch_ffn_block(struct arch_build *b, const struct arch_decoder *d, uint32_t layer, uint32_t x)
{
    struct arch_packs packs = {};
    struct graph_op norm, op;
    struct graph_linear down;
    int r;

    r = arch_norm_init(b, layer, d->ffn_norm, x, GRAPH_ROWS_TOKENS, &norm);
    if (r < 0)
        return r;
    r = dense_init(b, d, layer, &op, &down);
    if (r < 0)
        return r;
    r = arch_packs_need(b, &packs, GRAPH_ROWS_TOKENS, &op.glu.gate.weight, &op.glu.gate.in);
    if (r < 0)
        return r;
    r = arch_packs_need(b, &packs, GRAPH_ROWS_TOKENS, &op.glu.up.weight, &op.glu.up.in);
    if (r < 0)
        return r;
    r = arch_norm_add(b, &norm, &packs);
    if (r < 0)
        return r;
    r = graph_add(b->graph, &op);
    if (r < 0)
        return r;
    return arch_project(b, d, layer, op.glu.out, &down, d->post_norms ? "post_ffw_norm.weight" : NULL, x);
}

/* What reads the normed stream: the router, the experts by way of a gathering, and the shared expert. */
struct experts {
    struct graph_op norm, router, route, gather, glu, pack, down;
    struct graph_op shared_glu, shared_gate; /* type GRAPH_OP_TYPE_MAX: there is none */
    struct graph_linear shared_down;
    struct arch_packs norm_packs, gather_packs, glu_packs;
};

/* The matrices @weight of all experts, and their biases if the file has any. */
static int expert_linear_init(struct arch_build *b, uint32_t layer, const char *weight, const char *bias,
                              uint32_t n_cols, uint32_t n_rows, struct graph_linear *ret)
{
    int r;

    *ret = (struct graph_linear){.out = GRAPH_NONE};
    r = arch_matrices(b, layer, weight, ARCH_REQUIRED, n_cols, n_rows, b->graph->n_experts, &ret->weight);
    if (r < 0)
        return r;
    return arch_vectors(b, layer, bias, ARCH_OPTIONAL, n_rows, b->graph->n_experts, &ret->bias);
}

static int route_init(struct arch_build *b, const struct arch_decoder *d, uint32_t layer, struct experts *e)
{
    const struct arch_experts *experts = &d->experts;
    struct graph_linear *logits = &e->router.linear.parts[0];
    int r;

    e->router = arch_linear_op(1);
    r = arch_linear_init(b, layer, "ffn_gate_inp", b->config->n_embedding, experts->n, logits);
    if (r < 0)
        return r;
    r = arch_packs_need(b, &e->norm_packs, GRAPH_ROWS_TOKENS, &logits->weight, &logits->in);
    if (r < 0)
        return r;
    /* A part of its scale is the blocks' own: weights are the only thing that multiplies the experts' results. */
    e->route = (struct graph_op){.type = GRAPH_ROUTE,
                                 .route = {.logits = logits->out,
                                           .gating = experts->gating,
                                           .normalise = experts->normalise,
                                           .scale = experts->scale * d->residual_scale,
                                           .n_groups = experts->n_groups,
                                           .n_groups_used = experts->n_groups_used}};
    r = arch_vector(b, layer, "exp_probs_b.bias", ARCH_OPTIONAL, experts->n, &e->route.route.bias);
    if (r < 0)
        return r;
    return graph_value_routes(b->graph, &e->route.route.out);
}

static int experts_glu_init(struct arch_build *b, const struct arch_decoder *d, uint32_t layer, struct experts *e)
{
    const struct arch_experts *experts = &d->experts;
    struct graph_linear *gate = &e->glu.experts_glu.gate, *up = &e->glu.experts_glu.up;
    int r;

    e->glu = (struct graph_op){.type = GRAPH_EXPERTS_GLU,
                               .experts_glu = {.routes = e->route.route.out, .activation = d->activation}};
    r = expert_linear_init(b, layer, "ffn_gate_exps.weight", "ffn_gate_exps.bias", b->config->n_embedding,
                           experts->n_ff, gate);
    if (r < 0)
        return r;
    r = expert_linear_init(b, layer, "ffn_up_exps.weight", "ffn_up_exps.bias", b->config->n_embedding, experts->n_ff,
                           up);
    if (r < 0)
        return r;
    r = arch_packs_need(b, &e->gather_packs, GRAPH_ROWS_GATHERED, &gate->weight, &gate->in);
    if (r < 0)
        return r;
    r = arch_packs_need(b, &e->gather_packs, GRAPH_ROWS_GATHERED, &up->weight, &up->in);
    if (r < 0)
        return r;
    r = graph_value_f32(b->graph, GRAPH_ROWS_SLOTS, experts->n_ff, &gate->out);
    if (r < 0)
        return r;
    e->glu.experts_glu.out = gate->out;
    return graph_value_f32(b->graph, GRAPH_ROWS_SLOTS, experts->n_ff, &up->out);
}

static int experts_down_init(struct arch_build *b, const struct arch_decoder *d, uint32_t layer, uint32_t x,
                             struct experts *e)
{
    struct graph_linear *down = &e->down.experts_down.down;
    int r;

    e->down = (struct graph_op){.type = GRAPH_EXPERTS_DOWN,
                                .experts_down = {.routes = e->route.route.out, .residual = x}};
    r = expert_linear_init(b, layer, "ffn_down_exps.weight", "ffn_down_exps.bias", d->experts.n_ff,
                           b->config->n_embedding, down);
    if (r < 0)
        return r;
    return arch_packs_need(b, &e->glu_packs, GRAPH_ROWS_SLOTS, &down->weight, &down->in);
}

static int shared_init(struct arch_build *b, const struct arch_decoder *d, uint32_t layer, struct experts *e)
{
    struct graph_linear *gate = &e->shared_glu.glu.gate, *up = &e->shared_glu.glu.up;
    uint32_t n_embedding = b->config->n_embedding, n_ff = d->experts.n_ff_shared;
    int r;

    e->shared_glu = e->shared_gate = (struct graph_op){.type = GRAPH_OP_TYPE_MAX};
    if (n_ff == 0)
        return 0;
    e->shared_glu = (struct graph_op){.type = GRAPH_GLU, .glu = {.activation = d->activation}};
    r = arch_linear_init(b, layer, "ffn_gate_shexp", n_embedding, n_ff, gate);
    if (r == 0)
        r = arch_linear_init(b, layer, "ffn_up_shexp", n_embedding, n_ff, up);
    if (r == 0)
        r = arch_linear_init(b, layer, "ffn_down_shexp", n_ff, n_embedding, &e->shared_down);
    if (r == 0)
        r = graph_value_f32(b->graph, GRAPH_ROWS_TOKENS, n_ff, &e->shared_glu.glu.out);
    if (r == 0)
        r = arch_packs_need(b, &e->norm_packs, GRAPH_ROWS_TOKENS, &gate->weight, &gate->in);
    if (r == 0)
        r = arch_packs_need(b, &e->norm_packs, GRAPH_ROWS_TOKENS, &up->weight, &up->in);
    if (r < 0 || !d->experts.shared_gate)
        return r;

    e->shared_gate = arch_linear_op(1);
    r = arch_linear_init(b, layer, "ffn_gate_inp_shexp", n_embedding, 1, &e->shared_gate.linear.parts[0]);
    if (r < 0)
        return r;
    return arch_packs_need(b, &e->norm_packs, GRAPH_ROWS_TOKENS, &e->shared_gate.linear.parts[0].weight,
                           &e->shared_gate.linear.parts[0].in);
}

static struct graph_op experts_pack(const struct experts *e, uint32_t in, const struct arch_packs *packs)
{
    struct graph_op op = {.type = GRAPH_EXPERTS_PACK,
                          .experts_pack = {.routes = e->route.route.out, .in = in, .n_packs = packs->n}};

    for (uint32_t i = 0; i < packs->n; i++)
        op.experts_pack.packs[i] = packs->ids[i];
    return op;
}

/* The shared expert's part of the sum, which comes before the others'. */
static int shared_add(struct arch_build *b, const struct arch_decoder *d, struct experts *e, uint32_t x)
{
    struct graph_op pack = {.type = GRAPH_PACK, .pack = {.in = e->shared_glu.glu.out, .n_packs = 1}};
    struct graph_op linear = arch_linear_op(1);
    struct arch_packs packs = {};
    int r;

    if (e->shared_glu.type == GRAPH_OP_TYPE_MAX)
        return 0;
    r = graph_add(b->graph, &e->shared_glu);
    if (r < 0)
        return r;
    r = arch_packs_need(b, &packs, GRAPH_ROWS_TOKENS, &e->shared_down.weight, &e->shared_down.in);
    if (r < 0)
        return r;
    pack.pack.packs[0] = packs.ids[0];
    r = graph_add(b->graph, &pack);
    if (r < 0)
        return r;
    if (e->shared_gate.type == GRAPH_LINEAR) {
        r = graph_add(b->graph, &e->shared_gate);
        if (r < 0)
            return r;
        linear.linear.residual_gate = e->shared_gate.linear.parts[0].out;
    }
    linear.linear.parts[0] = e->shared_down;
    linear.linear.scale = d->residual_scale;
    linear.linear.residual = x;
    return graph_add(b->graph, &linear);
}

int arch_experts_block(struct arch_build *b, const struct arch_decoder *d, uint32_t layer, uint32_t x)
{
    struct experts e = {};
    int r;

    r = arch_norm_init(b, layer, d->ffn_norm, x, GRAPH_ROWS_TOKENS, &e.norm);
    if (r == 0)
        r = route_init(b, d, layer, &e);
    if (r == 0)
        r = experts_glu_init(b, d, layer, &e);
    if (r == 0)
        r = experts_down_init(b, d, layer, x, &e);
    if (r == 0)
        r = shared_init(b, d, layer, &e);
    if (r < 0)
        return r;
    e.gather = experts_pack(&e, e.norm.norm.out, &e.gather_packs);
    e.pack = experts_pack(&e, e.glu.experts_glu.out, &e.glu_packs);

    r = arch_norm_add(b, &e.norm, &e.norm_packs);
    if (r == 0)
        r = graph_add(b->graph, &e.router);
    if (r == 0)
        r = graph_add(b->graph, &e.route);
    if (r == 0)
        r = graph_add(b->graph, &e.gather);
    if (r == 0)
        r = shared_add(b, d, &e, x);
    if (r == 0)
        r = graph_add(b->graph, &e.glu);
    if (r == 0)
        r = graph_add(b->graph, &e.pack);
    return r < 0 ? r : graph_add(b->graph, &e.down);
}
