/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The shape of a thread's scratch, fixed for all instruction sets so that its size is known before kernels are chosen.
 */

#include <stdint.h>

#include "engine/kernels/linear-act.h"

#define SCRATCH_ROWS       16  /* rows whose block sums are held before they are added up (LINEAR_TOKENS) */
#define SCRATCH_TILE_ROWS  32  /* rows unpacked at a time (LINEAR_LANES) */
#define SCRATCH_ROW_BYTES  512 /* an unpacked block of 256 values with its scales */
#define SCRATCH_PANEL_ROWS 256 /* rows whose sums wait for the next K panel */
#define SCRATCH_CHUNK      128 /* tokens of a chunk */

/* [ACT_TOKENS_MAX][SCRATCH_ROWS][blocks of 32, or of 256] f32 */
static inline size_t scratch_tokens_bytes(uint32_t k)
{
    return (size_t)ACT_TOKENS_MAX * SCRATCH_ROWS * act_blocks_32(k) * sizeof(float);
}

/* The unpacked tile, then [SCRATCH_PANEL_ROWS][tokens of a chunk] f32. */
static inline size_t scratch_lanes_bytes(uint32_t m)
{
    size_t tokens = m < SCRATCH_CHUNK ? (m + 15) & ~15u : SCRATCH_CHUNK;

    return (size_t)SCRATCH_TILE_ROWS * SCRATCH_ROW_BYTES + SCRATCH_PANEL_ROWS * tokens * sizeof(float);
}
