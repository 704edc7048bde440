/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * 16-bit floats <-> float32, exact and without any instruction set: both directions handle subnormals, infinities and
 * NaN, and narrowing rounds to nearest, ties to even, as F16C and AVX512-BF16's conversions of normal numbers do. For
 * scalar code and everything that touches single values; kernels convert whole vectors with their own instructions.
 */

#include <stdint.h>
#include <string.h>

static inline float float_from_bits(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

static inline uint32_t float_to_bits(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

/* IEEE binary16 to float: every one of the 65536 patterns is representable, so nothing is rounded. */
static inline float half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = (half >> 10) & 31u;
    uint32_t mantissa = half & 0x3FFu;

    if (exponent == 31)
        /* F16C makes a signalling NaN quiet; so do we, that scalar and vector code agree. */
        return float_from_bits(sign | 0x7F800000u | mantissa << 13 | (mantissa ? 0x400000u : 0));
    if (exponent == 0) {
        /* Subnormal or zero: mantissa * 2^-24; the product is exact and keeps the sign of zero below. */
        float magnitude = (float)mantissa * 0x1p-24f;

        return float_from_bits(sign | float_to_bits(magnitude));
    }
    return float_from_bits(sign | (exponent + 112u) << 23 | mantissa << 13);
}

static inline uint16_t float_to_half(float value)
{
    uint32_t bits = float_to_bits(value);
    uint32_t sign = (bits >> 16) & 0x8000u;
    uint32_t magnitude = bits & 0x7FFFFFFFu;

    if (magnitude > 0x7F800000u)
        return (uint16_t)(sign | 0x7E00u | ((magnitude >> 13) & 0x3FFu));
    if (magnitude >= 0x477FF000u)
        return (uint16_t)(sign | 0x7C00u); /* 65520 and up round to infinity */
    if (magnitude < 0x38800000u) {
        /* Below 2^-14: adding 0.5 puts the subnormal's last place at the float's last place; the addition rounds. */
        float shifted = float_from_bits(magnitude) + 0.5f;

        return (uint16_t)(sign | (float_to_bits(shifted) - 0x3F000000u));
    }
    magnitude += 0xFFFu + ((magnitude >> 13) & 1u);
    return (uint16_t)(sign | (magnitude - 0x38000000u) >> 13);
}

/* E8M0, the scale of the microscaling formats, halved: 2^(e - 128), subnormal for 0 and 1; never infinite or NaN. */
static inline float e8m0_half_to_float(uint8_t e)
{
    return float_from_bits(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

static inline float bf16_to_float(uint16_t bf16)
{
    return float_from_bits((uint32_t)bf16 << 16);
}

static inline uint16_t float_to_bf16(float value)
{
    uint32_t bits = float_to_bits(value);

    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return (uint16_t)(bits >> 16 | 0x40u); /* quiet, and never rounded into infinity */
    return (uint16_t)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}
