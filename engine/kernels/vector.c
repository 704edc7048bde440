/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fills the vector part of the kernel table from the registry of rows, and the functions of attention.h that
 * stand in front of it. The table consists of nothing but function pointers, so a row can say where it
 * belongs by an offset.
 */
#include "engine/kernels/vector.h"

#include <assert.h>
#include <string.h>

#include "engine/kernels/kernels.h"
#include "engine/kernels/vector/attention-state.h"
#include "engine/kernels/vector/rows-list.h"

_Static_assert(sizeof(struct vector_table) == VECTOR_N_SLOTS * sizeof(void (*)(void)),
               "function pointers only");

const struct vector_row *vector_row_at(uint32_t i)
{
    static const struct vector_row *const sets[] = {
        vector_rows_scalar,
#ifdef __x86_64__
        vector_rows_avx2,
        vector_rows_avx512,
        vector_rows_avx512_vnni,
#endif
    };

    if (i >= sizeof(sets) / sizeof(*sets) * VECTOR_N_SLOTS)
        return NULL;
    return &sets[i / VECTOR_N_SLOTS][i % VECTOR_N_SLOTS];
}

void vector_select(uint32_t isa_mask, struct vector_table *ret)
{
    const struct vector_row *row;

    memset(ret, 0, sizeof(*ret));
    for (uint32_t i = 0; (row = vector_row_at(i)); i++) {
        if ((row->isa & isa_mask) == row->isa)
            memcpy((char *)ret + row->slot, &row->fn, sizeof(row->fn));
    }
}

size_t attention_scratch_bytes(const struct kv_layout *layout)
{
    const size_t k_blocks = (layout->k_dim + 31) / 32;
    size_t floats = 4 * ATTENTION_ROWS_MAX + (size_t)ATTENTION_ROWS_MAX * KV_PAGE_TOKENS;

    floats += 2 * attention_state_floats(ATTENTION_ROWS_MAX, layout->v_stride);
    floats += ATTENTION_ROWS_MAX * k_blocks * (32 + 2); /* q, and for a cache of bytes two numbers of each block */
    floats += KV_PAGE_TOKENS * (k_blocks * 32 + layout->v_stride);
    floats += 2 * (size_t)layout->v_stride; /* ratios */
    return (floats * sizeof(float) + 63) / 64 * 64;
}

uint32_t attention_segments(const struct attention_args *args)
{
    uint32_t last = args->n_keys ? args->n_keys - 1 : args->position0 + args->n_queries - 1;

    return last / ATTENTION_SEGMENT_TOKENS + 1;
}

size_t attention_part_bytes(const struct kv_layout *layout, uint32_t n_heads, uint32_t n_queries)
{
    size_t n_rows = (size_t)(n_heads / layout->n_kv_heads) * n_queries;

    return (attention_state_floats(n_rows, layout->v_stride) * sizeof(float) + 63) / 64 * 64;
}

void attention(const struct kernels *k, const struct attention_args *args)
{
    k->vector.attention(args);
}

void attention_part(const struct kernels *k, const struct attention_args *args, uint32_t segment, void *part)
{
    k->vector.attention_part(args, segment, part);
}

void attention_merge(const struct kernels *k, const struct attention_args *args, void *const *parts)
{
    k->vector.attention_merge(args, parts);
}

void kv_write(const struct kernels *k, const struct kv_layout *layout, void *page, uint32_t slot,
              const float *key, const float *value)
{
    k->vector.kv_write(layout, page, slot, key, value);
}
