/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * F32, F16 and BF16 weights times float activations, AVX-512. A register is the sixteen lanes of the rule: four rows by up
 * to six tokens are held in registers while k runs, then each is folded. Weights are widened once for all tokens of the
 * tile; for one token the rows are streamed four side by side.
 *
 * BF16 is widened too: vdpbf16ps flushes subnormals and rounds otherwise, so its sums would not be those of the rule.
 */
#include "engine/kernels/x86/linear-avx512.h"

#include <immintrin.h>
#include <string.h>

#include "engine/kernels/linear-act.h"
#include "engine/kernels/x86/unroll.h"

#define TILE_TOKENS 6

TEMPLATE size_t weight_bytes(const enum tensor_type type)
{
    return type == TENSOR_F32 ? 4 : 2;
}

/* Sixteen weights, or those of the mask and zeros; what the mask leaves out is not read. */
TEMPLATE __m512 load_weights(const enum tensor_type type, const uint8_t *p, __mmask16 mask)
{
    if (type == TENSOR_F32)
        return _mm512_maskz_loadu_ps(mask, p);
    if (type == TENSOR_F16)
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p)), 16));
}

/* Lanes l and l + 8, then 4, 2, 1. */
TEMPLATE float fold(__m512 z)
{
    __m256 y = _mm256_add_ps(_mm512_castps512_ps256(z), _mm512_extractf32x8_ps(z, 1));
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));

    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

/* R rows times V tokens. */
TEMPLATE void tile(const enum tensor_type type, const struct linear_args *args, uint32_t row, const int R, uint32_t token,
                   const int V, bool stream)
{
    const size_t stride = act_f32_stride(args->k), bytes = weight_bytes(type);
    const uint8_t *w = args->w + row * args->row_bytes;
    const float *x = (const float *)args->act + token * stride;
    const uint32_t whole = args->k & ~15u;
    const __mmask16 rest = (__mmask16)((1u << (args->k % 16)) - 1);
    __m512 sum[4][TILE_TOKENS];

    UNROLL(4)
    for (int r = 0; r < R; r++)
        UNROLL(6)
        for (int v = 0; v < V; v++)
            sum[r][v] = _mm512_setzero_ps();
    for (uint32_t i = 0; i < whole; i += 16) {
        UNROLL(4)
        for (int r = 0; r < R; r++) {
            const uint8_t *p = w + (size_t)r * args->row_bytes + i * bytes;
            __m512 weights = load_weights(type, p, 0xFFFF);

            if (stream)
                _mm_prefetch((const char *)p + 4096, _MM_HINT_T1);
            UNROLL(6)
            for (int v = 0; v < V; v++)
                sum[r][v] = _mm512_fmadd_ps(weights, _mm512_load_ps(x + (size_t)v * stride + i), sum[r][v]);
        }
    }
    if (rest) {
        UNROLL(4)
        for (int r = 0; r < R; r++) {
            __m512 weights = load_weights(type, w + (size_t)r * args->row_bytes + whole * bytes, rest);

            UNROLL(6)
            for (int v = 0; v < V; v++) /* lanes that have nothing more to add stay as they are, -0 too */
                sum[r][v] = _mm512_mask3_fmadd_ps(weights, _mm512_load_ps(x + (size_t)v * stride + whole), sum[r][v], rest);
        }
    }
    UNROLL(4)
    for (int r = 0; r < R; r++)
        UNROLL(6)
        for (int v = 0; v < V; v++)
            args->y[(token + (uint32_t)v) * args->y_stride + row + (uint32_t)r] = fold(sum[r][v]);
}

TEMPLATE void row_tile(const enum tensor_type type, const struct linear_args *args, uint32_t row, const int R)
{
    uint32_t t = 0;

    for (; t + TILE_TOKENS <= args->m; t += TILE_TOKENS)
        tile(type, args, row, R, t, TILE_TOKENS, false);
    switch (args->m - t) {
    case 1:
        tile(type, args, row, R, t, 1, true);
        break;
    case 2:
        tile(type, args, row, R, t, 2, true);
        break;
    case 3:
        tile(type, args, row, R, t, 3, true);
        break;
    case 4:
    case 5:
        tile(type, args, row, R, t, 4, false);
        if (args->m - t == 5)
            tile(type, args, row, R, t + 4, 1, false);
        break;
    default:
        break;
    }
}

/* Tiles of rows outside, tokens inside: the rows' weights come from memory once and from the cache after. */
TEMPLATE void rows_float(const enum tensor_type type, const struct linear_args *args)
{
    uint32_t r = args->row0;

    for (; r + 4 <= args->row1; r += 4)
        row_tile(type, args, r, 4);
    for (; r < args->row1; r++)
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
        KERNEL_LINEAR_TOKENS, type, ISA_AVX2 | ISA_AVX512, {.rows = name}, #name "-avx512", 0.0f, "linear.h, rule 4" \
    }

const struct kernel_row linear_float_avx512_rows[LINEAR_FLOAT_AVX512_N_ROWS] = {
    ROW(f32, TENSOR_F32),
    ROW(f16, TENSOR_F16),
    ROW(bf16, TENSOR_BF16),
};
