/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Layers that see a window keep its pages and no others; what can still be taken back or shared then; and the pool that
 * is sized for that.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "tests/plain/plain.h"
#include "tests/unit/arch/models.h"

enum { WINDOW = 40, CONTEXT = 1024, BATCH = 64, SEQUENCES = 4, N_VOCAB = 512, N = 300 };

/* All layers windowed ("llama"), or every other one ("gemma2"). */
static struct engine *open_model(const char *architecture)
{
    struct engine_config config = models_config();
    struct model_shape shape = model_shape_default();

    shape.architecture = architecture;
    shape.window = WINDOW;
    shape.context = CONTEXT;
    shape.dim = 64;
    shape.ff = 96;
    shape.n_heads = 4;
    config.sequences_max = SEQUENCES;
    config.batch_tokens_max = config.outputs_max = BATCH;
    return models_open(&shape, &config);
}

/* Feeds tokens [from, to) in steps of @chunk; their logits to @ret + from * N_VOCAB, unless that is NULL. */
static void feed(struct engine *e, uint32_t sequence, const int32_t *tokens, uint32_t from, uint32_t to,
                 uint32_t chunk, float *ret)
{
    for (uint32_t n; from < to; from += n) {
        const float *logits;

        n = to - from < chunk ? to - from : chunk;
        logits = models_feed(e, sequence, tokens + from, n, ret ? n : 0);
        if (ret)
            memcpy(ret + (size_t)from * N_VOCAB, logits, (size_t)n * N_VOCAB * sizeof(*ret));
    }
}

static uint32_t open_sequence(struct engine *e)
{
    uint32_t sequence;

    assert_int_equal(engine_sequence_open(e, &sequence), 0);
    return sequence;
}

static void a_long_text_is_as_if_nothing_were_given_back(void **state)
{
    static const char *const architectures[] = {"llama", "gemma2"};

    for (size_t i = 0; i < 2; i++) {
        struct engine *e = open_model(architectures[i]);
        _cleanup_free_ double *expected = calloc((size_t)N * N_VOCAB, sizeof(*expected));
        _cleanup_free_ float *a = calloc((size_t)N * N_VOCAB, sizeof(*a)), *b = calloc((size_t)N * N_VOCAB, sizeof(*b));
        const struct plain_options options = {0};
        uint32_t sequence = open_sequence(e);
        int32_t tokens[N];

        assert_true(a && b && expected);
        models_tokens(tokens, N, N_VOCAB, 11);
        feed(e, sequence, tokens, 0, N, BATCH, a);
        plain_logits(engine_gguf(e), &options, tokens, N, expected);
        for (size_t k = 0; k < (size_t)N * N_VOCAB; k++)
            if (!(fabs((double)a[k] - expected[k]) < 1e-4))
                fail_msg("%s: position %zu: %g, expected %g", architectures[i], k / N_VOCAB, (double)a[k], expected[k]);
        assert_int_equal(engine_sequence_truncate(e, sequence, 0), 0);
        feed(e, sequence, tokens, 0, 150, 7, b);
        feed(e, sequence, tokens, 150, N, 1, b);
        assert_memory_equal(a, b, (size_t)N * N_VOCAB * sizeof(*a));
        engine_free(e);
    }
}

/* With all layers windowed, the sequence's pages are those of the windowed group. */
static void pages_before_the_window_are_given_back(void **state)
{
    struct engine *e = open_model("llama");
    uint32_t sequence = open_sequence(e);
    int32_t tokens[N];

    models_tokens(tokens, N, N_VOCAB, 12);
    feed(e, sequence, tokens, 0, 128, BATCH, NULL);
    /* The step of tokens 64 … 127 began with a window over 25 … 64: nothing was before it. */
    assert_int_equal(engine_sequence_pages(e, sequence), 4);
    feed(e, sequence, tokens, 128, 129, 1, NULL);
    /* Token 128 sees 89 … 128: pages 0 and 1 are gone, 2, 3 and 4 are held. */
    assert_int_equal(engine_sequence_pages(e, sequence), 3);
    feed(e, sequence, tokens, 129, 136, 1, NULL);
    /* Token 135 sees 96 … 135: so is page 2. */
    assert_int_equal(engine_sequence_pages(e, sequence), 2);
    assert_int_equal(engine_sequence_close(e, sequence), 0);
    assert_int_equal(engine_sequence_pages(e, open_sequence(e)), 0);
    engine_free(e);
}

