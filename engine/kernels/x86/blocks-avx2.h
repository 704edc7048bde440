/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Quantised blocks in AVX2 registers: 32 weights of a block as bytes in their natural order, and integer scales. Types of
 * less than eight bits are unsigned, with the offset of types.h added; Q8_0 and the IQ4 types are signed, because
 * vpmaddubsw would saturate on their unsigned form.
 *
 * Nothing here reads a byte outside the block.
 */

#include "engine/kernels/x86/types.h"

/* Weights that use all eight bits. */
TEMPLATE bool type_is_wide(const enum tensor_type type)
{
    return type == TENSOR_Q8_0 || type == TENSOR_IQ4_NL || type == TENSOR_IQ4_XS || type == TENSOR_IQ2_XS;
}

TEMPLATE __m256i load_256(const void *p)
{
    return _mm256_loadu_si256(p);
}

/* Each byte's bit @from moved to bit @to, nothing else. */
TEMPLATE __m256i move_bits(__m256i z, const int from, const int to, const int mask)
{
    z = from > to ? _mm256_srli_epi16(z, from - to) : _mm256_slli_epi16(z, to - from);
    return _mm256_and_si256(z, _mm256_set1_epi8((char)(mask << to)));
}

/* 16 bytes to 32 nibbles: the low ones first. */
TEMPLATE __m256i nibbles(const void *p)
{
    __m128i x = _mm_loadu_si128(p);

    return _mm256_and_si256(_mm256_inserti128_si256(_mm256_castsi128_si256(x), _mm_srli_epi16(x, 4), 1), _mm256_set1_epi8(15));
}

TEMPLATE __m256i iq4_levels(__m256i z)
{
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)block_iq4_values)), z);
}

/* Bit i of the four bytes at @p as 16 in byte i. */
TEMPLATE __m256i fifth_bits(const void *p)
{
    const __m256i spread = _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
    const __m256i bit = _mm256_set1_epi64x((int64_t)0x8040201008040201);
    __m256i z;
    int32_t bits;

    memcpy(&bits, p, sizeof(bits));
    z = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread), bit);
    return _mm256_and_si256(_mm256_cmpeq_epi8(z, bit), _mm256_set1_epi8(16));
}

/* Weights 32 j .. 32 j + 31 of a 256-block. */
TEMPLATE __m256i weights_256(const enum tensor_type type, const uint8_t *p, const int j)
{
    const int half = j / 4, quarter = j % 4;

    switch (type) {
    case TENSOR_Q4_K:
        return move_bits(load_256(p + offsetof(struct block_q4_k, qs) + 32 * (j / 2)), j % 2 * 4, 0, 15);
    case TENSOR_Q5_K:
        return _mm256_or_si256(move_bits(load_256(p + offsetof(struct block_q5_k, qs) + 32 * (j / 2)), j % 2 * 4, 0, 15),
                               move_bits(load_256(p + offsetof(struct block_q5_k, qh)), j, 4, 1));
    case TENSOR_Q6_K:
        return _mm256_or_si256(move_bits(load_256(p + 64 * half + 32 * (quarter % 2)), quarter / 2 * 4, 0, 15),
                               move_bits(load_256(p + offsetof(struct block_q6_k, qh) + 32 * half), quarter * 2, 4, 3));
    case TENSOR_Q2_K:
        return move_bits(load_256(p + offsetof(struct block_q2_k, qs) + 32 * half), quarter * 2, 0, 3);
    case TENSOR_Q3_K:
        return _mm256_or_si256(move_bits(load_256(p + offsetof(struct block_q3_k, qs) + 32 * half), quarter * 2, 0, 3),
                               move_bits(load_256(p), j, 2, 1));
    default: /* IQ4_XS */
        return iq4_levels(nibbles(p + offsetof(struct block_iq4_xs, qs) + 16 * j));
    }
}

