/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One to four tokens times quantised weights on 256-bit registers; compiled for AVX2 and for AVX-VNNI (dot-ymm.h). As the
 * AVX-512 kernels: rows in the order of the file, four blocks (of 256) or eight (of 32) a step, terms of sixteen rows to
 * the scratch.
 */

#include <string.h>

#include "engine/kernels/linear-act.h"
#include "engine/kernels/linear-scratch.h"
#include "engine/kernels/x86/blocks-avx2.h"
#include "engine/kernels/x86/dot-ymm.h"

#define PREFETCH_BYTES 4096

/* Word @j of each 128-bit lane, everywhere in the lane. */
TEMPLATE __m256i spread_word(__m256i words, const int j)
{
    return _mm256_shuffle_epi8(words, _mm256_set1_epi16((short)(2 * j | (2 * j + 1) << 8)));
}

/* What stands before the weights of four Q4_K or Q5_K blocks. */
struct k4_headers {
    __m128 d, dmin;
    __m128i scales[2], mins[2]; /* bytes: eight of an even block, eight of the odd one */
};

/* As k4_scales(), for four blocks at a time: their headers are dwords d and dmin, s0, s1, s2. */
TEMPLATE struct k4_headers k4_headers(const uint8_t *const p[4])
{
    const __m128i halves = _mm_set_epi8(15, 14, 11, 10, 7, 6, 3, 2, 13, 12, 9, 8, 5, 4, 1, 0);
    const __m128i six = _mm_set1_epi8(0x3F), four = _mm_set1_epi8(0x0F), two = _mm_set1_epi8(0x30);
    __m128i h0 = _mm_loadu_si128((const void *)p[0]), h1 = _mm_loadu_si128((const void *)p[1]);
    __m128i h2 = _mm_loadu_si128((const void *)p[2]), h3 = _mm_loadu_si128((const void *)p[3]);
    __m128i low01 = _mm_unpacklo_epi32(h0, h1), low23 = _mm_unpacklo_epi32(h2, h3);
    __m128i high01 = _mm_unpackhi_epi32(h0, h1), high23 = _mm_unpackhi_epi32(h2, h3);
    __m128i s0 = _mm_unpackhi_epi64(low01, low23), s1 = _mm_unpacklo_epi64(high01, high23);
    __m128i s2 = _mm_unpackhi_epi64(high01, high23);
    __m128i scales = _mm_or_si128(_mm_and_si128(s2, four), _mm_and_si128(_mm_srli_epi32(s0, 2), two));
    __m128i mins = _mm_or_si128(_mm_and_si128(_mm_srli_epi32(s2, 4), four), _mm_and_si128(_mm_srli_epi32(s1, 2), two));
    __m256 d = _mm256_cvtph_ps(_mm_shuffle_epi8(_mm_unpacklo_epi64(low01, low23), halves));

    s0 = _mm_and_si128(s0, six);
    s1 = _mm_and_si128(s1, six);
    return (struct k4_headers){
        .d = _mm256_castps256_ps128(d),
        .dmin = _mm256_extractf128_ps(d, 1),
        .scales = {_mm_unpacklo_epi32(s0, scales), _mm_unpackhi_epi32(s0, scales)},
        .mins = {_mm_unpacklo_epi32(s1, mins), _mm_unpackhi_epi32(s1, mins)},
    };
}

/*
 * What a 256-block's dot products are scaled by: word j of a lane belongs to the lane's half of values 32 j .. 32 j + 31.
 * @i is the block's number in @k4.
 */
TEMPLATE __m256i scale_words(const enum tensor_type type, const uint8_t *p, const struct k4_headers *k4, const int i)
{
    const __m128i even_odd = _mm_set_epi8(15, 13, 11, 9, 7, 5, 3, 1, 14, 12, 10, 8, 6, 4, 2, 0);
    __m128i z;

    if (type_sub_values(type) == 16)
        return _mm256_cvtepi8_epi16(_mm_shuffle_epi8(sub16_scales(type, p), even_odd));
    if (type == TENSOR_IQ4_XS)
        return _mm256_broadcastsi128_si256(iq4_xs_scales(p));
    z = k4->scales[i / 2];
    return _mm256_cvtepu8_epi16(i % 2 ? _mm_unpackhi_epi64(z, z) : _mm_unpacklo_epi64(z, z));
}

