/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a step brings to a GPU and takes from it: positions, page tables, the cutting of queries, and the values that
 * are computed on the other side of a border.
 *
 * Pinned memory is written once in a step. Steps take turns with two pieces of it, so that the next one can be prepared
 * while the GPU still reads what the last one brought.
 */

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "engine/cuda/gpu-internal.h"

/* What lies between two arrays is copied along if it is less than this: a copy more takes longer. */
#define GAP_BYTES ((uint64_t)16 << 10)

/* Consecutive bytes of the inputs that are still to be sent. */
struct piece {
    uint64_t from, past;
};

static void *input(const struct gpu *g, const struct gpu_array *a)
{
    return g->slots[g->i_slot].inputs + a->offset;
}

static int send(struct gpu *g, const struct piece *p, struct fault *reterr)
{
    const struct driver *v = g->device->driver;

    if (p->past == p->from)
        return 0;
    return driver_check(v,
                        v->copy_to_device(g->inputs + p->from, g->slots[g->i_slot].inputs + p->from, p->past - p->from,
                                          g->device->stream),
                        "cuMemcpyHtoDAsync", reterr);
}

/* Arrays come in the order of their places. */
static int add(struct gpu *g, struct piece *p, const struct gpu_array *a, uint64_t n_bytes, struct fault *reterr)
{
    int r = 0;

    assert(n_bytes <= a->n_bytes && a->offset >= p->past);
    if (n_bytes == 0)
        return 0;
    if (p->past == p->from || a->offset - p->past > GAP_BYTES) {
        r = send(g, p, reterr);
        p->from = a->offset;
    }
    p->past = a->offset + n_bytes;
    return r;
}

/* The row of kv.tables for the pages of @run's sequence; runs of one sequence share it. */
static uint32_t row_of(struct gpu *g, const struct exec_run *run)
{
    uint32_t i = g->n_rows;

    while (i > 0)
        if (g->rows[--i] == run->tables)
            return i;
    assert(g->n_rows < g->sequences_max);
    g->rows[g->n_rows] = run->tables;
    for (uint32_t k = 0; k < g->graph.n_groups; k++)
        if (run->tables[k].n > g->table_stride)
            g->table_stride = run->tables[k].n;
    return g->n_rows++;
}

/* Graphs are of use for longer when what they depend on changes seldom. Segments without keys change no result. */
static void round_up(struct gpu *g, uint32_t n_segments)
{
    uint32_t step = GPU_GRAPH_PAGES * KV_PAGE_TOKENS / LAUNCH_SEGMENT_TOKENS;
    uint32_t most = launch_attention_segments(g->pages_max * KV_PAGE_TOKENS - 1);

    g->table_stride = (g->table_stride + GPU_GRAPH_PAGES - 1) / GPU_GRAPH_PAGES * GPU_GRAPH_PAGES;
    g->table_stride = g->table_stride < g->pages_max ? g->table_stride : g->pages_max;
    g->n_segments = n_segments == 1 ? 1 : (n_segments + step - 1) / step * step;
    g->n_segments = g->n_segments < most ? g->n_segments : most;
}

static void fill_tokens(struct gpu *g)
{
    const struct exec_batch *b = g->batch;
    uint32_t *rows = input(g, &g->token_rows), position_last = 0;

    g->n_rows = g->table_stride = 0;
    for (uint32_t i = 0; i < b->n_runs; i++) {
        const struct exec_run *run = &b->runs[i];
        uint32_t row = row_of(g, run), last = run->position0 + run->n_tokens - 1;

        for (uint32_t k = 0; k < run->n_tokens; k++)
            rows[run->token0 + k] = row;
        position_last = last > position_last ? last : position_last;
    }
    round_up(g, launch_attention_segments(position_last));
    memcpy(input(g, &g->positions), b->positions, b->n_tokens * sizeof(*b->positions));
    if (b->n_outputs)
        memcpy(input(g, &g->outputs), b->outputs, b->n_outputs * sizeof(*b->outputs));
    gpu_adapt_group(g, (uint32_t *const[2]){input(g, &g->adapted[0].rows), input(g, &g->adapted[1].rows)},
                    input(g, &g->adapters));
}

