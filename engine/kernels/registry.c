/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The list of all groups of matrix kernels, slowest first.
 */
#include "engine/kernels/registry.h"

#include "engine/kernels/scalar/linear-scalar.h"
#ifdef __x86_64__
#include "engine/kernels/x86/linear-avx2.h"
#include "engine/kernels/x86/linear-avx512.h"
#endif

const struct kernel_rows *kernel_registry(uint32_t *ret_n)
{
    static const struct kernel_rows groups[] = {
        {linear_scalar_rows, LINEAR_SCALAR_N_ROWS},
#ifdef __x86_64__
        {pack_avx2_rows, PACK_AVX2_N_ROWS},
        {linear_float_avx2_rows, LINEAR_FLOAT_AVX2_N_ROWS},
        {linear_avx2_rows, LINEAR_YMM_N_ROWS},
        {linear_grid_avx2_rows, LINEAR_GRID_AVX2_N_ROWS},
        {linear_avxvnni_rows, LINEAR_YMM_N_ROWS},
        {pack_avx512_rows, PACK_AVX512_N_ROWS},
        {linear_float_avx512_rows, LINEAR_FLOAT_AVX512_N_ROWS},
        {linear_tokens32_avx512_rows, LINEAR_TOKENS32_AVX512_N_ROWS},
        {linear_tokens256_avx512_rows, LINEAR_TOKENS256_AVX512_N_ROWS},
        {linear_grid_avx512_rows, LINEAR_GRID_AVX512_N_ROWS},
        {linear_lanes_avx512_rows, LINEAR_LANES_AVX512_N_ROWS},
#endif
    };

    *ret_n = sizeof(groups) / sizeof(*groups);
    return groups;
}
