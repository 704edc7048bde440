/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Adding up in AVX-512: across the lanes of integer registers, and the chains of block terms, for the kernels of a
 * few tokens.
 */

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/kernels/x86/unroll.h"

/* Bytes ahead of the weights' stream that are fetched, into the second cache (docs/performance.md, What was tried): far
 * enough to cross a 4 KiB page before its first use. */
#define PREFETCH_BYTES 6144

/* Halves the dwords of two registers, which then alternate: a b a b in each 128-bit lane. */
TEMPLATE __m512i fold_2(__m512i a, __m512i b)
{
    return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}

/* From two results of fold_2: a b c d in each 128-bit lane. */
TEMPLATE __m512i fold_4(__m512i ab, __m512i cd)
{
    return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

/* Sum of the four 128-bit lanes. */
TEMPLATE __m128i fold_lanes(__m512i z)
{
    __m256i y = _mm256_add_epi32(_mm512_castsi512_si256(z), _mm512_extracti64x4_epi64(z, 1));

    return _mm_add_epi32(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1));
}

/*
 * Sixteen rows' chains: terms[r * stride + b] for b ascending, from +0; row r in lane r. n is a multiple of four; terms
 * behind a row's end are +0, which changes no sum (a chain that starts at +0 is never -0).
 */
TEMPLATE __m512 add_chains(const float *terms, size_t stride, uint32_t n)
{
    __m512 sum = _mm512_setzero_ps();

    for (uint32_t b = 0; b < n; b += 4) {
        __m512 z[4], low0, high0, low1, high1;

        UNROLL(4)
        for (uint32_t j = 0; j < 4; j++) {
            const float *p = terms + j * stride + b;

            z[j] = _mm512_castps128_ps512(_mm_load_ps(p));
            z[j] = _mm512_insertf32x4(z[j], _mm_load_ps(p + 4 * stride), 1);
            z[j] = _mm512_insertf32x4(z[j], _mm_load_ps(p + 8 * stride), 2);
            z[j] = _mm512_insertf32x4(z[j], _mm_load_ps(p + 12 * stride), 3);
        }
        low0 = _mm512_unpacklo_ps(z[0], z[1]);
        high0 = _mm512_unpackhi_ps(z[0], z[1]);
        low1 = _mm512_unpacklo_ps(z[2], z[3]);
        high1 = _mm512_unpackhi_ps(z[2], z[3]);
        sum = _mm512_add_ps(sum, _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(low0), _mm512_castps_pd(low1))));
        sum = _mm512_add_ps(sum, _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(low0), _mm512_castps_pd(low1))));
        sum = _mm512_add_ps(sum, _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(high0), _mm512_castps_pd(high1))));
        sum = _mm512_add_ps(sum, _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(high0), _mm512_castps_pd(high1))));
    }
    return sum;
}
