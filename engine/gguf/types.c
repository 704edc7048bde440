/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The table of tensor types: names, values and bytes per block. Sizes are those of the GGUF format; blocks.h asserts
 * that its structs agree.
 */
#include "engine/gguf/types.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"

static const struct tensor_traits table[TENSOR_TYPE_MAX] = {
    /* clang-format off */
    [TENSOR_F32]     = {"f32",       1,   4},
    [TENSOR_F16]     = {"f16",       1,   2},
    [TENSOR_BF16]    = {"bf16",      1,   2},
    [TENSOR_F64]     = {"f64",       1,   8},
    [TENSOR_I8]      = {"i8",        1,   1},
    [TENSOR_I16]     = {"i16",       1,   2},
    [TENSOR_I32]     = {"i32",       1,   4},
    [TENSOR_I64]     = {"i64",       1,   8},
    [TENSOR_Q4_0]    = {"q4_0",     32,  18},
    [TENSOR_Q4_1]    = {"q4_1",     32,  20},
    [TENSOR_Q5_0]    = {"q5_0",     32,  22},
    [TENSOR_Q5_1]    = {"q5_1",     32,  24},
    [TENSOR_Q8_0]    = {"q8_0",     32,  34},
    [TENSOR_IQ4_NL]  = {"iq4_nl",   32,  18},
    [TENSOR_MXFP4]   = {"mxfp4",    32,  17},
    [TENSOR_Q2_K]    = {"q2_k",    256,  84},
    [TENSOR_Q3_K]    = {"q3_k",    256, 110},
    [TENSOR_Q4_K]    = {"q4_k",    256, 144},
    [TENSOR_Q5_K]    = {"q5_k",    256, 176},
    [TENSOR_Q6_K]    = {"q6_k",    256, 210},
    [TENSOR_IQ2_XXS] = {"iq2_xxs", 256,  66},
    [TENSOR_IQ2_XS]  = {"iq2_xs",  256,  74},
    [TENSOR_IQ2_S]   = {"iq2_s",   256,  82},
    [TENSOR_IQ3_XXS] = {"iq3_xxs", 256,  98},
    [TENSOR_IQ3_S]   = {"iq3_s",   256, 110},
    [TENSOR_IQ1_S]   = {"iq1_s",   256,  50},
    [TENSOR_IQ1_M]   = {"iq1_m",   256,  56},
    [TENSOR_IQ4_XS]  = {"iq4_xs",  256, 136},
    [TENSOR_TQ1_0]   = {"tq1_0",   256,  54},
    [TENSOR_TQ2_0]   = {"tq2_0",   256,  66},
    /* clang-format on */
};

const struct tensor_traits *tensor_traits(uint32_t type)
{
    return type < TENSOR_TYPE_MAX && table[type].name ? &table[type] : NULL;
}

int tensor_type_from_name(const char *name, enum tensor_type *ret)
{
    for (uint32_t type = 0; type < TENSOR_TYPE_MAX; type++) {
        if (table[type].name && strcmp(table[type].name, name) == 0) {
            *ret = (enum tensor_type)type;
            return 0;
        }
    }
    return -ENOENT;
}

int tensor_row_bytes(uint32_t type, uint64_t n_values, uint64_t *ret)
{
    const struct tensor_traits *traits = tensor_traits(type);
    uint64_t bytes;

    if (!traits || n_values % traits->block_values != 0)
        return -EINVAL;
    if (!checked_mul(n_values / traits->block_values, traits->block_bytes, &bytes))
        return -EINVAL;
    *ret = bytes;
    return 0;
}
