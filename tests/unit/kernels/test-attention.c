/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Attention against a float64 softmax over all positions, and its promises: the same bits for every
 * instruction set, for every number of queries in a call, by segments or in one go, and whatever lies in
 * slots that a query does not see. With --bench it measures instead, and a plain path beside.
 */
#include "engine/kernels/attention.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "engine/gguf/half.h"
#include "engine/gguf/types.h"
#include "engine/kernels/dequantise.h"
#include "engine/kernels/kernels.h"

struct shape {
    enum tensor_type k_type, v_type;
    uint32_t n_kv_heads, group, k_dim, v_dim;
    uint32_t position0, n_queries;
    uint32_t window;
    float softcap;
    bool sinks;
};

/* A sequence of shape's length in pages, with the floats that were written into them, and the queries. */
struct problem {
    struct shape shape;
    struct kv_layout layout;
    uint32_t n_heads, n_tokens, n_pages;
    float *k, *v; /* [n_tokens][n_kv_heads][dim], as stored: rounded or quantised where the cache is */
    float *q;     /* [n_queries][n_heads][k_dim] */
    float *sinks; /* [n_heads] */
    float *out;   /* [n_queries][n_heads][v_dim] */
    void **pages;
    void *scratch;
    float scale;
};

static uint64_t random_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* Roughly normal: the sum of four uniform numbers. */
static float random_float(uint64_t *state)
{
    uint64_t z = random_next(state);
    float sum = 0;

    for (int i = 0; i < 4; i++, z >>= 16)
        sum += (float)(z & 0xFFFF) / 65536.0f - 0.5f;
    return sum * 1.732f;
}

static void *allocate(size_t n_bytes)
{
    void *p = aligned_alloc(64, (n_bytes + 63) / 64 * 64);

    assert_non_null(p);
    memset(p, 0xFF, (n_bytes + 63) / 64 * 64); /* NaN in every float and every half */
    return p;
}

static bool is_quantised(enum tensor_type type)
{
    return type != TENSOR_F32 && type != TENSOR_F16;
}

/* How far a quantised value may lie from what was written, where all values are within ±@most: half a step, and a bit. */
static float error_max(enum tensor_type type, float most)
{
    switch ((uint32_t)type) {
    case TENSOR_Q8_0:
        return most / 127 * 0.52f;
    case TENSOR_Q4_0: /* 8 steps on the side of the extreme value, 7 on the other: that end is cut */
        return most / 8 * 1.02f;
    case TENSOR_Q5_0:
        return most / 16 * 1.02f;
    case TENSOR_Q4_1:
        return 2 * most / 15 * 0.52f;
    case TENSOR_Q5_1:
        return 2 * most / 31 * 0.53f;
    default: /* IQ4_NL: steps of up to 24 in 127; the far end is cut at 113, and the scale is the best one for most values */
        return most * 0.3f;
    }
}

/* The block of a file that the 32 values from @at on of one token's K are, put together from its planes (kv/layout.h). */
static void k_block(const uint8_t *planes, enum tensor_type type, uint32_t slot, uint8_t *block)
{
    if (type == TENSOR_Q8_0) {
        memcpy(block, planes + 2 * slot, 2);
        for (uint32_t i = 0; i < 32; i++)
            block[2 + i] = planes[64 + i / 4 * 128 + slot * 4 + i % 4] ^ 128;
        return;
    }

    const uint32_t half_bytes = type == TENSOR_Q4_1 || type == TENSOR_Q5_1 ? 4 : 2;
    const uint32_t n_bytes = tensor_traits(type)->block_bytes - half_bytes;

    for (uint32_t i = 0; i < half_bytes; i++)
        block[i] = planes[i / 2 * 64 + 2 * slot + i % 2];
    for (uint32_t i = 0; i < n_bytes; i++)
        block[half_bytes + i] = planes[half_bytes * 32 + i * 32 + slot];
}

/* The same of one token's V, of which @values are the head's blocks for all tokens. */
static void v_block(const uint8_t *values, const struct kv_layout *l, uint32_t slot, uint32_t i, uint8_t *block)
{
    const uint32_t n_bytes = tensor_traits(l->v_type)->block_bytes;

    if (l->v_type != TENSOR_Q8_0) {
        memcpy(block, values + (slot * l->v_stride + i) / 32 * n_bytes, n_bytes);
        return;
    }
    values += (size_t)i * n_bytes;
    memcpy(block, values + 2 * slot, 2);
    for (uint32_t j = 0; j < 32; j++)
        block[2 + j] = values[64 + slot / 4 * 128 + j * 4 + slot % 4];
}