/* The weights of a 32-block. */
TEMPLATE __m256i weights_32(const enum tensor_type type, const uint8_t *p)
{
    const size_t qs = type_block_bytes(type) - 16;

    switch (type) {
    case TENSOR_Q8_0:
        return load_256(p + offsetof(struct block_q8_0, qs));
    case TENSOR_IQ4_NL:
        return iq4_levels(nibbles(p + qs));
    case TENSOR_MXFP4:
        return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(mxfp4_levels()), nibbles(p + qs));
    case TENSOR_Q5_0:
    case TENSOR_Q5_1:
        return _mm256_or_si256(nibbles(p + qs), fifth_bits(p + qs - 4));
    default:
        return nibbles(p + qs);
    }
}

/* --- scales of 256-blocks, as words --- */

/* Q4_K's and Q5_K's eight scales and eight mins. */
TEMPLATE void k4_scales(const uint8_t *p, __m128i *ret_scales, __m128i *ret_mins)
{
    uint32_t s[3];
    uint64_t scales, mins;

    memcpy(s, p + offsetof(struct block_q4_k, scales), sizeof(s));
    scales = (s[0] & 0x3F3F3F3Fu) | (uint64_t)((s[2] & 0x0F0F0F0Fu) | (s[0] >> 2 & 0x30303030u)) << 32;
    mins = (s[1] & 0x3F3F3F3Fu) | (uint64_t)((s[2] >> 4 & 0x0F0F0F0Fu) | (s[1] >> 2 & 0x30303030u)) << 32;
    *ret_scales = _mm_cvtepu8_epi16(_mm_cvtsi64_si128((int64_t)scales));
    *ret_mins = _mm_cvtepu8_epi16(_mm_cvtsi64_si128((int64_t)mins));
}

/* IQ4_XS's eight scales. */
TEMPLATE __m128i iq4_xs_scales(const uint8_t *p)
{
    uint32_t low;
    __m256i z, high;

    memcpy(&low, p + offsetof(struct block_iq4_xs, scales_l), sizeof(low));
    z = _mm256_srlv_epi32(_mm256_set1_epi32((int32_t)low), _mm256_set_epi32(28, 24, 20, 16, 12, 8, 4, 0));
    high = _mm256_srlv_epi32(_mm256_set1_epi32(load_u16(p + offsetof(struct block_iq4_xs, scales_h))),
                             _mm256_set_epi32(14, 12, 10, 8, 6, 4, 2, 0));
    z = _mm256_or_si256(_mm256_and_si256(z, _mm256_set1_epi32(15)),
                        _mm256_slli_epi32(_mm256_and_si256(high, _mm256_set1_epi32(3)), 4));
    z = _mm256_sub_epi32(z, _mm256_set1_epi32(32));
    return _mm_packs_epi32(_mm256_castsi256_si128(z), _mm256_extracti128_si256(z, 1));
}

/* The sixteen scales of a type with 16-value sub-blocks, as bytes; signed for Q3_K and Q6_K. */
TEMPLATE __m128i sub16_scales(const enum tensor_type type, const uint8_t *p)
{
    uint32_t s[3];
    __m128i low, high;

    if (type == TENSOR_Q6_K)
        return _mm_loadu_si128((const void *)(p + offsetof(struct block_q6_k, scales)));
    if (type == TENSOR_Q2_K)
        return _mm_and_si128(_mm_loadu_si128((const void *)p), _mm_set1_epi8(15));
    memcpy(s, p + offsetof(struct block_q3_k, scales), sizeof(s));
    low = _mm_set_epi32((int32_t)(s[1] >> 4), (int32_t)(s[0] >> 4), (int32_t)s[1], (int32_t)s[0]);
    high = _mm_set_epi32((int32_t)(s[2] >> 2), (int32_t)s[2], (int32_t)(s[2] << 2), (int32_t)(s[2] << 4));
    low = _mm_or_si128(_mm_and_si128(low, _mm_set1_epi8(15)), _mm_and_si128(high, _mm_set1_epi8(0x30)));
    return _mm_sub_epi8(low, _mm_set1_epi8(32));
}

/* Q2_K's sixteen mins, as bytes. */
TEMPLATE __m128i q2_k_mins(const uint8_t *p)
{
    return _mm_and_si128(_mm_srli_epi16(_mm_loadu_si128((const void *)p), 4), _mm_set1_epi8(15));
}
