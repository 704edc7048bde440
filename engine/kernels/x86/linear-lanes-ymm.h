/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Five and more tokens times quantised weights on 256-bit registers; compiled for AVX2 and for AVX-VNNI (dot-ymm.h). The
 * plan is that of linear-lanes-avx512.c: unpacked tiles of rows in the first cache, K panels of activations in the second,
 * sums in the scratch. Half a group's 64-byte step is a register, so a group of tokens is two of them, and two rows by two
 * registers are multiplied at a time.
 *
 * With AVX2 alone products are added up as words as long as they can't overflow: types.h's weights times 127, over
 * word_steps() steps.
 */

#include <string.h>

#include "engine/kernels/linear-act.h"
#include "engine/kernels/linear-scratch.h"
#include "engine/kernels/x86/blocks-avx2.h"
#include "engine/kernels/x86/dot-ymm.h"

#define LANES_PANEL_VALUES 2048 /* of k, where there are many tokens: 128 of them are 256 KB */
#define LANES_SMALL_BATCH  16
#define LANES_TILE_ROWS    16

/* One row's 256 values. */
struct ymm_row {
    uint8_t q[256];     /* unsigned; of wide types without VNNI the magnitudes */
    int8_t with_sign[256]; /* wide types without VNNI only */
    int32_t scale[16];  /* VNNI: as it is; AVX2: twice, as two words */
    int16_t min[16];    /* mins, or offset * scale */
    float d, dmin;
    float d32[8];
    float dmin32[8];
};

_Static_assert(LANES_TILE_ROWS * sizeof(struct ymm_row) <= SCRATCH_TILE_ROWS * SCRATCH_ROW_BYTES, "scratch is laid out for this");

TEMPLATE bool uses_signs(const enum tensor_type type)
{
    return !YMM_VNNI && type_is_wide(type);
}

/* What has to be taken off through the sums of the activations; -1 for nothing. */
TEMPLATE int offset_log2(const enum tensor_type type)
{
    return uses_signs(type) ? -1 : type_offset_log2(type);
}

/* Steps (of two products a word) that fit into a word. */
TEMPLATE int word_steps(const enum tensor_type type)
{
    switch (type) {
    case TENSOR_Q2_K: /* 3, 7 and 15 times 254: more than a sub-block's eight steps fit */
    case TENSOR_Q3_K:
    case TENSOR_Q4_K:
    case TENSOR_Q4_0:
    case TENSOR_Q4_1:
        return 8;
    case TENSOR_Q5_K: /* 31 * 254 */
    case TENSOR_Q5_0:
    case TENSOR_Q5_1:
    case TENSOR_MXFP4: /* 28 * 254 */
        return 4;
    case TENSOR_Q6_K: /* 63 * 254 */
        return 2;
    default: /* 127 * 254, or 128 * 254 */
        return 1;
    }
}

/* --- unpacking --- */

TEMPLATE void store_weights(const enum tensor_type type, struct ymm_row *row, int j, __m256i w)
{
    if (uses_signs(type)) {
        _mm256_storeu_si256((void *)(row->with_sign + 32 * j), w);
        w = _mm256_abs_epi8(w);
    } else if (type_is_wide(type)) {
        w = _mm256_xor_si256(w, _mm256_set1_epi8((char)0x80));
    }
    _mm256_storeu_si256((void *)(row->q + 32 * j), w);
}

/* Eight scale words as the dwords that multiply() wants. */
TEMPLATE void store_scales(int32_t *to, __m128i words)
{
    __m256i z = _mm256_cvtepi16_epi32(words);

    if (!YMM_VNNI)
        z = _mm256_or_si256(_mm256_and_si256(z, _mm256_set1_epi32(0xFFFF)), _mm256_slli_epi32(z, 16));
    _mm256_storeu_si256((void *)to, z);
}

