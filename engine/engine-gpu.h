/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Layers of a model on GPUs: which operation is computed where, and what is carried between. Private to the engine's
 * own files.
 *
 * Place 0 is the CPU, place d + 1 the d-th GPU in use. Layers are put on GPUs from the last one on, whole, but for what
 * the configuration keeps in RAM (experts, keys and values); the output matrix goes with the last layer. Embeddings
 * and the angles of rotation are computed on the CPU.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/cuda/gpu.h"
#include "engine/engine.h"
#include "engine/graph/ops.h"

struct engine;
struct engine_devices;
struct engine_pieces;
struct exec_batch;
struct fault;
struct gguf_tensor;

/* A value that has to be carried before operation @op (graph.n_ops: behind the last one). */
struct engine_transfer {
    size_t op;
    uint32_t value;
    uint8_t from, to; /* places */
};

/* Bits: what a device had no memory for, though it was wanted. */
enum engine_gpu_part {
    ENGINE_GPU_BATCH = 1 << 0, /* steps of as many tokens */
    ENGINE_GPU_KV = 1 << 1,    /* keys and values */
};

struct engine_gpu_group {
    struct engine_gpus *gpus;
    uint32_t group;
};

struct engine_gpus {
    struct engine_devices *devices;
    bool owns_devices;
    struct gpu *gpus[ENGINE_DEVICES_MAX];
    uint32_t n_gpus;
    uint8_t *places;        /* [graph.n_ops] */
    uint32_t *group_layers; /* [graph.n_ops] as the graph was built, of operations that have one */
    struct engine_transfer *transfers; /* by operation */
    size_t n_transfers;
    struct engine_gpu_group groups[GRAPH_GROUPS_MAX];
    struct engine_range *released; /* facts.released */
    uint32_t n_layers;
    unsigned given_up; /* enum engine_gpu_part */
    struct engine_top top; /* of the last step; n is 0: there is none */
    uint32_t *top_ids;     /* [n_top_room] of outputs_max rows */
    float *top_logits;
    size_t n_top_room;
    uint32_t n_top_wanted; /* of the running step */
    struct engine_pieces *pieces; /* NULL: steps are not cut, since nobody could work on another piece */
};

/**
 * engine_gpus_open() - put as many layers on GPUs as the configuration wants and as fit
 * @n_pages: [graph.n_groups] pages of each group
 * What there is no room for stays on the CPU; so does everything where there is no GPU, and facts.gpu_reason says why.
 * Where there is no room for a single layer, or there have to be as many (gpu.exact), steps may become smaller
 * (e->batch_tokens_max), and after that keys and values stay in RAM.
 * After it, graph.groups[].n_layers and each operation's group_layer count what is at the same place.
 * Returns 0; -ENOMEM (with gpu.exact, @reterr says how much VRAM there is too little), -ECANCELED.
 */
int engine_gpus_open(struct engine *e, const struct engine_config *c, const uint32_t *n_pages, struct fault *reterr);

/**
 * engine_gpus_small_steps() - how many tokens a step takes where memory is short; 0: as many as ever
 */
uint32_t engine_gpus_small_steps(const struct engine *e);

/**
 * engine_gpus_measure() - what all layers would take of one device, as @c says, without taking it
 * @n_pages:    as above
 * @ret_layers: [n_layers] which of them can be on a GPU
 * The engine is of no other use afterwards: its graph is as if the layers were there. Returns 0 or a negative errno.
 */
int engine_gpus_measure(struct engine *e, const struct engine_gpu_config *c, const uint32_t *n_pages,
                        struct gpu_bytes *ret, bool *ret_layers);

struct engine_gpu_tensor {
    const struct gguf_tensor *t;
    bool is_on_gpu; /* … and nobody else reads it */
};

/**
 * engine_gpus_tensors() - which tensors only the first @n_gpus places behind the CPU read, as operations are placed now
 * @tensors: [gguf_n_tensors()] is filled in, by file and offset
 * Returns 0 or -ENOMEM.
 */
int engine_gpus_tensors(const struct engine *e, uint32_t n_gpus, struct engine_gpu_tensor *tensors);

/**
 * engine_gpus_lock_later() - whether the files are mapped without a lock, and engine_gpus_hold() locks what stays
 */
bool engine_gpus_lock_later(const struct engine_config *c);

/**
 * engine_gpus_find_released() - list in e->facts what of the files need not be locked, as operations are placed; once
 * Returns 0 or -ENOMEM.
 */
int engine_gpus_find_released(struct engine *e);

/**
 * engine_gpus_forget() - what is listed there and was read need not stay in memory
 */
void engine_gpus_forget(const struct engine *e);

/**
 * engine_gpus_hold() - lock the rest; once, when e->facts.bytes_kv is known
 * Returns 0; -ENOMEM and FAULT_INSUFFICIENT_MEMORY where that and the KV cache are more than gpu.ram_bytes_max (then
 * nothing was locked); or as gguf_map().
 */
int engine_gpus_hold(struct engine *e, const struct engine_config *c, struct fault *reterr);

/**
 * engine_gpus_mirror() - let the GPUs know of what happens to pages; e->pages are there
 */
void engine_gpus_mirror(struct engine *e);

/**
 * engine_gpus_wipe() - a sequence was closed: who computes next sees nothing that was computed until now
 */
void engine_gpus_wipe(struct engine_gpus *g);

/**
 * engine_gpus_close() - release everything; pages are gone already, or not told any more
 */
void engine_gpus_close(struct engine_gpus *g);

/**
 * engine_gpus_step() - exec_step() with some operations on GPUs
 * @n_top: as engine_batch.n_top; where gpus.top has it, *ret_logits is NULL
 * Returns 0, ENGINE_CANCELLED, ENGINE_GPU_FULL, -EIO: a GPU was lost, and with it what was in its pages.
 */
int engine_gpus_step(struct engine *e, const struct exec_batch *batch, uint32_t n_top, const float **ret_logits,
                     struct fault *reterr);
