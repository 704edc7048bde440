/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The border of the matrix kernels: sizes, and the choice of layout by the number of tokens. Called by the executor on
 * any thread; keeps nothing.
 */
#include "engine/kernels/linear.h"

#include <assert.h>

#include "engine/kernels/kernels.h"
#include "engine/kernels/linear-act.h"
#include "engine/kernels/linear-scratch.h"

bool linear_has_type(uint32_t type)
{
    return linear_format(NULL, (enum tensor_type)type) != ACT_FORMAT_MAX;
}

enum act_format linear_format(const struct kernels *kernels, enum tensor_type type)
{
    (void)kernels;
    switch ((uint32_t)type) {
    case TENSOR_F32:
    case TENSOR_F16:
    case TENSOR_BF16:
        return ACT_F32;
    case TENSOR_Q4_0:
    case TENSOR_Q4_1:
    case TENSOR_Q5_0:
    case TENSOR_Q5_1:
    case TENSOR_Q8_0:
    case TENSOR_IQ4_NL:
    case TENSOR_MXFP4:
        return ACT_Q8_32;
    case TENSOR_Q2_K:
    case TENSOR_Q3_K:
    case TENSOR_Q4_K:
    case TENSOR_Q5_K:
    case TENSOR_Q6_K:
    case TENSOR_IQ4_XS:
    case TENSOR_IQ2_XXS:
    case TENSOR_IQ2_XS:
    case TENSOR_IQ2_S:
    case TENSOR_IQ3_XXS:
    case TENSOR_IQ3_S:
    case TENSOR_IQ1_S:
    case TENSOR_IQ1_M:
    case TENSOR_TQ1_0:
    case TENSOR_TQ2_0:
        return ACT_Q8_256;
    default:
        return ACT_FORMAT_MAX;
    }
}

static size_t pack_bytes(enum act_format format, uint32_t k, uint32_t m)
{
    uint32_t last;

    if (format == ACT_F32)
        return m * act_f32_stride(k) * sizeof(float);
    if (act_shape(format, m) == LINEAR_TOKENS)
        return m * (format == ACT_Q8_256 ? act_tokens_256_bytes(k) : act_tokens_32_bytes(k));
    last = (m - 1) / ACT_GROUP * ACT_GROUP;
    return last / ACT_GROUP * act_group_bytes(format, k, ACT_GROUP) +
           act_group_bytes(format, k, act_group_tokens(m, last));
}

size_t linear_pack_bytes(const struct kernels *kernels, enum act_format format, uint32_t k, uint32_t m)
{
    size_t few, all;

    (void)kernels;
    assert(format < ACT_FORMAT_MAX);
    /* Short rows of few tokens can take more than many tokens, because of their padding: room for the largest m must do
     * for each smaller one. */
    few = pack_bytes(format, k, m < ACT_TOKENS_MAX ? m : ACT_TOKENS_MAX);
    all = m > 0 ? pack_bytes(format, k, m) : 0;
    return few > all ? few : all;
}

void linear_pack(const struct kernels *kernels, enum act_format format, const float *x, size_t x_stride, uint32_t k,
                 uint32_t m, uint32_t m0, uint32_t m1, void *act)
{
    linear_pack_rows(kernels, format, x, x_stride, /* rows= */ NULL, k, m, m0, m1, act);
}

void linear_pack_rows(const struct kernels *kernels, enum act_format format, const float *x, size_t x_stride,
                      const uint32_t *rows, uint32_t k, uint32_t m, uint32_t m0, uint32_t m1, void *act)
{
    const struct linear_pack_args args = {
        .x = x, .x_stride = x_stride, .rows = rows, .k = k, .m = m, .m0 = m0, .m1 = m1, .act = act,
    };

    assert(format < ACT_FORMAT_MAX && m0 % LINEAR_PACK_STEP == 0 && m1 <= m && (uintptr_t)act % LINEAR_ALIGN == 0);
    if (m0 < m1)
        kernels->linear.pack[format](&args);
}

size_t linear_scratch_bytes(const struct kernels *kernels, uint32_t k_max, uint32_t m_max)
{
    size_t tokens = scratch_tokens_bytes(k_max);
    size_t lanes = m_max > ACT_TOKENS_MAX ? scratch_lanes_bytes(m_max) : 0;

    (void)kernels;
    return tokens > lanes ? tokens : lanes;
}

void linear_rows(const struct kernels *kernels, enum tensor_type w_type, const void *w, size_t row_bytes, uint32_t k,
                 uint32_t row0, uint32_t row1, const void *act, uint32_t m, float *y, size_t y_stride, void *scratch)
{
    const struct linear_args args = {
        .w = w, .row_bytes = row_bytes, .k = k, .row0 = row0, .row1 = row1,
        .act = act, .m = m, .y = y, .y_stride = y_stride, .scratch = scratch,
    };
    enum act_format format = linear_format(kernels, w_type);

    assert(format != ACT_FORMAT_MAX && row0 % LINEAR_ROW_STEP == 0);
    assert((uintptr_t)act % LINEAR_ALIGN == 0 && (uintptr_t)scratch % LINEAR_ALIGN == 0);
    if (m > 0 && row0 < row1)
        kernels->linear.rows[w_type][act_shape(format, m)](&args);
}
