/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A GPU's memory that is refused, through the test double of libcuda: while a model is loaded that has to have a number
 * of layers there, and in the middle of a step, where it is the driver's own. What comes of it is the answer with the
 * bits that the CPU gives, or an error; and nothing is held afterwards.
 */
#include "engine/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "tests/unit/cuda/counts.h"
#include "tests/unit/engine/feed.h"
#include "tests/unit/engine/models.h"

#define N_TOKENS 34 /* more than a page; few, since emulated threads are slow */
#define N_PROMPT 33
#define N_FORK   20 /* within a page, which is copied then */
#define N_LAYERS 2

static struct model_shape small(void)
{
    struct model_shape s = models_deep();

    s.n_layers = N_LAYERS;
    s.type = TENSOR_Q8_0;
    return s;
}

static int try_open(const struct model_shape *shape, struct engine_config *config, struct engine **ret,
                    struct fault *reterr)
{
    struct model_writer *w = model_writer_new();
    int fd, r;

    model_writer_llama(w, shape);
    fd = model_writer_memfd(w);
    model_writer_free(w);
    config->fds = &fd;
    config->n_fds = 1;
    r = engine_open(config, ret, reterr);
    close(fd);
    return r;
}

static struct engine_config config_of(uint32_t layers)
{
    struct engine_config config = models_config(3, N_TOKENS);

    config.k_type = config.v_type = TENSOR_F16;
    config.kv_tokens = 128;
    config.gpu.layers = layers;
    return config;
}

/* A step of many tokens, then some of one each. */
static float *logits_of(struct engine *e, const int32_t *tokens)
{
    uint32_t n_vocab = feed_n_vocab(e), sequence;
    float *logits = calloc((size_t)N_TOKENS * n_vocab, sizeof(*logits));

    assert_non_null(logits);
    assert_int_equal(engine_sequence_open(e, &sequence), 0);
    feed_tokens(e, sequence, tokens, N_PROMPT, N_PROMPT, logits);
    feed_tokens(e, sequence, tokens + N_PROMPT, N_TOKENS - N_PROMPT, 1, logits + (size_t)N_PROMPT * n_vocab);
    assert_int_equal(engine_sequence_close(e, sequence), 0);
    return logits;
}

static float *expected_of(const struct model_shape *shape, const int32_t *tokens)
{
    struct engine_config config = config_of(0);
    _cleanup_engine_ struct engine *e = models_open(shape, &config);

    return logits_of(e, tokens);
}

static void assert_right(struct engine *e, const int32_t *tokens, const float *expected)
{
    _cleanup_free_ float *logits = logits_of(e, tokens);

    assert_memory_equal(logits, expected, (size_t)N_TOKENS * feed_n_vocab(e) * sizeof(*logits));
}

/* Every allocation in turn, and all from each on: as many layers as have to be there, with less of the rest or not, or
 * the error. */
static void a_number_of_layers_is_there_or_the_model_is_not(void **state)
{
    struct model_shape shape = small();
    _cleanup_free_ int32_t *tokens = models_tokens(3, N_TOKENS, shape.n_vocab);
    _cleanup_free_ float *expected = expected_of(&shape, tokens);
    uint64_t n_allocations = 1;
    uint32_t n_open = 0, n_refused = 0;

    counts_need_double();
    for (uint64_t i = 0; i <= 2 * n_allocations; i++) {
        struct engine_config config = config_of(N_LAYERS);
        struct fault fault = {.kind = FAULT_NONE};
        struct engine_facts facts;
        struct engine *e = NULL;
        int r;

        counts_forget_settings(NULL);
        if (i > 0)
            counts_set_number(i > n_allocations ? "FAKE_CUDA_REFUSE_ALL" : "FAKE_CUDA_REFUSE",
                              i > n_allocations ? i - n_allocations : i);
        config.gpu.exact = true;
        r = try_open(&shape, &config, &e, &fault);
        if (i == 0)
            n_allocations = counts_read().n_allocations;
        if (r == 0) {
            engine_facts(e, &facts);
            assert_int_equal(facts.gpu_layers, N_LAYERS);
            assert_right(e, tokens, expected);
        } else {
            assert_int_equal(r, -ENOMEM);
            assert_int_equal(fault.kind, FAULT_INSUFFICIENT_MEMORY);
        }
        n_open += i > 0 && r == 0;
        n_refused += r != 0;
        engine_free(e);
        counts_assert_none();
    }
    /* One that is refused once has keys and values in RAM; a device without any memory has no layers. */
    assert_true(n_open > 0 && n_refused > 0);
}

