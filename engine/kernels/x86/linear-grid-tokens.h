/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One to four tokens times weights of blocks-grid.h's types: a block is unpacked to the stack, in the first cache, and
 * multiplied with each token. Four blocks make a step, as in linear-tokens-ymm.h, whose adding up of terms is used. The file
 * that includes this defines grid_dot().
 */

#include "engine/kernels/x86/blocks-grid.h"
#include "engine/kernels/x86/linear-tokens-ymm.h"

static void grid_row_terms(const struct grid_format *format, const uint8_t *row, uint32_t n_blocks, const struct act_tokens_256 *act,
                           uint32_t n_tokens, float *terms, size_t token_stride)
{
    for (uint32_t b = 0; b < n_blocks; b += 4) {
        uint32_t n = n_blocks - b < 4 ? n_blocks - b : 4;
        __m256i S[4][ACT_TOKENS_MAX];
        __m128 d = _mm_setzero_ps();
        float scales[4] = {0};

        for (uint32_t k = 0; k < 4; k++) {
            struct grid_block block;

            if (k >= n) {
                for (uint32_t t = 0; t < n_tokens; t++)
                    S[k][t] = _mm256_setzero_si256();
                continue;
            }
            format->unpack(row + (b + k) * format->block_bytes, &block);
            scales[k] = block.d;
            grid_dot(&block, act, b + k, n_tokens, S[k]);
        }
        d = _mm_loadu_ps(scales);
        for (uint32_t t = 0; t < n_tokens; t++) {
            __m128 dx = _mm_loadu_ps(act[t].d + b);
            __m128i total = fold_four(S[0][t], S[1][t], S[2][t], S[3][t]);
            __m128 c = _mm_mul_ps(_mm_cvtepi32_ps(total), _mm_mul_ps(d, dx));

            _mm_store_ps(terms + t * token_stride + b, first_lanes(c, n));
        }
    }
}

static void grid_tokens(const struct linear_args *args, const struct grid_format *format)
{
    const uint32_t n_blocks = args->k / 256;
    size_t row_stride = act_blocks_256(args->k), token_stride = row_stride * SCRATCH_ROWS;
    struct act_tokens_256 act[ACT_TOKENS_MAX];
    float *terms = args->scratch;

    for (uint32_t t = 0; t < args->m; t++)
        act[t] = act_tokens_256_at((void *)args->act, args->k, t);
    for (uint32_t r = args->row0; r < args->row1; r += SCRATCH_ROWS) {
        uint32_t n_rows = args->row1 - r < SCRATCH_ROWS ? args->row1 - r : SCRATCH_ROWS;

        for (uint32_t i = 0; i < n_rows; i++)
            grid_row_terms(format, args->w + (r + i) * args->row_bytes, n_blocks, act, args->m, terms + i * row_stride, token_stride);
        for (uint32_t t = 0; t < args->m; t++) {
            _Alignas(32) float sums[SCRATCH_ROWS];

            for (uint32_t i = 0; i < SCRATCH_ROWS; i += 8)
                _mm256_store_ps(sums + i, add_eight_chains(terms + t * token_stride + i * row_stride, row_stride, (n_blocks + 3) & ~3u));
            memcpy(args->y + t * args->y_stride + r, sums, n_rows * sizeof(float));
        }
    }
}

#define GRID_DEFINE_TOKENS(name, type)                                                                             \
    static void name##_tokens(const struct linear_args *args)                                                      \
    {                                                                                                              \
        grid_tokens(args, &format_##name);                                                                         \
    }

GRID_TYPES(GRID_DEFINE_TOKENS)
