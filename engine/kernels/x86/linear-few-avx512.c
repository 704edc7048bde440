/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Three to eight tokens times weights in 256-blocks, AVX-512 with VNNI and VBMI: T = 4 or 8 tokens in the lanes of a
 * register, 64 / T values of each side by side. Four rows go side by side, so that their sums stay in registers and
 * activations are loaded once for all; a block is unpacked to bytes that stay in the first cache, and runs of 64 / T of
 * them are broadcast to the tokens. The next four rows are prefetched in the order of the file.
 *
 * What makes it faster than multiplying dwords by scales (linear-lanes-avx512.c): a lane's sum of few products fits int16
 * (chain_steps()), so that two registers of them are packed into one (vpackssdw) and multiplied by their scales and
 * added in pairs by one instruction (vpdpwssd). Per 128 bits of a register, with a and b the packed registers:
 *     T = 4, one token:           a a a a b b b b, times its sub-blocks' scales -> a a b b
 *     T = 8, two tokens t and u:  a_t a_t a_u a_u b_t b_t b_u b_u               -> a_t a_u b_t b_u
 * The four rows' sums are then transposed: the float part has the four rows of a token in 128 bits.
 */
#include "engine/kernels/x86/linear-avx512.h"

#include "engine/kernels/linear-act.h"
#include "engine/kernels/linear-scratch.h"
#include "engine/kernels/x86/blocks-avx512.h"
#include "engine/kernels/x86/scales-avx512.h"
#include "engine/kernels/x86/sums-avx512.h"

#define FEW_ROWS 4

/* Four tokens' block as this file wants it: made of act_tokens_256 at the beginning of a call. */
struct few_act {
    int8_t q[16][4][16];
    int16_t sums32[4][8];
    int16_t sums16[2][4][8];
    float d[4][4]; /* each token's four times */
};

_Static_assert(sizeof(struct few_act) == 20 * 64, "steps are 64 bytes");

/* A block of each of the rows, unpacked. */
struct few_tile {
    struct {
        uint8_t q[256];
        int16_t scale[16][4]; /* each four times */
    } rows[FEW_ROWS];
    int16_t mins[FEW_ROWS * 16]; /* one a sub-block, row after row: mins, or scales times the offset of the weights */
} __attribute__((aligned(64)));

/* --- unpacking --- */

#define FEW_SCALE(i, block) (16 * (block) + (i) / 8)
#define FEW_SCALE_0(i) FEW_SCALE(i, 0)
#define FEW_SCALE_1(i) FEW_SCALE(i, 1)
#define FEW_SCALE_2(i) FEW_SCALE(i, 2)
#define FEW_SCALE_3(i) FEW_SCALE(i, 3)
#define FEW_LOW(w)  ((w) / 4)
#define FEW_HIGH(w) ((w) / 4 + 8)

BYTE_TABLE(few_scale_0, FEW_SCALE_0);
BYTE_TABLE(few_scale_1, FEW_SCALE_1);
BYTE_TABLE(few_scale_2, FEW_SCALE_2);
BYTE_TABLE(few_scale_3, FEW_SCALE_3);
WORD_TABLE(few_low, FEW_LOW);
WORD_TABLE(few_high, FEW_HIGH);

