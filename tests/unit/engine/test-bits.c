/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The rule of sums, through the whole engine: a sequence's logits have the same bits in any chunks, in any
 * company, on any number of threads, after any history of its pages, and for integer weights with any
 * instruction set.
 *
 * Sequences run over several pages (32 tokens) and, in two cases, over several segments (512 keys).
 */
#include "engine/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "engine/kernels/dequantise.h"
#include "engine/kernels/kernels.h"
#include "tests/model-writer/random_blocks.h"
#include "tests/unit/engine/feed.h"
#include "tests/unit/engine/models.h"

/* A type for each activation format and for both ways of writing a block, and the float types. */
static const enum tensor_type types[] = {TENSOR_F32,  TENSOR_F16,  TENSOR_BF16, TENSOR_Q8_0,
                                         TENSOR_Q4_1, TENSOR_Q4_K, TENSOR_Q6_K};

#define N_TYPES (sizeof(types) / sizeof(*types))

/* Rows of 256 and 512 values, so that blocks of 256 fit; quick enough for hundreds of steps. */
static struct model_shape small(enum tensor_type type)
{
    struct model_shape s = models_deep();

    s.n_layers = 1;
    s.dim = 256;
    s.ff = 512;
    s.head_dim = 32;
    s.type = type;
    return s;
}

static float *floats_new(size_t n)
{
    float *p = calloc(n, sizeof(*p));

    assert_non_null(p);
    return p;
}

static void assert_same(const char *what, uint32_t number, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof(*a)) != 0)
            fail_msg("%s %u: value %zu is %.9g, expected %.9g", what, number, i, (double)a[i], (double)b[i]);
}

static void chunks_of_any_size(void **state)
{
    enum { N = 80 };
    static const uint32_t chunks[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 79};

    for (size_t t = 0; t < N_TYPES; t++) {
        struct model_shape shape = small(types[t]);
        struct engine_config config = models_config(1, N);
        _cleanup_engine_ struct engine *e = models_open(&shape, &config);
        _cleanup_free_ int32_t *tokens = models_tokens(t, N, shape.n_vocab);
        size_t n = (size_t)N * shape.n_vocab;
        _cleanup_free_ float *whole = floats_new(n), *other = floats_new(n);

        feed_new(e, tokens, N, N, whole);
        for (size_t i = 0; i < sizeof(chunks) / sizeof(*chunks); i++) {
            feed_new(e, tokens, N, chunks[i], other);
            assert_same("chunks of", chunks[i], other, whole, n);
        }
    }
}

static void chunks_across_segments(void **state)
{
    enum { N = 1100 };
    struct model_shape shape = models_deep();
    struct engine_config config = models_config(1, 512);
    _cleanup_engine_ struct engine *e = models_open(&shape, &config);
    _cleanup_free_ int32_t *tokens = models_tokens(1, N, shape.n_vocab);
    size_t n = (size_t)N * shape.n_vocab;
    _cleanup_free_ float *whole = floats_new(n), *other = floats_new(n);
    static const uint32_t chunks[] = {511, 100, 33};

    feed_new(e, tokens, N, 512, whole);
    for (size_t i = 0; i < sizeof(chunks) / sizeof(*chunks); i++) {
        feed_new(e, tokens, N, chunks[i], other);
        assert_same("chunks of", chunks[i], other, whole, n);
    }
    assert_int_equal(engine_threads_set(e, 3), 0);
    feed_new(e, tokens, N, 290, other);
    assert_same("threads", 3, other, whole, n);
}

static void threads_of_any_number(void **state)
{
    enum { N = 70 };

    for (size_t t = 0; t < N_TYPES; t++) {
        struct model_shape shape = small(types[t]);
        struct engine_config config = models_config(1, N);
        _cleanup_engine_ struct engine *e = models_open(&shape, &config);
        _cleanup_free_ int32_t *tokens = models_tokens(t, N, shape.n_vocab);
        size_t n = (size_t)N * shape.n_vocab;
        _cleanup_free_ float *alone = floats_new(n), *other = floats_new(n);

        feed_new(e, tokens, N, N, alone);
        for (uint32_t threads = 2; threads <= 4; threads++) {
            assert_int_equal(engine_threads_set(e, threads), 0);
            feed_new(e, tokens, N, N, other);
            assert_same("threads", threads, other, alone, n);
            feed_new(e, tokens, 3, 1, other);
            assert_same("threads, token by token", threads, other, alone, (size_t)3 * shape.n_vocab);
        }
    }
}

