/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Per type: where its fp16 scales lie in a block, and how widely the values spread for a scale of 1 when all other bits
 * are random. Spreads were worked out from the formats' formulas (quants, sub-scales and minima taken as uniform) and
 * need to be right within a factor of two only: they keep a random network's activations in range.
 */
#include "tests/model-writer/random_blocks.h"

#include <math.h>
#include <string.h>

struct recipe {
    uint8_t scale_at;
    uint8_t min_at; /* 0: no second fp16 */
    float spread;   /* deviation of the values when the scale is 1 */
    float min;      /* the second fp16 as a multiple of the scale, so that the mean is 0 */
};

static const struct recipe recipes[TENSOR_TYPE_MAX] = {
    /* clang-format off */
    [TENSOR_Q4_0]    = {  0,  0,    4.6f,   0.0f},
    [TENSOR_Q4_1]    = {  0,  2,    4.6f,  -7.5f},
    [TENSOR_Q5_0]    = {  0,  0,    9.2f,   0.0f},
    [TENSOR_Q5_1]    = {  0,  2,    9.2f, -15.5f},
    [TENSOR_Q8_0]    = {  0,  0,   73.9f,   0.0f},
    [TENSOR_IQ4_NL]  = {  0,  0,   70.0f,   0.0f},
    [TENSOR_Q2_K]    = { 80, 82,   14.5f,   1.5f},
    [TENSOR_Q3_K]    = {108,  0,   42.4f,   0.0f},
    [TENSOR_Q4_K]    = {  0,  2,  255.0f,   7.5f},
    [TENSOR_Q5_K]    = {  0,  2,  521.0f,  15.5f},
    [TENSOR_Q6_K]    = {208,  0, 1366.0f,   0.0f},
    [TENSOR_IQ4_XS]  = {  0,  0, 1295.0f,   0.0f},
    [TENSOR_IQ2_XXS] = {  0,  0,   56.0f,   0.0f},
    [TENSOR_IQ2_XS]  = {  0,  0,   56.0f,   0.0f},
    [TENSOR_IQ2_S]   = {  0,  0,   56.0f,   0.0f},
    [TENSOR_IQ3_XXS] = {  0,  0,  120.0f,   0.0f},
    [TENSOR_IQ3_S]   = {  0,  0,  130.0f,   0.0f},
    [TENSOR_IQ1_S]   = {  0,  0,    6.5f,   0.0f},
    [TENSOR_TQ1_0]   = { 52,  0,    0.8f,   0.0f},
    [TENSOR_TQ2_0]   = { 64,  0,    0.7f,   0.0f},
    /* clang-format on */
};

uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15ull;

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    return z ^ z >> 31;
}

/* The sum of four uniform 16-bit numbers, centred; its deviation is 65536 * sqrt(4 / 12). */
float random_normal(uint64_t *state)
{
    uint64_t bits = random_next(state);
    int32_t sum = (int32_t)(bits & 0xFFFF) + (int32_t)(bits >> 16 & 0xFFFF) + (int32_t)(bits >> 32 & 0xFFFF) +
                  (int32_t)(bits >> 48);

    return ((float)sum - 131070.0f) / 37837.2f;
}

/* To nearest for the magnitudes that occur here; what is too small becomes a subnormal or 0, too large the largest. */
static uint16_t half_from_float(float value)
{
    float magnitude = fabsf(value);
    uint16_t sign = value < 0 ? 0x8000 : 0;
    int exponent;
    float fraction;

    if (magnitude >= 65504.0f)
        return sign | 0x7BFF;
    if (magnitude < 6.103515625e-5f)
        return (uint16_t)(sign | (uint16_t)(magnitude * 16777216.0f + 0.5f));
    fraction = frexpf(magnitude, &exponent); /* [0.5, 1) */
    return (uint16_t)(sign | (((uint32_t)(exponent + 13) << 10) + (uint32_t)(fraction * 2048.0f + 0.5f)));
}

void random_blocks_init(struct random_blocks *r, enum tensor_type type, float std, uint64_t seed)
{
    *r = (struct random_blocks){.state = seed, .type = type, .std = std, .block_bytes = tensor_traits(type)->block_bytes};
}

static void put_u16(uint8_t *to, uint16_t value)
{
    memcpy(to, &value, sizeof(value));
}

static void fill_bits(struct random_blocks *r, uint8_t *to, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        uint64_t bits = random_next(&r->state);

        memcpy(to + i, &bits, n - i < 8 ? n - i : 8);
    }
}

static void fill_float(struct random_blocks *r, uint8_t *to)
{
    float value = random_normal(&r->state) * r->std;
    double wide = value;
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    if (r->type == TENSOR_F32)
        memcpy(to, &value, sizeof(value));
    else if (r->type == TENSOR_F64)
        memcpy(to, &wide, sizeof(wide));
    else if (r->type == TENSOR_F16)
        put_u16(to, half_from_float(value));
    else
        put_u16(to, (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16));
}

/* IQ1_M keeps its fp16 scale in the upper four bits of its last four 16-bit words. */
static void put_iq1_m_scale(uint8_t *block, uint16_t scale)
{
    for (int i = 0; i < 4; i++) {
        uint8_t *high = block + 48 + 2 * i + 1;

        *high = (uint8_t)((*high & 0x0F) | (scale >> (4 * i) & 0xF) << 4);
    }
}

/* TQ2_0's quantisers make no 3, which would be 2 beside -1, 0 and 1: it becomes 1. */
static void take_threes(uint8_t *block, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++)
        block[i] = (uint8_t)(block[i] & ~((block[i] & block[i] >> 1 & 0x55) << 1));
}

/* MXFP4's scale is a power of two; its values 0, ½, 1, 1½, 2, 3, 4, 6 and their negatives have a deviation of 2.9. */
static uint8_t mxfp4_exponent(float std)
{
    int exponent;
    float fraction = frexpf(std / 2.9f, &exponent);

    return (uint8_t)(127 + exponent - (fraction < 0.707f));
}

void random_blocks_fill(struct random_blocks *r, uint8_t *to, size_t n_bytes)
{
    const struct recipe *recipe = &recipes[r->type];

    for (size_t at = 0; at < n_bytes; at += r->block_bytes) {
        uint8_t *block = to + at;
        float scale;

        if (r->type == TENSOR_F32 || r->type == TENSOR_F16 || r->type == TENSOR_BF16 || r->type == TENSOR_F64) {
            fill_float(r, block);
            continue;
        }
        fill_bits(r, block, r->block_bytes);
        /* Scales differ by up to a quarter between blocks, so that a kernel that mixes them up shows. */
        scale = 0.875f + 0.25f * (float)(random_next(&r->state) >> 40) / 16777216.0f;
        if (r->type == TENSOR_TQ2_0)
            take_threes(block, recipe->scale_at);
        if (r->type == TENSOR_IQ1_M)
            put_iq1_m_scale(block, half_from_float(scale * r->std / 6.5f));
        else if (r->type == TENSOR_MXFP4)
            block[0] = mxfp4_exponent(scale * r->std);
        else if (recipe->spread > 0)
            put_u16(block + recipe->scale_at, half_from_float(scale * r->std / recipe->spread));
        if (recipe->min_at)
            put_u16(block + recipe->min_at, half_from_float(scale * r->std / recipe->spread * recipe->min));
    }
}
