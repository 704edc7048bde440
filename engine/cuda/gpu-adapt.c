/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Adapters on a GPU: engine/cpu/exec-adapt.c in launches of the kernels that there are. The rows of a step are sorted
 * by adapter; each adapter in the step has its rows packed and multiplied with its factors. The second factor's product
 * adds itself to the rows of the result (launch_linear.adds), with the rounding of the CPU's vector.add_scaled.
 *
 * Experts' rows are in the order of experts, not of adapters: there an adapter's matrices are multiplied with all
 * slots, and only those of its tokens get the result. Of low rank, that costs less than sorting them again.
 *
 * What is packed already is not packed: floats of consecutive rows, which one adapter alone in a step has.
 */

#include <assert.h>

#include "engine/cuda/gpu-internal.h"

#define N_ACTS 3

/* What each form of packed rows takes, one behind the other. */
struct packs {
    bool used[N_ACTS];
    uint64_t at[N_ACTS];
    uint64_t n_bytes;
};

static bool has_routes(const struct gpu *g, uint32_t value)
{
    return g->graph.values[value].rows == GRAPH_ROWS_SLOTS;
}

static uint64_t rows_max(const struct gpu *g, uint32_t value)
{
    if (g->graph.values[value].rows == GRAPH_ROWS_OUTPUTS)
        return g->outputs_max;
    return (uint64_t)g->tokens_max * (has_routes(g, value) ? g->graph.n_experts_used : 1);
}

static void place(struct packs *p, uint64_t n_rows, uint32_t n_cols)
{
    p->n_bytes = 0;
    for (uint32_t i = 0; i < N_ACTS; i++) {
        p->at[i] = p->n_bytes;
        p->n_bytes += p->used[i] ? n_rows * launch_act_row_bytes((enum launch_act)i, n_cols) : 0;
    }
}

/* Of the first factors of @adapter; n_adapters: of any. */
static struct packs packs_of(const struct gpu *g, const struct graph_op *op, uint32_t adapter, uint64_t n_rows)
{
    uint32_t first = adapter < g->graph.n_adapters ? adapter : 0;
    uint32_t past = adapter < g->graph.n_adapters ? adapter + 1 : adapter;
    struct packs p = {.n_bytes = 0};

    for (uint32_t i = 0; i < op->adapt.n_parts; i++)
        for (uint32_t a = first; a < past; a++) {
            const struct graph_tensor *down = &graph_adapted_at(&g->graph, op->adapt.sites[i], a)->down;

            if (down->data)
                p.used[launch_act_of(down->type)] = true;
        }
    place(&p, n_rows, g->graph.values[op->adapt.in].n_cols);
    return p;
}

static uint64_t up_bytes(const struct gpu *g, const struct graph_linear *l)
{
    uint64_t most = 0;

    for (uint32_t a = 0; l->site && a < g->graph.n_adapters; a++) {
        const struct graph_tensor *up = &graph_adapted_at(&g->graph, l->site, a)->up;
        uint64_t n = up->data ? rows_max(g, l->low) * launch_act_row_bytes(launch_act_of(up->type), up->n_cols) : 0;

        most = n > most ? n : most;
    }
    return most;
}

uint64_t gpu_adapt_work_bytes(const struct gpu *g, const struct graph_op *op)
{
    const struct graph_linear *linears[GRAPH_LINEAR_MAX];
    uint32_t n = graph_op_linears(op, linears);
    uint64_t most = 0;

    if (op->type == GRAPH_ADAPT)
        return packs_of(g, op, g->graph.n_adapters, rows_max(g, op->adapt.outs[0])).n_bytes;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t n_bytes = up_bytes(g, linears[i]);

        most = n_bytes > most ? n_bytes : most;
    }
    return most;
}

bool gpu_adapt_can_run(const struct graph *graph, const struct graph_linear *l)
{
    for (uint32_t a = 0; a < graph->n_adapters; a++) {
        const struct graph_adapted *d = graph_adapted_at(graph, l->site, a);

        if (d->down.data && (!launch_has_type(d->down.type) || !launch_has_type(d->up.type)))
            return false;
    }
    return true;
}

static void need_type(enum tensor_type type, bool *needed)
{
    needed[LAUNCH_LINEAR + type] = needed[LAUNCH_LINEAR_TILES + type] = needed[LAUNCH_PACK] = true;
}

