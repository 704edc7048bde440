/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What ints-avx512.h and ints-vnni.h have in common. See ints-scalar.h for what each function promises.
 */

#include <string.h>

typedef __m512i ints;

LANES_INLINE ints ints_set(int32_t x)
{
    return _mm512_set1_epi32(x);
}

LANES_INLINE ints ints_load(const void *p)
{
    return _mm512_loadu_si512(p);
}

LANES_INLINE ints ints_spread(const void *p)
{
    int32_t word;

    memcpy(&word, p, sizeof(word));
    return _mm512_set1_epi32(word);
}

LANES_INLINE ints ints_next_digit(ints a)
{
    return _mm512_slli_epi32(a, 7);
}

LANES_INLINE lanes lanes_from_ints(ints a)
{
    return _mm512_cvtepi32_ps(a);
}
