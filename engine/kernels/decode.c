/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the bits of each quantised type mean, written to be read: the scalar kernels and the dequantiser stand on it,
 * and every vector kernel is tested against those. One function a type; a new type is a new function and a table line.
 */
#include "engine/kernels/decode.h"

#include <assert.h>
#include <stddef.h>

#include "engine/gguf/blocks.h"
#include "engine/gguf/half.h"
#include "engine/kernels/decode-grid.h"

/* The shape of a 32-value block: one scale of 1, and a min of 1 where the type has an offset m (dmin = -m). */
static void set_simple(struct decoded_block *ret, uint16_t d)
{
    ret->n_values = BLOCK_32;
    ret->sub_values = BLOCK_32;
    ret->has_min = false;
    ret->d = half_to_float(d);
    ret->dmin = 0.0f;
    ret->scale[0] = 1;
    ret->min[0] = 0;
}

static void set_offset(struct decoded_block *ret, uint16_t m)
{
    ret->has_min = true;
    ret->dmin = -half_to_float(m);
    ret->min[0] = 1;
}

static void set_super(struct decoded_block *ret, uint32_t sub_values, uint16_t d)
{
    ret->n_values = BLOCK_256;
    ret->sub_values = sub_values;
    ret->has_min = false;
    ret->d = half_to_float(d);
    ret->dmin = 0.0f;
    for (uint32_t j = 0; j < 16; j++)
        ret->min[j] = 0;
}

static uint32_t fifth_bit(const uint8_t qh[4], uint32_t i)
{
    return (uint32_t)(qh[i / 8] >> (i % 8)) & 1u;
}

static void decode_q4_0(const void *src, struct decoded_block *ret)
{
    const struct block_q4_0 *b = src;

    set_simple(ret, b->d);
    for (uint32_t i = 0; i < 16; i++) {
        ret->q[i] = (int16_t)((b->qs[i] & 15) - 8);
        ret->q[i + 16] = (int16_t)((b->qs[i] >> 4) - 8);
    }
}

static void decode_q4_1(const void *src, struct decoded_block *ret)
{
    const struct block_q4_1 *b = src;

    set_simple(ret, b->d);
    set_offset(ret, b->m);
    for (uint32_t i = 0; i < 16; i++) {
        ret->q[i] = b->qs[i] & 15;
        ret->q[i + 16] = b->qs[i] >> 4;
    }
}

static void decode_q5_0(const void *src, struct decoded_block *ret)
{
    const struct block_q5_0 *b = src;

    set_simple(ret, b->d);
    for (uint32_t i = 0; i < 16; i++) {
        ret->q[i] = (int16_t)(((b->qs[i] & 15) | fifth_bit(b->qh, i) << 4) - 16);
        ret->q[i + 16] = (int16_t)(((b->qs[i] >> 4) | fifth_bit(b->qh, i + 16) << 4) - 16);
    }
}

static void decode_q5_1(const void *src, struct decoded_block *ret)
{
    const struct block_q5_1 *b = src;

    set_simple(ret, b->d);
    set_offset(ret, b->m);
    for (uint32_t i = 0; i < 16; i++) {
        ret->q[i] = (int16_t)((b->qs[i] & 15) | fifth_bit(b->qh, i) << 4);
        ret->q[i + 16] = (int16_t)((b->qs[i] >> 4) | fifth_bit(b->qh, i + 16) << 4);
    }
}

static void decode_q8_0(const void *src, struct decoded_block *ret)
{
    const struct block_q8_0 *b = src;

    set_simple(ret, b->d);
    for (uint32_t i = 0; i < 32; i++)
        ret->q[i] = b->qs[i];
}

static void decode_iq4_nl(const void *src, struct decoded_block *ret)
{
    const struct block_iq4_nl *b = src;

    set_simple(ret, b->d);
    for (uint32_t i = 0; i < 16; i++) {
        ret->q[i] = block_iq4_values[b->qs[i] & 15];
        ret->q[i + 16] = block_iq4_values[b->qs[i] >> 4];
    }
}

static void decode_mxfp4(const void *src, struct decoded_block *ret)
{
    const struct block_mxfp4 *b = src;

    set_simple(ret, 0);
    ret->d = e8m0_half_to_float(b->e);
    for (uint32_t i = 0; i < 16; i++) {
        ret->q[i] = block_mxfp4_values[b->qs[i] & 15];
        ret->q[i + 16] = block_mxfp4_values[b->qs[i] >> 4];
    }
}

