/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The meaning of the IQ1, IQ2, IQ3 and TQ types. An index stands for a group of four or eight magnitudes (grids.h);
 * signs and scales lie beside the indices. The formats' scales are odd multiples of d / 8 (or d / 4, or d), so that all
 * products stay exact.
 */
#include "engine/kernels/decode-grid.h"

#include <string.h>

#include "engine/gguf/blocks.h"
#include "engine/gguf/half.h"
#include "engine/kernels/grids.h"

static void set_shape(struct decoded_block *ret, uint32_t sub_values, float d)
{
    ret->n_values = BLOCK_256;
    ret->sub_values = sub_values;
    ret->has_min = false;
    ret->d = d;
    ret->dmin = 0.0f;
    for (uint32_t j = 0; j < 16; j++)
        ret->min[j] = 0;
}

static uint32_t load_32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t load_16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

/* @n magnitudes of an entry; bit i of @signs: the i-th is negative. */
static void put_entry(int16_t *q, uint32_t n, uint64_t entry, uint32_t signs)
{
    for (uint32_t i = 0; i < n; i++) {
        int value = (int)(entry >> 8 * i & 255);

        q[i] = (int16_t)(signs >> i & 1 ? -value : value);
    }
}

static int16_t odd(uint32_t scale)
{
    return (int16_t)(2 * scale + 1);
}

/* Per 32 values: four indices, then a word of four times seven signs and a scale in its top four bits. */
void decode_iq2_xxs(const void *src, struct decoded_block *ret)
{
    const struct block_iq2_xxs *b = src;

    set_shape(ret, 32, half_to_float(b->d) * 0.125f);
    for (uint32_t j = 0; j < 8; j++) {
        const uint8_t *index = b->qs + 8 * j;
        uint32_t word = load_32(index + 4);

        ret->scale[j] = odd(word >> 28);
        for (uint32_t l = 0; l < 4; l++)
            put_entry(ret->q + 32 * j + 8 * l, 8, grid_iq2_xxs[index[l]], grid_signs(word >> 7 * l & 127));
    }
}

/* Per 8 values a word: an index of nine bits and seven signs. */
void decode_iq2_xs(const void *src, struct decoded_block *ret)
{
    const struct block_iq2_xs *b = src;

    set_shape(ret, 16, half_to_float(b->d) * 0.125f);
    for (uint32_t j = 0; j < 16; j++)
        ret->scale[j] = odd((uint32_t)b->scales[j / 2] >> j % 2 * 4 & 15);
    for (uint32_t i = 0; i < 32; i++) {
        uint32_t word = load_16(b->qs + 2 * i);

        put_entry(ret->q + 8 * i, 8, grid_iq2_xs[word & 511], grid_signs(word >> 9));
    }
}

/* Per 8 values: eight bits of an index, two more in qh, and eight signs. */
void decode_iq2_s(const void *src, struct decoded_block *ret)
{
    const struct block_iq2_s *b = src;

    set_shape(ret, 16, half_to_float(b->d) * 0.125f);
    for (uint32_t j = 0; j < 16; j++)
        ret->scale[j] = odd((uint32_t)b->scales[j / 2] >> j % 2 * 4 & 15);
    for (uint32_t i = 0; i < 32; i++) {
        uint32_t high = (uint32_t)b->qh[i / 4] >> i % 4 * 2 & 3;

        put_entry(ret->q + 8 * i, 8, grid_iq2_s[b->qs[i] | high << 8], b->signs[i]);
    }
}

/* 64 indices of four values each; then, per 32 values, signs and scale as in IQ2_XXS. */
void decode_iq3_xxs(const void *src, struct decoded_block *ret)
{
    const struct block_iq3_xxs *b = src;

    set_shape(ret, 32, half_to_float(b->d) * 0.25f);
    for (uint32_t j = 0; j < 8; j++) {
        uint32_t word = load_32(b->signs + 4 * j);

        ret->scale[j] = odd(word >> 28);
        for (uint32_t l = 0; l < 8; l++)
            put_entry(ret->q + 32 * j + 4 * l, 4, grid_iq3_xxs[b->qs[8 * j + l]],
                      grid_signs(word >> l / 2 * 7 & 127) >> l % 2 * 4);
    }
}

