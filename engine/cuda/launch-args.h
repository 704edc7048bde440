/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the GPU's kernels are given; see launch.h. Plain data of fixed width, the same to a C and a C++ compiler. All
 * floats are f32 and all matrices row-major, slowest dimension first.
 */

#include <stddef.h>
#include <stdint.h>

#include "engine/gguf/types.h"

#ifdef __CUDACC__
#define LAUNCH_INLINE static __host__ __device__ __forceinline__
#else
#define LAUNCH_INLINE static inline
#endif

typedef uint64_t launch_address; /* of device memory; 0: absent */

#define LAUNCH_SEGMENT_TOKENS 512 /* keys of one part of an attention */
#define LAUNCH_TOP_K_MAX      64
#define LAUNCH_TOP_K_COLUMNS  4096 /* of one block of top_k */

/* --- packed activations --- */

/*
 * A packed value is rows of launch_act_row_bytes(), a multiple of 16 (so must be its address):
 *   f32   [k] as they are, padded
 *   q8    [k] int8, then [k / B] scales, then [k / 16] int16 sums of 16 values; B = 32 or 256
 */
enum launch_act {
    LAUNCH_ACT_F32,
    LAUNCH_ACT_Q8_32,
    LAUNCH_ACT_Q8_256,
};

LAUNCH_INLINE uint32_t launch_act_block(enum launch_act act)
{
    return act == LAUNCH_ACT_Q8_32 ? 32u : 256u;
}

LAUNCH_INLINE uint32_t launch_act_scales_at(uint32_t k)
{
    return (k + 15u) / 16u * 16u;
}

LAUNCH_INLINE uint32_t launch_act_sums_at(enum launch_act act, uint32_t k)
{
    return launch_act_scales_at(k) + k / launch_act_block(act) * 4u;
}

LAUNCH_INLINE uint32_t launch_act_row_bytes(enum launch_act act, uint32_t k)
{
    return act == LAUNCH_ACT_F32 ? (k + 3u) / 4u * 16u
                                 : (launch_act_sums_at(act, k) + k / 16u * 2u + 15u) / 16u * 16u;
}

/* What matrices of a type want: as linear_format() of engine/kernels/linear.h, whose numbers these are. */
LAUNCH_INLINE enum launch_act launch_act_of(uint32_t type)
{
    switch (type) {
    case TENSOR_F32:
    case TENSOR_F16:
    case TENSOR_BF16:
        return LAUNCH_ACT_F32;
    case TENSOR_Q4_0:
    case TENSOR_Q4_1:
    case TENSOR_Q5_0:
    case TENSOR_Q5_1:
    case TENSOR_Q8_0:
    case TENSOR_IQ4_NL:
    case TENSOR_MXFP4:
        return LAUNCH_ACT_Q8_32;
    default:
        return LAUNCH_ACT_Q8_256;
    }
}

/* --- routes: which tokens go to which experts --- */

/* Slots are pairs of token and expert, ordered by expert, then token; there are n_tokens * n_used of them. */
struct launch_routes {
    launch_address n_active;     /* u32 */
    launch_address active;       /* u32 [n_experts] experts that have tokens, ascending */
    launch_address slot0;        /* u32 [n_experts + 1] first slot of active[i]; one more at the end */
    launch_address experts;      /* u32 [n_tokens, n_used] ascending for each token */
    launch_address weights;      /* f32 [n_tokens, n_used] */
    launch_address token_slots;  /* u32 [n_tokens, n_used] their slots */
    launch_address slot_tokens;  /* u32 [n_slots] */
};

LAUNCH_INLINE uint64_t launch_routes_words(uint32_t n_experts, uint64_t n_slots)
{
    return 2u + 2u * (uint64_t)n_experts + 4u * n_slots;
}

/* Takes a routes value at @at apart. */
LAUNCH_INLINE struct launch_routes launch_routes_at(launch_address at, uint32_t n_experts, uint64_t n_slots)
{
    struct launch_routes r;

    r.n_active = at;
    r.active = at + 4u;
    r.slot0 = r.active + 4u * (uint64_t)n_experts;
    r.experts = r.slot0 + 4u * ((uint64_t)n_experts + 1u);
    r.weights = r.experts + 4u * n_slots;
    r.token_slots = r.weights + 4u * n_slots;
    r.slot_tokens = r.token_slots + 4u * n_slots;
    return r;
}

