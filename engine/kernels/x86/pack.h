/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Laying out quantised activations (linear-act.h), for the vector kernels: they bring the quantiser of a block and
 * get both layouts. A token's values are quantised into a small buffer and dealt out from there in runs of four or
 * eight bytes; that is cheap beside the rounding.
 */

#include <stdint.h>
#include <string.h>

#include "engine/kernels/linear-act.h"
#include "engine/kernels/x86/unroll.h"

/* Quantise 256 values: q [256], sums of 16 values; returns the scale. */
typedef float (*quantise_256_fn)(const float *x, int8_t *q, int16_t sums16[16]);
/* Quantise 32 values: q [32], their sum; returns the scale. */
typedef float (*quantise_32_fn)(const float *x, int8_t *q, int32_t *sum);

static inline void pack_f32_rows(const struct linear_pack_args *args)
{
    size_t stride = act_f32_stride(args->k);

    for (uint32_t t = args->m0; t < args->m1; t++) {
        float *dst = (float *)args->act + t * stride;

        memcpy(dst, linear_pack_row(args, t), args->k * sizeof(float));
        memset(dst + args->k, 0, (stride - args->k) * sizeof(float));
    }
}

TEMPLATE void pack_tokens_256(const struct linear_pack_args *args, quantise_256_fn quantise)
{
    const uint32_t n = args->k / 256, padding = act_blocks_256(args->k) - n;

    for (uint32_t t = args->m0; t < args->m1; t++) {
        struct act_tokens_256 act = act_tokens_256_at(args->act, args->k, t);

        for (uint32_t b = 0; b < n; b++) {
            int16_t *sums16 = act.sums16 + b * 16;

            act.d[b] = quantise(linear_pack_row(args, t) + b * 256, act.q + b * 256, sums16);
            for (uint32_t j = 0; j < 8; j++)
                act.sums32[b * 8 + j] = (int16_t)(sums16[2 * j] + sums16[2 * j + 1]);
        }
        memset(act.q + n * 256, 0, padding * 256);
        memset(act.sums32 + n * 8, 0, padding * 16);
        memset(act.sums16 + n * 16, 0, padding * 32);
        memset(act.d + n, 0, act_align((n + padding) * sizeof(float)) - n * sizeof(float));
    }
}

TEMPLATE void pack_tokens_32(const struct linear_pack_args *args, quantise_32_fn quantise)
{
    const uint32_t n = args->k / 32, padding = act_blocks_32(args->k) - n;

    for (uint32_t t = args->m0; t < args->m1; t++) {
        struct act_tokens_32 act = act_tokens_32_at(args->act, args->k, t);

        for (uint32_t b = 0; b < n; b++)
            act.d[b] = quantise(linear_pack_row(args, t) + b * 32, act.q + b * 32, &act.sums32[b]);
        memset(act.q + n * 32, 0, padding * 32);
        memset(act.sums32 + n, 0, padding * sizeof(int32_t));
        memset(act.d + n, 0, padding * sizeof(float));
    }
}

/* One token of a block to its lane: runs of W bytes (W / 2 words of sums), 64 bytes apart. */
TEMPLATE void deal_256(const int8_t *values, const int16_t *sums32, const int16_t *sums16, float scale, const uint32_t T,
                       uint32_t lane, uint8_t *block)
{
    const uint32_t W = 64 / T;
    const size_t sums32_at = T == 16 ? offsetof(struct act_lanes16_256, sums32) : offsetof(struct act_lanes8_256, sums32);
    const size_t sums16_at = T == 16 ? offsetof(struct act_lanes16_256, sums16) : offsetof(struct act_lanes8_256, sums16);
    const size_t d_at = T == 16 ? offsetof(struct act_lanes16_256, d) : offsetof(struct act_lanes8_256, d);

    block += lane * W;
    for (uint32_t i = 0; i < T * 4; i++)
        memcpy(block + i * 64, values + i * W, W);
    for (uint32_t i = 0; i < 8 / (W / 2); i++)
        memcpy(block + sums32_at + i * 64, sums32 + i * (W / 2), W);
    for (uint32_t i = 0; i < 16 / (W / 2); i++)
        memcpy(block + sums16_at + i * 64, sums16 + i * (W / 2), W);
    for (uint32_t i = 0; i < W / 4; i++)
        memcpy(block + d_at + i * 4, &scale, sizeof(scale));
}

