/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * 16 bytes, one at a time: what bytes-sse.h does in a register.
 */

typedef struct {
    uint8_t at[LANES];
} bytes;

LANES_INLINE bytes bytes_load(const uint8_t *p)
{
    bytes r;

    LANES_EACH r.at[i] = p[i];
    return r;
}

/* The low four bits of each byte, and the high ones. */
LANES_INLINE bytes bytes_low(bytes a)
{
    LANES_EACH a.at[i] &= 15;
    return a;
}

LANES_INLINE bytes bytes_high(bytes a)
{
    LANES_EACH a.at[i] >>= 4;
    return a;
}

LANES_INLINE bytes bytes_or(bytes a, bytes b)
{
    LANES_EACH a.at[i] |= b.at[i];
    return a;
}

LANES_INLINE bytes bytes_subtract(bytes a, int n)
{
    LANES_EACH a.at[i] = (uint8_t)(a.at[i] - n);
    return a;
}

/* Bit @bit of each byte, as 16. */
LANES_INLINE bytes bytes_fifth(bytes a, uint32_t bit)
{
    LANES_EACH a.at[i] = (uint8_t)((a.at[i] >> bit & 1) << 4);
    return a;
}

/* Bit i of @bits as 16 in byte i. */
LANES_INLINE bytes bytes_spread(uint32_t bits)
{
    bytes r;

    LANES_EACH r.at[i] = (uint8_t)((bits >> i & 1) << 4);
    return r;
}

/* table[a], for bytes below 16 */
LANES_INLINE bytes bytes_lookup(const int8_t table[16], bytes a)
{
    LANES_EACH a.at[i] = (uint8_t)table[a.at[i] & 15];
    return a;
}

/* Signed bytes as floats. */
LANES_INLINE lanes lanes_from_bytes(bytes a)
{
    lanes r;

    LANES_EACH r.at[i] = (float)(int8_t)a.at[i];
    return r;
}