/* One 256-block, the @i-th of four: dwords whose totals are S and M, for each token. */
TEMPLATE void block_sums(const enum tensor_type type, const uint8_t *p, const struct k4_headers *k4, const int i,
                         const struct act_tokens_256 *act, uint32_t b, const int n_tokens, __m256i *S, __m256i *M)
{
    const __m256i zero = _mm256_setzero_si256();
    __m256i scales = scale_words(type, p, k4, i);

    UNROLL(4)
    for (int t = 0; t < n_tokens; t++) {
        const int16_t *sums16 = act[t].sums16 + (size_t)b * 16, *sums32 = act[t].sums32 + (size_t)b * 8;

        S[t] = zero;
        M[t] = zero;
        if (type == TENSOR_Q4_K || type == TENSOR_Q5_K) {
            __m128i mins = k4->mins[i / 2];

            mins = _mm_cvtepu8_epi16(i % 2 ? _mm_unpackhi_epi64(mins, mins) : mins);
            M[t] = _mm256_zextsi128_si256(_mm_madd_epi16(mins, _mm_load_si128((const void *)sums32)));
        }
        if (type == TENSOR_Q2_K)
            M[t] = add_word_products(zero, _mm256_cvtepi8_epi16(q2_k_mins(p)), load_256(sums16));
        if (type == TENSOR_Q3_K || type == TENSOR_Q6_K) {
            __m256i off = add_word_products(zero, _mm256_cvtepi8_epi16(sub16_scales(type, p)), load_256(sums16));

            S[t] = _mm256_sub_epi32(zero, _mm256_slli_epi32(off, type == TENSOR_Q3_K ? 2 : 5));
        }
    }
    UNROLL(8)
    for (int j = 0; j < 8; j++) {
        __m256i w = weights_256(type, p, j), scale = spread_word(scales, j);

        UNROLL(4)
        for (int t = 0; t < n_tokens; t++) {
            __m256i a = load_256(act[t].q + (size_t)b * 256 + 32 * j);

            S[t] = in_register(
                add_word_products(S[t], type_is_wide(type) ? signed_byte_products(w, a) : byte_products(w, a), scale));
        }
    }
}

TEMPLATE __m128 four_halves(const uint8_t *const p[4], size_t at)
{
    uint64_t bits = (uint64_t)load_u16(p[0] + at) | (uint64_t)load_u16(p[1] + at) << 16 | (uint64_t)load_u16(p[2] + at) << 32 |
                    (uint64_t)load_u16(p[3] + at) << 48;

    return _mm_cvtph_ps(_mm_cvtsi64_si128((int64_t)bits));
}

/* The scales of four 32-blocks. */
TEMPLATE __m128 four_scales(const enum tensor_type type, const uint8_t *const p[4])
{
    if (type == TENSOR_MXFP4)
        return _mm_set_ps(e8m0_half_to_float(*p[3]), e8m0_half_to_float(*p[2]), e8m0_half_to_float(*p[1]), e8m0_half_to_float(*p[0]));
    return four_halves(p, 0);
}

/* The first n of four lanes. */
TEMPLATE __m128 first_lanes(__m128 z, uint32_t n)
{
    return _mm_and_ps(z, _mm_castsi128_ps(_mm_cmpgt_epi32(_mm_set1_epi32((int32_t)n), _mm_set_epi32(3, 2, 1, 0))));
}

