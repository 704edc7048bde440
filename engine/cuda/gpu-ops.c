/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Each operation of a graph as launches of kernels: launch.h says which. What is filled in here is addresses and the
 * numbers of rows; how kernels cut their work is launch.c's business.
 */

#include <assert.h>
#include <errno.h>

#include "base/fault.h"
#include "engine/cuda/gpu-internal.h"

static cuda_pointer value_or_none(const struct gpu *g, uint32_t id)
{
    return id == GRAPH_NONE ? 0 : gpu_value(g, id);
}

int gpu_launch(const struct gpu *g, uint32_t kernel, void *args, struct fault *reterr)
{
    const struct driver *v = g->device->driver;
    struct launch_shape s;
    void *params[] = {args};
    int r = launch_shape(kernel, args, &s);

    if (r == -EINVAL) /* nothing to do */
        return 0;
    if (r < 0) {
        fault_set(reterr, FAULT_MODEL_UNAVAILABLE, "", "a step is too large for the GPU (%s)",
                  launch_kernel_name(kernel));
        return -EIO;
    }
    assert(g->functions[kernel]);
    return driver_check(v,
                        v->launch(g->functions[kernel], s.grid[0], s.grid[1], s.grid[2], s.block, 1, 1, s.shared_bytes,
                                  g->device->stream, params, NULL),
                        launch_kernel_name(kernel), reterr);
}

/* Packed values by their format. */
static void packs_at(const struct gpu *g, const uint32_t *packs, uint32_t n_packs, launch_address ret[3])
{
    for (uint32_t i = 0; i < n_packs; i++) {
        uint32_t format = g->graph.values[packs[i]].format;

        assert(format < 3);
        ret[format] = gpu_value(g, packs[i]);
    }
}

static int run_norm(const struct gpu *g, const struct graph_op *op, struct fault *reterr)
{
    uint32_t out = op->norm.out != GRAPH_NONE ? op->norm.out : op->norm.in;
    const struct graph_value *values = g->graph.values;
    struct launch_norm a = {
        .in = gpu_value(g, op->norm.in),
        .rows = values[op->norm.in].rows != values[out].rows ? gpu_input(g, &g->outputs) : 0,
        .weight = weights_at(&g->weights, op->norm.weight),
        .bias = weights_at(&g->weights, op->norm.bias),
        .out = value_or_none(g, op->norm.out),
        .n_rows = gpu_value_rows(g, out),
        .n_cols = values[out].n_cols,
        .is_layer_norm = op->norm.kind == GRAPH_NORM_LAYER,
        .epsilon = op->norm.epsilon,
    };

    if (op->norm.add != GRAPH_NONE) {
        a.add = gpu_value(g, op->norm.add);
        a.add_weight = weights_at(&g->weights, op->norm.add_weight);
    }
    packs_at(g, op->norm.packs, op->norm.n_packs, a.packs);
    return gpu_launch(g, LAUNCH_NORM, &a, reterr);
}

static int run_pack(const struct gpu *g, const struct graph_op *op, struct fault *reterr)
{
    uint32_t n_cols = g->graph.values[op->pack.in].n_cols;
    struct launch_pack a = {.in = gpu_value(g, op->pack.in),
                            .n_rows = gpu_value_rows(g, op->pack.in),
                            .n_cols = n_cols,
                            .in_stride = n_cols,
                            .n_parts = 1};

    packs_at(g, op->pack.packs, op->pack.n_packs, a.packs);
    return gpu_launch(g, LAUNCH_PACK, &a, reterr);
}

struct launch_linear gpu_linear_args(const struct gpu *g, const struct graph_linear *l)
{
    const struct graph_tensor *w = &l->weight;

    return (struct launch_linear){
        .weight = weights_at(&g->weights, w->data),
        .row_bytes = w->row_bytes,
        .matrix_bytes = w->matrix_bytes,
        .bias = weights_at(&g->weights, l->bias),
        .act = value_or_none(g, l->in),
        .out = value_or_none(g, l->out),
        .type = w->type,
        .n_rows = w->n_rows,
        .n_cols = w->n_cols,
        .out_stride = w->n_rows,
        .n_matrices = 1,
        .act_token_step = 1,
        .scale = 1.0f,
    };
}

/* With what adapters add. */
static int launch_product(const struct gpu *g, const struct graph_linear *l, struct launch_linear *a,
                          struct fault *reterr)
{
    int r = gpu_launch(g, launch_linear_kernel(a), a, reterr);

