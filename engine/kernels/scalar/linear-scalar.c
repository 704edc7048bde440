/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The reference of the matrix kernels: linear.h's rule of sums, line by line, for every type. Written to be read; it
 * does not change for speed. It takes nothing from the packed activations but the int8 values and their scale, and adds
 * up by itself what vector kernels find precomputed.
 */
#include "engine/kernels/scalar/linear-scalar.h"

#include <string.h>

#include "engine/gguf/half.h"
#include "engine/kernels/decode.h"
#include "engine/kernels/fma.h"
#include "engine/kernels/linear-act.h"

/* --- activations --- */

static void pack_f32(const struct linear_pack_args *args)
{
    size_t stride = act_f32_stride(args->k);

    for (uint32_t t = args->m0; t < args->m1; t++) {
        float *dst = (float *)args->act + t * stride;

        memcpy(dst, linear_pack_row(args, t), args->k * sizeof(float));
        memset(dst + args->k, 0, (stride - args->k) * sizeof(float));
    }
}

/* Nearest integer, ties to even, for |x| < 2^22: the addition pushes the fraction out of the mantissa. */
static int32_t round_even(float x)
{
    const float magic = 0x1.8p23f;

    return (int32_t)((x + magic) - magic);
}

/* One block: [n] values to q, returns the scale. */
static float quantise(const float *x, uint32_t n, int8_t *q)
{
    uint32_t amax_bits = 0;
    float amax, id;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t bits = float_to_bits(x[i]) & 0x7FFFFFFFu;

        amax_bits = bits > amax_bits ? bits : amax_bits;
    }
    amax = float_from_bits(amax_bits);
    if (amax_bits >= 0x7F800000u || amax < ACT_TINY) {
        memset(q, 0, n);
        return amax_bits >= 0x7F800000u ? float_from_bits(0x7FC00000u) : 0.0f;
    }
    id = 127.0f / amax;
    for (uint32_t i = 0; i < n; i++) {
        int32_t value = round_even(x[i] * id);

        q[i] = (int8_t)(value > 127 ? 127 : value < -127 ? -127 : value);
    }
    return amax / 127.0f;
}

static int32_t sum(const int8_t *q, uint32_t n)
{
    int32_t total = 0;

    for (uint32_t i = 0; i < n; i++)
        total += q[i];
    return total;
}

static void pack_tokens_256(const struct linear_pack_args *args)
{
    for (uint32_t t = args->m0; t < args->m1; t++) {
        struct act_tokens_256 act = act_tokens_256_at(args->act, args->k, t);

        memset(act.q, 0, act_tokens_256_bytes(args->k));
        for (uint32_t b = 0; b < args->k / 256; b++) {
            int8_t *q = act.q + b * 256;

            act.d[b] = quantise(linear_pack_row(args, t) + b * 256, 256, q);
            for (uint32_t j = 0; j < 8; j++)
                act.sums32[b * 8 + j] = (int16_t)sum(q + j * 32, 32);
            for (uint32_t j = 0; j < 16; j++)
                act.sums16[b * 16 + j] = (int16_t)sum(q + j * 16, 16);
        }
    }
}

static void pack_tokens_32(const struct linear_pack_args *args)
{
    for (uint32_t t = args->m0; t < args->m1; t++) {
        struct act_tokens_32 act = act_tokens_32_at(args->act, args->k, t);

        memset(act.q, 0, act_tokens_32_bytes(args->k));
        for (uint32_t b = 0; b < args->k / 32; b++) {
            act.d[b] = quantise(linear_pack_row(args, t) + b * 32, 32, act.q + b * 32);
            act.sums32[b] = sum(act.q + b * 32, 32);
        }
    }
}

