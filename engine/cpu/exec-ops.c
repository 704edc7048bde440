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

/* Row @row of @w, if the model has such a matrix, is added to @x. */
static void embed_add(struct exec_thread *t, const struct graph_tensor *w, uint32_t row, float *x)
{
    float *y = (float *)(void *)t->scratch;

    if (!w->data)
        return;
    dequantise_row(w->type, (const uint8_t *)w->data + row * w->row_bytes, w->n_cols, y);
    t->x->kernels->vector.add(x, y, w->n_cols);
}

static void op_embed(struct exec_thread *t, const struct graph_op *op)
{
    const struct graph_tensor *w = &op->embed.weight;
    const struct exec_batch *batch = t->x->batch;
    float *out = value(t, op->embed.out);
    uint32_t from, to;

    while (draw(t, 1, batch->n_tokens, &from, &to)) {
        for (uint32_t i = from; i < to; i++) {
            float *x = out + (size_t)i * w->n_cols;

            dequantise_row(w->type, (const uint8_t *)w->data + (uint32_t)batch->tokens[i] * w->row_bytes, w->n_cols, x);
            if (op->embed.scale != 1.0f)
                t->x->kernels->vector.scale(x, x, op->embed.scale, w->n_cols);
            embed_add(t, &op->embed.kind, 0, x);
            embed_add(t, &op->embed.position, batch->positions[i], x);
        }
    }
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

/* One row of a norm: what stood behind the block before is added to @x first, then y = norm(x). */
static void norm_row(const struct exec_thread *t, const struct graph_op *op, uint32_t n_cols, float *x, float *add,
                     float *y)
{
    const struct vector_table *v = &t->x->kernels->vector;

    if (add) {
        v->rms_norm(add, add, op->norm.add_weight, n_cols, op->norm.epsilon);
        v->add(x, add, n_cols);
    }
    if (!y)
        return;
    if (op->norm.kind == GRAPH_NORM_LAYER)
        v->layer_norm(y, x, op->norm.weight, op->norm.bias, n_cols, op->norm.epsilon);
    else
        v->rms_norm(y, x, op->norm.weight, n_cols, op->norm.epsilon);
}

static void op_norm(struct exec_thread *t, const struct graph_op *op)
{
    const struct graph *g = t->x->graph;
    uint32_t out_id = op->norm.out != GRAPH_NONE ? op->norm.out : op->norm.in;
    uint32_t n_rows = value_rows(t, out_id), n_cols = g->values[out_id].n_cols;
    const uint32_t *pick = g->values[op->norm.in].rows != g->values[out_id].rows ? t->x->batch->outputs : NULL;
    float *in = value(t, op->norm.in), *add = op->norm.add != GRAPH_NONE ? value(t, op->norm.add) : NULL;
    float *out = op->norm.out != GRAPH_NONE ? value(t, out_id) : NULL;
    uint32_t from, to;

    while (draw(t, LINEAR_PACK_STEP, n_rows, &from, &to)) {
        for (uint32_t i = from; i < to; i++)
            norm_row(t, op, n_cols, in + (size_t)(pick ? pick[i] : i) * n_cols, add ? add + (size_t)i * n_cols : NULL,
                     out ? out + (size_t)i * n_cols : NULL);
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

/* Rows [row0, row1) of one product for all tokens, with its bias and what adapters add. */
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
    if (l->site && t->x->batch->adapters)
        exec_adapt_rows(t, l, row0, row1);
}

/* What happens to rows [row0, row1) of the finished product: scale and cap, and the sum with the residual. */
static void linear_finish(struct exec_thread *t, const struct graph_op *op, const struct graph_linear *l,
                          uint32_t n_tokens, uint32_t row0, uint32_t row1)
{
    const struct vector_table *v = &t->x->kernels->vector;
    uint32_t n = row1 - row0, n_rows = l->weight.n_rows;
    float *x = op->linear.residual != GRAPH_NONE ? value(t, op->linear.residual) : NULL;
    const float *gates = op->linear.residual_gate != GRAPH_NONE ? value(t, op->linear.residual_gate) : NULL;
    float *out = value(t, l->out);

    for (uint32_t i = 0; i < n_tokens; i++) {
        float *y = out + (size_t)i * n_rows + row0, gate;

        if (op->linear.scale != 1.0f)
            v->scale(y, y, op->linear.scale, n);
        if (op->linear.softcap > 0.0f)
            v->softcap(y, y, op->linear.softcap, n);
        if (gates) {
            v->map[VECTOR_SIGMOID](&gate, &gates[i], 1);
            v->add_scaled(x + (size_t)i * n_rows + row0, y, gate, n);
        } else if (x) {
            v->add(x + (size_t)i * n_rows + row0, y, n);
        }
    }
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
            uint32_t units = row_units(&parts[i].weight), row0, row1;
            uint32_t first = from > unit0 ? from - unit0 : 0, past = to > unit0 ? to - unit0 : 0;

            past = past < units ? past : units;
            unit0 += units;
            if (first >= past)
                continue;
            unit_rows(&parts[i].weight, first, past, &row0, &row1);
            linear_piece(t, &parts[i], n_tokens, row0, row1);
            linear_finish(t, op, &parts[i], n_tokens, row0, row1);
        }
    }
}