/* The terms of blocks b .. b + 3, of which the row has the first n. */
TEMPLATE void step_256(const enum tensor_type type, const uint8_t *const p[4], const struct act_tokens_256 *act, uint32_t b,
                       uint32_t n, const int n_tokens, float *terms, size_t token_stride)
{
    const size_t at = type_d_offset(type);
    struct k4_headers k4 = {0};
    __m128 d, dmin = _mm_setzero_ps();
    __m256i S[4][4], M[4][4];

    if (type == TENSOR_Q4_K || type == TENSOR_Q5_K) {
        k4 = k4_headers(p);
        d = k4.d;
        dmin = k4.dmin;
    } else {
        d = four_halves(p, at);
        if (type_has_mins(type))
            dmin = four_halves(p, at + 2);
    }
    UNROLL(4)
    for (int k = 0; k < 4; k++)
        block_sums(type, p[k], &k4, k, act, b + (uint32_t)k, n_tokens, S[k], M[k]);
    UNROLL(4)
    for (int t = 0; t < n_tokens; t++) {
        __m128 dx = _mm_loadu_ps(act[t].d + b);
        __m128 c = _mm_mul_ps(_mm_cvtepi32_ps(fold_four(S[0][t], S[1][t], S[2][t], S[3][t])), _mm_mul_ps(d, dx));

        if (type_has_mins(type))
            c = _mm_fnmadd_ps(_mm_cvtepi32_ps(fold_four(M[0][t], M[1][t], M[2][t], M[3][t])), _mm_mul_ps(dmin, dx), c);
        _mm_store_ps(terms + (size_t)t * token_stride + b, n >= 4 ? c : first_lanes(c, n));
    }
}

/* The terms of four 32-blocks, of which the row has the first n. */
TEMPLATE void step_32(const enum tensor_type type, const uint8_t *const p[4], const struct act_tokens_32 *act, uint32_t b,
                      uint32_t n, const int n_tokens, float *terms, size_t token_stride)
{
    const __m256i ones = _mm256_set1_epi16(1), zero = _mm256_setzero_si256();
    __m128 d = four_scales(type, p), m = type_has_mins(type) ? four_halves(p, 2) : _mm_setzero_ps();
    __m256i w[4];

    UNROLL(4)
    for (int k = 0; k < 4; k++)
        w[k] = weights_32(type, p[k]);
    UNROLL(4)
    for (int t = 0; t < n_tokens; t++) {
        __m128i sums = _mm_load_si128((const void *)(act[t].sums32 + b)), total;
        __m128 dx = _mm_load_ps(act[t].d + b), c;
        __m256i S[4];

        UNROLL(4)
        for (int k = 0; k < 4; k++) {
            __m256i a = load_256(act[t].q + ((size_t)b + (size_t)k) * 32);

            S[k] = add_word_products(zero, type_is_wide(type) ? signed_byte_products(w[k], a) : byte_products(w[k], a), ones);
        }
        total = fold_four(S[0], S[1], S[2], S[3]);
        if (type_offset_log2(type) >= 0 && !type_is_wide(type))
            total = _mm_sub_epi32(total, _mm_slli_epi32(sums, type_offset_log2(type) < 0 ? 0 : type_offset_log2(type)));
        c = _mm_mul_ps(_mm_cvtepi32_ps(total), _mm_mul_ps(d, dx));
        if (type_has_mins(type)) /* the format adds m where the rule subtracts dmin: both signs cancel */
            c = _mm_fmadd_ps(_mm_cvtepi32_ps(sums), _mm_mul_ps(m, dx), c);
        _mm_store_ps(terms + (size_t)t * token_stride + b, n >= 4 ? c : first_lanes(c, n));
    }
}

