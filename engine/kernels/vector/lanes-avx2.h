/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * 16 floats as two AVX registers, lanes 0-7 in lo and 8-15 in hi; needs AVX2, FMA and F16C. See
 * lanes-scalar.h for what each function promises.
 */

#include <immintrin.h>
#include <stdint.h>

#define LANES        16
#define LANES_INLINE static inline __attribute__((always_inline))

typedef struct {
    __m256 lo, hi;
} lanes;
typedef lanes lanes_mask; /* all bits or none of each lane */

/* Applies an intrinsic to both halves. */
#define LANES_BOTH(f, a, ...) ((lanes){f((a).lo, ##__VA_ARGS__), f((a).hi, ##__VA_ARGS__)})
#define LANES_BOTH_2(f, a, b, ...) \
    ((lanes){f((a).lo, (b).lo, ##__VA_ARGS__), f((a).hi, (b).hi, ##__VA_ARGS__)})
#define LANES_BOTH_3(f, a, b, c) ((lanes){f((a).lo, (b).lo, (c).lo), f((a).hi, (b).hi, (c).hi)})

LANES_INLINE lanes lanes_zero(void)
{
    return (lanes){_mm256_setzero_ps(), _mm256_setzero_ps()};
}

LANES_INLINE lanes lanes_set(float x)
{
    __m256 v = _mm256_set1_ps(x);

    return (lanes){v, v};
}

LANES_INLINE lanes lanes_load(const float *p)
{
    return (lanes){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}

/* Masks of the first n of 16 lanes. */
LANES_INLINE __m256i lanes_first(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

LANES_INLINE lanes lanes_load_part(const float *p, uint32_t n)
{
    /*
     * maskload reads nothing where the mask is clear, but the address itself may still have to be one of the
     * array's
     */
    const float *upper = n > 8 ? p + 8 : p;

    return (lanes){_mm256_maskload_ps(p, lanes_first((int)n)),
                   _mm256_maskload_ps(upper, lanes_first((int)n - 8))};
}

LANES_INLINE void lanes_store(float *p, lanes a)
{
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}

LANES_INLINE void lanes_store_part(float *p, lanes a, uint32_t n)
{
    float *upper = n > 8 ? p + 8 : p;

    _mm256_maskstore_ps(p, lanes_first((int)n), a.lo);
    _mm256_maskstore_ps(upper, lanes_first((int)n - 8), a.hi);
}

LANES_INLINE lanes lanes_load_half(const uint16_t *p)
{
    return (lanes){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
                   _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8)))};
}

LANES_INLINE void lanes_store_half(uint16_t *p, lanes a)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    _mm_storeu_si128((__m128i *)(p + 8),
                     _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

LANES_INLINE lanes lanes_add(lanes a, lanes b)
{
    return LANES_BOTH_2(_mm256_add_ps, a, b);
}

LANES_INLINE lanes lanes_sub(lanes a, lanes b)
{
    return LANES_BOTH_2(_mm256_sub_ps, a, b);
}

LANES_INLINE lanes lanes_mul(lanes a, lanes b)
{
    return LANES_BOTH_2(_mm256_mul_ps, a, b);
}

LANES_INLINE lanes lanes_div(lanes a, lanes b)
{
    return LANES_BOTH_2(_mm256_div_ps, a, b);
}

LANES_INLINE lanes lanes_fma(lanes a, lanes b, lanes c)
{
    return LANES_BOTH_3(_mm256_fmadd_ps, a, b, c);
}

LANES_INLINE lanes lanes_fma_alternate(lanes a, lanes b, lanes c)
{
    return LANES_BOTH_3(_mm256_fmaddsub_ps, a, b, c);
}

LANES_INLINE lanes lanes_min(lanes a, lanes b)
{
    return LANES_BOTH_2(_mm256_min_ps, a, b);
}

LANES_INLINE lanes lanes_max(lanes a, lanes b)
{
    return LANES_BOTH_2(_mm256_max_ps, a, b);
}

LANES_INLINE lanes lanes_round(lanes a)
{
    return LANES_BOTH(_mm256_round_ps, a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

LANES_INLINE lanes lanes_negate(lanes a)
{
    return LANES_BOTH(_mm256_xor_ps, a, _mm256_set1_ps(-0.0f));
}

LANES_INLINE lanes lanes_abs(lanes a)
{
    __m256 rest = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));

    return LANES_BOTH(_mm256_and_ps, a, rest);
}

LANES_INLINE lanes lanes_with_sign_of(lanes a, lanes b)
{
    __m256 sign = _mm256_set1_ps(-0.0f);

    return (lanes){_mm256_or_ps(_mm256_andnot_ps(sign, a.lo), _mm256_and_ps(sign, b.lo)),
                   _mm256_or_ps(_mm256_andnot_ps(sign, a.hi), _mm256_and_ps(sign, b.hi))};
}

/*
 * In two steps, each by a power of two that is a normal number: only the second can round, so it equals
 * vscalefps.
 */
LANES_INLINE __m256 lanes_times_2_to_half(__m256 a, __m256 n)
{
    __m256i bias = _mm256_set1_epi32(127);
    __m256i all = _mm256_cvtps_epi32(n);
    __m256i first = _mm256_srai_epi32(all, 1);
    __m256i second = _mm256_sub_epi32(all, first);

    a = _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(first, bias), 23)));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(second, bias), 23)));
}

