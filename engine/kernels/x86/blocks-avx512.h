/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Quantised blocks in AVX-512 registers: for each type, 256 weights as unsigned bytes in their natural order (four
 * registers of 64), and their integer scales. Signed types come with an offset added, which the dot products take off
 * again through the sums of the activations. All functions are templates in the type.
 *
 * Nothing here reads a byte outside the block: the last block of a tensor may lie before an unreadable page.
 */

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "engine/gguf/blocks.h"
#include "engine/gguf/types.h"
#include "engine/kernels/x86/types.h"
#include "engine/kernels/x86/unroll.h"

/* 64 bytes of control for shuffles, spelled out by index. */
#define BYTES_8(f, i)   (char)f(i), (char)f(i + 1), (char)f(i + 2), (char)f(i + 3), (char)f(i + 4), (char)f(i + 5), (char)f(i + 6), (char)f(i + 7)
#define BYTES_64(f)                                                                                                \
    {                                                                                                              \
        BYTES_8(f, 0), BYTES_8(f, 8), BYTES_8(f, 16), BYTES_8(f, 24), BYTES_8(f, 32), BYTES_8(f, 40),              \
            BYTES_8(f, 48), BYTES_8(f, 56)                                                                         \
    }
#define WORDS_8(f, i)   f(i), f(i + 1), f(i + 2), f(i + 3), f(i + 4), f(i + 5), f(i + 6), f(i + 7)
#define WORDS_32(f)                                                                                                \
    {                                                                                                              \
        WORDS_8(f, 0), WORDS_8(f, 8), WORDS_8(f, 16), WORDS_8(f, 24)                                               \
    }

TEMPLATE __m512i load_table(const void *table)
{
    return _mm512_load_si512(table);
}

/* Defines a constant register from a function of the byte's (word's) index. */
#define BYTE_TABLE(name, f) static const _Alignas(64) char name[64] = BYTES_64(f)
#define WORD_TABLE(name, f) static const _Alignas(64) int16_t name[32] = WORDS_32(f)

/* --- weights --- */

/* Both halves of a register from the same 32 bytes. */
TEMPLATE __m512i twice_256(const void *p)
{
    return _mm512_broadcast_i64x4(_mm256_loadu_si256(p));
}

/* Lanes a a b b from two runs of 16 bytes. */
TEMPLATE __m512i twice_128(const void *a, const void *b)
{
    __m512i z = _mm512_broadcast_i32x4(_mm_loadu_si128(a));

    return _mm512_mask_broadcast_i32x4(z, 0xFF00, _mm_loadu_si128(b));
}

/*
 * Fields of a byte by one vgf2p8affineqb: bit i of the result is bit @from + i of the source for @n bits, moved up by @to;
 * all else is zero. (A row of the matrix is the mask of the source bits whose parity is the result's bit; the row of bit 0
 * is the quadword's highest byte. Intel's SDM, volume 2, GF2P8AFFINEQB.)
 */
#define FIELD_ROW(bit, from, n, to)                                                                                \
    ((bit) >= (to) && (bit) < (to) + (n) ? (uint64_t)1 << ((bit) - (to) + (from)) << 8 * (7 - (bit)) : 0)
#define FIELD(from, n, to)                                                                                         \
    (long long)(FIELD_ROW(0, from, n, to) | FIELD_ROW(1, from, n, to) | FIELD_ROW(2, from, n, to) |                \
                FIELD_ROW(3, from, n, to) | FIELD_ROW(4, from, n, to) | FIELD_ROW(5, from, n, to) |                \
                FIELD_ROW(6, from, n, to) | FIELD_ROW(7, from, n, to))

/* The field of @n bits at bit @low of each byte in the lower half of the register, at bit @high in the upper, moved to @to. */
TEMPLATE __m512i fields_of_halves(__m512i z, const int low, const int high, const int n, const int to)
{
    const __m512i matrices = _mm512_set_epi64(FIELD(high, n, to), FIELD(high, n, to), FIELD(high, n, to), FIELD(high, n, to),
                                              FIELD(low, n, to), FIELD(low, n, to), FIELD(low, n, to), FIELD(low, n, to));

    return _mm512_gf2p8affine_epi64_epi8(z, matrices, 0);
}

/* The low nibbles in even 128-bit lanes, the high ones in odd lanes. */
TEMPLATE __m512i nibbles_of_lanes(__m512i z)
{
    const __m512i matrices = _mm512_set_epi64(FIELD(4, 4, 0), FIELD(4, 4, 0), FIELD(0, 4, 0), FIELD(0, 4, 0),
                                              FIELD(4, 4, 0), FIELD(4, 4, 0), FIELD(0, 4, 0), FIELD(0, 4, 0));

    return _mm512_gf2p8affine_epi64_epi8(z, matrices, 0);
}

/* (a where mask) | (b where not) */
TEMPLATE __m512i select_bits(__m512i mask, __m512i a, __m512i b)
{
    return _mm512_ternarylogic_epi32(mask, a, b, 0xCA);
}

