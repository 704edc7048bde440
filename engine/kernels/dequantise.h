/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/gguf/types.h"

/**
 * dequantise_row() - the float32 values of a row of any weight type
 * @type: a type that dequantise_has_type() knows
 * @src:  the row's bytes as in the file, at any alignment
 * @k:    values in the row, a multiple of the type's block
 * @dst:  [k] f32
 * Exact: products and sums in float32 in the format's own order. For embedding look-ups, tests and conversion; the
 * dot products of linear.h never go through it.
 */
void dequantise_row(enum tensor_type type, const void *src, uint32_t k, float *dst);

/**
 * dequantise_has_type() - whether rows of @type (any number, also one from a file) can be dequantised
 */
bool dequantise_has_type(uint32_t type);
