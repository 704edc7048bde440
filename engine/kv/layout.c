/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sizes of K and V in a page, per type. Shapes come from model files: bounded first, so that no product can
 * overflow.
 */
#include "engine/kv/layout.h"

#include <errno.h>
#include <stdbool.h>

enum {
    HEADS_MAX = 1024, /* far above any model; with KV_DIM_MAX it keeps a page below 2^28 bytes */
    V_LANES = 16,
};

/* Whether there are kernels that write and read a cache of this type. */
static bool is_cache_type(enum tensor_type type)
{
    switch ((uint32_t)type) {
    case TENSOR_F32:
    case TENSOR_F16:
    case TENSOR_Q8_0:
    case TENSOR_Q4_0:
    case TENSOR_Q4_1:
    case TENSOR_Q5_0:
    case TENSOR_Q5_1:
    case TENSOR_IQ4_NL:
        return true;
    default:
        return false;
    }
}

/* Bytes of @n values, rounded up to whole blocks. */
static size_t values_bytes(enum tensor_type type, size_t n)
{
    const struct tensor_traits *traits = tensor_traits(type);

    return (n + traits->block_values - 1) / traits->block_values * traits->block_bytes;
}

static size_t align_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

int kv_layout_init(struct kv_layout *ret, enum tensor_type k_type, enum tensor_type v_type,
                   uint32_t n_kv_heads, uint32_t k_dim, uint32_t v_dim)
{
    struct kv_layout l = {
        .k_type = k_type, .v_type = v_type, .n_kv_heads = n_kv_heads, .k_dim = k_dim, .v_dim = v_dim};

    if (!is_cache_type(k_type) || !is_cache_type(v_type))
        return -ENOTSUP;
    if (n_kv_heads == 0 || n_kv_heads > HEADS_MAX || k_dim == 0 || k_dim > KV_DIM_MAX || v_dim == 0 ||
        v_dim > KV_DIM_MAX)
        return -EINVAL;

    l.v_stride = (uint32_t)align_up(v_dim, tensor_traits(v_type)->block_values == 1 ? V_LANES : KV_BLOCK_VALUES);
    l.k_bytes = align_up(KV_PAGE_TOKENS * values_bytes(k_type, k_dim), KV_ALIGN);
    l.v_bytes = align_up(KV_PAGE_TOKENS * values_bytes(v_type, l.v_stride), KV_ALIGN);
    l.page_bytes = n_kv_heads * (l.k_bytes + l.v_bytes);
    *ret = l;
    return 0;
}
