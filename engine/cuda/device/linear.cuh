/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Matrix products by the rule of sums (engine/kernels/linear.h): three shapes, each a template on the type.
 *
 *   few     a warp per row. Lanes decode 32 values each and multiply them with up to 16 tokens by dot4; a block's integer
 *           sums are put together across lanes, and its term goes to shared memory, where one lane per token adds the
 *           terms to the token's chain, blocks ascending. The row is read once for all tokens.
 *   tiles   64 rows x 64 tokens. 256 values of both are unpacked to shared memory, products are mma of int8, and every
 *           thread keeps the chains of its elements.
 *   floats  16 lanes per row, as the rule wants; each thread carries 8 tokens.
 *
 * All sums within a block of values are exact integers, so the order in which lanes and mma take them does not matter.
 */

#include "engine/cuda/device/blocks.cuh"
#include "engine/cuda/device/math.cuh"

/* One matrix of the launch and the tokens that are multiplied with it. */
struct product {
    block_ptr weight;
    uint32_t n_tokens;
    uint32_t slot0;   /* with routes: the first token's slot */
    uint64_t bias_at; /* the matrix's first entry of bias */
};

/* False when there is nothing to do for this block's matrix. */
DEV bool product_init(const struct launch_linear &a, struct product *p)
{
    uint32_t z = block_z(), matrix = z;

    p->n_tokens = a.n_tokens;
    p->slot0 = 0;
    if (a.routes) {
        struct launch_routes r = launch_routes_at(a.routes, a.n_experts, (uint64_t)a.n_tokens * a.n_used);
        device_ptr<const uint32_t> slot0 = at_address<const uint32_t>(r.slot0);
        uint32_t n_active = *at_address<const uint32_t>(r.n_active);

        if (z >= n_active)
            return false;
        matrix = at_address<const uint32_t>(r.active)[z];
        p->slot0 = slot0[z];
        p->n_tokens = slot0[z + 1] - p->slot0;
    }
    p->weight = at_address<const uint8_t>(a.weight) + matrix * a.matrix_bytes;
    p->bias_at = (uint64_t)matrix * a.n_rows;
    return true;
}

/* The packed row of token @t of the product. */
DEV block_ptr product_act(const struct launch_linear &a, const struct product &p, uint32_t t)
{
    uint64_t row = (uint64_t)t * a.act_token_step + (uint64_t)block_z() * a.act_matrix_step;

    if (a.routes) {
        struct launch_routes r = launch_routes_at(a.routes, a.n_experts, (uint64_t)a.n_tokens * a.n_used);

        row = p.slot0 + t;
        if (a.act_is_shared)
            row = at_address<const uint32_t>(r.slot_tokens)[row];
    }
    return at_address<const uint8_t>(a.act) + row * launch_act_row_bytes(launch_act_of(a.type), a.n_cols);
}

/* Whether slot @row is of a token that has the launch's adapter. */
DEV bool product_is_adapted(const struct launch_linear &a, uint64_t row)
{
    struct launch_routes r = launch_routes_at(a.routes, a.n_experts, (uint64_t)a.n_tokens * a.n_used);

    return at_address<const uint32_t>(a.adapters)[at_address<const uint32_t>(r.slot_tokens)[row]] == a.adapter;
}

/* The finished sum @y of row @r and token @t: bias, scale and cap; then it is stored and added. */
DEV void product_finish(const struct launch_linear &a, const struct product &p, uint32_t r, uint32_t t, float y)
{
    uint64_t row = p.slot0 + t, at;

    if (a.adapters && !product_is_adapted(a, row))
        return;
    if (a.rows)
        row = at_address<const uint32_t>(a.rows)[t];
    at = row * a.out_stride + r;
    if (a.adds) {
        device_ptr<float> x = at_address<float>(a.out) + at;

        *x = fused(y, a.scale, *x);
        return;
    }
    if (!a.routes)
        at += (uint64_t)block_z() * a.out_matrix_step;
    if (a.bias)
        y = y + at_address<const float>(a.bias)[p.bias_at + r];
    if (a.scale != 1.0f)
        y = y * a.scale;
    if (a.softcap > 0.0f)
        y = math_softcap(y, a.softcap);
    if (a.out)
        at_address<float>(a.out)[at] = y;
    if (a.residual) {
        device_ptr<float> x = at_address<float>(a.residual) + at;

        if (a.gate)
            *x = fused(y, math_sigmoid(at_address<const float>(a.gate)[t]), *x);
        else
            *x = *x + y;
    }
}

