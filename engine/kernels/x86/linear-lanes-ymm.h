/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Five and more tokens times quantised weights on 256-bit registers; compiled for AVX2 and for AVX-VNNI (dot-ymm.h). The
 * plan is that of linear-lanes-avx512.c: unpacked tiles of rows in the first cache, K panels of activations in the second,
 * sums in the scratch. Half a group's 64-byte step is a register, so a group of tokens is two of them.
 *
 * With AVX2 alone products are added up as words as long as they can't overflow: types.h's weights times 127, over
 * word_steps() steps. Two multiplications a cycle are the wall, and as many loads: four rows by two registers at a time need
 * three loads for four multiplications. Their eight sums as words fill the registers, so the eight sums as dwords, touched
 * once a run, are in memory. The registers are named one by one: gcc leaves arrays of them in memory.
 *
 * Q3_K and Q6_K take their offset off the words, not off the end: a word starts at -offset times the sum of the activations
 * that will meet in it (word_starts(), once for all rows of a tile). It may pass over 32767 on its way, but ends within ±32512,
 * so that wrapping is harmless; Q6_K can then add up four steps instead of two.
 */

#include <string.h>

#include "engine/kernels/linear-act.h"
#include "engine/kernels/linear-scratch.h"
#include "engine/kernels/x86/blocks-avx2.h"
#include "engine/kernels/x86/dot-ymm.h"
#include "engine/kernels/x86/grid-format.h"

#define LANES_PANEL_VALUES 2048 /* of k, where there are many tokens: 128 of them are 256 KB */
#define LANES_SMALL_BATCH  16
#define LANES_TILE_ROWS    16
#define LANES_ROWS         4 /* multiplied at a time */

/* One row's 256 values. */
struct ymm_row {
    uint8_t q[256];     /* unsigned; of wide types without VNNI the magnitudes */
    int8_t with_sign[256]; /* wide types without VNNI only */
    int32_t scale[16];  /* VNNI: as it is; AVX2: twice, as two words */
    int16_t min[16];    /* mins, or offset * scale */
    float d, dmin;
    float d32[8];
    float dmin32[8];
};

_Static_assert(LANES_TILE_ROWS * sizeof(struct ymm_row) <= SCRATCH_TILE_ROWS * SCRATCH_ROW_BYTES, "scratch is laid out for this");

TEMPLATE bool uses_signs(const enum tensor_type type)
{
    return !YMM_VNNI && type_is_wide(type);
}

/* The offset is taken off the words before they are scaled. */
TEMPLATE bool offset_in_words(const enum tensor_type type)
{
    return !YMM_VNNI && (type == TENSOR_Q3_K || type == TENSOR_Q6_K);
}

/* What has to be taken off through the sums of the activations; -1 for nothing. */
TEMPLATE int offset_log2(const enum tensor_type type)
{
    return uses_signs(type) || offset_in_words(type) ? -1 : type_offset_log2(type);
}

/* Steps (of two products a word) that fit into a word. */
TEMPLATE int word_steps(const enum tensor_type type)
{
    switch (type) {
    case TENSOR_Q2_K: /* 3, 7 and 15 times 254: more than a sub-block's eight steps fit */
    case TENSOR_Q3_K:
    case TENSOR_Q4_K:
    case TENSOR_Q4_0:
    case TENSOR_Q4_1:
        return 8;
    case TENSOR_Q5_K: /* 31 * 254 */
    case TENSOR_Q5_0:
    case TENSOR_Q5_1:
    case TENSOR_MXFP4: /* 28 * 254 */
    case TENSOR_Q6_K: /* -32 .. 31, times 254 */
        return 4;
    case TENSOR_IQ2_XS: /* and all types of blocks-grid.h: 62 * 254 */
        return 2;
    default: /* 127 * 254, or 128 * 254 */
        return 1;
    }
}

/* --- unpacking --- */

