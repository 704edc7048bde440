/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Norms, softmax and rotary embedding. Included by vector-X.c after lanes-X.h and polynomials.h. Sums follow the rule in
 * engine/kernels/vector.h: 16 lanes, then a fixed tree. The lanes of a partial last group that hold nothing add +0 to
 * a sum that is never -0, which changes no bit.
 */
#pragma once

LANES_INLINE lanes load_upto(const float *p, uint32_t n)
{
    return n >= LANES ? lanes_load(p) : lanes_load_part(p, n);
}

LANES_INLINE void store_upto(float *p, lanes a, uint32_t n)
{
    if (n >= LANES)
        lanes_store(p, a);
    else
        lanes_store_part(p, a, n);
}

static void rms_norm(float *y, const float *x, const float *w, uint32_t n, float eps)
{
    lanes squares = lanes_zero(), factor;

    for (uint32_t i = 0; i < n; i += LANES) {
        lanes v = load_upto(x + i, n - i);

        squares = lanes_fma(v, v, squares);
    }
    factor = lanes_set(1.0f / __builtin_sqrtf(lanes_sum(squares) / (float)n + eps));
    for (uint32_t i = 0; i < n; i += LANES) {
        lanes v = lanes_mul(load_upto(x + i, n - i), factor);

        if (w)
            v = lanes_mul(v, load_upto(w + i, n - i));
        store_upto(y + i, v, n - i);
    }
}

static void layer_norm(float *y, const float *x, const float *w, const float *b, uint32_t n, float eps)
{
    lanes sum = lanes_zero(), squares = lanes_zero(), mean, factor;

    for (uint32_t i = 0; i < n; i += LANES)
        sum = lanes_add(sum, load_upto(x + i, n - i));
    mean = lanes_set(lanes_sum(sum) / (float)n);
    for (uint32_t i = 0; i < n; i += LANES) {
        lanes v = lanes_sub(load_upto(x + i, n - i), mean);

        if (n - i < LANES)
            v = lanes_select(lanes_mask_bits((1u << (n - i)) - 1), v, lanes_zero());
        squares = lanes_fma(v, v, squares);
    }
    factor = lanes_set(1.0f / __builtin_sqrtf(lanes_sum(squares) / (float)n + eps));
    for (uint32_t i = 0; i < n; i += LANES) {
        lanes v = lanes_mul(lanes_sub(load_upto(x + i, n - i), mean), factor);

        if (w && b)
            v = lanes_fma(v, load_upto(w + i, n - i), load_upto(b + i, n - i));
        else if (w)
            v = lanes_mul(v, load_upto(w + i, n - i));
        else if (b)
            v = lanes_add(v, load_upto(b + i, n - i));
        store_upto(y + i, v, n - i);
    }
}

/* -infinity minus itself would be NaN, so a row of nothing but -infinity is measured from 0 instead. */
static void softmax(float *y, const float *x, uint32_t n)
{
    lanes most = lanes_set(-__builtin_inff()), sum = lanes_zero(), from;
    float m, total;

    for (uint32_t i = 0; i < n; i += LANES) {
        lanes v = load_upto(x + i, n - i);

        if (n - i < LANES)
            v = lanes_select(lanes_mask_bits((1u << (n - i)) - 1), v, most);
        most = lanes_max(most, v);
    }
    m = lanes_max_of(most);
    from = lanes_set(m == -__builtin_inff() ? 0.0f : m);
    for (uint32_t i = 0; i < n; i += LANES) {
        lanes e = math_exp(lanes_sub(load_upto(x + i, n - i), from));

        store_upto(y + i, e, n - i);
        if (n - i < LANES)
            e = lanes_select(lanes_mask_bits((1u << (n - i)) - 1), e, lanes_zero());
        sum = lanes_add(sum, e);
    }
    total = lanes_sum(sum);
    scale(y, y, total == 0.0f ? 0.0f : 1.0f / total, n);
}

/* Pairs (2i, 2i + 1): a = x0 cos - x1 sin, b = x1 cos + x0 sin, the second product rounded, then one fma. */
LANES_INLINE lanes rotate_interleaved(lanes x, lanes cos_sin)
{
    lanes other = lanes_mul(lanes_swap_pairs(x), lanes_double_odd(cos_sin));

    return lanes_fma_alternate(x, lanes_double_even(cos_sin), other);
}

static void rope_interleaved(float *x, uint32_t n_rot, const float *cos_sin)
{
    for (uint32_t i = 0; i < n_rot; i += LANES)
        store_upto(x + i, rotate_interleaved(load_upto(x + i, n_rot - i), load_upto(cos_sin + i, n_rot - i)), n_rot - i);
}

/* Pairs (i, i + n_rot / 2), the same arithmetic. */
static void rope_halves(float *x, uint32_t n_rot, const float *cos_sin)
{
    uint32_t n = n_rot / 2;

    for (uint32_t i = 0; i < n; i += LANES) {
        uint32_t left = n - i;
        lanes first = load_upto(cos_sin + 2 * i, 2 * left);
        lanes second = 2 * left > LANES ? load_upto(cos_sin + 2 * i + LANES, 2 * left - LANES) : lanes_zero();
        lanes c = lanes_even(first, second), s = lanes_odd(first, second);
        lanes x0 = load_upto(x + i, left), x1 = load_upto(x + n + i, left);

        store_upto(x + i, lanes_fma(x0, c, lanes_negate(lanes_mul(x1, s))), left);
        store_upto(x + n + i, lanes_fma(x1, c, lanes_mul(x0, s)), left);
    }
}

static void rope(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, const float *cos_sin, bool interleaved)
{
    for (uint32_t head = 0; head < n_heads; head++, x += head_dim) {
        if (interleaved)
            rope_interleaved(x, n_rot, cos_sin);
        else
            rope_halves(x, n_rot, cos_sin);
    }
}
