/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Blocks of the IQ1, IQ2, IQ3 and TQ types, unpacked with AVX2 to signed bytes in their natural order and sixteen scales, a type
 * with eight has each of them twice. Looking entries up in code books costs more than a dot product, so the kernels
 * share one multiplication for all these types, and take the unpacker as a pointer. Magnitudes are at most 62, scales 31.
 *
 * Nothing here reads a byte outside the block.
 */

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "engine/kernels/grids.h"
#include "engine/kernels/x86/grid-format.h"
#include "engine/kernels/x86/types.h"

/* --- signs --- */

/* Bit i of @bits as all bits of byte i. */
TEMPLATE __m256i sign_mask(uint32_t bits)
{
    const __m256i spread = _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
    const __m256i bit = _mm256_set1_epi64x((int64_t)0x8040201008040201);

    return _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32((int32_t)bits), spread), bit), bit);
}

TEMPLATE void store_signed(int8_t *q, __m256i magnitudes, uint32_t signs)
{
    __m256i mask = sign_mask(signs);

    _mm256_store_si256((void *)q, _mm256_sub_epi8(_mm256_xor_si256(magnitudes, mask), mask));
}

/* Eight words of four times seven signs each to eight times 32 signs: the eighth one makes their number even. */
TEMPLATE void even_signs(__m256i words, uint32_t signs[8])
{
    __m256i z = _mm256_and_si256(words, _mm256_set1_epi32(0x7F)), parity;

    z = _mm256_or_si256(z, _mm256_and_si256(_mm256_slli_epi32(words, 1), _mm256_set1_epi32(0x7F00)));
    z = _mm256_or_si256(z, _mm256_and_si256(_mm256_slli_epi32(words, 2), _mm256_set1_epi32(0x7F0000)));
    z = _mm256_or_si256(z, _mm256_and_si256(_mm256_slli_epi32(words, 3), _mm256_set1_epi32(0x7F000000)));
    parity = _mm256_xor_si256(z, _mm256_srli_epi32(z, 4));
    parity = _mm256_xor_si256(parity, _mm256_srli_epi32(parity, 2));
    parity = _mm256_xor_si256(parity, _mm256_srli_epi32(parity, 1));
    parity = _mm256_slli_epi32(_mm256_and_si256(parity, _mm256_set1_epi32(0x01010101)), 7);
    _mm256_storeu_si256((void *)signs, _mm256_or_si256(z, parity));
}

/* --- scales: 2 s + 1 --- */

/* From eight dwords, the scale in their top four bits. */
TEMPLATE void store_top_scales(int8_t scale[16], __m256i words)
{
    __m256i z = _mm256_or_si256(_mm256_slli_epi32(_mm256_srli_epi32(words, 28), 1), _mm256_set1_epi32(1));
    __m128i w = _mm_packs_epi32(_mm256_castsi256_si128(z), _mm256_extracti128_si256(z, 1));

    _mm_store_si128((void *)scale, _mm_or_si128(w, _mm_slli_epi16(w, 8)));
}

/* From the nibbles of eight bytes, the low one first. */
TEMPLATE __m128i nibble_scales(uint64_t bytes)
{
    __m128i z = _mm_cvtsi64_si128((int64_t)bytes), low = _mm_and_si128(z, _mm_set1_epi8(15));
    __m128i high = _mm_and_si128(_mm_srli_epi16(z, 4), _mm_set1_epi8(15));

    z = _mm_unpacklo_epi8(low, high);
    return _mm_or_si128(_mm_add_epi8(z, z), _mm_set1_epi8(1));
}

TEMPLATE uint64_t load_u64(const uint8_t *p)
{
    uint64_t value;

    memcpy(&value, p, sizeof(value));
    return value;
}

TEMPLATE uint32_t load_u32(const uint8_t *p)
{
    uint32_t value;

    memcpy(&value, p, sizeof(value));
    return value;
}

/* --- code books --- */

TEMPLATE __m256i four_entries(const uint64_t *grid, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    return _mm256_set_epi64x((int64_t)grid[d], (int64_t)grid[c], (int64_t)grid[b], (int64_t)grid[a]);
}