/* With less and less room: all as it was wanted, then smaller steps, then keys and values in RAM too, then not at all. */
static void steps_become_smaller_before_keys_leave(void **state)
{
    struct model_shape shape = small();
    _cleanup_free_ int32_t *tokens = models_tokens(3, N_TOKENS, shape.n_vocab);
    _cleanup_free_ float *expected = NULL;
    uint32_t n_all = 0, n_smaller = 0, n_in_ram = 0, n_refused = 0, worst = 0;

    counts_need_double();
    shape.ff = 4096;
    expected = expected_of(&shape, tokens);
    for (uint64_t room = 40; room > 0; room -= 2) {
        struct engine_config config = config_of(N_LAYERS);
        struct fault fault = {.kind = FAULT_NONE};
        struct engine_facts facts = {.gpu_layers = 0};
        _cleanup_engine_ struct engine *e = NULL;
        uint32_t is;
        int r;

        counts_set_number("FAKE_CUDA_VRAM", 128 << 20);
        counts_set_number("FAKE_CUDA_OTHERS", (128 - room) << 20);
        config.batch_tokens_max = 512;
        config.kv_tokens = 4096 * 3;
        config.outputs_max = 64;
        config.gpu.exact = true;
        r = try_open(&shape, &config, &e, &fault);
        if (r != 0) {
            assert_int_equal(fault.kind, FAULT_INSUFFICIENT_MEMORY);
            assert_string_equal(fault.subject, "vram");
            assert_true(fault.used > fault.limit);
            assert_int_equal(fault.limit, room << 20);
            n_refused++;
            worst = 3;
            continue;
        }
        engine_facts(e, &facts);
        assert_int_equal(facts.gpu_layers, N_LAYERS);
        assert_right(e, tokens, expected);
        is = facts.gpus[0].bytes_kv == 0 ? 2 : facts.batch_tokens_max < 512 ? 1 : 0;
        /* It never gets better with less room. */
        assert_true(is >= worst);
        worst = is;
        assert_int_equal(facts.batch_tokens_max, is > 0 ? 64 : 512);
        assert_int_equal(strstr(facts.gpu_reason, "a step takes 64 tokens at most") != NULL, is > 0);
        assert_int_equal(strstr(facts.gpu_reason, "keys and values are in RAM") != NULL, is > 1);
        n_all += is == 0;
        n_smaller += is == 1;
        n_in_ram += is == 2;
    }
    assert_true(n_all > 0 && n_smaller > 0 && n_in_ram > 0 && n_refused > 0);
    counts_assert_none();
}

/* Logits of the prompt's last token and of those behind it, where steps may be refused; returns how many were. */
static uint32_t feed_patiently(struct engine *e, uint32_t sequence, const int32_t *tokens, const float *expected)
{
    uint32_t n_vocab = feed_n_vocab(e), n_full = 0;

    for (uint32_t done = 0, n; done < N_TOKENS; done += n) {
        const float *logits;
        int r;

        n = done == 0 ? N_PROMPT : 1;
        do {
            assert_int_equal(engine_sequence_length(e, sequence), done);
            r = feed_step(e, sequence, tokens + done, n, &logits);
            n_full += r == ENGINE_GPU_FULL;
        } while (r == ENGINE_GPU_FULL && n_full < 3);
        assert_int_equal(r, 0);
        assert_memory_equal(logits, expected + (size_t)done * n_vocab, (size_t)n * n_vocab * sizeof(*logits));
    }
    return n_full;
}

/* Each copy and launch in turn: the step says so, has changed nothing, and is right when it is done again. */
static void a_step_that_is_refused_once(void **state)
{
    struct model_shape shape = small();
    _cleanup_free_ int32_t *tokens = models_tokens(3, N_TOKENS, shape.n_vocab);
    _cleanup_free_ int32_t *others = models_tokens(4, N_TOKENS, shape.n_vocab);
    _cleanup_free_ float *expected = expected_of(&shape, tokens);
    uint64_t n_load = 0, n_work = 0;

    counts_need_double();
    for (uint64_t i = 0; i <= n_work - n_load; i++) {
        struct engine_config config = config_of(ENGINE_LAYERS_ALL);
        _cleanup_engine_ struct engine *e = NULL;
        uint32_t sequence, n_full;

        counts_set_number("FAKE_CUDA_FULL", i == 0 ? 0 : n_load + i);
        e = models_open(&shape, &config);
        if (i == 0)
            n_load = counts_read().n_work;
        /* Pages that somebody else had. */
        assert_int_equal(engine_sequence_open(e, &sequence), 0);
        n_full = feed_step(e, sequence, others, 2, NULL) == ENGINE_GPU_FULL;
        assert_int_equal(engine_sequence_close(e, sequence), 0);
        assert_int_equal(engine_sequence_open(e, &sequence), 0);
        n_full += feed_patiently(e, sequence, tokens, expected);
        if (i == 0)
            n_work = counts_read().n_work;
        assert_int_equal(n_full, i > 0);
        e = engine_free(e);
        counts_assert_none();
    }
    assert_true(n_work > n_load + 50);
}

static void set_full(const char *path, bool full)
{
    if (full)
        close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    else
        unlink(path);
}