void gpu_adapt_need(const struct graph *graph, const struct graph_op *op, bool *needed)
{
    const struct graph_linear *linears[GRAPH_LINEAR_MAX];
    uint32_t n = graph_op_linears(op, linears);

    for (uint32_t a = 0; a < graph->n_adapters; a++) {
        for (uint32_t i = 0; op->type == GRAPH_ADAPT && i < op->adapt.n_parts; i++)
            if (graph_adapted_at(graph, op->adapt.sites[i], a)->down.data)
                need_type(graph_adapted_at(graph, op->adapt.sites[i], a)->down.type, needed);
        for (uint32_t i = 0; i < n; i++) {
            if (!linears[i]->site || !graph_adapted_at(graph, linears[i]->site, a)->up.data)
                continue;
            need_type(graph_adapted_at(graph, linears[i]->site, a)->up.type, needed);
            needed[LAUNCH_LINEAR_FINISH] = true;
        }
    }
}

/* By counting, as there are few adapters: one walk for each. Rows of OUTPUTS are tokens picked by @pick. */
static void group(struct gpu *g, struct gpu_adapted *a, uint32_t n_rows, const uint32_t *pick, uint32_t *rows)
{
    uint32_t n = 0;

    for (uint32_t adapter = 1; adapter <= g->graph.n_adapters; adapter++) {
        uint32_t first = n;

        for (uint32_t i = 0; i < n_rows; i++)
            if (g->batch->adapters[pick ? pick[i] : i] == adapter)
                rows[n++] = i;
        if (n > first)
            a->groups[a->n_groups++] = (struct gpu_adapted_group){
                .adapter = adapter - 1,
                .first = first,
                .n = n - first,
                .row0 = rows[n - 1] - rows[first] == n - 1 - first ? rows[first] : GRAPH_NONE,
            };
    }
}

void gpu_adapt_group(struct gpu *g, uint32_t *const rows[2], uint32_t *adapters)
{
    const struct exec_batch *b = g->batch;

    g->adapted[0].n_groups = g->adapted[1].n_groups = 0;
    if (!b->adapters || !g->adapted[0].groups)
        return;
    group(g, &g->adapted[0], b->n_tokens, NULL, rows[0]);
    group(g, &g->adapted[1], b->n_outputs, b->outputs, rows[1]);
    for (uint32_t i = 0; i < b->n_tokens; i++)
        adapters[i] = b->adapters[i];
}

/* The groups that a value of first factors, or its products, has. */
static const struct gpu_adapted *adapted_of(const struct gpu *g, uint32_t low)
{
    return &g->adapted[g->graph.values[low].rows == GRAPH_ROWS_OUTPUTS];
}

static cuda_pointer group_rows(const struct gpu *g, const struct gpu_adapted *a, const struct gpu_adapted_group *group)
{
    return gpu_input(g, &a->rows) + group->first * sizeof(uint32_t);
}

/* Rows of floats are packed as they are where each is a whole number of 16 bytes. */
static bool is_packed(uint32_t n_cols, uint32_t stride)
{
    return n_cols % 4 == 0 && n_cols == stride;
}

/* A product of one of an adapter's factors, without what it is for. */
static struct launch_linear factor_args(const struct gpu *g, const struct graph_tensor *w)
{
    return gpu_linear_args(g, &(struct graph_linear){.weight = *w, .in = GRAPH_NONE, .out = GRAPH_NONE});
}

/* For all slots, of which those whose token has @adapter get a result. */
static void route(const struct gpu *g, cuda_pointer routes, uint32_t adapter, struct launch_linear *a)
{
    uint32_t n_slots = g->batch->n_tokens * g->graph.n_experts_used;

    a->routes = routes;
    a->n_tokens = g->batch->n_tokens;
    a->n_experts = g->graph.n_experts;
    a->n_used = g->graph.n_experts_used;
    a->n_matrices = n_slots < a->n_experts ? n_slots : a->n_experts;
    a->adapters = gpu_input(g, &g->adapters);
    a->adapter = adapter + 1;
}

static int launch_factor(const struct gpu *g, struct launch_linear *a, struct fault *reterr)
{
    return gpu_launch(g, launch_linear_kernel(a), a, reterr);
}