/* The activations that go with 32 values of a token: eight words, the scale, sums of the halves. */
struct act_chunk {
    int q[8];
    int sum[2];
    float d;
};

template <class F> DEV void act_load(block_ptr row, uint32_t k, uint32_t c, struct act_chunk *r)
{
    const enum launch_act act = F::values == 32 ? LAUNCH_ACT_Q8_32 : LAUNCH_ACT_Q8_256;

    UNROLL
    for (int i = 0; i < 2; i++) {
        struct words4 w = recast<const struct words4>(row)[2 * c + i];

        UNROLL
        for (int j = 0; j < 4; j++)
            r->q[4 * i + j] = (int)w.at[j];
    }
    if (F::mins) {
        uint32_t sums = recast<const uint32_t>(row + launch_act_sums_at(act, k))[c];

        r->sum[0] = (int16_t)(sums & 0xFFFFu);
        r->sum[1] = (int16_t)(sums >> 16);
    }
    r->d = recast<const float>(row + launch_act_scales_at(k))[F::values == 32 ? c : c / 8];
}

/* What a block adds to the chain. */
template <class F> DEV float block_term(int S, int M, float d, float dmin, float dx)
{
    float c = (float)S * (d * dx);

    return F::mins ? fused(-(float)M, dmin * dx, c) : c;
}

template <class F> DEV void linear_few(const struct launch_linear &a)
{
    /* One more than 32, so that the tokens' lanes read different banks. */
    SHARED(float, terms, LAUNCH_FEW_ROWS * LAUNCH_FEW_TOKENS * 33);
    uint32_t lane = lane_index(), row = block_x() * LAUNCH_FEW_ROWS + warp_index(), t0 = block_y() * LAUNCH_FEW_TOKENS;
    uint32_t n_chunks = a.n_cols / 32, n;
    device_ptr<float> mine = terms + warp_index() * LAUNCH_FEW_TOKENS * 33;
    struct product p;
    block_ptr w;
    float acc = 0.0f; /* of token t0 + lane */

    if (!product_init(a, &p) || row >= a.n_rows || t0 >= p.n_tokens)
        return;
    n = p.n_tokens - t0 < LAUNCH_FEW_TOKENS ? p.n_tokens - t0 : LAUNCH_FEW_TOKENS;
    w = p.weight + row * a.row_bytes;

    UNROLL_NOT
    for (uint32_t c0 = 0; c0 < n_chunks; c0 += 32) {
        uint32_t c = c0 + lane, left = n_chunks - c0 < 32 ? n_chunks - c0 : 32;
        struct chunk k = {};
        float d = 0.0f, dmin = 0.0f;

        if (lane < left) {
            block_ptr b = w + (uint64_t)(c / (F::values / 32)) * F::bytes;

            F::decode(b, c % (F::values / 32), &k);
            d = F::d(b);
            dmin = F::dmin(b);
        }
        UNROLL_NOT
        for (uint32_t t = 0; t < n; t++) {
            struct act_chunk x = {};
            int S, M = 0, low = 0, high = 0;

            if (lane < left)
                act_load<F>(product_act(a, p, t0 + t), a.n_cols, c, &x);
            UNROLL
            for (int i = 0; i < 4; i++) {
                low = dot4(k.q[i], x.q[i], low);
                high = dot4(k.q[i + 4], x.q[i + 4], high);
            }
            S = F::halves ? k.scale[0] * low + k.scale[1] * high : k.scale[0] * (low + high);
            if (F::mins)
                M = F::halves ? k.min[0] * x.sum[0] + k.min[1] * x.sum[1] : k.min[0] * (x.sum[0] + x.sum[1]);
            if (F::values == 256) {
                UNROLL
                for (uint32_t i = 1; i < 8; i *= 2) {
                    S += shuffle_xor(S, i);
                    if (F::mins)
                        M += shuffle_xor(M, i);
                }
            }
            if (lane < left && (F::values == 32 || lane % 8 == 0))
                mine[t * 33 + (F::values == 32 ? lane : lane / 8)] = block_term<F>(S, M, d, dmin, x.d);
        }
        warp_sync();
        if (lane < n)
            for (uint32_t i = 0; i < left / (F::values / 32); i++)
                acc = acc + mine[lane * 33 + i];
        warp_sync();
    }
    if (lane < n)
        product_finish(a, p, row, t0 + lane, acc);
}

/* --- tiles --- */