TEMPLATE void store_weights(const enum tensor_type type, struct ymm_row *row, int j, __m256i w)
{
    if (uses_signs(type)) {
        _mm256_storeu_si256((void *)(row->with_sign + 32 * j), w);
        w = _mm256_abs_epi8(w);
    } else if (type_is_wide(type)) {
        w = _mm256_xor_si256(w, _mm256_set1_epi8((char)0x80));
    }
    _mm256_storeu_si256((void *)(row->q + 32 * j), w);
}

/* Eight scale words as the dwords that multiply() wants. */
TEMPLATE void store_scales(int32_t *to, __m128i words)
{
    __m256i z = _mm256_cvtepi16_epi32(words);

    if (!YMM_VNNI)
        z = _mm256_or_si256(_mm256_and_si256(z, _mm256_set1_epi32(0xFFFF)), _mm256_slli_epi32(z, 16));
    _mm256_storeu_si256((void *)to, z);
}

TEMPLATE void ymm_unpack_256(const enum tensor_type type, const uint8_t *p, struct ymm_row *row)
{
    const size_t d_at = type_d_offset(type);

    UNROLL(8)
    for (int j = 0; j < 8; j++)
        store_weights(type, row, j, weights_256(type, p, j));
    row->d = load_half(p + d_at);
    if (type_has_mins(type))
        row->dmin = load_half(p + d_at + 2);
    if (type_sub_values(type) == 16) {
        __m256i words = _mm256_cvtepi8_epi16(sub16_scales(type, p));

        store_scales(row->scale, _mm256_castsi256_si128(words));
        store_scales(row->scale + 8, _mm256_extracti128_si256(words, 1));
        words = type == TENSOR_Q2_K ? _mm256_cvtepi8_epi16(q2_k_mins(p)) : _mm256_slli_epi16(words, type == TENSOR_Q3_K ? 2 : 5);
        _mm256_storeu_si256((void *)row->min, words);
    } else {
        __m128i scales, mins;

        if (type == TENSOR_IQ4_XS) {
            scales = iq4_xs_scales(p);
            mins = _mm_slli_epi16(scales, 7);
        } else {
            k4_scales(p, &scales, &mins);
        }
        store_scales(row->scale, scales);
        _mm_storeu_si128((void *)row->min, mins);
    }
}

/* A block of blocks-grid.h's types; they are multiplied as signed bytes with sixteen scales. */
static inline void ymm_unpack_grid(const struct grid_format *grid, const uint8_t *p, struct ymm_row *row)
{
    struct grid_block block;
    __m256i words;

    grid->unpack(p, &block);
    for (int j = 0; j < 8; j++)
        store_weights(TENSOR_IQ2_XS, row, j, load_256(block.q + 32 * j));
    words = _mm256_cvtepi8_epi16(_mm_load_si128((const void *)block.scale));
    store_scales(row->scale, _mm256_castsi256_si128(words));
    store_scales(row->scale + 8, _mm256_extracti128_si256(words, 1));
    row->d = block.d;
}

TEMPLATE void ymm_unpack_32(const enum tensor_type type, const uint8_t *p, uint32_t n_blocks, struct ymm_row *row)
{
    for (uint32_t j = 0; j < n_blocks; j++) {
        const uint8_t *at = p + j * type_block_bytes(type);

        store_weights(type, row, (int)j, weights_32(type, at));
        row->scale[j] = YMM_VNNI ? 1 : 0x10001;
        row->d32[j] = load_scale_32(type, at);
        if (type_has_mins(type)) /* the format adds m, the rule subtracts dmin */
            row->dmin32[j] = -load_half(at + 2);
    }
}

/* --- multiplying --- */

TEMPLATE __m256i ymm_broadcast(const void *p, const int W)
{
    int32_t dword;
    int64_t qword;

    if (W == 4) {
        memcpy(&dword, p, sizeof(dword));
        return _mm256_set1_epi32(dword);
    }
    memcpy(&qword, p, sizeof(qword));
    return _mm256_set1_epi64x(qword);
}

/* A token's two lanes added, in both of them; with one lane a token there is nothing to add. */
TEMPLATE __m256i ymm_add_token_lanes(__m256i z, const int T)
{
    return T == 16 ? z : _mm256_add_epi32(z, _mm256_shuffle_epi32(z, 0xB1));
}

