/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * 16 int32 as one AVX-512 register, words of 2 int16, for processors without VNNI. See ints-scalar.h for what each function
 * promises.
 */

#define DOT_VALUES    2
#define WEIGHT_DIGITS 1

#include "engine/kernels/vector/ints-zmm.h"

LANES_INLINE ints ints_dot(ints sum, ints a, ints b)
{
    return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
}

LANES_INLINE void words_from_weights(void *to, lanes a, lanes b)
{
    const __m512i low = _mm512_set1_epi32(0x3FFF);
    __m256i *v = to;

    _mm256_storeu_si256(v, _mm512_cvtepi32_epi16(_mm512_and_si512(_mm512_castps_si512(a), low)));
    _mm256_storeu_si256(v + 1, _mm512_cvtepi32_epi16(_mm512_and_si512(_mm512_castps_si512(b), low)));
}

LANES_INLINE void words_from_bytes(const uint8_t *from, bool biased, void *first, void *second)
{
    const __m512i lane = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x04000400, 0x08000800, 0x0C000C00));
    /* To the upper byte of each 16 bits; a shift then brings the sign. */
    const __m512i low = _mm512_add_epi8(_mm512_set1_epi32(0x01FF00FF), lane);
    const __m512i high = _mm512_add_epi8(_mm512_set1_epi32(0x03FF02FF), lane);
    __m512i x = _mm512_xor_si512(_mm512_loadu_si512(from), _mm512_set1_epi8(biased ? -128 : 0));

    _mm512_storeu_si512(first, _mm512_srai_epi16(_mm512_shuffle_epi8(x, low), 8));
    _mm512_storeu_si512(second, _mm512_srai_epi16(_mm512_shuffle_epi8(x, high), 8));
}
