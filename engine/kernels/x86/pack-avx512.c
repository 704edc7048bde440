/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Quantising activations with AVX-512: 16 values a register. The bits are those of the scalar quantiser: a true division
 * for 127 / amax, rounding to nearest even by the conversion itself.
 */
#include "engine/kernels/x86/linear-avx512.h"

#include <immintrin.h>

#include "engine/kernels/x86/pack.h"

/* amax in its bits, of which NaN are the greatest: what the scale and the factor are. */
TEMPLATE float scale_of(uint32_t amax_bits, float *ret_id)
{
    float amax;

    memcpy(&amax, &amax_bits, sizeof(amax));
    *ret_id = 0.0f;
    if (amax_bits >= 0x7F800000u)
        return __builtin_nanf("");
    if (amax < ACT_TINY)
        return 0.0f;
    *ret_id = 127.0f / amax;
    return amax / 127.0f;
}

/* 16 values to bytes. With a factor of 0 an infinity would become NaN: the mask keeps such blocks at 0. */
TEMPLATE __m128i round_16(__m512 x, __m512 id, __mmask16 usable)
{
    __m512i q = _mm512_maskz_cvtps_epi32(usable, _mm512_mul_ps(x, id));

    q = _mm512_max_epi32(_mm512_min_epi32(q, _mm512_set1_epi32(127)), _mm512_set1_epi32(-127));
    return _mm512_cvtepi32_epi8(q);
}

/* Sums of the 16 bytes of each 128-bit lane, in the lane's first dword. */
TEMPLATE __m512i lane_sums(__m512i q)
{
    const __m512i ones = _mm512_set1_epi16(1);
    __m512i s = _mm512_madd_epi16(_mm512_maddubs_epi16(_mm512_set1_epi8(1), q), ones);

    s = _mm512_add_epi32(s, _mm512_shuffle_epi32(s, 0x4E));
    return _mm512_add_epi32(s, _mm512_shuffle_epi32(s, 0xB1));
}

TEMPLATE float quantise_256(const float *x, int8_t *q, int16_t sums16[16])
{
    const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF), first = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 8, 4, 0);
    __m512i amax = _mm512_setzero_si512();
    __mmask16 usable;
    float scale, id;

    UNROLL(16)
    for (uint32_t i = 0; i < 256; i += 16)
        amax = _mm512_max_epu32(amax, _mm512_and_si512(_mm512_loadu_si512(x + i), magnitude));
    scale = scale_of(_mm512_reduce_max_epu32(amax), &id);
    usable = id != 0.0f ? 0xFFFF : 0;
    UNROLL(4)
    for (uint32_t i = 0; i < 4; i++) {
        __m128i lane[4];
        __m512i bytes;

        UNROLL(4)
        for (uint32_t j = 0; j < 4; j++)
            lane[j] = round_16(_mm512_loadu_ps(x + 64 * i + 16 * j), _mm512_set1_ps(id), usable);
        bytes = _mm512_inserti32x4(_mm512_castsi128_si512(lane[0]), lane[1], 1);
        bytes = _mm512_inserti32x4(bytes, lane[2], 2);
        bytes = _mm512_inserti32x4(bytes, lane[3], 3);
        _mm512_storeu_si512(q + 64 * i, bytes);
        bytes = _mm512_permutexvar_epi32(first, lane_sums(bytes));
        _mm_storel_epi64((void *)(sums16 + 4 * i), _mm_packs_epi32(_mm512_castsi512_si128(bytes), _mm_setzero_si128()));
    }
    return scale;
}

TEMPLATE float quantise_32(const float *x, int8_t *q, int32_t *sum)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
    __m512 low = _mm512_loadu_ps(x), high = _mm512_loadu_ps(x + 16);
    __m512i amax = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(low), magnitude),
                                    _mm512_and_si512(_mm512_castps_si512(high), magnitude));
    __m128i a, b, s;
    __mmask16 usable;
    float scale, id;

    scale = scale_of(_mm512_reduce_max_epu32(amax), &id);
    usable = id != 0.0f ? 0xFFFF : 0;
    a = round_16(low, _mm512_set1_ps(id), usable);
    b = round_16(high, _mm512_set1_ps(id), usable);
    _mm_storeu_si128((void *)q, a);
    _mm_storeu_si128((void *)(q + 16), b);
    s = _mm_add_epi16(_mm_maddubs_epi16(_mm_set1_epi8(1), a), _mm_maddubs_epi16(_mm_set1_epi8(1), b));
    s = _mm_madd_epi16(s, _mm_set1_epi16(1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
    *sum = _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1)));
    return scale;
}

static void pack_f32(const struct linear_pack_args *args)
{
    pack_f32_rows(args);
}

static void pack_q8_256(const struct linear_pack_args *args)
{
    pack_q8_256_with(args, quantise_256);
}

static void pack_q8_32(const struct linear_pack_args *args)
{
    pack_q8_32_with(args, quantise_32);
}

#define ROW(name, format)                                                                                          \
    {                                                                                                              \
        KERNEL_PACK, format, ISA_AVX2 | ISA_AVX512, {.pack = name}, #name "-avx512", 0.0f, "linear.h, rule 1"      \
    }

const struct kernel_row pack_avx512_rows[PACK_AVX512_N_ROWS] = {
    ROW(pack_f32, ACT_F32),
    ROW(pack_q8_32, ACT_Q8_32),
    ROW(pack_q8_256, ACT_Q8_256),
};
