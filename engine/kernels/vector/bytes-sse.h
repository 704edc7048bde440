/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * 16 bytes in a register, for the quantised types of cache. See bytes-scalar.h for what each function promises.
 */

typedef __m128i bytes;

LANES_INLINE bytes bytes_load(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

LANES_INLINE bytes bytes_low(bytes a)
{
    return _mm_and_si128(a, _mm_set1_epi8(15));
}

LANES_INLINE bytes bytes_high(bytes a)
{
    return _mm_and_si128(_mm_srli_epi16(a, 4), _mm_set1_epi8(15));
}

LANES_INLINE bytes bytes_or(bytes a, bytes b)
{
    return _mm_or_si128(a, b);
}

LANES_INLINE bytes bytes_subtract(bytes a, int n)
{
    return _mm_sub_epi8(a, _mm_set1_epi8((char)n));
}

LANES_INLINE bytes bytes_fifth(bytes a, uint32_t bit)
{
    __m128i z = _mm_srl_epi16(a, _mm_cvtsi32_si128((int)bit));

    return _mm_slli_epi16(_mm_and_si128(z, _mm_set1_epi8(1)), 4);
}

LANES_INLINE bytes bytes_spread(uint32_t bits)
{
    const __m128i bit = _mm_set1_epi64x((int64_t)0x8040201008040201);
    __m128i z = _mm_shuffle_epi8(_mm_cvtsi32_si128((int)bits), _mm_set_epi64x(0x0101010101010101, 0));

    return _mm_and_si128(_mm_cmpeq_epi8(_mm_and_si128(z, bit), bit), _mm_set1_epi8(16));
}

LANES_INLINE bytes bytes_lookup(const int8_t table[16], bytes a)
{
    return _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)table), a);
}
