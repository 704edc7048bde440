/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Attention against a float64 softmax over all positions, and its promises: the same bits for every
 * instruction set, for every number of queries in a call, by segments or in one go, and whatever lies in
 * slots that a query does not see. With --bench it measures instead.
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
    float *k, *v; /* [n_tokens][n_kv_heads][dim], as stored: rounded to half where the cache is */
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

static float stored(float x, enum tensor_type type)
{
    return type == TENSOR_F16 ? half_to_float(float_to_half(x)) : x;
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
        for (uint32_t i = 0; i < shape->n_kv_heads * shape->k_dim; i++)
            key[i] = stored(key[i], shape->k_type);
        for (uint32_t i = 0; i < shape->n_kv_heads * shape->v_dim; i++)
            value[i] = stored(value[i], shape->v_type);
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

/* One head of one query in float64; returns the largest difference to @out [v_dim]. */
static double distance_of(const struct problem *p, uint32_t query, uint32_t head, const float *out)
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
    }
    return worst;
}

static double distance(const struct problem *p, const float *out)
{
    double worst = 0;

    for (uint32_t query = 0; query < p->shape.n_queries; query++)
        for (uint32_t head = 0; head < p->n_heads; head++)
            worst = fmax(worst, distance_of(p, query, head,
                                            out + ((size_t)query * p->n_heads + head) * p->shape.v_dim));
    return worst;
}

/* The masks that this machine can run, from scalar up. */
static uint32_t isa_masks(uint32_t masks[3])
{
    static const uint32_t all[] = {0, ISA_AVX2, ISA_AVX2 | ISA_AVX512};
    uint32_t n = 0, has = kernels_isa_detect();

    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        if ((all[i] & has) == all[i])
            masks[n++] = all[i];
    return n;
}

#define F32 TENSOR_F32, TENSOR_F32
#define F16 TENSOR_F16, TENSOR_F16

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
};
#define N_SHAPES (sizeof(shapes) / sizeof(*shapes))

static void agrees_with_float64(void **state)
{
    uint32_t masks[3], n_masks = isa_masks(masks);

    for (uint32_t m = 0; m < n_masks; m++) {
        for (size_t i = 0; i < N_SHAPES; i++) {
            struct kernels k;
            struct problem p;
            double d;

            kernels_select(masks[m], &k);
            problem_init(&p, &shapes[i], i + 1, &k);
            solve(&p, &k, p.shape.n_queries, p.out);
            d = distance(&p, p.out);
            if (!(d < 5e-6))
                fail_msg("shape %zu, %s: wrong by %g", i, kernels_isa_name(masks[m]), d);
            problem_done(&p);
        }
    }
}

static void has_the_same_bits_on_every_isa_and_in_every_batch(void **state)
{
    static const uint32_t sizes[] = {1, 2, 3, 5, 8, 32, 1000};
    uint32_t masks[3], n_masks = isa_masks(masks);
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
    uint32_t masks[3], n_masks = isa_masks(masks);

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
static void sees_nothing_that_it_must_not(void **state)
{
    static const struct shape shape = {F32, 2, 4, 64, 64, 90, 50, 20, 0, false};
    uint32_t masks[3], n_masks = isa_masks(masks);

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
    uint32_t masks[3], n_masks = isa_masks(masks);

    for (uint32_t m = 0; m < n_masks; m++) {
        struct kernels k;
        struct problem p;

        kernels_select(masks[m], &k);
        problem_init(&p, &shape, 11, &k);
        for (uint32_t i = 0; i < 2 * 2 * 16; i++)
            p.q[i] *= 1e4f;
        solve(&p, &k, 2, p.out);
        assert_true(distance(&p, p.out) < 1e-4);
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
    assert_int_equal(kv_layout_init(&l, TENSOR_I32, TENSOR_F16, 8, 128, 128), -ENOTSUP);
    assert_int_equal(kv_layout_init(&l, TENSOR_F16, TENSOR_F16, 0, 128, 128), -EINVAL);
    assert_int_equal(kv_layout_init(&l, TENSOR_F16, TENSOR_F16, 8, 0, 128), -EINVAL);
    assert_int_equal(kv_layout_init(&l, TENSOR_F16, TENSOR_F16, 8, 128, 1025), -EINVAL);
    assert_int_equal(kv_layout_init(&l, TENSOR_F16, TENSOR_F16, UINT32_MAX, 128, 128), -EINVAL);
}

/*
 * Times attention over 4096 keys: 32 heads of 128 values on 8 KV heads, one thread; the best of several
 * rounds.
 */
static void bench(void)
{
    static const uint32_t n_queries[] = {1, 8, 128};
    uint32_t masks[3], n_masks = isa_masks(masks);

    for (uint32_t m = 1; m < n_masks; m++) {
        for (size_t i = 0; i < 2 * sizeof(n_queries) / sizeof(*n_queries); i++) {
            uint32_t n = n_queries[i / 2];
            enum tensor_type type = i % 2 ? TENSOR_F16 : TENSOR_F32;
            struct shape shape = {type, type, 8, 4, 128, 128, 4096 - n, n, 0, 0, false};
            double best = INFINITY, flops = 4.0 * 128 * 32 * n * (4096 - (n - 1) / 2.0);
            struct kernels k;
            struct problem p;

            kernels_select(masks[m], &k);
            problem_init(&p, &shape, 1, &k);
            for (int round = 0; round < 10; round++) {
                struct timespec begin, end;

                clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
                solve(&p, &k, n, p.out);
                clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
                best = fmin(best, (double)(end.tv_sec - begin.tv_sec) +
                                      1e-9 * (double)(end.tv_nsec - begin.tv_nsec));
            }
            printf("%-8s %s %3u queries: %8.3f ms, %6.1f GFLOP/s, cache read once: %5.1f GB/s\n",
                   kernels_isa_name(masks[m]), type == TENSOR_F16 ? "f16" : "f32", n, best * 1e3,
                   flops / best * 1e-9, (double)p.n_pages * (double)p.layout.page_bytes / best * 1e-9);
            problem_done(&p);
        }
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout_has_known_sizes),
        cmocka_unit_test(agrees_with_float64),
        cmocka_unit_test(has_the_same_bits_on_every_isa_and_in_every_batch),
        cmocka_unit_test(has_the_same_bits_by_segments),
        cmocka_unit_test(sees_nothing_that_it_must_not),
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