/* Replaces the @dim values at @x by what the cache has of them, and checks that this is close. */
static void stored(const struct problem *p, bool is_k, uint32_t token, uint32_t head, float *x)
{
    const enum tensor_type type = is_k ? p->shape.k_type : p->shape.v_type;
    const uint32_t dim = is_k ? p->shape.k_dim : p->shape.v_dim, slot = token % KV_PAGE_TOKENS;
    const uint8_t *page = p->pages[token / KV_PAGE_TOKENS];

    for (uint32_t i = 0; i < dim && type == TENSOR_F16; i++)
        x[i] = half_to_float(float_to_half(x[i]));
    for (uint32_t i = 0; i < dim && is_quantised(type); i += 32) {
        const uint32_t bytes = tensor_traits(type)->block_bytes;
        float values[32], most = 0;
        uint8_t block[64];

        if (is_k)
            k_block(page + kv_layout_k_offset(&p->layout, head) + (size_t)i * bytes, type, slot, block);
        else
            v_block(page + kv_layout_v_offset(&p->layout, head), &p->layout, slot, i, block);
        dequantise_row(type, block, 32, values);
        for (uint32_t j = 0; j < 32 && i + j < dim; j++)
            most = fmaxf(most, fabsf(x[i + j]));
        for (uint32_t j = 0; j < 32 && i + j < dim; j++) {
            if (!(fabsf(values[j] - x[i + j]) <= error_max(type, most)))
                fail_msg("%s: %g was stored as %g, the largest is %g", tensor_traits(type)->name, (double)x[i + j],
                         (double)values[j], (double)most);
            x[i + j] = values[j];
        }
    }
}

