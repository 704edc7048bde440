/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Encoders: embeddings against the forward pass in doubles, the same bits in any company, and what a step may hold.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "tests/plain/plain.h"
#include "tests/unit/arch/models.h"

enum { N = 90, DIM = 128, N_VOCAB = 512, CONTEXT = 96 };

static const char *const architectures[] = {"bert", "nomic-bert"};

static struct engine *open_model(const char *architecture, enum tensor_type type)
{
    struct engine_config config = models_config();
    struct model_shape shape = model_shape_default();

    shape.architecture = architecture;
    shape.dim = DIM;
    shape.ff = 256;
    shape.context = CONTEXT;
    shape.type = type;
    shape.seed = 21;
    return models_open(&shape, &config);
}

/* One step of @n_a tokens of sequence 0 and @n_b of sequence 1. */
static int step(struct engine *e, const int32_t *a, uint32_t n_a, const int32_t *b, uint32_t n_b, bool wants_logits)
{
    _cleanup_free_ int32_t *tokens = calloc(n_a + n_b, sizeof(*tokens));
    _cleanup_free_ uint32_t *sequences = calloc(n_a + n_b, sizeof(*sequences));
    _cleanup_free_ uint32_t *positions = calloc(n_a + n_b, sizeof(*positions));
    _cleanup_free_ uint8_t *wants = calloc(n_a + n_b, 1);
    const float *logits;

    assert_true(tokens && sequences && positions && wants);
    for (uint32_t i = 0; i < n_a + n_b; i++) {
        tokens[i] = i < n_a ? a[i] : b[i - n_a];
        sequences[i] = i >= n_a;
        positions[i] = i < n_a ? i : i - n_a;
    }
    wants[0] = wants_logits;
    return engine_step(e,
                       &(struct engine_batch){.n_tokens = n_a + n_b,
                                              .tokens = tokens,
                                              .sequences = sequences,
                                              .positions = positions,
                                              .wants_logits = wants,
                                              .wants_embeddings = true},
                       &logits, NULL);
}

static void open_both(struct engine *e)
{
    uint32_t sequence;

    assert_int_equal(engine_sequence_open(e, &sequence), 0);
    assert_int_equal(engine_sequence_open(e, &sequence), 0);
}

static void clear_both(struct engine *e)
{
    assert_int_equal(engine_sequence_truncate(e, 0, 0), 0);
    assert_int_equal(engine_sequence_truncate(e, 1, 0), 0);
}

static void embeddings_are_those_of_the_plain_pass(void **state)
{
    for (size_t i = 0; i < 4; i++) {
        enum tensor_type type = i < 2 ? TENSOR_F32 : TENSOR_Q8_0;
        struct engine *e = open_model(architectures[i % 2], type);
        const struct plain_options options = {.act_int8 = type == TENSOR_Q8_0};
        _cleanup_free_ double *expected = calloc(N * DIM, sizeof(*expected));
        double most = 0, sum = 0;
        int32_t tokens[N];

        assert_non_null(expected);
        models_tokens(tokens, N, N_VOCAB, 31);
        open_both(e);
        assert_int_equal(step(e, tokens, N, NULL, 0, false), 0);
        plain_embeddings(engine_gguf(e), &options, tokens, N, expected);
        for (size_t k = 0; k < N * DIM; k++) {
            double d = fabs((double)engine_embeddings(e)[k] - expected[k]);

            most = d > most || isnan(d) ? d : most;
            sum += d * d;
        }
        print_message("# %s %s: max %.2g rms %.2g\n", architectures[i % 2], i < 2 ? "f32" : "q8_0", most,
                      sqrt(sum / (N * DIM)));
        assert_true(i < 2 ? most < 2e-5 : sqrt(sum / (N * DIM)) < 0.02);
        engine_free(e);
    }
}

static void bits_do_not_depend_on_company_or_threads(void **state)
{
    for (size_t i = 0; i < 2; i++) {
        struct engine *e = open_model(architectures[i], TENSOR_Q8_0);
        _cleanup_free_ float *a = calloc(N * DIM, sizeof(*a)), *b = calloc(N * DIM, sizeof(*b));
        int32_t tokens[N], others[N];

        assert_true(a && b);
        models_tokens(tokens, N, N_VOCAB, 32);
        models_tokens(others, N, N_VOCAB, 33);
        open_both(e);
        assert_int_equal(step(e, tokens, 41, NULL, 0, false), 0);
        memcpy(a, engine_embeddings(e), 41 * DIM * sizeof(*a));
        clear_both(e);
        assert_int_equal(step(e, others, 7, NULL, 0, false), 0);
        memcpy(b, engine_embeddings(e), 7 * DIM * sizeof(*b));
        for (uint32_t n_threads = 1; n_threads < 4; n_threads++) {
            clear_both(e);
            assert_int_equal(engine_threads_set(e, n_threads), 0);
            assert_int_equal(step(e, others, 7, tokens, 41, false), 0);
            assert_memory_equal(engine_embeddings(e), b, 7 * DIM * sizeof(*b));
            assert_memory_equal(engine_embeddings(e) + 7 * DIM, a, 41 * DIM * sizeof(*a));
        }
        engine_free(e);
    }
}

static void a_step_holds_whole_texts_and_makes_no_logits(void **state)
{
    struct engine *e = open_model("bert", TENSOR_F32);
    struct engine_facts facts;
    int32_t tokens[CONTEXT + 1];

    models_tokens(tokens, CONTEXT + 1, N_VOCAB, 34);
    engine_facts(e, &facts);
    assert_true(facts.is_encoder);
    assert_int_equal(facts.batch_tokens_max, CONTEXT); /* 64 were asked for: the longest text has to fit */
    open_both(e);
    assert_int_equal(step(e, tokens, 5, NULL, 0, true), -EINVAL);
    assert_int_equal(step(e, tokens, CONTEXT + 1, NULL, 0, false), -EINVAL);
    assert_int_equal(step(e, tokens, CONTEXT, NULL, 0, false), 0);
    /* What was fed can't be continued, only begun anew. */
    assert_int_equal(engine_step(e,
                                 &(struct engine_batch){.n_tokens = 1,
                                                        .tokens = tokens,
                                                        .sequences = (const uint32_t[]){0},
                                                        .positions = (const uint32_t[]){5},
                                                        .wants_logits = (const uint8_t[]){0}},
                                 &(const float *){NULL}, NULL),
                     -EINVAL);
    clear_both(e);
    assert_int_equal(step(e, tokens, 5, NULL, 0, false), 0);
    clear_both(e);
    /* Two texts, one of them in two pieces. */
    assert_int_equal(engine_step(e,
                                 &(struct engine_batch){.n_tokens = 3,
                                                        .tokens = tokens,
                                                        .sequences = (const uint32_t[]){0, 1, 0},
                                                        .positions = (const uint32_t[]){0, 0, 1},
                                                        .wants_logits = (const uint8_t[]){0, 0, 0}},
                                 &(const float *){NULL}, NULL),
                     -EINVAL);
    engine_free(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embeddings_are_those_of_the_plain_pass),
        cmocka_unit_test(bits_do_not_depend_on_company_or_threads),
        cmocka_unit_test(a_step_holds_whole_texts_and_makes_no_logits),
    };

    return cmocka_run_group_tests_name("encoders", tests, NULL, NULL);
}
