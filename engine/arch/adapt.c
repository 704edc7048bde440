/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A site is a product of the graph that at least one adapter changes. An operation with sites gets another one in
 * front of it, which multiplies its input with the first factors; the second ones are multiplied in the operation
 * itself, where the rows of the result are at hand. Nothing is put in front of the others, so a graph with adapters
 * that change little does little more.
 */

#include "engine/arch/adapt.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "engine/gguf/read.h"

#define NAME_BYTES 256

struct adapting {
    struct graph *graph;
    const struct gguf *model;
    const struct gguf *const *adapters;
    size_t n_adapters;
    const struct arch_target *target;
    float *scales;  /* [n_adapters] alpha; 0: as trained */
    size_t n_room;  /* sites that graph->adapted has room for */
    size_t i;       /* the adapter that is looked at, for messages */
    struct fault *fault;
};

static bool key_is(const struct gguf *g, const char *key, const char *text)
{
    struct gguf_string s;

    return gguf_get_string(g, key, &s, NULL) == 0 && s.n_bytes == strlen(text) && memcmp(s.data, text, s.n_bytes) == 0;
}

static int header_read(struct adapting *a, const struct gguf *g)
{
    struct gguf_string model, own;
    int r;

    if (!key_is(g, "general.type", "adapter") || !key_is(g, "adapter.type", "lora")) {
        fault_model_invalid(a->fault, FAULT_NO_OFFSET,
                            "it is no adapter: general.type has to be \"adapter\", adapter.type \"lora\"");
        return -EINVAL;
    }
    /* Such an adapter works from certain tokens on, not from the first. */
    if (gguf_find_key(g, "adapter.alora.invocation_tokens")) {
        fault_model_invalid(a->fault, (int64_t)gguf_find_key(g, "adapter.alora.invocation_tokens")->offset,
                            "it is to be switched on by tokens (aLoRA), which this version can't do");
        return -EINVAL;
    }
    r = gguf_get_string(g, "general.architecture", &own, a->fault);
    if (r == -EINVAL || gguf_get_string(a->model, "general.architecture", &model, NULL) < 0)
        return -EINVAL;
    if (r < 0 || own.n_bytes != model.n_bytes || memcmp(own.data, model.data, own.n_bytes) != 0) {
        fault_model_invalid(a->fault, FAULT_NO_OFFSET, "general.architecture is not the model's");
        return -EINVAL;
    }
    a->scales[a->i] = 0.0f;
    r = gguf_get_f32(g, "adapter.lora.alpha", &a->scales[a->i], a->fault);
    if (r == -EINVAL)
        return r;
    if (!(fabsf(a->scales[a->i]) <= 1e6f)) {
        fault_model_invalid(a->fault, FAULT_NO_OFFSET, "adapter.lora.alpha is %g, expected at most 1e6",
                            (double)a->scales[a->i]);
        return -EINVAL;
    }
    return 0;
}

/* One of the two factors, of a type that can be multiplied with; @n of them for experts. */
static int factor_read(struct adapting *a, const struct gguf_tensor *t, uint64_t n_cols, uint64_t n_rows, uint64_t n,
                       struct graph_tensor *ret)
{
    if (t->dims[0] != n_cols || t->dims[1] != n_rows || t->dims[2] != n || t->dims[3] != 1) {
        fault_model_invalid(a->fault, (int64_t)t->offset,
                            "the tensor %s has the shape %" PRIu64 " x %" PRIu64 " x %" PRIu64 " x %" PRIu64
                            ", expected %" PRIu64 " x %" PRIu64 " x %" PRIu64,
                            t->name, t->dims[0], t->dims[1], t->dims[2], t->dims[3], n_cols, n_rows, n);
        return -EINVAL;
    }
    if (a->target->format(a->target->userdata, (enum tensor_type)t->type) < 0) {
        fault_model_invalid(a->fault, (int64_t)t->offset,
                            "the tensor %s has the type %s, which this version can't multiply with", t->name,
                            tensor_traits(t->type)->name);
        return -EINVAL;
    }
    *ret = (struct graph_tensor){.name = t->name,
                                 .type = (enum tensor_type)t->type,
                                 .n_rows = (uint32_t)n_rows,
                                 .n_cols = (uint32_t)n_cols,
                                 .row_bytes = t->row_bytes,
                                 .matrix_bytes = t->row_bytes * n_rows,
                                 .data = t->data};
    return 0;
}

