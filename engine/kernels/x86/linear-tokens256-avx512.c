/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One and two tokens times weights in 256-blocks, AVX-512 with VNNI and VBMI; of IQ4_XS also three and four, which the
 * other types have in linear-few-avx512.c. Decoding is bound by memory, so weights
 * are read once, strictly in the order of the file: row after row, four blocks a step, with software prefetch (reading
 * sixteen rows side by side reached two thirds of this). The terms of sixteen rows go to the scratch, from where they are
 * added up with rows in lanes.
 *
 * A block's dot products are bytes times bytes (vpdpbusd), then words times scales (vpackssdw, vpdpwssd): the largest sum
 * of four products must fit int16, 4 * 63 * 127 for Q6_K; IQ4_XS's don't and are multiplied as dwords.
 */
#include "engine/kernels/x86/linear-avx512.h"

#include "engine/kernels/linear-act.h"
#include "engine/kernels/linear-scratch.h"
#include "engine/kernels/x86/blocks-avx512.h"
#include "engine/kernels/x86/scales-avx512.h"
#include "engine/kernels/x86/sums-avx512.h"

/* --- where a scale goes after vpackssdw --- */

/* Sub-block of word w of the first pair of registers, with 32-value sub-blocks: lanes 0 and 1 hold 0 and 2, lanes 2 and 3
 * hold 1 and 3; the second pair the same plus four. */
#define PACK32(w)         (((w) % 8 >= 4 ? 2 : 0) + ((w) >= 16 ? 1 : 0))
/* With 16-value sub-blocks: lane L holds L and L + 4; the second pair the same plus eight. */
#define PACK16(w)         (((w) % 8 >= 4 ? 4 : 0) + (w) / 8)
#define PACK16_SECOND(w)  (PACK16(w) + 8)
/* The scale bytes of block @block in the result of k4_scales(), for the words' low bytes. */
#define K4_PICK(i, block, add) (16 * (block) + PACK32((i) / 2) + (add))
#define K4_PICK_00(i) K4_PICK(i, 0, 0)
#define K4_PICK_01(i) K4_PICK(i, 0, 4)
#define K4_PICK_10(i) K4_PICK(i, 1, 0)
#define K4_PICK_11(i) K4_PICK(i, 1, 4)
#define K4_PICK_20(i) K4_PICK(i, 2, 0)
#define K4_PICK_21(i) K4_PICK(i, 2, 4)
#define K4_PICK_30(i) K4_PICK(i, 3, 0)
#define K4_PICK_31(i) K4_PICK(i, 3, 4)

BYTE_TABLE(k4_pick_00, K4_PICK_00);
BYTE_TABLE(k4_pick_01, K4_PICK_01);
BYTE_TABLE(k4_pick_10, K4_PICK_10);
BYTE_TABLE(k4_pick_11, K4_PICK_11);
BYTE_TABLE(k4_pick_20, K4_PICK_20);
BYTE_TABLE(k4_pick_21, K4_PICK_21);
BYTE_TABLE(k4_pick_30, K4_PICK_30);
BYTE_TABLE(k4_pick_31, K4_PICK_31);
WORD_TABLE(sub16_pick_0, PACK16);
WORD_TABLE(sub16_pick_1, PACK16_SECOND);

/* --- the integer part of a step: four blocks --- */

