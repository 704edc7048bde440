/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * 16 int32 sums of products of small integers, one at a time: the reference for ints-avx2.h, ints-avx512.h and ints-vnni.h,
 * and the only place that says what the functions do. All sums are exact, so every order gives the same bits.
 *
 * A "word" is 32 bits with the codes of DOT_VALUES neighbours: 4 bytes where an instruction multiplies those, else 2 int16.
 */

#include <string.h>

#define DOT_VALUES    2
#define WEIGHT_DIGITS 1

typedef struct {
    int32_t at[LANES];
} ints;

LANES_INLINE ints ints_set(int32_t x)
{
    ints r;

    LANES_EACH r.at[i] = x;
    return r;
}

/* 16 words. */
LANES_INLINE ints ints_load(const void *p)
{
    ints r;

    memcpy(&r, p, sizeof(r));
    return r;
}

/* The word at @p, 16 times. */
LANES_INLINE ints ints_spread(const void *p)
{
    int32_t word;

    memcpy(&word, p, sizeof(word));
    return ints_set(word);
}

/* sum + the products of the codes of two words. Bytes: the first word's are unsigned, the second one's are signed. */
LANES_INLINE ints ints_dot(ints sum, ints a, ints b)
{
    LANES_EACH
    {
        int16_t x[2], y[2];

        memcpy(x, &a.at[i], sizeof(x));
        memcpy(y, &b.at[i], sizeof(y));
        sum.at[i] += x[0] * y[0] + x[1] * y[1];
    }
    return sum;
}

LANES_INLINE lanes lanes_from_ints(ints a)
{
    lanes r;

    LANES_EACH r.at[i] = (float)a.at[i];
    return r;
}

/*
 * The lowest 14 bits of each of 32 floats' bits, as words: WEIGHT_DIGITS times 32 codes, the upper 7 bits first where they
 * are two bytes. A sum of all digits' products is that of the first, ints_next_digit(), and the others added to it.
 */
LANES_INLINE void words_from_weights(void *to, lanes a, lanes b)
{
    int16_t low[2 * LANES];

    LANES_EACH low[i] = (int16_t)(float_to_bits(a.at[i]) & 0x3FFF);
    LANES_EACH low[LANES + i] = (int16_t)(float_to_bits(b.at[i]) & 0x3FFF);
    memcpy(to, low, sizeof(low));
}

LANES_INLINE ints ints_next_digit(ints a)
{
    LANES_EACH a.at[i] *= 128;
    return a;
}

/* 16 times 4 bytes, signed or, if @biased, 128 more than they stand for: the first two of each as a word, and the others. */
LANES_INLINE void words_from_bytes(const uint8_t *from, bool biased, void *first, void *second)
{
    int16_t x[2 * LANES], y[2 * LANES];

    for (uint32_t i = 0; i < 2 * LANES; i++) {
        uint8_t low = from[i / 2 * 4 + i % 2], high = from[i / 2 * 4 + 2 + i % 2];

        x[i] = (int16_t)(biased ? low - 128 : (int8_t)low);
        y[i] = (int16_t)(biased ? high - 128 : (int8_t)high);
    }
    memcpy(first, x, sizeof(x));
    memcpy(second, y, sizeof(y));
}