TEMPLATE void unpack(const enum tensor_type type, const uint8_t *const p[FEW_ROWS], const struct step_scales *scales, struct few_tile *ret)
{
    const void *const picks[FEW_ROWS] = {few_scale_0, few_scale_1, few_scale_2, few_scale_3};
    const int log2 = type_offset_log2(type);

    if (type_sub_values(type) == 32)
        _mm512_store_si512(ret->mins, _mm512_unpackhi_epi8(scales->k4, _mm512_setzero_si512()));
    UNROLL(4)
    for (int r = 0; r < FEW_ROWS; r++) {
        __m512i q[4], words;

        block_weights_256(type, p[r], q);
        UNROLL(4)
        for (int i = 0; i < 4; i++)
            _mm512_store_si512(ret->rows[r].q + 64 * i, q[i]);
        if (type_sub_values(type) == 32) {
            words = _mm512_maskz_permutexvar_epi8(0x5555555555555555u, load_table(picks[r]), scales->k4);
            _mm512_store_si512(ret->rows[r].scale, words);
            continue;
        }
        words = _mm512_castsi256_si512(_mm256_cvtepi8_epi16(sub16_scales(type, p[r])));
        _mm512_store_si512(ret->rows[r].scale, _mm512_permutexvar_epi16(load_table(few_low), words));
        _mm512_store_si512(ret->rows[r].scale + 8, _mm512_permutexvar_epi16(load_table(few_high), words));
        _mm256_store_si256((void *)(ret->mins + 16 * r),
                           type == TENSOR_Q2_K ? _mm256_cvtepi8_epi16(q2_k_mins(p[r]))
                                               : _mm256_slli_epi16(_mm512_castsi512_si256(words), log2 < 0 ? 0 : log2));
    }
}

/* --- multiplying --- */

/* How many steps' products a lane may sum before it could leave int16: 4 products of at most qmax * 127 a step and lane. */
TEMPLATE int chain_steps(const enum tensor_type type, const int T)
{
    const int all = (int)type_sub_values(type) * T / 64; /* of a sub-block */
    const int most = type == TENSOR_Q6_K ? 1 : type == TENSOR_Q5_K ? 2 : type == TENSOR_Q4_K ? 4 : 8;

    return all < most ? all : most;
}

_Static_assert(4 * 63 * 127 <= INT16_MAX && 2 * 4 * 31 * 127 <= INT16_MAX && 4 * 4 * 15 * 127 <= INT16_MAX &&
                   8 * 4 * 7 * 127 <= INT16_MAX,
               "chain_steps()");

/* Keeps the compiler from folding a load into each of its uses. */
TEMPLATE void in_register(__m512i *z)
{
    __asm__("" : "+v"(*z));
}

/* 64 / T bytes in the place of every token. */
TEMPLATE __m512i for_tokens(const void *p, const int T)
{
    int64_t qword;

    if (T == 4)
        return _mm512_broadcast_i32x4(_mm_loadu_si128(p));
    memcpy(&qword, p, sizeof(qword));
    return _mm512_set1_epi64(qword);
}

/*
 * One block of the rows: partial sums S, and M of the mins or of what the offset adds, in the same places (see above).
 * @q, @sums: of the activations; the latter of 32 values or of 16, as the type has sub-blocks.
 */
TEMPLATE void block_sums(const enum tensor_type type, const int T, const struct few_tile *w, const int8_t *q,
                         const int16_t *sums, __m512i S[FEW_ROWS], __m512i M[FEW_ROWS])
{
    const int W = 64 / T, sub = (int)type_sub_values(type), steps = sub / W, chain = chain_steps(type, T);
    const int n_pairs = 256 / W / chain / 2, n_mins = 256 / sub / (W / 2);
    const __m512i zero = _mm512_setzero_si512();

    UNROLL(4)
    for (int r = 0; r < FEW_ROWS; r++)
        S[r] = zero;
    UNROLL(16)
    for (int pair = 0; pair < n_pairs; pair++) {
        const int first = pair * 2 * chain / steps; /* the sub-block of dot[r][0]; that of dot[r][1] is the same or the next */
        __m512i dot[FEW_ROWS][2];

        /* the two chains in turn, so that neither waits for itself */
        UNROLL(8)
        for (int s = 0; s < 2 * chain; s++) {
            const int half = s % 2, step = pair * 2 * chain + half * chain + s / 2;
            __m512i x = _mm512_load_si512(q + step * 64);

            in_register(&x); /* once for all rows */
            UNROLL(4)
            for (int r = 0; r < FEW_ROWS; r++)
                dot[r][half] = _mm512_dpbusd_epi32(s < 2 ? zero : dot[r][half], for_tokens(w->rows[r].q + step * W, T), x);
        }
        UNROLL(4)
        for (int r = 0; r < FEW_ROWS; r++) {
            __m512i scale = chain == steps ? _mm512_broadcast_i32x4(_mm_load_si128((const void *)w->rows[r].scale[first]))
                                           : for_tokens(w->rows[r].scale[first], 8);

            S[r] = _mm512_dpwssd_epi32(S[r], _mm512_packs_epi32(dot[r][0], dot[r][1]), scale);
        }
    }
    UNROLL(4)
    for (int r = 0; r < FEW_ROWS; r++)
        M[r] = zero;
    UNROLL(4)
    for (int i = 0; i < n_mins; i++) {
        __m512i x = _mm512_load_si512(sums + i * 32);

        UNROLL(4)
        for (int r = 0; r < FEW_ROWS; r++)
            M[r] = _mm512_dpwssd_epi32(M[r], x, for_tokens(w->mins + r * (256 / sub) + i * (W / 2), T));
    }
    UNROLL(4)
    for (int r = 0; r < FEW_ROWS; r++) {
        if (T == 8)
            M[r] = _mm512_shuffle_epi32(M[r], 0xD8);
        if (!type_has_mins(type))
            S[r] = _mm512_sub_epi32(S[r], M[r]);
    }
}

