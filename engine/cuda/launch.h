/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Between the engine's host code and its GPU kernels: which kernels there are, what each is given, and how large its
 * grid is. Read by both compilers, and by the tests that run kernels without a GPU, so all of them agree.
 *
 * Every kernel takes one parameter, its struct launch_* by value. An address is one of device memory, 0 where
 * something is absent. Blocks are one-dimensional. No kernel needs more than 48 KiB of shared memory, and none waits
 * for another block; launches on one stream run one after the other.
 *
 * The rule of sums (engine/kernels/linear.h, vector.h, attention.h) holds here too, so that a layer gives the same
 * bits wherever it is computed. On one operation of graph/ops.h:
 *   EMBED, ROPE_TABLE, JOIN  the kernel of that name
 *   NORM, PACK               norm, pack; both can write all packed forms at once
 *   LINEAR                   a launch of linear per part
 *   GLU, EXPERTS_GLU         linear twice, then glu
 *   ROPE_WRITE               rope_write
 *   ATTENTION                attention, and attention_merge behind it where launch_attention.split is set
 *   ROUTE                    route, then route_group
 *   EXPERTS_PACK             pack with rows = slot_tokens, n_rows = n_tokens * n_used; or of rows of SLOTS, without
 *   EXPERTS_DOWN             linear into [slots, n_rows] of work space, then experts_sum
 *   HEADS                    pack with n_parts = n_heads, then linear with n_matrices = n_heads
 *   ADAPT                    for each adapter pack and a launch of linear per part
 * A product that adapters of the step change is linear with its bias alone, for each of them pack and linear with adds
 * set, and linear_finish, which does to the sum what linear would have done.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/cuda/launch-args.h"

#ifdef __cplusplus
extern "C" {
#endif

enum launch_kernel {
    LAUNCH_EMBED,
    LAUNCH_ROPE_TABLE,
    LAUNCH_NORM,
    LAUNCH_PACK,
    LAUNCH_GLU,
    LAUNCH_ROPE_WRITE,
    LAUNCH_ATTENTION,
    LAUNCH_ATTENTION_MERGE,
    LAUNCH_ROUTE,
    LAUNCH_ROUTE_GROUP,
    LAUNCH_EXPERTS_SUM,
    LAUNCH_JOIN,
    LAUNCH_TOP_K,
    LAUNCH_ZERO_PAGES,
    LAUNCH_COPY_PAGES,
    LAUNCH_LINEAR_FINISH, /* struct launch_linear, whose sums are in out */
    /* linear_<type>: any number of tokens. From here on, one for each type; those of no matrix type have no name. */
    LAUNCH_LINEAR,
    /* linear_<type>_tiles: the same result, faster for many tokens; quantised types only. */
    LAUNCH_LINEAR_TILES = LAUNCH_LINEAR + TENSOR_TYPE_MAX,
    LAUNCH_KERNEL_MAX = LAUNCH_LINEAR_TILES + TENSOR_TYPE_MAX,
};

/* What cuLaunchKernel() is told. */
struct launch_shape {
    uint32_t grid[3];
    uint32_t block; /* threads */
    uint32_t shared_bytes;
};

/**
 * launch_kernel_name() - the entry's name in the module, for cuModuleGetFunction(); static text
 * Returns NULL for numbers that stand for no kernel.
 */
const char *launch_kernel_name(uint32_t kernel);

/**
 * launch_image() - the module with all kernels: a fatbin for cuModuleLoadData(), valid as long as the program runs
 * It is in a file that is opened by the first call only: a worker makes that before its sandbox.
 * Returns NULL (and 0 in *ret_bytes) where there are no kernels, or those of another build.
 */
const void *launch_image(size_t *ret_bytes);

/**
 * launch_has_type() - whether matrices of @type (any number, also one from a file) can be multiplied and embedded
 */
bool launch_has_type(uint32_t type);

/**
 * launch_has_kv_type() - whether rope_write and attention know pages of @type: F32, F16, Q8_0, Q4_0
 */
bool launch_has_kv_type(uint32_t type);

/**
 * launch_linear_kernel() - the kernel to be used for @a: by its type and number of tokens
 */
uint32_t launch_linear_kernel(const struct launch_linear *a);

/**
 * launch_shape() - grid, block and shared memory of one launch; a pure function
 * @kernel: any kernel; @args: its struct
 * Returns 0; -EINVAL when there is nothing to compute (no rows, no tokens), which is to be skipped, not launched;
 * -ERANGE when a dimension is larger than a grid can be.
 */
int launch_shape(uint32_t kernel, const void *args, struct launch_shape *ret);

/**
 * launch_attention_heads() - query heads of one KV head that a block of attention takes: its grid covers them all
 */
uint32_t launch_attention_heads(const struct launch_attention *a);

/**
 * launch_attention_queries() - consecutive queries of a run that one struct launch_queries may hold; at least 1
 * Reads kv and n_heads of @a only.
 */
uint32_t launch_attention_queries(const struct launch_attention *a);

/**
 * launch_attention_segments() - parts that the sequence up to position @last has: n_segments of a split attention
 */
uint32_t launch_attention_segments(uint32_t last);

/**
 * launch_attention_parts_bytes() - room behind launch_attention.parts
 */
uint64_t launch_attention_parts_bytes(uint32_t n_segments, uint32_t n_tokens, uint32_t n_heads, uint32_t v_stride);

#ifdef __cplusplus
}
#endif
