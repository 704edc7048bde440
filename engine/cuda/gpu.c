/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The memory of a model's part on one GPU: found by walking its operations, taken in one go, released in one go. The
 * order of blocks is weights, keys and values, scratch, a step's data: the largest first, so that a device which is too
 * full says so soonest.
 */

#include "engine/cuda/gpu.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/fault.h"
#include "engine/cuda/gpu-internal.h"

#define ALIGN 256

static bool linears_can_run(const struct graph *g, const struct graph_op *op)
{
    const struct graph_linear *linears[GRAPH_LINEAR_MAX];
    uint32_t n = graph_op_linears(op, linears);

    for (uint32_t i = 0; i < n; i++) {
        const struct graph_linear *l = linears[i];

        if (!launch_has_type(l->weight.type) || (l->site && !gpu_adapt_can_run(g, l)))
            return false;
        /* Heads pack their own parts. */
        if (op->type != GRAPH_HEADS && g->values[l->in].format != (uint32_t)launch_act_of(l->weight.type))
            return false;
    }
    return true;
}

bool gpu_can_keep(const struct kv_layout *l)
{
    return launch_has_kv_type(l->k_type) && launch_has_kv_type(l->v_type);
}

bool gpu_can_run(const struct graph *g, const struct graph_op *op, const struct kv_layout *layouts)
{
    struct gpu probe = {.layouts = layouts, .sequences_max = 1};

    switch (op->type) {
    case GRAPH_NORM:
    case GRAPH_PACK:
    case GRAPH_ROUTE:
    case GRAPH_EXPERTS_PACK:
    case GRAPH_JOIN:
    case GRAPH_ADAPT: /* as its products */
        return true;
    case GRAPH_LINEAR:
    case GRAPH_GLU:
    case GRAPH_HEADS:
    case GRAPH_EXPERTS_GLU:
    case GRAPH_EXPERTS_DOWN:
        return linears_can_run(g, op);
    case GRAPH_ROPE_WRITE:
        return gpu_can_keep(&layouts[op->rope_write.group]);
    case GRAPH_ATTENTION: {
        struct launch_attention a = gpu_attention_args(&probe, op);
        struct launch_shape shape;

        a.n_queries = a.n_tokens = 1;
        return gpu_can_keep(&layouts[op->attention.group]) && launch_shape(LAUNCH_ATTENTION, &a, &shape) == 0;
    }
    default:
        return false;
    }
}

static size_t packed_bytes(const void *userdata, uint32_t format, uint32_t n_cols, uint32_t n_rows)
{
    (void)userdata;
    return (size_t)n_rows * launch_act_row_bytes((enum launch_act)format, n_cols);
}

/* Places the values that operations here touch, of @all; the others take no room. */
static int place_values(struct gpu *g, const struct graph_value *all)
{
    const struct graph_limits limits = {
        .tokens_max = g->tokens_max, .outputs_max = g->outputs_max, .packed_bytes = packed_bytes};
    struct graph_value *values = calloc(g->graph.n_values ? g->graph.n_values : 1, sizeof(*values));

    if (!values)
        return -ENOMEM;
    for (size_t i = 0; i < g->graph.n_ops; i++) {
        struct graph_op_values v;

        if (g->places[i] != g->place)
            continue;
        graph_op_values(&g->graph.ops[i], &v);
        for (size_t k = 0; k < v.n_reads; k++)
            values[v.reads[k]] = all[v.reads[k]];
        for (size_t k = 0; k < v.n_writes; k++)
            values[v.writes[k]] = all[v.writes[k]];
    }
    g->graph.values = values;
    return graph_plan(&g->graph, &limits);
}