/* The four rows' partial sums to whole ones: four rows of a token in 128 bits; with T = 8 even tokens first, then odd ones. */
TEMPLATE void rows_of_tokens(const int T, const __m512i S[FEW_ROWS], __m512 ret[2])
{
    __m512 u, v;

    if (T == 4) {
        ret[0] = _mm512_cvtepi32_ps(fold_4(fold_2(S[0], S[1]), fold_2(S[2], S[3])));
        return;
    }
    u = _mm512_castsi512_ps(fold_4(S[0], S[1]));
    v = _mm512_castsi512_ps(fold_4(S[2], S[3]));
    ret[0] = _mm512_cvtepi32_ps(_mm512_castps_si512(_mm512_shuffle_ps(u, v, 0x88)));
    ret[1] = _mm512_cvtepi32_ps(_mm512_castps_si512(_mm512_shuffle_ps(u, v, 0xDD)));
}

/* --- rows --- */

/* One block of four rows: acc += terms. @act: the activations' block. */
TEMPLATE void add_block(const enum tensor_type type, const int T, const uint8_t *const p[FEW_ROWS], const uint8_t *act, __m512 acc[2])
{
    const bool sub32 = type_sub_values(type) == 32;
    const size_t sums_at = T == 4 ? (sub32 ? offsetof(struct few_act, sums32) : offsetof(struct few_act, sums16))
                                  : (sub32 ? offsetof(struct act_lanes8_256, sums32) : offsetof(struct act_lanes8_256, sums16));
    const size_t d_at = T == 4 ? offsetof(struct few_act, d) : offsetof(struct act_lanes8_256, d);
    const __m512 dx = _mm512_load_ps((const void *)(act + d_at));
    struct few_tile w;
    struct step_scales scales;
    __m512i S[FEW_ROWS], M[FEW_ROWS];
    __m512 sum[2], min[2];

    step_scales(type, p, &scales);
    unpack(type, p, &scales, &w);
    /* Both compilers would rather shuffle what they have just stored than load it, and shuffles are what is scarce. */
    __asm__("" : "+m"(w));
    block_sums(type, T, &w, (const int8_t *)act, (const int16_t *)(act + sums_at), S, M);
    rows_of_tokens(T, S, sum);
    if (type_has_mins(type))
        rows_of_tokens(T, M, min);
    UNROLL(2)
    for (int half = 0; half < T / 4; half++) {
        const __m512 of_tokens = T == 4 ? dx : half ? _mm512_shuffle_ps(dx, dx, 0xAA) : _mm512_shuffle_ps(dx, dx, 0x00);
        __m512 c = _mm512_mul_ps(sum[half], _mm512_mul_ps(_mm512_broadcast_f32x4(scales.d), of_tokens));

        if (type_has_mins(type))
            c = _mm512_fnmadd_ps(min[half], _mm512_mul_ps(_mm512_broadcast_f32x4(scales.dmin), of_tokens), c);
        acc[half] = _mm512_add_ps(acc[half], c);
    }
}