    return r == 0 ? gpu_adapt_add(g, l, a, reterr) : r;
}

static int run_whole(const struct gpu *g, const struct graph_linear *l, struct launch_linear *a, struct fault *reterr)
{
    if (a->residual) /* nobody reads the product itself */
        a->out = 0;
    return launch_product(g, l, a, reterr);
}

/* What follows the sum has to wait for what adapters add to it. */
static int run_adapted(const struct gpu *g, const struct graph_linear *l, struct launch_linear *sum,
                       struct launch_linear *whole, struct fault *reterr)
{
    bool is_done = whole->scale == 1.0f && whole->softcap == 0.0f && !whole->residual;
    int r = launch_product(g, l, sum, reterr);

    whole->bias = 0;
    return r == 0 && !is_done ? gpu_launch(g, LAUNCH_LINEAR_FINISH, whole, reterr) : r;
}

static int run_linear(const struct gpu *g, const struct graph_op *op, struct fault *reterr)
{
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < op->linear.n_parts; i++) {
        const struct graph_linear *l = &op->linear.parts[i];
        struct launch_linear a = gpu_linear_args(g, l), whole;

        a.n_tokens = gpu_value_rows(g, l->out);
        whole = a;
        whole.scale = op->linear.scale;
        whole.softcap = op->linear.softcap;
        whole.residual = value_or_none(g, op->linear.residual);
        whole.gate = value_or_none(g, op->linear.residual_gate);
        r = l->site && g->batch->adapters ? run_adapted(g, l, &a, &whole, reterr)
                                          : run_whole(g, l, &whole, reterr);
    }
    return r;
}

static int run_activation(const struct gpu *g, const struct graph_activation *activation, uint32_t gate, uint32_t up,
                          uint32_t out, struct fault *reterr)
{
    struct launch_glu a = {
        .gate = gpu_value(g, gate),
        .up = value_or_none(g, up),
        .out = gpu_value(g, out),
        .n = (uint64_t)gpu_value_rows(g, out) * g->graph.values[out].n_cols,
        .kind = (uint32_t)activation->kind,
        .alpha = activation->alpha,
        .limit = activation->limit,
    };

    return gpu_launch(g, LAUNCH_GLU, &a, reterr);
}

static int run_glu(const struct gpu *g, const struct graph_op *op, struct fault *reterr)
{
    bool has_up = op->glu.up.weight.data != NULL;
    struct launch_linear a = gpu_linear_args(g, &op->glu.gate);
    int r;

    a.n_tokens = gpu_value_rows(g, op->glu.out);
    r = launch_product(g, &op->glu.gate, &a, reterr);
    if (r == 0 && has_up) {
        a = gpu_linear_args(g, &op->glu.up);
        a.n_tokens = gpu_value_rows(g, op->glu.out);
        r = launch_product(g, &op->glu.up, &a, reterr);
    }
    return r != 0 ? r
                  : run_activation(g, &op->glu.activation, op->glu.gate.out, has_up ? op->glu.up.out : GRAPH_NONE,
                                   op->glu.out, reterr);
}

static struct launch_kv kv_args(const struct gpu *g, uint32_t group, uint32_t group_layer)
{
    const struct kv_layout *l = &g->layouts[group];

    return (struct launch_kv){
        .memory = g->kv[group] + group_layer * l->page_bytes,
        .page_stride = l->page_bytes * g->group_layers[group],
        .tables = gpu_input(g, &g->tables[group]),
        .k_bytes = l->k_bytes,
        .v_bytes = l->v_bytes,
        .table_stride = g->table_stride,
        .k_type = l->k_type,
        .v_type = l->v_type,
        .n_kv_heads = l->n_kv_heads,
        .k_dim = l->k_dim,
        .v_dim = l->v_dim,
        .v_stride = l->v_stride,
    };
}

static int run_rope_write(const struct gpu *g, const struct graph_op *op, struct fault *reterr)
{
    struct launch_rope_write a = {
        .q = gpu_value(g, op->rope_write.q),
        .k = gpu_value(g, op->rope_write.k),
        .v = gpu_value(g, op->rope_write.v),
        .q_norm = weights_at(&g->weights, op->rope_write.q_norm),
        .k_norm = weights_at(&g->weights, op->rope_write.k_norm),
        .table = value_or_none(g, op->rope_write.rope_table),
        .positions = gpu_input(g, &g->positions),
        .token_runs = gpu_input(g, &g->token_rows),
        .kv = kv_args(g, op->rope_write.group, op->rope_write.group_layer),
        .n_tokens = g->batch->n_tokens,
        .n_heads = op->rope_write.n_heads,
        .n_rot = op->rope_write.n_rot,
        .interleaved = op->rope_write.interleaved,
        .epsilon = op->rope_write.epsilon,
    };

    return gpu_launch(g, LAUNCH_ROPE_WRITE, &a, reterr);
}