static void problem_init(struct problem *p, const struct shape *shape, uint64_t seed, const struct kernels *k)
{
    *p = (struct problem){.shape = *shape};
    assert_int_equal(kv_layout_init(&p->layout, shape->k_type, shape->v_type, shape->n_kv_heads, shape->k_dim,
                                    shape->v_dim),
                     0);
    p->n_heads = shape->n_kv_heads * shape->group;
    p->n_tokens = shape->position0 + shape->n_queries;
    p->n_pages = (p->n_tokens + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
    p->scale = 1.0f / sqrtf((float)shape->k_dim);
    p->k = allocate(sizeof(float) * p->n_tokens * shape->n_kv_heads * shape->k_dim);
    p->v = allocate(sizeof(float) * p->n_tokens * shape->n_kv_heads * shape->v_dim);
    p->q = allocate(sizeof(float) * shape->n_queries * p->n_heads * shape->k_dim);
    p->out = allocate(sizeof(float) * shape->n_queries * p->n_heads * shape->v_dim);
    p->sinks = allocate(sizeof(float) * p->n_heads);
    p->scratch = allocate(attention_scratch_bytes(&p->layout));
    p->pages = calloc(p->n_pages, sizeof(*p->pages));
    assert_non_null(p->pages);
    for (uint32_t i = 0; i < p->n_pages; i++)
        p->pages[i] = allocate(p->layout.page_bytes);

    for (uint32_t t = 0; t < p->n_tokens; t++) {
        float *key = p->k + (size_t)t * shape->n_kv_heads * shape->k_dim;
        float *value = p->v + (size_t)t * shape->n_kv_heads * shape->v_dim;

        for (uint32_t i = 0; i < shape->n_kv_heads * shape->k_dim; i++)
            key[i] = random_float(&seed);
        for (uint32_t i = 0; i < shape->n_kv_heads * shape->v_dim; i++)
            value[i] = random_float(&seed);
        kv_write(k, &p->layout, p->pages[t / KV_PAGE_TOKENS], t % KV_PAGE_TOKENS, key, value);
        for (uint32_t head = 0; head < shape->n_kv_heads; head++) {
            stored(p, /* is_k= */ true, t, head, key + (size_t)head * shape->k_dim);
            stored(p, /* is_k= */ false, t, head, value + (size_t)head * shape->v_dim);
        }
    }
    for (uint32_t i = 0; i < shape->n_queries * p->n_heads * shape->k_dim; i++)
        p->q[i] = 2 * random_float(&seed);
    for (uint32_t i = 0; i < p->n_heads; i++)
        p->sinks[i] = 3 * random_float(&seed);
}

static void problem_done(struct problem *p)
{
    for (uint32_t i = 0; i < p->n_pages; i++)
        free(p->pages[i]);
    free(p->pages);
    free(p->k);
    free(p->v);
    free(p->q);
    free(p->out);
    free(p->sinks);
    free(p->scratch);
}

static size_t n_out(const struct problem *p)
{
    return (size_t)p->shape.n_queries * p->n_heads * p->shape.v_dim;
}

/* The queries [first, first + n) of the problem, for one KV head. */
static struct attention_args args_for(const struct problem *p, uint32_t first, uint32_t n, uint32_t kv_head,
                                      float *out)
{
    return (struct attention_args){
        .layout = &p->layout,
        .pages = p->pages,
        .n_queries = n,
        .position0 = p->shape.position0 + first,
        .q = p->q + (size_t)first * p->n_heads * p->shape.k_dim,
        .q_stride = (size_t)p->n_heads * p->shape.k_dim,
        .n_heads = p->n_heads,
        .kv_head = kv_head,
        .scale = p->scale,
        .softcap = p->shape.softcap,
        .window = p->shape.window,
        .sinks = p->shape.sinks ? p->sinks : NULL,
        .out = out + (size_t)first * p->n_heads * p->shape.v_dim,
        .out_stride = (size_t)p->n_heads * p->shape.v_dim,
        .scratch = p->scratch,
    };
}

/* All queries, in calls of @at_a_time; @out is filled with a pattern first. */
static void solve(const struct problem *p, const struct kernels *k, uint32_t at_a_time, float *out)
{
    memset(out, 0x88, n_out(p) * sizeof(float));
    for (uint32_t kv_head = 0; kv_head < p->shape.n_kv_heads; kv_head++) {
        for (uint32_t i = 0; i < p->shape.n_queries; i += at_a_time) {
            uint32_t left = p->shape.n_queries - i;
            struct attention_args args = args_for(p, i, left < at_a_time ? left : at_a_time, kv_head, out);

            attention(k, &args);
        }
    }
}

/* The queries as attention on bytes sees them: codes of 8 bits, a scale for 32 values. */
static void quantise_queries(struct problem *p)
{
    const uint32_t dim = p->shape.k_dim, n_rows = p->shape.n_queries * p->n_heads;

    for (uint32_t i = 0; i < n_rows * dim; i += 32 - i % dim % 32 < dim - i % dim ? 32 : dim - i % dim) {
        const uint32_t n = dim - i % dim < 32 ? dim - i % dim : 32;
        double most = 0;

        for (uint32_t j = 0; j < n; j++)
            most = fmax(most, fabs((double)p->q[i + j]));
        for (uint32_t j = 0; j < n && most > 0; j++)
            p->q[i + j] = (float)(nearbyint((double)p->q[i + j] / most * 127) * most / 127);
    }
}

/* One head of one query in float64; returns the largest difference to @out [v_dim] and adds up squares of all. */
static double distance_of(const struct problem *p, uint32_t query, uint32_t head, const float *out, double *squares)
{
    const struct shape *s = &p->shape;
    uint32_t kv_head = head / s->group, position = s->position0 + query;
    uint32_t first = s->window > 0 && position >= s->window ? position - s->window + 1 : 0;
    const float *q = p->q + ((size_t)query * p->n_heads + head) * s->k_dim;
    double most = s->sinks ? (double)p->sinks[head] : -INFINITY, sum, worst = 0;
    _cleanup_free_ double *x = calloc(p->n_tokens, sizeof(*x));

    assert_non_null(x);
    for (uint32_t t = first; t <= position; t++) {
        const float *k = p->k + ((size_t)t * s->n_kv_heads + kv_head) * s->k_dim;

        for (uint32_t d = 0; d < s->k_dim; d++)
            x[t] += (double)q[d] * (double)k[d];
        x[t] *= (double)p->scale;
        if (s->softcap > 0)
            x[t] = (double)s->softcap * tanh(x[t] / (double)s->softcap);
        most = fmax(most, x[t]);
    }
    sum = s->sinks ? exp((double)p->sinks[head] - most) : 0;
    for (uint32_t t = first; t <= position; t++)
        sum += x[t] = exp(x[t] - most);
    for (uint32_t d = 0; d < s->v_dim; d++) {
        double y = 0;

        for (uint32_t t = first; t <= position; t++)
            y += x[t] / sum * (double)p->v[((size_t)t * s->n_kv_heads + kv_head) * s->v_dim + d];
        worst = fmax(worst, isnan(out[d]) ? INFINITY : fabs(y - (double)out[d]));
        *squares += (y - (double)out[d]) * (y - (double)out[d]);
    }
    return worst;
}

/* The largest difference of all, and the root of the mean square of them. */
static double distance(const struct problem *p, const float *out, double *ret_rms)
{
    double worst = 0, squares = 0;

    for (uint32_t query = 0; query < p->shape.n_queries; query++)
        for (uint32_t head = 0; head < p->n_heads; head++)
            worst = fmax(worst, distance_of(p, query, head,
                                            out + ((size_t)query * p->n_heads + head) * p->shape.v_dim, &squares));
    *ret_rms = sqrt(squares / (double)n_out(p));
    return worst;
}

enum { ISA_MASKS = 4 };

/* The masks that this machine can run, from scalar up. */
static uint32_t isa_masks(uint32_t masks[ISA_MASKS])
{
    static const uint32_t all[ISA_MASKS] = {0, ISA_AVX2, ISA_AVX2 | ISA_AVX512, ISA_AVX2 | ISA_AVX512 | ISA_AVX512_VNNI};
    uint32_t n = 0, has = kernels_isa_detect();

    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        if ((all[i] & has) == all[i])
            masks[n++] = all[i];
    return n;
}

#define F32 TENSOR_F32, TENSOR_F32
#define F16 TENSOR_F16, TENSOR_F16
#define BOTH(type) TENSOR_##type, TENSOR_##type

static const struct shape shapes[] = {
    /* types, KV heads, group, k_dim, v_dim, position0, queries, window, softcap, sinks */
    {F32, 1, 1, 8, 8, 0, 1, 0, 0, false}, /* the smallest thing there is */
    {F32, 1, 1, 1, 1, 5, 3, 0, 0, false},
    {F32, 2, 4, 64, 64, 0, 33, 0, 0, false}, /* a prompt across a page */
    {F16, 2, 4, 64, 64, 0, 33, 0, 0, false},
    {F32, 1, 2, 128, 128, 31, 2, 0, 0, false},   /* the last slot and the first of the next page */
    {F32, 2, 3, 80, 80, 510, 5, 0, 0, false},    /* across a segment, odd head size, group of 3 */
    {F16, 1, 4, 128, 128, 1100, 9, 0, 0, false}, /* three segments */
    {F32, 1, 8, 32, 48, 700, 40, 0, 0, false},   /* K and V differ; rows fill several batches */
    {TENSOR_F32, TENSOR_F16, 2, 2, 24, 40, 60, 7, 0, 0, false},
    {TENSOR_F16, TENSOR_F32, 2, 2, 24, 40, 60, 7, 0, 0, true},
    {F32, 1, 4, 64, 64, 0, 70, 8, 5, false},      /* a window smaller than a page */
    {F32, 1, 4, 64, 64, 100, 70, 33, 0, true},    /* a window that is no multiple of a page */
    {F16, 2, 2, 64, 64, 1030, 20, 512, 30, true}, /* a window across segments */
    {F32, 1, 1, 64, 64, 600, 3, 1, 0, false},     /* sees only itself */
    {F32, 1, 1, 64, 64, 600, 3, 4000, 0, true},   /* a window larger than the sequence */
    {F32, 1, 5, 256, 256, 60, 13, 0, 50, false},
    {F32, 1, 71, 16, 16, 40, 3, 0, 0, false},  /* a group larger than a batch of rows */
    {F16, 1, 7, 112, 72, 90, 11, 0, 0, false}, /* V with padding */
    {F32, 1, 6, 40, 100, 90, 11, 40, 0, true},
    {BOTH(Q8_0), 2, 4, 64, 64, 0, 33, 0, 0, false},
    {BOTH(Q8_0), 1, 8, 128, 128, 700, 40, 0, 0, true},
    {BOTH(Q4_0), 2, 4, 64, 64, 0, 70, 8, 5, false}, /* capped, in a window smaller than a page */
    {BOTH(Q4_1), 2, 3, 80, 80, 510, 5, 0, 30, true}, /* a head of two and a half blocks */
    {BOTH(Q5_0), 1, 7, 112, 72, 90, 11, 0, 0, true},
    {BOTH(Q5_1), 1, 2, 40, 24, 100, 70, 33, 20, true},
    {BOTH(IQ4_NL), 2, 2, 64, 64, 1030, 20, 512, 30, true},
    {TENSOR_Q8_0, TENSOR_F16, 2, 2, 64, 64, 60, 7, 0, 0, false},
    {TENSOR_F16, TENSOR_Q4_0, 2, 4, 48, 80, 60, 12, 0, 50, true},
    {TENSOR_Q5_1, TENSOR_IQ4_NL, 1, 1, 33, 1, 60, 3, 0, 0, false},
};
#define N_SHAPES (sizeof(shapes) / sizeof(*shapes))

/* A cache of bytes multiplies V by weights of 14 bits: each half a step of 16383 wrong, for values of about 1. */
static void agrees_with_float64(void **state)
{
    uint32_t masks[ISA_MASKS], n_masks = isa_masks(masks);

    for (uint32_t m = 0; m < n_masks; m++) {
        for (size_t i = 0; i < N_SHAPES; i++) {
            const bool is_bytes = shapes[i].v_type == TENSOR_Q8_0;
            struct kernels k;
            struct problem p;
            double d, rms;

            kernels_select(masks[m], &k);
            problem_init(&p, &shapes[i], i + 1, &k);
            solve(&p, &k, p.shape.n_queries, p.out);
            if (p.shape.k_type == TENSOR_Q8_0)
                quantise_queries(&p);
            d = distance(&p, p.out, &rms);
            if (!(d < (is_bytes ? 1e-3 : 5e-6)) || !(rms < (is_bytes ? 1e-4 : 5e-6)))
                fail_msg("shape %zu, %s: wrong by %g, rms %g", i, kernels_isa_name(masks[m]), d, rms);
            problem_done(&p);
        }
    }
}

/*
 * Where all weights are whole bytes, bytes are as exact as floats: no score differs from another, and no block's largest
 * value from another's. A key that holds what no half float can makes all NaN that sees it.
 */
static void bytes_are_exact_where_weights_are(void **state)
{
    static const struct shape shape = {BOTH(Q8_0), 2, 3, 64, 96, 0, 80, 50, 0, false};
    uint32_t masks[ISA_MASKS], n_masks = isa_masks(masks);

    for (uint32_t m = 0; m < n_masks; m++) {
        float key[2 * 64], value[2 * 96];
        struct kernels k;
        struct problem p;
        double rms;

        kernels_select(masks[m], &k);
        problem_init(&p, &shape, 17, &k);
        memset(p.q, 0, sizeof(float) * shape.n_queries * p.n_heads * shape.k_dim);
        for (uint32_t t = 0; t < p.n_tokens; t++) {
            for (uint32_t i = 0; i < 2 * 96; i++)
                p.v[t * 2 * 96 + i] = (i + t) % 32 == 0 ? 127.0f : (float)((int)((i * 37 + t * 11) % 251) - 125);
            kv_write(&k, &p.layout, p.pages[t / KV_PAGE_TOKENS], t % KV_PAGE_TOKENS, p.k + t * 2 * 64, p.v + t * 2 * 96);
        }
        solve(&p, &k, shape.n_queries, p.out);
        assert_true(distance(&p, p.out, &rms) < 1e-4);

        for (uint32_t i = 0; i < 2 * 96; i++)
            value[i] = i == 100 ? NAN : 1.0f;
        for (uint32_t i = 0; i < 2 * 64; i++)
            key[i] = i == 3 ? 1e6f : 1.0f;
        kv_write(&k, &p.layout, p.pages[40 / KV_PAGE_TOKENS], 40 % KV_PAGE_TOKENS, p.k, value);
        kv_write(&k, &p.layout, p.pages[10 / KV_PAGE_TOKENS], 10 % KV_PAGE_TOKENS, key, p.v);
        solve(&p, &k, shape.n_queries, p.out);
        for (uint32_t query = 0; query < shape.n_queries; query++) {
            const bool sees_10 = query >= 10 && query < 60, sees_40 = query >= 40;

            for (uint32_t head = 0; head < p.n_heads; head++)
                for (uint32_t i = 0; i < 96; i += 32)
                    assert_int_equal(isnan(p.out[(query * p.n_heads + head) * 96 + i]) != 0,
                                     head < 3 ? sees_10 : sees_40 && i == 0);
        }
        problem_done(&p);
    }
}

static void has_the_same_bits_on_every_isa_and_in_every_batch(void **state)
{
    static const uint32_t sizes[] = {1, 2, 3, 5, 8, 32, 1000};
    uint32_t masks[ISA_MASKS], n_masks = isa_masks(masks);
    struct kernels scalar;

    kernels_select(0, &scalar);
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct problem p;
        _cleanup_free_ float *out = NULL;

        problem_init(&p, &shapes[i], i + 100, &scalar);
        out = allocate(n_out(&p) * sizeof(float));
        solve(&p, &scalar, p.shape.n_queries, p.out);
        for (uint32_t m = 0; m < n_masks; m++) {
            for (size_t j = 0; j < sizeof(sizes) / sizeof(*sizes); j++) {
                struct kernels k;

                /* scalar code is slow, and one size shows what there is to see */
                if (masks[m] == 0 && sizes[j] != 1)
                    continue;
                kernels_select(masks[m], &k);
                solve(&p, &k, sizes[j], out);
                if (memcmp(out, p.out, n_out(&p) * sizeof(float)) != 0)
                    fail_msg("shape %zu, %s, %u queries a call", i, kernels_isa_name(masks[m]), sizes[j]);
            }
        }
        problem_done(&p);
    }
}

