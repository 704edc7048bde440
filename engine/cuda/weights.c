/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The list of a device's weights. Matrices that are used twice (an output matrix that is the embedding too) and rows
 * of one matrix that are used as three begin at addresses of their own; only equal addresses are taken for the same.
 * Factors of adapters lie in mappings of their own, and are of the operations that they change.
 */

#include "engine/cuda/weights.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"

static int add(struct weights *w, const void *data, uint64_t n_bytes)
{
    if (!data)
        return 0;
    if (w->n == w->n_room) {
        size_t room = w->n_room ? 2 * w->n_room : 256;
        struct weights_entry *p = reallocarray(w->entries, room, sizeof(*p));

        if (!p)
            return -ENOMEM;
        w->entries = p;
        w->n_room = room;
    }
    w->entries[w->n++] = (struct weights_entry){.data = data, .n_bytes = n_bytes};
    return 0;
}

static int add_floats(struct weights *w, const float *data, uint64_t n)
{
    return add(w, data, n * sizeof(*data));
}

static int add_matrices(struct weights *w, const struct graph_tensor *t, uint32_t m)
{
    return add(w, t->data, (m - 1) * t->matrix_bytes + t->n_rows * t->row_bytes);
}

static uint32_t n_matrices(const struct graph *g, const struct graph_op *op)
{
    if (op->type == GRAPH_EXPERTS_GLU || op->type == GRAPH_EXPERTS_DOWN)
        return g->n_experts;
    return op->type == GRAPH_HEADS ? op->heads.n_heads : 1;
}

/* The second factor of each adapter for the product @l. */
static int add_up(struct weights *w, const struct graph *g, const struct graph_linear *l, uint32_t m)
{
    int r = 0;

    for (uint32_t i = 0; r == 0 && l->site && i < g->n_adapters; i++)
        r = add_matrices(w, &graph_adapted_at(g, l->site, i)->up, m);
    return r;
}

static int add_down(struct weights *w, const struct graph *g, const struct graph_op *op)
{
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < op->adapt.n_parts * g->n_adapters; i++)
        r = add_matrices(w, &graph_adapted_at(g, op->adapt.sites[i / g->n_adapters], i % g->n_adapters)->down,
                         op->adapt.routes == GRAPH_NONE ? 1 : g->n_experts);
    return r;
}

static int add_linears(struct weights *w, const struct graph *g, const struct graph_op *op)
{
    const struct graph_linear *linears[GRAPH_LINEAR_MAX];
    uint32_t n = graph_op_linears(op, linears), m = n_matrices(g, op);
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < n; i++) {
        const struct graph_tensor *t = &linears[i]->weight;

        r = add_matrices(w, t, m);
        if (r == 0)
            r = add_floats(w, linears[i]->bias, (uint64_t)m * t->n_rows);
        if (r == 0)
            r = add_up(w, g, linears[i], m);
    }
    return r;
}

static int add_vectors(struct weights *w, const struct graph *g, const struct graph_op *op)
{
    uint32_t n;
    int r;

    switch (op->type) {
    case GRAPH_NORM:
        n = g->values[op->norm.in].n_cols;
        r = add_floats(w, op->norm.weight, n);
        if (r == 0)
            r = add_floats(w, op->norm.bias, n);
        return r == 0 && op->norm.add != GRAPH_NONE ? add_floats(w, op->norm.add_weight, n) : r;
    case GRAPH_ROPE_WRITE:
        r = add_floats(w, op->rope_write.q_norm, op->rope_write.k_dim);
        return r == 0 ? add_floats(w, op->rope_write.k_norm, op->rope_write.k_dim) : r;
    case GRAPH_ATTENTION:
        return add_floats(w, op->attention.sinks, op->attention.n_heads);
    case GRAPH_ROUTE:
        return add_floats(w, op->route.bias, g->n_experts);
    case GRAPH_ADAPT:
        return add_down(w, g, op);
    default:
        return 0;
    }
}

static int by_data(const void *a, const void *b)
{
    const struct weights_entry *x = a, *y = b;

    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return x->n_bytes > y->n_bytes ? -1 : x->n_bytes < y->n_bytes;
}

/* Sorts, drops the second of equals (the longest comes first) and gives each its place. */
static int place(struct weights *w)
{
    size_t n = 0;

    if (w->n == 0)
        return 0;
    qsort(w->entries, w->n, sizeof(*w->entries), by_data);
    for (size_t i = 0; i < w->n; i++)
        if (n == 0 || w->entries[n - 1].data != w->entries[i].data)
            w->entries[n++] = w->entries[i];
    w->n = n;
    for (size_t i = 0; i < n; i++) {
        w->entries[i].offset = w->n_bytes;
        if (!checked_add(w->n_bytes, w->entries[i].n_bytes, &w->n_bytes) ||
            !checked_align(w->n_bytes, WEIGHTS_ALIGN, &w->n_bytes))
            return -EOVERFLOW;
    }
    return 0;
}

int weights_find(struct weights *w, const struct graph *g, const uint8_t *places, uint8_t here)
{
    int r = 0;

    *w = (struct weights){.entries = NULL};
    for (size_t i = 0; r == 0 && i < g->n_ops; i++) {
        if (places[i] != here)
            continue;
        r = add_linears(w, g, &g->ops[i]);
        if (r == 0)
            r = add_vectors(w, g, &g->ops[i]);
    }
    if (r == 0)
        r = place(w);
    if (r < 0)
        weights_done(w);
    return r;
}

void weights_done(struct weights *w)
{
    free(w->entries);
    *w = (struct weights){.entries = NULL};
}

int weights_upload(const struct weights *w, struct upload *u, struct fault *reterr)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < w->n; i++)
        r = upload_add(u, w->memory + w->entries[i].offset, w->entries[i].data, w->entries[i].n_bytes, reterr);
    return r;
}

cuda_pointer weights_at(const struct weights *w, const void *data)
{
    size_t from = 0, to = w->n;

    if (!data)
        return 0;
    while (from < to) {
        size_t i = from + (to - from) / 2;

        if (w->entries[i].data == data)
            return w->memory + w->entries[i].offset;
        if (w->entries[i].data < (const uint8_t *)data)
            from = i + 1;
        else
            to = i;
    }
    assert(false);
    return 0;
}