/* One token of a group, one block; T tokens, W bytes of each side by side. */
static void pack_lane_256(const float *x, uint32_t T, uint32_t lane, void *block)
{
    struct act_lanes16_256 *wide = block;
    struct act_lanes8_256 *narrow = block;
    uint32_t W = 64 / T, W2 = W / 2;
    int8_t *q = T == 16 ? wide->q[0][0] : narrow->q[0][0];
    int16_t *sums32 = T == 16 ? wide->sums32[0][0] : narrow->sums32[0][0];
    int16_t *sums16 = T == 16 ? wide->sums16[0][0] : narrow->sums16[0][0];
    float *d = T == 16 ? wide->d : narrow->d;
    int8_t values[256] = {0};
    float scale = x ? quantise(x, 256, values) : 0.0f;

    for (uint32_t i = 0; i < 256; i++)
        q[i / W * 64 + lane * W + i % W] = values[i];
    for (uint32_t j = 0; j < 8; j++)
        sums32[j / W2 * 32 + lane * W2 + j % W2] = (int16_t)sum(values + j * 32, 32);
    for (uint32_t j = 0; j < 16; j++)
        sums16[j / W2 * 32 + lane * W2 + j % W2] = (int16_t)sum(values + j * 16, 16);
    for (uint32_t i = 0; i < W / 4; i++)
        d[lane * (W / 4) + i] = scale;
}

static void pack_lane_32(const float *x, uint32_t T, uint32_t lane, void *block)
{
    struct act_lanes16_32 *wide = block;
    struct act_lanes8_32 *narrow = block;
    uint32_t W = 64 / T;
    int8_t *q = T == 16 ? wide->q[0][0] : narrow->q[0][0];
    int32_t *sums = T == 16 ? wide->sums : narrow->sums;
    float *d = T == 16 ? wide->d : narrow->d;
    int8_t values[32] = {0};
    float scale = x ? quantise(x, 32, values) : 0.0f;

    for (uint32_t i = 0; i < 32; i++)
        q[i / W * 64 + lane * W + i % W] = values[i];
    for (uint32_t i = 0; i < W / 4; i++) {
        sums[lane * (W / 4) + i] = i == 0 ? sum(values, 32) : 0;
        d[lane * (W / 4) + i] = scale;
    }
}

static void pack_lanes(const struct linear_pack_args *args, enum act_format format)
{
    uint32_t n_values = format == ACT_Q8_256 ? 256 : 32;

    for (uint32_t t0 = args->m0; t0 < args->m1; t0 += ACT_GROUP) {
        uint32_t T = act_group_tokens(args->m, t0);
        size_t block_bytes = act_group_bytes(format, n_values, T);

        for (uint32_t b = 0; b < args->k / n_values; b++) {
            uint8_t *block = (uint8_t *)act_group_at(format, args->act, args->k, t0) + b * block_bytes;

            for (uint32_t lane = 0; lane < T; lane++) {
                const float *x = t0 + lane < args->m ? linear_pack_row(args, t0 + lane) + b * n_values : NULL;

                if (format == ACT_Q8_256)
                    pack_lane_256(x, T, lane, block);
                else
                    pack_lane_32(x, T, lane, block);
            }
        }
    }
}

static void pack_q8_256(const struct linear_pack_args *args)
{
    if (act_shape(ACT_Q8_256, args->m) == LINEAR_TOKENS)
        pack_tokens_256(args);
    else
        pack_lanes(args, ACT_Q8_256);
}

static void pack_q8_32(const struct linear_pack_args *args)
{
    if (act_shape(ACT_Q8_32, args->m) == LINEAR_TOKENS)
        pack_tokens_32(args);
    else
        pack_lanes(args, ACT_Q8_32);
}

/* --- quantised weights --- */

