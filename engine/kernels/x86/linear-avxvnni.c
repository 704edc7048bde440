/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Quantised weights with AVX-VNNI: the AVX2 kernels with vpdpbusd and vpdpwssd, for processors without AVX-512.
 */
#include "engine/kernels/x86/linear-avx2.h"

#define YMM_VNNI 1
#define YMM_ISA  (ISA_AVX2 | ISA_AVX_VNNI)
#define YMM_NAME "avxvnni"

#include "engine/kernels/x86/linear-ymm-rows.h"

const struct kernel_row linear_avxvnni_rows[LINEAR_YMM_N_ROWS] = YMM_ROWS;
