/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Quantised weights with AVX2: products of bytes as words (vpmaddubsw), which the weights of each type must not overflow.
 */
#include "engine/kernels/x86/linear-avx2.h"

#define YMM_VNNI 0
#define YMM_ISA  ISA_AVX2
#define YMM_NAME "avx2"

#include "engine/kernels/x86/linear-ymm-rows.h"

const struct kernel_row linear_avx2_rows[LINEAR_YMM_N_ROWS] = YMM_ROWS;
