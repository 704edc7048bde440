/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The registry rows of the kernels on 256-bit registers. The file that includes this defines YMM_VNNI, YMM_ISA, YMM_NAME (the
 * suffix of the rows' names) and, behind the inclusion, its array from YMM_ROWS.
 */

#include "engine/kernels/x86/linear-lanes-ymm.h"
#include "engine/kernels/x86/linear-tokens-ymm.h"

#define YMM_TYPES(X)                                                                                               \
    X(q4_0, TENSOR_Q4_0)                                                                                           \
    X(q4_1, TENSOR_Q4_1)                                                                                           \
    X(q5_0, TENSOR_Q5_0)                                                                                           \
    X(q5_1, TENSOR_Q5_1)                                                                                           \
    X(q8_0, TENSOR_Q8_0)                                                                                           \
    X(iq4_nl, TENSOR_IQ4_NL)                                                                                       \
    X(mxfp4, TENSOR_MXFP4)                                                                                         \
    X(q2_k, TENSOR_Q2_K)                                                                                           \
    X(q3_k, TENSOR_Q3_K)                                                                                           \
    X(q4_k, TENSOR_Q4_K)                                                                                           \
    X(q5_k, TENSOR_Q5_K)                                                                                           \
    X(q6_k, TENSOR_Q6_K)                                                                                           \
    X(iq4_xs, TENSOR_IQ4_XS)

#define YMM_DEFINE(name, type)                                                                                     \
    static void name##_tokens_1(const struct linear_args *args)                                                    \
    {                                                                                                              \
        rows_tokens(args, type, 1);                                                                                \
    }                                                                                                              \
    static void name##_tokens_2(const struct linear_args *args)                                                    \
    {                                                                                                              \
        rows_tokens(args, type, 2);                                                                                \
    }                                                                                                              \
    static void name##_tokens_4(const struct linear_args *args)                                                    \
    {                                                                                                              \
        rows_tokens(args, type, 4);                                                                                \
    }                                                                                                              \
    static void name##_tokens(const struct linear_args *args)                                                      \
    {                                                                                                              \
        if (args->m == 1)                                                                                          \
            name##_tokens_1(args);                                                                                 \
        else if (args->m == 2)                                                                                     \
            name##_tokens_2(args);                                                                                 \
        else                                                                                                       \
            name##_tokens_4(args);                                                                                 \
    }                                                                                                              \
    static void name##_lanes(const struct linear_args *args)                                                       \
    {                                                                                                              \
        rows_lanes(args, type, NULL);                                                                                    \
    }

YMM_TYPES(YMM_DEFINE)

#define YMM_ROW(name, type)                                                                                        \
    {KERNEL_LINEAR_TOKENS, type, YMM_ISA, {.rows = name##_tokens}, #name "-tokens-" YMM_NAME, 0.0f, "linear.h"},   \
        {KERNEL_LINEAR_LANES, type, YMM_ISA, {.rows = name##_lanes}, #name "-lanes-" YMM_NAME, 0.0f, "linear.h"},

#define YMM_ROWS {YMM_TYPES(YMM_ROW)}
