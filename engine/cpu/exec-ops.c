/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The operations of a graph, each as one thread's share of it: draw a piece, compute it, until none is left. A thread
 * that was held up draws fewer pieces; on a shared machine that is worth more than a fixed split.
 */

#include "engine/cpu/exec-ops.h"

#include <assert.h>

#include "engine/kernels/attention.h"
#include "engine/kernels/dequantise.h"
#include "engine/kernels/rope.h"

/* Pieces per thread that row-wise work is cut into: enough to even out, few enough to stay long, linear reads. */
#define PIECES_PER_THREAD 8

static void *value(const struct exec_thread *t, uint32_t id)
{
    return t->x->scratch + t->x->graph->values[id].offset;
}

/* How many rows the value has in this step. */
static uint32_t value_rows(const struct exec_thread *t, uint32_t id)
{
    return t->x->graph->values[id].rows == GRAPH_ROWS_TOKENS ? t->x->batch->n_tokens : t->x->batch->n_outputs;
}

/* Draws the next piece of at most @n of @n_all units: [*ret_from, *ret_to). False when all are drawn. */
static bool draw(struct exec_thread *t, uint32_t n, uint32_t n_all, uint32_t *ret_from, uint32_t *ret_to)
{
    uint32_t from;

    if (t->n_threads == 1 && n < n_all)
        n = n_all;
    /* Looked at first, so that threads which come late do not count up to where the counter would wrap. */
    if (atomic_load_explicit(&t->drawn->n, memory_order_relaxed) >= n_all)
        return false;
    from = atomic_fetch_add_explicit(&t->drawn->n, n, memory_order_relaxed);
    if (from >= n_all)
        return false;
    *ret_from = from;
    *ret_to = n_all - from < n ? n_all : from + n;
    return true;
}

/* The size of pieces, in units, that cuts @n_all into about PIECES_PER_THREAD for each thread. */
static uint32_t piece_size(const struct exec_thread *t, uint32_t n_all)
{
    uint32_t n = n_all / (t->n_threads * PIECES_PER_THREAD);

    return n ? n : 1;
}

static void op_embed(struct exec_thread *t, const struct graph_op *op)
{
    const struct graph_tensor *w = &op->embed.weight;
    const struct exec_batch *batch = t->x->batch;
    float *out = value(t, op->embed.out);
    uint32_t from, to;

    while (draw(t, 1, batch->n_tokens, &from, &to))
        for (uint32_t i = from; i < to; i++)
            dequantise_row(w->type, (const uint8_t *)w->data + (uint32_t)batch->tokens[i] * w->row_bytes, w->n_cols,
                           out + (size_t)i * w->n_cols);
}

static void op_rope_table(struct exec_thread *t, const struct graph_op *op)
{
    uint32_t n_rot = op->rope_table.n_rot;
    float *out = value(t, op->rope_table.out);
    uint32_t from, to;

    while (draw(t, 8, t->x->batch->n_tokens, &from, &to))
        for (uint32_t i = from; i < to; i++)
            rope_table(op->rope_table.frequency, n_rot / 2, t->x->batch->positions[i], op->rope_table.magnitude,
                       out + (size_t)i * n_rot);
}

/* Packs rows [from, to) of the f32 value @x into each of the @packs. */
static void pack_rows(struct exec_thread *t, const float *x, uint32_t n_rows, uint32_t from, uint32_t to,
                      const uint32_t *packs, uint32_t n_packs)
{
    for (uint32_t i = 0; i < n_packs; i++) {
        const struct graph_value *v = &t->x->graph->values[packs[i]];

        linear_pack(t->x->kernels, (enum act_format)v->format, x, v->n_cols, v->n_cols, n_rows, from, to,
                    value(t, packs[i]));
    }
}

static void op_norm(struct exec_thread *t, const struct graph_op *op)
{
    const struct graph *g = t->x->graph;
    uint32_t n_rows = value_rows(t, op->norm.out), n_cols = g->values[op->norm.out].n_cols;
    const uint32_t *pick = g->values[op->norm.in].rows != g->values[op->norm.out].rows ? t->x->batch->outputs : NULL;
    const float *in = value(t, op->norm.in);
    float *out = value(t, op->norm.out);
    uint32_t from, to;

    while (draw(t, LINEAR_PACK_STEP, n_rows, &from, &to)) {
        for (uint32_t i = from; i < to; i++)
            t->x->kernels->vector.rms_norm(out + (size_t)i * n_cols, in + (size_t)(pick ? pick[i] : i) * n_cols,
                                           op->norm.weight, n_cols, op->norm.epsilon);
        pack_rows(t, out, n_rows, from, to, op->norm.packs, op->norm.n_packs);
    }
}