/* What adapter a->i does to @l; ret->down.data is NULL when that is nothing. */
static int adapted_read(struct adapting *a, const struct graph_linear *l, struct graph_adapted *ret)
{
    const struct gguf *g = a->adapters[a->i];
    const struct gguf_tensor *whole = gguf_find_tensor(a->model, l->weight.name), *down, *up;
    char name[NAME_BYTES];
    uint64_t rank, row0;
    int r;

    *ret = (struct graph_adapted){.scale = 1.0f};
    snprintf(name, sizeof(name), "%s.lora_a", l->weight.name);
    down = gguf_find_tensor(g, name);
    snprintf(name, sizeof(name), "%s.lora_b", l->weight.name);
    up = gguf_find_tensor(g, name);
    if (!down && !up)
        return 0;
    if (!down || !up) {
        fault_model_invalid(a->fault, FAULT_NO_OFFSET, "of %s there is only one of lora_a and lora_b",
                            l->weight.name);
        return -EINVAL;
    }
    rank = down->dims[1];
    if (rank == 0 || rank > ADAPT_RANK_MAX) {
        fault_model_invalid(a->fault, (int64_t)down->offset, "the tensor %s has a rank of %" PRIu64
                            ", expected 1 to %u", down->name, rank, ADAPT_RANK_MAX);
        return -EINVAL;
    }
    r = factor_read(a, down, l->weight.n_cols, rank, whole->dims[2], &ret->down);
    if (r == 0)
        r = factor_read(a, up, rank, whole->dims[1], whole->dims[2], &ret->up);
    if (r < 0)
        return r;
    /* A product may have only some of the matrix's rows (q, k and v in one); never one of experts. */
    row0 = (uint64_t)((const uint8_t *)l->weight.data - (const uint8_t *)whole->data) / l->weight.row_bytes;
    ret->up.data = (const uint8_t *)ret->up.data + row0 * ret->up.row_bytes;
    ret->up.n_rows = l->weight.n_rows;
    if (a->scales[a->i] != 0.0f)
        ret->scale = a->scales[a->i] / (float)rank;
    return 0;
}

/* The value that the packed value @packed was made of, by the last operation before @i_op that did. */
static uint32_t source_of(const struct graph *g, size_t i_op, uint32_t packed)
{
    while (i_op-- > 0) {
        const struct graph_op *op = &g->ops[i_op];

        for (uint32_t i = 0; op->type == GRAPH_NORM && i < op->norm.n_packs; i++)
            if (op->norm.packs[i] == packed)
                return op->norm.out;
        for (uint32_t i = 0; op->type == GRAPH_PACK && i < op->pack.n_packs; i++)
            if (op->pack.packs[i] == packed)
                return op->pack.in;
        for (uint32_t i = 0; op->type == GRAPH_EXPERTS_PACK && i < op->experts_pack.n_packs; i++)
            if (op->experts_pack.packs[i] == packed)
                return op->experts_pack.in;
    }
    return GRAPH_NONE;
}

/* Room for one more site. */
static int site_add(struct adapting *a)
{
    struct graph *g = a->graph;

    if (g->n_sites == a->n_room) {
        size_t room = a->n_room ? 2 * a->n_room : 64;
        struct graph_adapted *p = reallocarray(g->adapted, room * a->n_adapters, sizeof(*p));

        if (!p)
            return -ENOMEM;
        g->adapted = p;
        a->n_room = room;
    }
    g->n_sites++;
    return 0;
}

/* Makes @l, whose result has @rows, a site if any adapter changes it; l->site tells. */
static int linear_adapt(struct adapting *a, struct graph_linear *l, enum graph_rows rows)
{
    struct graph *g = a->graph;
    struct graph_adapted *row;
    uint32_t rank_max = 0;
    int r;

    r = site_add(a);
    if (r < 0)
        return r;
    row = &g->adapted[(g->n_sites - 1) * a->n_adapters];
    for (a->i = 0; a->i < a->n_adapters; a->i++) {
        r = adapted_read(a, l, &row[a->i]);
        if (r < 0)
            return r;
        if (row[a->i].down.data && row[a->i].down.n_rows > rank_max)
            rank_max = row[a->i].down.n_rows;
    }
    if (rank_max == 0) {
        g->n_sites--;
        return 0;
    }
    l->site = g->n_sites;
    return graph_value_f32(g, rows, rank_max, &l->low);
}

/* The products of @op that can be adapted, and whose routes they have. The output of a tied model is none: its matrix
 * is the embedding, too. */
