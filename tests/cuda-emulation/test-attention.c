/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing pages and attending to them on the GPU against the CPU's kernels, bit for bit: types of cache, shapes of heads,
 * windows, caps, sinks, several sequences in one launch, split by segments or not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/kernels/attention.h"
#include "engine/kernels/kernels.h"
#include "engine/kernels/rope.h"
#include "tests/cuda-emulation/emulated-device.h"
#include "tests/unit/kernels/linear-cases.h"

enum { RUNS_MAX = 3, TOKENS_MAX = 64, PAGES_MAX = 80, TABLE = 40 };

struct shape {
    enum tensor_type k_type, v_type;
    uint32_t n_kv_heads, group, k_dim, v_dim, window;
    float softcap;
    bool sinks, whole;
    uint32_t n_runs;
    struct {
        uint32_t position0, n_queries;
    } runs[RUNS_MAX];
};

struct problem {
    struct shape s;
    struct kv_layout l;
    uint32_t n_heads, n_tokens;
    uint32_t tables[RUNS_MAX * TABLE], positions[TOKENS_MAX], token_runs[TOKENS_MAX];
    uint8_t *pages; /* the CPU's, page after page */
    float *q, *k, *v, *sinks, *out;
};

static struct kernels scalar;

static float *random_floats(size_t n, uint64_t *seed)
{
    float *x = malloc(n * sizeof(*x));

    assert_non_null(x);
    for (size_t i = 0; i < n; i++)
        x[i] = random_float(seed);
    return x;
}

/* Keys and values of all positions before the queries, in pages in no order; those of the queries are not yet written. */
static void problem_init(struct problem *p, const struct shape *s, uint64_t *seed)
{
    uint32_t page = PAGES_MAX;

    *p = (struct problem){.s = *s, .n_heads = s->n_kv_heads * s->group};
    assert_int_equal(kv_layout_init(&p->l, s->k_type, s->v_type, s->n_kv_heads, s->k_dim, s->v_dim), 0);
    p->pages = aligned_alloc(64, PAGES_MAX * p->l.page_bytes);
    assert_non_null(p->pages);
    memset(p->pages, 0xFF, PAGES_MAX * p->l.page_bytes); /* NaN where nobody wrote */
    for (uint32_t run = 0; run < s->n_runs; run++) {
        uint32_t last = s->runs[run].position0 + s->runs[run].n_queries - 1;

        for (uint32_t i = 0; i <= last / 32; i++)
            p->tables[run * TABLE + i] = --page;
        for (uint32_t position = 0; position < s->runs[run].position0; position++) {
            float *k = random_floats(s->n_kv_heads * s->k_dim, seed), *v = random_floats(s->n_kv_heads * s->v_dim, seed);

            kv_write(&scalar, &p->l, p->pages + p->tables[run * TABLE + position / 32] * p->l.page_bytes, position % 32, k, v);
            free(k);
            free(v);
        }
        for (uint32_t i = 0; i < s->runs[run].n_queries; i++) {
            p->positions[p->n_tokens] = s->runs[run].position0 + i;
            p->token_runs[p->n_tokens++] = run;
        }
    }
    p->q = random_floats((size_t)p->n_tokens * p->n_heads * s->k_dim, seed);
    p->k = random_floats((size_t)p->n_tokens * s->n_kv_heads * s->k_dim, seed);
    p->v = random_floats((size_t)p->n_tokens * s->n_kv_heads * s->v_dim, seed);
    p->sinks = random_floats(p->n_heads, seed);
    p->out = random_floats((size_t)p->n_tokens * p->n_heads * s->v_dim, seed);
}

static void problem_done(struct problem *p)
{
    free(p->pages);
    free(p->q);
    free(p->k);
    free(p->v);
    free(p->sinks);
    free(p->out);
    device_reset();
}

static struct launch_kv kv_of(const struct problem *p)
{
    struct launch_kv kv = {
        .memory = device_new(PAGES_MAX * p->l.page_bytes),
        .page_stride = p->l.page_bytes,
        .tables = device_copy(p->tables, sizeof(p->tables)),
        .table_stride = TABLE,
        .k_bytes = p->l.k_bytes,
        .v_bytes = p->l.v_bytes,
        .k_type = p->l.k_type,
        .v_type = p->l.v_type,
        .n_kv_heads = p->l.n_kv_heads,
        .k_dim = p->l.k_dim,
        .v_dim = p->l.v_dim,
        .v_stride = p->l.v_stride,
    };

    memcpy(device_memory(kv.memory), p->pages, PAGES_MAX * p->l.page_bytes);
    return kv;
}

/* --- writing --- */