#define TILE_STRIDE 272 /* bytes between rows in shared memory: 256 and what keeps rows in different banks */

template <class F> struct tile_memory {
    device_ptr<int> w, x;               /* [64][TILE_STRIDE / 4] */
    device_ptr<int> scale;              /* [64][8] for 256: two int16 in a word */
    device_ptr<int> min;                /* [64][4] for 256: 16 bytes */
    device_ptr<float> d, dmin;          /* [64][1 or 8] */
    device_ptr<float> dx;               /* [64][1 or 8] */
    device_ptr<int> sums;               /* for 32 [64][8] two int16 in a word; for 256 [64][8]: see tile_sums() */
};

DEV int pair(int low, int high)
{
    return (int)(((uint32_t)low & 0xFFFFu) | (uint32_t)high << 16);
}

DEV int pair_low(int p)
{
    return (int16_t)(p & 0xFFFF);
}

DEV int pair_high(int p)
{
    return p >> 16;
}

/*
 * Sums of 16 activations, at most 2032, as two signed bytes: 128 * high + low. So sums of min * sum are products of bytes,
 * too, and mma does them. A token has 16 low bytes, and 16 high ones behind all tokens' low ones.
 */
DEV void tile_sums(device_ptr<int> sums, uint32_t t, uint32_t c, int first, int second)
{
    device_ptr<uint16_t> to = recast<uint16_t>(sums);

    to[t * 8 + c] = (uint16_t)((first & 127) | (second & 127) << 8);
    to[(LAUNCH_TILE_TOKENS + t) * 8 + c] = (uint16_t)((first >> 7 & 255) | (second >> 7 & 255) << 8);
}

/* Rows and tokens of 256 values from chunk @c0 on; what is beyond the end is zero, so that it adds nothing. */
template <class F>
DEV void tile_load(const struct launch_linear &a, const struct product &p, const struct tile_memory<F> &m, uint32_t row0,
                   uint32_t t0, uint32_t c0)
{
    const uint32_t per = F::values == 32 ? 8 : 1;
    uint32_t n_chunks = a.n_cols / 32;

    UNROLL_NOT
    for (uint32_t i = thread_index(); i < LAUNCH_TILE_ROWS * 8; i += LAUNCH_TILE_THREADS) {
        uint32_t row = i / 8, c = i % 8;
        struct chunk k = {};
        float d = 0.0f, dmin = 0.0f;

        if (row0 + row < a.n_rows && c0 + c < n_chunks) {
            block_ptr b = p.weight + (row0 + row) * a.row_bytes + (uint64_t)((c0 + c) / (F::values / 32)) * F::bytes;

            F::decode(b, c % (F::values / 32), &k);
            d = F::d(b);
            dmin = F::dmin(b);
        }
        UNROLL
        for (int j = 0; j < 2; j++) {
            struct words4 v;

            UNROLL
            for (int n = 0; n < 4; n++)
                v.at[n] = (uint32_t)k.q[4 * j + n];
            recast<struct words4>(m.w + row * (TILE_STRIDE / 4) + c * 8)[j] = v;
        }
        if (F::values == 256) {
            m.scale[row * 8 + c] = pair(k.scale[0], k.scale[1]);
            if (F::mins)
                recast<uint16_t>(m.min)[row * 8 + c] = (uint16_t)(k.min[0] | k.min[1] << 8);
        }
        if (F::values == 32 || c == 0) {
            m.d[row * per + (F::values == 32 ? c : 0)] = d;
            if (F::mins)
                m.dmin[row * per + (F::values == 32 ? c : 0)] = dmin;
        }
    }
    UNROLL_NOT
    for (uint32_t i = thread_index(); i < LAUNCH_TILE_TOKENS * 8; i += LAUNCH_TILE_THREADS) {
        uint32_t t = i / 8, c = i % 8;
        struct act_chunk x = {};

        if (t0 + t < p.n_tokens && c0 + c < n_chunks)
            act_load<F>(product_act(a, p, t0 + t), a.n_cols, c0 + c, &x);
        UNROLL
        for (int j = 0; j < 2; j++) {
            struct words4 v;

            UNROLL
            for (int n = 0; n < 4; n++)
                v.at[n] = (uint32_t)x.q[4 * j + n];
            recast<struct words4>(m.x + t * (TILE_STRIDE / 4) + c * 8)[j] = v;
        }
        if (F::mins && F::values == 32)
            m.sums[t * 8 + c] = pair(x.sum[0], x.sum[1]);
        else if (F::mins)
            tile_sums(m.sums, t, c, x.sum[0], x.sum[1]);
        if (F::values == 32 || c == 0)
            m.dx[t * per + (F::values == 32 ? c : 0)] = x.d;
    }
}

