/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Every matrix kernel has one row here: what it computes, what it needs and how exact it is. kernels_select() picks
 * from the rows; the tests walk them, so that a new row is tested by existing. To add a kernel: write a file that
 * exports an array of rows, compile it in its own static_library with its own flags, and list the array in
 * registry.c, behind those it is better than.
 */

#include <stdint.h>

#include "engine/kernels/linear.h"

enum kernel_op {
    KERNEL_PACK,          /* type is an enum act_format */
    KERNEL_LINEAR_TOKENS, /* type is an enum tensor_type */
    KERNEL_LINEAR_LANES,
};

struct kernel_row {
    enum kernel_op op;
    uint32_t type;
    uint32_t isa; /* all of these bits of enum isa */
    union {
        linear_pack_fn pack;
        linear_rows_fn rows;
    } fn;
    const char *name;
    float bound;        /* largest relative difference to the scalar row; 0: the same bits */
    const char *source; /* where the method comes from */
};

struct kernel_rows {
    const struct kernel_row *rows;
    uint32_t n_rows;
};

/**
 * kernel_registry() - all rows, in groups; a later row is to be preferred to an earlier one where both may run
 * @ret_n: number of groups
 */
const struct kernel_rows *kernel_registry(uint32_t *ret_n);