/* sum + the products of a step: dwords with VNNI, else words. */
TEMPLATE __m256i add_step(__m256i sum, __m256i w, __m256i a)
{
#if YMM_VNNI
    return in_register(_mm256_dpbusd_avx_epi32(sum, w, a));
#else
    return in_register(_mm256_add_epi16(sum, byte_products(w, a)));
#endif
}

/* sum + a run's products, each times the row's @scale dword (VNNI: a factor; AVX2: two words). */
TEMPLATE __m256i add_run(__m256i sum, __m256i products, __m256i scale)
{
#if YMM_VNNI
    return in_register(_mm256_add_epi32(sum, _mm256_mullo_epi32(products, scale)));
#else
    return in_register(add_word_products(sum, products, scale));
#endif
}

/* Values [at, at + steps * W) of four rows times one group, S[2 r + h] += each row's sum; @x: the first step's 64 bytes. */
TEMPLATE void add_products(const int T, const struct ymm_row *rows, uint32_t at, const int steps, const uint8_t *x, int j,
                           __m256i start0, __m256i start1, __m256i *S)
{
    const int W = 64 / T;
    __m256i p00 = start0, p01 = start1, p10 = start0, p11 = start1, p20 = start0, p21 = start1, p30 = start0, p31 = start1;
    __m256i scale;

    UNROLL(8)
    for (int s = 0; s < steps; s++) {
        __m256i a0 = load_256(x + 64 * s), a1 = load_256(x + 64 * s + 32), w;

        w = ymm_broadcast(rows[0].q + at + (size_t)(s * W), W);
        p00 = add_step(p00, w, a0);
        p01 = add_step(p01, w, a1);
        w = ymm_broadcast(rows[1].q + at + (size_t)(s * W), W);
        p10 = add_step(p10, w, a0);
        p11 = add_step(p11, w, a1);
        w = ymm_broadcast(rows[2].q + at + (size_t)(s * W), W);
        p20 = add_step(p20, w, a0);
        p21 = add_step(p21, w, a1);
        w = ymm_broadcast(rows[3].q + at + (size_t)(s * W), W);
        p30 = add_step(p30, w, a0);
        p31 = add_step(p31, w, a1);
    }
    scale = _mm256_set1_epi32(rows[0].scale[j]);
    S[0] = add_run(S[0], p00, scale);
    S[1] = add_run(S[1], p01, scale);
    scale = _mm256_set1_epi32(rows[1].scale[j]);
    S[2] = add_run(S[2], p10, scale);
    S[3] = add_run(S[3], p11, scale);
    scale = _mm256_set1_epi32(rows[2].scale[j]);
    S[4] = add_run(S[4], p20, scale);
    S[5] = add_run(S[5], p21, scale);
    scale = _mm256_set1_epi32(rows[3].scale[j]);
    S[6] = add_run(S[6], p30, scale);
    S[7] = add_run(S[7], p31, scale);
}

/* sum + the products of signed bytes, times @scale's words. */
TEMPLATE __m256i add_signed_step(__m256i sum, __m256i magnitude, __m256i sign, __m256i a, __m256i scale)
{
    return in_register(add_word_products(sum, byte_products(magnitude, _mm256_sign_epi8(a, sign)), scale));
}