static void check_write(struct problem *p, uint32_t n_rot, bool norms, bool interleaved, uint64_t *seed)
{
    const struct vector_table *v = &scalar.vector;
    uint32_t k_dim = p->l.k_dim, n_kv = p->l.n_kv_heads;
    float *q_norm = random_floats(k_dim, seed), *k_norm = random_floats(k_dim, seed);
    float *table = calloc((size_t)p->n_tokens * n_rot + 1, sizeof(float));
    double frequency[256];
    struct launch_rope_write a = {.n_tokens = p->n_tokens, .n_heads = p->n_heads, .n_rot = n_rot,
                                  .interleaved = interleaved, .epsilon = 1e-6f, .kv = kv_of(p)};
    size_t q_bytes = (size_t)p->n_tokens * p->n_heads * k_dim * 4, k_bytes = (size_t)p->n_tokens * n_kv * k_dim * 4;

    assert_non_null(table);
    for (uint32_t i = 0; i < n_rot / 2; i++)
        frequency[i] = 1.0 / (1 + i);
    for (uint32_t t = 0; t < p->n_tokens; t++)
        rope_table(frequency, n_rot / 2, p->positions[t], 1.0f, table + t * n_rot);
    a.q = device_new(q_bytes);
    a.k = device_new(k_bytes);
    memcpy(device_memory(a.q), p->q, q_bytes);
    memcpy(device_memory(a.k), p->k, k_bytes);
    a.v = device_copy(p->v, (size_t)p->n_tokens * n_kv * p->l.v_dim * 4);
    a.q_norm = norms ? device_copy(q_norm, k_dim * 4) : 0;
    a.k_norm = norms ? device_copy(k_norm, k_dim * 4) : 0;
    a.table = n_rot ? device_copy(table, (size_t)p->n_tokens * n_rot * 4) : 0;
    a.positions = device_copy(p->positions, p->n_tokens * 4);
    a.token_runs = device_copy(p->token_runs, p->n_tokens * 4);
    device_launch(LAUNCH_ROPE_WRITE, &a);
    for (uint32_t t = 0; t < p->n_tokens; t++) {
        float *q = p->q + (size_t)t * p->n_heads * k_dim, *k = p->k + (size_t)t * n_kv * k_dim;
        uint32_t page = p->tables[p->token_runs[t] * TABLE + p->positions[t] / 32];

        for (uint32_t h = 0; norms && h < p->n_heads; h++)
            v->rms_norm(q + h * k_dim, q + h * k_dim, q_norm, k_dim, 1e-6f);
        for (uint32_t h = 0; norms && h < n_kv; h++)
            v->rms_norm(k + h * k_dim, k + h * k_dim, k_norm, k_dim, 1e-6f);
        if (n_rot) {
            v->rope(q, p->n_heads, k_dim, n_rot, table + t * n_rot, interleaved);
            v->rope(k, n_kv, k_dim, n_rot, table + t * n_rot, interleaved);
        }
        kv_write(&scalar, &p->l, p->pages + page * p->l.page_bytes, p->positions[t] % 32, k,
                 p->v + (size_t)t * n_kv * p->l.v_dim);
    }
    assert_floats_equal("q", device_memory(a.q), p->q, q_bytes / 4);
    assert_floats_equal("k", device_memory(a.k), p->k, k_bytes / 4);
    assert_memory_equal(device_memory(a.kv.memory), p->pages, PAGES_MAX * p->l.page_bytes);
    free(q_norm);
    free(k_norm);
    free(table);
}

/* --- attending --- */

static void attend_cpu(struct problem *p)
{
    const struct shape *s = &p->s;
    void *scratch = aligned_alloc(64, (attention_scratch_bytes(&p->l) + 63) / 64 * 64);
    uint32_t row = 0;

    assert_non_null(scratch);
    for (uint32_t run = 0; run < s->n_runs; run++) {
        void *pages[TABLE];

        for (uint32_t i = 0; i < TABLE; i++)
            pages[i] = p->pages + p->tables[run * TABLE + i] * p->l.page_bytes;
        for (uint32_t head = 0; head < s->n_kv_heads; head++)
            attention(&scalar, &(struct attention_args){
                                   .layout = &p->l,
                                   .pages = pages,
                                   .n_queries = s->runs[run].n_queries,
                                   .position0 = s->runs[run].position0,
                                   .q = p->q + (size_t)row * p->n_heads * s->k_dim,
                                   .q_stride = (size_t)p->n_heads * s->k_dim,
                                   .n_heads = p->n_heads,
                                   .kv_head = head,
                                   .scale = 0.17f,
                                   .softcap = s->softcap,
                                   .window = s->window,
                                   .n_keys = s->whole ? s->runs[run].position0 + s->runs[run].n_queries : 0,
                                   .sinks = s->sinks ? p->sinks : NULL,
                                   .out = p->out + (size_t)row * p->n_heads * s->v_dim,
                                   .out_stride = (size_t)p->n_heads * s->v_dim,
                                   .scratch = scratch,
                               });
        row += s->runs[run].n_queries;
    }
    free(scratch);
}

