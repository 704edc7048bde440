/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Building a graph and placing its values. Called while a model is opened, never during a step.
 *
 * Placement is interval allocation: each value is alive from the operation that writes it first to the last one that
 * reads it; the largest values are placed first, each at the lowest offset at which it meets none that is alive with
 * it. A chain of layers thus needs the memory of one layer. The order of placing depends on sizes and numbers only, so
 * the same model is placed the same way each time.
 */

#include "engine/graph/ops.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"

/* Values begin on a boundary at which no two threads' writes share a cache line with the neighbour value, and at which
 * the kernels may use aligned loads for packed activations. */
#define VALUE_ALIGN 256

/* The values an operation touches, at most. */
#define OP_VALUES_MAX (2 * GRAPH_LINEAR_MAX + GRAPH_PACKS_MAX + 2)

void graph_init(struct graph *g)
{
    *g = (struct graph){.logits = GRAPH_NONE, .embeddings = GRAPH_NONE};
}

void graph_done(struct graph *g)
{
    free(g->ops);
    free(g->values);
    free(g->constants);
    graph_init(g);
}

static int graph_value(struct graph *g, const struct graph_value *value, uint32_t *ret)
{
    if (g->n_values == g->n_values_room) {
        size_t room = g->n_values_room ? 2 * g->n_values_room : 64;
        struct graph_value *p = reallocarray(g->values, room, sizeof(*p));

        if (!p)
            return -ENOMEM;
        g->values = p;
        g->n_values_room = room;
    }
    g->values[g->n_values] = *value;
    *ret = (uint32_t)g->n_values++;
    return 0;
}

int graph_value_f32(struct graph *g, enum graph_rows rows, uint32_t n_cols, uint32_t *ret)
{
    return graph_value(g, &(struct graph_value){.kind = GRAPH_F32, .rows = rows, .n_cols = n_cols}, ret);
}

int graph_value_packed(struct graph *g, enum graph_rows rows, uint32_t n_cols, uint32_t format, uint32_t *ret)
{
    return graph_value(
        g, &(struct graph_value){.kind = GRAPH_PACKED, .rows = rows, .n_cols = n_cols, .format = format}, ret);
}

int graph_add(struct graph *g, const struct graph_op *op)
{
    if (g->n_ops == g->n_ops_room) {
        size_t room = g->n_ops_room ? 2 * g->n_ops_room : 64;
        struct graph_op *p = reallocarray(g->ops, room, sizeof(*p));

        if (!p)
            return -ENOMEM;
        g->ops = p;
        g->n_ops_room = room;
    }
    g->ops[g->n_ops++] = *op;
    return 0;
}

/* The values that @op reads (into @reads) and writes (into @writes); one that changes in place is in both. */
static void graph_op_values(const struct graph_op *op, uint32_t *reads, size_t *n_reads, uint32_t *writes,
                            size_t *n_writes)
{
    size_t r = 0, w = 0;

    switch (op->type) {
    case GRAPH_EMBED:
        writes[w++] = op->embed.out;
        break;
    case GRAPH_ROPE_TABLE:
        writes[w++] = op->rope_table.out;
        break;
    case GRAPH_NORM:
        reads[r++] = op->norm.in;
        writes[w++] = op->norm.out;
        for (uint32_t i = 0; i < op->norm.n_packs; i++)
            writes[w++] = op->norm.packs[i];
        break;
    case GRAPH_PACK:
        reads[r++] = op->pack.in;
        for (uint32_t i = 0; i < op->pack.n_packs; i++)
            writes[w++] = op->pack.packs[i];
        break;
    case GRAPH_LINEAR:
        for (uint32_t i = 0; i < op->linear.n_parts; i++) {
            reads[r++] = op->linear.parts[i].in;
            writes[w++] = op->linear.parts[i].out;
        }
        if (op->linear.residual != GRAPH_NONE)
            reads[r++] = writes[w++] = op->linear.residual;
        break;
    case GRAPH_GLU:
        reads[r++] = op->glu.gate.in;
        reads[r++] = op->glu.up.in;
        writes[w++] = op->glu.gate.out;
        writes[w++] = op->glu.up.out;
        writes[w++] = op->glu.out;
        break;
    case GRAPH_ROPE_WRITE:
        reads[r++] = op->rope_write.v;
        reads[r++] = op->rope_write.rope_table;
        reads[r++] = writes[w++] = op->rope_write.q;
        reads[r++] = writes[w++] = op->rope_write.k;
        break;
    case GRAPH_ATTENTION:
        reads[r++] = op->attention.q;
        writes[w++] = op->attention.out;
        break;
    case GRAPH_OP_TYPE_MAX:
        break;
    }
    *n_reads = r;
    *n_writes = w;
}

/* A result is read by the caller, after the last operation. False when nothing writes it. */
static bool keep_to_end(struct graph *g, uint32_t value)
{
    if (value == GRAPH_NONE)
        return true;
    if (value >= g->n_values || g->values[value].first_op == GRAPH_NONE)
        return false;
    g->values[value].last_op = (uint32_t)g->n_ops;
    return true;
}

