/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The meaning of one quantised block, for the scalar code: integers and scales, not yet multiplied. Every type of
 * ours fits one formula,
 *     value[i] = (d * scale[i / sub_values]) * q[i] - dmin * min[i / sub_values],
 * which is what the dequantiser computes and what the dot products of linear.h factor.
 */

#include <stdbool.h>
#include <stdint.h>

#include "engine/gguf/types.h"

struct decoded_block {
    uint32_t n_values;   /* 32 or 256 */
    uint32_t sub_values; /* values that share a scale: 16 or 32 */
    bool has_min;
    float d;
    float dmin;
    int16_t q[256];
    int16_t scale[16];
    int16_t min[16];
};

/**
 * block_decode() - unpack one block
 * @type: a quantised type that block_is_decodable() knows
 * @src:  the block's bytes, at any alignment
 * @ret:  all members are set; entries beyond n_values and n_values / sub_values are not
 */
void block_decode(enum tensor_type type, const void *src, struct decoded_block *ret);

/**
 * block_is_decodable() - whether block_decode() knows @type (any number may be asked)
 */
bool block_is_decodable(uint32_t type);
