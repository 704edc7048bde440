/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * 16 floats, one at a time: the reference for lanes-avx2.h and lanes-avx512.h, and the only place that says
 * what the functions do. The kernels (the .inc files beside this one) are written
 * once on top of these and compiled once per instruction set; so the order of every operation is the same by
 * construction, and only the functions in these three headers can differ. tests/unit/kernels/test-vector.c
 * compares every kernel with this one.
 *
 * To add an instruction set: one lanes-X.h, one vector-X.c, a row in vector.c.
 */

#include <stdint.h>

#include "engine/gguf/half.h"
#include "engine/kernels/fma.h"

#define LANES 16
#define LANES_SCALAR
#define LANES_INLINE static inline

typedef struct {
    float at[LANES];
} lanes;

typedef struct {
    uint32_t bits;
} lanes_mask;

#define LANES_EACH for (uint32_t i = 0; i < LANES; i++)

LANES_INLINE lanes lanes_set(float x)
{
    lanes r;

    LANES_EACH r.at[i] = x;
    return r;
}

LANES_INLINE lanes lanes_zero(void)
{
    return lanes_set(0);
}

/* No alignment is asked for, here and below. */
LANES_INLINE lanes lanes_load(const float *p)
{
    lanes r;

    LANES_EACH r.at[i] = p[i];
    return r;
}

/* The first n floats (1 to 15) and zeros; nothing is read behind them. */
LANES_INLINE lanes lanes_load_part(const float *p, uint32_t n)
{
    lanes r;

    LANES_EACH r.at[i] = i < n ? p[i] : 0;
    return r;
}

LANES_INLINE void lanes_store(float *p, lanes a)
{
    LANES_EACH p[i] = a.at[i];
}

/* The first n (1 to 15); nothing behind them is written. */
LANES_INLINE void lanes_store_part(float *p, lanes a, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        p[i] = a.at[i];
}

/* binary16 to float: exact. */
LANES_INLINE lanes lanes_load_half(const uint16_t *p)
{
    lanes r;

    LANES_EACH r.at[i] = half_to_float(p[i]);
    return r;
}

/* float to binary16: to nearest, ties to even. */
LANES_INLINE void lanes_store_half(uint16_t *p, lanes a)
{
    LANES_EACH p[i] = float_to_half(a.at[i]);
}

LANES_INLINE lanes lanes_add(lanes a, lanes b)
{
    LANES_EACH a.at[i] += b.at[i];
    return a;
}

LANES_INLINE lanes lanes_sub(lanes a, lanes b)
{
    LANES_EACH a.at[i] -= b.at[i];
    return a;
}

LANES_INLINE lanes lanes_mul(lanes a, lanes b)
{
    LANES_EACH a.at[i] *= b.at[i];
    return a;
}

LANES_INLINE lanes lanes_div(lanes a, lanes b)
{
    LANES_EACH a.at[i] /= b.at[i];
    return a;
}

/* a * b + c, rounded once. */
LANES_INLINE lanes lanes_fma(lanes a, lanes b, lanes c)
{
    LANES_EACH a.at[i] = fma_exact(a.at[i], b.at[i], c.at[i]);
    return a;
}

/* a * b - c in even lanes, a * b + c in odd ones, rounded once. */
LANES_INLINE lanes lanes_fma_alternate(lanes a, lanes b, lanes c)
{
    LANES_EACH a.at[i] = fma_exact(a.at[i], b.at[i], i % 2 ? c.at[i] : -c.at[i]);
    return a;
}

/* min and max give b when one of the two is NaN, and when both are zeros. */
LANES_INLINE lanes lanes_min(lanes a, lanes b)
{
    LANES_EACH a.at[i] = a.at[i] < b.at[i] ? a.at[i] : b.at[i];
    return a;
}

LANES_INLINE lanes lanes_max(lanes a, lanes b)
{
    LANES_EACH a.at[i] = a.at[i] > b.at[i] ? a.at[i] : b.at[i];
    return a;
}

LANES_INLINE lanes lanes_negate(lanes a)
{
    LANES_EACH a.at[i] = -a.at[i];
    return a;
}

LANES_INLINE lanes lanes_abs(lanes a)
{
    LANES_EACH a.at[i] = float_from_bits(float_to_bits(a.at[i]) & 0x7FFFFFFFu);
    return a;
}

