/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The IQ1, IQ2, IQ3 and TQ types with AVX2. Processors with AVX-VNNI and no AVX-512 take these too: unpacking is most of the work.
 */
#include "engine/kernels/x86/linear-avx2.h"

#define YMM_VNNI 0

#include "engine/kernels/x86/blocks-grid.h"
#include "engine/kernels/x86/linear-lanes-ymm.h"
#include "engine/kernels/x86/dot-ymm.h"

/* Dwords whose total is S, for each token. Magnitudes of 62: two products fit a word. */
TEMPLATE void grid_dot(const struct grid_block *block, const struct act_tokens_256 *act, uint32_t b, uint32_t n_tokens, __m256i *S)
{
    /* word j of a lane belongs to the lane's half of values 32 j .. 32 j + 31 */
    const __m128i even_odd = _mm_set_epi8(15, 13, 11, 9, 7, 5, 3, 1, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m256i scales = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(_mm_load_si128((const void *)block->scale), even_odd));

    for (uint32_t t = 0; t < n_tokens; t++) {
        const int8_t *a = act[t].q + (size_t)b * 256;

        S[t] = _mm256_setzero_si256();
        UNROLL(8)
        for (int j = 0; j < 8; j++) {
            const __m256i pick = _mm256_set1_epi16((short)(2 * j | (2 * j + 1) << 8));

            S[t] = add_word_products(S[t], signed_byte_products(load_256(block->q + 32 * j), load_256(a + 32 * j)),
                                     _mm256_shuffle_epi8(scales, pick));
        }
    }
}

#include "engine/kernels/x86/linear-grid-tokens.h"

/* All of them are multiplied as one type with sixteen scales and signed bytes. */
#define GRID_DEFINE_LANES(name, type)                                                                              \
    static void name##_lanes(const struct linear_args *args)                                                       \
    {                                                                                                              \
        grid_lanes(args, &format_##name);                                                                          \
    }

static void grid_lanes(const struct linear_args *args, const struct grid_format *format)
{
    rows_lanes(args, TENSOR_IQ2_XS, format);
}

GRID_TYPES(GRID_DEFINE_LANES)

#define ROW(name, type)                                                                                            \
    {KERNEL_LINEAR_TOKENS, type, ISA_AVX2, {.rows = name##_tokens}, #name "-tokens-avx2", 0.0f, "linear.h"},       \
        {KERNEL_LINEAR_LANES, type, ISA_AVX2, {.rows = name##_lanes}, #name "-lanes-avx2", 0.0f, "linear.h"},

const struct kernel_row linear_grid_avx2_rows[LINEAR_GRID_AVX2_N_ROWS] = {GRID_TYPES(ROW)};
_Static_assert(LINEAR_GRID_AVX2_N_ROWS == 2 * GRID_N_TYPES, "two rows a type");