/* What adapters need to know of the step. */
static int add_adapted(struct gpu *g, struct piece *p, struct fault *reterr)
{
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < 2; i++) {
        const struct gpu_adapted *a = &g->adapted[i];
        const struct gpu_adapted_group *last = a->n_groups > 0 ? &a->groups[a->n_groups - 1] : NULL;

        r = last ? add(g, p, &a->rows, (last->first + last->n) * sizeof(uint32_t), reterr) : 0;
    }
    return r == 0 && g->adapted[0].n_groups > 0
               ? add(g, p, &g->adapters, g->batch->n_tokens * sizeof(uint32_t), reterr)
               : r;
}

static void fill_tables(struct gpu *g, uint32_t group)
{
    uint32_t *ids = input(g, &g->tables[group]);

    for (uint32_t i = 0; i < g->n_rows; i++) {
        const struct page_table *t = &g->rows[i][group];

        memcpy(ids + (size_t)i * g->table_stride, t->ids, t->n * sizeof(*ids));
        memset(ids + (size_t)i * g->table_stride + t->n, 0, (g->table_stride - t->n) * sizeof(*ids));
    }
}

static void fill_cut(struct gpu *g, struct gpu_cut *cut)
{
    const uint32_t *rows = input(g, &g->token_rows);
    struct launch_queries *q = input(g, &cut->array);

    cut->n = 0;
    for (uint32_t i = 0; i < g->batch->n_runs; i++) {
        const struct exec_run *run = &g->batch->runs[i];

        for (uint32_t k = 0; k < run->n_tokens; k += cut->n_queries) {
            uint32_t n = run->n_tokens - k < cut->n_queries ? run->n_tokens - k : cut->n_queries;

            q[cut->n++] = (struct launch_queries){.run = rows[run->token0],
                                                  .row0 = run->token0 + k,
                                                  .n_queries = n,
                                                  .position0 = run->position0 + k,
                                                  .n_keys = g->graph.is_encoder ? run->n_tokens : 0};
        }
    }
}

static int do_page_op(struct gpu *g, const struct gpu_page_op *op, struct fault *reterr)
{
    const struct driver *v = g->device->driver;
    uint64_t n_bytes = g->layouts[op->group].page_bytes * g->group_layers[op->group];
    cuda_pointer to = g->kv[op->group] + op->to * n_bytes, from = g->kv[op->group] + op->from * n_bytes;

    if (op->to == op->from)
        return driver_check(v, v->set_bytes(to, 0, n_bytes, g->device->stream), "cuMemsetD8Async", reterr);
    return driver_check(v, v->copy_on_device(to, from, n_bytes, g->device->stream), "cuMemcpyDtoDAsync", reterr);
}

/* Those that are refused, and all behind them, are for the next step. */
static int do_page_ops(struct gpu *g, struct fault *reterr)
{
    uint32_t n = 0;
    int r = g->lost_page_ops ? -ENOMEM : 0;

    while (r == 0 && n < g->n_page_ops) {
        r = do_page_op(g, &g->page_ops[n], reterr);
        n += r == 0;
    }
    g->n_page_ops -= n;
    if (n > 0 && g->n_page_ops > 0)
        memmove(g->page_ops, g->page_ops + n, g->n_page_ops * sizeof(*g->page_ops));
    return r;
}

/* Between two users. Nothing runs: each step is waited for. */
static int wipe(struct gpu *g, struct fault *reterr)
{
    const struct driver *v = g->device->driver;
    int r;

    if (!g->wipes)
        return 0;
    for (uint32_t i = 0; i < GPU_SLOTS; i++) {
        memset(g->slots[i].inputs, 0, g->inputs_bytes);
        memset(g->slots[i].crossing, 0, g->crossing_bytes);
    }
    r = driver_check(v, v->set_bytes(g->inputs, 0, g->inputs_bytes, g->device->stream), "cuMemsetD8Async", reterr);
    if (r == 0 && g->scratch_bytes > 0)
        r = driver_check(v, v->set_bytes(g->scratch, 0, g->scratch_bytes, g->device->stream), "cuMemsetD8Async",
                         reterr);
    g->wipes = r != 0;
    return r;
}