/* A warp has 16 rows and all 64 tokens; element [n][e] is of row g + 8 (e / 2), token 8 n + 2 i + e % 2. */
template <class F>
DEV void tile_multiply(const struct tile_memory<F> &m, uint32_t n_chunks, float acc[LAUNCH_TILE_TOKENS / 8][4])
{
    uint32_t g = lane_index() / 4, i = lane_index() % 4, row = warp_index() * 16 + g;
    int S[LAUNCH_TILE_TOKENS / 8][4] = {};

    UNROLL_NOT
    for (uint32_t c = 0; c < n_chunks; c++) {
        device_ptr<int> w = m.w + row * (TILE_STRIDE / 4) + c * 8 + i;
        int fragment[4] = {w[0], w[8 * (TILE_STRIDE / 4)], w[4], w[8 * (TILE_STRIDE / 4) + 4]};
        int scale[2] = {};

        if (F::values == 256) {
            scale[0] = m.scale[row * 8 + c];
            scale[1] = m.scale[(row + 8) * 8 + c];
        }
        UNROLL
        for (int n = 0; n < LAUNCH_TILE_TOKENS / 8; n++) {
            device_ptr<int> x = m.x + (8 * n + g) * (TILE_STRIDE / 4) + c * 8 + i;
            int other[2] = {x[0], x[4]};

            if (F::halves) {
                int low[4] = {}, high[4] = {}, second[2] = {fragment[2], fragment[3]};

                mma_k16(low, fragment, other[0]);
                mma_k16(high, second, other[1]);
                UNROLL
                for (int e = 0; e < 4; e++)
                    S[n][e] += pair_low(scale[e / 2]) * low[e] + pair_high(scale[e / 2]) * high[e];
            } else {
                int dot[4] = {};

                mma_k32(dot, fragment, other);
                UNROLL
                for (int e = 0; e < 4; e++) {
                    uint32_t r = row + 8 * (e / 2), t = 8 * n + 2 * i + e % 2;

                    if (F::values == 256)
                        S[n][e] += pair_low(scale[e / 2]) * dot[e];
                    else if (F::mins)
                        acc[n][e] = acc[n][e] + block_term<F>(dot[e], pair_low(m.sums[t * 8 + c]) + pair_high(m.sums[t * 8 + c]),
                                                              m.d[r * 8 + c], m.dmin[r * 8 + c], m.dx[t * 8 + c]);
                    else
                        acc[n][e] = acc[n][e] + block_term<F>(dot[e], 0, m.d[r * 8 + c], 0.0f, m.dx[t * 8 + c]);
                }
            }
        }
    }
    if (F::values == 32)
        return;
    UNROLL
    for (int n = 0; n < LAUNCH_TILE_TOKENS / 8; n++) {
        int low[4] = {}, high[4] = {};

        if (F::mins) {
            int mins[2] = {m.min[row * 4 + i], m.min[(row + 8) * 4 + i]};

            mma_k16(low, mins, m.sums[(8 * n + g) * 4 + i]);
            mma_k16(high, mins, m.sums[(LAUNCH_TILE_TOKENS + 8 * n + g) * 4 + i]);
        }
        UNROLL
        for (int e = 0; e < 4; e++) {
            uint32_t r = row + 8 * (e / 2), t = 8 * n + 2 * i + e % 2;
            int M = 128 * high[e] + low[e];

            acc[n][e] = acc[n][e] + block_term<F>(S[n][e], M, m.d[r], F::mins ? (float)m.dmin[r] : 0.0f, m.dx[t]);
        }
    }
}