/* The same for signed weights of eight bits without VNNI: a word holds one step, so the sums as dwords have the registers. */
TEMPLATE void add_signed_products(const int T, const struct ymm_row *rows, uint32_t at, const int steps, const uint8_t *x, int j,
                                  __m256i *S)
{
    const int W = 64 / T;
    __m256i s00 = S[0], s01 = S[1], s10 = S[2], s11 = S[3], s20 = S[4], s21 = S[5], s30 = S[6], s31 = S[7];

    UNROLL(8)
    for (int s = 0; s < steps; s++) {
        const size_t from = at + (size_t)(s * W);
        __m256i a0 = load_256(x + 64 * s), a1 = load_256(x + 64 * s + 32), magnitude, sign, scale;

        magnitude = ymm_broadcast(rows[0].q + from, W);
        sign = ymm_broadcast(rows[0].with_sign + from, W);
        scale = _mm256_set1_epi32(rows[0].scale[j]);
        s00 = add_signed_step(s00, magnitude, sign, a0, scale);
        s01 = add_signed_step(s01, magnitude, sign, a1, scale);
        magnitude = ymm_broadcast(rows[1].q + from, W);
        sign = ymm_broadcast(rows[1].with_sign + from, W);
        scale = _mm256_set1_epi32(rows[1].scale[j]);
        s10 = add_signed_step(s10, magnitude, sign, a0, scale);
        s11 = add_signed_step(s11, magnitude, sign, a1, scale);
        magnitude = ymm_broadcast(rows[2].q + from, W);
        sign = ymm_broadcast(rows[2].with_sign + from, W);
        scale = _mm256_set1_epi32(rows[2].scale[j]);
        s20 = add_signed_step(s20, magnitude, sign, a0, scale);
        s21 = add_signed_step(s21, magnitude, sign, a1, scale);
        magnitude = ymm_broadcast(rows[3].q + from, W);
        sign = ymm_broadcast(rows[3].with_sign + from, W);
        scale = _mm256_set1_epi32(rows[3].scale[j]);
        s30 = add_signed_step(s30, magnitude, sign, a0, scale);
        s31 = add_signed_step(s31, magnitude, sign, a1, scale);
    }
    S[0] = s00;
    S[1] = s01;
    S[2] = s10;
    S[3] = s11;
    S[4] = s20;
    S[5] = s21;
    S[6] = s30;
    S[7] = s31;
}

/* Sub-block @j of @n values: all its runs. */
TEMPLATE void add_sub_block(const enum tensor_type type, const int T, const struct ymm_row *rows, int j, const int n, const uint8_t *x,
                            const __m256i *starts, __m256i *S)
{
    const int W = 64 / T, steps = n / W, run = YMM_VNNI || steps < word_steps(type) ? steps : word_steps(type);
    const __m256i zero = _mm256_setzero_si256();

    if (uses_signs(type)) {
        add_signed_products(T, rows, (uint32_t)(j * n), steps, x, j, S);
        return;
    }
    UNROLL(2)
    for (int s = 0; s < steps; s += run)
        add_products(T, rows, (uint32_t)(j * n + s * W), run, x + (size_t)s * 64, j, starts ? starts[2 * j] : zero,
                     starts ? starts[2 * j + 1] : zero, S);
}

/* Where the words of each sub-block of 16 start, two registers each: -offset times the sum of what they will see of @act. */
TEMPLATE void word_starts(const enum tensor_type type, const int T, const uint8_t *act, __m256i *starts)
{
    const __m256i ones = _mm256_set1_epi8(1), zero = _mm256_setzero_si256();

    for (int j = 0; j < 16; j++) {
        __m256i sum0 = zero, sum1 = zero;

        UNROLL(4)
        for (int s = 0; s < T / 4; s++) {
            sum0 = _mm256_sub_epi16(sum0, byte_products(ones, load_256(act + (j * (T / 4) + s) * 64)));
            sum1 = _mm256_sub_epi16(sum1, byte_products(ones, load_256(act + (j * (T / 4) + s) * 64 + 32)));
        }
        starts[2 * j] = _mm256_slli_epi16(sum0, type_offset_log2(type) < 0 ? 0 : type_offset_log2(type));
        starts[2 * j + 1] = _mm256_slli_epi16(sum1, type_offset_log2(type) < 0 ? 0 : type_offset_log2(type));
    }
}