/* What an operation needs beside values, for the largest batch. */
static uint64_t work_bytes(const struct gpu *g, const struct graph_op *op)
{
    uint64_t n_slots = (uint64_t)g->tokens_max * g->graph.n_experts_used;

    switch (op->type) {
    case GRAPH_LINEAR: {
        uint32_t out = op->linear.parts[0].out;

        /* The largest of the logits: of each part, then of each row. */
        return out == g->graph.logits ? (uint64_t)g->outputs_max * LAUNCH_TOP_K_MAX * sizeof(float) * 2 *
                                            (gpu_top_parts(g->graph.values[out].n_cols) + 1)
                                      : 0;
    }
    case GRAPH_EXPERTS_DOWN:
        return n_slots * op->experts_down.down.weight.n_rows * sizeof(float);
    case GRAPH_HEADS: {
        const struct graph_tensor *w = &op->heads.linear.weight;

        return (uint64_t)g->tokens_max * op->heads.n_heads * launch_act_row_bytes(launch_act_of(w->type), w->n_cols);
    }
    default:
        return 0;
    }
}

static uint64_t parts_bytes(const struct gpu *g, const struct graph_op *op)
{
    uint32_t n_segments = launch_attention_segments(g->pages_max * KV_PAGE_TOKENS - 1);
    uint64_t n;

    if (op->type != GRAPH_ATTENTION || n_segments < 2)
        return 0;
    n = launch_attention_parts_bytes(n_segments, GPU_SPLIT_TOKENS_MAX, op->attention.n_heads,
                                     g->layouts[op->attention.group].v_stride);
    return n < GPU_PARTS_BYTES ? n : GPU_PARTS_BYTES;
}

static int find_scratch(struct gpu *g, const struct graph_value *all)
{
    uint64_t work = 0, parts = 0, adapt = 0;
    int r = place_values(g, all);

    if (r < 0)
        return r;
    for (size_t i = 0; i < g->graph.n_ops; i++) {
        uint64_t w, p, a;

        if (g->places[i] != g->place)
            continue;
        w = work_bytes(g, &g->graph.ops[i]);
        p = parts_bytes(g, &g->graph.ops[i]);
        a = gpu_adapt_work_bytes(g, &g->graph.ops[i]);
        work = w > work ? w : work;
        parts = p > parts ? p : parts;
        adapt = a > adapt ? a : adapt;
    }
    if (!checked_align(g->graph.scratch_bytes, ALIGN, &g->work_at) || !checked_add(g->work_at, work, &g->parts_at) ||
        !checked_align(g->parts_at, ALIGN, &g->parts_at) || !checked_add(g->parts_at, parts, &g->adapt_at) ||
        !checked_align(g->adapt_at, ALIGN, &g->adapt_at) || !checked_add(g->adapt_at, adapt, &g->scratch_bytes))
        return -EOVERFLOW;
    g->parts_bytes = parts;
    return 0;
}

static int add_array(struct gpu *g, uint64_t n, uint64_t each, struct gpu_array *ret)
{
    struct gpu_array a = {.offset = g->inputs_bytes};

    if (!checked_mul(n, each, &a.n_bytes) || !checked_add(a.offset, a.n_bytes, &g->inputs_bytes) ||
        !checked_align(g->inputs_bytes, ALIGN, &g->inputs_bytes))
        return -EOVERFLOW;
    *ret = a;
    return 0;
}

static int add_cut(struct gpu *g, const struct graph_op *op)
{
    struct launch_attention a = gpu_attention_args(g, op);
    uint32_t n_queries = launch_attention_queries(&a);

    for (uint32_t i = 0; i < g->n_cuts; i++)
        if (g->cuts[i].n_queries == n_queries)
            return 0;
    assert(g->n_cuts < GPU_CUTS_MAX);
    g->cuts[g->n_cuts].n_queries = n_queries;
    return add_array(g, g->tokens_max, sizeof(struct launch_queries), &g->cuts[g->n_cuts++].array);
}

static bool has_adapted(const struct gpu *g)
{
    for (size_t i = 0; i < g->graph.n_ops; i++)
        if (g->places[i] == g->place && g->graph.ops[i].type == GRAPH_ADAPT)
            return true;
    return false;
}

static int add_adapted(struct gpu *g)
{
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < 2; i++) {
        g->adapted[i].groups = calloc(g->graph.n_adapters, sizeof(*g->adapted[i].groups));
        if (!g->adapted[i].groups)
            return -ENOMEM;
        r = add_array(g, i == 0 ? g->tokens_max : g->outputs_max, sizeof(uint32_t), &g->adapted[i].rows);
    }
    return r == 0 ? add_array(g, g->tokens_max, sizeof(uint32_t), &g->adapters) : r;
}

