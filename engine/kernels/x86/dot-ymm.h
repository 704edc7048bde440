/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Integer products on 256-bit registers, with AVX2 alone or with AVX-VNNI; the file that includes this defines YMM_VNNI
 * as 0 or 1. Results are the same integers.
 */

#include <immintrin.h>

#include "engine/kernels/x86/unroll.h"

/*
 * The same value, of which the compilers know nothing any more. Put on every link of a chain of sums: both compilers would
 * rather multiply everything first, keep the products in memory and add them up in a tree.
 */
TEMPLATE __m256i in_register(__m256i z)
{
    __asm__("" : "+x"(z));
    return z;
}

/* sum + a[2 i] * b[2 i] + a[2 i + 1] * b[2 i + 1], words to dwords */
TEMPLATE __m256i add_word_products(__m256i sum, __m256i a, __m256i b)
{
#if YMM_VNNI
    return _mm256_dpwssd_avx_epi32(sum, a, b);
#else
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
#endif
}

/* Neighbouring products of unsigned and signed bytes, as words; 2 * 128 * 127 is the most that does not saturate. */
TEMPLATE __m256i byte_products(__m256i u, __m256i s)
{
    return _mm256_maddubs_epi16(u, s);
}

/* The same for two signed operands: |w| times a with w's sign. w may be -128, a may not. */
TEMPLATE __m256i signed_byte_products(__m256i w, __m256i a)
{
    return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
}

/* Totals of four registers of dwords. */
TEMPLATE __m128i fold_four(__m256i a, __m256i b, __m256i c, __m256i d)
{
    __m256i z = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));

    return _mm_add_epi32(_mm256_castsi256_si128(z), _mm256_extracti128_si256(z, 1));
}
