/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What exec.c and exec-ops.c share. Private to engine/cpu.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/cpu/exec.h"

#define SCRATCH_ALIGN 4096

/*
 * Queries that one piece of attention work has at most. Enough that keys and values, read once for a block, are used
 * often; few enough that a short prompt still gives every thread a piece.
 */
#define EXEC_BLOCK_QUERIES 32

struct exec_block {
    uint32_t run;   /* index into the batch's runs */
    uint32_t first; /* query of the run */
    uint32_t n_queries;
};

/* How much of the running operation's work has been drawn; alone in its cache line. */
struct exec_drawn {
    _Alignas(128) _Atomic uint32_t n;
};

/* Tokens that share an adapter. */
struct exec_adapted_group {
    uint32_t adapter; /* from 0 */
    uint32_t first, n; /* in rows */
};

/* The rows of a step's values that have adapters, ordered by adapter. */
struct exec_adapted {
    struct exec_adapted_group *groups; /* [graph->n_adapters], n_groups in use */
    uint32_t n_groups;
    uint32_t *rows; /* [tokens_max or outputs_max] */
};

/* A place in the scratch memory where values of one kind and width live, those of one layer after those of another. */
struct exec_place {
    uint32_t value; /* one of them */
    bool is_used;   /* something was written there, ever */
};

/* A part of the scratch memory. */
struct exec_extent {
    uint64_t from, n_bytes;
};

/* What steps left in memory since exec_wipe(). */
struct exec_traces {
    struct exec_place *places; /* [n_places] by offset */
    uint32_t n_places;
    uint32_t *place_of;        /* [graph->n_values] */
    uint8_t *op_has_run;       /* [graph->n_ops] its values' places are used */
    uint32_t n_tokens, n_outputs; /* of the largest steps */
    struct exec_extent *extents; /* [n_places], n_extents in use: what is zeroed, in no two of them */
    uint32_t n_extents;
};

struct exec {
    struct exec_drawn drawn[2];
    _Alignas(128) _Atomic bool cancelled; /* written by any thread */

    const struct graph *graph;
    const struct kernels *kernels;
    const struct kv_layout *layouts;
    struct pages *const *pages;
    uint32_t tokens_max, outputs_max, pages_max;

    struct threads *threads;
    uint8_t *scratch; /* the graph's values */
    uint8_t *thread_scratch;
    uint64_t thread_scratch_bytes; /* of each */
    uint64_t thread_scratch_total;
    uint64_t linear_scratch_bytes; /* of each, the part at its beginning that products use */
    uint64_t adapt_scratch_at;     /* where that of adapters begins, behind that of experts */

    const struct exec_batch *batch; /* of the running step */
    struct exec_block *blocks;      /* [tokens_max] of it, n_blocks in use */
    uint32_t n_blocks;
    struct exec_adapted adapted[2]; /* of rows of TOKENS, of OUTPUTS; all 0 without adapters */
    _Atomic uint32_t n_routed;      /* tokens whose experts were chosen by the running operation */
    uint32_t turn;                  /* which of drawn[] the running operation uses; written between operations only */
    bool stopped;                   /* likewise */
    size_t i_op;                    /* the running operation; likewise */
    size_t first_op, past_op;       /* of the part that is run */
    struct ahead *ahead;            /* NULL: all matrices are in memory */

    struct exec_traces traces;

    bool profiling;
    uint64_t *op_calls, *op_ns; /* [graph->n_ops] */
};

/* One thread's view of the running operation. */
struct exec_thread {
    struct exec *x;
    uint32_t thread, n_threads;
    struct exec_drawn *drawn;
    uint8_t *scratch; /* thread_scratch_bytes of its own */
};

/* Pieces per thread that row-wise work is cut into: enough to even out, few enough to stay long, linear reads. */
#define PIECES_PER_THREAD 8

static inline void *value(const struct exec_thread *t, uint32_t id)
{
    return t->x->scratch + t->x->graph->values[id].offset;
}

/* How many rows the value has in this step. */
static inline uint32_t exec_rows(const struct exec *x, uint32_t id)
{
    switch (x->graph->values[id].rows) {
    case GRAPH_ROWS_OUTPUTS:
        return x->batch->n_outputs;
    case GRAPH_ROWS_SLOTS:
    case GRAPH_ROWS_GATHERED:
        return x->batch->n_tokens * x->graph->n_experts_used;
    case GRAPH_ROWS_TOKENS:
        break;
    }
    return x->batch->n_tokens;
}

static inline uint32_t value_rows(const struct exec_thread *t, uint32_t id)
{
    return exec_rows(t->x, id);
}

/* Draws the next piece of at most @n of @n_all units: [*ret_from, *ret_to). False when all are drawn. */
static inline bool draw(struct exec_thread *t, uint32_t n, uint32_t n_all, uint32_t *ret_from, uint32_t *ret_to)
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
static inline uint32_t piece_size(const struct exec_thread *t, uint32_t n_all)
{
    uint32_t n = n_all / (t->n_threads * PIECES_PER_THREAD);

    return n ? n : 1;
}

/* Rows of a matrix are handed out in units of LINEAR_ROW_STEP. */
static inline uint32_t row_units(const struct graph_tensor *w)
{
    return (w->n_rows + LINEAR_ROW_STEP - 1) / LINEAR_ROW_STEP;
}

