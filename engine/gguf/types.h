/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Tensor types of GGUF files. The numbers are those of the file format (GGUF specification, "ggml_type"); numbers that
 * the format has retired are absent. A type's block holds block_values consecutive values of one row in block_bytes.
 */

#include <stddef.h>
#include <stdint.h>

enum tensor_type {
    TENSOR_F32 = 0,
    TENSOR_F16 = 1,
    TENSOR_Q4_0 = 2,
    TENSOR_Q4_1 = 3,
    TENSOR_Q5_0 = 6,
    TENSOR_Q5_1 = 7,
    TENSOR_Q8_0 = 8,
    TENSOR_Q2_K = 10,
    TENSOR_Q3_K = 11,
    TENSOR_Q4_K = 12,
    TENSOR_Q5_K = 13,
    TENSOR_Q6_K = 14,
    TENSOR_IQ2_XXS = 16,
    TENSOR_IQ2_XS = 17,
    TENSOR_IQ3_XXS = 18,
    TENSOR_IQ1_S = 19,
    TENSOR_IQ4_NL = 20,
    TENSOR_IQ3_S = 21,
    TENSOR_IQ2_S = 22,
    TENSOR_IQ4_XS = 23,
    TENSOR_I8 = 24,
    TENSOR_I16 = 25,
    TENSOR_I32 = 26,
    TENSOR_I64 = 27,
    TENSOR_F64 = 28,
    TENSOR_IQ1_M = 29,
    TENSOR_BF16 = 30,
    TENSOR_TQ1_0 = 34,
    TENSOR_TQ2_0 = 35,
    TENSOR_MXFP4 = 39,
    TENSOR_TYPE_MAX = 40,
};

struct tensor_traits {
    const char *name; /* lower case, as on the command line: "q4_k" */
    uint32_t block_values;
    uint32_t block_bytes;
};

/**
 * tensor_traits() - the shape of a type's blocks
 * @type: any number, also one from a file
 * Returns a pointer to constant data, or NULL when the number is no type that the project knows.
 */
const struct tensor_traits *tensor_traits(uint32_t type);

/**
 * tensor_type_from_name() - the type called @name ("q4_k", "f16"); -ENOENT when there is none
 */
int tensor_type_from_name(const char *name, enum tensor_type *ret);

/**
 * tensor_row_bytes() - bytes of a row of @n_values
 * Returns 0 and sets *ret; -EINVAL when @type is unknown, the row is no whole number of blocks, or the size overflows.
 */
int tensor_row_bytes(uint32_t type, uint64_t n_values, uint64_t *ret);
