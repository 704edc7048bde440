/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The scales of four 256-blocks at a time, which are neighbours in one row or have the same place in four rows.
 */

#include "engine/kernels/x86/blocks-avx512.h"

/* word 8 k: d of block k; 8 k + 1: dmin */
#define K4_D(w) ((w) < 4 ? 8 * (w) : (w) < 8 ? 8 * ((w) - 4) + 1 : 0)

WORD_TABLE(k4_d, K4_D);

/* What the step needs of the weights, beside the bytes. */
struct step_scales {
    __m512i k4;      /* k4_scales() of the four blocks */
    __m128 d, dmin; /* of the four blocks */
};

TEMPLATE void step_scales(const enum tensor_type type, const uint8_t *const p[4], struct step_scales *ret)
{
    size_t at = type_d_offset(type);

    ret->dmin = _mm_setzero_ps();
    if (type == TENSOR_Q4_K || type == TENSOR_Q5_K) {
        __m512i headers = _mm512_castsi128_si512(_mm_loadu_si128((const void *)p[0]));
        __m256 both;

        headers = _mm512_inserti32x4(headers, _mm_loadu_si128((const void *)p[1]), 1);
        headers = _mm512_inserti32x4(headers, _mm_loadu_si128((const void *)p[2]), 2);
        headers = _mm512_inserti32x4(headers, _mm_loadu_si128((const void *)p[3]), 3);
        ret->k4 = k4_scales(headers);
        both = _mm256_cvtph_ps(_mm512_castsi512_si128(_mm512_permutexvar_epi16(load_table(k4_d), headers)));
        ret->d = _mm256_castps256_ps128(both);
        ret->dmin = _mm256_extractf128_ps(both, 1);
        return;
    }
    ret->d = _mm_cvtph_ps(_mm_cvtsi64_si128((int64_t)((uint64_t)load_u16(p[0] + at) | (uint64_t)load_u16(p[1] + at) << 16 |
                                                      (uint64_t)load_u16(p[2] + at) << 32 | (uint64_t)load_u16(p[3] + at) << 48)));
    if (type == TENSOR_Q2_K) {
        at += 2;
        ret->dmin = _mm_cvtph_ps(_mm_cvtsi64_si128((int64_t)((uint64_t)load_u16(p[0] + at) | (uint64_t)load_u16(p[1] + at) << 16 |
                                                             (uint64_t)load_u16(p[2] + at) << 32 | (uint64_t)load_u16(p[3] + at) << 48)));
    }
}