TEMPLATE void ymm_unpack_256(const enum tensor_type type, const uint8_t *p, struct ymm_row *row)
{
    const size_t d_at = type_d_offset(type);

    UNROLL(8)
    for (int j = 0; j < 8; j++)
        store_weights(type, row, j, weights_256(type, p, j));
    row->d = load_half(p + d_at);
    if (type_has_mins(type))
        row->dmin = load_half(p + d_at + 2);
    if (type_sub_values(type) == 16) {
        __m256i words = _mm256_cvtepi8_epi16(sub16_scales(type, p));

        store_scales(row->scale, _mm256_castsi256_si128(words));
        store_scales(row->scale + 8, _mm256_extracti128_si256(words, 1));
        words = type == TENSOR_Q2_K ? _mm256_cvtepi8_epi16(q2_k_mins(p)) : _mm256_slli_epi16(words, type == TENSOR_Q3_K ? 2 : 5);
        _mm256_storeu_si256((void *)row->min, words);
    } else {
        __m128i scales, mins;

        if (type == TENSOR_IQ4_XS) {
            scales = iq4_xs_scales(p);
            mins = _mm_slli_epi16(scales, 7);
        } else {
            k4_scales(p, &scales, &mins);
        }
        store_scales(row->scale, scales);
        _mm_storeu_si128((void *)row->min, mins);
    }
}

TEMPLATE void ymm_unpack_32(const enum tensor_type type, const uint8_t *p, uint32_t n_blocks, struct ymm_row *row)
{
    for (uint32_t j = 0; j < n_blocks; j++) {
        const uint8_t *at = p + j * type_block_bytes(type);

        store_weights(type, row, (int)j, weights_32(type, at));
        row->d32[j] = load_scale_32(type, at);
        if (type_has_mins(type)) /* the format adds m, the rule subtracts dmin */
            row->dmin32[j] = -load_half(at + 2);
    }
}

/* --- multiplying --- */

TEMPLATE __m256i ymm_broadcast(const void *p, const int W)
{
    int32_t dword;
    int64_t qword;

    if (W == 4) {
        memcpy(&dword, p, sizeof(dword));
        return _mm256_set1_epi32(dword);
    }
    memcpy(&qword, p, sizeof(qword));
    return _mm256_set1_epi64x(qword);
}

/* A token's two lanes added, in both of them; with one lane a token there is nothing to add. */
TEMPLATE __m256i ymm_add_token_lanes(__m256i z, const int T)
{
    return T == 16 ? z : _mm256_add_epi32(z, _mm256_shuffle_epi32(z, 0xB1));
}

/*
 * Two rows times one group (two registers): sums + products of values [at, at + n) with the weights, each times the
 * row's @scale dword (VNNI: a factor; AVX2: two words). @x: the first step's 64 bytes.
 */
TEMPLATE void add_products(const enum tensor_type type, const int T, const struct ymm_row *rows, uint32_t at, const int n,
                           const uint8_t *x, const int32_t scale[2], __m256i sum[2][2])
{
    const int W = 64 / T, steps = n / W;
    const int run = YMM_VNNI || steps < word_steps(type) ? steps : word_steps(type);

    UNROLL(8)
    for (int s0 = 0; s0 < steps; s0 += run) {
        __m256i part[2][2];

        UNROLL(8)
        for (int s = s0; s < s0 + run; s++) {
            __m256i a[2] = {load_256(x + 64 * s), load_256(x + 64 * s + 32)};

            UNROLL(2)
            for (int r = 0; r < 2; r++) {
                __m256i w = ymm_broadcast(rows[r].q + at + (size_t)(s * W), W);

                UNROLL(2)
                for (int h = 0; h < 2; h++) {
#if YMM_VNNI
                    part[r][h] = _mm256_dpbusd_avx_epi32(s == s0 ? _mm256_setzero_si256() : part[r][h], w, a[h]);
#else
                    __m256i signs = uses_signs(type) ? ymm_broadcast(rows[r].with_sign + at + (size_t)(s * W), W) : w;
                    __m256i p = byte_products(w, uses_signs(type) ? _mm256_sign_epi8(a[h], signs) : a[h]);

                    part[r][h] = s == s0 ? p : _mm256_add_epi16(part[r][h], p);
#endif
                }
            }
        }
        UNROLL(2)
        for (int r = 0; r < 2; r++) {
            __m256i factor = _mm256_set1_epi32(scale[r]);

            UNROLL(2)
            for (int h = 0; h < 2; h++) {
#if YMM_VNNI
                sum[r][h] = _mm256_add_epi32(sum[r][h], _mm256_mullo_epi32(part[r][h], factor));
#else
                sum[r][h] = add_word_products(sum[r][h], part[r][h], factor);
#endif
            }
        }
    }
}