/* M[2 r + h] of four rows: mins, or offset * scale, times the sums of the activations. */
TEMPLATE void add_mins(const enum tensor_type type, const int T, const struct ymm_row *rows, const uint8_t *token_sums, __m256i *M)
{
    const int W = 64 / T, n = 256 / (int)type_sub_values(type) / (W / 2);
    const __m256i zero = _mm256_setzero_si256();
    __m256i m00 = zero, m01 = zero, m10 = zero, m11 = zero, m20 = zero, m21 = zero, m30 = zero, m31 = zero;

    UNROLL(8)
    for (int i = 0; i < n; i++) {
        __m256i a0 = load_256(token_sums + i * 64), a1 = load_256(token_sums + i * 64 + 32), w;

        w = ymm_broadcast(rows[0].min + i * (W / 2), W);
        m00 = in_register(add_word_products(m00, a0, w));
        m01 = in_register(add_word_products(m01, a1, w));
        w = ymm_broadcast(rows[1].min + i * (W / 2), W);
        m10 = in_register(add_word_products(m10, a0, w));
        m11 = in_register(add_word_products(m11, a1, w));
        w = ymm_broadcast(rows[2].min + i * (W / 2), W);
        m20 = in_register(add_word_products(m20, a0, w));
        m21 = in_register(add_word_products(m21, a1, w));
        w = ymm_broadcast(rows[3].min + i * (W / 2), W);
        m30 = in_register(add_word_products(m30, a0, w));
        m31 = in_register(add_word_products(m31, a1, w));
    }
    M[0] = m00;
    M[1] = m01;
    M[2] = m10;
    M[3] = m11;
    M[4] = m20;
    M[5] = m21;
    M[6] = m30;
    M[7] = m31;
}

/* Four rows times one group, one block: sums[r * stride] += terms. */
TEMPLATE void ymm_multiply_256(const enum tensor_type type, const int T, const struct ymm_row *rows, const uint8_t *act,
                               const __m256i *starts, float *sums, size_t stride)
{
    const int W = 64 / T, sub = (int)type_sub_values(type), n_sub = 256 / sub;
    const size_t d_at = T == 16 ? offsetof(struct act_lanes16_256, d) : offsetof(struct act_lanes8_256, d);
    const size_t sums32_at = T == 16 ? offsetof(struct act_lanes16_256, sums32) : offsetof(struct act_lanes8_256, sums32);
    const size_t sums16_at = T == 16 ? offsetof(struct act_lanes16_256, sums16) : offsetof(struct act_lanes8_256, sums16);
    const bool has_mins = type_has_mins(type), has_offset = offset_log2(type) >= 0;
    const __m256 dx0 = _mm256_load_ps((const void *)(act + d_at)), dx1 = _mm256_load_ps((const void *)(act + d_at + 32));
    __m256i S[8], M[8];

    UNROLL(8)
    for (int i = 0; i < 8; i++)
        S[i] = _mm256_setzero_si256();
    for (int j = 0; j < n_sub; j++)
        add_sub_block(type, T, rows, j, sub, act + (size_t)(j * sub / W) * 64, offset_in_words(type) ? starts : NULL, S);
    if (has_mins || has_offset)
        add_mins(type, T, rows, act + (sub == 32 ? sums32_at : sums16_at), M);
    UNROLL(8)
    for (int i = 0; i < 8; i++) {
        const int r = i / 2, h = i % 2;
        const __m256 dx = h ? dx1 : dx0;
        float *at = sums + (size_t)r * stride + (size_t)h * 8;
        __m256i total = has_offset ? _mm256_sub_epi32(S[i], M[i]) : S[i];
        __m256 c = _mm256_mul_ps(_mm256_cvtepi32_ps(ymm_add_token_lanes(total, T)), _mm256_mul_ps(_mm256_set1_ps(rows[r].d), dx));

        if (has_mins)
            c = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(ymm_add_token_lanes(M[i], T)), _mm256_mul_ps(_mm256_set1_ps(rows[r].dmin), dx), c);
        _mm256_store_ps(at, _mm256_add_ps(_mm256_load_ps(at), c));
    }
}