static void unpack_iq2_xxs(const uint8_t *p, struct grid_block *ret)
{
    const uint8_t *qs = p + offsetof(struct block_iq2_xxs, qs);
    __m256 low = _mm256_loadu_ps((const void *)qs), high = _mm256_loadu_ps((const void *)(qs + 32));
    __m256i words = _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(low, high, 0xDD)), 0xD8);
    uint32_t signs[8];

    even_signs(words, signs);
    store_top_scales(ret->scale, words);
    for (uint32_t j = 0; j < 8; j++, qs += 8)
        store_signed(ret->q + 32 * j, four_entries(grid_iq2_xxs, qs[0], qs[1], qs[2], qs[3]), signs[j]);
    ret->d = load_half(p) * 0.125f;
}

static void unpack_iq2_xs(const uint8_t *p, struct grid_block *ret)
{
    const uint8_t *qs = p + offsetof(struct block_iq2_xs, qs);
    __m256i z[2];
    uint32_t signs[8];

    for (uint32_t i = 0; i < 2; i++) {
        __m256i parity;

        z[i] = _mm256_srli_epi16(_mm256_loadu_si256((const void *)(qs + 32 * i)), 9);
        parity = _mm256_xor_si256(z[i], _mm256_srli_epi16(z[i], 4));
        parity = _mm256_xor_si256(parity, _mm256_srli_epi16(parity, 2));
        parity = _mm256_xor_si256(parity, _mm256_srli_epi16(parity, 1));
        z[i] = _mm256_or_si256(z[i], _mm256_slli_epi16(_mm256_and_si256(parity, _mm256_set1_epi16(1)), 7));
    }
    _mm256_storeu_si256((void *)signs, _mm256_permute4x64_epi64(_mm256_packus_epi16(z[0], z[1]), 0xD8));
    _mm_store_si128((void *)ret->scale, nibble_scales(load_u64(p + offsetof(struct block_iq2_xs, scales))));
    for (uint32_t j = 0; j < 8; j++, qs += 8) {
        uint64_t words = load_u64(qs);

        store_signed(ret->q + 32 * j,
                     four_entries(grid_iq2_xs, words & 511, words >> 16 & 511, words >> 32 & 511, words >> 48 & 511), signs[j]);
    }
    ret->d = load_half(p) * 0.125f;
}

static void unpack_iq2_s(const uint8_t *p, struct grid_block *ret)
{
    const uint8_t *qs = p + offsetof(struct block_iq2_s, qs), *qh = p + offsetof(struct block_iq2_s, qh);
    const uint8_t *signs = p + offsetof(struct block_iq2_s, signs);

    _mm_store_si128((void *)ret->scale, nibble_scales(load_u64(p + offsetof(struct block_iq2_s, scales))));
    for (uint32_t j = 0; j < 8; j++, qs += 4) {
        uint32_t h = qh[j];

        store_signed(ret->q + 32 * j,
                     four_entries(grid_iq2_s, qs[0] | (h << 8 & 0x300), qs[1] | (h << 6 & 0x300), qs[2] | (h << 4 & 0x300),
                                  qs[3] | (h << 2 & 0x300)),
                     load_u32(signs + 4 * j));
    }
    ret->d = load_half(p) * 0.125f;
}

/* Eight entries of IQ3: the eight bytes at @qs, bit i of @h above the i-th. */
TEMPLATE __m256i eight_entries(const uint32_t *grid, const uint8_t *qs, uint32_t h)
{
#define ENTRY(i) (int32_t)grid[qs[i] | (h << (8 - (i)) & 0x100)]
    return _mm256_set_epi32(ENTRY(7), ENTRY(6), ENTRY(5), ENTRY(4), ENTRY(3), ENTRY(2), ENTRY(1), ENTRY(0));
#undef ENTRY
}

static void unpack_iq3_xxs(const uint8_t *p, struct grid_block *ret)
{
    const uint8_t *qs = p + offsetof(struct block_iq3_xxs, qs);
    __m256i words = _mm256_loadu_si256((const void *)(p + offsetof(struct block_iq3_xxs, signs)));
    uint32_t signs[8];

    even_signs(words, signs);
    store_top_scales(ret->scale, words);
    for (uint32_t j = 0; j < 8; j++)
        store_signed(ret->q + 32 * j, eight_entries(grid_iq3_xxs, qs + 8 * j, 0), signs[j]);
    ret->d = load_half(p) * 0.25f;
}

