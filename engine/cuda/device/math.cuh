/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * exp, tanh and what follows from them: one value of engine/kernels/vector/polynomials.inc, operation by operation, so
 * that a GPU gives the bits of the CPU's kernels. Comments on the formulas stand there.
 */

#include "engine/cuda/device/device.cuh"

#define MINUS_INFINITY (bits_to_float(0xFF800000u))

/* To an integer, ties to even, keeping the sign of zero. */
DEV float math_round(float x)
{
    float y = (x + 12582912.0f) - 12582912.0f;

    return bits_to_float((float_bits(y) & 0x7FFFFFFFu) | (float_bits(x) & 0x80000000u));
}

DEV float math_times_2_to(float x, float n)
{
    int all = n >= -150.0f && n <= 128.0f ? (int)n : 0;
    int first = all >> 1, second = all - first;

    x = x * bits_to_float((uint32_t)(first + 127) << 23);
    return x * bits_to_float((uint32_t)(second + 127) << 23);
}

DEV float math_exp(float x)
{
    float n, r, p;

    x = -104.0f > x ? -104.0f : x;
    x = 89.0f < x ? 89.0f : x;
    n = math_round(x * 0x1.715476p+0f);
    r = fused(n, -0x1.63p-1f, x);
    r = fused(n, 0x1.bd0106p-13f, r);
    p = 0x1.6a21acp-10f;
    p = fused(p, r, 0x1.123b6ap-7f);
    p = fused(p, r, 0x1.5558fap-5f);
    p = fused(p, r, 0x1.555490p-3f);
    p = fused(p, r, 0x1.fffffcp-2f);
    p = fused(r * r, p, r);
    return math_times_2_to(p + 1.0f, n);
}

DEV float math_tanh(float x)
{
    float a = bits_to_float(float_bits(x) & 0x7FFFFFFFu), z = x * x, p, far;

    p = 0x1.197b7cp-9f;
    p = fused(p, z, -0x1.0c2146p-7f);
    p = fused(p, z, 0x1.6394dap-6f);
    p = fused(p, z, -0x1.b9ef7cp-5f);
    p = fused(p, z, 0x1.11106cp-3f);
    p = fused(p, z, -0x1.555554p-2f);
    p = fused(x * z, p, x);
    far = math_exp(a + a) + 1.0f;
    far = 1.0f - divide(2.0f, far);
    p = a < 0.625f ? p : far;
    return bits_to_float((float_bits(p) & 0x7FFFFFFFu) | (float_bits(x) & 0x80000000u));
}

/* x / (1 + exp(-y)) */
DEV float math_gate(float x, float y)
{
    return divide(x, 1.0f + math_exp(-y));
}

DEV float math_sigmoid(float x)
{
    return math_gate(1.0f, x);
}

DEV float math_silu(float x)
{
    return math_gate(x, x);
}

DEV float math_gelu(float x)
{
    float u = fused(x * x, 0.044715f, 1.0f) * x;

    return math_gate(x, u * 1.5957691216057308f);
}

DEV float math_softcap(float x, float cap)
{
    return cap * math_tanh(x * divide(1.0f, cap));
}

/* The larger one; b where one of them is NaN. */
DEV float math_max(float a, float b)
{
    return a > b ? a : b;
}

/* Lanes 0 … 15 of the rule of sums, folded 8 + 8, 4 + 4, 2 + 2, 1 + 1: of each half of a warp apart. */
DEV float math_fold(float x)
{
    x = x + shuffle_xor(x, 8);
    x = x + shuffle_xor(x, 4);
    x = x + shuffle_xor(x, 2);
    return x + shuffle_xor(x, 1);
}

DEV float math_fold_max(float x)
{
    x = math_max(x, shuffle_xor(x, 8));
    x = math_max(x, shuffle_xor(x, 4));
    x = math_max(x, shuffle_xor(x, 2));
    return math_max(x, shuffle_xor(x, 1));
}
