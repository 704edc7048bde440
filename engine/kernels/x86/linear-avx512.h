/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The groups of AVX-512 rows. All integer kernels need VNNI and VBMI too (Ice Lake, Zen 4 and later); processors with less
 * take the AVX2 rows.
 */

#include "engine/kernels/kernels.h"
#include "engine/kernels/registry.h"

#define LINEAR_AVX512_ISA (ISA_AVX2 | ISA_AVX512 | ISA_AVX512_VNNI | ISA_AVX512_VBMI)

#define PACK_AVX512_N_ROWS             3
#define LINEAR_FLOAT_AVX512_N_ROWS     3
#define LINEAR_TOKENS256_AVX512_N_ROWS 6
#define LINEAR_TOKENS32_AVX512_N_ROWS  7
#define LINEAR_LANES_AVX512_N_ROWS     22
#define LINEAR_GRID_AVX512_N_ROWS      9

extern const struct kernel_row linear_tokens256_avx512_rows[LINEAR_TOKENS256_AVX512_N_ROWS];
extern const struct kernel_row pack_avx512_rows[PACK_AVX512_N_ROWS];
extern const struct kernel_row linear_float_avx512_rows[LINEAR_FLOAT_AVX512_N_ROWS];
extern const struct kernel_row linear_tokens32_avx512_rows[LINEAR_TOKENS32_AVX512_N_ROWS];
extern const struct kernel_row linear_grid_avx512_rows[LINEAR_GRID_AVX512_N_ROWS];
extern const struct kernel_row linear_lanes_avx512_rows[LINEAR_LANES_AVX512_N_ROWS];

/* Types with 256-blocks whose weights and scales fit what linear-few-avx512.c does. */
#define LINEAR_FEW_TYPES(X) X(q2_k, TENSOR_Q2_K) X(q3_k, TENSOR_Q3_K) X(q4_k, TENSOR_Q4_K) X(q5_k, TENSOR_Q5_K) X(q6_k, TENSOR_Q6_K)

/**
 * linear_few_4_NAME() - three or four tokens, laid out as LINEAR_TOKENS; linear_few_8_NAME(): five to eight, LINEAR_LANES
 */
#define LINEAR_FEW_DECLARE(name, type)                                                                             \
    void linear_few_4_##name(const struct linear_args *args);                                                      \
    void linear_few_8_##name(const struct linear_args *args);
LINEAR_FEW_TYPES(LINEAR_FEW_DECLARE)