template <class F> DEV void linear_tiles(const struct launch_linear &a)
{
    const int per = F::values == 32 ? 8 : 1, supers = F::values == 256 ? 8 : 1;
    SHARED(int, w, LAUNCH_TILE_ROWS * TILE_STRIDE / 4);
    SHARED(int, x, LAUNCH_TILE_TOKENS * TILE_STRIDE / 4);
    SHARED(int, scale, LAUNCH_TILE_ROWS * supers);
    SHARED(int, min, F::mins && F::values == 256 ? LAUNCH_TILE_ROWS * 4 : 1);
    SHARED(float, d, LAUNCH_TILE_ROWS * per);
    SHARED(float, dmin, F::mins ? LAUNCH_TILE_ROWS * per : 1);
    SHARED(float, dx, LAUNCH_TILE_TOKENS * per);
    SHARED(int, sums, F::mins ? LAUNCH_TILE_TOKENS * 8 : 1);
    struct tile_memory<F> m = {w, x, scale, min, d, dmin, dx, sums};
    uint32_t row0 = block_x() * LAUNCH_TILE_ROWS, t0 = block_y() * LAUNCH_TILE_TOKENS, n_chunks = a.n_cols / 32;
    uint32_t g = lane_index() / 4, i = lane_index() % 4;
    float acc[LAUNCH_TILE_TOKENS / 8][4] = {};
    struct product p;

    if (!product_init(a, &p) || t0 >= p.n_tokens)
        return;
    UNROLL_NOT
    for (uint32_t c = 0; c < n_chunks; c += 8) {
        tile_load<F>(a, p, m, row0, t0, c);
        barrier();
        tile_multiply<F>(m, n_chunks - c < 8 ? n_chunks - c : 8, acc);
        barrier();
    }
    UNROLL
    for (int n = 0; n < LAUNCH_TILE_TOKENS / 8; n++) {
        UNROLL
        for (int e = 0; e < 4; e++) {
            uint32_t r = row0 + warp_index() * 16 + g + 8 * (e / 2), t = t0 + 8 * n + 2 * i + e % 2;

            if (r < a.n_rows && t < p.n_tokens)
                product_finish(a, p, r, t, acc[n][e]);
        }
    }
}

/* --- floats --- */

template <uint32_t TYPE> DEV float float_weight(block_ptr row, uint32_t i)
{
    if (TYPE == TENSOR_F32)
        return recast<const float>(row)[i];
    if (TYPE == TENSOR_F16)
        return half_float(recast<const uint16_t>(row)[i]);
    return bits_to_float((uint32_t)recast<const uint16_t>(row)[i] << 16);
}

template <uint32_t TYPE> DEV void linear_floats(const struct launch_linear &a)
{
    uint32_t l = thread_index() % 16, row = block_x() * LAUNCH_FLOAT_ROWS + thread_index() / 16;
    uint32_t t0 = block_y() * LAUNCH_FLOAT_TOKENS, n;
    device_ptr<const float> x[LAUNCH_FLOAT_TOKENS];
    float acc[LAUNCH_FLOAT_TOKENS] = {};
    bool has_row = row < a.n_rows;
    struct product p;
    block_ptr w;

    if (!product_init(a, &p) || t0 >= p.n_tokens)
        return;
    n = p.n_tokens - t0 < LAUNCH_FLOAT_TOKENS ? p.n_tokens - t0 : LAUNCH_FLOAT_TOKENS;
    w = p.weight + (has_row ? row : 0) * a.row_bytes;
    UNROLL
    for (uint32_t t = 0; t < LAUNCH_FLOAT_TOKENS; t++)
        x[t] = recast<const float>(product_act(a, p, t < n ? t0 + t : t0));
    UNROLL_NOT
    for (uint32_t k = l; k < a.n_cols; k += 16) {
        float weight = float_weight<TYPE>(w, k);

        UNROLL
        for (uint32_t t = 0; t < LAUNCH_FLOAT_TOKENS; t++)
            if (t < n)
                acc[t] = fused(weight, x[t][k], acc[t]);
    }
    UNROLL
    for (uint32_t t = 0; t < LAUNCH_FLOAT_TOKENS; t++) {
        float y = math_fold(acc[t]);

        if (has_row && t < n && l == t)
            product_finish(a, p, row, t0 + t, y);
    }
}

#define LINEAR_FEW(name)                                                                                           \
    KERNEL(linear_##name, launch_linear, LAUNCH_FEW_THREADS)                                                       \
    {                                                                                                              \
        linear_few<format_##name>(a);                                                                              \
    }

#define LINEAR_TILES(name)                                                                                         \
    KERNEL(linear_##name##_tiles, launch_linear, LAUNCH_TILE_THREADS)                                              \
    {                                                                                                              \
        linear_tiles<format_##name>(a);                                                                            \
    }

#define LINEAR_FLOATS(name, type)                                                                                  \
    KERNEL(linear_##name, launch_linear, LAUNCH_FLOAT_THREADS)                                                     \
    {                                                                                                              \
        linear_floats<type>(a);                                                                                    \
    }
