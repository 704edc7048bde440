/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A tile of unpacked rows for linear-lanes-avx512.c: 256 values of each as bytes with integer scales, in the form in
 * which their type is multiplied fastest. All of it is exact: the sums are the same integers in every form.
 */

#include "engine/kernels/linear-scratch.h"
#include "engine/kernels/x86/blocks-avx512.h"
#include "engine/kernels/x86/blocks-grid.h"

/* One row's 256 values in the tile. */
struct tile_row {
    uint8_t q[256]; /* weights, or weights * scale (fits_scaled()); signed where the activations are not */
    union {
        struct { /* types with 256-blocks */
            int32_t scale[16];
            int16_t min[16]; /* mins, or offset * scale */
            int32_t surplus; /* of signed weights: ACT_OFFSET * sum of scale * weight */
            float d, dmin;
        };
        struct { /* eight blocks of 32 */
            float d32[8];
            float dmin32[8];
        };
    };
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct tile_row) <= SCRATCH_ROW_BYTES, "scratch is laid out for this");

/*
 * Weights that still fit in a byte when they are multiplied by their integer scale: Q2_K's, 0..3 times 0..15, and, with
 * SCALED_OFFSET added, Q3_K's, -4..3 times -32..31. The scales then cost nothing while tokens are multiplied.
 */
TEMPLATE bool fits_scaled(const enum tensor_type type)
{
    return type == TENSOR_Q2_K || type == TENSOR_Q3_K;
}

#define SCALED_OFFSET 127

/*
 * Types whose weights are signed may be multiplied in two ways. With an offset added to the weights, what is too much
 * depends on the token and costs four or eight products a row. With ACT_OFFSET added to the activations it is one number
 * of the row, which costs more to find when the row is unpacked: worth it for many tokens.
 */
TEMPLATE bool may_be_signed(const enum tensor_type type)
{
    return type_is_256(type) && type_offset_log2(type) >= 0 && !fits_scaled(type);
}

#define ACT_OFFSET 128

/*
 * Weights as block_weights_256() gives them times the scale that all sixteen bytes of a lane have in @s: a table of the
 * multiples in each lane, looked up. Bytes may wrap on the way, the results do not.
 */
TEMPLATE __m512i scaled_weights(const enum tensor_type type, __m512i q, __m512i s)
{
    const __m512i twice = _mm512_add_epi8(s, s), four = _mm512_add_epi8(twice, twice);
    __m512i multiples = _mm512_maskz_mov_epi8(0xAAAAAAAAAAAAAAAAu, s);

    multiples = _mm512_mask_add_epi8(multiples, 0xCCCCCCCCCCCCCCCCu, multiples, twice);
    if (type == TENSOR_Q3_K) { /* its weights come with 4 added */
        multiples = _mm512_mask_add_epi8(multiples, 0xF0F0F0F0F0F0F0F0u, multiples, four);
        multiples = _mm512_add_epi8(_mm512_sub_epi8(multiples, four), _mm512_set1_epi8(SCALED_OFFSET));
    }
    return _mm512_shuffle_epi8(multiples, q);
}

TEMPLATE void unpack_scaled(const enum tensor_type type, const uint8_t *p, struct tile_row *row)
{
    const __m512i lanes = _mm512_set_epi32(0x03030303, 0x03030303, 0x03030303, 0x03030303, 0x02020202, 0x02020202,
                                           0x02020202, 0x02020202, 0x01010101, 0x01010101, 0x01010101, 0x01010101, 0, 0, 0, 0);
    const __m512i scales = _mm512_broadcast_i32x4(sub16_scales(type, p));
    __m512i q[4];

    block_weights_256(type, p, q);
    UNROLL(4)
    for (int i = 0; i < 4; i++) {
        __m512i s = _mm512_shuffle_epi8(scales, _mm512_add_epi8(lanes, _mm512_set1_epi8((char)(4 * i))));

        _mm512_store_si512(row->q + 64 * i, scaled_weights(type, q[i], s));
    }
    row->d = load_half(p + type_d_offset(type));
    if (type == TENSOR_Q2_K) {
        row->dmin = load_half(p + type_d_offset(type) + 2);
        _mm256_store_si256((void *)row->min, _mm256_cvtepi8_epi16(q2_k_mins(p)));
    }
}

/* Weights that came with an offset, without it; scale[] is set. */
TEMPLATE void store_signed_weights(const enum tensor_type type, const __m512i q[4], struct tile_row *row)
{
    const __m512i scales = _mm512_load_si512(row->scale), ones = _mm512_set1_epi8((char)ACT_OFFSET);
    __m512i of = type_sub_values(type) == 32 ? _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0)
                                             : _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    const __m512i next = _mm512_set1_epi32(64 / (int)type_sub_values(type));
    __m512i sum = _mm512_setzero_si512();

    UNROLL(4)
    for (int i = 0; i < 4; i++, of = _mm512_add_epi32(of, next)) {
        __m512i w = _mm512_sub_epi8(q[i], _mm512_set1_epi8((char)(1 << (type_offset_log2(type) & 7))));
        __m512i dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, w);

        _mm512_store_si512(row->q + 64 * i, w);
        sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(dot, _mm512_permutexvar_epi32(of, scales)));
    }
    row->surplus = _mm512_reduce_add_epi32(sum);
}

