/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * How the kernels cut their work: what both a kernel and the function that computes its grid have to know. Tuned on
 * paper only (docs/gpu.md).
 */

#include "engine/cuda/launch-args.h"

#define LAUNCH_THREADS    256 /* of kernels that need no shape of their own */
#define LAUNCH_SHARED_MAX 49152 /* what every GPU gives without being asked */

#define LAUNCH_EMBED_THREADS 64 /* each 32 values */
#define LAUNCH_PACK_WARPS    4  /* each 256 values */
#define LAUNCH_HEAD_THREADS  64
#define LAUNCH_MERGE_WARPS   4
#define LAUNCH_PAGE_BLOCKS   64 /* at most so many blocks zero or copy one page */

/* linear_<type>, quantised: a warp per row, all tokens of the block beside each other */
#define LAUNCH_FEW_THREADS 128
#define LAUNCH_FEW_ROWS    4
#define LAUNCH_FEW_TOKENS  16

/* linear_f32, _f16, _bf16: 16 threads per row, the 16 lanes of the rule of sums */
#define LAUNCH_FLOAT_THREADS 128
#define LAUNCH_FLOAT_ROWS    8
#define LAUNCH_FLOAT_TOKENS  8

/* linear_<type>_tiles */
#define LAUNCH_TILE_THREADS 128
#define LAUNCH_TILE_ROWS    64
#define LAUNCH_TILE_TOKENS  64

#define LAUNCH_ATTENTION_THREADS 128
#define LAUNCH_ATTENTION_ROWS    16

/* What a segment leaves behind for a row: maximum, 16 lanes of the sum, accumulators. */
LAUNCH_INLINE uint32_t launch_attention_part_floats(uint32_t v_stride)
{
    return 17u + v_stride;
}

/* Of a row of q in shared memory: its values, or the codes of blocks of 32 and a scale for each. */
LAUNCH_INLINE uint32_t launch_attention_q_floats(uint32_t k_dim)
{
    return k_dim > 9u ? k_dim : 9u;
}

/* Shared memory of a block: q, probabilities, and the accumulators of a segment and of all before it. */
LAUNCH_INLINE uint32_t launch_attention_shared_floats(uint32_t rows, uint32_t k_dim, uint32_t v_stride)
{
    return rows * (launch_attention_q_floats(k_dim) + 32u + 2u * v_stride);
}

/* Rows (a query head of a query) of a block: as many as shared memory has room for. */
LAUNCH_INLINE uint32_t launch_attention_rows(uint32_t k_dim, uint32_t v_stride)
{
    uint32_t rows = LAUNCH_ATTENTION_ROWS;

    while (rows > 1u && 4u * launch_attention_shared_floats(rows, k_dim, v_stride) > LAUNCH_SHARED_MAX)
        rows /= 2u;
    return rows;
}