struct launch_attention gpu_attention_args(const struct gpu *g, const struct graph_op *op)
{
    return (struct launch_attention){
        .kv = kv_args(g, op->attention.group, op->attention.group_layer),
        .n_heads = op->attention.n_heads,
        .window = op->attention.window,
        .scale = op->attention.scale,
        .softcap = op->attention.softcap,
    };
}

/* A step of few tokens over long contexts: each segment by a block of its own, if the parts have room. */
static void split_attention(const struct gpu *g, struct launch_attention *a)
{
    a->n_segments = g->n_segments;
    a->split = a->n_segments > 1 && a->n_tokens <= GPU_SPLIT_TOKENS_MAX &&
               launch_attention_parts_bytes(a->n_segments, a->n_tokens, a->n_heads, a->kv.v_stride) <= g->parts_bytes;
    a->parts = a->split ? g->scratch + g->parts_at : 0;
}

static int run_attention(const struct gpu *g, const struct graph_op *op, struct fault *reterr)
{
    struct launch_attention a = gpu_attention_args(g, op);
    uint32_t n_queries = launch_attention_queries(&a);
    const struct gpu_cut *cut = g->cuts;
    int r;

    while (cut->n_queries != n_queries)
        cut++;
    a.q = gpu_value(g, op->attention.q);
    a.out = gpu_value(g, op->attention.out);
    a.sinks = weights_at(&g->weights, op->attention.sinks);
    a.queries = gpu_input(g, &cut->array);
    a.n_queries = cut->n;
    a.n_tokens = g->batch->n_tokens;
    split_attention(g, &a);
    r = gpu_launch(g, LAUNCH_ATTENTION, &a, reterr);
    return r == 0 && a.split ? gpu_launch(g, LAUNCH_ATTENTION_MERGE, &a, reterr) : r;
}

static int run_heads(const struct gpu *g, const struct graph_op *op, struct fault *reterr)
{
    const struct graph_tensor *w = &op->heads.linear.weight;
    struct launch_pack pack = {
        .in = gpu_value(g, op->heads.linear.in),
        .n_rows = g->batch->n_tokens * op->heads.n_heads,
        .n_cols = w->n_cols,
        .in_stride = g->graph.values[op->heads.linear.in].n_cols,
        .n_parts = op->heads.n_heads,
        .part_stride = op->heads.stride,
        .part_first = op->heads.first,
    };
    struct launch_linear a = gpu_linear_args(g, &op->heads.linear);
    int r;

    pack.packs[launch_act_of(w->type)] = a.act = g->scratch + g->work_at;
    a.n_tokens = g->batch->n_tokens;
    a.n_matrices = op->heads.n_heads;
    a.act_token_step = op->heads.n_heads;
    a.act_matrix_step = 1;
    a.out_matrix_step = w->n_rows;
    a.out_stride = op->heads.n_heads * w->n_rows;
    r = gpu_launch(g, LAUNCH_PACK, &pack, reterr);
    return r == 0 ? launch_product(g, &op->heads.linear, &a, reterr) : r;
}

static int run_join(const struct gpu *g, const struct graph_op *op, struct fault *reterr)
{
    struct launch_join a = {.out = gpu_value(g, op->join.out),
                            .n_parts = op->join.n_parts,
                            .n_heads = op->join.n_heads,
                            .n_tokens = g->batch->n_tokens};

    for (uint32_t i = 0; i < op->join.n_parts; i++) {
        a.parts[i].in = gpu_value(g, op->join.parts[i].in);
        a.parts[i].n_cols = g->graph.values[op->join.parts[i].in].n_cols;
        a.parts[i].stride = op->join.parts[i].stride;
        a.parts[i].first = op->join.parts[i].first;
        a.parts[i].n = op->join.parts[i].n;
    }
    return gpu_launch(g, LAUNCH_JOIN, &a, reterr);
}

