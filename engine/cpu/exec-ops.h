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

    const struct exec_batch *batch; /* of the running step */
    struct exec_block *blocks;      /* [tokens_max] of it, n_blocks in use */
    uint32_t n_blocks;
    uint32_t turn;                  /* which of drawn[] the running operation uses; written between operations only */
    bool stopped;                   /* likewise */

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

/**
 * exec_op() - this thread's share of one operation
 */
void exec_op(struct exec_thread *t, const struct graph_op *op);
