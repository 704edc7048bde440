/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What attention over a compressed cache needs: products in which every head has a matrix of its own and a part of the
 * input of its own, and the putting together of heads. A head's matrix is small and its input nobody else's, so the
 * thread that draws a head packs that input, too: no barrier, and no value for what is read once.
 */

#include "engine/cpu/exec-ops.h"

#include <string.h>

uint64_t exec_heads_scratch_bytes(const struct exec_config *x)
{
    uint64_t most = 0;

    for (size_t i = 0; i < x->graph->n_ops; i++) {
        const struct graph_tensor *w = &x->graph->ops[i].heads.linear.weight;

        /* A layout for few rows may need more room than the one for many. */
        for (uint32_t m = 1; x->graph->ops[i].type == GRAPH_HEADS && m <= EXEC_HEADS_TOKENS; m++) {
            uint64_t n = linear_pack_bytes(x->kernels, linear_format(x->kernels, w->type), w->n_cols, m);

            most = n > most ? n : most;
        }
    }
    return most;
}

void exec_op_heads(struct exec_thread *t, const struct graph_op *op)
{
    const struct graph_linear *l = &op->heads.linear;
    const struct graph_tensor *w = &l->weight;
    enum act_format format = linear_format(t->x->kernels, w->type);
    uint32_t n_tokens = value_rows(t, l->out), n_in = t->x->graph->values[l->in].n_cols;
    uint32_t n_out = op->heads.n_heads * w->n_rows, n_chunks = (n_tokens + EXEC_HEADS_TOKENS - 1) / EXEC_HEADS_TOKENS;
    void *packed = t->scratch + t->x->linear_scratch_bytes;
    uint32_t from, to;

    while (draw(t, 1, n_chunks * op->heads.n_heads, &from, &to)) {
        for (uint32_t i = from; i < to; i++) {
            uint32_t head = i / n_chunks, token = i % n_chunks * EXEC_HEADS_TOKENS;
            uint32_t m = n_tokens - token < EXEC_HEADS_TOKENS ? n_tokens - token : EXEC_HEADS_TOKENS;
            const float *in = (const float *)value(t, l->in) + (size_t)token * n_in + head * op->heads.stride +
                              op->heads.first;

            linear_pack(t->x->kernels, format, in, n_in, w->n_cols, m, 0, m, packed);
            linear_rows(t->x->kernels, w->type, (const uint8_t *)w->data + head * w->matrix_bytes, w->row_bytes,
                        w->n_cols, 0, w->n_rows, packed, m,
                        (float *)value(t, l->out) + (size_t)token * n_out + (size_t)head * w->n_rows, n_out,
                        t->scratch);
        }
    }
}

void exec_op_join(struct exec_thread *t, const struct graph_op *op)
{
    uint32_t n_out = t->x->graph->values[op->join.out].n_cols, from, to;

    while (draw(t, 4, value_rows(t, op->join.out), &from, &to)) {
        for (uint32_t i = from; i < to; i++) {
            float *out = (float *)value(t, op->join.out) + (size_t)i * n_out;

            for (uint32_t head = 0; head < op->join.n_heads; head++)
                for (uint32_t k = 0; k < op->join.n_parts; k++) {
                    uint32_t n = op->join.parts[k].n, in = op->join.parts[k].in;
                    const float *x = (const float *)value(t, in) + (size_t)i * t->x->graph->values[in].n_cols +
                                     head * op->join.parts[k].stride + op->join.parts[k].first;

                    memcpy(out, x, n * sizeof(*out));
                    out += n;
                }
        }
    }
}
