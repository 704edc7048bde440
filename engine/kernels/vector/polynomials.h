/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * exp, tanh and what follows from them on 16 lanes. Included by vector-X.c after a lanes-X.h; see there.
 * Coefficients are minimax fits made for this file (Remez exchange, then rounded to float); tests measure the error
 * over all floats.
 */
#pragma once

/*
 * exp(x) = 2^n * e^r with n = round(x / ln 2) and |r| <= ln 2 / 2. ln 2 is split so that n times its upper part is
 * exact. The argument is cut to where the result is 0 or infinity anyway; max and min give their second operand for
 * NaN, so NaN passes through. exp(0) is exactly 1, which attention relies on.
 */
LANES_INLINE lanes math_exp(lanes x)
{
    lanes n, r, p;

    x = lanes_max(lanes_set(-104.0f), x);
    x = lanes_min(lanes_set(89.0f), x);
    n = lanes_round(lanes_mul(x, lanes_set(0x1.715476p+0f)));
    r = lanes_fma(n, lanes_set(-0x1.63p-1f), x);
    r = lanes_fma(n, lanes_set(0x1.bd0106p-13f), r);
    p = lanes_set(0x1.6a21acp-10f);
    p = lanes_fma(p, r, lanes_set(0x1.123b6ap-7f));
    p = lanes_fma(p, r, lanes_set(0x1.5558fap-5f));
    p = lanes_fma(p, r, lanes_set(0x1.555490p-3f));
    p = lanes_fma(p, r, lanes_set(0x1.fffffcp-2f));
    p = lanes_fma(lanes_mul(r, r), p, r);
    p = lanes_add(p, lanes_set(1.0f));
    return lanes_times_2_to(p, n);
}

/* Odd polynomial near 0, where the other formula would cancel; 1 - 2 / (exp(2 |x|) + 1) elsewhere. */
LANES_INLINE lanes math_tanh(lanes x)
{
    lanes a = lanes_abs(x);
    lanes z = lanes_mul(x, x);
    lanes p, far;

    p = lanes_set(0x1.197b7cp-9f);
    p = lanes_fma(p, z, lanes_set(-0x1.0c2146p-7f));
    p = lanes_fma(p, z, lanes_set(0x1.6394dap-6f));
    p = lanes_fma(p, z, lanes_set(-0x1.b9ef7cp-5f));
    p = lanes_fma(p, z, lanes_set(0x1.11106cp-3f));
    p = lanes_fma(p, z, lanes_set(-0x1.555554p-2f));
    p = lanes_fma(lanes_mul(x, z), p, x);
    far = lanes_add(math_exp(lanes_add(a, a)), lanes_set(1.0f));
    far = lanes_sub(lanes_set(1.0f), lanes_div(lanes_set(2.0f), far));
    return lanes_with_sign_of(lanes_select(lanes_less(a, lanes_set(0.625f)), p, far), x);
}

/* x / (1 + exp(-y)): the common shape of silu (y = x) and gelu. -infinity gives NaN only where the limit has none. */
LANES_INLINE lanes math_gate(lanes x, lanes y)
{
    return lanes_div(x, lanes_add(lanes_set(1.0f), math_exp(lanes_negate(y))));
}

LANES_INLINE lanes math_sigmoid(lanes x)
{
    return math_gate(lanes_set(1.0f), x);
}

LANES_INLINE lanes math_silu(lanes x)
{
    return math_gate(x, x);
}

/* 0.5 x (1 + tanh u) = x / (1 + exp(-2 u)); 2 sqrt(2 / pi) = 1.5957691 */
LANES_INLINE lanes math_gelu(lanes x)
{
    lanes square = lanes_mul(x, x);
    lanes u = lanes_mul(lanes_fma(square, lanes_set(0.044715f), lanes_set(1.0f)), x);

    return math_gate(x, lanes_mul(u, lanes_set(1.5957691216057308f)));
}