static uint32_t linears_of(struct graph_op *op, struct graph_linear *ret[GRAPH_LINEAR_MAX], uint32_t *ret_routes)
{
    uint32_t n = 0;

    *ret_routes = GRAPH_NONE;
    if (op->type == GRAPH_EXPERTS_GLU) {
        ret[n++] = &op->experts_glu.gate;
        ret[n++] = &op->experts_glu.up;
        *ret_routes = op->experts_glu.routes;
    }
    if (op->type == GRAPH_EXPERTS_DOWN) {
        ret[n++] = &op->experts_down.down;
        *ret_routes = op->experts_down.routes;
    }

    if (op->type == GRAPH_GLU) {
        ret[n++] = &op->glu.gate;
        if (op->glu.up.weight.data)
            ret[n++] = &op->glu.up;
    }
    for (uint32_t i = 0; op->type == GRAPH_LINEAR && i < op->linear.n_parts; i++)
        ret[n++] = &op->linear.parts[i];
    if (n > 0 && strcmp(ret[0]->weight.name, "token_embd.weight") == 0)
        n = 0;
    return n;
}

/* Copies @op to the end of the graph, behind what its sites need. @i_op: where it stood in @before. */
static int op_adapt(struct adapting *a, const struct graph *before, size_t i_op)
{
    struct graph_op op = before->ops[i_op], adapt = {.type = GRAPH_ADAPT, .adapters_only = true};
    struct graph_linear *linears[GRAPH_LINEAR_MAX];
    uint32_t n = linears_of(&op, linears, &adapt.adapt.routes);
    bool dense = adapt.adapt.routes == GRAPH_NONE;
    int r;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t source = source_of(before, i_op, linears[i]->in);

        if (source == GRAPH_NONE || (adapt.adapt.n_parts > 0 && source != adapt.adapt.in))
            continue;
        r = linear_adapt(a, linears[i], dense ? a->graph->values[linears[i]->out].rows : GRAPH_ROWS_SLOTS);
        if (r < 0)
            return r;
        if (!linears[i]->site)
            continue;
        adapt.adapt.in = source;
        adapt.adapt.sites[adapt.adapt.n_parts] = linears[i]->site;
        adapt.adapt.outs[adapt.adapt.n_parts++] = linears[i]->low;
    }
    if (adapt.adapt.n_parts > 0) {
        r = graph_add(a->graph, &adapt);
        if (r < 0)
            return r;
    }
    return graph_add(a->graph, &op);
}

/* Whatever changes nothing would be missing in the answers without a word. */
static int check_all_used(struct adapting *a)
{
    for (a->i = 0; a->i < a->n_adapters; a->i++) {
        const struct gguf *g = a->adapters[a->i];

        if (gguf_n_tensors(g) == 0) {
            fault_model_invalid(a->fault, FAULT_NO_OFFSET, "it has no tensors");
            return -EINVAL;
        }
        for (size_t k = 0; k < gguf_n_tensors(g); k++) {
            const struct gguf_tensor *t = gguf_tensor(g, k);
            bool used = false;

            for (uint32_t s = 0; s < a->graph->n_sites && !used; s++) {
                const struct graph_adapted *d = &a->graph->adapted[s * a->n_adapters + a->i];

                used = d->down.data && (d->down.name == t->name || d->up.name == t->name);
            }
            if (used)
                continue;
            fault_model_invalid(a->fault, (int64_t)t->offset,
                                "the tensor %s belongs to no matrix of the model that an adapter can change", t->name);
            return -EINVAL;
        }
    }
    return 0;
}

static int adapt(struct adapting *a)
{
    struct graph *g = a->graph, before = *g;
    int r = 0;

    for (a->i = 0; a->i < a->n_adapters && r == 0; a->i++)
        r = header_read(a, a->adapters[a->i]);
    if (r < 0) {
        a->i--;
        return r;
    }
    g->n_adapters = (uint32_t)a->n_adapters;
    g->ops = NULL;
    g->n_ops = g->n_ops_room = 0;
    for (size_t i = 0; i < before.n_ops && r == 0; i++) {
        g->layer = before.ops[i].layer;
        r = op_adapt(a, &before, i);
    }
    free(before.ops);
    return r < 0 ? r : check_all_used(a);
}

int arch_adapt(struct graph *graph, const struct gguf *model, const struct gguf *const *adapters, size_t n_adapters,
               const struct arch_target *target, size_t *ret_i, struct fault *reterr)
{
    _cleanup_free_ float *scales = calloc(n_adapters ? n_adapters : 1, sizeof(*scales));
    struct adapting a = {
        .graph = graph,
        .model = model,
        .adapters = adapters,
        .n_adapters = n_adapters,
        .target = target,
        .scales = scales,
        .fault = reterr,
    };
    int r;

    if (!scales)
        return -ENOMEM;
    if (n_adapters == 0)
        return 0;
    r = adapt(&a);
    if (r == -EINVAL)
        *ret_i = a.i;
    return r;
}