/*
 * Sequences of different lengths that advance together by random shares, in steps whose tokens are
 * interleaved between sequences: each has to get what it gets alone.
 */
static void company_of_any_kind(void **state)
{
    enum { SEQUENCES = 9, LONGEST = 90, BATCH = 48 };

    for (size_t t = 0; t < N_TYPES; t++) {
        struct model_shape shape = small(types[t]);
        struct engine_config config = models_config(SEQUENCES, LONGEST);
        _cleanup_engine_ struct engine *e = models_open(&shape, &config);
        int32_t *tokens[SEQUENCES];
        float *alone[SEQUENCES];
        uint32_t lengths[SEQUENCES], numbers[SEQUENCES], fed[SEQUENCES] = {0};
        uint64_t seed = 17 + t;
        uint32_t left = 0;

        for (uint32_t s = 0; s < SEQUENCES; s++) {
            lengths[s] = 1 + s * (LONGEST - 1) / (SEQUENCES - 1);
            left += lengths[s];
            tokens[s] = models_tokens(100 + s, lengths[s], shape.n_vocab);
            alone[s] = floats_new((size_t)lengths[s] * shape.n_vocab);
            feed_new(e, tokens[s], lengths[s], lengths[s], alone[s]);
        }
        for (uint32_t s = 0; s < SEQUENCES; s++)
            assert_int_equal(engine_sequence_open(e, &numbers[s]), 0);
        while (left) {
            int32_t ids[BATCH];
            uint32_t sequences[BATCH], positions[BATCH], who[BATCH], n = 0,
                                                                     size = 1 + random_next(&seed) % BATCH;
            uint8_t wants[BATCH];
            const float *logits;

            while (n < size && n < left) {
                uint32_t s = random_next(&seed) % SEQUENCES;

                if (fed[s] == lengths[s])
                    continue;
                ids[n] = tokens[s][fed[s]];
                sequences[n] = numbers[s];
                wants[n] = random_next(&seed) % 4 != 0;
                who[n] = s;
                positions[n++] = fed[s]++;
            }
            left -= n;
            assert_int_equal(engine_step(e,
                                         &(struct engine_batch){.n_tokens = n,
                                                                .tokens = ids,
                                                                .sequences = sequences,
                                                                .positions = positions,
                                                                .wants_logits = wants},
                                         &logits, NULL),
                             0);
            for (uint32_t i = 0, row = 0; i < n; i++) {
                if (!wants[i])
                    continue;
                assert_same(tensor_traits(types[t])->name, who[i], logits + (size_t)row++ * shape.n_vocab,
                            alone[who[i]] + (size_t)positions[i] * shape.n_vocab, shape.n_vocab);
            }
        }
        for (uint32_t s = 0; s < SEQUENCES; s++) {
            free(tokens[s]);
            free(alone[s]);
        }
    }
}

/* N users who each add one token a step: the shape of decoding, for every number of tokens that kernels tell
 * apart. */
static void decoding_beside_others(void **state)
{
    enum { USERS = 20, PROMPT = 5 };

    for (size_t t = 0; t < N_TYPES; t++) {
        struct model_shape shape = small(types[t]);
        struct engine_config config = models_config(USERS, USERS);
        _cleanup_engine_ struct engine *e = models_open(&shape, &config);
        _cleanup_free_ int32_t *tokens = models_tokens(t, PROMPT + 1, shape.n_vocab);
        _cleanup_free_ float *alone = floats_new((size_t)(PROMPT + 1) * shape.n_vocab);
        const float *expected = alone + (size_t)PROMPT * shape.n_vocab;

        feed_new(e, tokens, PROMPT + 1, PROMPT + 1, alone);
        for (uint32_t users = 1; users <= USERS; users++) {
            uint32_t sequences[USERS], positions[USERS];
            int32_t ids[USERS];
            uint8_t wants[USERS];
            const float *logits;

            for (uint32_t s = 0; s < users; s++) {
                assert_int_equal(engine_sequence_open(e, &sequences[s]), 0);
                feed_tokens(e, sequences[s], tokens, PROMPT, PROMPT, NULL);
                ids[s] = tokens[PROMPT];
                positions[s] = PROMPT;
                wants[s] = 1;
            }
            assert_int_equal(engine_step(e,
                                         &(struct engine_batch){.n_tokens = users,
                                                                .tokens = ids,
                                                                .sequences = sequences,
                                                                .positions = positions,
                                                                .wants_logits = wants},
                                         &logits, NULL),
                             0);
            for (uint32_t s = 0; s < users; s++) {
                assert_same("users", users, logits + (size_t)s * shape.n_vocab, expected, shape.n_vocab);
                engine_sequence_close(e, sequences[s]);
            }
        }
    }
}

