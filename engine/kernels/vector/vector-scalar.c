/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The vector kernels for scalar. Plain C. Four rows a block: the registers do not matter here, the paths
 * through the blocks do. Nothing in this file may run before the instruction set was checked; only the rows
 * are visible outside.
 */
#include "engine/kernels/kernels.h"
#include "engine/kernels/vector/rows-list.h"

/* clang-format off */
#include "engine/kernels/vector/lanes-scalar.h"
#include "engine/kernels/vector/ints-scalar.h"
#include "engine/kernels/vector/unroll.h"
#include "engine/kernels/vector/polynomials.inc"
#include "engine/kernels/vector/elementwise.inc"
#include "engine/kernels/vector/norm.inc"
#include "engine/kernels/vector/attention-state.h"
/* clang-format on */

enum {
    BATCH_ROWS = 32,
    BLOCK_ROWS = 4,
    KEY_LANES = 1,
    VALUE_LANES_MAX = 1,
    BYTES_SCORE_ROWS = 4,
    BYTES_VALUE_ROWS = 4,
    BYTES_VALUE_LANES = 1,
};
#define VALUE_LANES(n) 1
#define EACH_BLOCK_ABOVE_4(M)
#define EACH_BYTES_SCORES(M) M(1) M(2) M(3) M(4)
#define EACH_BYTES_VALUES(M) EACH_BYTES_SCORES(M)

#include "engine/kernels/vector/attention.inc"

#define ROWS          vector_rows_scalar
#define ROWS_ISA      0
#define ROWS_ISA_NAME "scalar"
#include "engine/kernels/vector/rows.inc"