/* --- one struct a kernel --- */

struct launch_embed {
    launch_address tokens;    /* i32 [n_tokens] */
    launch_address positions; /* u32 [n_tokens]; looked at where there is a position matrix */
    launch_address weight, position, kind; /* matrices; position and kind may be absent */
    uint64_t weight_row_bytes, position_row_bytes;
    launch_address out; /* [n_tokens, n_cols] */
    uint32_t weight_type, position_type, kind_type;
    uint32_t n_tokens, n_cols;
    float scale;
};

struct launch_rope_table {
    launch_address frequency; /* f64 [n_rot / 2] */
    launch_address positions; /* u32 [n_tokens] */
    launch_address out;       /* [n_tokens, n_rot] */
    uint32_t n_tokens, n_rot;
    float magnitude;
};

/* Row i of out is the norm of row rows[i] (i, where rows is absent) of in. As graph_op.norm. */
struct launch_norm {
    launch_address in, rows; /* [.., n_cols]; u32 [n_rows] or absent */
    launch_address weight, bias;
    launch_address add, add_weight; /* in += norm(add) * add_weight first; add is changed. Absent: nothing */
    launch_address out;             /* [n_rows, n_cols]; absent: neither it nor packs */
    launch_address packs[3];        /* by enum launch_act; absent ones are not written */
    uint32_t n_rows, n_cols;
    uint32_t is_layer_norm; /* else RMS */
    float epsilon;
};

/*
 * Packed row r is of token r / n_parts and its part r % n_parts: n_cols values of in, from
 *     rows[token] * in_stride + part * part_stride + part_first  on, rows[token] being token where rows is absent.
 */
struct launch_pack {
    launch_address in, rows;
    launch_address packs[3];
    uint32_t n_rows, n_cols; /* n_cols: a multiple of 32 or 256 for what is packed so */
    uint32_t in_stride;
    uint32_t n_parts, part_stride, part_first; /* 1, 0, 0: whole rows */
};

/*
 * out[t, r] = act[t] . W[r], + bias, * scale, capped; then residual += that, by the sigmoid of gate[t] where there is
 * one. With n_matrices > 1 and no routes, matrix z (at weight + z * matrix_bytes) has
 *     act rows t * act_token_step + z * act_matrix_step     and columns z * out_matrix_step + r of out.
 * With routes, matrix z is that of the z-th active expert, and t counts its slots: rows of act and out are slots; with
 * act_is_shared all slots of a token read the act row of the token. bias is [n_experts, n_rows] then.
 */
struct launch_linear {
    launch_address weight; /* aligned to 16 */
    uint64_t row_bytes, matrix_bytes;
    launch_address bias;
    launch_address act;      /* packed as launch_act_of(type) says */
    launch_address out;      /* [n_tokens, out_stride] or absent, where only the residual is wanted */
    launch_address residual; /* [n_tokens, out_stride] or absent; never with routes */
    launch_address gate;     /* [n_tokens] or absent */
    launch_address routes;   /* or absent */
    uint32_t type;
    uint32_t n_rows, n_cols; /* of one matrix */
    uint32_t n_tokens;       /* of the batch */
    uint32_t out_stride;
    uint32_t n_matrices; /* 1; with routes the smaller of n_experts and n_slots */
    uint32_t act_token_step, act_matrix_step, out_matrix_step; /* 1, 0, 0 */
    uint32_t n_experts, n_used, act_is_shared;                 /* with routes */
    float scale, softcap; /* 1 and 0: none */
    /* The second factor of an adapter (adds != 0): out = fma(sum, scale, out), and nothing else. */
    launch_address rows;     /* u32 [n_tokens] the row of out of each token, without routes; absent: its own */
    launch_address adapters; /* u32 [tokens], with routes: only slots of tokens that have @adapter get a result */
    uint32_t adapter, adds;
};

struct launch_glu {
    launch_address gate, up, out; /* [n]; up may be absent, out may be gate or up */
    uint64_t n;
    uint32_t kind; /* graph_activation.kind */
    float alpha, limit;
};

