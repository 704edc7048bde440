/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What gpu.c (memory), gpu-step.c (a step's data) and gpu-ops.c (launches) share. Private to engine/cuda.
 */

#include "engine/cuda/device.h"
#include "engine/cuda/gpu.h"
#include "engine/cuda/launch.h"
#include "engine/cuda/weights.h"

/* Attention cuts the batch's queries into pieces, of a size that depends on its heads: so many sizes at most. */
#define GPU_CUTS_MAX 4

/* What split attention may take for its parts. */
#define GPU_PARTS_BYTES ((uint64_t)32 << 20)

/* Of few tokens: for many there is enough to do without. */
#define GPU_SPLIT_TOKENS_MAX 16

/* Steps of so many tokens are handed in as graphs. For more, kernels take longer than their launches. */
#define GPU_GRAPH_TOKENS_MAX 32

/* Pages after which a longer sequence needs another graph; a whole number of attention's segments. */
#define GPU_GRAPH_PAGES 64

#define GPU_GRAPHS 512

/* Adapters in a step that is handed in as graphs, at most. */
#define GPU_GRAPH_ADAPTERS 4

/* Steps that may be under way at a time: one is prepared while the GPU works on the one before. */
#define GPU_SLOTS 2

/* One array of a step's data, at the same offset in pinned and in device memory. */
struct gpu_array {
    uint64_t offset, n_bytes;
};

struct gpu_cut {
    uint32_t n_queries; /* consecutive ones of a run, at most */
    struct gpu_array array; /* struct launch_queries [tokens_max] */
    uint32_t n; /* in this step */
};

/* Rows of a step that have the same adapter. */
struct gpu_adapted_group {
    uint32_t adapter; /* from 0 */
    uint32_t first, n; /* in the order of adapters, in which values of first factors have their rows */
    uint32_t row0;     /* they are rows row0, row0 + 1, …; GRAPH_NONE: they are not consecutive */
};

/* The rows of a step's values that have adapters, ordered by adapter. */
struct gpu_adapted {
    struct gpu_array rows;            /* u32 [tokens_max or outputs_max] */
    struct gpu_adapted_group *groups; /* [graph.n_adapters] */
    uint32_t n_groups;                /* in this step */
};

/* What happens to a page as a whole; a copy of itself means that it is zeroed. */
struct gpu_page_op {
    uint32_t group, to, from;
};

/* Pinned memory of a step: written once, and free again when the GPU has come to its end. */
struct gpu_slot {
    uint8_t *inputs;   /* inputs_bytes */
    uint8_t *crossing; /* crossing_bytes */
    struct cuda_event *done, *got; /* the step, a value that is waited for */
    bool in_use;
};

/* What the launches of a range of operations depend on. */
struct gpu_graph_key {
    uint32_t first, past; /* operations */
    uint32_t n_tokens, n_outputs, table_stride, n_segments;
    uint32_t n_queries[GPU_CUTS_MAX];
    uint32_t n_adapted[2];
    struct gpu_adapted_group adapted[2][GPU_GRAPH_ADAPTERS];
};

struct gpu_graph {
    struct gpu_graph_key key;
    struct cuda_graph_exec *exec; /* NULL: not captured */
    uint64_t last_used, n_used;   /* n_used 0: nothing is here */
};

struct gpu {
    struct device *device;
    struct graph graph; /* the caller's, but for values, which are placed for this device */
    const uint8_t *places;
    uint8_t place;
    const struct kv_layout *layouts;
    uint32_t group_layers[GRAPH_GROUPS_MAX], group_pages[GRAPH_GROUPS_MAX];
    uint32_t tokens_max, outputs_max, sequences_max, pages_max;

    struct weights weights;
    struct cuda_function *functions[LAUNCH_KERNEL_MAX]; /* NULL: no operation here needs it */
    cuda_pointer kv[GRAPH_GROUPS_MAX];
    cuda_pointer scratch;
    uint64_t scratch_bytes;
    uint64_t work_at; /* in the scratch: experts' products, heads' packed rows */
    uint64_t parts_at, parts_bytes;
    uint64_t adapt_at; /* packed rows for adapters */

    /* A step's data. */
    struct gpu_slot slots[GPU_SLOTS];
    uint32_t i_slot; /* of the running step */
    cuda_pointer inputs;
    uint64_t inputs_bytes;
    struct gpu_array positions, token_rows, outputs, tables[GRAPH_GROUPS_MAX];
    struct gpu_cut cuts[GPU_CUTS_MAX];
    uint32_t n_cuts;
    struct gpu_adapted adapted[2]; /* of rows of TOKENS, of OUTPUTS; all 0 where no operation here is adapted */
    struct gpu_array adapters;     /* u32 [tokens_max] of each token, from 1; 0: none */
    uint64_t crossing_bytes, crossing_used;

    struct gpu_graph *graphs; /* [GPU_GRAPHS] */
    uint64_t n_graph_uses, n_graph_ops;
    bool refuses_graphs;

    const struct exec_batch *batch; /* of the running step */
    const struct page_table **rows; /* [sequences_max] the tables of each row of kv.tables */
    uint32_t n_rows, table_stride;
    uint32_t n_segments; /* of the longest run, or a few more */
    /* [n_page_ops] Of pages since the last step, in order: done when the next one begins, which can be refused. */
    struct gpu_page_op *page_ops;
    uint32_t n_page_ops, n_page_ops_room;
    bool wipes; /* scratch and pinned memory are zeroed before the next step */
    bool lost_page_ops; /* there was no memory to note one: what is in pages is not what should be */
};

/* Rows of the value in this step. */
static inline uint32_t gpu_value_rows(const struct gpu *g, uint32_t id)
{
    switch (g->graph.values[id].rows) {
    case GRAPH_ROWS_OUTPUTS:
        return g->batch->n_outputs;
    case GRAPH_ROWS_SLOTS:
    case GRAPH_ROWS_GATHERED:
        return g->batch->n_tokens * g->graph.n_experts_used;
    case GRAPH_ROWS_TOKENS:
        break;
    }
    return g->batch->n_tokens;
}

/* Blocks that a row is cut into when its largest values are looked for. */
static inline uint32_t gpu_top_parts(uint32_t n_cols)
{
    return (n_cols + LAUNCH_TOP_K_COLUMNS - 1) / LAUNCH_TOP_K_COLUMNS;
}

static inline cuda_pointer gpu_value(const struct gpu *g, uint32_t id)
{
    return g->scratch + g->graph.values[id].offset;
}

static inline cuda_pointer gpu_input(const struct gpu *g, const struct gpu_array *a)
{
    return g->inputs + a->offset;
}

/**
 * gpu_launch() - launch @kernel; nothing where there is nothing to do
 * @args: its struct launch_*
 */
int gpu_launch(const struct gpu *g, uint32_t kernel, void *args, struct fault *reterr);

/**
 * gpu_linear_args() - the arguments of @l for rows of TOKENS that are the same in every step: a product with its bias
 */
struct launch_linear gpu_linear_args(const struct gpu *g, const struct graph_linear *l);

/**
 * gpu_adapt_can_run() - whether there are kernels for all that adapters do to the product @l, which is a site
 */
bool gpu_adapt_can_run(const struct graph *graph, const struct graph_linear *l);

/**
 * gpu_adapt_need() - mark the kernels that adapters need for @op of @graph, [LAUNCH_KERNEL_MAX]
 */
void gpu_adapt_need(const struct graph *graph, const struct graph_op *op, bool *needed);

/**
 * gpu_adapt_work_bytes() - room behind adapt_at for @op with the largest batch
 */
uint64_t gpu_adapt_work_bytes(const struct gpu *g, const struct graph_op *op);

/**
 * gpu_adapt_group() - sort the rows of g->batch by adapter
 * @rows: [2] as g->adapted; in pinned memory
 * @adapters: likewise, of each token
 */
void gpu_adapt_group(struct gpu *g, uint32_t *const rows[2], uint32_t *adapters);

/**
 * gpu_run_adapt() - the first factors' products
 */
int gpu_run_adapt(const struct gpu *g, const struct graph_op *op, struct fault *reterr);

/**
 * gpu_adapt_add() - add what the step's adapters do to the product @l of the launch @a, whose out has the sums
 * Nothing where @l is no site or no token has an adapter.
 */
int gpu_adapt_add(const struct gpu *g, const struct graph_linear *l, const struct launch_linear *a,
                  struct fault *reterr);

/**
 * gpu_attention_args() - the part of the arguments that is the same in every step, memory apart
 */
struct launch_attention gpu_attention_args(const struct gpu *g, const struct graph_op *op);

/**
 * gpu_kernels_need() - mark the kernels that @op of @graph is computed with, [LAUNCH_KERNEL_MAX]
 */
void gpu_kernels_need(const struct graph *graph, const struct graph_op *op, bool *needed);

/**
 * gpu_run_ops() - launch the kernels of operations [@first, @past), one by one
 */
int gpu_run_ops(struct gpu *g, size_t first, size_t past, struct fault *reterr);

/**
 * gpu_launch_top() - find the @k largest of each of the first @n_rows rows of the value @id
 * @ret: u32 [n_rows, k] columns, and behind them f32 [n_rows, k], in memory that the next operation may take
 */
int gpu_launch_top(struct gpu *g, uint32_t id, uint32_t k, uint32_t n_rows, cuda_pointer *ret, struct fault *reterr);

/**
 * gpu_graphs_can() - whether the running step may be handed in as graphs
 */
bool gpu_graphs_can(const struct gpu *g);

/**
 * gpu_graphs_run() - the same as a graph, if there is one or the driver makes one
 */
int gpu_graphs_run(struct gpu *g, size_t first, size_t past, struct fault *reterr);

/**
 * gpu_graphs_forget() - release all graphs
 */
void gpu_graphs_forget(struct gpu *g);