static void caches_of_f16(void **state)
{
    enum { N = 80 };
    struct model_shape shape = small(TENSOR_Q8_0);
    struct engine_config config = models_config(1, N);
    _cleanup_free_ int32_t *tokens = models_tokens(2, N, shape.n_vocab);
    size_t n = (size_t)N * shape.n_vocab;
    _cleanup_free_ float *whole = floats_new(n), *other = floats_new(n);
    _cleanup_engine_ struct engine *e = NULL;

    config.k_type = config.v_type = TENSOR_F16;
    e = models_open(&shape, &config);
    feed_new(e, tokens, N, N, whole);
    for (uint32_t chunk = 1; chunk < N; chunk += 13) {
        feed_new(e, tokens, N, chunk, other);
        assert_same("chunks of", chunk, other, whole, n);
    }
}

/* A case for each step of the instruction sets: the state is its name. What the machine lacks is skipped. */
static void instruction_sets_give_the_same(void **state)
{
    enum { N = 40 };
    uint32_t mask;

    assert_int_equal(kernels_isa_parse(*state, &mask), 0);
    if (mask & ~kernels_isa_detect())
        skip();
    for (size_t t = 0; t < N_TYPES; t++) {
        struct model_shape shape = small(types[t]);
        struct engine_config config = models_config(1, N);
        _cleanup_free_ int32_t *tokens = models_tokens(t, N, shape.n_vocab);
        size_t n = (size_t)N * shape.n_vocab;
        _cleanup_free_ float *expected = floats_new(n), *other = floats_new(n);
        _cleanup_engine_ struct engine *scalar = NULL, *e = NULL;

        config.isa_mask = 0;
        scalar = models_open(&shape, &config);
        config.isa_mask = mask;
        e = models_open(&shape, &config);
        feed_new(scalar, tokens, N, N, expected);
        feed_new(e, tokens, N, N, other);
        assert_same(*state, (uint32_t)types[t], other, expected, n);
        feed_new(e, tokens, N, 1, other);
        assert_same(*state, (uint32_t)types[t], other, expected, n);
    }
}

/* Pages come back dirty from whoever had them before; nothing of that may be seen. */
static void pages_of_others_leave_nothing(void **state)
{
    enum { N = 75 };
    struct model_shape shape = small(TENSOR_F32);
    struct engine_config config = models_config(4, N);
    _cleanup_engine_ struct engine *e = models_open(&shape, &config);
    _cleanup_free_ int32_t *tokens = models_tokens(1, N, shape.n_vocab),
                           *others = models_tokens(2, N, shape.n_vocab);
    size_t n = (size_t)N * shape.n_vocab;
    _cleanup_free_ float *first = floats_new(n), *again = floats_new(n);
    uint32_t a, b;

    feed_new(e, tokens, N, N, first);
    for (uint32_t round = 0; round < 6; round++) {
        assert_int_equal(engine_sequence_open(e, &a), 0);
        assert_int_equal(engine_sequence_open(e, &b), 0);
        feed_tokens(e, a, others, N, N, NULL);
        feed_tokens(e, b, others, N - 10 * round, 20, NULL);
        engine_sequence_close(e, a);
        feed_new(e, tokens, N, 11 + round, again);
        assert_same("round", round, again, first, n);
        engine_sequence_close(e, b);
    }
    assert_int_equal(engine_pages_free(e), 4 * 128);
}

