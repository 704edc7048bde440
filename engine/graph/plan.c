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

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"

/* Values begin on a boundary at which no two threads' writes share a cache line with the neighbour value, and at which
 * the kernels may use aligned loads for packed activations. */
#define VALUE_ALIGN 256

void graph_init(struct graph *g)
{
    *g = (struct graph){.logits = GRAPH_NONE, .embeddings = GRAPH_NONE, .layer = GRAPH_INPUT};
}

void graph_done(struct graph *g)
{
    free(g->ops);
    free(g->values);
    free(g->adapted);
    for (uint32_t i = 0; i < g->n_constants; i++)
        free(g->constants[i]);
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

int graph_value_routes(struct graph *g, uint32_t *ret)
{
    return graph_value(g, &(struct graph_value){.kind = GRAPH_ROUTES, .rows = GRAPH_ROWS_SLOTS}, ret);
}

uint64_t graph_routes_words(const struct graph *g, uint32_t n_tokens)
{
    /* Experts that have tokens, where their slots and groups begin; expert and weight by token, token and weight by
     * slot (exec-experts.c). */
    return 1 + 3 * (uint64_t)(g->n_experts + 1) + 4 * (uint64_t)n_tokens * g->n_experts_used;
}

int graph_constants(struct graph *g, size_t n, double **ret)
{
    double *p = calloc(n ? n : 1, sizeof(*p));

    assert(g->n_constants < GRAPH_CONSTANTS_MAX);
    if (!p)
        return -ENOMEM;
    g->constants[g->n_constants++] = p;
    *ret = p;
    return 0;
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
    g->ops[g->n_ops] = *op;
    g->ops[g->n_ops++].layer = g->layer;
    return 0;
}

uint32_t graph_op_linears(const struct graph_op *op, const struct graph_linear *ret[GRAPH_LINEAR_MAX])
{
    switch (op->type) {
    case GRAPH_LINEAR:
        for (uint32_t i = 0; i < op->linear.n_parts; i++)
            ret[i] = &op->linear.parts[i];
        return op->linear.n_parts;
    case GRAPH_GLU:
        ret[0] = &op->glu.gate;
        ret[1] = &op->glu.up;
        return op->glu.up.weight.data ? 2 : 1;
    case GRAPH_HEADS:
        ret[0] = &op->heads.linear;
        return 1;
    case GRAPH_EXPERTS_GLU:
        ret[0] = &op->experts_glu.gate;
        ret[1] = &op->experts_glu.up;
        return 2;
    case GRAPH_EXPERTS_DOWN:
        ret[0] = &op->experts_down.down;
        return 1;
    default:
        return 0;
    }
}

uint32_t graph_op_matrices(const struct graph *g, const struct graph_op *op)
{
    if (op->type == GRAPH_EXPERTS_GLU || op->type == GRAPH_EXPERTS_DOWN)
        return g->n_experts_used;
    return op->type == GRAPH_HEADS ? op->heads.n_heads : 1;
}

void graph_op_values(const struct graph_op *op, struct graph_op_values *ret)
{
    uint32_t *reads = ret->reads, *writes = ret->writes;
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
        if (op->norm.add != GRAPH_NONE) {
            reads[r++] = op->norm.add;
            writes[w++] = op->norm.in;
        }
        if (op->norm.out != GRAPH_NONE)
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
            if (op->linear.parts[i].site)
                reads[r++] = op->linear.parts[i].low;
            writes[w++] = op->linear.parts[i].out;
        }
        if (op->linear.residual != GRAPH_NONE)
            reads[r++] = writes[w++] = op->linear.residual;
        if (op->linear.residual_gate != GRAPH_NONE)
            reads[r++] = op->linear.residual_gate;
        break;
    case GRAPH_GLU:
        reads[r++] = op->glu.gate.in;
        writes[w++] = op->glu.gate.out;
        if (op->glu.gate.site)
            reads[r++] = op->glu.gate.low;
        if (op->glu.up.site)
            reads[r++] = op->glu.up.low;
        if (op->glu.up.weight.data) {
            reads[r++] = op->glu.up.in;
            writes[w++] = op->glu.up.out;
        }
        writes[w++] = op->glu.out;
        break;
    case GRAPH_ROPE_WRITE:
        reads[r++] = op->rope_write.v;
        if (op->rope_write.rope_table != GRAPH_NONE)
            reads[r++] = op->rope_write.rope_table;
        reads[r++] = writes[w++] = op->rope_write.q;
        reads[r++] = writes[w++] = op->rope_write.k;
        break;
    case GRAPH_ATTENTION:
        reads[r++] = op->attention.q;
        writes[w++] = op->attention.out;
        break;
    case GRAPH_HEADS:
        reads[r++] = op->heads.linear.in;
        writes[w++] = op->heads.linear.out;
        break;
    case GRAPH_JOIN:
        for (uint32_t i = 0; i < op->join.n_parts; i++)
            reads[r++] = op->join.parts[i].in;
        writes[w++] = op->join.out;
        break;
    case GRAPH_ADAPT:
        reads[r++] = op->adapt.in;
        if (op->adapt.routes != GRAPH_NONE)
            reads[r++] = op->adapt.routes;
        for (uint32_t i = 0; i < op->adapt.n_parts; i++)
            writes[w++] = op->adapt.outs[i];
        break;
    case GRAPH_ROUTE:
        reads[r++] = op->route.logits;
        writes[w++] = op->route.out;
        break;
    case GRAPH_EXPERTS_PACK:
        reads[r++] = op->experts_pack.routes;
        reads[r++] = op->experts_pack.in;
        for (uint32_t i = 0; i < op->experts_pack.n_packs; i++)
            writes[w++] = op->experts_pack.packs[i];
        break;
    case GRAPH_EXPERTS_GLU:
        reads[r++] = op->experts_glu.routes;
        reads[r++] = op->experts_glu.gate.in;
        reads[r++] = op->experts_glu.up.in;
        if (op->experts_glu.gate.site)
            reads[r++] = op->experts_glu.gate.low;
        if (op->experts_glu.up.site)
            reads[r++] = op->experts_glu.up.low;
        writes[w++] = op->experts_glu.gate.out;
        writes[w++] = op->experts_glu.up.out;
        writes[w++] = op->experts_glu.out;
        break;
    case GRAPH_EXPERTS_DOWN:
        reads[r++] = op->experts_down.routes;
        reads[r++] = op->experts_down.down.in;
        if (op->experts_down.down.site)
            reads[r++] = op->experts_down.down.low;
        reads[r++] = writes[w++] = op->experts_down.residual;
        break;
    case GRAPH_OP_TYPE_MAX:
        break;
    }
    ret->n_reads = r;
    ret->n_writes = w;
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
        struct graph_op_values v;

        graph_op_values(&g->ops[i], &v);
        for (size_t k = 0; k < v.n_reads; k++) {
            if (v.reads[k] >= g->n_values || g->values[v.reads[k]].first_op == GRAPH_NONE)
                return -EINVAL;
            g->values[v.reads[k]].last_op = (uint32_t)i;
        }
        for (size_t k = 0; k < v.n_writes; k++) {
            if (v.writes[k] >= g->n_values)
                return -EINVAL;
            if (g->values[v.writes[k]].first_op == GRAPH_NONE)
                g->values[v.writes[k]].first_op = (uint32_t)i;
            g->values[v.writes[k]].last_op = (uint32_t)i;
        }
    }

    return keep_to_end(g, g->logits) && keep_to_end(g, g->embeddings) ? 0 : -EINVAL;
}