static int find_inputs(struct gpu *g)
{
    int r;

    r = add_array(g, g->tokens_max, sizeof(uint32_t), &g->positions);
    if (r == 0)
        r = add_array(g, g->tokens_max, sizeof(uint32_t), &g->token_rows);
    if (r == 0)
        r = add_array(g, g->outputs_max, sizeof(uint32_t), &g->outputs);
    if (r == 0 && has_adapted(g))
        r = add_adapted(g);
    for (size_t i = 0; r == 0 && i < g->graph.n_ops; i++)
        if (g->places[i] == g->place && g->graph.ops[i].type == GRAPH_ATTENTION)
            r = add_cut(g, &g->graph.ops[i]);
    for (uint32_t i = 0; r == 0 && i < g->graph.n_groups; i++)
        if (g->group_layers[i] > 0)
            r = add_array(g, (uint64_t)g->sequences_max * g->pages_max, sizeof(uint32_t), &g->tables[i]);
    return r;
}

static int find_functions(struct gpu *g, struct fault *reterr)
{
    bool needed[LAUNCH_KERNEL_MAX] = {false};
    int r = 0;

    for (size_t i = 0; i < g->graph.n_ops; i++)
        if (g->places[i] == g->place)
            gpu_kernels_need(&g->graph, &g->graph.ops[i], needed);
    for (uint32_t i = 0; r == 0 && i < LAUNCH_KERNEL_MAX; i++)
        if (needed[i] && launch_kernel_name(i))
            r = device_function(g->device, launch_kernel_name(i), 0, &g->functions[i], reterr);
    return r;
}

/* What a step is prepared in. */
static int take_slot(struct gpu *g, struct gpu_slot *s, struct fault *reterr)
{
    const struct driver *v = g->device->driver;
    void *inputs = NULL, *crossing = NULL;
    int r;

    r = device_pinned(g->device, g->inputs_bytes, &inputs, reterr);
    if (r == 0)
        r = device_pinned(g->device, g->crossing_bytes, &crossing, reterr);
    if (r == 0)
        r = driver_check(v, v->event_new(&s->done, CUDA_EVENT_DISABLE_TIMING), "cuEventCreate", reterr);
    if (r == 0)
        r = driver_check(v, v->event_new(&s->got, CUDA_EVENT_DISABLE_TIMING), "cuEventCreate", reterr);
    s->inputs = inputs;
    s->crossing = crossing;
    return r;
}

static int take_memory(struct gpu *g, struct fault *reterr)
{
    int r;

    r = device_alloc(g->device, g->weights.n_bytes, &g->weights.memory, reterr);
    for (uint32_t i = 0; r == 0 && i < g->graph.n_groups; i++) {
        uint64_t n_bytes;

        if (!checked_mul(g->layouts[i].page_bytes, (uint64_t)g->group_layers[i] * g->group_pages[i], &n_bytes))
            return -EOVERFLOW;
        r = device_alloc(g->device, n_bytes, &g->kv[i], reterr);
    }
    if (r == 0)
        r = device_alloc(g->device, g->scratch_bytes, &g->scratch, reterr);
    if (r == 0)
        r = device_alloc(g->device, g->inputs_bytes, &g->inputs, reterr);
    for (uint32_t i = 0; r == 0 && i < GPU_SLOTS; i++)
        r = take_slot(g, &g->slots[i], reterr);
    return r;
}

/* All figures; nothing is taken of a device. */
static int plan(const struct gpu_config *c, struct gpu **ret)
{
    _cleanup_(gpu_freep) struct gpu *g = calloc(1, sizeof(*g));
    int r;

    if (!g)
        return -ENOMEM;
    g->graph = *c->graph;
    g->places = c->places;
    g->place = c->place;
    g->layouts = c->layouts;
    g->tokens_max = c->tokens_max;
    g->outputs_max = c->outputs_max;
    g->sequences_max = c->sequences_max;
    g->pages_max = c->pages_max;
    if (!checked_align(c->crossing_bytes + 1, ALIGN, &g->crossing_bytes))
        return -EOVERFLOW;
    memcpy(g->group_layers, c->group_layers, sizeof(g->group_layers));
    memcpy(g->group_pages, c->group_pages, sizeof(g->group_pages));
    g->graph.values = NULL; /* gpu_free() releases those that place_values() makes */
    g->rows = calloc(g->sequences_max, sizeof(*g->rows));
    g->graphs = calloc(GPU_GRAPHS, sizeof(*g->graphs));
    r = g->rows && g->graphs ? find_scratch(g, c->graph->values) : -ENOMEM;
    if (r == 0)
        r = find_inputs(g);
    if (r == 0)
        r = weights_find(&g->weights, &g->graph, g->places, g->place);
    if (r == 0)
        *ret = TAKE_PTR(g);
    return r;
}