static void truncated_sequences_go_on_as_if_new(void **state)
{
    enum { N = 75 };
    struct model_shape shape = small(TENSOR_F32);
    struct engine_config config = models_config(2, N);
    _cleanup_engine_ struct engine *e = models_open(&shape, &config);
    _cleanup_free_ int32_t *tokens = models_tokens(1, N, shape.n_vocab),
                           *others = models_tokens(2, N, shape.n_vocab);
    size_t n = (size_t)N * shape.n_vocab;
    _cleanup_free_ float *expected = floats_new(n), *got = floats_new(n);
    static const uint32_t keeps[] = {0, 1, 31, 32, 33, 63, 64, 65, 74};
    uint32_t s;

    feed_new(e, tokens, N, N, expected);
    for (size_t i = 0; i < sizeof(keeps) / sizeof(*keeps); i++) {
        uint32_t keep = keeps[i];

        assert_int_equal(engine_sequence_open(e, &s), 0);
        feed_tokens(e, s, tokens, keep, N, NULL);
        feed_tokens(e, s, others, N - keep, N, NULL);
        assert_int_equal(engine_sequence_truncate(e, s, keep), 0);
        assert_int_equal(engine_sequence_length(e, s), keep);
        assert_int_equal(engine_sequence_pages(e, s), (keep + 31) / 32);
        feed_tokens(e, s, tokens + keep, N - keep, 9, got);
        assert_same("kept", keep, got, expected + (size_t)keep * shape.n_vocab,
                    (size_t)(N - keep) * shape.n_vocab);
        engine_sequence_close(e, s);
    }
}

/* A fork and its source go on differently; neither sees the other. */
static void forks_part_company(void **state)
{
    enum { N = 75 };
    struct model_shape shape = small(TENSOR_F32);
    struct engine_config config = models_config(3, N);
    _cleanup_engine_ struct engine *e = models_open(&shape, &config);
    _cleanup_free_ int32_t *one = models_tokens(1, N, shape.n_vocab),
                           *two = models_tokens(1, N, shape.n_vocab);
    _cleanup_free_ int32_t *noise = models_tokens(3, N, shape.n_vocab);
    size_t n = (size_t)N * shape.n_vocab, row = shape.n_vocab;
    _cleanup_free_ float *of_one = floats_new(n), *of_two = floats_new(n), *got = floats_new(n);
    static const uint32_t shared[] = {0, 1, 31, 32, 33, 64, 70};

    for (size_t i = 0; i < sizeof(shared) / sizeof(*shared); i++) {
        uint32_t keep = shared[i], source, fork, middle = (N + keep) / 2;

        memcpy(two, one, N * sizeof(*two));
        memcpy(two + keep, noise, (N - keep) * sizeof(*two));
        feed_new(e, one, N, N, of_one);
        feed_new(e, two, N, N, of_two);

        assert_int_equal(engine_sequence_open(e, &source), 0);
        feed_tokens(e, source, one, middle, N, NULL);
        assert_int_equal(engine_sequence_fork(e, source, keep, &fork), 0);
        assert_int_equal(engine_sequence_length(e, fork), keep);
        feed_tokens(e, fork, two + keep, middle - keep, 5, got);
        assert_same("fork at", keep, got, of_two + keep * row, (middle - keep) * row);
        feed_tokens(e, source, one + middle, N - middle, 7, got);
        assert_same("source of a fork at", keep, got, of_one + middle * row, (N - middle) * row);
        /* The source ends first; what they shared stays. */
        engine_sequence_close(e, source);
        feed_tokens(e, fork, two + middle, N - middle, N, got);
        assert_same("fork at", keep, got, of_two + middle * row, (N - middle) * row);
        engine_sequence_close(e, fork);
        assert_int_equal(engine_pages_free(e), 3 * 128);
    }
}

#define ISA_TEST(id, step)                                                                          \
    {                                                                                               \
        .name = "instruction_sets_give_the_same_" #id, .test_func = instruction_sets_give_the_same, \
        .initial_state = (void *)(uintptr_t)(step)                                                  \
    }

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_of_any_size),
        cmocka_unit_test(chunks_across_segments),
        cmocka_unit_test(threads_of_any_number),
        cmocka_unit_test(company_of_any_kind),
        cmocka_unit_test(decoding_beside_others),
        cmocka_unit_test(caches_of_f16),
        ISA_TEST(avx2, "avx2"),
        ISA_TEST(avx_vnni, "avx-vnni"),
        ISA_TEST(avx512f, "avx512f"),
        ISA_TEST(avx512_vnni, "avx512-vnni"),
        ISA_TEST(avx512_bf16, "avx512-bf16"),
        cmocka_unit_test(pages_of_others_leave_nothing),
        cmocka_unit_test(truncated_sequences_go_on_as_if_new),
        cmocka_unit_test(forks_part_company),
    };

    return cmocka_run_group_tests_name("bits", tests, NULL, NULL);
}
