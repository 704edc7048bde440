/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine_embeddings(): the states that the output matrix turns into logits, for every token that was fed.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/gguf/read.h"
#include "tests/unit/arch/models.h"

enum { N = 24, N_VOCAB = 512, DIM = 256 };

static void feed(struct engine *e, const int32_t *tokens, const uint32_t *sequences, const uint32_t *positions,
                 uint32_t n, bool wants_logits, bool wants_embeddings, const float **ret_logits)
{
    uint8_t wants[N];

    memset(wants, wants_logits, n);
    assert_int_equal(engine_step(e,
                                 &(struct engine_batch){.n_tokens = n,
                                                        .tokens = tokens,
                                                        .sequences = sequences,
                                                        .positions = positions,
                                                        .wants_logits = wants,
                                                        .wants_embeddings = wants_embeddings},
                                 ret_logits, NULL),
                     0);
}

static struct engine *open_model(int32_t *tokens, uint32_t *positions)
{
    struct engine_config config = models_config();
    struct model_shape shape = model_shape_default();
    struct engine *e = models_open(&shape, &config);

    models_tokens(tokens, N, N_VOCAB, 1);
    for (uint32_t i = 0; i < N; i++)
        positions[i] = i;
    return e;
}

static void logits_are_the_output_matrix_times_the_embeddings(void **state)
{
    uint32_t sequences[N] = {0}, positions[N], sequence;
    const float *logits, *embeddings, *output;
    int32_t tokens[N];
    struct engine *e = open_model(tokens, positions);

    assert_int_equal(engine_sequence_open(e, &sequence), 0);
    feed(e, tokens, sequences, positions, N, true, true, &logits);
    embeddings = engine_embeddings(e);
    output = gguf_find_tensor(engine_gguf(e), "output.weight")->data;
    for (uint32_t i = 0; i < N; i++) {
        for (uint32_t v = 0; v < N_VOCAB; v++) {
            double sum = 0;

            for (uint32_t k = 0; k < DIM; k++)
                sum += (double)output[(size_t)v * DIM + k] * (double)embeddings[(size_t)i * DIM + k];
            assert_true(fabs(sum - (double)logits[(size_t)i * N_VOCAB + v]) < 1e-4);
        }
    }
    engine_free(e);
}

/* The same bits without logits, in chunks, and beside another sequence; and the logits are not changed by asking. */
static void embeddings_do_not_depend_on_the_batch(void **state)
{
    uint32_t sequences[N], positions[N], both_sequences[N], both_positions[N], a, b;
    int32_t tokens[N], both_tokens[N];
    struct engine *e = open_model(tokens, positions);
    float *all = malloc(N * DIM * sizeof(float)), *plain = malloc(N * N_VOCAB * sizeof(float));
    const float *logits;

    assert_true(all && plain);
    assert_int_equal(engine_sequence_open(e, &a), 0);
    for (uint32_t i = 0; i < N; i++)
        sequences[i] = a;
    feed(e, tokens, sequences, positions, N, true, false, &logits);
    memcpy(plain, logits, N * N_VOCAB * sizeof(float));
    assert_int_equal(engine_sequence_truncate(e, a, 0), 0);
    feed(e, tokens, sequences, positions, N, true, true, &logits);
    assert_memory_equal(plain, logits, N * N_VOCAB * sizeof(float));
    memcpy(all, engine_embeddings(e), N * DIM * sizeof(float));

    assert_int_equal(engine_sequence_truncate(e, a, 0), 0);
    assert_int_equal(engine_sequence_open(e, &b), 0);
    feed(e, tokens, sequences, positions, 7, false, true, &logits);
    assert_null(logits);
    assert_memory_equal(engine_embeddings(e), all, 7 * DIM * sizeof(float));
    for (uint32_t i = 0; i < 12; i++) {
        bool first = i % 2 == 0;

        both_tokens[i] = tokens[first ? 7 + i / 2 : i / 2];
        both_sequences[i] = first ? a : b;
        both_positions[i] = first ? 7 + i / 2 : i / 2;
    }
    feed(e, both_tokens, both_sequences, both_positions, 12, false, true, &logits);
    for (uint32_t i = 0; i < 12; i++)
        assert_memory_equal(engine_embeddings(e) + i * DIM, all + both_positions[i] * DIM, DIM * sizeof(float));
    free(all);
    free(plain);
    engine_free(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_the_output_matrix_times_the_embeddings),
        cmocka_unit_test(embeddings_do_not_depend_on_the_batch),
    };

    return cmocka_run_group_tests_name("embeddings", tests, NULL, NULL);
}