static bool rows_max(const struct graph *g, const struct graph_limits *limits, enum graph_rows rows, uint64_t *ret)
{
    *ret = rows == GRAPH_ROWS_OUTPUTS ? limits->outputs_max : limits->tokens_max;
    return rows < GRAPH_ROWS_SLOTS || checked_mul(*ret, g->n_experts_used, ret);
}

/* The most that @n_rows packed rows may take, in bytes. */
static bool packed_max(const struct graph *g, const struct graph_limits *limits, const struct graph_value *v,
                       uint64_t n_rows, uint64_t *ret)
{
    if (v->rows >= GRAPH_ROWS_SLOTS) {
        uint64_t n_used = n_rows < g->n_experts ? n_rows : g->n_experts;

        /* Whole groups, and one that is not full for each expert. */
        return checked_mul(n_rows / GRAPH_EXPERT_GROUP + n_used,
                           limits->packed_bytes(limits->userdata, v->format, v->n_cols, GRAPH_EXPERT_GROUP), ret);
    }
    /* A layout for few rows may need more room than the one for many, so each number is asked. */
    *ret = 0;
    for (uint32_t m = 1; m <= n_rows; m++) {
        size_t bytes = limits->packed_bytes(limits->userdata, v->format, v->n_cols, m);

        if (bytes > *ret)
            *ret = bytes;
    }
    return true;
}

bool graph_value_bytes(const struct graph *g, const struct graph_limits *limits, const struct graph_value *v,
                       uint64_t *ret)
{
    uint64_t n_rows, n_bytes = 0;
    bool fits = rows_max(g, limits, v->rows, &n_rows);

    if (v->kind == GRAPH_ROUTES)
        n_bytes = 4 * graph_routes_words(g, limits->tokens_max);
    else if (v->kind == GRAPH_F32)
        fits = fits && checked_mul(n_rows, v->n_cols * sizeof(float), &n_bytes);
    else
        fits = fits && packed_max(g, limits, v, n_rows, &n_bytes);
    return fits && checked_align(n_bytes, VALUE_ALIGN, ret);
}

static int find_sizes(struct graph *g, const struct graph_limits *limits)
{
    for (size_t i = 0; i < g->n_values; i++)
        if (!graph_value_bytes(g, limits, &g->values[i], &g->values[i].n_bytes))
            return -EOVERFLOW;
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
        [GRAPH_ROUTE] = "route",           [GRAPH_EXPERTS_PACK] = "experts_pack",
        [GRAPH_EXPERTS_GLU] = "experts_glu", [GRAPH_EXPERTS_DOWN] = "experts_down",
        [GRAPH_HEADS] = "heads",           [GRAPH_JOIN] = "join",
        [GRAPH_ADAPT] = "adapt",
    };

    return (unsigned)type < GRAPH_OP_TYPE_MAX ? names[type] : "unknown";
}
