/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the bits of each quantised type mean, 32 values at a time: engine/kernels/decode.c for the GPU, four values in a
 * word. One struct a type:
 *     bytes, values  of a block (engine/gguf/blocks.h); halves: scales are of 16 values, else of 32; mins: it has them
 *     d(), dmin()    the factors of a block
 *     decode()       chunk c (values 32 c … 32 c + 31) of a block
 * A block lies at a multiple of the largest power of two that divides its size, at most 16: matrices and rows do.
 */

#include "engine/cuda/device/device.cuh"

struct chunk {
    int q[8];     /* signed bytes, ascending */
    int scale[2]; /* of the halves; the same twice, where a scale is of 32 values */
    int min[2];
};

typedef device_ptr<const uint8_t> block_ptr;

/* --- small steps --- */

template <uint32_t ALIGN> DEV uint32_t word_at(block_ptr p)
{
    if (ALIGN >= 4)
        return *recast<const uint32_t>(p);
    if (ALIGN == 2) {
        device_ptr<const uint16_t> h = recast<const uint16_t>(p);

        return (uint32_t)h[0] | (uint32_t)h[1] << 16;
    }
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

DEV uint32_t half_at(block_ptr p)
{
    return *recast<const uint16_t>(p);
}

DEV float float_at(block_ptr p)
{
    return half_float((uint16_t)half_at(p));
}

/* Four bytes below 128, each less n (at most 128). */
DEV int minus(uint32_t bytes, uint32_t n)
{
    return (int)(((bytes | 0x80808080u) - n * 0x01010101u) ^ 0x80808080u);
}

/* Bits 0 … 3 to the lowest bit of four bytes. */
DEV uint32_t spread(uint32_t bits)
{
    return ((bits & 15u) * 0x00204081u) & 0x01010101u;
}

/* Four bytes, negated where the bit is set; none of them is 0. */
DEV int with_signs(uint32_t bytes, uint32_t bits)
{
    uint32_t ones = spread(bits);

    return (int)((bytes ^ ones * 255u) + ones);
}

/* Four bytes below 16 to the entries of a table of 16 bytes. */
DEV int look_up(uint32_t bytes, uint32_t t0, uint32_t t1, uint32_t t2, uint32_t t3)
{
    uint32_t index = bytes & 0x07070707u, upper = ((bytes >> 3) & 0x01010101u) * 255u, low, high;

    index = (index | index >> 4) & 0x00FF00FFu;
    index = (index | index >> 8) & 0xFFFFu;
    low = permute_bytes(t0, t1, index);
    high = permute_bytes(t2, t3, index);
    return (int)(low ^ ((low ^ high) & upper));
}

/* -127 -104 -83 -65, -49 -35 -22 -10, 1 13 25 38, 53 69 89 113 */
DEV int iq4_values(uint32_t bytes)
{
    return look_up(bytes, 0xBFAD9881u, 0xF6EADDCFu, 0x26190D01u, 0x71594535u);
}

/* 0 1 2 3, 4 6 8 12, and their negatives */
DEV int mxfp4_values(uint32_t bytes)
{
    return look_up(bytes, 0x03020100u, 0x0C080604u, 0xFDFEFF00u, 0xF4F8FAFCu);
}

DEV void one_scale(struct chunk *r, int scale, int min)
{
    r->scale[0] = r->scale[1] = scale;
    r->min[0] = r->min[1] = min;
}

/* Where most formats have a block's scale, and the factor of its mins: floats of 16 bits, AT bytes from its beginning. */
template <int AT>
struct scale_at {
    DEV float d(block_ptr b)
    {
        return float_at(b + AT);
    }

    DEV float dmin(block_ptr b)
    {
        return 0.0f;
    }
};

/* SIGN -1: the format adds what the rule of sums subtracts. */
template <int AT, int MIN_AT, int SIGN>
struct scale_and_min_at {
    DEV float d(block_ptr b)
    {
        return float_at(b + AT);
    }

    DEV float dmin(block_ptr b)
    {
        return SIGN < 0 ? -float_at(b + MIN_AT) : float_at(b + MIN_AT);
    }
};

/* --- blocks of 32 --- */

#define FORMAT_32(name, n_bytes, has_mins)                                                                         \
    enum { type = TENSOR_##name, bytes = n_bytes, values = 32, halves = 0, mins = has_mins }

struct format_q4_0 : scale_at<0> {
    FORMAT_32(Q4_0, 18, 0);

    DEV void decode(block_ptr b, uint32_t c, struct chunk *r)
    {
        one_scale(r, 1, 0);
        UNROLL
        for (int i = 0; i < 4; i++) {
            uint32_t w = word_at<2>(b + 2 + 4 * i);

            r->q[i] = minus(w & 0x0F0F0F0Fu, 8);
            r->q[i + 4] = minus(w >> 4 & 0x0F0F0F0Fu, 8);
        }
    }
};

struct format_q4_1 : scale_and_min_at<0, 2, -1> {
    FORMAT_32(Q4_1, 20, 1);

    DEV void decode(block_ptr b, uint32_t c, struct chunk *r)
    {
        one_scale(r, 1, 1);
        UNROLL
        for (int i = 0; i < 4; i++) {
            uint32_t w = word_at<4>(b + 4 + 4 * i);

            r->q[i] = (int)(w & 0x0F0F0F0Fu);
            r->q[i + 4] = (int)(w >> 4 & 0x0F0F0F0Fu);
        }
    }
};

struct format_q5_0 : scale_at<0> {
    FORMAT_32(Q5_0, 22, 0);

    DEV void decode(block_ptr b, uint32_t c, struct chunk *r)
    {
        uint32_t fifth = word_at<2>(b + 2);

        one_scale(r, 1, 0);
        UNROLL
        for (int i = 0; i < 4; i++) {
            uint32_t w = word_at<2>(b + 6 + 4 * i);

            r->q[i] = minus((w & 0x0F0F0F0Fu) | spread(fifth >> 4 * i) << 4, 16);
            r->q[i + 4] = minus((w >> 4 & 0x0F0F0F0Fu) | spread(fifth >> (16 + 4 * i)) << 4, 16);
        }
    }
};

struct format_q5_1 : scale_and_min_at<0, 2, -1> {
    FORMAT_32(Q5_1, 24, 1);

    DEV void decode(block_ptr b, uint32_t c, struct chunk *r)
    {
        uint32_t fifth = word_at<4>(b + 4);

        one_scale(r, 1, 1);
        UNROLL
        for (int i = 0; i < 4; i++) {
            uint32_t w = word_at<4>(b + 8 + 4 * i);

            r->q[i] = (int)((w & 0x0F0F0F0Fu) | spread(fifth >> 4 * i) << 4);
            r->q[i + 4] = (int)((w >> 4 & 0x0F0F0F0Fu) | spread(fifth >> (16 + 4 * i)) << 4);
        }
    }
};

struct format_q8_0 : scale_at<0> {
    FORMAT_32(Q8_0, 34, 0);

    DEV void decode(block_ptr b, uint32_t c, struct chunk *r)
    {
        one_scale(r, 1, 0);
        UNROLL
        for (int i = 0; i < 8; i++)
            r->q[i] = (int)word_at<2>(b + 2 + 4 * i);
    }
};

struct format_iq4_nl : scale_at<0> {
    FORMAT_32(IQ4_NL, 18, 0);

    DEV void decode(block_ptr b, uint32_t c, struct chunk *r)
    {
        one_scale(r, 1, 0);
        UNROLL
        for (int i = 0; i < 4; i++) {
            uint32_t w = word_at<2>(b + 2 + 4 * i);

            r->q[i] = iq4_values(w & 0x0F0F0F0Fu);
            r->q[i + 4] = iq4_values(w >> 4 & 0x0F0F0F0Fu);
        }
    }
};

struct format_mxfp4 {
    FORMAT_32(MXFP4, 17, 0);

    /* 2^(e - 128), subnormal for 0 and 1 */
    DEV float d(block_ptr b)
    {
        uint32_t e = b[0];

        return bits_to_float(e < 2 ? 0x00200000u << e : (e - 1) << 23);
    }

    DEV float dmin(block_ptr b)
    {
        return 0.0f;
    }

    DEV void decode(block_ptr b, uint32_t c, struct chunk *r)
    {
        one_scale(r, 1, 0);
        UNROLL
        for (int i = 0; i < 4; i++) {
            uint32_t w = word_at<1>(b + 1 + 4 * i);

            r->q[i] = mxfp4_values(w & 0x0F0F0F0Fu);
            r->q[i + 4] = mxfp4_values(w >> 4 & 0x0F0F0F0Fu);
        }
    }
};

/* --- blocks of 256 --- */

#define FORMAT_256(name, n_bytes, has_halves, has_mins)                                                            \
    enum { type = TENSOR_##name, bytes = n_bytes, values = 256, halves = has_halves, mins = has_mins }

struct format_q2_k : scale_and_min_at<80, 82, 1> {
    FORMAT_256(Q2_K, 84, 1, 1);

    DEV void decode(block_ptr b, uint32_t c, struct chunk *r)
    {
        uint32_t s = half_at(b + 2 * c);

        r->scale[0] = (int)(s & 15);
        r->min[0] = (int)(s >> 4 & 15);
        r->scale[1] = (int)(s >> 8 & 15);
        r->min[1] = (int)(s >> 12);
        UNROLL
        for (int i = 0; i < 8; i++)
            r->q[i] = (int)(word_at<4>(b + 16 + c / 4 * 32 + 4 * i) >> c % 4 * 2 & 0x03030303u);
    }
};

struct format_q3_k : scale_at<108> {
    FORMAT_256(Q3_K, 110, 1, 0);

    DEV void decode(block_ptr b, uint32_t c, struct chunk *r)
    {
        UNROLL
        for (uint32_t h = 0; h < 2; h++) {
            uint32_t j = 2 * c + h, low = (uint32_t)b[96 + j % 8] >> j / 8 * 4 & 15;

            r->scale[h] = (int)(low | ((uint32_t)b[104 + j % 4] >> j / 4 * 2 & 3) << 4) - 32;
            r->min[h] = 0;
        }
        UNROLL
        for (int i = 0; i < 8; i++) {
            uint32_t low = word_at<2>(b + 32 + c / 4 * 32 + 4 * i) >> c % 4 * 2 & 0x03030303u;

            r->q[i] = minus(low | (word_at<2>(b + 4 * i) >> c & 0x01010101u) << 2, 4);
        }
    }
};

/* Scale and min of sub-block j of Q4_K and Q5_K, from 12 bytes. */
DEV void six_bits(block_ptr s, uint32_t j, struct chunk *r)
{
    if (j < 4)
        one_scale(r, s[j] & 63, s[j + 4] & 63);
    else
        one_scale(r, (s[j + 4] & 15) | (s[j - 4] >> 6) << 4, (s[j + 4] >> 4) | (s[j] >> 6) << 4);
}

struct format_q4_k : scale_and_min_at<0, 2, 1> {
    FORMAT_256(Q4_K, 144, 0, 1);

    DEV void decode(block_ptr b, uint32_t c, struct chunk *r)
    {
        six_bits(b + 4, c, r);
        UNROLL
        for (int i = 0; i < 2; i++) {
            struct words4 w = *recast<const struct words4>(b + 16 + c / 2 * 32 + 16 * i);

            UNROLL
            for (int k = 0; k < 4; k++)
                r->q[4 * i + k] = (int)(w.at[k] >> c % 2 * 4 & 0x0F0F0F0Fu);
        }
    }
};

struct format_q5_k : scale_and_min_at<0, 2, 1> {
    FORMAT_256(Q5_K, 176, 0, 1);

    DEV void decode(block_ptr b, uint32_t c, struct chunk *r)
    {
        six_bits(b + 4, c, r);
        UNROLL
        for (int i = 0; i < 2; i++) {
            struct words4 w = *recast<const struct words4>(b + 48 + c / 2 * 32 + 16 * i);
            struct words4 fifth = *recast<const struct words4>(b + 16 + 16 * i);

            UNROLL
            for (int k = 0; k < 4; k++)
                r->q[4 * i + k] = (int)((w.at[k] >> c % 2 * 4 & 0x0F0F0F0Fu) | (fifth.at[k] >> c & 0x01010101u) << 4);
        }
    }
};

struct format_q6_k : scale_at<208> {
    FORMAT_256(Q6_K, 210, 1, 0);

    DEV void decode(block_ptr b, uint32_t c, struct chunk *r)
    {
        uint32_t half = c / 4, quarter = c % 4, s = half_at(b + 192 + 2 * c);

        r->scale[0] = (int8_t)(s & 255);
        r->scale[1] = (int8_t)(s >> 8);
        r->min[0] = r->min[1] = 0;
        UNROLL
        for (int i = 0; i < 8; i++) {
            uint32_t low = word_at<2>(b + half * 64 + quarter % 2 * 32 + 4 * i) >> quarter / 2 * 4 & 0x0F0F0F0Fu;

            r->q[i] = minus(low | (word_at<2>(b + 128 + half * 32 + 4 * i) >> 2 * quarter & 0x03030303u) << 4, 32);
        }
    }
};

struct format_iq4_xs : scale_at<0> {
    FORMAT_256(IQ4_XS, 136, 0, 0);

    DEV void decode(block_ptr b, uint32_t c, struct chunk *r)
    {
        uint32_t low = (uint32_t)b[4 + c / 2] >> c % 2 * 4 & 15;

        one_scale(r, (int)(low | (half_at(b + 2) >> 2 * c & 3) << 4) - 32, 0);
        UNROLL
        for (int i = 0; i < 4; i++) {
            uint32_t w = word_at<4>(b + 8 + 16 * c + 4 * i);

            r->q[i] = iq4_values(w & 0x0F0F0F0Fu);
            r->q[i + 4] = iq4_values(w >> 4 & 0x0F0F0F0Fu);
        }
    }
};

struct format_tq2_0 : scale_at<64> {
    FORMAT_256(TQ2_0, 66, 0, 0);

    DEV void decode(block_ptr b, uint32_t c, struct chunk *r)
    {
        one_scale(r, 1, 0);
        UNROLL
        for (int i = 0; i < 8; i++)
            r->q[i] = minus(word_at<2>(b + c / 4 * 32 + 4 * i) >> c % 4 * 2 & 0x03030303u, 1);
    }
};

struct format_tq1_0 : scale_at<52> {
    FORMAT_256(TQ1_0, 54, 0, 0);

    /* Digit n of a byte that is a fraction of 256 in base three. */
    DEV uint32_t digit(uint32_t byte, uint32_t n)
    {
        uint32_t power = n == 0 ? 1 : n == 1 ? 3 : n == 2 ? 9 : n == 3 ? 27 : 81;

        return (byte * power & 255) * 3 >> 8;
    }

    DEV uint32_t value(block_ptr b, uint32_t i)
    {
        if (i < 160)
            return digit(b[i % 32], i / 32);
        if (i < 240)
            return digit(b[32 + (i - 160) % 16], (i - 160) / 16);
        return digit(b[48 + (i - 240) % 4], (i - 240) / 4);
    }

    DEV void decode(block_ptr b, uint32_t c, struct chunk *r)
    {
        one_scale(r, 1, 0);
        UNROLL
        for (uint32_t i = 0; i < 8; i++) {
            uint32_t w = 0;

            UNROLL
            for (uint32_t k = 0; k < 4; k++)
                w |= value(b, 32 * c + 4 * i + k) << 8 * k;
            r->q[i] = minus(w, 1);
        }
    }
};
