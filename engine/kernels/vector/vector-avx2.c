/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The vector kernels for avx2. 16 registers of 8 floats: 6 rows x 16 keys are 12 accumulators, 2 for keys, 1
 * for the value of q. Nothing in this file may run before the instruction set was checked; only the rows are
 * visible outside.
 */
#include "engine/kernels/kernels.h"
#include "engine/kernels/vector/rows-list.h"

/* clang-format off */
#include "engine/kernels/vector/lanes-avx2.h"
#include "engine/kernels/vector/ints-avx2.h"
#include "engine/kernels/vector/unroll.h"
#include "engine/kernels/vector/polynomials.inc"
#include "engine/kernels/vector/elementwise.inc"
#include "engine/kernels/vector/norm.inc"
#include "engine/kernels/vector/attention-state.h"
/* clang-format on */

enum {
    BATCH_ROWS = 96,
    BLOCK_ROWS = 6,
    KEY_LANES = 1,
    VALUE_LANES_MAX = 2,
    BYTES_SCORE_ROWS = 3,
    BYTES_VALUE_ROWS = 3,
    BYTES_VALUE_LANES = 1,
};
#define VALUE_LANES(n)        ((n) <= 3 ? 2 : 1)
#define EACH_BLOCK_ABOVE_4(M) M(5) M(6)
#define EACH_BYTES_SCORES(M)  M(1) M(2) M(3)
#define EACH_BYTES_VALUES(M)  EACH_BYTES_SCORES(M)

#include "engine/kernels/vector/attention.inc"

#define ROWS          vector_rows_avx2
#define ROWS_ISA      ISA_AVX2
#define ROWS_ISA_NAME "avx2"
#include "engine/kernels/vector/rows.inc"