static void what_is_gone_can_not_be_cut_back_to(void **state)
{
    struct engine *e = open_model("gemma2");
    uint32_t sequence = open_sequence(e), other;
    _cleanup_free_ float *a = calloc((size_t)N * N_VOCAB, sizeof(*a)), *b = calloc((size_t)N * N_VOCAB, sizeof(*b));
    int32_t tokens[N];

    assert_true(a && b);
    models_tokens(tokens, N, N_VOCAB, 13);
    feed(e, sequence, tokens, 0, 200, 50, a);
    assert_int_equal(engine_sequence_reach(e, sequence), 96 + WINDOW - 1);
    feed(e, sequence, tokens, 200, N, BATCH, a);
    /* The step of token 264 … 299 began with a window over 225 … 264: seven pages are gone. */
    assert_int_equal(engine_sequence_reach(e, sequence), 224 + WINDOW - 1);
    assert_int_equal(engine_sequence_truncate(e, sequence, 262), ENGINE_WINDOW_GONE);
    assert_int_equal(engine_sequence_fork(e, sequence, 262, &other), ENGINE_WINDOW_GONE);
    assert_int_equal(engine_sequence_length(e, sequence), N);
    assert_int_equal(engine_sequence_fork(e, sequence, 0, &other), 0);
    assert_int_equal(engine_sequence_close(e, other), 0);

    /* Where it reaches, a fork and the sequence itself go on with the same bits. */
    assert_int_equal(engine_sequence_fork(e, sequence, 263, &other), 0);
    assert_int_equal(engine_sequence_truncate(e, sequence, 264), 0);
    feed(e, other, tokens, 263, N, 5, b);
    assert_memory_equal(a + 263 * N_VOCAB, b + 263 * N_VOCAB, (N - 263) * N_VOCAB * sizeof(*a));
    memset(b, 0, (size_t)N * N_VOCAB * sizeof(*b));
    feed(e, sequence, tokens, 264, N, 3, b);
    assert_memory_equal(a + 264 * N_VOCAB, b + 264 * N_VOCAB, (N - 264) * N_VOCAB * sizeof(*a));
    assert_int_equal(engine_sequence_truncate(e, sequence, 0), 0);
    assert_int_equal(engine_sequence_reach(e, sequence), 0);
    feed(e, sequence, tokens, 0, N, BATCH, b);
    assert_memory_equal(a, b, (size_t)N * N_VOCAB * sizeof(*a));
    engine_free(e);
}

/* Drafts that are taken back, to anywhere from where their step began. */
static void a_step_can_be_taken_back_until_the_next_one(void **state)
{
    struct engine *e = open_model("gemma2");
    uint32_t sequence = open_sequence(e);
    _cleanup_free_ float *a = calloc((size_t)N * N_VOCAB, sizeof(*a)), *b = calloc((size_t)N * N_VOCAB, sizeof(*b));
    int32_t tokens[N], drafts[N];

    assert_true(a && b);
    models_tokens(tokens, N, N_VOCAB, 14);
    models_tokens(drafts, N, N_VOCAB, 15);
    feed(e, sequence, tokens, 0, N, BATCH, a);
    assert_int_equal(engine_sequence_truncate(e, sequence, 0), 0);
    for (uint32_t at = 0; at < N;) {
        uint32_t n = at + 1 + at % 9, past = n < N ? n : N;

        feed(e, sequence, drafts, at, at + 16 < N ? at + 16 : N, 16, NULL);
        assert_int_equal(engine_sequence_truncate(e, sequence, at), 0);
        feed(e, sequence, tokens, at, past, 16, b);
        at = past;
    }
    assert_memory_equal(a, b, (size_t)N * N_VOCAB * sizeof(*a));
    engine_free(e);
}

/* All sequences to the end of the context, forks among them: the windowed pool is never short. */
static void the_pool_of_windows_is_enough(void **state)
{
    struct engine *e = open_model("llama");
    struct engine_facts facts;
    _cleanup_free_ int32_t *tokens = calloc(CONTEXT, sizeof(*tokens));
    uint32_t sequences[SEQUENCES];

    assert_non_null(tokens);
    engine_facts(e, &facts);
    assert_int_equal(facts.bytes_kv, (((WINDOW + 29) / 32 + 2) * SEQUENCES + BATCH / 32) * facts.bytes_kv_page);
    models_tokens(tokens, CONTEXT, N_VOCAB, 16);
    for (uint32_t i = 0; i + 1 < SEQUENCES; i++)
        sequences[i] = open_sequence(e);
    for (uint32_t at = 0, n = 61; at < CONTEXT; at += n) {
        n = CONTEXT - at < n ? CONTEXT - at : n;
        for (uint32_t i = 0; i + 1 < SEQUENCES; i++) {
            feed(e, sequences[i], tokens, at, at + n, BATCH, NULL);
            assert_int_equal(engine_sequence_fork(e, sequences[i], at + n, &sequences[SEQUENCES - 1]), 0);
            if (at + n + BATCH <= CONTEXT)
                feed(e, sequences[SEQUENCES - 1], tokens, at + n, at + n + BATCH, BATCH, NULL);
            assert_int_equal(engine_sequence_close(e, sequences[SEQUENCES - 1]), 0);
        }
    }
    for (uint32_t i = 0; i + 1 < SEQUENCES; i++)
        assert_int_equal(engine_sequence_close(e, sequences[i]), 0);
    engine_free(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_long_text_is_as_if_nothing_were_given_back),
        cmocka_unit_test(pages_before_the_window_are_given_back),
        cmocka_unit_test(what_is_gone_can_not_be_cut_back_to),
        cmocka_unit_test(a_step_can_be_taken_back_until_the_next_one),
        cmocka_unit_test(the_pool_of_windows_is_enough),
    };

    return cmocka_run_group_tests_name("windows", tests, NULL, NULL);
}