/* Packs what first factors read of the rows of @group; *ret: where each form is. */
static int pack_in(const struct gpu *g, const struct graph_op *op, const struct gpu_adapted_group *group,
                   cuda_pointer ret[N_ACTS], struct fault *reterr)
{
    uint32_t in = op->adapt.in, n_cols = g->graph.values[in].n_cols;
    uint32_t n_slots = g->batch->n_tokens * g->graph.n_experts_used;
    bool experts = op->adapt.routes != GRAPH_NONE, any = false;
    struct packs p = packs_of(g, op, group->adapter, experts ? n_slots : group->n);
    struct launch_pack a = {.in = gpu_value(g, in),
                            .n_rows = experts ? n_slots : group->n,
                            .n_cols = n_cols,
                            .in_stride = n_cols,
                            .n_parts = 1};

    if (!experts)
        a.rows = group_rows(g, adapted_of(g, op->adapt.outs[0]), group);
    else if (g->graph.values[in].rows == GRAPH_ROWS_TOKENS)
        a.rows = launch_routes_at(gpu_value(g, op->adapt.routes), g->graph.n_experts, n_slots).slot_tokens;
    for (uint32_t i = 0; i < N_ACTS; i++) {
        ret[i] = g->scratch + g->adapt_at + p.at[i];
        if (!p.used[i])
            continue;
        if (i == LAUNCH_ACT_F32 && is_packed(n_cols, n_cols) && (experts ? !a.rows : group->row0 != GRAPH_NONE)) {
            ret[i] = a.in + (experts ? 0 : (uint64_t)group->row0 * n_cols * sizeof(float));
            continue;
        }
        a.packs[i] = ret[i];
        any = true;
    }
    return any ? gpu_launch(g, LAUNCH_PACK, &a, reterr) : 0;
}

static int run_group(const struct gpu *g, const struct graph_op *op, const struct gpu_adapted_group *group,
                     struct fault *reterr)
{
    cuda_pointer acts[N_ACTS];
    int r = pack_in(g, op, group, acts, reterr);

    for (uint32_t i = 0; r == 0 && i < op->adapt.n_parts; i++) {
        const struct graph_tensor *down = &graph_adapted_at(&g->graph, op->adapt.sites[i], group->adapter)->down;
        struct launch_linear a;

        if (!down->data)
            continue;
        a = factor_args(g, down);
        a.act = acts[launch_act_of(down->type)];
        a.out = gpu_value(g, op->adapt.outs[i]);
        a.out_stride = g->graph.values[op->adapt.outs[i]].n_cols;
        if (op->adapt.routes != GRAPH_NONE) {
            route(g, gpu_value(g, op->adapt.routes), group->adapter, &a);
        } else {
            a.n_tokens = group->n;
            a.out += (uint64_t)group->first * a.out_stride * sizeof(float);
        }
        r = launch_factor(g, &a, reterr);
    }
    return r;
}

int gpu_run_adapt(const struct gpu *g, const struct graph_op *op, struct fault *reterr)
{
    const struct gpu_adapted *a = adapted_of(g, op->adapt.outs[0]);
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < a->n_groups; i++)
        r = run_group(g, op, &a->groups[i], reterr);
    return r;
}

/* @to: the launch whose sums this adds to. */
static int add_group(const struct gpu *g, const struct graph_linear *l, const struct gpu_adapted_group *group,
                     const struct launch_linear *to, struct fault *reterr)
{
    const struct graph_adapted *d = graph_adapted_at(&g->graph, l->site, group->adapter);
    uint32_t stride = g->graph.values[l->low].n_cols;
    struct launch_pack pack = {.in = gpu_value(g, l->low), .n_cols = d->up.n_cols, .in_stride = stride, .n_parts = 1};
    enum launch_act act = launch_act_of(d->up.type);
    struct launch_linear a;
    int r = 0;

    if (!d->up.data)
        return 0;
    a = factor_args(g, &d->up);
    a.out = to->out;
    a.out_stride = to->out_stride;
    a.scale = d->scale;
    a.adds = 1;
    if (to->routes) {
        route(g, to->routes, group->adapter, &a);
        pack.n_rows = g->batch->n_tokens * g->graph.n_experts_used;
    } else {
        pack.in += (uint64_t)group->first * stride * sizeof(float);
        pack.n_rows = a.n_tokens = group->n;
        a.rows = group_rows(g, adapted_of(g, l->low), group);
    }
    a.act = pack.in;
    if (act != LAUNCH_ACT_F32 || !is_packed(d->up.n_cols, stride)) {
        a.act = pack.packs[act] = g->scratch + g->adapt_at;
        r = gpu_launch(g, LAUNCH_PACK, &pack, reterr);
    }
    return r == 0 ? launch_factor(g, &a, reterr) : r;
}

int gpu_adapt_add(const struct gpu *g, const struct graph_linear *l, const struct launch_linear *a,
                  struct fault *reterr)
{
    const struct gpu_adapted *adapted;
    int r = 0;

    if (!l->site || !g->batch->adapters)
        return 0;
    adapted = adapted_of(g, l->low);
    for (uint32_t i = 0; r == 0 && i < adapted->n_groups; i++)
        r = add_group(g, l, &adapted->groups[i], a, reterr);
    return r;
}