TEMPLATE __m512i iq4_levels(__m512i nibbles)
{
    /* the levels + 128; only the low 16 bytes are needed, in each lane */
    const __m128i levels = _mm_xor_si128(_mm_loadu_si128((const __m128i *)block_iq4_values), _mm_set1_epi8((char)0x80));

    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(levels), nibbles);
}

/* The 256 weights of a block of a 256-type. */
TEMPLATE void block_weights_256(const enum tensor_type type, const uint8_t *p, __m512i q[4])
{
    const __m512i c0f = _mm512_set1_epi8(15);

    switch (type) {
    case TENSOR_Q4_K: {
        const uint8_t *qs = p + offsetof(struct block_q4_k, qs);

        UNROLL(4)
        for (int i = 0; i < 4; i++)
            q[i] = fields_of_halves(twice_256(qs + 32 * i), 0, 4, 4, 0);
        break;
    }
    case TENSOR_Q5_K: {
        const uint8_t *qs = p + offsetof(struct block_q5_k, qs);
        const __m512i qh = twice_256(p + offsetof(struct block_q5_k, qh));

        UNROLL(4)
        for (int i = 0; i < 4; i++)
            q[i] = _mm512_or_si512(fields_of_halves(twice_256(qs + 32 * i), 0, 4, 4, 0),
                                   fields_of_halves(qh, 2 * i, 2 * i + 1, 1, 4));
        break;
    }
    case TENSOR_Q6_K: {
        UNROLL(2)
        for (int i = 0; i < 2; i++) {
            __m512i ql = _mm512_loadu_si512(p + 64 * i);
            __m512i qh = twice_256(p + offsetof(struct block_q6_k, qh) + 32 * i);

            q[2 * i] = select_bits(c0f, ql, fields_of_halves(qh, 0, 2, 2, 4));
            q[2 * i + 1] = _mm512_or_si512(fields_of_halves(ql, 4, 4, 4, 0), fields_of_halves(qh, 4, 6, 2, 4));
        }
        break;
    }
    case TENSOR_Q2_K: {
        const uint8_t *qs = p + offsetof(struct block_q2_k, qs);

        UNROLL(2)
        for (int i = 0; i < 2; i++) {
            __m512i z = twice_256(qs + 32 * i);

            q[2 * i] = fields_of_halves(z, 0, 2, 2, 0);
            q[2 * i + 1] = fields_of_halves(z, 4, 6, 2, 0);
        }
        break;
    }
    case TENSOR_Q3_K: {
        const uint8_t *qs = p + offsetof(struct block_q3_k, qs);
        const __m512i high = twice_256(p);

        UNROLL(4)
        for (int i = 0; i < 4; i++)
            q[i] = _mm512_or_si512(fields_of_halves(twice_256(qs + i / 2 * 32), i % 2 * 4, i % 2 * 4 + 2, 2, 0),
                                   fields_of_halves(high, 2 * i, 2 * i + 1, 1, 2));
        break;
    }
    default: { /* IQ4_XS */
        const uint8_t *qs = p + offsetof(struct block_iq4_xs, qs);

        UNROLL(4)
        for (int i = 0; i < 4; i++)
            q[i] = iq4_levels(nibbles_of_lanes(twice_128(qs + 32 * i, qs + 32 * i + 16)));
        break;
    }
    }
}

/* The 64 weights of two blocks of a 32-type. */
TEMPLATE __m512i block_weights_32(const enum tensor_type type, const uint8_t *a, const uint8_t *b)
{
    size_t qs, qh;
    uint32_t bits_a, bits_b;
    __m512i q;

    if (type == TENSOR_Q8_0) {
        q = _mm512_castsi256_si512(_mm256_loadu_si256((const void *)(a + offsetof(struct block_q8_0, qs))));
        q = _mm512_inserti64x4(q, _mm256_loadu_si256((const void *)(b + offsetof(struct block_q8_0, qs))), 1);
        return _mm512_xor_si512(q, _mm512_set1_epi8((char)0x80));
    }
    qs = type_block_bytes(type) - 16; /* the nibbles end the block in all others */
    q = nibbles_of_lanes(twice_128(a + qs, b + qs));
    if (type == TENSOR_IQ4_NL)
        return iq4_levels(q);
    if (type == TENSOR_MXFP4)
        return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(mxfp4_levels()), q);
    if (type == TENSOR_Q5_0 || type == TENSOR_Q5_1) {
        qh = qs - 4;
        memcpy(&bits_a, a + qh, 4);
        memcpy(&bits_b, b + qh, 4);
        return _mm512_mask_add_epi8(q, (__mmask64)bits_b << 32 | bits_a, q, _mm512_set1_epi8(16));
    }
    return q;
}

/* --- scales --- */

/* 2^(e - 128) of eight bytes. */
TEMPLATE __m256 e8m0_scales(__m128i e)
{
    const __m256i z = _mm256_cvtepu8_epi32(e);

    return _mm256_castsi256_ps(_mm256_mask_sllv_epi32(_mm256_slli_epi32(_mm256_sub_epi32(z, _mm256_set1_epi32(1)), 23),
                                                      _mm256_cmplt_epu32_mask(z, _mm256_set1_epi32(2)),
                                                      _mm256_set1_epi32(0x00200000), z));
}

