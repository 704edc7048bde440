/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One to four tokens times weights in 32-blocks, AVX-512 with VNNI and VBMI. As linear-tokens256-avx512.c: row after row in
 * the order of the file, here sixteen blocks a step, whose sums become the lanes of one register. Every block has its
 * own float scale, so there are eight times as many terms, and collecting the scales is a good part of the work.
 */
#include "engine/kernels/x86/linear-avx512.h"

#include <string.h>

#include "engine/kernels/linear-act.h"
#include "engine/kernels/linear-scratch.h"
#include "engine/kernels/x86/blocks-avx512.h"
#include "engine/kernels/x86/sums-avx512.h"

/* Sixteen blocks: @p, and how many of them there are; the last one stands in for those that are missing. */
TEMPLATE const uint8_t *block_at(const enum tensor_type type, const uint8_t *p, uint32_t n, uint32_t i)
{
    return p + (i < n ? i : n - 1) * type_block_bytes(type);
}

/* Four half floats from each of two registers of 64 bytes, @at words in, blocks of @words words. */
#define FOUR_OF_TWO(i, at, words) ((i) % 8 < 4 ? (at) + (i) % 4 * (words) : 32 + (at) + (i) % 4 * (words))
#define PICK_9_0(i)  FOUR_OF_TWO(i, 0, 9)
#define PICK_10_0(i) FOUR_OF_TWO(i, 0, 10)
#define PICK_10_1(i) FOUR_OF_TWO(i, 1, 10)
/* Two from each: blocks of 34 bytes */
#define PICK_17(i)   ((i) % 4 < 2 ? (i) % 2 * 17 : 32 + (i) % 2 * 17)

WORD_TABLE(pick_9_0, PICK_9_0);
WORD_TABLE(pick_10_0, PICK_10_0);
WORD_TABLE(pick_10_1, PICK_10_1);
WORD_TABLE(pick_17, PICK_17);

/* The first bytes of eight blocks of 17 bytes in two registers of 64 bytes, four blocks in each. */
#define PICK_MXFP4(i) ((i) % 8 < 4 ? (i) % 4 * 17 : 64 + (i) % 4 * 17)

BYTE_TABLE(pick_mxfp4, PICK_MXFP4);

TEMPLATE __m512 join_halves(__m256 low, __m256 high)
{
    return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
}

TEMPLATE __m512 widen_halves(__m128i low, __m128i high)
{
    return _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1));
}

/*
 * The same address, but the compiler can't know. clang 14 sees that the loads for the scales cover bytes of the weights, saves
 * the second load and shifts the bytes out of the first one with scalar instructions, at 2.8 times the cost of the kernel.
 */
TEMPLATE const uint8_t *unrelated(const uint8_t *p)
{
    __asm__("" : "+r"(p));
    return p;
}

/* The half floats at byte @at (0 or 2) of sixteen blocks. */
TEMPLATE __m512 block_scales(const enum tensor_type type, const uint8_t *p, uint32_t n, const int at)
{
    const size_t bytes = type_block_bytes(type);
    __m128i z[2];

    p = unrelated(p);
    if (type == TENSOR_MXFP4 && n == 16) {
        const __m512i pick = load_table(pick_mxfp4);
        __m512i low = _mm512_permutex2var_epi8(_mm512_loadu_si512(p), pick, _mm512_loadu_si512(p + 4 * bytes));
        __m512i high = _mm512_permutex2var_epi8(_mm512_loadu_si512(p + 8 * bytes), pick, _mm512_loadu_si512(p + 12 * bytes));

        return join_halves(e8m0_scales(_mm512_castsi512_si128(low)), e8m0_scales(_mm512_castsi512_si128(high)));
    }
    if (type == TENSOR_MXFP4) {
        uint8_t e[16];

        for (uint32_t i = 0; i < 16; i++)
            e[i] = *block_at(type, p, n, i);
        return join_halves(e8m0_scales(_mm_loadl_epi64((const void *)e)), e8m0_scales(_mm_loadl_epi64((const void *)(e + 8))));
    }
    if (n == 16 && (bytes == 18 || bytes == 20)) {
        __m512i pick = load_table(bytes == 18 ? pick_9_0 : at == 0 ? pick_10_0 : pick_10_1);

        UNROLL(2)
        for (size_t i = 0; i < 2; i++) {
            __m512i a = _mm512_loadu_si512(p + 8 * i * bytes), b = _mm512_loadu_si512(p + (8 * i + 4) * bytes);

            z[i] = _mm512_castsi512_si128(_mm512_permutex2var_epi16(a, pick, b));
        }
        return widen_halves(z[0], z[1]);
    }
    if (n == 16 && bytes == 34) {
        __m512i pick = load_table(pick_17);
        __m128i four[4];

        UNROLL(4)
        for (size_t i = 0; i < 4; i++) {
            __m512i a = _mm512_loadu_si512(p + 4 * i * bytes), b = _mm512_loadu_si512(p + (4 * i + 2) * bytes);

            four[i] = _mm512_castsi512_si128(_mm512_permutex2var_epi16(a, pick, b));
        }
        return widen_halves(_mm_unpacklo_epi64(four[0], four[1]), _mm_unpacklo_epi64(four[2], four[3]));
    }
    UNROLL(2)
    for (uint32_t i = 0; i < 2; i++) {
        z[i] = _mm_cvtsi32_si128(load_u16(block_at(type, p, n, 8 * i) + at));
        z[i] = _mm_insert_epi16(z[i], load_u16(block_at(type, p, n, 8 * i + 1) + at), 1);
        z[i] = _mm_insert_epi16(z[i], load_u16(block_at(type, p, n, 8 * i + 2) + at), 2);
        z[i] = _mm_insert_epi16(z[i], load_u16(block_at(type, p, n, 8 * i + 3) + at), 3);
        z[i] = _mm_insert_epi16(z[i], load_u16(block_at(type, p, n, 8 * i + 4) + at), 4);
        z[i] = _mm_insert_epi16(z[i], load_u16(block_at(type, p, n, 8 * i + 5) + at), 5);
        z[i] = _mm_insert_epi16(z[i], load_u16(block_at(type, p, n, 8 * i + 6) + at), 6);
        z[i] = _mm_insert_epi16(z[i], load_u16(block_at(type, p, n, 8 * i + 7) + at), 7);
    }
    return widen_halves(z[0], z[1]);
}

