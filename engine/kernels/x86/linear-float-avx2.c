/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * F32, F16 and BF16 weights times float activations, AVX2. Two registers are the sixteen lanes of the rule; two rows by
 * up to three tokens are held in registers while k runs.
 */
#include "engine/kernels/x86/linear-avx2.h"

#include <immintrin.h>
#include <string.h>

#include "engine/kernels/linear-act.h"
#include "engine/kernels/x86/unroll.h"

#define TILE_TOKENS 3

TEMPLATE size_t weight_bytes(const enum tensor_type type)
{
    return type == TENSOR_F32 ? 4 : 2;
}

/* Eight weights. */
TEMPLATE __m256 load_weights(const enum tensor_type type, const uint8_t *p)
{
    if (type == TENSOR_F32)
        return _mm256_loadu_ps((const void *)p);
    if (type == TENSOR_F16)
        return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p)), 16));
}

/* Lanes l and l + 8, then 4, 2, 1. */
TEMPLATE float fold(__m256 low, __m256 high)
{
    __m256 y = _mm256_add_ps(low, high);
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));

    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

/* R rows times V tokens. */
TEMPLATE void tile(const enum tensor_type type, const struct linear_args *args, uint32_t row, const int R, uint32_t token, const int V)
{
    const size_t stride = act_f32_stride(args->k), bytes = weight_bytes(type);
    const uint8_t *w = args->w + row * args->row_bytes;
    const float *x = (const float *)args->act + token * stride;
    const uint32_t whole = args->k & ~15u, rest = args->k % 16;
    __m256 sum[2][TILE_TOKENS][2];

    UNROLL(2)
    for (int r = 0; r < R; r++)
        UNROLL(3)
        for (int v = 0; v < V; v++)
            sum[r][v][0] = sum[r][v][1] = _mm256_setzero_ps();
    for (uint32_t i = 0; i < whole; i += 16) {
        UNROLL(2)
        for (int r = 0; r < R; r++) {
            const uint8_t *p = w + (size_t)r * args->row_bytes + i * bytes;
            __m256 low = load_weights(type, p), high = load_weights(type, p + 8 * bytes);

            _mm_prefetch((const char *)p + 2048, _MM_HINT_T1);
            UNROLL(3)
            for (int v = 0; v < V; v++) {
                const float *a = x + (size_t)v * stride + i;

                sum[r][v][0] = _mm256_fmadd_ps(low, _mm256_load_ps(a), sum[r][v][0]);
                sum[r][v][1] = _mm256_fmadd_ps(high, _mm256_load_ps(a + 8), sum[r][v][1]);
            }
        }
    }
    if (rest) {
        const __m256i lanes = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
        const __m256 mask_low = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32((int32_t)rest), lanes));
        const __m256 mask_high = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32((int32_t)rest - 8), lanes));

        UNROLL(2)
        for (int r = 0; r < R; r++) {
            uint8_t last[64] = {0}; /* the row ends where it ends */
            __m256 low, high;

            memcpy(last, w + (size_t)r * args->row_bytes + whole * bytes, rest * bytes);
            low = load_weights(type, last);
            high = load_weights(type, last + 8 * bytes);
            UNROLL(3)
            for (int v = 0; v < V; v++) { /* lanes that have nothing more to add stay as they are, -0 too */
                const float *a = x + (size_t)v * stride + whole;

                sum[r][v][0] = _mm256_blendv_ps(sum[r][v][0], _mm256_fmadd_ps(low, _mm256_load_ps(a), sum[r][v][0]), mask_low);
                sum[r][v][1] = _mm256_blendv_ps(sum[r][v][1], _mm256_fmadd_ps(high, _mm256_load_ps(a + 8), sum[r][v][1]), mask_high);
            }
        }
    }
    UNROLL(2)
    for (int r = 0; r < R; r++)
        UNROLL(3)
        for (int v = 0; v < V; v++)
            args->y[(token + (uint32_t)v) * args->y_stride + row + (uint32_t)r] = fold(sum[r][v][0], sum[r][v][1]);
}

TEMPLATE void row_tile(const enum tensor_type type, const struct linear_args *args, uint32_t row, const int R)
{
    uint32_t t = 0;

    for (; t + TILE_TOKENS <= args->m; t += TILE_TOKENS)
        tile(type, args, row, R, t, TILE_TOKENS);
    if (args->m - t == 2)
        tile(type, args, row, R, t, 2);
    else if (args->m - t == 1)
        tile(type, args, row, R, t, 1);
}

TEMPLATE void rows_float(const enum tensor_type type, const struct linear_args *args)
{
    uint32_t r = args->row0;

    for (; r + 2 <= args->row1; r += 2)
        row_tile(type, args, r, 2);
    if (r < args->row1)
        row_tile(type, args, r, 1);
}

static void f32(const struct linear_args *args)
{
    rows_float(TENSOR_F32, args);
}

static void f16(const struct linear_args *args)
{
    rows_float(TENSOR_F16, args);
}

static void bf16(const struct linear_args *args)
{
    rows_float(TENSOR_BF16, args);
}

#define ROW(name, type)                                                                                            \
    {                                                                                                              \
        KERNEL_LINEAR_TOKENS, type, ISA_AVX2, {.rows = name}, #name "-avx2", 0.0f, "linear.h, rule 4"              \
    }

const struct kernel_row linear_float_avx2_rows[LINEAR_FLOAT_AVX2_N_ROWS] = {
    ROW(f32, TENSOR_F32),
    ROW(f16, TENSOR_F16),
    ROW(bf16, TENSOR_BF16),
};