/* Block @k of the step: dwords whose total is S, for each token. Q2_K: also those of M. */
TEMPLATE void step_block(const enum tensor_type type, const int k, const uint8_t *p, const struct step_scales *scales,
                         const struct act_tokens_256 *act, uint32_t b, const int n_tokens, __m512i *S, __m256i *M)
{
    const void *const picks[4][2] = {
        {k4_pick_00, k4_pick_01}, {k4_pick_10, k4_pick_11}, {k4_pick_20, k4_pick_21}, {k4_pick_30, k4_pick_31},
    };
    const __m512i zero = _mm512_setzero_si512();
    __m512i q[4], s0 = zero, s1 = zero;
    __m256i words = _mm256_setzero_si256(), mins = words;

    block_weights_256(type, p, q);
    if (type == TENSOR_Q4_K || type == TENSOR_Q5_K) {
        s0 = _mm512_maskz_permutexvar_epi8(0x5555555555555555u, load_table(picks[k][0]), scales->k4);
        s1 = _mm512_maskz_permutexvar_epi8(0x5555555555555555u, load_table(picks[k][1]), scales->k4);
    } else if (type == TENSOR_IQ4_XS) {
        words = _mm256_cvtepi8_epi32(iq4_xs_scales(p));
    } else {
        words = _mm256_cvtepi8_epi16(sub16_scales(type, p));
        s0 = _mm512_permutexvar_epi16(load_table(sub16_pick_0), _mm512_castsi256_si512(words));
        s1 = _mm512_permutexvar_epi16(load_table(sub16_pick_1), _mm512_castsi256_si512(words));
        if (type == TENSOR_Q2_K)
            mins = _mm256_cvtepi8_epi16(q2_k_mins(p));
    }
    UNROLL(4)
    for (int t = 0; t < n_tokens; t++) {
        const int8_t *a = act[t].q + (size_t)b * 256;
        __m512i dot[4];

        UNROLL(4)
        for (int i = 0; i < 4; i++)
            dot[i] = _mm512_dpbusd_epi32(zero, q[i], _mm512_load_si512(a + 64 * i));
        if (type == TENSOR_IQ4_XS) {
            __m512i sum = zero;
            __m128i sums = _mm_load_si128((const void *)(act[t].sums32 + (size_t)b * 8));
            __m256i off;

            UNROLL(4)
            for (int i = 0; i < 4; i++) {
                const __m512i pick = _mm512_add_epi32(_mm512_set1_epi32(2 * i),
                                                      _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0));
                __m512i scale = _mm512_permutexvar_epi32(pick, _mm512_castsi256_si512(words));

                sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(dot[i], scale));
            }
            off = _mm256_slli_epi32(_mm256_mullo_epi32(_mm256_cvtepi16_epi32(sums), words), 7);
            S[t] = _mm512_sub_epi32(sum, _mm512_zextsi256_si512(off));
            continue;
        }
        S[t] = _mm512_dpwssd_epi32(zero, _mm512_packs_epi32(dot[0], dot[1]), s0);
        S[t] = _mm512_dpwssd_epi32(S[t], _mm512_packs_epi32(dot[2], dot[3]), s1);
        if (type == TENSOR_Q2_K)
            M[t] = _mm256_dpwssd_epi32(_mm256_setzero_si256(), mins,
                                       _mm256_load_si256((const void *)(act[t].sums16 + (size_t)b * 16)));
        if (type == TENSOR_Q6_K || type == TENSOR_Q3_K) {
            __m256i off = _mm256_dpwssd_epi32(_mm256_setzero_si256(), words,
                                              _mm256_load_si256((const void *)(act[t].sums16 + (size_t)b * 16)));

            S[t] = _mm512_sub_epi32(S[t], _mm512_zextsi256_si512(_mm256_slli_epi32(off, type_offset_log2(type))));
        }
    }
}

/* One step of four blocks: their terms for each token, zero where the mask is. */
TEMPLATE void step(const enum tensor_type type, const uint8_t *const p[4], const struct act_tokens_256 *act, uint32_t b,
                   const int n_tokens, float *terms, size_t token_stride, __mmask8 mask)
{
    struct step_scales scales;
    __m512i S[4][4];
    __m256i M[4][4];

    step_scales(type, p, &scales);
    UNROLL(4)
    for (int k = 0; k < 4; k++)
        step_block(type, k, p[k], &scales, act, b + (uint32_t)k, n_tokens, S[k], M[k]);
    UNROLL(4)
    for (int t = 0; t < n_tokens; t++) {
        __m128i total = fold_lanes(fold_4(fold_2(S[0][t], S[1][t]), fold_2(S[2][t], S[3][t])));
        __m128 dx = _mm_loadu_ps(act[t].d + b);
        __m128 term = _mm_mul_ps(_mm_cvtepi32_ps(total), _mm_mul_ps(scales.d, dx));

        if (type_has_mins(type)) {
            __m128i m;

            if (type == TENSOR_Q2_K) {
                __m512i z01 = _mm512_inserti64x4(_mm512_castsi256_si512(M[0][t]), M[1][t], 1);
                __m512i z23 = _mm512_inserti64x4(_mm512_castsi256_si512(M[2][t]), M[3][t], 1);
                __m512i z = fold_2(z01, z23); /* lanes 0, 1: blocks 0 and 2 in turn; lanes 2, 3: 1 and 3 */

                z = _mm512_add_epi32(z, _mm512_shuffle_epi32(z, 0x4E));
                z = _mm512_add_epi32(z, _mm512_shuffle_i32x4(z, z, 0xB1));
                /* 0 and 2 in lane 0, 1 and 3 in lane 2 */
                m = _mm_unpacklo_epi32(_mm512_castsi512_si128(z), _mm512_extracti32x4_epi32(z, 2));
            } else {
                __m512i words = _mm512_unpackhi_epi8(scales.k4, _mm512_setzero_si512());
                __m512i z = _mm512_dpwssd_epi32(_mm512_setzero_si512(), words, _mm512_load_si512(act[t].sums32 + (size_t)b * 8));

                z = _mm512_add_epi32(z, _mm512_shuffle_epi32(z, 0x4E));
                z = _mm512_add_epi32(z, _mm512_shuffle_epi32(z, 0xB1));
                m = _mm512_castsi512_si128(_mm512_permutexvar_epi32(
                    _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 8, 4, 0), z));
            }
            term = _mm_fnmadd_ps(_mm_cvtepi32_ps(m), _mm_mul_ps(scales.dmin, dx), term);
        }
        _mm_store_ps(terms + t * token_stride + b, mask == 15 ? term : _mm_maskz_mov_ps(mask, term));
    }
}