LANES_INLINE lanes lanes_with_sign_of(lanes a, lanes b)
{
    LANES_EACH a.at[i] =
        float_from_bits((float_to_bits(a.at[i]) & 0x7FFFFFFFu) | (float_to_bits(b.at[i]) & 0x80000000u));
    return a;
}

/* To an integer, ties to even, -0.3 to -0; for |a| < 2^22 (and NaN, which stays). */
LANES_INLINE lanes lanes_round(lanes a)
{
    lanes r;

    LANES_EACH r.at[i] = (a.at[i] + 0x1.8p+23f) - 0x1.8p+23f;
    return lanes_with_sign_of(r, a);
}

/* a * 2^n rounded once, for a in [0.5, 2) or NaN and whole n in [-150, 128] (any n when a is NaN). */
LANES_INLINE lanes lanes_times_2_to(lanes a, lanes n)
{
    for (uint32_t i = 0; i < LANES; i++) {
        int32_t all = n.at[i] >= -150 && n.at[i] <= 128 ? (int32_t)n.at[i] : 0;
        int32_t first = all >> 1, second = all - first;

        /* Both factors are normal and the first product is exact, so only the second one can round. */
        a.at[i] *= float_from_bits((uint32_t)(first + 127) << 23);
        a.at[i] *= float_from_bits((uint32_t)(second + 127) << 23);
    }
    return a;
}

/* False for NaN, as is equal. */
LANES_INLINE lanes_mask lanes_less(lanes a, lanes b)
{
    lanes_mask m = {0};

    LANES_EACH m.bits |= (uint32_t)(a.at[i] < b.at[i]) << i;
    return m;
}

LANES_INLINE lanes_mask lanes_equal(lanes a, lanes b)
{
    lanes_mask m = {0};

    LANES_EACH m.bits |= (uint32_t)(a.at[i] == b.at[i]) << i;
    return m;
}

/* Bit i of the lower 16 says whether lane i is in. */
LANES_INLINE lanes_mask lanes_mask_bits(uint32_t bits)
{
    return (lanes_mask){bits};
}

/* a where the mask is set, b elsewhere. */
LANES_INLINE lanes lanes_select(lanes_mask m, lanes a, lanes b)
{
    LANES_EACH a.at[i] = m.bits >> i & 1 ? a.at[i] : b.at[i];
    return a;
}

/* Lower half plus upper half: 8 + 8, 4 + 4, 2 + 2, 1 + 1. */
LANES_INLINE float lanes_sum(lanes a)
{
    for (uint32_t half = LANES / 2; half > 0; half /= 2)
        for (uint32_t i = 0; i < half; i++)
            a.at[i] = a.at[i] + a.at[i + half];
    return a.at[0];
}

/* The same tree with max. */
LANES_INLINE float lanes_max_of(lanes a)
{
    for (uint32_t half = LANES / 2; half > 0; half /= 2)
        for (uint32_t i = 0; i < half; i++)
            a.at[i] = a.at[i] > a.at[i + half] ? a.at[i] : a.at[i + half];
    return a.at[0];
}

/* Of the 32 floats a, b: those at 0, 2, 4 ... */
LANES_INLINE lanes lanes_even(lanes a, lanes b)
{
    lanes r;

    LANES_EACH r.at[i] = i < LANES / 2 ? a.at[2 * i] : b.at[2 * i - LANES];
    return r;
}

/* and at 1, 3, 5 ... */
LANES_INLINE lanes lanes_odd(lanes a, lanes b)
{
    lanes r;

    LANES_EACH r.at[i] = i < LANES / 2 ? a.at[2 * i + 1] : b.at[2 * i + 1 - LANES];
    return r;
}

LANES_INLINE lanes lanes_swap_pairs(lanes a)
{
    lanes r;

    LANES_EACH r.at[i] = a.at[i ^ 1];
    return r;
}

/* Each even lane, twice. */
LANES_INLINE lanes lanes_double_even(lanes a)
{
    lanes r;

    LANES_EACH r.at[i] = a.at[i & ~1u];
    return r;
}

LANES_INLINE lanes lanes_double_odd(lanes a)
{
    lanes r;

    LANES_EACH r.at[i] = a.at[i | 1u];
    return r;
}

#include "engine/kernels/vector/bytes-scalar.h"
