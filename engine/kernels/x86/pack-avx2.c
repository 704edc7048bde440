/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Quantising activations with AVX2: 8 values a register. The bits are those of the scalar quantiser.
 */
#include "engine/kernels/x86/linear-avx2.h"

#include <immintrin.h>

#include "engine/kernels/x86/pack.h"

/* amax in its bits, of which NaN are the greatest: what the scale and the factor are. */
TEMPLATE float scale_of(__m256i bits, float *ret_id)
{
    __m128i x = _mm_max_epu32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
    uint32_t amax_bits;
    float amax;

    x = _mm_max_epu32(x, _mm_shuffle_epi32(x, 0x4E));
    x = _mm_max_epu32(x, _mm_shuffle_epi32(x, 0xB1));
    amax_bits = (uint32_t)_mm_cvtsi128_si32(x);
    memcpy(&amax, &amax_bits, sizeof(amax));
    *ret_id = 0.0f;
    if (amax_bits >= 0x7F800000u)
        return __builtin_nanf("");
    if (amax < ACT_TINY)
        return 0.0f;
    *ret_id = 127.0f / amax;
    return amax / 127.0f;
}

TEMPLATE __m256i magnitudes(const float *x)
{
    return _mm256_and_si256(_mm256_loadu_si256((const void *)x), _mm256_set1_epi32(0x7FFFFFFF));
}

/* 32 values to bytes; all 0 where the factor is (an infinity times 0 would be NaN). */
TEMPLATE __m256i round_32(const float *x, float id)
{
    const __m256i order = _mm256_set_epi32(7, 3, 6, 2, 5, 1, 4, 0);
    __m256i q[4], z;

    if (id == 0.0f)
        return _mm256_setzero_si256();
    UNROLL(4)
    for (int i = 0; i < 4; i++)
        q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), _mm256_set1_ps(id)));
    z = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    z = _mm256_permutevar8x32_epi32(z, order);
    return _mm256_max_epi8(z, _mm256_set1_epi8(-127)); /* packing has cut at 127 and -128 */
}

/* Sums of the 16 bytes of each lane, in the lane's first dword. */
TEMPLATE __m256i lane_sums(__m256i q)
{
    __m256i s = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), q), _mm256_set1_epi16(1));

    s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0x4E));
    return _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0xB1));
}

TEMPLATE float quantise_256(const float *x, int8_t *q, int16_t sums16[16])
{
    __m256i amax = magnitudes(x);
    float scale, id;

    UNROLL(31)
    for (uint32_t i = 8; i < 256; i += 8)
        amax = _mm256_max_epu32(amax, magnitudes(x + i));
    scale = scale_of(amax, &id);
    UNROLL(8)
    for (uint32_t i = 0; i < 8; i++) {
        __m256i z = round_32(x + 32 * i, id), s = lane_sums(z);

        _mm256_storeu_si256((void *)(q + 32 * i), z);
        sums16[2 * i] = (int16_t)_mm256_extract_epi16(s, 0);
        sums16[2 * i + 1] = (int16_t)_mm256_extract_epi16(s, 8);
    }
    return scale;
}

TEMPLATE float quantise_32(const float *x, int8_t *q, int32_t *sum)
{
    __m256i amax = _mm256_max_epu32(_mm256_max_epu32(magnitudes(x), magnitudes(x + 8)),
                                    _mm256_max_epu32(magnitudes(x + 16), magnitudes(x + 24)));
    __m256i z, s;
    float scale, id;

    scale = scale_of(amax, &id);
    z = round_32(x, id);
    s = lane_sums(z);
    _mm256_storeu_si256((void *)q, z);
    *sum = _mm256_extract_epi32(s, 0) + _mm256_extract_epi32(s, 4);
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
        KERNEL_PACK, format, ISA_AVX2, {.pack = name}, #name "-avx2", 0.0f, "linear.h, rule 1"                     \
    }

const struct kernel_row pack_avx2_rows[PACK_AVX2_N_ROWS] = {
    ROW(pack_f32, ACT_F32),
    ROW(pack_q8_32, ACT_Q8_32),
    ROW(pack_q8_256, ACT_Q8_256),
};