static void has_the_same_bits_by_segments(void **state)
{
    uint32_t masks[ISA_MASKS], n_masks = isa_masks(masks);

    for (size_t i = 0; i < N_SHAPES; i++) {
        struct kernels k;
        struct problem p;
        _cleanup_free_ float *out = NULL;
        void *parts[8];

        kernels_select(masks[n_masks - 1], &k);
        problem_init(&p, &shapes[i], i + 200, &k);
        out = allocate(n_out(&p) * sizeof(float));
        memset(out, 0x88, n_out(&p) * sizeof(float));
        solve(&p, &k, p.shape.n_queries, p.out);
        for (uint32_t kv_head = 0; kv_head < p.shape.n_kv_heads; kv_head++) {
            struct attention_args args = args_for(&p, 0, p.shape.n_queries, kv_head, out);
            uint32_t n = attention_segments(&args);

            assert_true(n >= 1 && n <= 8);
            /* in any order */
            for (uint32_t segment = n; segment-- > 0;) {
                parts[segment] = allocate(attention_part_bytes(&p.layout, p.n_heads, p.shape.n_queries));
                attention_part(&k, &args, segment, parts[segment]);
            }
            attention_merge(&k, &args, parts);
            for (uint32_t segment = 0; segment < n; segment++)
                free(parts[segment]);
        }
        assert_memory_equal(out, p.out, n_out(&p) * sizeof(float));
        problem_done(&p);
    }
}

