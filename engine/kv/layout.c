/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sizes of K and V in a page, per type. Shapes come from model files: bounded first, so that no product can
 * overflow.
 */
#include "engine/kv/layout.h"

#include <errno.h>

enum {
    HEADS_MAX = 1024, /* far above any model; with KV_DIM_MAX it keeps a page below 2^28 bytes */
    V_LANES = 16,
};

/* Bytes of a value in the cache, 0: not a type of cache. */
static size_t value_bytes(enum tensor_type type)
{
    switch (type) {
    case TENSOR_F32:
        return 4;
    case TENSOR_F16:
        return 2;
    default:
        return 0;
    }
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

    if (value_bytes(k_type) == 0 || value_bytes(v_type) == 0)
        return -ENOTSUP;
    if (n_kv_heads == 0 || n_kv_heads > HEADS_MAX || k_dim == 0 || k_dim > KV_DIM_MAX || v_dim == 0 ||
        v_dim > KV_DIM_MAX)
        return -EINVAL;

    l.v_stride = (uint32_t)align_up(v_dim, V_LANES);
    l.k_bytes = align_up(KV_PAGE_TOKENS * k_dim * value_bytes(k_type), KV_ALIGN);
    l.v_bytes = align_up(KV_PAGE_TOKENS * l.v_stride * value_bytes(v_type), KV_ALIGN);
    l.page_bytes = n_kv_heads * (l.k_bytes + l.v_bytes);
    *ret = l;
    return 0;
}
