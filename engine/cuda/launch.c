/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Names, grids and shared memory of the GPU's kernels. Pure functions: the engine, the test double of libcuda and the
 * kernels' tests all take them from here. The constants that a kernel shares with its grid are in launch-grid.h.
 */
#include "engine/cuda/launch.h"

#include <errno.h>

#include "engine/cuda/launch-grid.h"

#define LINEAR_NAMES(X)                                                                                            \
    X(Q4_0, "q4_0") X(Q4_1, "q4_1") X(Q5_0, "q5_0") X(Q5_1, "q5_1") X(Q8_0, "q8_0") X(IQ4_NL, "iq4_nl")            \
    X(MXFP4, "mxfp4") X(Q2_K, "q2_k") X(Q3_K, "q3_k") X(Q4_K, "q4_k") X(Q5_K, "q5_k") X(Q6_K, "q6_k")              \
    X(IQ4_XS, "iq4_xs") X(IQ2_XXS, "iq2_xxs") X(IQ2_XS, "iq2_xs") X(IQ2_S, "iq2_s") X(IQ3_XXS, "iq3_xxs")          \
    X(IQ3_S, "iq3_s") X(IQ1_S, "iq1_s") X(IQ1_M, "iq1_m") X(TQ1_0, "tq1_0") X(TQ2_0, "tq2_0")

#define LINEAR_NAME(type, name) [LAUNCH_LINEAR + TENSOR_##type] = "kernel_linear_" name,
#define TILES_NAME(type, name)  [LAUNCH_LINEAR_TILES + TENSOR_##type] = "kernel_linear_" name "_tiles",

static const char *const names[LAUNCH_KERNEL_MAX] = {
    [LAUNCH_EMBED] = "kernel_embed",
    [LAUNCH_ROPE_TABLE] = "kernel_rope_table",
    [LAUNCH_NORM] = "kernel_norm",
    [LAUNCH_PACK] = "kernel_pack",
    [LAUNCH_GLU] = "kernel_glu",
    [LAUNCH_ROPE_WRITE] = "kernel_rope_write",
    [LAUNCH_ATTENTION] = "kernel_attention",
    [LAUNCH_ATTENTION_MERGE] = "kernel_attention_merge",
    [LAUNCH_ROUTE] = "kernel_route",
    [LAUNCH_ROUTE_GROUP] = "kernel_route_group",
    [LAUNCH_EXPERTS_SUM] = "kernel_experts_sum",
    [LAUNCH_JOIN] = "kernel_join",
    [LAUNCH_TOP_K] = "kernel_top_k",
    [LAUNCH_ZERO_PAGES] = "kernel_zero_pages",
    [LAUNCH_COPY_PAGES] = "kernel_copy_pages",
    [LAUNCH_LINEAR_FINISH] = "kernel_linear_finish",
    LINEAR_NAME(F32, "f32") LINEAR_NAME(F16, "f16") LINEAR_NAME(BF16, "bf16")
    LINEAR_NAMES(LINEAR_NAME) LINEAR_NAMES(TILES_NAME)
};

const char *launch_kernel_name(uint32_t kernel)
{
    return kernel < LAUNCH_KERNEL_MAX ? names[kernel] : NULL;
}

bool launch_has_type(uint32_t type)
{
    return type < TENSOR_TYPE_MAX && names[LAUNCH_LINEAR + type];
}

bool launch_has_kv_type(uint32_t type)
{
    return type == TENSOR_F32 || type == TENSOR_F16 || type == TENSOR_Q8_0 || type == TENSOR_Q4_0;
}

uint32_t launch_linear_kernel(const struct launch_linear *a)
{
    uint64_t tokens = a->n_tokens;

    /* An expert has as many as the others on average; its matrix is read once either way. */
    if (a->routes)
        tokens = tokens * a->n_used / (a->n_experts > 0 ? a->n_experts : 1);
    if (tokens > LAUNCH_FEW_TOKENS && launch_act_of(a->type) != LAUNCH_ACT_F32)
        return LAUNCH_LINEAR_TILES + a->type;
    return LAUNCH_LINEAR + a->type;
}

