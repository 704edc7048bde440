/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The arrays of rows, one per instruction set, as they are known to vector.c only.
 */

#include "engine/kernels/vector.h"

enum { VECTOR_N_SLOTS = sizeof(struct vector_table) / sizeof(void (*)(void)) };

extern const struct vector_row vector_rows_scalar[VECTOR_N_SLOTS];
extern const struct vector_row vector_rows_avx2[VECTOR_N_SLOTS];
extern const struct vector_row vector_rows_avx512[VECTOR_N_SLOTS];
extern const struct vector_row vector_rows_avx512_vnni[VECTOR_N_SLOTS];
