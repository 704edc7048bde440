/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Runs a graph on the CPU: one call is one step. All threads of a pool walk through the operations together, with a
 * barrier after each; the work inside an operation (rows of a weight matrix, tokens, pairs of query block and KV head)
 * is handed out in pieces to whoever is free. Which thread computes a piece, and how the pieces are cut, changes no
 * bit of the result: pieces never share a sum.
 *
 * Allocates when it is made and when the number of threads changes, never in a step.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "engine/graph/ops.h"
#include "engine/kernels/kernels.h"
#include "engine/kv/layout.h"
#include "engine/kv/pages.h"

struct ahead;
struct exec;
struct threads;

struct exec_config {
    const struct graph *graph;              /* planned; borrowed for the exec's life, as everything here */
    const struct kernels *kernels;
    const struct kv_layout *layouts;        /* [graph->n_groups] of one layer's page */
    struct pages *const *pages;             /* [graph->n_groups] */
    uint32_t tokens_max, outputs_max;       /* as given to graph_plan() */
    uint32_t pages_max;                     /* of one sequence */
    struct ahead *ahead;                    /* reads matrices before they are needed; NULL: all are in memory */
};

/* Tokens of one sequence that stand together in the batch. */
struct exec_run {
    uint32_t token0, n_tokens; /* rows of the batch */
    uint32_t position0;
    const struct page_table *tables; /* [graph->n_groups] that reach the last position */
};

/* A step's work, checked: what is wrong in here is the engine's fault. */
struct exec_batch {
    uint32_t n_tokens, n_outputs, n_runs;
    const int32_t *tokens;        /* [n_tokens] < n_vocab */
    const uint32_t *positions;    /* [n_tokens] */
    const uint32_t *token_runs;   /* [n_tokens] index into runs */
    const uint32_t *outputs;      /* [n_outputs] rows of the batch, ascending */
    const uint32_t *adapters;     /* [n_tokens] 1 … graph.n_adapters, 0: none; NULL: no token has one */
    bool wants_embeddings;
    const struct exec_run *runs;
};

/**
 * exec_new() - reserve scratch memory for steps of the graph, to be run by @threads
 * Returns 0, -ENOMEM, -EOVERFLOW.
 */
int exec_new(const struct exec_config *config, struct threads *threads, struct exec **ret);

/**
 * exec_free() - release; takes NULL, returns NULL. The threads stay the caller's
 */
struct exec *exec_free(struct exec *x);

DEFINE_CLEANUP(struct exec *, exec_free)

/**
 * exec_threads_set() - run with another pool from now on; on failure (-ENOMEM) the old one stays
 */
int exec_threads_set(struct exec *x, struct threads *threads);

/**
 * exec_step() - compute one batch
 * @ret_logits: [n_outputs, n_vocab], valid until the next step; NULL when n_outputs is 0
 * Returns false when exec_cancel() came: nothing is computed to the end then.
 */
bool exec_step(struct exec *x, const struct exec_batch *batch, const float **ret_logits);

/**
 * exec_begin() exec_part() exec_end() - exec_step() in parts, for a step of which others compute some operations
 * @first, @past: the operations that exec_part() runs; in ascending order, each at most once
 * exec_part() returns false when exec_cancel() came; exec_end() has to follow in any case, and returns as exec_step().
 * Not with config.ahead.
 */
void exec_begin(struct exec *x, const struct exec_batch *batch);
bool exec_part(struct exec *x, size_t first, size_t past);
bool exec_end(struct exec *x, const float **ret_logits);

/**
 * exec_value() - where f32 value @id of the graph lies, between exec_begin() and the next step
 * Returns [*ret_rows, n_cols].
 */
float *exec_value(struct exec *x, uint32_t id, uint32_t *ret_rows);

/**
 * exec_is_left_out() - whether operation @i_op is left out of the step that has begun
 */
bool exec_is_left_out(const struct exec *x, size_t i_op);

/**
 * exec_embeddings() - [n_tokens, n_embedding] of the last step, if it wanted them; valid until the next one
 */
const float *exec_embeddings(const struct exec *x);

/**
 * exec_cancel() - make the running or the next step return false soon; from any thread
 */
void exec_cancel(struct exec *x);

/**
 * exec_wipe() - zero what steps since the last call left: values, the threads' work space and their stacks
 * Between two steps; logits and embeddings of the last one are gone. Of values it zeroes as many rows as the largest of
 * those steps had, so it takes less time than they needed to write them.
 */
void exec_wipe(struct exec *x);

/**
 * exec_thread_scratch_bytes() - what an exec made of @config reserves for each thread; pages are not looked at
 * Returns 0 or -EOVERFLOW.
 */
int exec_thread_scratch_bytes(const struct exec_config *config, uint64_t *ret);

/**
 * exec_scratch_bytes() - memory reserved for values and for the threads' work space
 */
uint64_t exec_scratch_bytes(const struct exec *x);

/**
 * exec_profile_start() - take the time of each operation from now on, beginning at 0
 */
void exec_profile_start(struct exec *x);

/**
 * exec_profile() - time that steps spent in operation @i_op, and how often; 0 when no profile was started
 */
void exec_profile(const struct exec *x, size_t i_op, uint64_t *ret_calls, uint64_t *ret_ns);
