/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Adapters: what is added to a product for tokens that have one, in two steps of the same matrix kernels. The rows of
 * the step are sorted by adapter once; a value of first factors has its rows in that order, so that those of one
 * adapter stand side by side.
 *
 * The rule of sums: a token's part depends on its own row and its own adapter, tokens are cut into chunks of
 * EXEC_ADAPT_TOKENS, which changes no bit (linear.h), and the sum with the product is one addition per element.
 */

#include "engine/cpu/exec-ops.h"

/* Floats of one thread for the second factors' products. */
#define UP_FLOATS 16384u

_Static_assert(UP_FLOATS / EXEC_ADAPT_TOKENS >= LINEAR_ROW_STEP, "a chunk has whole steps of rows");

static uint64_t pack_bytes(const struct exec_config *x)
{
    uint64_t most = 0;

    for (size_t i = 0; i < (size_t)x->graph->n_sites * x->graph->n_adapters; i++) {
        const struct graph_adapted *a = &x->graph->adapted[i];

        for (uint32_t k = 0; a->down.data && k < 2; k++) {
            const struct graph_tensor *w = k == 0 ? &a->down : &a->up;
            enum act_format format = linear_format(x->kernels, w->type);

            /* A layout for few rows may need more room than the one for many. */
            for (uint32_t m = 1; m <= EXEC_ADAPT_TOKENS; m++) {
                uint64_t n = linear_pack_bytes(x->kernels, format, w->n_cols, m);

                most = n > most ? n : most;
            }
        }
    }
    return (most + LINEAR_ALIGN - 1) / LINEAR_ALIGN * LINEAR_ALIGN;
}

uint64_t exec_adapt_scratch_bytes(const struct exec_config *x)
{
    return UP_FLOATS * sizeof(float) + pack_bytes(x);
}

/* By counting, as there are few adapters: one walk for each. Rows of OUTPUTS are tokens picked by @pick. */
static void group(struct exec *x, struct exec_adapted *a, uint32_t n_rows, const uint32_t *pick)
{
    uint32_t n = 0;

    a->n_groups = 0;
    for (uint32_t adapter = 1; adapter <= x->graph->n_adapters; adapter++) {
        uint32_t first = n;

        for (uint32_t i = 0; i < n_rows; i++)
            if (x->batch->adapters[pick ? pick[i] : i] == adapter)
                a->rows[n++] = i;
        if (n > first)
            a->groups[a->n_groups++] =
                (struct exec_adapted_group){.adapter = adapter - 1, .first = first, .n = n - first};
    }
}

void exec_adapt_group(struct exec *x)
{
    group(x, &x->adapted[0], x->batch->n_tokens, NULL);
    group(x, &x->adapted[1], x->batch->n_outputs, x->batch->outputs);
}

static const struct exec_adapted *adapted_of(const struct exec_thread *t, uint32_t value)
{
    return &t->x->adapted[t->x->graph->values[value].rows == GRAPH_ROWS_OUTPUTS];
}

static const struct graph_adapted *adapter_at(const struct exec_thread *t, uint32_t site, uint32_t adapter)
{
    return graph_adapted_at(t->x->graph, site, adapter);
}

/* Where packed rows and the products made of them are, behind what products and experts use. */
static float *products(const struct exec_thread *t)
{
    return (float *)(void *)(t->scratch + t->x->adapt_scratch_at);
}

static void *packed(const struct exec_thread *t)
{
    return products(t) + UP_FLOATS;
}

/* One part's first factor for the rows [@first, @first + @m) of the order. */
static void down(struct exec_thread *t, const struct graph_op *op, const struct exec_adapted *a, uint32_t part,
                 uint32_t adapter, uint32_t first, uint32_t m)
{
    const struct graph_tensor *w = &adapter_at(t, op->adapt.sites[part], adapter)->down;
    uint32_t stride = t->x->graph->values[op->adapt.outs[part]].n_cols;
    const struct kernels *k = t->x->kernels;

    if (!w->data)
        return;
    linear_pack_rows(k, linear_format(k, w->type), value(t, op->adapt.in), w->n_cols, a->rows + first, w->n_cols, m, 0,
                     m, packed(t));
    linear_rows(k, w->type, w->data, w->row_bytes, w->n_cols, 0, w->n_rows, packed(t), m,
                (float *)value(t, op->adapt.outs[part]) + (size_t)first * stride, stride, t->scratch);
}

static void adapt_dense(struct exec_thread *t, const struct graph_op *op)
{
    const struct exec_adapted *a = adapted_of(t, op->adapt.outs[0]);
    uint32_t n_chunks = 0, from, to;

    for (uint32_t i = 0; i < a->n_groups; i++)
        n_chunks += (a->groups[i].n + EXEC_ADAPT_TOKENS - 1) / EXEC_ADAPT_TOKENS;
    while (draw(t, 1, n_chunks * op->adapt.n_parts, &from, &to)) {
        for (uint32_t unit = from; unit < to; unit++) {
            const struct exec_adapted_group *g = a->groups;
            uint32_t chunk = unit / op->adapt.n_parts, at, m;

            for (;; g++) {
                uint32_t n = (g->n + EXEC_ADAPT_TOKENS - 1) / EXEC_ADAPT_TOKENS;

                if (chunk < n)
                    break;
                chunk -= n;
            }
            at = chunk * EXEC_ADAPT_TOKENS;
            m = g->n - at < EXEC_ADAPT_TOKENS ? g->n - at : EXEC_ADAPT_TOKENS;
            down(t, op, a, unit % op->adapt.n_parts, g->adapter, g->first + at, m);
        }
    }
}

