/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The vector kernels for avx512; compiled once more with VNNI, whose only use is attention on bytes. 32 registers of
 * 16 floats: 8 rows x 32 keys are 16 accumulators, twice what the latency of fma needs. Nothing in this file may run
 * before the instruction set was checked; only the rows are visible outside.
 */
#include "engine/kernels/kernels.h"
#include "engine/kernels/vector/rows-list.h"

/* clang-format off */
#include "engine/kernels/vector/lanes-avx512.h"
#ifdef __AVX512VNNI__
#include "engine/kernels/vector/ints-vnni.h"
#else
#include "engine/kernels/vector/ints-avx512.h"
#endif
#include "engine/kernels/vector/unroll.h"
#include "engine/kernels/vector/polynomials.inc"
#include "engine/kernels/vector/elementwise.inc"
#include "engine/kernels/vector/norm.inc"
#include "engine/kernels/vector/attention-state.h"
/* clang-format on */

enum {
    BATCH_ROWS = 96,
    BLOCK_ROWS = 8,
    KEY_LANES = 2,
    VALUE_LANES_MAX = 8,
    BYTES_SCORE_ROWS = 6,
    BYTES_VALUE_ROWS = 8,
    BYTES_VALUE_LANES = 2,
};
#define VALUE_LANES(n)        ((n) <= 2 ? 8 : (n) <= 4 ? 4 : 2)
#define EACH_BLOCK_ABOVE_4(M) M(5) M(6) M(7) M(8)
#define EACH_BYTES_SCORES(M)  M(1) M(2) M(3) M(4) M(5) M(6)
#define EACH_BYTES_VALUES(M)  EACH_BYTES_SCORES(M) M(7) M(8)

#include "engine/kernels/vector/attention.inc"

#ifdef __AVX512VNNI__
#define ROWS          vector_rows_avx512_vnni
#define ROWS_ISA      (ISA_AVX2 | ISA_AVX512 | ISA_AVX512_VNNI)
#define ROWS_ISA_NAME "avx512-vnni"
#else
#define ROWS          vector_rows_avx512
#define ROWS_ISA      (ISA_AVX2 | ISA_AVX512)
#define ROWS_ISA_NAME "avx512"
#endif
#include "engine/kernels/vector/rows.inc"
