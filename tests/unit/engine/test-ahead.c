/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Weights that are read ahead of the operation that needs them: which stay, and that nothing else changes. */
#include "engine/cpu/ahead.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "base/memlock.h"
#include "tests/unit/engine/feed.h"
#include "tests/unit/engine/models.h"

#define OPS 40

/* One product of @n_bytes for each operation. */
static void graph_of(struct graph *g, uint64_t n_bytes)
{
    graph_init(g);
    for (size_t i = 0; i < OPS; i++) {
        struct graph_op op = {.type = GRAPH_LINEAR, .linear = {.n_parts = 1}};

        op.linear.parts[0].weight.n_rows = 1;
        op.linear.parts[0].weight.row_bytes = n_bytes;
        assert_int_equal(graph_add(g, &op), 0);
    }
}

static void keeps_an_even_mixture(void **state)
{
    struct ahead_piece *pieces;
    uint64_t window, stays = 0;
    struct graph g;
    size_t n, in_a_row = 0;

    graph_of(&g, 1000);
    /* A quarter of 24,000 is for what is read. */
    assert_int_equal(ahead_plan(&g, 24000, &pieces, &n, &window), 0);
    assert_int_equal(n, OPS);
    assert_int_equal(window, 6000);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(pieces[i].i_op, i);
        stays += pieces[i].stays ? pieces[i].n_bytes : 0;
        in_a_row = pieces[i].stays ? 0 : in_a_row + 1;
        assert_true(in_a_row <= 2); /* 18 of 40 stay */
    }
    assert_int_equal(stays, 18000);
    free(pieces);
    graph_done(&g);
}

static void keeps_everything_that_fits(void **state)
{
    struct ahead_piece *pieces;
    struct graph g;
    uint64_t window;
    size_t n;

    graph_of(&g, 1000);
    assert_int_equal(ahead_plan(&g, 40000, &pieces, &n, &window), 0);
    for (size_t i = 0; i < n; i++)
        assert_true(pieces[i].stays);
    free(pieces);
    graph_done(&g);
}

static void says_how_little_is_too_little(void **state)
{
    struct ahead_piece *pieces;
    struct graph g;
    uint64_t window;
    size_t n;

    graph_of(&g, 1000);
    assert_int_equal(ahead_plan(&g, 1999, &pieces, &n, &window), -ENOSPC);
    assert_int_equal(window, 2000);
    assert_int_equal(ahead_plan(&g, 2000, &pieces, &n, &window), 0);
    for (size_t i = 0; i < n; i++)
        assert_false(pieces[i].stays);
    free(pieces);
    graph_done(&g);
}

static void computes_the_same(void **state)
{
    enum { N = 40 };
    static const uint32_t threads[] = {1, 3};
    struct model_shape shape = models_deep();
    struct engine_config config = models_config(1, N);
    _cleanup_engine_ struct engine *whole = models_open(&shape, &config);
    _cleanup_free_ int32_t *tokens = models_tokens(1, N, shape.n_vocab);
    size_t n = (size_t)N * shape.n_vocab;
    _cleanup_free_ float *expected = calloc(n, sizeof(float)), *got = calloc(n, sizeof(float));
    struct engine_facts facts;

    assert_non_null(expected);
    assert_non_null(got);
    feed_new(whole, tokens, N, N, expected);
    engine_facts(whole, &facts);
    for (size_t i = 0; i < 2; i++) {
        _cleanup_engine_ struct engine *e = NULL;

        config = models_config(1, N);
        config.n_threads = threads[i];
        config.weights_bytes_max = facts.bytes_weights / 2;
        e = models_open(&shape, &config);
        /* The way round many times, in chunks that end anywhere. */
        for (uint32_t chunk = 1; chunk <= N; chunk += 13) {
            feed_new(e, tokens, N, chunk, got);
            assert_memory_equal(got, expected, n * sizeof(float));
        }
    }
}

static bool may_lock(size_t n_bytes)
{
    void *at = mmap(NULL, n_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool may = at != MAP_FAILED && memlock(at, n_bytes) == 0;

    munmap(at, n_bytes);
    return may;
}

/* From room for hardly more than one token's experts of one layer to room for most of them. */
static void experts_come_and_go(void **state)
{
    enum { N = 40 };
    struct model_shape shape = models_deep();
    struct engine_config config = models_config(1, N);
    _cleanup_engine_ struct engine *whole = NULL;
    _cleanup_free_ int32_t *tokens = models_tokens(1, N, shape.n_vocab);
    size_t n = (size_t)N * shape.n_vocab;
    _cleanup_free_ float *expected = calloc(n, sizeof(float)), *got = calloc(n, sizeof(float));
    struct engine_facts facts;

    assert_non_null(expected);
    assert_non_null(got);
    shape.architecture = "qwen3moe";
    shape.n_experts = 16;
    shape.n_experts_used = 3;
    shape.expert_ff = 512;
    whole = models_open(&shape, &config);
    feed_new(whole, tokens, N, N, expected);
    engine_facts(whole, &facts);
    for (uint64_t part = 3; part <= 10; part++) {
        _cleanup_engine_ struct engine *e = NULL;

        config = models_config(1, N);
        config.n_threads = 1 + (uint32_t)part % 3;
        config.lock = may_lock(facts.bytes_weights);
        config.weights_bytes_max = facts.bytes_weights * part / 10;
        e = models_open(&shape, &config);
        for (uint32_t chunk = 1; chunk <= N; chunk += 13) {
            struct engine_facts now;

            feed_new(e, tokens, N, chunk, got);
            assert_memory_equal(got, expected, n * sizeof(float));
            engine_facts(e, &now);
            assert_true(now.bytes_locked <= config.weights_bytes_max);
            assert_int_equal(now.bytes_locked > 0, config.lock);
        }
    }
}

static void goes_on_after_a_cancelled_step(void **state)
{
    enum { N = 8 };
    struct model_shape shape = models_deep();
    struct engine_config config = models_config(1, N);
    _cleanup_engine_ struct engine *e = NULL;
    _cleanup_free_ int32_t *tokens = models_tokens(1, N, shape.n_vocab);
    size_t n = (size_t)N * shape.n_vocab;
    _cleanup_free_ float *expected = calloc(n, sizeof(float)), *got = calloc(n, sizeof(float));
    const float *logits;
    uint32_t sequence;

    assert_non_null(expected);
    assert_non_null(got);
    config.weights_bytes_max = 1 << 20;
    e = models_open(&shape, &config);
    feed_new(e, tokens, N, N, expected);
    assert_int_equal(engine_sequence_open(e, &sequence), 0);
    for (int i = 0; i < 5; i++) {
        engine_cancel(e);
        assert_int_equal(feed_step(e, sequence, tokens, N, &logits), ENGINE_CANCELLED);
    }
    assert_int_equal(engine_sequence_close(e, sequence), 0);
    feed_new(e, tokens, N, N, got);
    assert_memory_equal(got, expected, n * sizeof(float));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_an_even_mixture),
        cmocka_unit_test(keeps_everything_that_fits),
        cmocka_unit_test(says_how_little_is_too_little),
        cmocka_unit_test(computes_the_same),
        cmocka_unit_test(experts_come_and_go),
        cmocka_unit_test(goes_on_after_a_cancelled_step),
    };

    return cmocka_run_group_tests_name("ahead", tests, NULL, NULL);
}