/* Block @b of token @t in its natural order, from whichever layout; returns the scale. */
static float act_block(const struct linear_args *args, uint32_t n_values, uint32_t t, uint32_t b, int8_t *values)
{
    enum act_format format = n_values == 256 ? ACT_Q8_256 : ACT_Q8_32;
    uint32_t t0 = t / ACT_GROUP * ACT_GROUP, lane = t - t0, T, W;
    void *act = (void *)args->act;
    const uint8_t *block;
    const float *d;

    if (act_shape(format, args->m) == LINEAR_TOKENS) {
        if (n_values == 256) {
            memcpy(values, act_tokens_256_at(act, args->k, t).q + b * 256, 256);
            return act_tokens_256_at(act, args->k, t).d[b];
        }
        memcpy(values, act_tokens_32_at(act, args->k, t).q + b * 32, 32);
        return act_tokens_32_at(act, args->k, t).d[b];
    }
    T = act_group_tokens(args->m, t0);
    W = 64 / T;
    block = (const uint8_t *)act_group_at(format, act, args->k, t0) + b * act_group_bytes(format, n_values, T);
    for (uint32_t i = 0; i < n_values; i++)
        values[i] = (int8_t)block[i / W * 64 + lane * W + i % W];
    /* q comes first and d last in each of the four structs */
    d = (const float *)(block + act_group_bytes(format, n_values, T)) - 16;
    return d[lane * (W / 4)];
}

/* What the block adds to the chain. */
static float block_term(const struct decoded_block *block, const int8_t *a, float dx)
{
    int32_t S = 0, M = 0;
    float c;

    for (uint32_t j = 0; j * block->sub_values < block->n_values; j++) {
        int32_t dot = 0, total = 0;

        for (uint32_t i = j * block->sub_values; i < (j + 1) * block->sub_values; i++) {
            dot += block->q[i] * a[i];
            total += a[i];
        }
        S += block->scale[j] * dot;
        M += block->min[j] * total;
    }
    c = (float)S * (block->d * dx);
    if (block->has_min)
        c = fma_exact(-(float)M, block->dmin * dx, c);
    return c;
}

static void rows_quantised(const struct linear_args *args, enum tensor_type type)
{
    const struct tensor_traits *traits = tensor_traits(type);

    for (uint32_t r = args->row0; r < args->row1; r++) {
        const uint8_t *row = args->w + r * args->row_bytes;

        for (uint32_t t = 0; t < args->m; t++)
            args->y[t * args->y_stride + r] = 0.0f;
        for (uint32_t b = 0; b < args->k / traits->block_values; b++) {
            struct decoded_block block;

            block_decode(type, row + (size_t)b * traits->block_bytes, &block);
            for (uint32_t t = 0; t < args->m; t++) {
                int8_t values[256];
                float dx = act_block(args, traits->block_values, t, b, values);

                args->y[t * args->y_stride + r] += block_term(&block, values, dx);
            }
        }
    }
}

/* --- float weights --- */

static float weight(enum tensor_type type, const uint8_t *row, uint32_t i)
{
    uint16_t bits;
    float value;

    if (type == TENSOR_F32) {
        memcpy(&value, row + (size_t)i * 4, sizeof(value));
        return value;
    }
    memcpy(&bits, row + (size_t)i * 2, sizeof(bits));
    return type == TENSOR_F16 ? half_to_float(bits) : bf16_to_float(bits);
}

static void rows_float(const struct linear_args *args, enum tensor_type type)
{
    size_t stride = act_f32_stride(args->k);

    for (uint32_t r = args->row0; r < args->row1; r++) {
        const uint8_t *row = args->w + r * args->row_bytes;

        for (uint32_t t = 0; t < args->m; t++) {
            const float *x = (const float *)args->act + t * stride;
            float lane[16] = {0};

            for (uint32_t i = 0; i < args->k; i++)
                lane[i % 16] = fma_exact(weight(type, row, i), x[i], lane[i % 16]);
            for (uint32_t n = 8; n > 0; n /= 2)
                for (uint32_t i = 0; i < n; i++)
                    lane[i] += lane[i + n];
            args->y[t * args->y_stride + r] = lane[0];
        }
    }
}

/* The type must be known inside: one function a type, its two layouts share it. */
#define DEFINE_ROWS(name, type, how)                                                                               \
    static void rows_##name(const struct linear_args *args)                                                        \
    {                                                                                                              \
        how(args, type);                                                                                           \
    }