/* --- attention --- */

static uint32_t attention_rows(const struct launch_attention *a)
{
    return launch_attention_rows(a->kv.k_dim, a->kv.v_stride);
}

uint32_t launch_attention_heads(const struct launch_attention *a)
{
    uint32_t group = a->n_heads / a->kv.n_kv_heads, rows = attention_rows(a);

    return group < rows ? group : rows;
}

uint32_t launch_attention_queries(const struct launch_attention *a)
{
    return attention_rows(a) / launch_attention_heads(a);
}

uint32_t launch_attention_segments(uint32_t last)
{
    return last / LAUNCH_SEGMENT_TOKENS + 1;
}

uint64_t launch_attention_parts_bytes(uint32_t n_segments, uint32_t n_tokens, uint32_t n_heads, uint32_t v_stride)
{
    return 4u * (uint64_t)n_segments * n_tokens * n_heads * launch_attention_part_floats(v_stride);
}

/* --- shapes --- */

/* A grid before its limits are looked at: x up to 2^31 - 1, y and z up to 65535. */
struct want {
    uint64_t x, y, z;
    uint32_t block;
    uint64_t shared_bytes;
};

static uint64_t steps(uint64_t n, uint64_t each)
{
    return (n + each - 1) / each;
}

static struct want attention_shape(const struct launch_attention *a)
{
    uint32_t heads = launch_attention_heads(a), rows = attention_rows(a);

    return (struct want){.x = a->n_queries,
                         .y = a->kv.n_kv_heads * steps(a->n_heads / a->kv.n_kv_heads, heads),
                         .z = a->split ? a->n_segments : 1,
                         .block = LAUNCH_ATTENTION_THREADS,
                         .shared_bytes = 4u * launch_attention_shared_floats(rows, a->kv.k_dim, a->kv.v_stride)};
}

static struct want linear_shape(uint32_t kernel, const struct launch_linear *a)
{
    if (kernel >= LAUNCH_LINEAR_TILES)
        return (struct want){.x = steps(a->n_rows, LAUNCH_TILE_ROWS), .y = steps(a->n_tokens, LAUNCH_TILE_TOKENS),
                             .z = a->n_matrices, .block = LAUNCH_TILE_THREADS};
    if (launch_act_of(a->type) == LAUNCH_ACT_F32)
        return (struct want){.x = steps(a->n_rows, LAUNCH_FLOAT_ROWS), .y = steps(a->n_tokens, LAUNCH_FLOAT_TOKENS),
                             .z = a->n_matrices, .block = LAUNCH_FLOAT_THREADS};
    return (struct want){.x = steps(a->n_rows, LAUNCH_FEW_ROWS), .y = steps(a->n_tokens, LAUNCH_FEW_TOKENS),
                         .z = a->n_matrices, .block = LAUNCH_FEW_THREADS};
}

/* Of the kernels that spread a row over blocks of 256 threads. */
static struct want columns_shape(uint64_t n_rows, uint64_t n_cols)
{
    return (struct want){n_rows, steps(n_cols, LAUNCH_THREADS), 1, LAUNCH_THREADS, 0};
}

static struct want pages_shape(uint64_t n_pages, uint64_t page_bytes)
{
    uint64_t y = steps(page_bytes, 16 * LAUNCH_THREADS);

    return (struct want){n_pages, y < LAUNCH_PAGE_BLOCKS ? y : LAUNCH_PAGE_BLOCKS, 1, LAUNCH_THREADS, 0};
}

static struct want join_shape(const struct launch_join *a)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < a->n_parts; i++)
        n += a->parts[i].n;
    return columns_shape(a->n_tokens, n * a->n_heads);
}