/*
 * Pages start out as NaN everywhere; later positions and those before the window are made NaN and infinite
 * here.
 */
static void sees_nothing_of(enum tensor_type k_type, enum tensor_type v_type)
{
    const struct shape shape = {k_type, v_type, 2, 4, 64, 64, 90, 50, 20, 0, false};
    uint32_t masks[ISA_MASKS], n_masks = isa_masks(masks);

    for (uint32_t m = 0; m < n_masks; m++) {
        struct kernels k;
        struct problem p;
        _cleanup_free_ float *out = NULL;
        float key[2 * 64], value[2 * 64];

        kernels_select(masks[m], &k);
        problem_init(&p, &shape, 7, &k);
        out = allocate(n_out(&p) * sizeof(float));
        memset(out, 0x88, n_out(&p) * sizeof(float));
        solve(&p, &k, shape.n_queries, p.out);
        /*
         * Query 10 alone (position 100) with positions 0-80 and 101-139 spoilt, among neighbours that do see
         * those.
         */
        for (uint32_t t = 0; t < 140; t++) {
            if (t > 80 && t <= 100)
                continue;
            for (int i = 0; i < 2 * 64; i++) {
                key[i] = t % 2 ? NAN : INFINITY;
                value[i] = t % 3 ? -INFINITY : NAN;
            }
            kv_write(&k, &p.layout, p.pages[t / KV_PAGE_TOKENS], t % KV_PAGE_TOKENS, key, value);
        }
        for (uint32_t kv_head = 0; kv_head < 2; kv_head++) {
            struct attention_args args = args_for(&p, 0, shape.n_queries, kv_head, out);

            free(p.pages[0]);
            p.pages[0] = NULL;
            attention(&k, &args);
        }
        assert_memory_equal(out + (size_t)10 * p.n_heads * 64, p.out + (size_t)10 * p.n_heads * 64,
                            p.n_heads * 64 * sizeof(float));
        problem_done(&p);
    }
}