/* Sets first_op and last_op of all values; checks that nothing is read before it is written. */
static int find_lifetimes(struct graph *g)
{
    for (size_t i = 0; i < g->n_values; i++)
        g->values[i].first_op = g->values[i].last_op = GRAPH_NONE;

    for (size_t i = 0; i < g->n_ops; i++) {
        uint32_t reads[OP_VALUES_MAX], writes[OP_VALUES_MAX];
        size_t n_reads, n_writes;

        graph_op_values(&g->ops[i], reads, &n_reads, writes, &n_writes);
        for (size_t k = 0; k < n_reads; k++) {
            if (reads[k] >= g->n_values || g->values[reads[k]].first_op == GRAPH_NONE)
                return -EINVAL;
            g->values[reads[k]].last_op = (uint32_t)i;
        }
        for (size_t k = 0; k < n_writes; k++) {
            if (writes[k] >= g->n_values)
                return -EINVAL;
            if (g->values[writes[k]].first_op == GRAPH_NONE)
                g->values[writes[k]].first_op = (uint32_t)i;
            g->values[writes[k]].last_op = (uint32_t)i;
        }
    }

    return keep_to_end(g, g->logits) && keep_to_end(g, g->embeddings) ? 0 : -EINVAL;
}

static int find_sizes(struct graph *g, const struct graph_limits *limits)
{
    for (size_t i = 0; i < g->n_values; i++) {
        struct graph_value *v = &g->values[i];
        uint32_t n_rows = v->rows == GRAPH_ROWS_TOKENS ? limits->tokens_max : limits->outputs_max;
        uint64_t n_bytes = 0;

        if (v->kind == GRAPH_F32) {
            if (!checked_mul((uint64_t)n_rows * v->n_cols, sizeof(float), &n_bytes))
                return -EOVERFLOW;
        } else {
            /* A layout for few rows may need more room than the one for many, so each number is asked. */
            for (uint32_t m = 1; m <= n_rows; m++) {
                size_t bytes = limits->packed_bytes(limits->userdata, v->format, v->n_cols, m);

                if (bytes > n_bytes)
                    n_bytes = bytes;
            }
        }
        if (!checked_align(n_bytes, VALUE_ALIGN, &v->n_bytes))
            return -EOVERFLOW;
    }
    return 0;
}

struct placed {
    const struct graph_value *value;
    uint32_t index;
};

static int by_size(const void *a, const void *b)
{
    const struct placed *x = a, *y = b;

    if (x->value->n_bytes != y->value->n_bytes)
        return x->value->n_bytes < y->value->n_bytes ? 1 : -1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static int by_offset(const void *a, const void *b)
{
    const struct graph_value *x = *(const struct graph_value *const *)a, *y = *(const struct graph_value *const *)b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static bool alive_together(const struct graph_value *a, const struct graph_value *b)
{
    return a->first_op <= b->last_op && b->first_op <= a->last_op;
}

int graph_plan(struct graph *g, const struct graph_limits *limits)
{
    _cleanup_free_ struct placed *order = NULL;
    _cleanup_free_ const struct graph_value **others = NULL;
    uint64_t end = 0;
    int r;

    r = find_lifetimes(g);
    if (r < 0)
        return r;
    r = find_sizes(g, limits);
    if (r < 0)
        return r;

    order = calloc(g->n_values + 1, sizeof(*order));
    others = calloc(g->n_values + 1, sizeof(*others));
    if (!order || !others)
        return -ENOMEM;
    for (size_t i = 0; i < g->n_values; i++)
        order[i] = (struct placed){.value = &g->values[i], .index = (uint32_t)i};
    qsort(order, g->n_values, sizeof(*order), by_size);

    for (size_t i = 0; i < g->n_values; i++) {
        struct graph_value *v = &g->values[order[i].index];
        uint64_t offset = 0, past;
        size_t n = 0;

        if (v->first_op == GRAPH_NONE)
            continue;
        for (size_t k = 0; k < i; k++)
            if (order[k].value->first_op != GRAPH_NONE && alive_together(order[k].value, v))
                others[n++] = order[k].value;
        qsort(others, n, sizeof(*others), by_offset);
        for (size_t k = 0; k < n; k++) {
            if (others[k]->offset >= offset && others[k]->offset - offset >= v->n_bytes)
                break;
            if (others[k]->offset + others[k]->n_bytes > offset)
                offset = others[k]->offset + others[k]->n_bytes;
        }
        if (!checked_add(offset, v->n_bytes, &past))
            return -EOVERFLOW;
        v->offset = offset;
        if (past > end)
            end = past;
    }
    g->scratch_bytes = end;
    return 0;
}

const char *graph_op_name(enum graph_op_type type)
{
    static const char *const names[GRAPH_OP_TYPE_MAX] = {
        [GRAPH_EMBED] = "embed",           [GRAPH_ROPE_TABLE] = "rope_table",
        [GRAPH_NORM] = "norm",             [GRAPH_PACK] = "pack",
        [GRAPH_LINEAR] = "linear",         [GRAPH_GLU] = "glu",
        [GRAPH_ROPE_WRITE] = "rope_write", [GRAPH_ATTENTION] = "attention",
    };

    return (unsigned)type < GRAPH_OP_TYPE_MAX ? names[type] : "unknown";
}