static int run_route(const struct gpu *g, const struct graph_op *op, struct fault *reterr)
{
    struct launch_route a = {
        .logits = gpu_value(g, op->route.logits),
        .bias = weights_at(&g->weights, op->route.bias),
        .routes = gpu_value(g, op->route.out),
        .n_tokens = g->batch->n_tokens,
        .n_experts = g->graph.n_experts,
        .n_used = g->graph.n_experts_used,
        .gating = (uint32_t)op->route.gating,
        .normalise = op->route.normalise,
        .n_groups = op->route.n_groups,
        .n_groups_used = op->route.n_groups_used,
        .scale = op->route.scale,
    };
    int r = gpu_launch(g, LAUNCH_ROUTE, &a, reterr);

    return r == 0 ? gpu_launch(g, LAUNCH_ROUTE_GROUP, &a, reterr) : r;
}

static uint32_t n_slots(const struct gpu *g)
{
    return g->batch->n_tokens * g->graph.n_experts_used;
}

static int run_experts_pack(const struct gpu *g, const struct graph_op *op, struct fault *reterr)
{
    uint32_t n_cols = g->graph.values[op->experts_pack.in].n_cols;
    bool gathers = g->graph.values[op->experts_pack.in].rows == GRAPH_ROWS_TOKENS;
    struct launch_routes routes =
        launch_routes_at(gpu_value(g, op->experts_pack.routes), g->graph.n_experts, n_slots(g));
    struct launch_pack a = {.in = gpu_value(g, op->experts_pack.in),
                            .rows = gathers ? routes.slot_tokens : 0,
                            .n_rows = n_slots(g),
                            .n_cols = n_cols,
                            .in_stride = n_cols,
                            .n_parts = 1};

    packs_at(g, op->experts_pack.packs, op->experts_pack.n_packs, a.packs);
    return gpu_launch(g, LAUNCH_PACK, &a, reterr);
}

static struct launch_linear expert_args(const struct gpu *g, const struct graph_linear *l, uint32_t routes)
{
    struct launch_linear a = gpu_linear_args(g, l);

    a.routes = gpu_value(g, routes);
    a.n_tokens = g->batch->n_tokens;
    a.n_experts = g->graph.n_experts;
    a.n_used = g->graph.n_experts_used;
    a.n_matrices = n_slots(g) < a.n_experts ? n_slots(g) : a.n_experts;
    return a;
}

static int run_experts_glu(const struct gpu *g, const struct graph_op *op, struct fault *reterr)
{
    struct launch_linear a = expert_args(g, &op->experts_glu.gate, op->experts_glu.routes);
    int r = launch_product(g, &op->experts_glu.gate, &a, reterr);

    if (r == 0) {
        a = expert_args(g, &op->experts_glu.up, op->experts_glu.routes);
        r = launch_product(g, &op->experts_glu.up, &a, reterr);
    }
    return r != 0 ? r
                  : run_activation(g, &op->experts_glu.activation, op->experts_glu.gate.out, op->experts_glu.up.out,
                                   op->experts_glu.out, reterr);
}

static int run_experts_down(const struct gpu *g, const struct graph_op *op, struct fault *reterr)
{
    const struct graph_linear *down = &op->experts_down.down;
    struct launch_linear a = expert_args(g, down, op->experts_down.routes);
    struct launch_experts_sum sum = {
        .work = g->scratch + g->work_at,
        .residual = gpu_value(g, op->experts_down.residual),
        .routes = gpu_value(g, op->experts_down.routes),
        .n_tokens = g->batch->n_tokens,
        .n_rows = down->weight.n_rows,
        .n_experts = g->graph.n_experts,
        .n_used = g->graph.n_experts_used,
    };
    int r;

    a.out = sum.work;
    r = launch_product(g, down, &a, reterr);
    return r == 0 ? gpu_launch(g, LAUNCH_EXPERTS_SUM, &sum, reterr) : r;
}

int gpu_launch_top(struct gpu *g, uint32_t id, uint32_t k, uint32_t n_rows, cuda_pointer *ret, struct fault *reterr)
{
    uint32_t n_cols = g->graph.values[id].n_cols, n_parts = gpu_top_parts(n_cols);
    uint64_t n_bytes = (uint64_t)n_rows * k * sizeof(float);
    cuda_pointer parts = g->scratch + g->work_at, rows = parts + 2 * n_parts * n_bytes;
    struct launch_top_k a = {.in = gpu_value(g, id),
                             .indices = parts,
                             .values = parts + n_parts * n_bytes,
                             .n_rows = n_rows,
                             .n_cols = n_cols,
                             .k = k};
    int r = gpu_launch(g, LAUNCH_TOP_K, &a, reterr);

    *ret = n_parts == 1 ? parts : rows;
    if (r != 0 || n_parts == 1)
        return r;
    a = (struct launch_top_k){.in = a.values,
                              .from = a.indices,
                              .indices = rows,
                              .values = rows + n_bytes,
                              .n_rows = n_rows,
                              .n_cols = n_parts * k,
                              .k = k};
    return gpu_launch(g, LAUNCH_TOP_K, &a, reterr);
}