static int send_inputs(struct gpu *g, struct fault *reterr)
{
    const struct exec_batch *b = g->batch;
    struct piece p = {.from = 0};
    int r;

    fill_tokens(g);
    r = add(g, &p, &g->positions, b->n_tokens * sizeof(uint32_t), reterr);
    if (r == 0)
        r = add(g, &p, &g->token_rows, b->n_tokens * sizeof(uint32_t), reterr);
    if (r == 0)
        r = add(g, &p, &g->outputs, b->n_outputs * sizeof(uint32_t), reterr);
    if (r == 0)
        r = add_adapted(g, &p, reterr);
    for (uint32_t i = 0; r == 0 && i < g->n_cuts; i++) {
        fill_cut(g, &g->cuts[i]);
        r = add(g, &p, &g->cuts[i].array, g->cuts[i].n * sizeof(struct launch_queries), reterr);
    }
    for (uint32_t i = 0; r == 0 && i < g->graph.n_groups; i++) {
        if (g->group_layers[i] == 0)
            continue;
        fill_tables(g, i);
        r = add(g, &p, &g->tables[i], (uint64_t)g->n_rows * g->table_stride * sizeof(uint32_t), reterr);
    }
    return r == 0 ? send(g, &p, reterr) : r;
}

int gpu_begin(struct gpu *g, const struct exec_batch *batch, struct fault *reterr)
{
    const struct driver *v = g->device->driver;
    struct gpu_slot *s;
    int r;

    g->i_slot = (g->i_slot + 1) % GPU_SLOTS;
    s = &g->slots[g->i_slot];
    g->batch = batch;
    g->crossing_used = 0;
    r = device_enter(g->device, reterr);
    if (r == 0 && s->in_use)
        r = driver_check(v, v->event_wait(s->done), "cuEventSynchronize", reterr);
    if (r != 0)
        return r;
    s->in_use = false;
    r = do_page_ops(g, reterr);
    if (r == 0)
        r = wipe(g, reterr);
    if (r != 0)
        return r;
    return send_inputs(g, reterr);
}

int gpu_end(struct gpu *g, struct fault *reterr)
{
    const struct driver *v = g->device->driver;
    struct gpu_slot *s = &g->slots[g->i_slot];
    int r = device_enter(g->device, reterr);

    g->batch = NULL;
    if (r == 0)
        r = driver_check(v, v->event_record(s->done, g->device->stream), "cuEventRecord", reterr);
    s->in_use = r == 0;
    return r;
}

/* A piece of the pinned memory that values cross in. */
static uint8_t *cross(struct gpu *g, uint64_t n_bytes)
{
    uint8_t *p = g->slots[g->i_slot].crossing + g->crossing_used;

    g->crossing_used += (n_bytes + 63) / 64 * 64;
    assert(g->crossing_used <= g->crossing_bytes);
    return p;
}

int gpu_put(struct gpu *g, uint32_t id, const float *from, uint32_t n_rows, struct fault *reterr)
{
    const struct driver *v = g->device->driver;
    uint64_t n_bytes = (uint64_t)n_rows * g->graph.values[id].n_cols * sizeof(float);
    uint8_t *pinned;
    int r;

    if (n_bytes == 0)
        return 0;
    r = device_enter(g->device, reterr);
    if (r != 0)
        return r;
    pinned = cross(g, n_bytes);
    memcpy(pinned, from, n_bytes);
    return driver_check(v, v->copy_to_device(gpu_value(g, id), pinned, n_bytes, g->device->stream),
                        "cuMemcpyHtoDAsync", reterr);
}

