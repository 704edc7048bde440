/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Attention over a paged cache, and the writing of that cache. Flash attention: an online softmax over tiles
 * of 32 keys, so memory does not grow with the context.
 *
 * The order of every sum is fixed (see vector.h, "The rule of sums"):
 *   - a tile is one page: 32 keys at absolute positions 32*i ... 32*i + 31;
 *   - a segment is 16 tiles (512 keys) at absolute positions; each starts afresh with (maximum, sum,
 *     accumulator), and segments are merged in ascending order, also when one thread computes all of them;
 *   - what a query may not see (later positions, positions outside the window) has no influence on a single
 *     bit, even if the slots hold NaN.
 * So a query's result depends on its own row of q, its position and the cache, never on which or how many
 * other queries are in the call, on the number of threads, or on the instruction set.
 */

#include <stddef.h>
#include <stdint.h>

#include "engine/kv/layout.h"

struct kernels;

#define ATTENTION_SEGMENT_TOKENS 512

struct attention_args {
    const struct kv_layout *layout;
    /*
     * This layer's pages in order of position: pages[i] holds positions 32*i ... 32*i + 31. Pages that lie
     * wholly before every query's window are not touched and may be NULL.
     */
    void *const *pages;
    uint32_t n_queries;  /* consecutive positions of one sequence, at least 1 */
    uint32_t position0;  /* of the first query; K and V up to the last query's position are in the pages */
    const float *q;      /* [n_queries, q_stride]: per query [n_heads, k_dim] */
    size_t q_stride;     /* in floats */
    uint32_t n_heads;    /* a multiple of layout->n_kv_heads */
    uint32_t kv_head;    /* computes the n_heads / n_kv_heads query heads that share this KV head */
    float scale;         /* scores are q . k * scale */
    float softcap;       /* > 0: scores become softcap * tanh(score / softcap); 0: none */
    uint32_t window;     /* > 0: a query at p sees positions p - window + 1 ... p; 0: all up to p */
    uint32_t n_keys;     /* > 0: every query sees the first n_keys positions, later ones than its own too */
    const float *sinks;  /* [n_heads] or NULL: a logit per head that is in the softmax and has no value */
    float *out;          /* [n_queries, out_stride]: per query [n_heads, v_dim]; only this KV head's part */
    size_t out_stride;   /* in floats */
    void *scratch;       /* attention_scratch_bytes(), aligned to 64; not shared between threads */
};

/**
 * attention_scratch_bytes() - scratch memory of one thread for attention() and attention_part()
 * A constant of the layout: it depends neither on the context nor on the number of queries.
 */
size_t attention_scratch_bytes(const struct kv_layout *layout);

/**
 * attention() - out = softmax(q . K) . V for the query heads of one KV head
 * @k: the table of kernels; @args: see there; all memory is borrowed for the call
 * A query that sees no key at all (only possible with sinks or NaN everywhere) gets zeros.
 * Threads split the work by KV head and by queries (each with its own position0); for a single query and a
 * long context also by segment, see attention_part().
 */
void attention(const struct kernels *k, const struct attention_args *args);

/**
 * attention_segments() - number of segments that attention() walks through for @args
 */
uint32_t attention_segments(const struct attention_args *args);

/**
 * attention_part_bytes() - size of the state that one attention_part() leaves behind for @n_queries queries
 */
size_t attention_part_bytes(const struct kv_layout *layout, uint32_t n_heads, uint32_t n_queries);

/**
 * attention_part() - the work of attention() for one segment only
 * @segment: 0 ... attention_segments() - 1
 * @part: attention_part_bytes(), aligned to 64; written
 */
void attention_part(const struct kernels *k, const struct attention_args *args, uint32_t segment, void *part);

/**
 * attention_merge() - the rest: merges the parts of all segments and writes the result
 * @parts: parts[i] of segment i, attention_segments() of them, made with the same @args
 * Gives bit for bit what attention() gives. Needs no scratch beyond args->scratch.
 */
void attention_merge(const struct kernels *k, const struct attention_args *args, void *const *parts);

/**
 * kv_write() - store K and V of one token, rounded to the cache's types, in slot @slot of a page
 * @k: the table of kernels
 * @page: one layer's page, aligned to KV_ALIGN; @slot: position % KV_PAGE_TOKENS
 * @key: [n_kv_heads, k_dim]; @value: [n_kv_heads, v_dim]
 * Threads may write different slots of one page at the same time.
 */
void kv_write(const struct kernels *k, const struct kv_layout *layout, void *page, uint32_t slot,
              const float *key, const float *value);
