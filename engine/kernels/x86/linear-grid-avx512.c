/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One to four tokens times the IQ1, IQ2, IQ3 and TQ types, AVX-512 with VNNI. Blocks are unpacked on 256-bit registers; the products
 * are unsigned by signed bytes, 64 added to the weights, so that two of them fit a word: 126 * 127 * 2. More tokens:
 * linear-lanes-avx512.c.
 */
#include "engine/kernels/x86/linear-avx512.h"

#define YMM_VNNI 0

#include "engine/kernels/x86/blocks-grid.h"
#include "engine/kernels/x86/dot-ymm.h"
#include "engine/kernels/linear-act.h"

/* Scale of each word where a register has the values of the first four sub-blocks. */
static const _Alignas(64) int16_t first_scales[32] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,
                                                      2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3};

/* Dwords whose total is S, for each token. */
TEMPLATE void grid_dot(const struct grid_block *block, const struct act_tokens_256 *act, uint32_t b, uint32_t n_tokens, __m256i *S)
{
    const __m512i first = _mm512_load_si512(first_scales);
    const __m256i words = _mm256_cvtepi8_epi16(_mm_load_si128((const void *)block->scale));
    __m512i q[4], scale[4];

    UNROLL(4)
    for (int i = 0; i < 4; i++) {
        q[i] = _mm512_add_epi8(_mm512_load_si512(block->q + 64 * i), _mm512_set1_epi8(64));
        scale[i] = _mm512_permutexvar_epi16(_mm512_add_epi16(first, _mm512_set1_epi16((short)(4 * i))), _mm512_castsi256_si512(words));
    }
    for (uint32_t t = 0; t < n_tokens; t++) {
        const int8_t *a = act[t].q + (size_t)b * 256;
        __m256i off = _mm256_madd_epi16(words, _mm256_load_si256((const void *)(act[t].sums16 + (size_t)b * 16)));
        __m512i sum = _mm512_setzero_si512();

        UNROLL(4)
        for (int i = 0; i < 4; i++)
            sum = _mm512_dpwssd_epi32(sum, _mm512_maddubs_epi16(q[i], _mm512_load_si512(a + 64 * i)), scale[i]);
        S[t] = _mm256_add_epi32(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64(sum, 1));
        S[t] = _mm256_sub_epi32(S[t], _mm256_slli_epi32(off, 6));
    }
}

#include "engine/kernels/x86/linear-grid-tokens.h"

#define ROW(name, type)                                                                                            \
    {KERNEL_LINEAR_TOKENS, type, LINEAR_AVX512_ISA, {.rows = name##_tokens}, #name "-tokens-avx512", 0.0f, "linear.h"},

const struct kernel_row linear_grid_avx512_rows[LINEAR_GRID_AVX512_N_ROWS] = {GRID_TYPES(ROW)};
_Static_assert(LINEAR_GRID_AVX512_N_ROWS == GRID_N_TYPES, "a row a type");
