/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Runs operations of a graph on one GPU: those of the layers that were put there. The counterpart of engine/cpu/exec.h,
 * whose batches it takes; which operation is where, and what has to be carried between them, is its caller's business
 * (engine/engine-gpu.c).
 *
 * Values have the same numbers here as on the CPU, and places of their own in the device's scratch memory. Keys and
 * values of the layers that are here are in pages here; pages have the numbers that engine/kv/pages.h gave them.
 *
 * Everything is taken by gpu_new(), of the device and pinned; a step takes nothing. What a step hands in is computed in
 * the background, in order: gpu_wait() waits for all of it, gpu_get() for what it reads. The next step may be handed in
 * while the last one is computed.
 *
 * Results are those of driver_check(). After a DRIVER_LOST nothing but gpu_free() makes sense.
 *
 * Threads: the one that runs steps.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "engine/cpu/exec.h"
#include "engine/cuda/driver.h"
#include "engine/cuda/upload.h"
#include "engine/graph/ops.h"
#include "engine/kv/layout.h"

struct device;
struct fault;
struct gpu;

struct gpu_config {
    const struct device *device; /* shared for the gpu's life; all here is borrowed for as long */
    const struct graph *graph;   /* planned for the CPU */
    const uint8_t *places;       /* [graph->n_ops] */
    uint8_t place;               /* of this device's operations */
    const struct kv_layout *layouts; /* [graph->n_groups] */
    uint32_t group_layers[GRAPH_GROUPS_MAX]; /* that are here; group_layer of operations counts these */
    uint32_t group_pages[GRAPH_GROUPS_MAX];
    uint32_t tokens_max, outputs_max, sequences_max;
    uint32_t pages_max; /* of one sequence */
    uint64_t crossing_bytes; /* of all values that are put between two that are got, and one of those, at most */
};

/* Bytes of the device's memory, by use, as the driver hands it out. Scratch includes a step's data. */
struct gpu_bytes {
    uint64_t weights, kv, scratch, context;
};

/**
 * gpu_can_run() - whether an operation can be computed on a GPU at all, whatever is free there
 * @layouts: [g->n_groups]
 */
bool gpu_can_run(const struct graph *g, const struct graph_op *op, const struct kv_layout *layouts);

/**
 * gpu_can_keep() - whether there are kernels for keys and values of these types; elsewhere they stay with the CPU
 */
bool gpu_can_keep(const struct kv_layout *layout);

/**
 * gpu_measure() - what gpu_new() would take with the same configuration, whose device may be NULL
 * Returns 0 or a negative errno.
 */
int gpu_measure(const struct gpu_config *config, struct gpu_bytes *ret);

/**
 * gpu_new() - take a device and all memory that its operations need; nothing is copied yet
 * Where there is too little, @reterr says how much all of it is, and what there is.
 */
int gpu_new(const struct gpu_config *config, struct gpu **ret, struct fault *reterr);

/**
 * gpu_free() - give everything back; takes NULL, returns NULL
 */
struct gpu *gpu_free(struct gpu *g);

DEFINE_CLEANUP(struct gpu *, gpu_free)

/**
 * gpu_load() - copy the weights; returns as upload_add()
 */
int gpu_load(struct gpu *g, upload_progress progress, void *userdata, struct fault *reterr);

/**
 * gpu_weights_bytes() - how much gpu_load() copies, at most
 */
uint64_t gpu_weights_bytes(const struct gpu *g);

/**
 * gpu_bytes() - what it holds of its device
 */
void gpu_bytes(const struct gpu *g, struct gpu_bytes *ret);

/**
 * gpu_free_bytes() - what is left of its device's memory now; 0 where nobody can say
 */
uint64_t gpu_free_bytes(const struct gpu *g);

/**
 * gpu_device() - which device it is
 */
const struct driver_device *gpu_device(const struct gpu *g);

/**
 * gpu_begin() - hand in what a step's operations look at; @batch stays until gpu_end()
 * Waits for the step before the last one, whose pinned memory it takes.
 */
int gpu_begin(struct gpu *g, const struct exec_batch *batch, struct fault *reterr);

/**
 * gpu_run() - operations [@first, @past) of the step; those that are not here have to be left out of it
 * Cut where something is put or got, and the same in each step: as such, they become graphs.
 */
int gpu_run(struct gpu *g, size_t first, size_t past, struct fault *reterr);

/**
 * gpu_end() - all of the step was handed in; it need not be done
 */
int gpu_end(struct gpu *g, struct fault *reterr);

/**
 * gpu_put() - give the f32 value @id its first @n_rows rows; @from may change afterwards
 */
int gpu_put(struct gpu *g, uint32_t id, const float *from, uint32_t n_rows, struct fault *reterr);

/**
 * gpu_get() - wait until the value @id is computed, and copy its first @n_rows rows
 * What was put before is read by then, so its pinned memory is free again.
 */
int gpu_get(struct gpu *g, uint32_t id, float *to, uint32_t n_rows, struct fault *reterr);

/**
 * gpu_has_top() - whether the @k largest of each row of the value @id can be found without copying the rows
 */
bool gpu_has_top(const struct gpu *g, uint32_t id, uint32_t k);

/**
 * gpu_get_top() - as gpu_get(), but of each row the @k largest: as struct launch_top_k says
 * @to_ids, @to_values: [n_rows, k]
 */
int gpu_get_top(struct gpu *g, uint32_t id, uint32_t k, uint32_t n_rows, uint32_t *to_ids, float *to_values,
                struct fault *reterr);

/**
 * gpu_wait() - until everything that was handed in is done
 */
int gpu_wait(struct gpu *g, struct fault *reterr);

/**
 * gpu_page_zero() gpu_page_copy() - what happens to a page of @group as a whole (struct pages_mirror)
 * In order with steps: done by the next gpu_begin(), and if that is refused memory, by the one after it.
 */
void gpu_page_zero(struct gpu *g, uint32_t group, uint32_t id);
void gpu_page_copy(struct gpu *g, uint32_t group, uint32_t to, uint32_t from);

/**
 * gpu_wipe() - a sequence has ended: the next step begins with nothing of earlier ones in scratch and pinned memory
 * What is in its pages is not looked at by others either, see gpu_page_zero().
 */
void gpu_wipe(struct gpu *g);