static void op_glu(struct exec_thread *t, const struct graph_op *op)
{
    const struct graph_linear *gate = &op->glu.gate, *up = op->glu.up.weight.data ? &op->glu.up : NULL;
    uint32_t n_tokens = value_rows(t, op->glu.out), n_rows = gate->weight.n_rows;
    uint32_t n_units = row_units(&gate->weight), from, to;
    const float *g = value(t, gate->out), *u = up ? value(t, up->out) : NULL;
    float *out = value(t, op->glu.out);

    while (draw(t, piece_size(t, n_units), n_units, &from, &to)) {
        uint32_t row0, row1;

        unit_rows(&gate->weight, from, to, &row0, &row1);
        linear_piece(t, gate, n_tokens, row0, row1);
        if (up)
            linear_piece(t, up, n_tokens, row0, row1);
        for (uint32_t i = 0; i < n_tokens; i++) {
            size_t at = (size_t)i * n_rows + row0;

            activate(t->x->kernels, &op->glu.activation, out + at, g + at, u ? u + at : NULL, row1 - row0);
        }
    }
}

/* This layer's part of a page. */
static void *layer_page(const struct exec_thread *t, uint32_t group, uint32_t group_layer, uint32_t page)
{
    return (uint8_t *)pages_memory(t->x->pages[group], page) + group_layer * t->x->layouts[group].page_bytes;
}