/* A sequence that is forked, and one that begins, while every step is refused: their pages are what they should be. */
static void what_happens_to_pages_meanwhile_is_not_lost(void **state)
{
    struct model_shape shape = small();
    struct engine_config config = config_of(ENGINE_LAYERS_ALL);
    _cleanup_free_ int32_t *tokens = models_tokens(3, N_TOKENS, shape.n_vocab);
    _cleanup_free_ int32_t *others = models_tokens(4, N_TOKENS, shape.n_vocab);
    _cleanup_free_ float *expected = expected_of(&shape, tokens);
    uint32_t a, b, c, n_vocab = shape.n_vocab;
    const float *logits;
    char path[] = "/tmp/full-XXXXXX";
    struct engine *e;
    int fd = mkstemp(path);

    counts_need_double();
    assert_true(fd >= 0);
    close(fd);
    config.kv_tokens = 256;
    set_full(path, false);
    counts_set("FAKE_CUDA_FULL_FILE", path);
    e = models_open(&shape, &config);
    feed_new(e, others, N_TOKENS, N_TOKENS, NULL);
    assert_int_equal(engine_sequence_open(e, &a), 0);
    feed_tokens(e, a, tokens, N_PROMPT, N_PROMPT, NULL);

    set_full(path, true);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(feed_step(e, a, others, 2, NULL), ENGINE_GPU_FULL);
    assert_int_equal(engine_sequence_fork(e, a, N_FORK, &b), 0);
    assert_int_equal(engine_sequence_open(e, &c), 0);
    assert_int_equal(feed_step(e, c, tokens, N_PROMPT, NULL), ENGINE_GPU_FULL);
    assert_int_equal(feed_step(e, b, others, 1, NULL), ENGINE_GPU_FULL);

    set_full(path, false);
    feed_tokens(e, a, others, 3, 1, NULL);
    assert_int_equal(feed_step(e, b, tokens + N_FORK, N_TOKENS - N_FORK, &logits), 0);
    assert_memory_equal(logits, expected + (size_t)N_FORK * n_vocab, (N_TOKENS - N_FORK) * n_vocab * sizeof(*logits));
    assert_int_equal(feed_patiently(e, c, tokens, expected), 0);
    engine_free(e);
    counts_assert_none();
}

/* All memory of the device and pinned, before and after somebody's step, and after a shorter one of somebody else: what
 * the first left, and the second would not have written itself, is not there any more. */
static void nothing_of_a_step_is_left_for_the_next_user(void **state)
{
    struct model_shape shape = small();
    _cleanup_free_ int32_t *secret = models_tokens(4, N_TOKENS, shape.n_vocab);
    _cleanup_free_ int32_t *tokens = models_tokens(3, 2, shape.n_vocab);
    static const uint32_t layers[] = {1, ENGINE_LAYERS_ALL};

    counts_need_double();
    for (size_t k = 0; k < 2; k++) {
        struct engine_config config = config_of(layers[k]);
        _cleanup_free_ uint8_t *at_first = NULL, *with_secret = NULL, *after = NULL, *alone = NULL;
        size_t n, n_again, n_written = 0, n_left = 0;
        struct engine *e = models_open(&shape, &config);

        feed_new(e, tokens, 2, 2, NULL);
        alone = counts_copy(&n);
        e = engine_free(e);

        e = models_open(&shape, &config);
        at_first = counts_copy(&n_again);
        assert_int_equal(n_again, n);
        /* One page, which the next one takes: others are zeroed when somebody takes them. */
        feed_new(e, secret, ENGINE_PAGE_TOKENS, ENGINE_PAGE_TOKENS, NULL);
        with_secret = counts_copy(&n_again);
        assert_int_equal(n_again, n);
        feed_new(e, tokens, 2, 2, NULL);
        after = counts_copy(&n_again);
        assert_int_equal(n_again, n);
        for (size_t i = 0; i + 16 <= n; i += 16) {
            static const uint8_t zeros[16];
            bool is_secret = memcmp(with_secret + i, at_first + i, 16) != 0 && memcmp(with_secret + i, zeros, 16) != 0;

            n_written += is_secret;
            n_left += is_secret && memcmp(after + i, with_secret + i, 16) == 0 && memcmp(after + i, alone + i, 16) != 0;
        }
        assert_true(n_written > 1000);
        assert_int_equal(n_left, 0);
        engine_free(e);
        counts_assert_none();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_number_of_layers_is_there_or_the_model_is_not, counts_forget_settings),
        cmocka_unit_test_setup(steps_become_smaller_before_keys_leave, counts_forget_settings),
        cmocka_unit_test_setup(a_step_that_is_refused_once, counts_forget_settings),
        cmocka_unit_test_setup(what_happens_to_pages_meanwhile_is_not_lost, counts_forget_settings),
        cmocka_unit_test_setup(nothing_of_a_step_is_left_for_the_next_user, counts_forget_settings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