void exec_op_adapt(struct exec_thread *t, const struct graph_op *op)
{
    if (op->adapt.routes != GRAPH_NONE)
        exec_op_adapt_experts(t, op);
    else
        adapt_dense(t, op);
}

/* Of an expert's adapter. */
static const uint8_t *expert_matrix(const struct graph_tensor *w, uint32_t expert)
{
    return (const uint8_t *)w->data + expert * w->matrix_bytes;
}

void exec_adapt_slot_down(struct exec_thread *t, const struct graph_op *op, const struct exec_slot *s, const float *in)
{
    const struct kernels *k = t->x->kernels;
    uint32_t adapter = t->x->batch->adapters[s->token];

    for (uint32_t i = 0; adapter > 0 && i < op->adapt.n_parts; i++) {
        const struct graph_tensor *w = &adapter_at(t, op->adapt.sites[i], adapter - 1)->down;
        uint32_t stride = t->x->graph->values[op->adapt.outs[i]].n_cols;

        if (!w->data)
            continue;
        linear_pack(k, linear_format(k, w->type), in, w->n_cols, w->n_cols, 1, 0, 1, packed(t));
        linear_rows(k, w->type, expert_matrix(w, s->expert), w->row_bytes, w->n_cols, 0, w->n_rows, packed(t), 1,
                    (float *)value(t, op->adapt.outs[i]) + (size_t)s->slot * stride, stride, t->scratch);
    }
}

void exec_adapt_slot_rows(struct exec_thread *t, const struct graph_linear *l, const struct exec_slot *s, uint32_t row0,
                          uint32_t row1, float *y)
{
    const struct kernels *k = t->x->kernels;
    uint32_t adapter = t->x->batch->adapters[s->token], stride = t->x->graph->values[l->low].n_cols, n;
    const struct graph_adapted *d = adapter > 0 ? adapter_at(t, l->site, adapter - 1) : NULL;
    const float *low = (const float *)value(t, l->low) + (size_t)s->slot * stride;

    if (!d || !d->up.data)
        return;
    linear_pack(k, linear_format(k, d->up.type), low, stride, d->up.n_cols, 1, 0, 1, packed(t));
    for (; row0 < row1; row0 += n, y += n) {
        n = row1 - row0 < UP_FLOATS ? row1 - row0 : UP_FLOATS;
        linear_rows(k, d->up.type, expert_matrix(&d->up, s->expert) + row0 * d->up.row_bytes, d->up.row_bytes,
                    d->up.n_cols, 0, n, packed(t), 1, products(t), n, t->scratch);
        k->vector.add_scaled(y, products(t), d->scale, n);
    }
}

/* Rows [row0, row1) of the product for the packed rows [@first, @first + @m) of the order. */
static void up(struct exec_thread *t, const struct graph_linear *l, const struct graph_adapted *d,
               const uint32_t *rows, uint32_t m, uint32_t row0, uint32_t row1)
{
    const struct graph_tensor *w = &d->up;
    uint32_t n_max = UP_FLOATS / EXEC_ADAPT_TOKENS / LINEAR_ROW_STEP * LINEAR_ROW_STEP, n;
    float *out = value(t, l->out), *y = products(t);

    for (; row0 < row1; row0 += n) {
        n = row1 - row0 < n_max ? row1 - row0 : n_max;
        linear_rows(t->x->kernels, w->type, (const uint8_t *)w->data + row0 * w->row_bytes, w->row_bytes, w->n_cols, 0,
                    n, packed(t), m, y, n, t->scratch);
        for (uint32_t i = 0; i < m; i++)
            t->x->kernels->vector.add_scaled(out + (size_t)rows[i] * l->weight.n_rows + row0, y + (size_t)i * n,
                                             d->scale, n);
    }
}

void exec_adapt_rows(struct exec_thread *t, const struct graph_linear *l, uint32_t row0, uint32_t row1)
{
    const struct exec_adapted *a = adapted_of(t, l->low);
    uint32_t stride = t->x->graph->values[l->low].n_cols;
    const float *low = value(t, l->low);

    for (uint32_t i = 0; i < a->n_groups; i++) {
        const struct exec_adapted_group *g = &a->groups[i];
        const struct graph_adapted *d = adapter_at(t, l->site, g->adapter);

        for (uint32_t at = 0; d->up.data && at < g->n; at += EXEC_ADAPT_TOKENS) {
            uint32_t m = g->n - at < EXEC_ADAPT_TOKENS ? g->n - at : EXEC_ADAPT_TOKENS, first = g->first + at;

            linear_pack(t->x->kernels, linear_format(t->x->kernels, d->up.type), low + (size_t)first * stride, stride,
                        d->up.n_cols, m, 0, m, packed(t));
            up(t, l, d, a->rows + first, m, row0, row1);
        }
    }
}