/* Norm and rotation of one token's heads, where the model has them. */
static void rope_heads(const struct exec_thread *t, const struct graph_op *op, float *x, uint32_t n_heads,
                       const float *norm, const float *cos_sin)
{
    const struct vector_table *v = &t->x->kernels->vector;
    uint32_t k_dim = op->rope_write.k_dim;

    if (norm)
        for (uint32_t i = 0; i < n_heads; i++)
            v->rms_norm(x + (size_t)i * k_dim, x + (size_t)i * k_dim, norm, k_dim, op->rope_write.epsilon);
    if (cos_sin)
        v->rope(x, n_heads, k_dim, op->rope_write.n_rot, cos_sin, op->rope_write.interleaved);
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
    const float *v = value(t, op->rope_write.v);
    const float *table = op->rope_write.rope_table != GRAPH_NONE ? value(t, op->rope_write.rope_table) : NULL;
    uint32_t from, to;

    while (draw(t, 4, batch->n_tokens, &from, &to)) {
        for (uint32_t i = from; i < to; i++) {
            const float *cos_sin = table ? table + (size_t)i * op->rope_write.n_rot : NULL;
            const struct page_table *pages = &batch->runs[batch->token_runs[i]].tables[group];
            uint32_t position = batch->positions[i];
            void *page = layer_page(t, group, op->rope_write.group_layer, pages->ids[position / KV_PAGE_TOKENS]);

            rope_heads(t, op, q + (size_t)i * n_q, op->rope_write.n_heads, op->rope_write.q_norm, cos_sin);
            rope_heads(t, op, key + (size_t)i * n_k, op->rope_write.n_kv_heads, op->rope_write.k_norm, cos_sin);
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
    const float *q = value(t, op->attention.q);
    float *out = value(t, op->attention.out);
    void **pages = (void **)t->scratch;
    uint8_t *scratch = t->scratch + (x->pages_max * sizeof(void *) + SCRATCH_ALIGN - 1) / SCRATCH_ALIGN * SCRATCH_ALIGN;
    uint32_t block_of_pages = UINT32_MAX;
    /* Where all share one KV head, a lone sequence's heads would be one piece of work for one thread. */
    uint32_t n_heads = op->attention.n_heads, n_each = n_kv_heads == 1 && n_heads > EXEC_SHARED_HEADS
                                                           ? EXEC_SHARED_HEADS : n_heads;
    uint32_t n_parts = n_kv_heads * ((n_heads + n_each - 1) / n_each);

    while (draw(t, 1, x->n_blocks * n_parts, &from, &to)) {
        for (uint32_t i = from; i < to; i++) {
            const struct exec_block *block = &x->blocks[i / n_parts];
            uint32_t head = n_each < n_heads ? i % n_parts * n_each : 0;
            const struct exec_run *run = &x->batch->runs[block->run];
            size_t row = run->token0 + block->first;
            uint32_t position0 = run->position0 + block->first;

            if (block_of_pages != i / n_parts) {
                uint32_t last = x->graph->is_encoder ? run->n_tokens - 1 : position0 + block->n_queries - 1;
                uint32_t n_pages = last / KV_PAGE_TOKENS + 1;
                uint32_t window = op->attention.window;
                uint32_t first = window > 0 && position0 >= window ? position0 - window + 1 : 0;

                /* Those before the first query's window may be gone. */
                for (uint32_t p = first / KV_PAGE_TOKENS; p < n_pages; p++)
                    pages[p] = layer_page(t, group, op->attention.group_layer, run->tables[group].ids[p]);
                block_of_pages = i / n_parts;
            }
            attention(x->kernels, &(struct attention_args){
                                      .layout = &x->layouts[group],
                                      .pages = pages,
                                      .n_queries = block->n_queries,
                                      .position0 = position0,
                                      .q = q + row * n_q + head * op->attention.k_dim,
                                      .q_stride = n_q,
                                      .n_heads = n_heads - head < n_each ? n_heads - head : n_each,
                                      .kv_head = i % n_kv_heads,
                                      .scale = op->attention.scale,
                                      .softcap = op->attention.softcap,
                                      .window = op->attention.window,
                                      .n_keys = x->graph->is_encoder ? run->n_tokens : 0,
                                      .sinks = op->attention.sinks ? op->attention.sinks + head : NULL,
                                      .out = out + row * n_out + head * op->attention.v_dim,
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
    case GRAPH_HEADS:
        exec_op_heads(t, op);
        return;
    case GRAPH_JOIN:
        exec_op_join(t, op);
        return;
    case GRAPH_ADAPT:
        exec_op_adapt(t, op);
        return;
    case GRAPH_ROUTE:
        exec_op_route(t, op);
        return;
    case GRAPH_EXPERTS_PACK:
        exec_op_experts_pack(t, op);
        return;
    case GRAPH_EXPERTS_GLU:
        exec_op_experts_glu(t, op);
        return;
    case GRAPH_EXPERTS_DOWN:
        exec_op_experts_down(t, op);
        return;
    case GRAPH_OP_TYPE_MAX:
        break;
    }
    assert(false);
}
