/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The part of the kernel table that works on vectors of activations rather than on weight matrices.
 */

#include <stdint.h>

struct vector_table {
    uint32_t isa;
};

static inline void vector_select(uint32_t isa_mask, struct vector_table *ret)
{
    ret->isa = isa_mask;
}