/* Two rows times one group, one block: sums[r * stride] += terms. */
TEMPLATE void ymm_multiply_256(const enum tensor_type type, const int T, const struct ymm_row *rows, const uint8_t *act,
                               float *sums, size_t stride)
{
    const int W = 64 / T, sub = (int)type_sub_values(type), n_sub = 256 / sub;
    const size_t d_at = T == 16 ? offsetof(struct act_lanes16_256, d) : offsetof(struct act_lanes8_256, d);
    const size_t sums32_at = T == 16 ? offsetof(struct act_lanes16_256, sums32) : offsetof(struct act_lanes8_256, sums32);
    const size_t sums16_at = T == 16 ? offsetof(struct act_lanes16_256, sums16) : offsetof(struct act_lanes8_256, sums16);
    const uint8_t *token_sums = act + (sub == 32 ? sums32_at : sums16_at);
    const __m256i zero = _mm256_setzero_si256();
    __m256i S[2][2] = {{zero, zero}, {zero, zero}};

    for (int j = 0; j < n_sub; j++) {
        const int32_t scale[2] = {rows[0].scale[j], rows[1].scale[j]};

        add_products(type, T, rows, (uint32_t)(j * sub), sub, act + (size_t)(j * sub / W) * 64, scale, S);
    }
    UNROLL(2)
    for (int h = 0; h < 2; h++) {
        __m256 dx = _mm256_load_ps((const void *)(act + d_at + (size_t)h * 32));

        UNROLL(2)
        for (int r = 0; r < 2; r++) {
            const bool has_mins = type_has_mins(type), has_offset = offset_log2(type) >= 0;
            float *at = sums + (size_t)r * stride + (size_t)h * 8;
            __m256i M = zero;
            __m256 c;

            if (has_mins || has_offset) {
                UNROLL(8)
                for (int i = 0; i < n_sub / (W / 2); i++)
                    M = add_word_products(M, load_256(token_sums + i * 64 + h * 32), ymm_broadcast(rows[r].min + i * (W / 2), W));
            }
            if (has_offset)
                S[r][h] = _mm256_sub_epi32(S[r][h], M);
            c = _mm256_mul_ps(_mm256_cvtepi32_ps(ymm_add_token_lanes(S[r][h], T)), _mm256_mul_ps(_mm256_set1_ps(rows[r].d), dx));
            if (has_mins)
                c = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(ymm_add_token_lanes(M, T)), _mm256_mul_ps(_mm256_set1_ps(rows[r].dmin), dx), c);
            _mm256_store_ps(at, _mm256_add_ps(_mm256_load_ps(at), c));
        }
    }
}

