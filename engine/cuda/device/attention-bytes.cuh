/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Attention on a cache of bytes (Q8_0), multiplied as it lies: engine/kernels/vector/attention-bytes.inc says what is
 * computed, and in which order. Included by attention.cu behind struct rows.
 *
 * In shared memory a row's q is its codes, as words of four, and then the scales of its blocks; and its p is the weights of
 * the keys for 32 values: the upper 7 bits, a byte each, then the lower ones.
 */

#define BYTES_BLOCK (34 * TILE) /* of a page: 32 half floats, then codes */
#define BYTES_CODES (2 * TILE)
#define BYTES_STEP  (4 * TILE)
#define BYTES_ROUNDING 0x1.8p+23f
#define BYTES_WEIGHT_MAX 16383.0f

/* One row's values are quantised, 32 by 32, a lane each. */
DEV void bytes_write_q(device_ptr<float> to, device_ptr<const float> q, uint32_t dim)
{
    uint32_t lane = lane_index(), n_blocks = (dim + 31) / 32;

    UNROLL_NOT
    for (uint32_t b = 0; b < n_blocks; b++) {
        float x = 32 * b + lane < dim ? (float)q[32 * b + lane] : 0.0f, most, inverse;
        uint32_t bits = float_bits(x) & 0x7FFFFFFFu;

        UNROLL
        for (uint32_t i = 16; i > 0; i /= 2) {
            uint32_t other = shuffle_xor(bits, i);

            bits = other > bits ? other : bits;
        }
        most = bits_to_float(bits);
        inverse = most > 0x1p-100f ? divide(127.0f, most) : 0.0f;
        recast<uint8_t>(to)[32 * b + lane] = (uint8_t)float_bits(x * inverse + BYTES_ROUNDING);
        if (lane == 0)
            to[8 * n_blocks + b] = divide(most, 127.0f);
    }
}

/* q . K of a tile, a key per lane. */
DEV void bytes_scores(const struct launch_attention &a, const struct rows &r, device_ptr<const uint8_t> k, float s[WARP_ROWS])
{
    uint32_t lane = lane_index(), n_blocks = (a.kv.k_dim + 31) / 32;

    UNROLL_NOT
    for (uint32_t b = 0; b < n_blocks; b++, k += BYTES_BLOCK) {
        float d = half_float(recast<const uint16_t>(k)[lane]);
        int sum[WARP_ROWS];

        UNROLL
        for (uint32_t i = 0; i < WARP_ROWS; i++)
            sum[i] = 0;
        UNROLL
        for (uint32_t step = 0; step < 8; step++) {
            uint32_t word = recast<const uint32_t>(k + BYTES_CODES + step * BYTES_STEP)[lane];

            UNROLL
            for (uint32_t i = 0; i < WARP_ROWS; i++)
                if (i < r.n)
                    sum[i] = dot4((int)(word ^ 0x80808080u), recast<int>(r.q + i * r.q_stride)[8 * b + step], sum[i]);
        }
        UNROLL
        for (uint32_t i = 0; i < WARP_ROWS; i++)
            if (i < r.n)
                s[i] = fused((float)sum[i], r.q[i * r.q_stride + 8 * n_blocks + b] * d, s[i]);
    }
}

/*
 * What the keys' weights are in units of, times BYTES_WEIGHT_MAX: the largest d of those that the row sees. NaN if one of
 * them is: that would be lost in a maximum, but not in a sum.
 */
DEV float bytes_largest(float d)
{
    float most = d, sum = d;

    UNROLL
    for (uint32_t i = 16; i > 0; i /= 2) {
        most = math_max(most, shuffle_xor(most, i));
        sum += shuffle_xor(sum, i);
    }
    return most + 0.0f * sum;
}

/* acc = acc * correction + p . V; @p: of the lane's key. */
DEV void bytes_values(const struct launch_attention &a, const struct rows &r, device_ptr<const uint8_t> v, uint32_t tile0,
                      const bool sees[WARP_ROWS], const float p[WARP_ROWS], const float correction[WARP_ROWS],
                      const float factor[WARP_ROWS])
{
    uint32_t lane = lane_index(), key = tile0 + lane;
    bool is_whole = true; /* all rows see all keys */

    UNROLL
    for (uint32_t i = 0; i < WARP_ROWS; i++)
        is_whole = is_whole && (i >= r.n || (r.low_position[i] <= tile0 && r.position[i] >= tile0 + TILE - 1));
    UNROLL_NOT
    for (uint32_t b = 0; b < a.kv.v_stride / 32; b++, v += BYTES_BLOCK) {
        float d = half_float(recast<const uint16_t>(v)[lane]), ratio = 0.0f, unit[WARP_ROWS];
        int sum[WARP_ROWS], low[WARP_ROWS];

        UNROLL
        for (uint32_t i = 0; i < WARP_ROWS; i++) {
            if (i == 0 || !is_whole) {
                float x = key >= r.low_position[i] && key <= r.position[i] ? d : 0.0f, most = bytes_largest(x);

                ratio = x * (most > 0.0f ? divide(BYTES_WEIGHT_MAX, most) : 0.0f);
                unit[i] = divide(most, BYTES_WEIGHT_MAX);
            } else {
                unit[i] = unit[0];
            }
            if (i < r.n) {
                uint32_t weight = float_bits(fused(p[i], ratio, BYTES_ROUNDING)) & 0x3FFF;

                recast<uint8_t>(r.p + i * TILE)[lane] = (uint8_t)(weight >> 7);
                recast<uint8_t>(r.p + i * TILE)[32 + lane] = (uint8_t)(weight & 127);
            }
            sum[i] = low[i] = 0;
        }
        warp_sync();
        UNROLL
        for (uint32_t step = 0; step < 8; step++) {
            int word = recast<const int>(v + BYTES_CODES + step * BYTES_STEP)[lane];

            UNROLL
            for (uint32_t i = 0; i < WARP_ROWS; i++)
                if (i < r.n) {
                    sum[i] = dot4(recast<const int>(r.p + i * TILE)[step], word, sum[i]);
                    low[i] = dot4(recast<const int>(r.p + i * TILE)[8 + step], word, low[i]);
                }
        }
        UNROLL
        for (uint32_t i = 0; i < WARP_ROWS; i++) {
            uint32_t at = i * a.kv.v_stride + 32 * b + lane;

            if (i < r.n && sees[i])
                r.acc[at] = fused((float)(sum[i] * 128 + low[i]), factor[i] * unit[i], r.acc[at] * correction[i]);
        }
        warp_sync();
    }
}