/* Indices of nine bits, the ninth in qh; all signs. */
void decode_iq3_s(const void *src, struct decoded_block *ret)
{
    const struct block_iq3_s *b = src;

    set_shape(ret, 32, half_to_float(b->d));
    for (uint32_t j = 0; j < 8; j++)
        ret->scale[j] = odd((uint32_t)b->scales[j / 2] >> j % 2 * 4 & 15);
    for (uint32_t i = 0; i < 64; i++) {
        uint32_t high = (uint32_t)b->qh[i / 8] >> i % 8 & 1;

        put_entry(ret->q + 4 * i, 4, grid_iq3_s[b->qs[i] | high << 8], (uint32_t)b->signs[i / 2] >> i % 2 * 4);
    }
}

/* Eight values of -8, 0 and 8, and one that goes to all of them. */
static void put_ternary(int16_t *q, uint32_t index, bool down)
{
    for (uint32_t i = 0; i < 8; i++)
        q[i] = (int16_t)((int8_t)(grid_iq1[index] >> 8 * i & 255) + (down ? -1 : 1));
}

/* Per 32 values a word: three more bits for each of four indices, a scale of three bits, and the direction. */
void decode_iq1_s(const void *src, struct decoded_block *ret)
{
    const struct block_iq1_s *b = src;

    set_shape(ret, 32, half_to_float(b->d) * 0.125f);
    for (uint32_t j = 0; j < 8; j++) {
        uint32_t word = load_16(b->qh + 2 * j);

        ret->scale[j] = odd(word >> 12 & 7);
        for (uint32_t l = 0; l < 4; l++)
            put_ternary(ret->q + 32 * j + 8 * l, b->qs[4 * j + l] | (word >> 3 * l & 7) << 8, word >> 15);
    }
}

/* Per 8 values a nibble of qh: three bits of the index and the direction. d lies in the top nibbles of the scales. */
void decode_iq1_m(const void *src, struct decoded_block *ret)
{
    const struct block_iq1_m *b = src;
    uint32_t d = 0;

    for (uint32_t j = 0; j < 4; j++)
        d |= load_16(b->scales + 2 * j) >> 12 << 4 * j;
    set_shape(ret, 16, half_to_float((uint16_t)d) * 0.125f);
    for (uint32_t j = 0; j < 16; j++)
        ret->scale[j] = odd(load_16(b->scales + j / 4 * 2) >> j % 4 * 3 & 7);
    for (uint32_t i = 0; i < 32; i++) {
        uint32_t nibble = (uint32_t)b->qh[i / 2] >> i % 2 * 4 & 15;

        put_ternary(ret->q + 8 * i, b->qs[i] | (nibble & 7) << 8, nibble >> 3);
    }
}

/* Digit @n of a byte that is a fraction of 256 in base three: what three times the fraction's rest carries over. */
static int16_t digit(uint8_t byte, uint32_t n)
{
    static const uint8_t powers[5] = {1, 3, 9, 27, 81};

    return (int16_t)(((uint8_t)(byte * powers[n]) * 3 >> 8) - 1);
}

static void set_ternary(struct decoded_block *ret, uint16_t d)
{
    set_shape(ret, 32, half_to_float(d));
    for (uint32_t j = 0; j < 8; j++)
        ret->scale[j] = 1;
}

/* Five digits a byte: of 32 bytes the first digits, then the second, ...; the same of 16 bytes; of 4 bytes four. */
void decode_tq1_0(const void *src, struct decoded_block *ret)
{
    const struct block_tq1_0 *b = src;

    set_ternary(ret, b->d);
    for (uint32_t i = 0; i < 160; i++)
        ret->q[i] = digit(b->qs[i % 32], i / 32);
    for (uint32_t i = 0; i < 80; i++)
        ret->q[160 + i] = digit(b->qs[32 + i % 16], i / 16);
    for (uint32_t i = 0; i < 16; i++)
        ret->q[240 + i] = digit(b->qh[i % 4], i / 4);
}

void decode_tq2_0(const void *src, struct decoded_block *ret)
{
    const struct block_tq2_0 *b = src;

    set_ternary(ret, b->d);
    for (uint32_t i = 0; i < 256; i++)
        ret->q[i] = (int16_t)((b->qs[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3) - 1);
}
