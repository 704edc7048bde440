/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * 16 int32 as two AVX2 registers, words of 2 int16. See ints-scalar.h for what each function promises.
 */

#include <string.h>

#define DOT_VALUES    2
#define WEIGHT_DIGITS 1

typedef struct {
    __m256i lo, hi;
} ints;

LANES_INLINE ints ints_set(int32_t x)
{
    __m256i v = _mm256_set1_epi32(x);

    return (ints){v, v};
}

LANES_INLINE ints ints_load(const void *p)
{
    const __m256i *v = p;

    return (ints){_mm256_loadu_si256(v), _mm256_loadu_si256(v + 1)};
}

LANES_INLINE ints ints_spread(const void *p)
{
    int32_t word;

    memcpy(&word, p, sizeof(word));
    return ints_set(word);
}

LANES_INLINE ints ints_dot(ints sum, ints a, ints b)
{
    return (ints){_mm256_add_epi32(sum.lo, _mm256_madd_epi16(a.lo, b.lo)),
                  _mm256_add_epi32(sum.hi, _mm256_madd_epi16(a.hi, b.hi))};
}

LANES_INLINE ints ints_next_digit(ints a)
{
    return (ints){_mm256_slli_epi32(a.lo, 7), _mm256_slli_epi32(a.hi, 7)};
}

LANES_INLINE lanes lanes_from_ints(ints a)
{
    return (lanes){_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)};
}

LANES_INLINE __m256i words_of_8_and_8(__m256 a, __m256 b)
{
    const __m256i low = _mm256_set1_epi32(0x3FFF);
    __m256i both = _mm256_packs_epi32(_mm256_and_si256(_mm256_castps_si256(a), low),
                                      _mm256_and_si256(_mm256_castps_si256(b), low));

    return _mm256_permute4x64_epi64(both, 0xD8); /* packing goes by halves of the registers */
}

LANES_INLINE void words_from_weights(void *to, lanes a, lanes b)
{
    __m256i *v = to;

    _mm256_storeu_si256(v, words_of_8_and_8(a.lo, a.hi));
    _mm256_storeu_si256(v + 1, words_of_8_and_8(b.lo, b.hi));
}

LANES_INLINE void words_from_bytes(const uint8_t *from, bool biased, void *first, void *second)
{
    /* To the upper byte of each 16 bits; a shift then brings the sign. */
    const __m256i low = _mm256_set1_epi32((int)0x01FF00FF), high = _mm256_set1_epi32((int)0x03FF02FF);
    const __m256i lane = _mm256_setr_epi32(0, 0x04000400, 0x08000800, 0x0C000C00, 0, 0x04000400, 0x08000800, 0x0C000C00);
    const __m256i bias = _mm256_set1_epi8(biased ? -128 : 0);

    for (uint32_t i = 0; i < 2; i++) {
        __m256i x = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(const void *)from + i), bias);

        _mm256_storeu_si256((__m256i *)first + i, _mm256_srai_epi16(_mm256_shuffle_epi8(x, _mm256_add_epi8(low, lane)), 8));
        _mm256_storeu_si256((__m256i *)second + i, _mm256_srai_epi16(_mm256_shuffle_epi8(x, _mm256_add_epi8(high, lane)), 8));
    }
}