/* Copies out of the device's memory, and waits. *@ret stays until something else crosses; what was put is read. */
static int get(struct gpu *g, cuda_pointer from, uint64_t n_bytes, const uint8_t **ret, struct fault *reterr)
{
    const struct driver *v = g->device->driver;
    struct cuda_event *got = g->slots[g->i_slot].got;
    uint8_t *pinned = cross(g, n_bytes);
    int r;

    r = driver_check(v, v->copy_to_host(pinned, from, n_bytes, g->device->stream), "cuMemcpyDtoHAsync", reterr);
    if (r == 0)
        r = driver_check(v, v->event_record(got, g->device->stream), "cuEventRecord", reterr);
    if (r == 0)
        r = driver_check(v, v->event_wait(got), "cuEventSynchronize", reterr);
    if (r != 0)
        return r;
    g->crossing_used = 0;
    *ret = pinned;
    return 0;
}

int gpu_get(struct gpu *g, uint32_t id, float *to, uint32_t n_rows, struct fault *reterr)
{
    uint64_t n_bytes = (uint64_t)n_rows * g->graph.values[id].n_cols * sizeof(float);
    const uint8_t *got = NULL;
    int r;

    if (n_bytes == 0)
        return 0;
    r = device_enter(g->device, reterr);
    if (r == 0)
        r = get(g, gpu_value(g, id), n_bytes, &got, reterr);
    if (r == 0)
        memcpy(to, got, n_bytes);
    return r;
}

bool gpu_has_top(const struct gpu *g, uint32_t id, uint32_t k)
{
    uint32_t n_cols = g->graph.values[id].n_cols;

    /* What crosses is not more than the rows would be, and the parts' candidates are few enough for one block. */
    return id == g->graph.logits && k <= LAUNCH_TOP_K_MAX && 2 * k + 64 <= n_cols &&
           gpu_top_parts(n_cols) * k <= LAUNCH_TOP_K_COLUMNS;
}

int gpu_get_top(struct gpu *g, uint32_t id, uint32_t k, uint32_t n_rows, uint32_t *to_ids, float *to_values,
                struct fault *reterr)
{
    uint64_t n_bytes = (uint64_t)n_rows * k * sizeof(float);
    const uint8_t *got = NULL;
    cuda_pointer top = 0;
    int r;

    if (n_rows == 0)
        return 0;
    r = device_enter(g->device, reterr);
    if (r == 0)
        r = gpu_launch_top(g, id, k, n_rows, &top, reterr);
    if (r == 0)
        r = get(g, top, 2 * n_bytes, &got, reterr);
    if (r != 0)
        return r;
    memcpy(to_ids, got, n_bytes);
    memcpy(to_values, got + n_bytes, n_bytes);
    return 0;
}

int gpu_wait(struct gpu *g, struct fault *reterr)
{
    g->batch = NULL;
    for (uint32_t i = 0; i < GPU_SLOTS; i++)
        g->slots[i].in_use = false;
    return device_wait(g->device, reterr);
}

static void add_page_op(struct gpu *g, uint32_t group, uint32_t to, uint32_t from)
{
    if (g->group_layers[group] == 0)
        return;
    if (g->n_page_ops == g->n_page_ops_room) {
        uint32_t room = g->n_page_ops_room ? 2 * g->n_page_ops_room : 64;
        struct gpu_page_op *p = reallocarray(g->page_ops, room, sizeof(*p));

        if (!p) {
            g->lost_page_ops = true;
            return;
        }
        g->page_ops = p;
        g->n_page_ops_room = room;
    }
    g->page_ops[g->n_page_ops++] = (struct gpu_page_op){.group = group, .to = to, .from = from};
}

void gpu_page_zero(struct gpu *g, uint32_t group, uint32_t id)
{
    add_page_op(g, group, id, id);
}

void gpu_page_copy(struct gpu *g, uint32_t group, uint32_t to, uint32_t from)
{
    add_page_op(g, group, to, from);
}

void gpu_wipe(struct gpu *g)
{
    g->wipes = true;
}