/* @act: the tokens' blocks, few_act or act_lanes8_256 */
TEMPLATE void rows_few(const struct linear_args *args, const enum tensor_type type, const int T, const uint8_t *act)
{
    const size_t bytes = type_block_bytes(type), act_bytes = T == 4 ? sizeof(struct few_act) : sizeof(struct act_lanes8_256);
    const uint32_t n_blocks = args->k / 256;

    for (uint32_t row = args->row0; row < args->row1; row += FEW_ROWS) {
        const uint32_t n_rows = args->row1 - row < FEW_ROWS ? args->row1 - row : FEW_ROWS;
        const uint8_t *first = args->w + row * args->row_bytes, *next = first + FEW_ROWS * args->row_bytes;
        const uint8_t *p[FEW_ROWS]; /* the last row stands in for those that are missing */
        __m512 acc[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};

        for (uint32_t r = 0; r < FEW_ROWS; r++)
            p[r] = first + (r < n_rows ? r : n_rows - 1) * args->row_bytes;
        for (uint32_t b = 0; b < n_blocks; b++) {
            UNROLL(16)
            for (size_t line = 0; line < FEW_ROWS * bytes; line += 64)
                _mm_prefetch((const char *)next + line, _MM_HINT_T1);
            next += FEW_ROWS * bytes;
            add_block(type, T, p, act + b * act_bytes, acc);
            UNROLL(4)
            for (uint32_t r = 0; r < FEW_ROWS; r++)
                p[r] += bytes;
        }
        for (uint32_t t = 0; t < args->m; t++) {
            _Alignas(64) float tokens[4][4];

            _mm512_store_ps(tokens, acc[T == 4 ? 0 : t % 2]);
            memcpy(args->y + t * args->y_stride + row, tokens[T == 4 ? t : t / 2], n_rows * sizeof(float));
        }
    }
}

/* Three or four tokens: their values are dealt out by lanes once a call, which reads them for many rows. */
static void arrange_4(const struct linear_args *args, struct few_act *ret)
{
    const uint32_t n_blocks = args->k / 256;

    for (uint32_t t = 0; t < 4; t++) {
        struct act_tokens_256 act = act_tokens_256_at((void *)args->act, args->k, t < args->m ? t : args->m - 1);

        for (uint32_t b = 0; b < n_blocks; b++) {
            UNROLL(16)
            for (uint32_t i = 0; i < 16; i++)
                _mm_store_si128((void *)ret[b].q[i][t], _mm_load_si128((const void *)(act.q + b * 256 + i * 16)));
            _mm_store_si128((void *)ret[b].sums32[t], _mm_load_si128((const void *)(act.sums32 + b * 8)));
            _mm_store_si128((void *)ret[b].sums16[0][t], _mm_load_si128((const void *)(act.sums16 + b * 16)));
            _mm_store_si128((void *)ret[b].sums16[1][t], _mm_load_si128((const void *)(act.sums16 + b * 16 + 8)));
            _mm_store_ps(ret[b].d[t], _mm_set1_ps(act.d[b]));
        }
    }
}

#define DEFINE(name, type)                                                                                         \
    void linear_few_4_##name(const struct linear_args *args)                                                       \
    {                                                                                                              \
        arrange_4(args, args->scratch);                                                                            \
        rows_few(args, type, 4, args->scratch);                                                                    \
    }                                                                                                              \
    void linear_few_8_##name(const struct linear_args *args)                                                       \
    {                                                                                                              \
        rows_few(args, type, 8, args->act);                                                                        \
    }
LINEAR_FEW_TYPES(DEFINE)