static int run_op(const struct gpu *g, const struct graph_op *op, struct fault *reterr)
{
    switch (op->type) {
    case GRAPH_NORM:
        return run_norm(g, op, reterr);
    case GRAPH_PACK:
        return run_pack(g, op, reterr);
    case GRAPH_LINEAR:
        return run_linear(g, op, reterr);
    case GRAPH_GLU:
        return run_glu(g, op, reterr);
    case GRAPH_ROPE_WRITE:
        return run_rope_write(g, op, reterr);
    case GRAPH_ATTENTION:
        return run_attention(g, op, reterr);
    case GRAPH_HEADS:
        return run_heads(g, op, reterr);
    case GRAPH_JOIN:
        return run_join(g, op, reterr);
    case GRAPH_ADAPT:
        return gpu_run_adapt(g, op, reterr);
    case GRAPH_ROUTE:
        return run_route(g, op, reterr);
    case GRAPH_EXPERTS_PACK:
        return run_experts_pack(g, op, reterr);
    case GRAPH_EXPERTS_GLU:
        return run_experts_glu(g, op, reterr);
    case GRAPH_EXPERTS_DOWN:
        return run_experts_down(g, op, reterr);
    default:
        break;
    }
    assert(false); /* gpu_can_run() was asked */
    return -EIO;
}

int gpu_run_ops(struct gpu *g, size_t first, size_t past, struct fault *reterr)
{
    int r = 0;

    for (size_t i = first; r == 0 && i < past; i++)
        if (g->places[i] == g->place && (g->batch->adapters || !g->graph.ops[i].adapters_only))
            r = run_op(g, &g->graph.ops[i], reterr);
    return r;
}

int gpu_run(struct gpu *g, size_t first, size_t past, struct fault *reterr)
{
    int r = device_enter(g->device, reterr);

    if (r != 0)
        return r;
    return gpu_graphs_can(g) ? gpu_graphs_run(g, first, past, reterr) : gpu_run_ops(g, first, past, reterr);
}

void gpu_kernels_need(const struct graph *graph, const struct graph_op *op, bool *needed)
{
    static const struct {
        enum graph_op_type type;
        uint32_t kernel;
    } kernels[] = {
        {GRAPH_NORM, LAUNCH_NORM},
        {GRAPH_PACK, LAUNCH_PACK},
        {GRAPH_GLU, LAUNCH_GLU},
        {GRAPH_ROPE_WRITE, LAUNCH_ROPE_WRITE},
        {GRAPH_ATTENTION, LAUNCH_ATTENTION},
        {GRAPH_ATTENTION, LAUNCH_ATTENTION_MERGE},
        {GRAPH_HEADS, LAUNCH_PACK},
        {GRAPH_JOIN, LAUNCH_JOIN},
        {GRAPH_ROUTE, LAUNCH_ROUTE},
        {GRAPH_ROUTE, LAUNCH_ROUTE_GROUP},
        {GRAPH_EXPERTS_PACK, LAUNCH_PACK},
        {GRAPH_EXPERTS_GLU, LAUNCH_GLU},
        {GRAPH_EXPERTS_DOWN, LAUNCH_EXPERTS_SUM},
    };
    const struct graph_linear *linears[GRAPH_LINEAR_MAX];
    uint32_t n = graph_op_linears(op, linears);

    for (size_t i = 0; i < sizeof(kernels) / sizeof(kernels[0]); i++)
        if (kernels[i].type == op->type)
            needed[kernels[i].kernel] = true;
    if (op->type == GRAPH_LINEAR && op->linear.parts[0].out == graph->logits)
        needed[LAUNCH_TOP_K] = true;
    for (uint32_t i = 0; i < n; i++) {
        needed[LAUNCH_LINEAR + linears[i]->weight.type] = true;
        needed[LAUNCH_LINEAR_TILES + linears[i]->weight.type] = true;
    }
    gpu_adapt_need(graph, op, needed);
}