/* The same for up to eight blocks of 32. */
TEMPLATE void ymm_multiply_32(const enum tensor_type type, const int T, uint32_t n_blocks, const struct ymm_row *rows,
                              const uint8_t *act, float *sums, size_t stride)
{
    const size_t block_bytes = T == 16 ? sizeof(struct act_lanes16_32) : sizeof(struct act_lanes8_32);
    const size_t sums_at = T == 16 ? offsetof(struct act_lanes16_32, sums) : offsetof(struct act_lanes8_32, sums);
    const size_t d_at = T == 16 ? offsetof(struct act_lanes16_32, d) : offsetof(struct act_lanes8_32, d);

    for (uint32_t j = 0; j < n_blocks; j++) {
        const uint8_t *block = act + j * block_bytes;
        __m256i S[8], total[2];

        UNROLL(2)
        for (int h = 0; h < 2; h++) {
            total[h] = load_256(block + sums_at + (size_t)h * 32);
            S[h] = _mm256_setzero_si256();
            if (offset_log2(type) >= 0)
                S[h] = _mm256_sub_epi32(S[h], _mm256_slli_epi32(total[h], offset_log2(type) < 0 ? 0 : offset_log2(type)));
            S[2 + h] = S[h];
            S[4 + h] = S[h];
            S[6 + h] = S[h];
        }
        add_sub_block(type, T, rows, (int)j, 32, block, NULL, S);
        UNROLL(8)
        for (int i = 0; i < 8; i++) {
            const int r = i / 2, h = i % 2;
            __m256 dx = _mm256_load_ps((const void *)(block + d_at + (size_t)h * 32));
            float *at = sums + (size_t)r * stride + (size_t)h * 8;
            __m256 c = _mm256_mul_ps(_mm256_cvtepi32_ps(ymm_add_token_lanes(S[i], T)), _mm256_mul_ps(_mm256_set1_ps(rows[r].d32[j]), dx));

            if (type_has_mins(type))
                c = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(ymm_add_token_lanes(total[h], T)),
                                     _mm256_mul_ps(_mm256_set1_ps(rows[r].dmin32[j]), dx), c);
            _mm256_store_ps(at, _mm256_add_ps(_mm256_load_ps(at), c));
        }
    }
}

/* --- a chunk of tokens --- */

struct ymm_chunk {
    const uint8_t *act; /* the chunk's first group */
    size_t group_bytes; /* of a group of 16 */
    uint32_t n_wide;    /* groups of 16 */
    uint32_t has_narrow; /* 1: a group of 8 follows */
    uint32_t stride;    /* floats from row to row of the sums */
};

/* One group's share of a tile: four rows at a time. */
TEMPLATE void ymm_group(const enum tensor_type type, const int T, uint32_t n32, const struct ymm_row *tile, uint32_t n_rows,
                        const uint8_t *act, float *sums, size_t stride)
{
    __m256i starts[32];

    if (offset_in_words(type))
        word_starts(type, T, act, starts);
    for (uint32_t r = 0; r < n_rows; r += LANES_ROWS) {
        if (type_is_256(type))
            ymm_multiply_256(type, T, tile + r, act, starts, sums + r * stride, stride);
        else
            ymm_multiply_32(type, T, n32, tile + r, act, sums + r * stride, stride);
    }
}

TEMPLATE void ymm_tile(const enum tensor_type type, const struct ymm_chunk *chunk, uint32_t b, uint32_t n32,
                       const struct ymm_row *tile, uint32_t n_rows, float *sums)
{
    const size_t wide_bytes = type_is_256(type) ? sizeof(struct act_lanes16_256) : 8 * sizeof(struct act_lanes16_32);
    const size_t narrow_bytes = type_is_256(type) ? sizeof(struct act_lanes8_256) : 8 * sizeof(struct act_lanes8_32);

    for (uint32_t v = 0; v < chunk->n_wide; v++)
        ymm_group(type, 16, n32, tile, n_rows, chunk->act + v * chunk->group_bytes + b * wide_bytes, sums + v * 16, chunk->stride);
    if (chunk->has_narrow)
        ymm_group(type, 8, n32, tile, n_rows, chunk->act + chunk->n_wide * chunk->group_bytes + b * narrow_bytes,
                  sums + chunk->n_wide * 16, chunk->stride);
}