LANES_INLINE __m256 lanes_exponent_up_half(__m256 a, __m256 n)
{
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)));
}

/* Almost always all results are normal numbers; then the powers are added to the exponents, exactly. */
LANES_INLINE lanes lanes_times_2_to(lanes a, lanes n)
{
    lanes far = LANES_BOTH(_mm256_cmp_ps, lanes_abs(n), _mm256_set1_ps(125.0f), _CMP_NLE_UQ);

    if (__builtin_expect(_mm256_movemask_ps(_mm256_or_ps(far.lo, far.hi)), 0))
        return LANES_BOTH_2(lanes_times_2_to_half, a, n);
    return LANES_BOTH_2(lanes_exponent_up_half, a, n);
}

LANES_INLINE lanes_mask lanes_less(lanes a, lanes b)
{
    return LANES_BOTH_2(_mm256_cmp_ps, a, b, _CMP_LT_OQ);
}

LANES_INLINE lanes_mask lanes_equal(lanes a, lanes b)
{
    return LANES_BOTH_2(_mm256_cmp_ps, a, b, _CMP_EQ_OQ);
}

LANES_INLINE lanes_mask lanes_mask_bits(uint32_t bits)
{
    __m256i lo = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128), hi = _mm256_slli_epi32(lo, 8);
    __m256i all = _mm256_set1_epi32((int)bits);

    return (lanes){_mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(all, lo), lo)),
                   _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(all, hi), hi))};
}

LANES_INLINE lanes lanes_select(lanes_mask m, lanes a, lanes b)
{
    return (lanes){_mm256_blendv_ps(b.lo, a.lo, m.lo), _mm256_blendv_ps(b.hi, a.hi, m.hi)};
}

LANES_INLINE float lanes_sum(lanes a)
{
    __m256 h = _mm256_add_ps(a.lo, a.hi);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    __m128 d = _mm_add_ps(q, _mm_movehl_ps(q, q));

    return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}

LANES_INLINE float lanes_max_of(lanes a)
{
    __m256 h = _mm256_max_ps(a.lo, a.hi);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    __m128 d = _mm_max_ps(q, _mm_movehl_ps(q, q));

    return _mm_cvtss_f32(_mm_max_ss(d, _mm_movehdup_ps(d)));
}

/* Of 16 floats in two registers, the even ones (0x88) or the odd ones (0xDD). */
#define LANES_EVERY_OTHER(a, which) \
    _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps((a).lo, (a).hi, which)), 0xD8))

LANES_INLINE lanes lanes_even(lanes a, lanes b)
{
    return (lanes){LANES_EVERY_OTHER(a, 0x88), LANES_EVERY_OTHER(b, 0x88)};
}

LANES_INLINE lanes lanes_odd(lanes a, lanes b)
{
    return (lanes){LANES_EVERY_OTHER(a, 0xDD), LANES_EVERY_OTHER(b, 0xDD)};
}

LANES_INLINE lanes lanes_swap_pairs(lanes a)
{
    return LANES_BOTH(_mm256_permute_ps, a, 0xB1);
}

LANES_INLINE lanes lanes_double_even(lanes a)
{
    return (lanes){_mm256_moveldup_ps(a.lo), _mm256_moveldup_ps(a.hi)};
}

LANES_INLINE lanes lanes_double_odd(lanes a)
{
    return (lanes){_mm256_movehdup_ps(a.lo), _mm256_movehdup_ps(a.hi)};
}

#include "engine/kernels/vector/bytes-sse.h"

/* Signed bytes as floats. */
LANES_INLINE lanes lanes_from_bytes(bytes a)
{
    return (lanes){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(a)), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(a, 8)))};
}