/* Terms of the @n blocks from @p, which are blocks b .. b + n - 1 of the row; zeros behind them up to sixteen. */
TEMPLATE void step(const enum tensor_type type, const uint8_t *p, const uint32_t n, const struct act_tokens_32 *act, uint32_t b,
                   const int n_tokens, float *terms, size_t token_stride)
{
    /* after the folds: even blocks of the first half, odd ones, and the same of the second half */
    const __m512i order = _mm512_set_epi32(15, 11, 14, 10, 13, 9, 12, 8, 7, 3, 6, 2, 5, 1, 4, 0);
    const __m512 d = block_scales(type, p, n, 0);
    const __m512 m = type_has_mins(type) ? block_scales(type, p, n, 2) : _mm512_setzero_ps();
    __m512i q[8];

    UNROLL(8)
    for (uint32_t i = 0; i < 8; i++)
        q[i] = block_weights_32(type, block_at(type, p, n, 2 * i), block_at(type, p, n, 2 * i + 1));
    UNROLL(4)
    for (int t = 0; t < n_tokens; t++) {
        __m512i dot[8], S, x, y, sums = _mm512_loadu_si512(act[t].sums32 + b);
        __m512 dx = _mm512_loadu_ps(act[t].d + b), c;

        UNROLL(8)
        for (int i = 0; i < 8; i++)
            dot[i] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), q[i], _mm512_loadu_si512(act[t].q + (size_t)b * 32 + 64 * (size_t)i));
        x = fold_4(fold_2(dot[0], dot[1]), fold_2(dot[2], dot[3]));
        y = fold_4(fold_2(dot[4], dot[5]), fold_2(dot[6], dot[7]));
        S = _mm512_add_epi32(_mm512_shuffle_i32x4(x, y, 0x88), _mm512_shuffle_i32x4(x, y, 0xDD));
        S = _mm512_permutexvar_epi32(order, S);
        if (type_offset_log2(type) >= 0)
            S = _mm512_sub_epi32(S, _mm512_slli_epi32(sums, (unsigned)(type_has_mins(type) ? 0 : type_offset_log2(type))));
        c = _mm512_mul_ps(_mm512_cvtepi32_ps(S), _mm512_mul_ps(d, dx));
        if (type_has_mins(type)) /* the format adds m where the rule subtracts dmin: both signs cancel */
            c = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), _mm512_mul_ps(m, dx), c);
        _mm512_storeu_ps(terms + t * token_stride + b, n == 16 ? c : _mm512_maskz_mov_ps((__mmask16)((1u << n) - 1), c));
    }
}

/*
 * Blocks that are left behind whole steps are the end of one more step, which computes the blocks before them a second time:
 * scales of fewer than sixteen are collected one by one, at several times the cost.
 */