static void check_attention(struct problem *p)
{
    const struct shape *s = &p->s;
    struct launch_queries queries[TOKENS_MAX];
    struct launch_attention a = {.n_tokens = p->n_tokens, .n_heads = p->n_heads, .window = s->window, .scale = 0.17f,
                                 .softcap = s->softcap, .kv = kv_of(p)};
    size_t out_floats = (size_t)p->n_tokens * p->n_heads * s->v_dim;
    uint32_t step = launch_attention_queries(&a), row = 0, last = 0;

    for (uint32_t run = 0; run < s->n_runs; run++) {
        uint32_t n = s->runs[run].n_queries, end = s->runs[run].position0 + n;

        last = end - 1 > last ? end - 1 : last;
        for (uint32_t i = 0; i < n; i += step)
            queries[a.n_queries++] = (struct launch_queries){run, row + i, n - i < step ? n - i : step,
                                                             s->runs[run].position0 + i, s->whole ? end : 0};
        row += n;
    }
    attend_cpu(p);
    a.q = device_copy(p->q, (size_t)p->n_tokens * p->n_heads * s->k_dim * 4);
    a.sinks = s->sinks ? device_copy(p->sinks, p->n_heads * 4) : 0;
    a.queries = device_copy(queries, a.n_queries * sizeof(*queries));
    a.out = device_new(out_floats * 4);
    device_launch(LAUNCH_ATTENTION, &a);
    assert_floats_equal("attention", device_memory(a.out), p->out, out_floats);

    a.split = 1;
    a.n_segments = launch_attention_segments(last);
    a.parts = device_new(launch_attention_parts_bytes(a.n_segments, p->n_tokens, p->n_heads, p->l.v_stride));
    a.out = device_new(out_floats * 4);
    device_launch(LAUNCH_ATTENTION, &a);
    device_launch(LAUNCH_ATTENTION_MERGE, &a);
    assert_floats_equal("split attention", device_memory(a.out), p->out, out_floats);
}

static const struct shape shapes[] = {
    {TENSOR_F16, TENSOR_F16, 2, 4, 64, 64, 0, 0, false, false, 2, {{30, 5}, {600, 1}}},
    {TENSOR_Q8_0, TENSOR_Q8_0, 1, 3, 96, 32, 0, 30.0f, true, false, 2, {{0, 9}, {63, 2}}},
    {TENSOR_Q4_0, TENSOR_Q4_0, 2, 1, 64, 64, 0, 0, false, false, 1, {{31, 3}}},
    {TENSOR_F32, TENSOR_F32, 1, 2, 80, 72, 0, 0, false, false, 1, {{40, 4}}},
    {TENSOR_F16, TENSOR_F16, 1, 2, 16, 16, 40, 0, true, false, 2, {{1100, 3}, {0, 20}}},
    {TENSOR_F16, TENSOR_Q8_0, 1, 20, 40, 20, 0, 0, true, false, 1, {{5, 2}}},
    {TENSOR_F16, TENSOR_F16, 2, 2, 32, 32, 0, 0, false, true, 2, {{0, 17}, {0, 6}}},
    {TENSOR_Q8_0, TENSOR_F16, 1, 6, 576, 512, 0, 0, false, false, 1, {{33, 2}}},
    {TENSOR_Q4_0, TENSOR_F32, 1, 1, 50, 48, 3, 20.0f, false, false, 1, {{510, 8}}},
};

static void test_pages_and_attention(void **state)
{
    uint64_t seed = 99;

    (void)state;
    for (uint32_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
        struct problem p;

        problem_init(&p, &shapes[i], &seed);
        check_write(&p, i % 3 == 2 ? 0 : shapes[i].k_dim / 4 * 2, i % 2, i % 4 > 1, &seed);
        check_attention(&p);
        problem_done(&p);
    }
}

/* Blocks of zeros of both signs, of what a half float can't hold, and of NaN. */
static void test_odd_values_are_written_as_the_cpu_does(void **state)
{
    static const enum tensor_type types[] = {TENSOR_F16, TENSOR_Q8_0, TENSOR_Q4_0};
    uint64_t seed = 12;

    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        struct shape s = {.k_type = types[i], .v_type = types[i], .n_kv_heads = 1, .group = 1, .k_dim = 160, .v_dim = 150,
                          .n_runs = 1, .runs = {{0, 2}}};
        struct problem p;

        problem_init(&p, &s, &seed);
        for (uint32_t j = 0; j < 32; j++) {
            p.k[j] = -0.0f;
            p.k[32 + j] = j % 2 ? 0.0f : -0.0f;
            p.k[64 + j] *= 3e4f;
            p.k[96 + j] *= 1e-8f;
            p.v[j] = j % 3 ? 0.0f : -0.0f;
            p.v[32 + j] = -1.0f;
        }
        p.k[130] = 65505.0f;
        p.v[70] = types[i] == TENSOR_F16 ? 1.0f : __builtin_nanf("");
        check_write(&p, 0, false, false, &seed);
        problem_done(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages_and_attention),
        cmocka_unit_test(test_odd_values_are_written_as_the_cpu_does),
    };

    kernels_select(0, &scalar);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