TEMPLATE void deal_32(const int8_t *values, int32_t sum, float scale, const uint32_t T, uint32_t lane, uint8_t *block)
{
    const uint32_t W = 64 / T;
    const size_t sums_at = T == 16 ? offsetof(struct act_lanes16_32, sums) : offsetof(struct act_lanes8_32, sums);
    const size_t d_at = T == 16 ? offsetof(struct act_lanes16_32, d) : offsetof(struct act_lanes8_32, d);
    const int32_t sums[2] = {sum, 0};
    const float scales[2] = {scale, scale};

    block += lane * W;
    for (uint32_t i = 0; i < T / 2; i++)
        memcpy(block + i * 64, values + i * W, W);
    memcpy(block + sums_at, sums, W);
    memcpy(block + d_at, scales, W);
}

TEMPLATE void pack_group_256(const struct linear_pack_args *args, uint32_t t0, const uint32_t T, quantise_256_fn quantise)
{
    const uint32_t n = args->k / 256;
    const size_t block_bytes = act_group_bytes(ACT_Q8_256, 256, T);
    uint8_t *group = act_group_at(ACT_Q8_256, args->act, args->k, t0);

    for (uint32_t b = 0; b < n; b++) {
        for (uint32_t lane = 0; lane < T; lane++) {
            _Alignas(64) int8_t values[256];
            int16_t sums32[8], sums16[16];
            float scale = 0.0f;

            if (t0 + lane < args->m) {
                scale = quantise(linear_pack_row(args, t0 + lane) + b * 256, values, sums16);
            } else {
                memset(values, 0, sizeof(values));
                memset(sums16, 0, sizeof(sums16));
            }
            for (uint32_t j = 0; j < 8; j++)
                sums32[j] = (int16_t)(sums16[2 * j] + sums16[2 * j + 1]);
            deal_256(values, sums32, sums16, scale, T, lane, group + b * block_bytes);
        }
    }
}

TEMPLATE void pack_group_32(const struct linear_pack_args *args, uint32_t t0, const uint32_t T, quantise_32_fn quantise)
{
    const uint32_t n = args->k / 32;
    const size_t block_bytes = act_group_bytes(ACT_Q8_32, 32, T);
    uint8_t *group = act_group_at(ACT_Q8_32, args->act, args->k, t0);

    for (uint32_t b = 0; b < n; b++) {
        for (uint32_t lane = 0; lane < T; lane++) {
            _Alignas(64) int8_t values[32] = {0};
            int32_t sum = 0;
            float scale = 0.0f;

            if (t0 + lane < args->m)
                scale = quantise(linear_pack_row(args, t0 + lane) + b * 32, values, &sum);
            deal_32(values, sum, scale, T, lane, group + b * block_bytes);
        }
    }
}

TEMPLATE void pack_q8_256_with(const struct linear_pack_args *args, quantise_256_fn quantise)
{
    if (act_shape(ACT_Q8_256, args->m) == LINEAR_TOKENS) {
        pack_tokens_256(args, quantise);
        return;
    }
    for (uint32_t t0 = args->m0; t0 < args->m1; t0 += ACT_GROUP) {
        if (act_group_tokens(args->m, t0) == 16)
            pack_group_256(args, t0, 16, quantise);
        else
            pack_group_256(args, t0, 8, quantise);
    }
}

TEMPLATE void pack_q8_32_with(const struct linear_pack_args *args, quantise_32_fn quantise)
{
    if (act_shape(ACT_Q8_32, args->m) == LINEAR_TOKENS) {
        pack_tokens_32(args, quantise);
        return;
    }
    for (uint32_t t0 = args->m0; t0 < args->m1; t0 += ACT_GROUP) {
        if (act_group_tokens(args->m, t0) == 16)
            pack_group_32(args, t0, 16, quantise);
        else
            pack_group_32(args, t0, 8, quantise);
    }
}