/* All terms of a row; those behind its end, to a multiple of four, are +0. */
TEMPLATE void row_terms(const enum tensor_type type, const uint8_t *row, uint32_t n_blocks, const void *act, const int n_tokens,
                        float *terms, size_t token_stride)
{
    const size_t bytes = type_block_bytes(type);
    const uint8_t *p = row;

    for (uint32_t b = 0; b < n_blocks; b += 4, p += 4 * bytes) {
        uint32_t n = n_blocks - b;
        const uint8_t *last = p + (n < 4 ? n - 1 : 3) * bytes;
        /* the last block stands in for those that the row does not have */
        const uint8_t *const at[4] = {p, n > 1 ? p + bytes : last, n > 2 ? p + 2 * bytes : last, last};

        UNROLL(11)
        for (size_t line = 0; line < 4 * bytes; line += 64)
            _mm_prefetch((const char *)p + PREFETCH_BYTES + line, _MM_HINT_T1);
        if (type_is_256(type))
            step_256(type, at, act, b, n, n_tokens, terms, token_stride);
        else
            step_32(type, at, act, b, n, n_tokens, terms, token_stride);
    }
}

/* Eight rows' chains over n terms, a multiple of four, from +0. */
static __m256 add_eight_chains(const float *terms, size_t stride, uint32_t n)
{
    __m256 sum = _mm256_setzero_ps();

    for (uint32_t b = 0; b < n; b += 4) {
        __m256 z[4], low0, high0, low1, high1;

        UNROLL(4)
        for (uint32_t j = 0; j < 4; j++) {
            const float *p = terms + j * stride + b;

            z[j] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_load_ps(p)), _mm_load_ps(p + 4 * stride), 1);
        }
        low0 = _mm256_unpacklo_ps(z[0], z[1]);
        high0 = _mm256_unpackhi_ps(z[0], z[1]);
        low1 = _mm256_unpacklo_ps(z[2], z[3]);
        high1 = _mm256_unpackhi_ps(z[2], z[3]);
        sum = _mm256_add_ps(sum, _mm256_shuffle_ps(low0, low1, 0x44));
        sum = _mm256_add_ps(sum, _mm256_shuffle_ps(low0, low1, 0xEE));
        sum = _mm256_add_ps(sum, _mm256_shuffle_ps(high0, high1, 0x44));
        sum = _mm256_add_ps(sum, _mm256_shuffle_ps(high0, high1, 0xEE));
    }
    return sum;
}

/* Sixteen rows a time. Tokens beyond @m repeat the last one, so that three cost as much as four. */
TEMPLATE void rows_tokens(const struct linear_args *args, const enum tensor_type type, const int n_tokens)
{
    const uint32_t n_blocks = args->k / (type_is_256(type) ? 256 : 32);
    size_t row_stride = type_is_256(type) ? act_blocks_256(args->k) : act_blocks_32(args->k);
    size_t token_stride = row_stride * SCRATCH_ROWS;
    struct act_tokens_256 act256[4];
    struct act_tokens_32 act32[4];
    float *terms = args->scratch;

    for (uint32_t t = 0; t < (uint32_t)n_tokens; t++) {
        uint32_t token = t < args->m ? t : args->m - 1;

        act256[t] = act_tokens_256_at((void *)args->act, args->k, token);
        act32[t] = act_tokens_32_at((void *)args->act, args->k, token);
    }
    for (uint32_t r = args->row0; r < args->row1; r += SCRATCH_ROWS) {
        uint32_t n_rows = args->row1 - r < SCRATCH_ROWS ? args->row1 - r : SCRATCH_ROWS;

        for (uint32_t i = 0; i < n_rows; i++)
            row_terms(type, args->w + (r + i) * args->row_bytes, n_blocks, type_is_256(type) ? (const void *)act256 : act32, n_tokens,
                      terms + i * row_stride, token_stride);
        for (uint32_t t = 0; t < args->m; t++) {
            _Alignas(32) float sums[SCRATCH_ROWS];

            for (uint32_t i = 0; i < SCRATCH_ROWS; i += 8)
                _mm256_store_ps(sums + i, add_eight_chains(terms + t * token_stride + i * row_stride, row_stride, (n_blocks + 3) & ~3u));
            memcpy(args->y + t * args->y_stride + r, sums, n_rows * sizeof(float));
        }
    }
}