static void op_pack(struct exec_thread *t, const struct graph_op *op)
{
    uint32_t n_rows = value_rows(t, op->pack.in);
    const float *in = value(t, op->pack.in);
    uint32_t from, to;

    while (draw(t, LINEAR_PACK_STEP, n_rows, &from, &to))
        pack_rows(t, in, n_rows, from, to, op->pack.packs, op->pack.n_packs);
}

/* Rows [row0, row1) of one product for all tokens, with its bias. */
static void linear_piece(struct exec_thread *t, const struct graph_linear *l, uint32_t n_tokens, uint32_t row0,
                         uint32_t row1)
{
    const struct graph_tensor *w = &l->weight;
    float *out = value(t, l->out);

    linear_rows(t->x->kernels, w->type, w->data, w->row_bytes, w->n_cols, row0, row1, value(t, l->in), n_tokens, out,
                w->n_rows, t->scratch);
    if (l->bias)
        for (uint32_t i = 0; i < n_tokens; i++)
            t->x->kernels->vector.add(out + (size_t)i * w->n_rows + row0, l->bias + row0, row1 - row0);
}

static uint32_t row_units(const struct graph_tensor *w)
{
    return (w->n_rows + LINEAR_ROW_STEP - 1) / LINEAR_ROW_STEP;
}

static void op_linear(struct exec_thread *t, const struct graph_op *op)
{
    const struct graph_linear *parts = op->linear.parts;
    uint32_t n_tokens = value_rows(t, parts[0].out), n_units = 0, from, to;

    if (n_tokens == 0)
        return;
    for (uint32_t i = 0; i < op->linear.n_parts; i++)
        n_units += row_units(&parts[i].weight);

    while (draw(t, piece_size(t, n_units), n_units, &from, &to)) {
        uint32_t unit0 = 0; /* of part i */

        for (uint32_t i = 0; i < op->linear.n_parts; i++) {
            uint32_t units = row_units(&parts[i].weight), n_rows = parts[i].weight.n_rows;
            uint32_t first = from > unit0 ? from - unit0 : 0, past = to > unit0 ? to - unit0 : 0;
            uint32_t row0 = first * LINEAR_ROW_STEP, row1;

            past = past < units ? past : units;
            row1 = past * LINEAR_ROW_STEP < n_rows ? past * LINEAR_ROW_STEP : n_rows;
            unit0 += units;
            if (first >= past)
                continue;
            linear_piece(t, &parts[i], n_tokens, row0, row1);
            if (op->linear.residual != GRAPH_NONE) {
                float *x = value(t, op->linear.residual);
                const float *y = value(t, parts[i].out);

                for (uint32_t k = 0; k < n_tokens; k++)
                    t->x->kernels->vector.add(x + (size_t)k * n_rows + row0, y + (size_t)k * n_rows + row0,
                                              row1 - row0);
            }
        }
    }
}

static void op_glu(struct exec_thread *t, const struct graph_op *op)
{
    const struct graph_linear *gate = &op->glu.gate, *up = &op->glu.up;
    uint32_t n_tokens = value_rows(t, op->glu.out), n_rows = gate->weight.n_rows;
    uint32_t n_units = row_units(&gate->weight), from, to;
    const float *g = value(t, gate->out), *u = value(t, up->out);
    float *out = value(t, op->glu.out);

    while (draw(t, piece_size(t, n_units), n_units, &from, &to)) {
        uint32_t row0 = from * LINEAR_ROW_STEP;
        uint32_t row1 = to * LINEAR_ROW_STEP < n_rows ? to * LINEAR_ROW_STEP : n_rows;

        linear_piece(t, gate, n_tokens, row0, row1);
        linear_piece(t, up, n_tokens, row0, row1);
        for (uint32_t i = 0; i < n_tokens; i++) {
            size_t at = (size_t)i * n_rows + row0;

            t->x->kernels->vector.silu_mul(out + at, g + at, u + at, row1 - row0);
        }
    }
}

/* This layer's part of a page. */
static void *layer_page(const struct exec_thread *t, uint32_t group, uint32_t group_layer, uint32_t page)
{
    return (uint8_t *)pages_memory(t->x->pages[group], page) + group_layer * t->x->layouts[group].page_bytes;
}