/* The pages of one layer, as engine/kv/layout.h says. Page p of the pool is at memory + p * page_stride. */
struct launch_kv {
    launch_address memory;  /* this layer's part of page 0 */
    uint64_t page_stride;   /* from one page to the next, all layers of the group on this device */
    launch_address tables;  /* u32 [n_runs, table_stride] pages of each run; none before the window is read */
    uint64_t k_bytes, v_bytes;
    uint32_t table_stride;
    uint32_t k_type, v_type;
    uint32_t n_kv_heads, k_dim, v_dim, v_stride;
};

struct launch_rope_write {
    launch_address q, k, v; /* [n_tokens, n_heads * k_dim], [n_tokens, n_kv_heads * k_dim or v_dim]; q, k in place */
    launch_address q_norm, k_norm, table; /* or absent */
    launch_address positions, token_runs; /* u32 [n_tokens] */
    struct launch_kv kv;
    uint32_t n_tokens, n_heads, n_rot, interleaved;
    float epsilon;
};

/* Consecutive queries of one run; at most launch_attention_queries() of them. */
struct launch_queries {
    uint32_t run, row0; /* row of the batch of the first one */
    uint32_t n_queries;
    uint32_t position0; /* of the first one */
    uint32_t n_keys;    /* > 0: every query sees the first n_keys positions; 0: up to its own */
};

/*
 * Without split a block walks through all segments of its queries: for many queries. With it each segment has a block
 * of its own, for few queries and long contexts, and attention_merge() with the same arguments puts them together.
 */
struct launch_attention {
    launch_address q, out; /* [n_tokens, n_heads * k_dim], [n_tokens, n_heads * v_dim] */
    launch_address sinks;  /* [n_heads] or absent */
    launch_address queries; /* struct launch_queries [n_queries] */
    launch_address parts;   /* split only: launch_attention_parts_bytes() */
    struct launch_kv kv;
    uint32_t n_queries; /* structs, not tokens */
    uint32_t n_tokens, n_heads;
    uint32_t split, n_segments; /* n_segments: of the longest run, launch_attention_segments(); split only */
    uint32_t window;
    float scale, softcap;
};

struct launch_route {
    launch_address logits; /* [n_tokens, n_experts] */
    launch_address bias;   /* [n_experts] or absent */
    launch_address routes; /* launch_routes_words() */
    uint32_t n_tokens, n_experts, n_used;
    uint32_t gating, normalise; /* enum graph_gating; 0 or 1 */
    uint32_t n_groups, n_groups_used;
    float scale;
};

/* residual[t] += weight * work[slot] over the token's experts, ascending */
struct launch_experts_sum {
    launch_address work;     /* [n_slots, n_rows] */
    launch_address residual; /* [n_tokens, n_rows] */
    launch_address routes;
    uint32_t n_tokens, n_rows, n_experts, n_used;
};

struct launch_join {
    struct {
        launch_address in;
        uint32_t n_cols;           /* of a row of in */
        uint32_t stride, first, n; /* as graph_op.join */
    } parts[2];
    launch_address out; /* [n_tokens, n_heads * sum of n] */
    uint32_t n_parts, n_heads, n_tokens, reserved;
};

/*
 * The k largest of each row, or of each LAUNCH_TOP_K_COLUMNS of it where it has more: largest first, ties to the lower
 * index; NaN counts as the least. Behind the last one UINT32_MAX and NaN. The same kernel then puts the parts of a
 * row together: they are rows of candidates, and from says what each of them stands for.
 */
struct launch_top_k {
    launch_address in;              /* [n_rows, n_cols] */
    launch_address from;            /* u32 [n_rows, n_cols] or absent: the column; each once in a row but UINT32_MAX */
    launch_address indices, values; /* u32, f32 [n_rows, parts, k] */
    uint32_t n_rows, n_cols, k, reserved; /* k: 1 … LAUNCH_TOP_K_MAX */
};

struct launch_zero_pages {
    launch_address memory; /* of page 0 */
    uint64_t page_bytes;   /* a multiple of 16 */
    launch_address pages;  /* u32 [n_pages] */
    uint32_t n_pages, reserved;
};

struct launch_copy_pages {
    launch_address memory;
    uint64_t page_bytes;
    launch_address from, to; /* u32 [n_pages] */
    uint32_t n_pages, reserved;
};