int gpu_measure(const struct gpu_config *c, struct gpu_bytes *ret)
{
    _cleanup_(gpu_freep) struct gpu *g = NULL;
    int r = plan(c, &g);

    if (r == 0)
        gpu_bytes(g, ret);
    return r;
}

/* One block was refused; what counts is what all of them take. */
static void tell_needed(const struct gpu *g, struct fault *f)
{
    struct gpu_bytes b;

    if (!f || f->kind != FAULT_INSUFFICIENT_MEMORY || strcmp(f->subject, "vram") != 0)
        return;
    gpu_bytes(g, &b);
    f->used = (int64_t)(b.weights + b.kv + b.scratch);
    f->limit += (int64_t)g->device->bytes_held;
}

int gpu_new(const struct gpu_config *c, struct gpu **ret, struct fault *reterr)
{
    _cleanup_(gpu_freep) struct gpu *g = NULL;
    int r = plan(c, &g);

    if (r == 0)
        r = device_share(c->device, &g->device, reterr);
    if (r == 0)
        g->refuses_graphs = !g->device->driver->has_graphs;
    if (r == 0)
        r = take_memory(g, reterr);
    if (r == DRIVER_OUT_OF_MEMORY)
        tell_needed(g, reterr);
    if (r == 0)
        r = find_functions(g, reterr);
    if (r == 0)
        *ret = TAKE_PTR(g);
    return r;
}

struct gpu *gpu_free(struct gpu *g)
{
    if (!g)
        return NULL;
    if (g->graphs)
        gpu_graphs_forget(g);
    for (uint32_t i = 0; g->device && i < GPU_SLOTS; i++) {
        if (g->slots[i].done)
            (void)g->device->driver->event_free(g->slots[i].done);
        if (g->slots[i].got)
            (void)g->device->driver->event_free(g->slots[i].got);
    }
    device_close(g->device);
    weights_done(&g->weights);
    free(g->graph.values);
    free(g->graphs);
    free(g->rows);
    free(g->page_ops);
    free(g->adapted[0].groups);
    free(g->adapted[1].groups);
    free(g);
    return NULL;
}

int gpu_load(struct gpu *g, upload_progress progress, void *userdata, struct fault *reterr)
{
    _cleanup_(upload_freep) struct upload *u = NULL;
    int r;

    r = upload_new(g->device, progress, userdata, &u, reterr);
    if (r == 0)
        r = weights_upload(&g->weights, u, reterr);
    return r == 0 ? upload_finish(u, reterr) : r;
}

uint64_t gpu_weights_bytes(const struct gpu *g)
{
    return g->weights.n_bytes;
}

void gpu_bytes(const struct gpu *g, struct gpu_bytes *ret)
{
    *ret = (struct gpu_bytes){
        .weights = device_charged_bytes(g->weights.n_bytes),
        .scratch = device_charged_bytes(g->scratch_bytes) + device_charged_bytes(g->inputs_bytes),
        .context = g->device ? g->device->bytes_context : 0,
    };
    for (uint32_t i = 0; i < g->graph.n_groups; i++)
        ret->kv += device_charged_bytes(g->layouts[i].page_bytes * g->group_layers[i] * g->group_pages[i]);
}

uint64_t gpu_free_bytes(const struct gpu *g)
{
    uint64_t n_bytes = 0;

    (void)device_free_bytes(g->device, &n_bytes, NULL);
    return n_bytes;
}

const struct driver_device *gpu_device(const struct gpu *g)
{
    return &g->device->info;
}