static void op_rope_write(struct exec_thread *t, const struct graph_op *op)
{
    const struct kernels *k = t->x->kernels;
    const struct exec_batch *batch = t->x->batch;
    uint32_t n_q = op->rope_write.n_heads * op->rope_write.k_dim;
    uint32_t n_k = op->rope_write.n_kv_heads * op->rope_write.k_dim;
    uint32_t n_v = op->rope_write.n_kv_heads * op->rope_write.v_dim;
    uint32_t group = op->rope_write.group;
    float *q = value(t, op->rope_write.q), *key = value(t, op->rope_write.k);
    const float *v = value(t, op->rope_write.v), *table = value(t, op->rope_write.rope_table);
    uint32_t from, to;

    while (draw(t, 4, batch->n_tokens, &from, &to)) {
        for (uint32_t i = from; i < to; i++) {
            const float *cos_sin = table + (size_t)i * op->rope_write.n_rot;
            const struct page_table *pages = &batch->runs[batch->token_runs[i]].tables[group];
            uint32_t position = batch->positions[i];
            void *page = layer_page(t, group, op->rope_write.group_layer, pages->ids[position / KV_PAGE_TOKENS]);

            k->vector.rope(q + (size_t)i * n_q, op->rope_write.n_heads, op->rope_write.k_dim, op->rope_write.n_rot,
                           cos_sin, op->rope_write.interleaved);
            k->vector.rope(key + (size_t)i * n_k, op->rope_write.n_kv_heads, op->rope_write.k_dim,
                           op->rope_write.n_rot, cos_sin, op->rope_write.interleaved);
            kv_write(k, &t->x->layouts[group], page, position % KV_PAGE_TOKENS, key + (size_t)i * n_k,
                     v + (size_t)i * n_v);
        }
    }
}

static void op_attention(struct exec_thread *t, const struct graph_op *op)
{
    const struct exec *x = t->x;
    uint32_t group = op->attention.group, n_kv_heads = op->attention.n_kv_heads, from, to;
    uint32_t n_q = op->attention.n_heads * op->attention.k_dim, n_out = op->attention.n_heads * op->attention.v_dim;
    void **pages = (void **)t->scratch;
    uint8_t *scratch = t->scratch + (x->pages_max * sizeof(void *) + SCRATCH_ALIGN - 1) / SCRATCH_ALIGN * SCRATCH_ALIGN;
    uint32_t block_of_pages = UINT32_MAX;

    while (draw(t, 1, x->n_blocks * n_kv_heads, &from, &to)) {
        for (uint32_t i = from; i < to; i++) {
            const struct exec_block *block = &x->blocks[i / n_kv_heads];
            const struct exec_run *run = &x->batch->runs[block->run];
            size_t row = run->token0 + block->first;
            uint32_t position0 = run->position0 + block->first;

            if (block_of_pages != i / n_kv_heads) {
                uint32_t n_pages = (position0 + block->n_queries - 1) / KV_PAGE_TOKENS + 1;

                for (uint32_t p = 0; p < n_pages; p++)
                    pages[p] = layer_page(t, group, op->attention.group_layer, run->tables[group].ids[p]);
                block_of_pages = i / n_kv_heads;
            }
            attention(x->kernels, &(struct attention_args){
                                      .layout = &x->layouts[group],
                                      .pages = pages,
                                      .n_queries = block->n_queries,
                                      .position0 = position0,
                                      .q = (const float *)value(t, op->attention.q) + row * n_q,
                                      .q_stride = n_q,
                                      .n_heads = op->attention.n_heads,
                                      .kv_head = i % n_kv_heads,
                                      .scale = op->attention.scale,
                                      .softcap = op->attention.softcap,
                                      .window = op->attention.window,
                                      .out = (float *)value(t, op->attention.out) + row * n_out,
                                      .out_stride = n_out,
                                      .scratch = scratch,
                                  });
        }
    }
}

void exec_op(struct exec_thread *t, const struct graph_op *op)
{
    switch (op->type) {
    case GRAPH_EMBED:
        op_embed(t, op);
        return;
    case GRAPH_ROPE_TABLE:
        op_rope_table(t, op);
        return;
    case GRAPH_NORM:
        op_norm(t, op);
        return;
    case GRAPH_PACK:
        op_pack(t, op);
        return;
    case GRAPH_LINEAR:
        op_linear(t, op);
        return;
    case GRAPH_GLU:
        op_glu(t, op);
        return;
    case GRAPH_ROPE_WRITE:
        op_rope_write(t, op);
        return;
    case GRAPH_ATTENTION:
        op_attention(t, op);
        return;
    case GRAPH_OP_TYPE_MAX:
        break;
    }
    assert(false);
}