/* The same for up to eight blocks of 32. */
TEMPLATE void ymm_multiply_32(const enum tensor_type type, const int T, uint32_t n_blocks, const struct ymm_row *rows,
                              const uint8_t *act, float *sums, size_t stride)
{
    const size_t block_bytes = T == 16 ? sizeof(struct act_lanes16_32) : sizeof(struct act_lanes8_32);
    const size_t sums_at = T == 16 ? offsetof(struct act_lanes16_32, sums) : offsetof(struct act_lanes8_32, sums);
    const size_t d_at = T == 16 ? offsetof(struct act_lanes16_32, d) : offsetof(struct act_lanes8_32, d);
    const int32_t one[2] = {YMM_VNNI ? 1 : 0x10001, YMM_VNNI ? 1 : 0x10001};

    for (uint32_t j = 0; j < n_blocks; j++) {
        const uint8_t *block = act + j * block_bytes;
        __m256i S[2][2], total[2];

        UNROLL(2)
        for (int h = 0; h < 2; h++) {
            total[h] = load_256(block + sums_at + (size_t)h * 32);
            S[0][h] = _mm256_setzero_si256();
            if (offset_log2(type) >= 0)
                S[0][h] = _mm256_sub_epi32(S[0][h], _mm256_slli_epi32(total[h], offset_log2(type) < 0 ? 0 : offset_log2(type)));
            S[1][h] = S[0][h];
        }
        add_products(type, T, rows, j * 32, 32, block, one, S);
        UNROLL(2)
        for (int h = 0; h < 2; h++) {
            __m256 dx = _mm256_load_ps((const void *)(block + d_at + (size_t)h * 32));

            UNROLL(2)
            for (int r = 0; r < 2; r++) {
                float *at = sums + (size_t)r * stride + (size_t)h * 8;
                __m256 c = _mm256_mul_ps(_mm256_cvtepi32_ps(ymm_add_token_lanes(S[r][h], T)),
                                         _mm256_mul_ps(_mm256_set1_ps(rows[r].d32[j]), dx));

                if (type_has_mins(type))
                    c = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(ymm_add_token_lanes(total[h], T)),
                                         _mm256_mul_ps(_mm256_set1_ps(rows[r].dmin32[j]), dx), c);
                _mm256_store_ps(at, _mm256_add_ps(_mm256_load_ps(at), c));
            }
        }
    }
}

/* --- a chunk of tokens --- */

struct ymm_chunk {
    const uint8_t *act; /* the chunk's first group */
    size_t group_bytes; /* of a group of 16 */
    uint32_t n_wide;    /* groups of 16 */
    uint32_t has_narrow; /* 1: a group of 8 follows */
    uint32_t stride;    /* floats from row to row of the sums */
};

TEMPLATE void ymm_tile(const enum tensor_type type, const struct ymm_chunk *chunk, uint32_t b, uint32_t n32,
                       const struct ymm_row *tile, uint32_t n_rows, float *sums)
{
    const size_t wide_bytes = type_is_256(type) ? sizeof(struct act_lanes16_256) : 8 * sizeof(struct act_lanes16_32);
    const size_t narrow_bytes = type_is_256(type) ? sizeof(struct act_lanes8_256) : 8 * sizeof(struct act_lanes8_32);

    for (uint32_t v = 0; v < chunk->n_wide; v++) {
        const uint8_t *act = chunk->act + v * chunk->group_bytes + b * wide_bytes;

        for (uint32_t r = 0; r < n_rows; r += 2) {
            if (type_is_256(type))
                ymm_multiply_256(type, 16, tile + r, act, sums + r * chunk->stride + v * 16, chunk->stride);
            else
                ymm_multiply_32(type, 16, n32, tile + r, act, sums + r * chunk->stride + v * 16, chunk->stride);
        }
    }
    if (chunk->has_narrow) {
        const uint8_t *act = chunk->act + chunk->n_wide * chunk->group_bytes + b * narrow_bytes;

        for (uint32_t r = 0; r < n_rows; r += 2) {
            if (type_is_256(type))
                ymm_multiply_256(type, 8, tile + r, act, sums + r * chunk->stride + chunk->n_wide * 16, chunk->stride);
            else
                ymm_multiply_32(type, 8, n32, tile + r, act, sums + r * chunk->stride + chunk->n_wide * 16, chunk->stride);
        }
    }
}