TEMPLATE void row_terms(const enum tensor_type type, const uint8_t *row, uint32_t n_blocks, const struct act_tokens_256 *act,
                        const int n_tokens, float *terms, size_t token_stride)
{
    const size_t bytes = type_block_bytes(type);
    const uint8_t *p = row;
    uint32_t b;

    for (b = 0; b + 4 <= n_blocks; b += 4, p += 4 * bytes) {
        const uint8_t *const at[4] = {p, p + bytes, p + 2 * bytes, p + 3 * bytes};

        UNROLL(16)
        for (size_t line = 0; line < 4 * bytes; line += 64)
            _mm_prefetch((const char *)p + PREFETCH_BYTES + line, _MM_HINT_T1);
        step(type, at, act, b, n_tokens, terms, token_stride, 15);
    }
    if (b < n_blocks) {
        uint32_t left = n_blocks - b;
        const uint8_t *last = p + (left - 1) * bytes;
        /* The last block stands in for those that the row does not have; their terms are masked out. */
        const uint8_t *const at[4] = {p, left > 1 ? p + bytes : last, left > 2 ? p + 2 * bytes : last, last};

        for (size_t line = 0; line < left * bytes; line += 64)
            _mm_prefetch((const char *)p + PREFETCH_BYTES + line, _MM_HINT_T1);
        step(type, at, act, b, n_tokens, terms, token_stride, (__mmask8)((1u << left) - 1));
    }
}

/* Sixteen rows a time. Tokens beyond @m repeat the last one, so that three cost as much as four. */
TEMPLATE void rows_tokens(const struct linear_args *args, const enum tensor_type type, const int n_tokens)
{
    uint32_t n_blocks = args->k / 256;
    size_t row_stride = act_blocks_256(args->k), token_stride = row_stride * SCRATCH_ROWS;
    struct act_tokens_256 act[4];
    float *terms = args->scratch;

    for (uint32_t t = 0; t < (uint32_t)n_tokens; t++)
        act[t] = act_tokens_256_at((void *)args->act, args->k, t < args->m ? t : args->m - 1);
    for (uint32_t r = args->row0; r < args->row1; r += SCRATCH_ROWS) {
        uint32_t n_rows = args->row1 - r < SCRATCH_ROWS ? args->row1 - r : SCRATCH_ROWS;

        for (uint32_t i = 0; i < n_rows; i++)
            row_terms(type, args->w + (r + i) * args->row_bytes, n_blocks, act, n_tokens, terms + i * row_stride, token_stride);
        for (uint32_t t = 0; t < args->m; t++) {
            __m512 sum = add_chains(terms + t * token_stride, row_stride, (uint32_t)row_stride);

            _mm512_mask_storeu_ps(args->y + t * args->y_stride + r, (__mmask16)((1u << n_rows) - 1), sum);
        }
    }
}

static void iq4_xs_4(const struct linear_args *args)
{
    rows_tokens(args, TENSOR_IQ4_XS, 4);
}

#define DEFINE_ROWS(name, type, three_or_four)                                                                     \
    static void name##_1(const struct linear_args *args)                                                           \
    {                                                                                                              \
        rows_tokens(args, type, 1);                                                                                \
    }                                                                                                              \
    static void name##_2(const struct linear_args *args)                                                           \
    {                                                                                                              \
        rows_tokens(args, type, 2);                                                                                \
    }                                                                                                              \
    static void name(const struct linear_args *args)                                                               \
    {                                                                                                              \
        if (args->m == 1)                                                                                          \
            name##_1(args);                                                                                        \
        else if (args->m == 2)                                                                                     \
            name##_2(args);                                                                                        \
        else                                                                                                       \
            three_or_four(args);                                                                                   \
    }
#define DEFINE_FEW(name, type) DEFINE_ROWS(name, type, linear_few_4_##name)

LINEAR_FEW_TYPES(DEFINE_FEW)
DEFINE_ROWS(iq4_xs, TENSOR_IQ4_XS, iq4_xs_4)

#define ROW(name, type)                                                                                            \
    {                                                                                                              \
        KERNEL_LINEAR_TOKENS, type, LINEAR_AVX512_ISA, {.rows = name}, #name "-tokens-avx512", 0.0f,               \
            "linear.h; one row at a time, four blocks a step"                                                      \
    }

const struct kernel_row linear_tokens256_avx512_rows[LINEAR_TOKENS256_AVX512_N_ROWS] = {
    ROW(q2_k, TENSOR_Q2_K), ROW(q3_k, TENSOR_Q3_K), ROW(q4_k, TENSOR_Q4_K),
    ROW(q5_k, TENSOR_Q5_K), ROW(q6_k, TENSOR_Q6_K), ROW(iq4_xs, TENSOR_IQ4_XS),
};