static void sees_nothing_that_it_must_not(void **state)
{
    sees_nothing_of(F32);
    sees_nothing_of(BOTH(Q8_0));
    sees_nothing_of(TENSOR_Q5_1, TENSOR_IQ4_NL);
}

/* Writing is the same on every machine, and what no half float holds is NaN, not a number that looks real. */
static void quantises_alike_and_says_what_it_cannot_hold(void **state)
{
    static const enum tensor_type types[] = {TENSOR_Q8_0, TENSOR_Q4_0, TENSOR_Q4_1, TENSOR_Q5_0, TENSOR_Q5_1, TENSOR_IQ4_NL};
    uint32_t masks[ISA_MASKS], n_masks = isa_masks(masks);

    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        _cleanup_free_ uint8_t *first = NULL, *page = NULL;
        struct kv_layout l;
        float key[64], value[64];
        uint64_t seed = i;

        assert_int_equal(kv_layout_init(&l, types[i], types[i], 1, 64, 64), 0);
        first = allocate(l.page_bytes);
        page = allocate(l.page_bytes);
        for (uint32_t m = 0; m < n_masks; m++) {
            struct kernels k;

            kernels_select(masks[m], &k);
            seed = i;
            for (uint32_t slot = 0; slot < KV_PAGE_TOKENS; slot++) {
                for (uint32_t d = 0; d < 64; d++) {
                    key[d] = slot == 3 ? 0.0f : random_float(&seed) * (slot == 4 ? 1e-9f : slot == 5 ? 1e4f : 1.0f);
                    value[d] = slot == 6 ? 70000.0f : random_float(&seed);
                }
                kv_write(&k, &l, m == 0 ? first : page, slot, key, value);
            }
            if (m > 0)
                assert_memory_equal(page, first, l.page_bytes);
        }
        for (uint32_t d = 0; d < 2; d++) { /* of slot 3, which is all zeros, and of slot 6 */
            uint8_t block[64];
            float values[32];

            k_block(first + d * 32 * tensor_traits(types[i])->block_bytes, types[i], 3, block);
            dequantise_row(types[i], block, 32, values);
            assert_true(values[0] == 0 && values[31] == 0);
            v_block(first + kv_layout_v_offset(&l, 0), &l, 6, 32 * d, block);
            dequantise_row(types[i], block, 32, values);
            assert_true(isnan(values[0]) && isnan(values[31]));
        }
    }
}