TEMPLATE void store_weights(const __m512i q[4], struct tile_row *row)
{
    UNROLL(4)
    for (int i = 0; i < 4; i++)
        _mm512_store_si512(row->q + 64 * i, q[i]);
}

/* Weights that came with an offset, and @u, their sixteen scales (IQ4_XS: the first eight count). */
TEMPLATE void store_offset_weights(const enum tensor_type type, const bool as_signed, const __m512i q[4], __m128i u,
                                   struct tile_row *row)
{
    _mm512_store_si512(row->scale, _mm512_cvtepi8_epi32(u));
    if (as_signed) {
        store_signed_weights(type, q, row);
    } else {
        _mm256_store_si256((void *)row->min,
                           _mm256_slli_epi16(_mm256_cvtepi8_epi16(u), (unsigned)type_offset_log2(type) & 7));
        store_weights(q, row);
    }
}

TEMPLATE void unpack_256(const enum tensor_type type, const bool as_signed, const uint8_t *p, struct tile_row *row)
{
    size_t d_at = type_d_offset(type);
    __m512i q[4];

    block_weights_256(type, p, q);
    row->d = load_half(p + d_at);
    if (type_has_mins(type))
        row->dmin = load_half(p + d_at + 2);
    if (type == TENSOR_Q4_K || type == TENSOR_Q5_K) {
        __m128i u = _mm512_castsi512_si128(k4_scales(_mm512_castsi128_si512(_mm_loadu_si128((const void *)p))));

        _mm256_store_si256((void *)row->scale, _mm256_cvtepu8_epi32(u));
        _mm_store_si128((void *)row->min, _mm_cvtepu8_epi16(_mm_unpackhi_epi64(u, u)));
        store_weights(q, row);
    } else { /* IQ4_XS, Q6_K */
        store_offset_weights(type, as_signed, q, type == TENSOR_IQ4_XS ? iq4_xs_scales(p) : sub16_scales(type, p), row);
    }
}

/* A block of blocks-grid.h's types: signed bytes with sixteen scales. */
TEMPLATE void unpack_grid(const struct grid_format *grid, const bool as_signed, const uint8_t *p, struct tile_row *row)
{
    const __m512i offset = _mm512_set1_epi8((char)0x80);
    struct grid_block block;
    __m512i q[4];

    grid->unpack(p, &block);
    UNROLL(4)
    for (int i = 0; i < 4; i++)
        q[i] = _mm512_add_epi8(_mm512_load_si512(block.q + 64 * i), offset);
    store_offset_weights(TENSOR_IQ2_XS, as_signed, q, _mm_load_si128((const void *)block.scale), row);
    row->d = block.d;
}

/* Up to eight blocks; the bytes of those that are missing stay as they were, and nobody looks at them. */
TEMPLATE void unpack_32(const enum tensor_type type, const uint8_t *p, uint32_t n_blocks, struct tile_row *row)
{
    const size_t bytes = type_block_bytes(type);
    const uint8_t *last = p + (n_blocks - 1) * bytes;
    __m128i d = _mm_setzero_si128(), m = d;

    UNROLL(4)
    for (uint32_t i = 0; i < 8; i += 2) {
        const uint8_t *a = i < n_blocks ? p + i * bytes : last;
        const uint8_t *b = i + 1 < n_blocks ? p + (i + 1) * bytes : last;

        _mm512_store_si512(row->q + 32 * i, block_weights_32(type, a, b));
    }
    if (type == TENSOR_MXFP4) {
        uint8_t e[8];

        for (uint32_t i = 0; i < 8; i++)
            e[i] = i < n_blocks ? p[i * bytes] : 0;
        _mm256_store_ps(row->d32, e8m0_scales(_mm_loadl_epi64((const void *)e)));
        return;
    }
#define INSERT(i)                                                                                                  \
    {                                                                                                              \
        const uint8_t *at = i < n_blocks ? p + i * bytes : last;                                                   \
                                                                                                                   \
        d = _mm_insert_epi16(d, load_u16(at), i);                                                                  \
        if (type_has_mins(type))                                                                                   \
            m = _mm_insert_epi16(m, load_u16(at + 2), i);                                                          \
    }
    INSERT(0)
    INSERT(1)
    INSERT(2)
    INSERT(3)
    INSERT(4)
    INSERT(5)
    INSERT(6)
    INSERT(7)
#undef INSERT
    _mm256_store_ps(row->d32, _mm256_cvtph_ps(d));
    if (type_has_mins(type)) /* the format adds m, the rule subtracts dmin */
        _mm256_store_ps(row->dmin32, _mm256_xor_ps(_mm256_cvtph_ps(m), _mm256_set1_ps(-0.0f)));
}