/* Byte i of a 32-byte group holds value i of four runs of 32 in its bit pairs; two groups make the block. */
static void decode_q2_k(const void *src, struct decoded_block *ret)
{
    const struct block_q2_k *b = src;

    set_super(ret, 16, b->d);
    ret->has_min = true;
    ret->dmin = half_to_float(b->dmin);
    for (uint32_t j = 0; j < 16; j++) {
        ret->scale[j] = b->scales[j] & 15;
        ret->min[j] = b->scales[j] >> 4;
    }
    for (uint32_t i = 0; i < 256; i++)
        ret->q[i] = (b->qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
}

/* Low four bits of scale j in nibble j / 8 of byte j % 8; its high two in bits 2 * (j / 4) of byte 8 + j % 4. */
static void decode_q3_k(const void *src, struct decoded_block *ret)
{
    const struct block_q3_k *b = src;

    set_super(ret, 16, b->d);
    for (uint32_t j = 0; j < 16; j++) {
        uint32_t low = (uint32_t)(b->scales[j % 8] >> (j / 8 * 4)) & 15u;
        uint32_t high = (uint32_t)(b->scales[8 + j % 4] >> (j / 4 * 2)) & 3u;

        ret->scale[j] = (int16_t)((int)(low | high << 4) - 32);
    }
    for (uint32_t i = 0; i < 256; i++) {
        int low = (b->qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;
        int high = (b->hmask[i % 32] >> (i / 32)) & 1;

        ret->q[i] = (int16_t)((low | high << 2) - 4);
    }
}

/* Scales 0..3 and mins 0..3 are the low six bits of bytes 0..7; 4..7 take four bits of bytes 8..11, two from above. */
static void six_bit_scales(const uint8_t s[12], struct decoded_block *ret)
{
    for (uint32_t j = 0; j < 4; j++) {
        ret->scale[j] = s[j] & 63;
        ret->min[j] = s[j + 4] & 63;
        ret->scale[j + 4] = (int16_t)((s[j + 8] & 15) | (s[j] >> 6) << 4);
        ret->min[j + 4] = (int16_t)((s[j + 8] >> 4) | (s[j + 4] >> 6) << 4);
    }
}

/* Each run of 32 bytes holds two sub-blocks: the even one in the low nibbles. */
static void decode_q4_k(const void *src, struct decoded_block *ret)
{
    const struct block_q4_k *b = src;

    set_super(ret, 32, b->d);
    ret->has_min = true;
    ret->dmin = half_to_float(b->dmin);
    six_bit_scales(b->scales, ret);
    for (uint32_t i = 0; i < 256; i++)
        ret->q[i] = (b->qs[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4)) & 15;
}

static void decode_q5_k(const void *src, struct decoded_block *ret)
{
    const struct block_q5_k *b = src;

    set_super(ret, 32, b->d);
    ret->has_min = true;
    ret->dmin = half_to_float(b->dmin);
    six_bit_scales(b->scales, ret);
    for (uint32_t i = 0; i < 256; i++) {
        int low = (b->qs[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4)) & 15;
        int high = (b->qh[i % 32] >> (i / 32)) & 1;

        ret->q[i] = (int16_t)(low | high << 4);
    }
}

/* Half of a block (128 values) in 64 bytes of ql, whose high nibbles are values 64..127, and 32 bytes of qh. */
static void decode_q6_k(const void *src, struct decoded_block *ret)
{
    const struct block_q6_k *b = src;

    set_super(ret, 16, b->d);
    for (uint32_t j = 0; j < 16; j++)
        ret->scale[j] = b->scales[j];
    for (uint32_t i = 0; i < 256; i++) {
        int low = (b->ql[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4)) & 15;
        int high = (b->qh[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3;

        ret->q[i] = (int16_t)((low | high << 4) - 32);
    }
}

static void decode_iq4_xs(const void *src, struct decoded_block *ret)
{
    const struct block_iq4_xs *b = src;

    set_super(ret, 32, b->d);
    for (uint32_t j = 0; j < 8; j++) {
        uint32_t low = (uint32_t)(b->scales_l[j / 2] >> (j % 2 * 4)) & 15u;
        uint32_t high = (uint32_t)(b->scales_h >> (2 * j)) & 3u;

        ret->scale[j] = (int16_t)((int)(low | high << 4) - 32);
    }
    for (uint32_t i = 0; i < 256; i++)
        ret->q[i] = block_iq4_values[(b->qs[i / 32 * 16 + i % 16] >> (i % 32 / 16 * 4)) & 15];
}

typedef void (*decode_fn)(const void *src, struct decoded_block *ret);

static const decode_fn table[TENSOR_TYPE_MAX] = {
    [TENSOR_Q4_0] = decode_q4_0,     [TENSOR_Q4_1] = decode_q4_1,     [TENSOR_Q5_0] = decode_q5_0,
    [TENSOR_Q5_1] = decode_q5_1,     [TENSOR_Q8_0] = decode_q8_0,     [TENSOR_IQ4_NL] = decode_iq4_nl,
    [TENSOR_Q2_K] = decode_q2_k,     [TENSOR_Q3_K] = decode_q3_k,     [TENSOR_Q4_K] = decode_q4_k,
    [TENSOR_Q5_K] = decode_q5_k,     [TENSOR_Q6_K] = decode_q6_k,     [TENSOR_IQ4_XS] = decode_iq4_xs,
    [TENSOR_MXFP4] = decode_mxfp4,   [TENSOR_TQ1_0] = decode_tq1_0,   [TENSOR_TQ2_0] = decode_tq2_0,
    [TENSOR_IQ2_XXS] = decode_iq2_xxs, [TENSOR_IQ2_XS] = decode_iq2_xs, [TENSOR_IQ2_S] = decode_iq2_s,
    [TENSOR_IQ3_XXS] = decode_iq3_xxs, [TENSOR_IQ3_S] = decode_iq3_s,   [TENSOR_IQ1_S] = decode_iq1_s,
    [TENSOR_IQ1_M] = decode_iq1_m,
};

bool block_is_decodable(uint32_t type)
{
    return type < TENSOR_TYPE_MAX && table[type] != NULL;
}

void block_decode(enum tensor_type type, const void *src, struct decoded_block *ret)
{
    assert(block_is_decodable(type));
    table[type](src, ret);
}