static struct want wanted(uint32_t kernel, const void *args)
{
    switch (kernel) {
    case LAUNCH_EMBED: {
        const struct launch_embed *a = args;

        return (struct want){a->n_tokens, steps(a->n_cols, 32 * LAUNCH_EMBED_THREADS), 1, LAUNCH_EMBED_THREADS, 0};
    }
    case LAUNCH_ROPE_TABLE: {
        const struct launch_rope_table *a = args;

        return (struct want){steps((uint64_t)a->n_tokens * (a->n_rot / 2), LAUNCH_THREADS), 1, 1, LAUNCH_THREADS, 0};
    }
    case LAUNCH_NORM:
        return (struct want){((const struct launch_norm *)args)->n_rows, 1, 1, LAUNCH_THREADS, 0};
    case LAUNCH_PACK: {
        const struct launch_pack *a = args;

        return (struct want){a->n_rows, steps(a->n_cols, 256 * LAUNCH_PACK_WARPS), 1, 32 * LAUNCH_PACK_WARPS, 0};
    }
    case LAUNCH_GLU:
        return (struct want){steps(((const struct launch_glu *)args)->n, LAUNCH_THREADS), 1, 1, LAUNCH_THREADS, 0};
    case LAUNCH_ROPE_WRITE: {
        const struct launch_rope_write *a = args;

        return (struct want){a->n_tokens, (uint64_t)a->n_heads + 2 * a->kv.n_kv_heads, 1, LAUNCH_HEAD_THREADS, 0};
    }
    case LAUNCH_ATTENTION:
        return attention_shape(args);
    case LAUNCH_ATTENTION_MERGE: {
        const struct launch_attention *a = args;

        return (struct want){steps((uint64_t)a->n_tokens * a->n_heads, LAUNCH_MERGE_WARPS), 1, 1,
                             32 * LAUNCH_MERGE_WARPS, 0};
    }
    case LAUNCH_ROUTE: {
        const struct launch_route *a = args;

        return (struct want){a->n_tokens, 1, 1, 32, 16u * (uint64_t)a->n_experts};
    }
    case LAUNCH_ROUTE_GROUP: {
        const struct launch_route *a = args;

        return (struct want){a->n_tokens > 0, 1, 1, LAUNCH_THREADS, 8u * ((uint64_t)a->n_experts + 1)};
    }
    case LAUNCH_EXPERTS_SUM: {
        const struct launch_experts_sum *a = args;

        return columns_shape(a->n_tokens, a->n_rows);
    }
    case LAUNCH_JOIN:
        return join_shape(args);
    case LAUNCH_TOP_K: {
        const struct launch_top_k *a = args;

        return (struct want){steps(a->n_cols, LAUNCH_TOP_K_COLUMNS), a->n_rows, 1, LAUNCH_THREADS, 0};
    }
    case LAUNCH_ZERO_PAGES: {
        const struct launch_zero_pages *a = args;

        return pages_shape(a->n_pages, a->page_bytes);
    }
    case LAUNCH_COPY_PAGES: {
        const struct launch_copy_pages *a = args;

        return pages_shape(a->n_pages, a->page_bytes);
    }
    case LAUNCH_LINEAR_FINISH: {
        const struct launch_linear *a = args;

        return columns_shape(a->n_tokens, a->n_rows);
    }
    default:
        return linear_shape(kernel, args);
    }
}

int launch_shape(uint32_t kernel, const void *args, struct launch_shape *ret)
{
    struct want w;

    if (!launch_kernel_name(kernel))
        return -EINVAL;
    w = wanted(kernel, args);
    if (w.x == 0 || w.y == 0 || w.z == 0)
        return -EINVAL;
    if (w.x > INT32_MAX || w.y > UINT16_MAX || w.z > UINT16_MAX || w.shared_bytes > LAUNCH_SHARED_MAX)
        return -ERANGE;
    *ret = (struct launch_shape){{(uint32_t)w.x, (uint32_t)w.y, (uint32_t)w.z}, w.block, (uint32_t)w.shared_bytes};
    return 0;
}