TEMPLATE void ymm_panel(const enum tensor_type type, const struct linear_args *args, const struct ymm_chunk *chunk, uint32_t row,
                        uint32_t n_rows, uint32_t b0, uint32_t b1, struct ymm_row *tile, float *sums)
{
    const size_t block_bytes = type_block_bytes(type) * (type_is_256(type) ? 1 : 8);
    const uint8_t *w = args->w + row * args->row_bytes;

    for (uint32_t b = b0; b < b1; b++) {
        uint32_t n32 = args->k / 32 - b * 8 < 8 ? args->k / 32 - b * 8 : 8;

        for (uint32_t r = 0; r < n_rows; r++) {
            const uint8_t *p = w + r * args->row_bytes + b * block_bytes;

            if (type_is_256(type))
                ymm_unpack_256(type, p, &tile[r]);
            else
                ymm_unpack_32(type, p, n32, &tile[r]);
            UNROLL(5)
            for (size_t line = 0; line < block_bytes; line += 64)
                _mm_prefetch((const char *)p + n_rows * args->row_bytes + line, _MM_HINT_T0);
        }
        ymm_tile(type, chunk, b, n32, tile, n_rows, sums);
    }
}

/* Rows by tokens to tokens by rows; a narrow group has each token in two lanes. */
static void ymm_store(const struct linear_args *args, const struct ymm_chunk *chunk, const float *sums, uint32_t row, uint32_t n_rows,
                      uint32_t t0, uint32_t n_tokens)
{
    for (uint32_t t = 0; t < n_tokens; t++) {
        uint32_t wide = chunk->n_wide * 16;
        const float *from = sums + (t < wide ? t : wide + 2 * (t - wide));
        float *to = args->y + (t0 + t) * args->y_stride + row;

        for (uint32_t r = 0; r < n_rows; r++)
            to[r] = from[r * chunk->stride];
    }
}

TEMPLATE void rows_lanes(const struct linear_args *args, const enum tensor_type type)
{
    const enum act_format format = type_is_256(type) ? ACT_Q8_256 : ACT_Q8_32;
    const uint32_t n_blocks = (args->k + 255) / 256;
    const uint32_t panel = args->m <= LANES_SMALL_BATCH ? n_blocks : LANES_PANEL_VALUES / 256;
    struct ymm_row *tile = args->scratch;
    float *sums = (float *)((uint8_t *)args->scratch + SCRATCH_TILE_ROWS * SCRATCH_ROW_BYTES);

    for (uint32_t t0 = 0; t0 < args->m; t0 += SCRATCH_CHUNK) {
        uint32_t n_tokens = args->m - t0 < SCRATCH_CHUNK ? args->m - t0 : SCRATCH_CHUNK, rest = n_tokens % ACT_GROUP;
        struct ymm_chunk chunk = {
            .act = act_group_at(format, (void *)args->act, args->k, t0),
            .group_bytes = act_group_bytes(format, args->k, ACT_GROUP),
            .n_wide = n_tokens / ACT_GROUP + (rest > 8),
            .has_narrow = rest > 0 && rest <= 8,
        };

        chunk.stride = (chunk.n_wide + chunk.has_narrow) * 16;
        for (uint32_t row0 = args->row0; row0 < args->row1; row0 += SCRATCH_PANEL_ROWS) {
            uint32_t n_rows = args->row1 - row0 < SCRATCH_PANEL_ROWS ? args->row1 - row0 : SCRATCH_PANEL_ROWS;

            memset(sums, 0, (size_t)((n_rows + 1) & ~1u) * chunk.stride * sizeof(float));
            for (uint32_t b = 0; b < n_blocks; b += panel) {
                for (uint32_t r = 0; r < n_rows; r += LANES_TILE_ROWS)
                    ymm_panel(type, args, &chunk, row0 + r, n_rows - r < LANES_TILE_ROWS ? n_rows - r : LANES_TILE_ROWS, b,
                              b + panel < n_blocks ? b + panel : n_blocks, tile, sums + r * chunk.stride);
            }
            ymm_store(args, &chunk, sums, row0, n_rows, t0, n_tokens);
        }
    }
}
