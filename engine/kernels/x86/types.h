/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the vector kernels know of a type at compile time. Functions of a constant type, so that branches on them vanish.
 */

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "engine/gguf/blocks.h"
#include "engine/gguf/half.h"
#include "engine/gguf/types.h"
#include "engine/kernels/x86/unroll.h"

TEMPLATE bool type_is_256(const enum tensor_type type)
{
    return type == TENSOR_Q2_K || type == TENSOR_Q3_K || type == TENSOR_Q4_K || type == TENSOR_Q5_K || type == TENSOR_Q6_K ||
           type == TENSOR_IQ4_XS || type == TENSOR_IQ2_XS;
}

TEMPLATE bool type_has_mins(const enum tensor_type type)
{
    return type == TENSOR_Q2_K || type == TENSOR_Q4_K || type == TENSOR_Q5_K || type == TENSOR_Q4_1 || type == TENSOR_Q5_1;
}

/* What was added to the weights to make them unsigned: 1 << this; -1 for nothing. */
TEMPLATE int type_offset_log2(const enum tensor_type type)
{
    switch (type) {
    case TENSOR_Q3_K:
        return 2;
    case TENSOR_Q4_0:
        return 3;
    case TENSOR_Q5_0:
    case TENSOR_MXFP4:
        return 4;
    case TENSOR_Q6_K:
        return 5;
    case TENSOR_Q8_0:
    case TENSOR_IQ4_NL:
    case TENSOR_IQ4_XS:
    case TENSOR_IQ2_XS: /* stands for all types of blocks-grid.h */
        return 7;
    default:
        return -1;
    }
}

TEMPLATE uint32_t type_sub_values(const enum tensor_type type)
{
    return type == TENSOR_Q2_K || type == TENSOR_Q3_K || type == TENSOR_Q6_K || type == TENSOR_IQ2_XS ? 16 : 32;
}

TEMPLATE size_t type_block_bytes(const enum tensor_type type)
{
    switch (type) {
    case TENSOR_Q4_0:
        return sizeof(struct block_q4_0);
    case TENSOR_Q4_1:
        return sizeof(struct block_q4_1);
    case TENSOR_Q5_0:
        return sizeof(struct block_q5_0);
    case TENSOR_Q5_1:
        return sizeof(struct block_q5_1);
    case TENSOR_Q8_0:
        return sizeof(struct block_q8_0);
    case TENSOR_IQ4_NL:
        return sizeof(struct block_iq4_nl);
    case TENSOR_MXFP4:
        return sizeof(struct block_mxfp4);
    case TENSOR_Q2_K:
        return sizeof(struct block_q2_k);
    case TENSOR_Q3_K:
        return sizeof(struct block_q3_k);
    case TENSOR_Q4_K:
        return sizeof(struct block_q4_k);
    case TENSOR_Q5_K:
        return sizeof(struct block_q5_k);
    case TENSOR_Q6_K:
        return sizeof(struct block_q6_k);
    default:
        return sizeof(struct block_iq4_xs);
    }
}

/* Where d is in a block of a 256-type, and dmin, where there is one, two bytes behind. */
TEMPLATE size_t type_d_offset(const enum tensor_type type)
{
    switch (type) {
    case TENSOR_Q2_K:
        return offsetof(struct block_q2_k, d);
    case TENSOR_Q3_K:
        return offsetof(struct block_q3_k, d);
    case TENSOR_Q6_K:
        return offsetof(struct block_q6_k, d);
    default:
        return 0;
    }
}

TEMPLATE uint16_t load_u16(const void *p)
{
    uint16_t value;

    memcpy(&value, p, sizeof(value));
    return value;
}

TEMPLATE float load_half(const void *p)
{
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(load_u16(p))));
}

/* The scale of a block of 32. */
TEMPLATE float load_scale_32(const enum tensor_type type, const uint8_t *p)
{
    return type == TENSOR_MXFP4 ? e8m0_half_to_float(*p) : load_half(p);
}

/* MXFP4's values + 16, by nibble. */
TEMPLATE __m128i mxfp4_levels(void)
{
    return _mm_add_epi8(_mm_loadu_si128((const void *)block_mxfp4_values), _mm_set1_epi8(16));
}
