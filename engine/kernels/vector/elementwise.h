/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Kernels that treat each element alone: activations, GLUs, sums of vectors. Included by vector-X.c after lanes-X.h and
 * polynomials.h. An element's value does not depend on its lane, so the last, partial group of 16 is computed like the others.
 */
#pragma once

/* Runs the statement `each` (y from a and b, at i) over [0, n): whole groups, then the rest. */
#define ELEMENTWISE(n, y, a, b, each)                                                                                  \
    do {                                                                                                               \
        uint32_t i_ = 0;                                                                                               \
        for (; i_ + LANES <= (n); i_ += LANES) {                                                                       \
            lanes va = lanes_load((a) + i_), vb = lanes_load((b) + i_);                                                \
            lanes_store((y) + i_, (each));                                                                             \
            (void)vb;                                                                                                  \
        }                                                                                                              \
        if (i_ < (n)) {                                                                                                \
            lanes va = lanes_load_part((a) + i_, (n)-i_), vb = lanes_load_part((b) + i_, (n)-i_);                      \
            lanes_store_part((y) + i_, (each), (n)-i_);                                                                \
            (void)vb;                                                                                                  \
        }                                                                                                              \
    } while (0)

static void silu_mul(float *y, const float *gate, const float *up, uint32_t n)
{
    ELEMENTWISE(n, y, gate, up, lanes_mul(math_silu(va), vb));
}

static void gelu_mul(float *y, const float *gate, const float *up, uint32_t n)
{
    ELEMENTWISE(n, y, gate, up, lanes_mul(math_gelu(va), vb));
}

LANES_INLINE lanes swiglu_clamped_lanes(lanes gate, lanes up, lanes alpha, lanes limit)
{
    lanes one = lanes_set(1.0f);

    gate = lanes_min(limit, gate);
    up = lanes_max(lanes_negate(limit), lanes_min(limit, up));
    return lanes_mul(lanes_add(up, one), math_gate(gate, lanes_mul(alpha, gate)));
}

static void swiglu_clamped(float *y, const float *gate, const float *up, uint32_t n, float alpha, float limit)
{
    ELEMENTWISE(n, y, gate, up, swiglu_clamped_lanes(va, vb, lanes_set(alpha), lanes_set(limit)));
}

static void add(float *y, const float *x, uint32_t n)
{
    ELEMENTWISE(n, y, y, x, lanes_add(va, vb));
}

static void add_scaled(float *y, const float *x, float factor, uint32_t n)
{
    ELEMENTWISE(n, y, y, x, lanes_fma(vb, lanes_set(factor), va));
}

static void scale(float *y, const float *x, float factor, uint32_t n)
{
    ELEMENTWISE(n, y, x, x, lanes_mul(va, lanes_set(factor)));
}

static void mul(float *y, const float *x, const float *w, uint32_t n)
{
    ELEMENTWISE(n, y, x, w, lanes_mul(va, vb));
}

LANES_INLINE lanes softcap_lanes(lanes x, float cap)
{
    return lanes_mul(lanes_set(cap), math_tanh(lanes_mul(x, lanes_set(1.0f / cap))));
}

static void softcap(float *y, const float *x, float cap, uint32_t n)
{
    ELEMENTWISE(n, y, x, x, softcap_lanes(va, cap));
}

static void map_exp(float *y, const float *x, uint32_t n)
{
    ELEMENTWISE(n, y, x, x, math_exp(va));
}

static void map_tanh(float *y, const float *x, uint32_t n)
{
    ELEMENTWISE(n, y, x, x, math_tanh(va));
}

static void map_sigmoid(float *y, const float *x, uint32_t n)
{
    ELEMENTWISE(n, y, x, x, math_sigmoid(va));
}

static void map_silu(float *y, const float *x, uint32_t n)
{
    ELEMENTWISE(n, y, x, x, math_silu(va));
}

static void map_gelu(float *y, const float *x, uint32_t n)
{
    ELEMENTWISE(n, y, x, x, math_gelu(va));
}
