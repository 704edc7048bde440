/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The registry rows of one instruction set. Included last by vector-X.c, with ROWS (the array's name), ROWS_ISA and
 * ROWS_ISA_NAME. A new function is one line here and one pointer in struct vector_table.
 */
#pragma once

#include <stddef.h>

/* The comparison makes the compiler check that the function has the type of the slot. */
#define ROW(member, function)                                                                                          \
    {                                                                                                                  \
        .name = #member, .isa_name = ROWS_ISA_NAME, .isa = ROWS_ISA, .slot = offsetof(struct vector_table, member),    \
        .fn = (void (*)(void))(1 ? (function) : (__typeof__(((struct vector_table *)0)->member))0)                     \
    }

const struct vector_row ROWS[VECTOR_N_SLOTS] = {
    ROW(rms_norm, rms_norm),
    ROW(layer_norm, layer_norm),
    ROW(rope, rope),
    ROW(silu_mul, silu_mul),
    ROW(gelu_mul, gelu_mul),
    ROW(swiglu_clamped, swiglu_clamped),
    ROW(add, add),
    ROW(add_scaled, add_scaled),
    ROW(scale, scale),
    ROW(mul, mul),
    ROW(softcap, softcap),
    ROW(softmax, softmax),
    ROW(map[VECTOR_EXP], map_exp),
    ROW(map[VECTOR_TANH], map_tanh),
    ROW(map[VECTOR_SIGMOID], map_sigmoid),
    ROW(map[VECTOR_SILU], map_silu),
    ROW(map[VECTOR_GELU], map_gelu),
    ROW(attention, attend),
    ROW(attention_part, attend_part),
    ROW(attention_merge, attend_merge),
    ROW(kv_write, kv_write_row),
};
