/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Where the keys and values of one layer lie in a page of 32 tokens. Whoever allocates pages needs the size
 * only; the inside is known to the kernels that write and read it (engine/kernels/attention.h).
 *
 *   page:      KV head 0: K, V;  KV head 1: K, V;  ...      so that one head's page is read in one go
 *   K, float:  [k_dim][32 tokens]    tokens are lanes: q . K of 32 keys needs no horizontal sum
 *   V, float:  [32 tokens][v_stride] token by token; rows are padded to 16 values with zeros
 *   Q8_0:      per 32 values of the head: d [32 tokens] f16, then codes [8][32][4], in the words that integer
 *              products take: of K, 4 values of each token, unsigned (128 more), of V, 4 tokens of each value, signed
 *   K, quantised otherwise: per 32 values of the head, with tokens as lanes: d [32] f16, m [32] f16 where the type
 *              has it, fifth bits [4][32] where it has those, and codes [16][32], value i in the low nibble and
 *              i + 16 in the high one; as many bytes as 32 blocks of the type
 *   V, quantised otherwise: [32 tokens][v_stride / 32] blocks of the type; rows are padded to 32 values with zeros
 *
 * Token t of a sequence lies in slot t % 32 of its page t / 32, always: tiles of attention are anchored at
 * absolute positions, which is what makes a result independent of how a prompt was cut into batches. A new
 * type of cache is a case in layout.c, a writer and a reader (engine/kernels/vector/kv-types.inc); K and V may differ.
 */

#include <stddef.h>
#include <stdint.h>

#include "engine/gguf/types.h"

#define KV_PAGE_TOKENS 32
#define KV_BLOCK_VALUES 32 /* of every quantised type */
#define KV_DIM_MAX     1024 /* of one head; the largest in any published model is 576 */
#define KV_ALIGN       64   /* of a page's address and of every part in it */

struct kv_layout {
    enum tensor_type k_type, v_type;
    uint32_t n_kv_heads;
    uint32_t k_dim, v_dim; /* of one head */
    uint32_t v_stride;     /* values between two tokens' V: v_dim rounded up to 16, or to 32 where V is quantised */
    size_t k_bytes;        /* one head's K of one page, a multiple of KV_ALIGN */
    size_t v_bytes;        /* the same for V */
    size_t page_bytes;     /* n_kv_heads * (k_bytes + v_bytes) */
};

/**
 * kv_layout_init() - the layout of one layer's pages
 * @k_type, @v_type: TENSOR_F32, _F16, _Q8_0, _Q4_0, _Q4_1, _Q5_0, _Q5_1 or _IQ4_NL
 * @n_kv_heads, @k_dim, @v_dim: of one layer; from a model file, so anything
 * Returns 0; -ENOTSUP for a type that the cache can't have, -EINVAL for a shape that no model has.
 */
int kv_layout_init(struct kv_layout *ret, enum tensor_type k_type, enum tensor_type v_type,
                   uint32_t n_kv_heads, uint32_t k_dim, uint32_t v_dim);

/* Where a head's keys begin in a page, in bytes. */
static inline size_t kv_layout_k_offset(const struct kv_layout *l, uint32_t kv_head)
{
    return kv_head * (l->k_bytes + l->v_bytes);
}

/* Where a head's values begin in a page, in bytes. */
static inline size_t kv_layout_v_offset(const struct kv_layout *l, uint32_t kv_head)
{
    return kv_layout_k_offset(l, kv_head) + l->k_bytes;
}
