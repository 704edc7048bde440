/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * 16 int32 as one AVX-512 register, words of 4 bytes. See ints-scalar.h for what each function promises.
 */

#define DOT_VALUES    4
#define WEIGHT_DIGITS 2

#include "engine/kernels/vector/ints-zmm.h"

LANES_INLINE ints ints_dot(ints sum, ints a, ints b)
{
    return _mm512_dpbusd_epi32(sum, a, b);
}

LANES_INLINE void words_from_weights(void *to, lanes a, lanes b)
{
    const __m512i low = _mm512_set1_epi32(127), x = _mm512_castps_si512(a), y = _mm512_castps_si512(b);
    /* Packing goes by quarters of the registers: upper of a, upper of b, lower of a, lower of b in each. */
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i upper = _mm512_packs_epi32(_mm512_and_si512(_mm512_srli_epi32(x, 7), low), _mm512_and_si512(_mm512_srli_epi32(y, 7), low));
    __m512i lower = _mm512_packs_epi32(_mm512_and_si512(x, low), _mm512_and_si512(y, low));

    _mm512_storeu_si512(to, _mm512_permutexvar_epi32(order, _mm512_packs_epi16(upper, lower)));
}
