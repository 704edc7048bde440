/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The groups of AVX2 and AVX-VNNI rows.
 */

#include "engine/kernels/kernels.h"
#include "engine/kernels/registry.h"

#define PACK_AVX2_N_ROWS         3
#define LINEAR_FLOAT_AVX2_N_ROWS 3
#define LINEAR_YMM_N_ROWS        26
#define LINEAR_GRID_AVX2_N_ROWS  18

extern const struct kernel_row pack_avx2_rows[PACK_AVX2_N_ROWS];
extern const struct kernel_row linear_float_avx2_rows[LINEAR_FLOAT_AVX2_N_ROWS];
extern const struct kernel_row linear_avx2_rows[LINEAR_YMM_N_ROWS];
extern const struct kernel_row linear_grid_avx2_rows[LINEAR_GRID_AVX2_N_ROWS];
extern const struct kernel_row linear_avxvnni_rows[LINEAR_YMM_N_ROWS];