/* Another KV head's part of the output, and what lies between two queries' outputs, is not touched. */
static void writes_its_own_head_only(void **state)
{
    static const struct shape shape = {F32, 3, 2, 40, 40, 20, 5, 0, 0, false};
    struct kernels k;
    struct problem p;

    kernels_select(kernels_isa_detect(), &k);
    problem_init(&p, &shape, 9, &k);
    memset(p.out, 0x88, n_out(&p) * sizeof(float));
    struct attention_args args = args_for(&p, 0, shape.n_queries, 1, p.out);
    attention(&k, &args);
    for (uint32_t i = 0; i < n_out(&p); i++) {
        uint32_t head = i / 40 % 6;

        if (head / 2 == 1)
            assert_true(float_to_bits(p.out[i]) != 0x88888888u);
        else
            assert_int_equal(float_to_bits(p.out[i]), 0x88888888u);
    }
    problem_done(&p);
}

/* exp of differences of thousands: nothing overflows, and the largest score takes all. */
static void survives_large_scores(void **state)
{
    static const struct shape shape = {F32, 1, 2, 16, 16, 600, 2, 0, 0, false};
    uint32_t masks[ISA_MASKS], n_masks = isa_masks(masks);

    for (uint32_t m = 0; m < n_masks; m++) {
        struct kernels k;
        struct problem p;
        double rms;

        kernels_select(masks[m], &k);
        problem_init(&p, &shape, 11, &k);
        for (uint32_t i = 0; i < 2 * 2 * 16; i++)
            p.q[i] *= 1e4f;
        solve(&p, &k, 2, p.out);
        assert_true(distance(&p, p.out, &rms) < 1e-4);
        problem_done(&p);
    }
}

/* A sink that outweighs all keys leaves nothing; one of -infinity is no sink. */
static void sinks_at_their_ends(void **state)
{
    static const struct shape shape = {F32, 1, 1, 16, 16, 40, 1, 0, 0, true};
    struct kernels k;
    struct problem p;
    float with[16];

    kernels_select(kernels_isa_detect(), &k);
    problem_init(&p, &shape, 13, &k);
    p.sinks[0] = 1000;
    solve(&p, &k, 1, p.out);
    for (int i = 0; i < 16; i++)
        assert_true(p.out[i] == 0);
    p.sinks[0] = -INFINITY;
    solve(&p, &k, 1, p.out);
    memcpy(with, p.out, sizeof(with));
    p.shape.sinks = false;
    solve(&p, &k, 1, p.out);
    assert_memory_equal(with, p.out, sizeof(with));
    problem_done(&p);
}

static void layout_has_known_sizes(void **state)
{
    struct kv_layout l;

    assert_int_equal(kv_layout_init(&l, TENSOR_F16, TENSOR_F16, 8, 128, 128), 0);
    assert_int_equal(l.page_bytes, 8 * 2 * 32 * 128 * 2);
    assert_int_equal(kv_layout_k_offset(&l, 3), 3 * 2 * 32 * 128 * 2);
    assert_int_equal(kv_layout_v_offset(&l, 3), 3 * 2 * 32 * 128 * 2 + 32 * 128 * 2);
    assert_int_equal(kv_layout_init(&l, TENSOR_F32, TENSOR_F16, 1, 8, 8), 0);
    assert_int_equal(l.v_stride, 16);
    assert_int_equal(l.page_bytes, 32 * 8 * 4 + 32 * 16 * 2);
    assert_int_equal(kv_layout_init(&l, TENSOR_Q8_0, TENSOR_Q4_1, 2, 128, 72), 0);
    assert_int_equal(l.v_stride, 96);
    assert_int_equal(l.k_bytes, 32 * 4 * 34);
    assert_int_equal(l.v_bytes, 32 * 3 * 20);
    assert_int_equal(l.page_bytes, 2 * 32 * (4 * 34 + 3 * 20));
    assert_int_equal(kv_layout_init(&l, TENSOR_Q4_K, TENSOR_F16, 8, 128, 128), -ENOTSUP);
    assert_int_equal(kv_layout_init(&l, TENSOR_I32, TENSOR_F16, 8, 128, 128), -ENOTSUP);
    assert_int_equal(kv_layout_init(&l, TENSOR_F16, TENSOR_F16, 0, 128, 128), -EINVAL);
    assert_int_equal(kv_layout_init(&l, TENSOR_F16, TENSOR_F16, 8, 0, 128), -EINVAL);
    assert_int_equal(kv_layout_init(&l, TENSOR_F16, TENSOR_F16, 8, 128, 1025), -EINVAL);
    assert_int_equal(kv_layout_init(&l, TENSOR_F16, TENSOR_F16, UINT32_MAX, 128, 128), -EINVAL);
}