DEFINE_ROWS(f32, TENSOR_F32, rows_float)
DEFINE_ROWS(f16, TENSOR_F16, rows_float)
DEFINE_ROWS(bf16, TENSOR_BF16, rows_float)
DEFINE_ROWS(q4_0, TENSOR_Q4_0, rows_quantised)
DEFINE_ROWS(q4_1, TENSOR_Q4_1, rows_quantised)
DEFINE_ROWS(q5_0, TENSOR_Q5_0, rows_quantised)
DEFINE_ROWS(q5_1, TENSOR_Q5_1, rows_quantised)
DEFINE_ROWS(q8_0, TENSOR_Q8_0, rows_quantised)
DEFINE_ROWS(iq4_nl, TENSOR_IQ4_NL, rows_quantised)
DEFINE_ROWS(mxfp4, TENSOR_MXFP4, rows_quantised)
DEFINE_ROWS(q2_k, TENSOR_Q2_K, rows_quantised)
DEFINE_ROWS(q3_k, TENSOR_Q3_K, rows_quantised)
DEFINE_ROWS(q4_k, TENSOR_Q4_K, rows_quantised)
DEFINE_ROWS(q5_k, TENSOR_Q5_K, rows_quantised)
DEFINE_ROWS(q6_k, TENSOR_Q6_K, rows_quantised)
DEFINE_ROWS(iq4_xs, TENSOR_IQ4_XS, rows_quantised)
DEFINE_ROWS(iq2_xxs, TENSOR_IQ2_XXS, rows_quantised)
DEFINE_ROWS(iq2_xs, TENSOR_IQ2_XS, rows_quantised)
DEFINE_ROWS(iq2_s, TENSOR_IQ2_S, rows_quantised)
DEFINE_ROWS(iq3_xxs, TENSOR_IQ3_XXS, rows_quantised)
DEFINE_ROWS(iq3_s, TENSOR_IQ3_S, rows_quantised)
DEFINE_ROWS(iq1_s, TENSOR_IQ1_S, rows_quantised)
DEFINE_ROWS(iq1_m, TENSOR_IQ1_M, rows_quantised)
DEFINE_ROWS(tq1_0, TENSOR_TQ1_0, rows_quantised)
DEFINE_ROWS(tq2_0, TENSOR_TQ2_0, rows_quantised)

#define SOURCE "linear.h, the rule of sums"
#define PACK(name, format)                                                                                         \
    {                                                                                                              \
        KERNEL_PACK, format, 0, {.pack = name}, #name "-scalar", 0.0f, SOURCE                                      \
    }