TEMPLATE void row_terms(const enum tensor_type type, const uint8_t *row, uint32_t n_blocks, const struct act_tokens_32 *act,
                        const int n_tokens, float *terms, size_t token_stride)
{
    const size_t bytes = type_block_bytes(type);
    const uint8_t *p = row;
    uint32_t b;

    if (n_blocks < 16) {
        step(type, p, n_blocks, act, 0, n_tokens, terms, token_stride);
        return;
    }
    for (b = 0; b + 16 <= n_blocks; b += 16, p += 16 * bytes) {
        UNROLL(16)
        for (size_t line = 0; line < 16 * bytes; line += 64)
            _mm_prefetch((const char *)p + PREFETCH_BYTES + line, _MM_HINT_T1);
        step(type, p, 16, act, b, n_tokens, terms, token_stride);
    }
    if (b < n_blocks) {
        for (size_t line = 0; line < (n_blocks - b) * bytes; line += 64)
            _mm_prefetch((const char *)p + PREFETCH_BYTES + line, _MM_HINT_T1);
        b = n_blocks - 16;
        step(type, row + b * bytes, 16, act, b, n_tokens, terms, token_stride);
    }
}

/* Sixteen rows a time. Tokens beyond @m repeat the last one, so that three cost as much as four. */
TEMPLATE void rows_tokens(const struct linear_args *args, const enum tensor_type type, const int n_tokens)
{
    size_t row_stride = act_blocks_32(args->k), token_stride = row_stride * SCRATCH_ROWS;
    struct act_tokens_32 act[4];
    float *terms = args->scratch;

    for (uint32_t t = 0; t < (uint32_t)n_tokens; t++)
        act[t] = act_tokens_32_at((void *)args->act, args->k, t < args->m ? t : args->m - 1);
    for (size_t i = 0; i < SCRATCH_ROWS * (size_t)n_tokens && row_stride > args->k / 32; i++) /* behind the blocks */
        memset(terms + i * row_stride + args->k / 32, 0, (row_stride - args->k / 32) * sizeof(*terms));
    for (uint32_t r = args->row0; r < args->row1; r += SCRATCH_ROWS) {
        uint32_t n_rows = args->row1 - r < SCRATCH_ROWS ? args->row1 - r : SCRATCH_ROWS;

        for (uint32_t i = 0; i < n_rows; i++)
            row_terms(type, args->w + (r + i) * args->row_bytes, args->k / 32, act, n_tokens, terms + i * row_stride, token_stride);
        for (uint32_t t = 0; t < args->m; t++) {
            __m512 sum = add_chains(terms + t * token_stride, row_stride, (uint32_t)row_stride);

            _mm512_mask_storeu_ps(args->y + t * args->y_stride + r, (__mmask16)((1u << n_rows) - 1), sum);
        }
    }
}

#define DEFINE_ROWS(name, type)                                                                                    \
    static void name##_1(const struct linear_args *args)                                                           \
    {                                                                                                              \
        rows_tokens(args, type, 1);                                                                                \
    }                                                                                                              \
    static void name##_2(const struct linear_args *args)                                                           \
    {                                                                                                              \
        rows_tokens(args, type, 2);                                                                                \
    }                                                                                                              \
    static void name##_4(const struct linear_args *args)                                                           \
    {                                                                                                              \
        rows_tokens(args, type, 4);                                                                                \
    }                                                                                                              \
    static void name(const struct linear_args *args)                                                               \
    {                                                                                                              \
        if (args->m == 1)                                                                                          \
            name##_1(args);                                                                                        \
        else if (args->m == 2)                                                                                     \
            name##_2(args);                                                                                        \
        else                                                                                                       \
            name##_4(args);                                                                                        \
    }

DEFINE_ROWS(q4_0, TENSOR_Q4_0)
DEFINE_ROWS(q4_1, TENSOR_Q4_1)
DEFINE_ROWS(q5_0, TENSOR_Q5_0)
DEFINE_ROWS(q5_1, TENSOR_Q5_1)
DEFINE_ROWS(q8_0, TENSOR_Q8_0)
DEFINE_ROWS(iq4_nl, TENSOR_IQ4_NL)
DEFINE_ROWS(mxfp4, TENSOR_MXFP4)

#define ROW(name, type)                                                                                            \
    {                                                                                                              \
        KERNEL_LINEAR_TOKENS, type, LINEAR_AVX512_ISA, {.rows = name}, #name "-tokens-avx512", 0.0f,               \
            "linear.h; one row at a time, sixteen blocks a step"                                                   \
    }

const struct kernel_row linear_tokens32_avx512_rows[LINEAR_TOKENS32_AVX512_N_ROWS] = {
    ROW(q4_0, TENSOR_Q4_0), ROW(q4_1, TENSOR_Q4_1), ROW(q5_0, TENSOR_Q5_0),
    ROW(q5_1, TENSOR_Q5_1), ROW(q8_0, TENSOR_Q8_0), ROW(iq4_nl, TENSOR_IQ4_NL),
    ROW(mxfp4, TENSOR_MXFP4),
};