static void unpack_iq3_s(const uint8_t *p, struct grid_block *ret)
{
    const uint8_t *qs = p + offsetof(struct block_iq3_s, qs), *qh = p + offsetof(struct block_iq3_s, qh);
    const uint8_t *signs = p + offsetof(struct block_iq3_s, signs);
    __m128i scales = nibble_scales(load_u32(p + offsetof(struct block_iq3_s, scales)));

    _mm_store_si128((void *)ret->scale, _mm_unpacklo_epi8(scales, scales));
    for (uint32_t j = 0; j < 8; j++)
        store_signed(ret->q + 32 * j, eight_entries(grid_iq3_s, qs + 8 * j, qh[j]), load_u32(signs + 4 * j));
    ret->d = load_half(p);
}

static void unpack_iq1_s(const uint8_t *p, struct grid_block *ret)
{
    const uint8_t *qs = p + offsetof(struct block_iq1_s, qs), *qh = p + offsetof(struct block_iq1_s, qh);
    __m128i words = _mm_loadu_si128((const void *)qh);

    words = _mm_and_si128(_mm_srli_epi16(words, 11), _mm_set1_epi16(14)); /* 2 s */
    words = _mm_or_si128(words, _mm_set1_epi16(1));
    _mm_store_si128((void *)ret->scale, _mm_or_si128(words, _mm_slli_epi16(words, 8)));
    for (uint32_t j = 0; j < 8; j++, qs += 4) {
        uint32_t h = load_u16(qh + 2 * j);
        __m256i w = four_entries(grid_iq1, qs[0] | (h << 8 & 0x700), qs[1] | (h << 5 & 0x700), qs[2] | (h << 2 & 0x700),
                                 qs[3] | (h >> 1 & 0x700));

        _mm256_store_si256((void *)(ret->q + 32 * j), _mm256_add_epi8(w, _mm256_set1_epi8(h >> 15 ? -1 : 1)));
    }
    ret->d = load_half(p) * 0.125f;
}

static void unpack_iq1_m(const uint8_t *p, struct grid_block *ret)
{
    const int64_t one = 0x0101010101010101;
    const uint8_t *qs = p + offsetof(struct block_iq1_m, qs), *qh = p + offsetof(struct block_iq1_m, qh);
    uint64_t words = load_u64(p + offsetof(struct block_iq1_m, scales));
    uint64_t top = words >> 12 & 0x000F000F000F000F;
    uint16_t d = (uint16_t)(top | top >> 12 | top >> 24 | top >> 36);
    __m128i z = _mm_cvtepu16_epi32(_mm_cvtsi64_si128((int64_t)words)), s;

    s = _mm_and_si128(z, _mm_set1_epi32(7));
    s = _mm_or_si128(s, _mm_and_si128(_mm_slli_epi32(z, 5), _mm_set1_epi32(0x700)));
    s = _mm_or_si128(s, _mm_and_si128(_mm_slli_epi32(z, 10), _mm_set1_epi32(0x70000)));
    s = _mm_or_si128(s, _mm_and_si128(_mm_slli_epi32(z, 15), _mm_set1_epi32(0x7000000)));
    _mm_store_si128((void *)ret->scale, _mm_or_si128(_mm_add_epi8(s, s), _mm_set1_epi8(1)));
    for (uint32_t j = 0; j < 8; j++, qs += 4) {
        uint32_t h = load_u16(qh + 2 * j);
        __m256i w = four_entries(grid_iq1, qs[0] | (h << 8 & 0x700), qs[1] | (h << 4 & 0x700), qs[2] | (h & 0x700),
                                 qs[3] | (h >> 4 & 0x700));
        /* a byte of ones, or of minus ones where the nibble's top bit is set */
        __m256i add = _mm256_set_epi64x(h & 0x8000 ? -1 : one, h & 0x800 ? -1 : one, h & 0x80 ? -1 : one, h & 8 ? -1 : one);

        _mm256_store_si256((void *)(ret->q + 32 * j), _mm256_add_epi8(w, add));
    }
    ret->d = _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(d))) * 0.125f;
}