#define ROWS(name, op, type)                                                                                       \
    {                                                                                                              \
        op, type, 0, {.rows = rows_##name}, #name "-scalar", 0.0f, SOURCE                                          \
    }

const struct kernel_row linear_scalar_rows[LINEAR_SCALAR_N_ROWS] = {
    PACK(pack_f32, ACT_F32),
    PACK(pack_q8_32, ACT_Q8_32),
    PACK(pack_q8_256, ACT_Q8_256),
    ROWS(f32, KERNEL_LINEAR_TOKENS, TENSOR_F32),
    ROWS(f16, KERNEL_LINEAR_TOKENS, TENSOR_F16),
    ROWS(bf16, KERNEL_LINEAR_TOKENS, TENSOR_BF16),
    ROWS(q4_0, KERNEL_LINEAR_TOKENS, TENSOR_Q4_0),
    ROWS(q4_0, KERNEL_LINEAR_LANES, TENSOR_Q4_0),
    ROWS(q4_1, KERNEL_LINEAR_TOKENS, TENSOR_Q4_1),
    ROWS(q4_1, KERNEL_LINEAR_LANES, TENSOR_Q4_1),
    ROWS(q5_0, KERNEL_LINEAR_TOKENS, TENSOR_Q5_0),
    ROWS(q5_0, KERNEL_LINEAR_LANES, TENSOR_Q5_0),
    ROWS(q5_1, KERNEL_LINEAR_TOKENS, TENSOR_Q5_1),
    ROWS(q5_1, KERNEL_LINEAR_LANES, TENSOR_Q5_1),
    ROWS(q8_0, KERNEL_LINEAR_TOKENS, TENSOR_Q8_0),
    ROWS(q8_0, KERNEL_LINEAR_LANES, TENSOR_Q8_0),
    ROWS(iq4_nl, KERNEL_LINEAR_TOKENS, TENSOR_IQ4_NL),
    ROWS(iq4_nl, KERNEL_LINEAR_LANES, TENSOR_IQ4_NL),
    ROWS(mxfp4, KERNEL_LINEAR_TOKENS, TENSOR_MXFP4),
    ROWS(mxfp4, KERNEL_LINEAR_LANES, TENSOR_MXFP4),
    ROWS(q2_k, KERNEL_LINEAR_TOKENS, TENSOR_Q2_K),
    ROWS(q2_k, KERNEL_LINEAR_LANES, TENSOR_Q2_K),
    ROWS(q3_k, KERNEL_LINEAR_TOKENS, TENSOR_Q3_K),
    ROWS(q3_k, KERNEL_LINEAR_LANES, TENSOR_Q3_K),
    ROWS(q4_k, KERNEL_LINEAR_TOKENS, TENSOR_Q4_K),
    ROWS(q4_k, KERNEL_LINEAR_LANES, TENSOR_Q4_K),
    ROWS(q5_k, KERNEL_LINEAR_TOKENS, TENSOR_Q5_K),
    ROWS(q5_k, KERNEL_LINEAR_LANES, TENSOR_Q5_K),
    ROWS(q6_k, KERNEL_LINEAR_TOKENS, TENSOR_Q6_K),
    ROWS(q6_k, KERNEL_LINEAR_LANES, TENSOR_Q6_K),
    ROWS(iq4_xs, KERNEL_LINEAR_TOKENS, TENSOR_IQ4_XS),
    ROWS(iq4_xs, KERNEL_LINEAR_LANES, TENSOR_IQ4_XS),
    ROWS(iq2_xxs, KERNEL_LINEAR_TOKENS, TENSOR_IQ2_XXS),
    ROWS(iq2_xxs, KERNEL_LINEAR_LANES, TENSOR_IQ2_XXS),
    ROWS(iq2_xs, KERNEL_LINEAR_TOKENS, TENSOR_IQ2_XS),
    ROWS(iq2_xs, KERNEL_LINEAR_LANES, TENSOR_IQ2_XS),
    ROWS(iq2_s, KERNEL_LINEAR_TOKENS, TENSOR_IQ2_S),
    ROWS(iq2_s, KERNEL_LINEAR_LANES, TENSOR_IQ2_S),
    ROWS(iq3_xxs, KERNEL_LINEAR_TOKENS, TENSOR_IQ3_XXS),
    ROWS(iq3_xxs, KERNEL_LINEAR_LANES, TENSOR_IQ3_XXS),
    ROWS(iq3_s, KERNEL_LINEAR_TOKENS, TENSOR_IQ3_S),
    ROWS(iq3_s, KERNEL_LINEAR_LANES, TENSOR_IQ3_S),
    ROWS(iq1_s, KERNEL_LINEAR_TOKENS, TENSOR_IQ1_S),
    ROWS(iq1_s, KERNEL_LINEAR_LANES, TENSOR_IQ1_S),
    ROWS(iq1_m, KERNEL_LINEAR_TOKENS, TENSOR_IQ1_M),
    ROWS(iq1_m, KERNEL_LINEAR_LANES, TENSOR_IQ1_M),
    ROWS(tq1_0, KERNEL_LINEAR_TOKENS, TENSOR_TQ1_0),
    ROWS(tq1_0, KERNEL_LINEAR_LANES, TENSOR_TQ1_0),
    ROWS(tq2_0, KERNEL_LINEAR_TOKENS, TENSOR_TQ2_0),
    ROWS(tq2_0, KERNEL_LINEAR_LANES, TENSOR_TQ2_0),
};
