/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The vector kernels for avx512. 32 registers of 16 floats: 8 rows x 32 keys are 16 accumulators, twice what
 * the latency of fma needs. Nothing in this file may run before the instruction set was checked; only the
 * rows are visible outside.
 */
#include "engine/kernels/kernels.h"
#include "engine/kernels/vector/rows-list.h"

/* clang-format off */
#include "engine/kernels/vector/lanes-avx512.h"
#include "engine/kernels/vector/unroll.h"
#include "engine/kernels/vector/polynomials.inc"
#include "engine/kernels/vector/elementwise.inc"
#include "engine/kernels/vector/norm.inc"
#include "engine/kernels/vector/attention-state.h"
/* clang-format on */

enum {
    BATCH_ROWS = 32,
    BLOCK_ROWS = 8,
    KEY_LANES = 2,
    VALUE_LANES_MAX = 8,
};
#define VALUE_LANES(n)        ((n) <= 2 ? 8 : (n) <= 4 ? 4 : 2)
#define EACH_BLOCK_ABOVE_4(M) M(5) M(6) M(7) M(8)

#include "engine/kernels/vector/attention.inc"

#define ROWS          vector_rows_avx512
#define ROWS_ISA      (ISA_AVX2 | ISA_AVX512)
#define ROWS_ISA_NAME "avx512"
#include "engine/kernels/vector/rows.inc"