/* --- ternary --- */

/* Digits of 32 bytes, of the place whose power of three stands in each word, less one. */
TEMPLATE __m256i ternary_digits(__m256i bytes, __m256i powers)
{
    const __m256i low = _mm256_set1_epi16(255), three = _mm256_set1_epi16(3);
    __m256i even = _mm256_and_si256(_mm256_mullo_epi16(_mm256_and_si256(bytes, low), powers), low);
    __m256i odd = _mm256_and_si256(_mm256_mullo_epi16(_mm256_srli_epi16(bytes, 8), powers), low);

    even = _mm256_srli_epi16(_mm256_mullo_epi16(even, three), 8);
    odd = _mm256_andnot_si256(low, _mm256_mullo_epi16(odd, three));
    return _mm256_sub_epi8(_mm256_or_si256(even, odd), _mm256_set1_epi8(1));
}

TEMPLATE __m256i two_powers(int low, int high)
{
    return _mm256_inserti128_si256(_mm256_set1_epi16((short)low), _mm_set1_epi16((short)high), 1);
}

static void unpack_tq1_0(const uint8_t *p, struct grid_block *ret)
{
    const __m256i many = _mm256_loadu_si256((const void *)p);
    const __m256i few = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)(p + 32)));
    const __m256i last = _mm256_inserti128_si256(few, _mm_set1_epi32((int32_t)load_u32(p + offsetof(struct block_tq1_0, qh))), 1);
    const __m256i last_powers = _mm256_set_epi16(27, 27, 9, 9, 3, 3, 1, 1, 81, 81, 81, 81, 81, 81, 81, 81);
    __m256i *q = (__m256i *)ret->q;

    for (int n = 0, power = 1; n < 5; n++, power *= 3)
        _mm256_store_si256(q + n, ternary_digits(many, _mm256_set1_epi16((short)power)));
    _mm256_store_si256(q + 5, ternary_digits(few, two_powers(1, 3)));
    _mm256_store_si256(q + 6, ternary_digits(few, two_powers(9, 27)));
    _mm256_store_si256(q + 7, ternary_digits(last, last_powers));
    _mm_store_si128((void *)ret->scale, _mm_set1_epi8(1));
    ret->d = load_half(p + offsetof(struct block_tq1_0, d));
}

static void unpack_tq2_0(const uint8_t *p, struct grid_block *ret)
{
    for (uint32_t half = 0; half < 2; half++) {
        __m256i z = _mm256_loadu_si256((const void *)(p + 32 * half));

        for (uint32_t i = 0; i < 4; i++, z = _mm256_srli_epi16(z, 2))
            _mm256_store_si256((void *)(ret->q + 128 * half + 32 * i),
                               _mm256_sub_epi8(_mm256_and_si256(z, _mm256_set1_epi8(3)), _mm256_set1_epi8(1)));
    }
    _mm_store_si128((void *)ret->scale, _mm_set1_epi8(1));
    ret->d = load_half(p + offsetof(struct block_tq2_0, d));
}

#define GRID_N_TYPES 9

#define GRID_TYPES(X)                                                                                              \
    X(iq2_xxs, TENSOR_IQ2_XXS)                                                                                     \
    X(iq2_xs, TENSOR_IQ2_XS)                                                                                       \
    X(iq2_s, TENSOR_IQ2_S)                                                                                         \
    X(iq3_xxs, TENSOR_IQ3_XXS)                                                                                     \
    X(iq3_s, TENSOR_IQ3_S)                                                                                         \
    X(iq1_s, TENSOR_IQ1_S)                                                                                         \
    X(iq1_m, TENSOR_IQ1_M)                                                                                         \
    X(tq1_0, TENSOR_TQ1_0)                                                                                         \
    X(tq2_0, TENSOR_TQ2_0)

#define GRID_DEFINE_FORMAT(name, type) \
    static const struct grid_format format_##name = {unpack_##name, sizeof(struct block_##name)};

GRID_TYPES(GRID_DEFINE_FORMAT)
