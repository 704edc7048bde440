/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a model takes, without loading it: read from the directory of its file and counted with the functions that an
 * engine allocates with, so that a plan made of it is exact. Of a model file only the header has to exist: no weight
 * is looked at.
 */

#include "engine/engine.h"

struct engine_shape_layer {
    uint64_t dense_bytes, expert_bytes; /* of tensors in the file */
    uint64_t adapter_bytes, adapter_expert_bytes; /* what adapters bring for each of both */
    uint32_t group;
    bool can_offload; /* GPUs have kernels for all of it */
};

/* Tensors that follow one another in a file and are on a GPU under the same conditions. Those that never are, are in
 * none. */
struct engine_shape_run {
    uint32_t file;
    uint64_t from, n_bytes;  /* to where the next tensor begins */
    uint32_t layer;          /* n_layers: of none, behind all of them */
    uint8_t with;            /* bit i: on the layer's GPU, where i (ENGINE_SHAPE_GPU_*) is there */
    bool is_end;             /* of the file */
};

/* Layers whose KV pages are alike. */
struct engine_shape_group {
    uint32_t window; /* 0: full attention */
    uint64_t pages_per_sequence, pages_per_step; /* most that a window needs: of every open sequence, and in all */
    /* Of one page of one layer, by type; 0: the cache has no such type. */
    uint64_t k_bytes[TENSOR_TYPE_MAX], v_bytes[TENSOR_TYPE_MAX];
    bool on_gpu[TENSOR_TYPE_MAX]; /* they can be in VRAM: there are kernels for them */
};

#define ENGINE_SHAPE_GROUPS_MAX 2

struct engine_shape {
    struct engine_shape_layer *layers; /* [n_layers] */
    uint32_t n_layers;
    struct engine_shape_group groups[ENGINE_SHAPE_GROUPS_MAX]; /* [n_groups] */
    uint32_t n_groups;
    uint64_t file_bytes, embedding_bytes, head_bytes, rest_bytes;
    uint64_t head_adapter_bytes;
    bool head_is_tied; /* head_bytes are the embedding's */
    uint64_t n_parameters;
    uint32_t n_experts, n_experts_used, n_vocab;
    uint32_t context_trained_tokens, batch_tokens;
    uint64_t scratch_bytes;        /* of a step with the configured batch and outputs */
    uint64_t thread_scratch_bytes; /* of each thread, for the configured context */
    /* Of what the caller loads beside it (a draft model): keys, values, activations; of each thread. The caller's. */
    uint64_t other_bytes, other_thread_bytes;
    /* Of a GPU with layers: activations and a step's data, by what is there (ENGINE_SHAPE_GPU_*); and what tensors of a
     * layer take beyond their bytes, at most. */
    uint64_t gpu_scratch_bytes[8], gpu_padding_bytes;
    /* The same with steps of so many tokens, which the engine takes where memory is short; 0: it can't. */
    uint64_t gpu_small_scratch_bytes[8];
    uint32_t gpu_small_tokens;
    struct engine_shape_run *runs; /* [n_runs] by file and offset */
    size_t n_runs;
};

enum { ENGINE_SHAPE_GPU_KV = 1, ENGINE_SHAPE_GPU_HEAD = 2, ENGINE_SHAPE_GPU_EXPERTS = 4 };

/**
 * engine_shape() - read the shape of a model
 * @config: as for engine_open(); lock, populate and n_threads don't matter
 * @ret:    to be released by engine_shape_done()
 * @reterr: as of engine_open()
 * Returns as engine_open().
 */
int engine_shape(const struct engine_config *config, struct engine_shape *ret, struct fault *reterr);

/**
 * engine_shape_kv_bytes() - what an engine opened with @config (its kv_tokens given) reserves for keys and values
 */
uint64_t engine_shape_kv_bytes(const struct engine_shape *shape, const struct engine_config *config);

/**
 * engine_shape_done() - release what is embedded; works on a zeroed one
 */
void engine_shape_done(struct engine_shape *shape);

/**
 * engine_memory_gbps() - how fast @n_threads (0: one a core) read memory that is in no cache, in 1e9 bytes a second
 * Takes some 50 ms. Returns 0 when memory or threads can't be had.
 */
double engine_memory_gbps(uint32_t n_threads);