/* --- measuring --- */

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Times attention over @n_tokens keys for the last @n queries: 4 heads of 128 values on one KV head, one thread. */
static void bench_flash(const struct kernels *k, enum tensor_type type, uint32_t n_tokens, uint32_t n)
{
    struct shape shape = {type, type, 1, 4, 128, 128, n_tokens - n, n, 0, 0, false};
    double best = INFINITY, flops = 4.0 * 128 * 4 * n * (n_tokens - (n - 1) / 2.0);
    struct problem p;

    problem_init(&p, &shape, 1, k);
    for (int round = 0; round < 3; round++) {
        double begin = seconds();

        solve(&p, k, n, p.out);
        best = fmin(best, seconds() - begin);
    }
    printf("%-8s %-6s %5u keys, %3u queries: %9.3f ms, %6.1f GFLOP/s, cache read once %5.1f GB/s, scratch %zu KiB\n",
           kernels_isa_name(k->isa), tensor_traits(type)->name, n_tokens, n, best * 1e3, flops / best * 1e-9,
           (double)p.n_pages * (double)p.layout.page_bytes / best * 1e-9, attention_scratch_bytes(&p.layout) >> 10);
    problem_done(&p);
}

/*
 * The plain path for comparison: all scores written out, softmax of whole rows, then the values; with the project's own
 * matrix kernels on float keys and values that lie in one piece, those transposed.
 */
static void bench_plain(const struct kernels *k, uint32_t n_tokens, uint32_t n)
{
    const uint32_t dim = 128, m = 4 * n;
    const size_t n_scores = (size_t)m * n_tokens;
    _cleanup_free_ float *keys = allocate(sizeof(float) * n_tokens * dim), *values = allocate(sizeof(float) * n_tokens * dim);
    _cleanup_free_ float *q = allocate(sizeof(float) * m * dim), *scores = allocate(sizeof(float) * n_scores);
    _cleanup_free_ void *act = allocate(linear_pack_bytes(k, ACT_F32, n_tokens, m)), *scratch = allocate(linear_scratch_bytes(k, n_tokens, m));
    _cleanup_free_ float *out = allocate(sizeof(float) * m * dim);
    uint64_t seed = 1;
    double begin;

    for (size_t i = 0; i < (size_t)n_tokens * dim; i++) {
        keys[i] = random_float(&seed);
        values[i] = random_float(&seed);
    }
    for (size_t i = 0; i < (size_t)m * dim; i++)
        q[i] = random_float(&seed) * 0.1f;
    begin = seconds();
    linear_pack(k, ACT_F32, q, dim, dim, m, 0, m, act);
    linear_rows(k, TENSOR_F32, keys, dim * sizeof(float), dim, 0, n_tokens, act, m, scores, n_tokens, scratch);
    for (uint32_t row = 0; row < m; row++) {
        uint32_t seen = n_tokens - n + row / 4 + 1;
        float *x = scores + (size_t)row * n_tokens;

        k->vector.softmax(x, x, seen);
        memset(x + seen, 0, (n_tokens - seen) * sizeof(float));
    }
    linear_pack(k, ACT_F32, scores, n_tokens, n_tokens, m, 0, m, act);
    linear_rows(k, TENSOR_F32, values, n_tokens * sizeof(float), n_tokens, 0, dim, act, m, out, dim, scratch);
    printf("%-8s plain  %5u keys, %3u queries: %9.3f ms, scores %zu KiB\n", kernels_isa_name(k->isa), n_tokens, n,
           (seconds() - begin) * 1e3, n_scores * sizeof(float) >> 10);
}

static void bench(void)
{
    static const uint32_t contexts[] = {512, 8192, 32768}, n_queries[] = {1, 8, 512};
    static const enum tensor_type types[] = {TENSOR_F32, TENSOR_F16, TENSOR_Q8_0, TENSOR_Q4_0};
    struct kernels k;

    kernels_select(kernels_isa_detect(), &k);
    for (size_t i = 0; i < 3; i++) {
        for (size_t j = 0; j < 3; j++) {
            for (size_t l = 0; l < sizeof(types) / sizeof(*types); l++)
                bench_flash(&k, types[l], contexts[i], n_queries[j]);
            bench_plain(&k, contexts[i], n_queries[j]);
        }
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout_has_known_sizes),
        cmocka_unit_test(agrees_with_float64),
        cmocka_unit_test(bytes_are_exact_where_weights_are),
        cmocka_unit_test(has_the_same_bits_on_every_isa_and_in_every_batch),
        cmocka_unit_test(has_the_same_bits_by_segments),
        cmocka_unit_test(sees_nothing_that_it_must_not),
        cmocka_unit_test(quantises_alike_and_says_what_it_cannot_hold),
        cmocka_unit_test(writes_its_own_head_only),
        cmocka_unit_test(survives_large_scores),
        cmocka_unit_test(sinks_at_their_ends),
    };

    if (argc > 1 && strcmp(argv[1], "--bench") == 0) {
        bench();
        return 0;
    }
    return cmocka_run_group_tests_name("kernels/attention", tests, NULL, NULL);
}
