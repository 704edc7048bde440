/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Layouts of packed activations; shared by the pack kernels, which write them, and the matrix kernels, which read
 * them. They are the same for every instruction set.
 *
 * LINEAR_TOKENS: token after token, each a struct of arrays (act_tokens_*): int8 values in their natural order, int
 * sums of runs, scales. Arrays are padded with zeros to what a step of four 256-blocks reads.
 *
 * LINEAR_LANES: groups of 16 tokens, the last one of 16 or, when it has at most 8 tokens, of 8; missing tokens are
 * zeros. A group is an array of blocks, each with everything that belongs to it. With T tokens in a group, W = 64 / T
 * bytes of one token stand side by side, so that 64 bytes are one step of vpdpbusd with T tokens in its lanes, W / 4
 * lanes a token:
 *     q[k / W][T][W] int8.
 * Sums of runs are laid out alike, as W / 2 int16 a token, for vpdpwssd: sums[n / (W / 2)][T][W / 2].
 */

#include <stdint.h>

#include "engine/kernels/linear.h"

#define ACT_TOKENS_MAX 4  /* up to this many tokens are laid out as LINEAR_TOKENS */
#define ACT_GROUP      16 /* tokens of a full group */
#define ACT_TINY       0x1p-120f /* a block whose amax is below counts as zero: 127 / amax must stay finite */

/* Token row @t of what is to be packed. */
static inline const float *linear_pack_row(const struct linear_pack_args *args, uint32_t t)
{
    return args->x + (args->rows ? args->rows[t] : t) * args->x_stride;
}

static inline size_t act_align(size_t n)
{
    return (n + LINEAR_ALIGN - 1) & ~(size_t)(LINEAR_ALIGN - 1);
}

static inline enum linear_shape act_shape(enum act_format format, uint32_t m)
{
    return format == ACT_F32 || m <= ACT_TOKENS_MAX ? LINEAR_TOKENS : LINEAR_LANES;
}

/* ACT_F32: [m][stride] f32, rows padded with zeros to 16 values. */
static inline size_t act_f32_stride(uint32_t k)
{
    return ((size_t)k + 15) & ~(size_t)15;
}

/* --- tokens --- */

struct act_tokens_256 {
    int8_t *q;       /* [n_blocks4 * 256] */
    int16_t *sums32; /* [n_blocks4 * 8] sums of 32 values */
    int16_t *sums16; /* [n_blocks4 * 16] sums of 16 values */
    float *d;        /* [n_blocks4] */
};

struct act_tokens_32 {
    int8_t *q;       /* [n_blocks32 * 32] */
    int32_t *sums32; /* [n_blocks32] */
    float *d;        /* [n_blocks32] */
};

/* Blocks of 256, rounded up to whole steps of four. */
static inline uint32_t act_blocks_256(uint32_t k)
{
    return (k / 256 + 3) & ~3u;
}

/* Blocks of 32, rounded up to a whole step of 512 values. */
static inline uint32_t act_blocks_32(uint32_t k)
{
    return (k / 32 + 15) & ~15u;
}

static inline size_t act_tokens_256_bytes(uint32_t k)
{
    size_t n = act_blocks_256(k);

    return n * 256 + n * 16 + n * 32 + act_align(n * 4);
}

static inline size_t act_tokens_32_bytes(uint32_t k)
{
    size_t n = act_blocks_32(k);

    return n * 32 + n * 4 + n * 4;
}

static inline struct act_tokens_256 act_tokens_256_at(void *act, uint32_t k, uint32_t token)
{
    size_t n = act_blocks_256(k);
    uint8_t *base = (uint8_t *)act + token * act_tokens_256_bytes(k);

    return (struct act_tokens_256){
        .q = (int8_t *)base,
        .sums32 = (int16_t *)(base + n * 256),
        .sums16 = (int16_t *)(base + n * 272),
        .d = (float *)(base + n * 304),
    };
}

static inline struct act_tokens_32 act_tokens_32_at(void *act, uint32_t k, uint32_t token)
{
    size_t n = act_blocks_32(k);
    uint8_t *base = (uint8_t *)act + token * act_tokens_32_bytes(k);

    return (struct act_tokens_32){
        .q = (int8_t *)base,
        .sums32 = (int32_t *)(base + n * 32),
        .d = (float *)(base + n * 36),
    };
}

/* --- lanes --- */

struct act_lanes16_256 {
    int8_t q[64][16][4];
    int16_t sums32[4][16][2];
    int16_t sums16[8][16][2];
    float d[16];
};

struct act_lanes8_256 {
    int8_t q[32][8][8];
    int16_t sums32[2][8][4];
    int16_t sums16[4][8][4];
    float d[16]; /* each token twice, once a lane */
};

struct act_lanes16_32 {
    int8_t q[8][16][4];
    int32_t sums[16];
    float d[16];
};

struct act_lanes8_32 {
    int8_t q[4][8][8];
    int32_t sums[16]; /* a token's sum in its first lane, 0 in its second: lanes are added later */
    float d[16];      /* each token twice */
};

/* Odd multiples of 64 for the large ones: equal blocks of neighbouring groups then fall into different cache sets. */
_Static_assert(sizeof(struct act_lanes16_256) == 77 * 64, "layout shared by kernels");
_Static_assert(sizeof(struct act_lanes8_256) == 39 * 64, "layout shared by kernels");
_Static_assert(sizeof(struct act_lanes16_32) == 10 * 64, "layout shared by kernels");
_Static_assert(sizeof(struct act_lanes8_32) == 6 * 64, "layout shared by kernels");

/* Lanes of the group that starts at token @t0, a multiple of ACT_GROUP. */
static inline uint32_t act_group_tokens(uint32_t m, uint32_t t0)
{
    return m - t0 > 8 ? 16 : 8;
}

static inline size_t act_group_bytes(enum act_format format, uint32_t k, uint32_t n_tokens)
{
    if (format == ACT_Q8_256)
        return k / 256 * (n_tokens == 16 ? sizeof(struct act_lanes16_256) : sizeof(struct act_lanes8_256));
    return k / 32 * (n_tokens == 16 ? sizeof(struct act_lanes16_32) : sizeof(struct act_lanes8_32));
}

/* The group that starts at token @t0: only full groups of 16 lie before it. */
static inline void *act_group_at(enum act_format format, void *act, uint32_t k, uint32_t t0)
{
    return (uint8_t *)act + t0 / ACT_GROUP * act_group_bytes(format, k, ACT_GROUP);
}