#define K4_GATHER(i)  ((i) % 16 < 4 ? (i) % 16 + 4 : (i) % 16 < 8 ? (i) % 16 + 8 : (i) % 16)
#define K4_FIRST(i)   ((i) % 16 < 12 ? 8 * ((i) % 8) : 8 * ((i) % 8) + 4)
#define K4_SECOND(i)  ((i) % 8 < 4 ? 8 * ((i) % 8) : 8 * ((i) % 4) + 2)
#define K4_CHOOSE(i)  ((i) % 8 < 4 ? 0xFF : 0x0F)

BYTE_TABLE(k4_gather, K4_GATHER);
BYTE_TABLE(k4_first, K4_FIRST);
BYTE_TABLE(k4_second, K4_SECOND);
BYTE_TABLE(k4_choose, K4_CHOOSE);

/*
 * Q4_K's and Q5_K's 6-bit scales. @headers: the first 16 bytes of a block in each lane. In each lane of the result, bytes
 * 0..7 are the scales, 8..15 the mins.
 */
TEMPLATE __m512i k4_scales(__m512i headers)
{
    __m512i s = _mm512_shuffle_epi8(headers, load_table(k4_gather));
    __m512i first = _mm512_multishift_epi64_epi8(load_table(k4_first), s);
    __m512i second = _mm512_multishift_epi64_epi8(load_table(k4_second), s);

    return _mm512_and_si512(select_bits(load_table(k4_choose), first, second), _mm512_set1_epi8(63));
}

static const _Alignas(16) uint8_t q3_k_low_bytes[16] = {2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9};
static const _Alignas(16) uint8_t q3_k_high_bytes[16] = {10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13};
static const _Alignas(16) uint8_t q3_k_low_shift[16] = {0, 8, 16, 24, 32, 40, 48, 56, 4, 12, 20, 28, 36, 44, 52, 60};
/* two bits at 2 (j / 4) of byte j % 4, to bits 4 and 5 */
static const _Alignas(16) uint8_t q3_k_high_shift[16] = {60, 4,  12, 20, 30, 38, 46, 54,
                                                         0,  8,  16, 24, 34, 42, 50, 58};

/* The sixteen scales of a block with 16-value sub-blocks, as bytes: signed for Q3_K and Q6_K; for Q2_K without mins. */
TEMPLATE __m128i sub16_scales(const enum tensor_type type, const uint8_t *p)
{
    __m128i z, low, high;

    if (type == TENSOR_Q6_K)
        return _mm_loadu_si128((const void *)(p + offsetof(struct block_q6_k, scales)));
    if (type == TENSOR_Q2_K)
        return _mm_and_si128(_mm_loadu_si128((const void *)p), _mm_set1_epi8(15));
    /* from two bytes before the twelve: sixteen from their start would end behind the block */
    z = _mm_loadu_si128((const void *)(p + offsetof(struct block_q3_k, scales) - 2));
    low = _mm_multishift_epi64_epi8(_mm_load_si128((const void *)q3_k_low_shift),
                                    _mm_shuffle_epi8(z, _mm_load_si128((const void *)q3_k_low_bytes)));
    high = _mm_multishift_epi64_epi8(_mm_load_si128((const void *)q3_k_high_shift),
                                     _mm_shuffle_epi8(z, _mm_load_si128((const void *)q3_k_high_bytes)));
    z = _mm_and_si128(_mm_ternarylogic_epi32(_mm_set1_epi8(15), low, high, 0xCA), _mm_set1_epi8(63));
    return _mm_sub_epi8(z, _mm_set1_epi8(32));
}

/* Q2_K's sixteen mins, as bytes. */
TEMPLATE __m128i q2_k_mins(const uint8_t *p)
{
    return _mm_and_si128(_mm_srli_epi16(_mm_loadu_si128((const void *)p), 4), _mm_set1_epi8(15));
}

static const _Alignas(16) uint8_t iq4_xs_low_shift[16] = {32, 36, 40, 44, 48, 52, 56, 60};
static const _Alignas(16) uint8_t iq4_xs_high_shift[16] = {12, 14, 16, 18, 20, 22, 24, 26};

/* IQ4_XS's eight signed scales, as the low eight bytes. */
TEMPLATE __m128i iq4_xs_scales(const uint8_t *p)
{
    __m128i h = _mm_loadl_epi64((const void *)p);
    __m128i low = _mm_multishift_epi64_epi8(_mm_load_si128((const void *)iq4_xs_low_shift), h);
    __m128i high = _mm_multishift_epi64_epi8(_mm_load_si128((const void *)iq4_xs_high_shift), h);
    __m128i z = _mm_and_si128(_mm_ternarylogic_epi32(_mm_set1_epi8(15), low, high, 0xCA), _mm_set1_epi8(63));

    return _mm_sub_epi8(z, _mm_set1_epi8(32));
}