TEMPLATE void ymm_panel(const enum tensor_type type, const struct grid_format *grid, const struct linear_args *args, const struct ymm_chunk *chunk, uint32_t row,
                        uint32_t n_rows, uint32_t b0, uint32_t b1, struct ymm_row *tile, float *sums)
{
    const size_t block_bytes = grid ? grid->block_bytes : type_block_bytes(type) * (type_is_256(type) ? 1 : 8);
    const uint8_t *w = args->w + row * args->row_bytes;

    for (uint32_t b = b0; b < b1; b++) {
        uint32_t n32 = args->k / 32 - b * 8 < 8 ? args->k / 32 - b * 8 : 8;

        for (uint32_t r = 0; r < n_rows; r++) {
            const uint8_t *p = w + r * args->row_bytes + b * block_bytes;

            if (grid)
                ymm_unpack_grid(grid, p, &tile[r]);
            else if (type_is_256(type))
                ymm_unpack_256(type, p, &tile[r]);
            else
                ymm_unpack_32(type, p, n32, &tile[r]);
            for (size_t line = 0; line < block_bytes; line += 64)
                _mm_prefetch((const char *)p + n_rows * args->row_bytes + line, _MM_HINT_T1);
        }
        ymm_tile(type, chunk, b, n32, tile, n_rows, sums);
    }
}

/* Rows by tokens to tokens by rows; a narrow group has each token in two lanes. */
static void ymm_store(const struct linear_args *args, const struct ymm_chunk *chunk, const float *sums, uint32_t row, uint32_t n_rows,
                      uint32_t t0, uint32_t n_tokens)
{
    for (uint32_t t = 0; t < n_tokens; t++) {
        uint32_t wide = chunk->n_wide * 16;
        const float *from = sums + (t < wide ? t : wide + 2 * (t - wide));
        float *to = args->y + (t0 + t) * args->y_stride + row;

        for (uint32_t r = 0; r < n_rows; r++)
            to[r] = from[r * chunk->stride];
    }
}

/* @grid: NULL, or the format of the weights, which then are multiplied like @type's. */
TEMPLATE void rows_lanes(const struct linear_args *args, const enum tensor_type type, const struct grid_format *grid)
{
    const enum act_format format = type_is_256(type) ? ACT_Q8_256 : ACT_Q8_32;
    const uint32_t n_blocks = (args->k + 255) / 256;
    const uint32_t panel = args->m <= LANES_SMALL_BATCH ? n_blocks : LANES_PANEL_VALUES / 256;
    struct ymm_row *tile = args->scratch;
    float *sums = (float *)((uint8_t *)args->scratch + SCRATCH_TILE_ROWS * SCRATCH_ROW_BYTES);

    for (uint32_t t0 = 0; t0 < args->m; t0 += SCRATCH_CHUNK) {
        uint32_t n_tokens = args->m - t0 < SCRATCH_CHUNK ? args->m - t0 : SCRATCH_CHUNK, rest = n_tokens % ACT_GROUP;
        struct ymm_chunk chunk = {
            .act = act_group_at(format, (void *)args->act, args->k, t0),
            .group_bytes = act_group_bytes(format, args->k, ACT_GROUP),
            .n_wide = n_tokens / ACT_GROUP + (rest > 8),
            .has_narrow = rest > 0 && rest <= 8,
        };

        chunk.stride = (chunk.n_wide + chunk.has_narrow) * 16;
        for (uint32_t row0 = args->row0; row0 < args->row1; row0 += SCRATCH_PANEL_ROWS) {
            uint32_t n_rows = args->row1 - row0 < SCRATCH_PANEL_ROWS ? args->row1 - row0 : SCRATCH_PANEL_ROWS;

            memset(sums, 0, (size_t)((n_rows + LANES_ROWS - 1) & ~(LANES_ROWS - 1u)) * chunk.stride * sizeof(float));
            for (uint32_t b = 0; b < n_blocks; b += panel) {
                for (uint32_t r = 0; r < n_rows; r += LANES_TILE_ROWS)
                    ymm_panel(type, grid, args, &chunk, row0 + r, n_rows - r < LANES_TILE_ROWS ? n_rows - r : LANES_TILE_ROWS, b,
                              b + panel < n_blocks ? b + panel : n_blocks, tile, sums + r * chunk.stride);
            }
            ymm_store(args, &chunk, sums, row0, n_rows, t0, n_tokens);
        }
    }
}
