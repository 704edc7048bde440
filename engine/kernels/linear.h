/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Matrix products with weights in place: y[m, n] = x[m, k] · W[n, k]ᵀ, W in any GGUF type, as it lies in the file.
 *
 * The rule of sums, which every kernel behind this header obeys. A result depends on its row of x and its row of W
 * only: never on m, on the split of rows or tokens among threads, nor on the instruction set.
 *  1. Activations are quantised once per token: id = 127 / amax (true division), round to nearest even, one f32 scale
 *     per 256 values for types with 256-blocks, one per 32 for types with 32-blocks.
 *  2. Within a block, S = Σ scale·(q·a) and M = Σ min·Σa are exact int32.
 *  3. c = f32(S)·(d·dx); c = fma(−f32(M), dmin·dx, c) where the type has mins; acc = acc + c, blocks ascending, one
 *     chain from +0.
 *  4. Float weights: 16 lanes, lane l takes k ≡ l mod 16 ascending by fma, then lanes l and l+8, l+4, l+2, l+1 are
 *     added.
 * A token row with an infinity or NaN gives NaN; amax below 2^-120 counts as zero.
 *
 * Use: linear_pack() all of x once (threads take token ranges), then linear_rows() (threads take row ranges).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/gguf/types.h"

struct kernels;

/* How activations are handed to the matrix kernels. */
enum act_format {
    ACT_F32,    /* as they are: float weights */
    ACT_Q8_32,  /* int8, a scale per 32 values */
    ACT_Q8_256, /* int8, a scale per 256 values */
    ACT_FORMAT_MAX,
};

#define LINEAR_ROW_STEP  16 /* threads split rows at multiples of this */
#define LINEAR_PACK_STEP 16 /* threads split tokens at multiples of this when packing */
#define LINEAR_ALIGN     64 /* of packed activations and of scratch, in bytes */

/**
 * linear_has_type() - whether rows of @type (any number, also one from a file) can be multiplied
 */
bool linear_has_type(uint32_t type);

/**
 * linear_format() - the activation format that weights of @type want; ACT_FORMAT_MAX when linear_has_type() is false
 * Depends on type and kernels only, so that matrices of one format share one packing.
 */
enum act_format linear_format(const struct kernels *kernels, enum tensor_type type);

/**
 * linear_pack_bytes() - room for @m packed token rows of @k values; a multiple of LINEAR_ALIGN. Grows with @m.
 */
size_t linear_pack_bytes(const struct kernels *kernels, enum act_format format, uint32_t k, uint32_t m);

/**
 * linear_pack() - quantise and lay out token rows [m0, m1) of x
 * @k:        values per row: a multiple of the format's block (32 or 256); any for ACT_F32
 * @m:        all tokens that linear_rows() will be called with; the layout depends on it
 * @m0:       a multiple of LINEAR_PACK_STEP; @m1 is one too, or @m
 * @x:        [m, k] f32, rows @x_stride values apart, at any alignment
 * @act:      linear_pack_bytes() bytes, aligned to LINEAR_ALIGN. Threads may pack ranges that do not overlap.
 */
void linear_pack(const struct kernels *kernels, enum act_format format, const float *x, size_t x_stride, uint32_t k,
                 uint32_t m, uint32_t m0, uint32_t m1, void *act);

/**
 * linear_pack_rows() - linear_pack() of a choice of rows: token t is row @rows[t] of x
 * @rows: [m]; NULL: row t itself
 */
void linear_pack_rows(const struct kernels *kernels, enum act_format format, const float *x, size_t x_stride,
                      const uint32_t *rows, uint32_t k, uint32_t m, uint32_t m0, uint32_t m1, void *act);

/**
 * linear_scratch_bytes() - scratch that one thread needs for rows up to @k_max and batches up to @m_max
 */
size_t linear_scratch_bytes(const struct kernels *kernels, uint32_t k_max, uint32_t m_max);

/**
 * linear_rows() - y[t, r] = x[t] · W[r] for all m tokens and rows [row0, row1)
 * @w:         row 0 of W, rows @row_bytes apart, at any alignment; nothing outside the rows asked for is read
 * @row0:      a multiple of LINEAR_ROW_STEP; @row1 should be one too where it is not the end (speed only)
 * @act:       all @m tokens, packed with linear_format(@w_type) and the same @k and @m
 * @y:         y[t * y_stride + r], [m, n] f32; only columns row0..row1-1 are written
 * @scratch:   linear_scratch_bytes() bytes, aligned to LINEAR_ALIGN, of this thread only
 */
void linear_rows(const struct kernels *kernels, enum tensor_type w_type, const void *w, size_t row_bytes, uint32_t k,
                 uint32_t row0, uint32_t row1, const void *act, uint32_t m, float *y, size_t y_stride, void *scratch);

/* --- what the table holds; of interest to kernels and their tests only --- */

struct linear_pack_args {
    const float *x;
    size_t x_stride;
    const uint32_t *rows; /* [m] or NULL */
    uint32_t k;
    uint32_t m;
    uint32_t m0;
    uint32_t m1;
    void *act;
};

struct linear_args {
    const uint8_t *w;
    size_t row_bytes;
    uint32_t k;
    uint32_t row0;
    uint32_t row1;
    const void *act;
    uint32_t m;
    float *y;
    size_t y_stride;
    void *scratch;
};

/* The layout of the packed activations, chosen by format and m (linear-act.h). */
enum linear_shape {
    LINEAR_TOKENS, /* one row per token: few tokens, and float activations always */
    LINEAR_LANES,  /* groups of tokens interleaved, a token per vector lane */
    LINEAR_SHAPE_MAX,
};

typedef void (*linear_pack_fn)(const struct linear_pack_args *args);
typedef void (*linear_rows_fn)(const struct linear_args *args);

struct linear_table {
    linear_pack_fn pack[ACT_FORMAT_MAX];
    linear_rows_fn rows[TENSOR_TYPE_MAX][LINEAR_SHAPE_MAX];
};
