/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The IQ1, IQ2 and IQ3 types, as in engine/kernels/decode-grid.c: indices into code books that lie in the GPU's memory.
 * See blocks.cuh.
 */

#include "engine/cuda/device/blocks.cuh"

#define GRID_TABLE DEV_TABLE
#include "engine/kernels/grids-data.inc"

/* Seven signs are stored, the eighth makes their number even. */
DEV uint32_t eight_signs(uint32_t seven)
{
    return seven | (count_bits(seven) & 1u) << 7;
}

DEV void put_eight(int *q, uint64_t entry, uint32_t signs)
{
    q[0] = with_signs((uint32_t)entry, signs);
    q[1] = with_signs((uint32_t)(entry >> 32), signs >> 4);
}

DEV int odd_scale(uint32_t s)
{
    return (int)(2 * (s & 15) + 1);
}

/* Two scales of 16 values each in a byte. */
DEV void two_scales(struct chunk *r, uint32_t byte)
{
    r->scale[0] = odd_scale(byte);
    r->scale[1] = odd_scale(byte >> 4);
    r->min[0] = r->min[1] = 0;
}

#define FACTOR(at, factor)                                                                                         \
    DEV float d(block_ptr b)                                                                                       \
    {                                                                                                              \
        return float_at(b + at) * factor;                                                                          \
    }                                                                                                              \
                                                                                                                   \
    DEV float dmin(block_ptr b)                                                                                    \
    {                                                                                                              \
        return 0.0f;                                                                                               \
    }

struct format_iq2_xxs {
    FORMAT_256(IQ2_XXS, 66, 0, 0);
    FACTOR(0, 0.125f)

    DEV void decode(block_ptr b, uint32_t c, struct chunk *r)
    {
        uint32_t index = word_at<2>(b + 2 + 8 * c), word = word_at<2>(b + 6 + 8 * c);

        one_scale(r, odd_scale(word >> 28), 0);
        UNROLL
        for (int l = 0; l < 4; l++)
            put_eight(r->q + 2 * l, grid_iq2_xxs[index >> 8 * l & 255], eight_signs(word >> 7 * l & 127));
    }
};

struct format_iq2_xs {
    FORMAT_256(IQ2_XS, 74, 1, 0);
    FACTOR(0, 0.125f)

    DEV void decode(block_ptr b, uint32_t c, struct chunk *r)
    {
        two_scales(r, b[66 + c]);
        UNROLL
        for (int l = 0; l < 4; l++) {
            uint32_t word = half_at(b + 2 + 8 * c + 2 * l);

            put_eight(r->q + 2 * l, grid_iq2_xs[word & 511], eight_signs(word >> 9));
        }
    }
};

struct format_iq2_s {
    FORMAT_256(IQ2_S, 82, 1, 0);
    FACTOR(0, 0.125f)

    DEV void decode(block_ptr b, uint32_t c, struct chunk *r)
    {
        uint32_t index = word_at<2>(b + 2 + 4 * c), signs = word_at<2>(b + 34 + 4 * c), high = b[66 + c];

        two_scales(r, b[74 + c]);
        UNROLL
        for (int l = 0; l < 4; l++)
            put_eight(r->q + 2 * l, grid_iq2_s[(index >> 8 * l & 255) | (high >> 2 * l & 3) << 8], signs >> 8 * l & 255);
    }
};

struct format_iq3_xxs {
    FORMAT_256(IQ3_XXS, 98, 0, 0);
    FACTOR(0, 0.25f)

    DEV void decode(block_ptr b, uint32_t c, struct chunk *r)
    {
        uint32_t word = word_at<2>(b + 66 + 4 * c);

        one_scale(r, odd_scale(word >> 28), 0);
        UNROLL
        for (int l = 0; l < 8; l++)
            r->q[l] = with_signs(grid_iq3_xxs[b[2 + 8 * c + l]], eight_signs(word >> l / 2 * 7 & 127) >> l % 2 * 4);
    }
};

struct format_iq3_s {
    FORMAT_256(IQ3_S, 110, 0, 0);
    FACTOR(0, 1.0f)

    DEV void decode(block_ptr b, uint32_t c, struct chunk *r)
    {
        uint32_t high = b[66 + c], signs = word_at<2>(b + 74 + 4 * c);

        one_scale(r, odd_scale((uint32_t)b[106 + c / 2] >> c % 2 * 4), 0);
        UNROLL
        for (int l = 0; l < 8; l++)
            r->q[l] = with_signs(grid_iq3_s[(uint32_t)b[2 + 8 * c + l] | (high >> l & 1) << 8], signs >> 4 * l);
    }
};

/* Four values of -8, 0 and 8, and one that goes to all of them: 17 more while they are added, so that no byte borrows. */
DEV int ternary(uint32_t entry, uint32_t down)
{
    return minus((entry ^ 0x80808080u) - 0x70707070u + (down ? 0u : 0x02020202u), 17);
}

DEV void put_ternary(int *q, uint32_t index, uint32_t down)
{
    uint64_t entry = grid_iq1[index];

    q[0] = ternary((uint32_t)entry, down);
    q[1] = ternary((uint32_t)(entry >> 32), down);
}

struct format_iq1_s {
    FORMAT_256(IQ1_S, 50, 0, 0);
    FACTOR(0, 0.125f)

    DEV void decode(block_ptr b, uint32_t c, struct chunk *r)
    {
        uint32_t index = word_at<2>(b + 2 + 4 * c), word = half_at(b + 34 + 2 * c);

        one_scale(r, odd_scale(word >> 12 & 7), 0);
        UNROLL
        for (int l = 0; l < 4; l++)
            put_ternary(r->q + 2 * l, (index >> 8 * l & 255) | (word >> 3 * l & 7) << 8, word >> 15);
    }
};

struct format_iq1_m {
    FORMAT_256(IQ1_M, 56, 1, 0);

    /* Spread over the top nibbles of the four words of scales. */
    DEV float d(block_ptr b)
    {
        uint32_t bits = 0;

        UNROLL
        for (int j = 0; j < 4; j++)
            bits |= half_at(b + 48 + 2 * j) >> 12 << 4 * j;
        return half_float((uint16_t)bits) * 0.125f;
    }

    DEV float dmin(block_ptr b)
    {
        return 0.0f;
    }

    DEV void decode(block_ptr b, uint32_t c, struct chunk *r)
    {
        uint32_t word = half_at(b + 48 + c / 2 * 2), index = word_at<4>(b + 4 * c);

        UNROLL
        for (uint32_t h = 0; h < 2; h++) {
            r->scale[h] = odd_scale(word >> (2 * c + h) % 4 * 3 & 7);
            r->min[h] = 0;
        }
        UNROLL
        for (uint32_t l = 0; l < 4; l++) {
            uint32_t nibble = (uint32_t)b[32 + 2 * c + l / 2] >> l % 2 * 4 & 15;

            put_ternary(r->q + 2 * l, (index >> 8 * l & 255) | (nibble & 7) << 8, nibble >> 3);
        }
    }
};
