/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Zeroing what steps leave behind: activations and logits of what users wrote and were answered, which nobody reads any
 * more, and which the next step overwrites only as far as it has as many tokens.
 *
 * The scratch memory is as large as the largest step needs it, and most steps are small. So it is noted which values
 * were ever written here (with GPUs most are not) and how many rows the largest steps since the last wiping had; that
 * much of each is zeroed and no more. Values of different layers lie on top of each other: they are one place.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/wipe.h"
#include "engine/cpu/exec-ops.h"
#include "engine/cpu/exec.h"
#include "engine/cpu/threads.h"

struct numbered {
    const struct graph_value *value;
    uint32_t index;
};

static int by_place(const void *a, const void *b)
{
    const struct graph_value *x = ((const struct numbered *)a)->value, *y = ((const struct numbered *)b)->value;

    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    if (x->rows != y->rows)
        return x->rows < y->rows ? -1 : 1;
    if (x->n_cols != y->n_cols)
        return x->n_cols < y->n_cols ? -1 : 1;
    return (x->format > y->format) - (x->format < y->format);
}

int exec_traces_init(struct exec *x)
{
    struct exec_traces *t = &x->traces;
    size_t n = x->graph->n_values;
    _cleanup_free_ struct numbered *order = calloc(n + 1, sizeof(*order));

    t->places = calloc(n + 1, sizeof(*t->places));
    t->extents = calloc(n + 1, sizeof(*t->extents));
    t->place_of = calloc(n + 1, sizeof(*t->place_of));
    t->op_has_run = calloc(x->graph->n_ops + 1, sizeof(*t->op_has_run));
    if (!order || !t->places || !t->extents || !t->place_of || !t->op_has_run)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        order[i] = (struct numbered){.value = &x->graph->values[i], .index = (uint32_t)i};
    qsort(order, n, sizeof(*order), by_place);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || by_place(&order[i - 1], &order[i]) != 0)
            t->places[t->n_places++].value = order[i].index;
        t->place_of[order[i].index] = t->n_places - 1;
    }
    return 0;
}

void exec_traces_done(struct exec *x)
{
    free(x->traces.places);
    free(x->traces.extents);
    free(x->traces.place_of);
    free(x->traces.op_has_run);
}

void exec_traces_begin(struct exec *x)
{
    struct exec_traces *t = &x->traces;

    t->n_tokens = x->batch->n_tokens > t->n_tokens ? x->batch->n_tokens : t->n_tokens;
    t->n_outputs = x->batch->n_outputs > t->n_outputs ? x->batch->n_outputs : t->n_outputs;
}

void exec_traces_value(struct exec *x, uint32_t id)
{
    x->traces.places[x->traces.place_of[id]].is_used = true;
}

void exec_traces_ops(struct exec *x, size_t first, size_t past)
{
    for (size_t i = first; i < past; i++) {
        struct graph_op_values v;

        if (x->traces.op_has_run[i] || exec_is_left_out(x, i))
            continue;
        x->traces.op_has_run[i] = true;
        graph_op_values(&x->graph->ops[i], &v);
        for (size_t k = 0; k < v.n_writes; k++)
            exec_traces_value(x, v.writes[k]);
    }
}

static size_t packed_bytes(const void *userdata, uint32_t format, uint32_t n_cols, uint32_t n_rows)
{
    return linear_pack_bytes(userdata, (enum act_format)format, n_cols, n_rows);
}

static void find_extents(struct exec *x)
{
    struct exec_traces *t = &x->traces;
    const struct graph_limits limits = {
        .tokens_max = t->n_tokens, .outputs_max = t->n_outputs, .packed_bytes = packed_bytes, .userdata = x->kernels};
    uint64_t end = 0;

    t->n_extents = 0;
    for (uint32_t i = 0; i < t->n_places; i++) {
        const struct graph_value *v = &x->graph->values[t->places[i].value];
        uint64_t from = v->offset > end ? v->offset : end, n_bytes;

        if (!t->places[i].is_used || !graph_value_bytes(x->graph, &limits, v, &n_bytes) ||
            v->offset + n_bytes <= from)
            continue;
        end = v->offset + n_bytes;
        t->extents[t->n_extents++] = (struct exec_extent){.from = from, .n_bytes = end - from};
    }
}

static void wipe(void *userdata, uint32_t thread, uint32_t n_threads)
{
    const struct exec *x = userdata;
    const struct exec_traces *t = &x->traces;

    for (uint32_t i = 0; i < t->n_extents; i++) {
        uint64_t n_bytes = t->extents[i].n_bytes, from = n_bytes * thread / n_threads;

        explicit_bzero(x->scratch + t->extents[i].from + from, n_bytes * (thread + 1) / n_threads - from);
    }
    explicit_bzero(x->thread_scratch + thread * x->thread_scratch_bytes, x->thread_scratch_bytes);
    wipe_stack();
}

void exec_wipe(struct exec *x)
{
    if (x->traces.n_tokens == 0)
        return;
    find_extents(x);
    threads_run(x->threads, wipe, x);
    x->traces.n_tokens = x->traces.n_outputs = 0;
}