/* Rows [*ret_from, *ret_to) of @w for the units [@from, @to). */
static inline void unit_rows(const struct graph_tensor *w, uint32_t from, uint32_t to, uint32_t *ret_from,
                             uint32_t *ret_to)
{
    *ret_from = from * LINEAR_ROW_STEP;
    *ret_to = to * LINEAR_ROW_STEP < w->n_rows ? to * LINEAR_ROW_STEP : w->n_rows;
}

/* out = activation(gate, up), [n] each; out may be either. Without up: activation(gate). */
static inline void activate(const struct kernels *k, const struct graph_activation *a, float *out, const float *gate,
                            const float *up, uint32_t n)
{
    if (!up) {
        k->vector.map[a->kind == GRAPH_GELU ? VECTOR_GELU : VECTOR_SILU](out, gate, n);
        return;
    }
    switch (a->kind) {
    case GRAPH_SILU:
        k->vector.silu_mul(out, gate, up, n);
        return;
    case GRAPH_GELU:
        k->vector.gelu_mul(out, gate, up, n);
        return;
    case GRAPH_SWIGLU_CLAMPED:
        k->vector.swiglu_clamped(out, gate, up, n, a->alpha, a->limit);
        return;
    }
}

/* Tokens whose part of one head is packed at a time: each thread has room for so many. */
#define EXEC_HEADS_TOKENS 128

/* Query heads of one KV head that one piece of attention work has at most, where all share one. */
#define EXEC_SHARED_HEADS 16

/**
 * exec_heads_scratch_bytes() - what each thread needs for heads' own matrices, behind a product's scratch; 0: none
 */
uint64_t exec_heads_scratch_bytes(const struct exec_config *x);

/**
 * exec_op_heads(), exec_op_join() - see graph/ops.h
 */
void exec_op_heads(struct exec_thread *t, const struct graph_op *op);
void exec_op_join(struct exec_thread *t, const struct graph_op *op);

/* Tokens of one adapter that are packed at a time: each thread has room for so many. */
#define EXEC_ADAPT_TOKENS 32

/**
 * exec_adapt_scratch_bytes() - what each thread needs for adapters, behind a product's scratch
 */
uint64_t exec_adapt_scratch_bytes(const struct exec_config *x);

/**
 * exec_adapt_group() - sort the rows of x->batch by adapter; before its first operation
 */
void exec_adapt_group(struct exec *x);

/**
 * exec_op_adapt() - the first factors of a step's adapters
 */
void exec_op_adapt(struct exec_thread *t, const struct graph_op *op);

/**
 * exec_adapt_rows() - add what adapters do to rows [row0, row1) of the product @l
 */
void exec_adapt_rows(struct exec_thread *t, const struct graph_linear *l, uint32_t row0, uint32_t row1);

/* A pair of a token and an expert that was chosen for it. */
struct exec_slot {
    uint32_t slot, token, expert;
};

/**
 * exec_op_adapt_experts() - exec_op_adapt() for products of experts
 */
void exec_op_adapt_experts(struct exec_thread *t, const struct graph_op *op);

/**
 * exec_adapt_slot_down() - all parts' first factors for one slot, whose row is @in; nothing where it has no adapter
 */
void exec_adapt_slot_down(struct exec_thread *t, const struct graph_op *op, const struct exec_slot *s, const float *in);

/**
 * exec_adapt_slot_rows() - add what the slot's adapter does to rows [row0, row1) of the product @l, which begin at @y
 */
void exec_adapt_slot_rows(struct exec_thread *t, const struct graph_linear *l, const struct exec_slot *s, uint32_t row0,
                          uint32_t row1, float *y);

/**
 * exec_need_experts() - before operation @i_op: if it is one with experts, those of the step have to be in memory
 */
void exec_need_experts(struct exec *x, size_t i_op);

/**
 * exec_experts_scratch_bytes() - what each thread needs for the operations of exec-experts.c, behind a
 * product's scratch
 */
uint64_t exec_experts_scratch_bytes(const struct exec_config *x);

/**
 * exec_op_route() exec_op_experts_pack() exec_op_experts_glu() exec_op_experts_down() - this thread's share of one
 */
void exec_op_route(struct exec_thread *t, const struct graph_op *op);
void exec_op_experts_pack(struct exec_thread *t, const struct graph_op *op);
void exec_op_experts_glu(struct exec_thread *t, const struct graph_op *op);
void exec_op_experts_down(struct exec_thread *t, const struct graph_op *op);

/**
 * exec_traces_init(), exec_traces_done() - what exec_wipe() keeps account of; 0 or -ENOMEM
 */
int exec_traces_init(struct exec *x);
void exec_traces_done(struct exec *x);

/**
 * exec_traces_begin(), exec_traces_ops(), exec_traces_value() - x->batch has begun, these operations will write what
 * they write, somebody else will write this value
 */
void exec_traces_begin(struct exec *x);
void exec_traces_ops(struct exec *x, size_t first, size_t past);
void exec_traces_value(struct exec *x, uint32_t id);

/**
 * exec_op() - this thread's share of one operation
 */
void exec_op(struct exec_thread *t, const struct graph_op *op);
