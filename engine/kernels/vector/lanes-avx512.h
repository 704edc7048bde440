/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * 16 floats as one AVX-512 register. See lanes-scalar.h for what each function promises.
 */

#include <immintrin.h>
#include <stdint.h>

#define LANES        16
#define LANES_INLINE static inline __attribute__((always_inline))

typedef __m512 lanes;
typedef __mmask16 lanes_mask;

LANES_INLINE lanes lanes_zero(void)
{
    return _mm512_setzero_ps();
}

LANES_INLINE lanes lanes_set(float x)
{
    return _mm512_set1_ps(x);
}

LANES_INLINE lanes lanes_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

LANES_INLINE lanes lanes_load_part(const float *p, uint32_t n)
{
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}

LANES_INLINE void lanes_store(float *p, lanes a)
{
    _mm512_storeu_ps(p, a);
}

LANES_INLINE void lanes_store_part(float *p, lanes a, uint32_t n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a);
}

LANES_INLINE lanes lanes_load_half(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

LANES_INLINE void lanes_store_half(uint16_t *p, lanes a)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

LANES_INLINE lanes lanes_add(lanes a, lanes b)
{
    return _mm512_add_ps(a, b);
}

LANES_INLINE lanes lanes_sub(lanes a, lanes b)
{
    return _mm512_sub_ps(a, b);
}

LANES_INLINE lanes lanes_mul(lanes a, lanes b)
{
    return _mm512_mul_ps(a, b);
}

LANES_INLINE lanes lanes_div(lanes a, lanes b)
{
    return _mm512_div_ps(a, b);
}

LANES_INLINE lanes lanes_fma(lanes a, lanes b, lanes c)
{
    return _mm512_fmadd_ps(a, b, c);
}

LANES_INLINE lanes lanes_fma_alternate(lanes a, lanes b, lanes c)
{
    return _mm512_fmaddsub_ps(a, b, c);
}

LANES_INLINE lanes lanes_min(lanes a, lanes b)
{
    return _mm512_min_ps(a, b);
}

LANES_INLINE lanes lanes_max(lanes a, lanes b)
{
    return _mm512_max_ps(a, b);
}

LANES_INLINE lanes lanes_round(lanes a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

LANES_INLINE lanes lanes_negate(lanes a)
{
    return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f));
}

LANES_INLINE lanes lanes_abs(lanes a)
{
    return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a);
}

LANES_INLINE lanes lanes_with_sign_of(lanes a, lanes b)
{
    __m512 sign = _mm512_set1_ps(-0.0f);

    return _mm512_or_ps(_mm512_andnot_ps(sign, a), _mm512_and_ps(sign, b));
}

LANES_INLINE lanes lanes_times_2_to(lanes a, lanes n)
{
    return _mm512_scalef_ps(a, n);
}

LANES_INLINE lanes_mask lanes_less(lanes a, lanes b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}

LANES_INLINE lanes_mask lanes_equal(lanes a, lanes b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}

LANES_INLINE lanes_mask lanes_mask_bits(uint32_t bits)
{
    return (__mmask16)bits;
}

LANES_INLINE lanes lanes_select(lanes_mask m, lanes a, lanes b)
{
    return _mm512_mask_blend_ps(m, b, a);
}

LANES_INLINE float lanes_sum(lanes a)
{
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    __m128 d = _mm_add_ps(q, _mm_movehl_ps(q, q));

    return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}

LANES_INLINE float lanes_max_of(lanes a)
{
    __m256 h = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    __m128 d = _mm_max_ps(q, _mm_movehl_ps(q, q));

    return _mm_cvtss_f32(_mm_max_ss(d, _mm_movehdup_ps(d)));
}

LANES_INLINE lanes lanes_even(lanes a, lanes b)
{
    const __m512i at = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);

    return _mm512_permutex2var_ps(a, at, b);
}

LANES_INLINE lanes lanes_odd(lanes a, lanes b)
{
    const __m512i at = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);

    return _mm512_permutex2var_ps(a, at, b);
}

LANES_INLINE lanes lanes_swap_pairs(lanes a)
{
    return _mm512_permute_ps(a, 0xB1);
}

LANES_INLINE lanes lanes_double_even(lanes a)
{
    return _mm512_moveldup_ps(a);
}

LANES_INLINE lanes lanes_double_odd(lanes a)
{
    return _mm512_movehdup_ps(a);
}

#include "engine/kernels/vector/bytes-sse.h"

/* Signed bytes as floats. */
LANES_INLINE lanes lanes_from_bytes(bytes a)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(a));
}
