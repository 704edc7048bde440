/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What engine.h promises beside the numbers: what is refused, that a refusal changes nothing, full caches,
 * cancelling, facts, and rows of logits.
 */
#include "engine/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "engine/engine-internal.h"
#include "tests/unit/engine/feed.h"
#include "tests/unit/engine/models.h"

static struct engine *open_small(uint32_t sequences_max, uint32_t batch, uint64_t kv_tokens,
                                 uint32_t outputs_max)
{
    struct model_shape shape = models_deep();
    struct engine_config config = models_config(sequences_max, batch);

    config.context_tokens = 256;
    config.kv_tokens = kv_tokens;
    config.outputs_max = outputs_max;
    return models_open(&shape, &config);
}

/* One token of one sequence, everything right; tests spoil one thing each. */
struct one {
    int32_t token;
    uint32_t sequence, position;
    uint8_t wants;
};

static int step_one(struct engine *e, const struct one *o, struct fault *reterr)
{
    const float *logits;

    return engine_step(e,
                       &(struct engine_batch){.n_tokens = 1,
                                              .tokens = &o->token,
                                              .sequences = &o->sequence,
                                              .positions = &o->position,
                                              .wants_logits = &o->wants},
                       &logits, reterr);
}

static void assert_refused(struct engine *e, const struct one *o, enum fault_kind kind, const char *subject)
{
    struct fault fault = {.kind = FAULT_NONE};

    assert_int_equal(step_one(e, o, &fault), -EINVAL);
    assert_int_equal(fault.kind, kind);
    if (subject)
        assert_string_equal(fault.subject, subject);
}

static void steps_that_break_the_rules_are_refused(void **state)
{
    _cleanup_engine_ struct engine *e = open_small(2, 8, 0, 8);
    uint32_t s;
    static const int32_t some[] = {1, 2, 3, 4};

    assert_int_equal(engine_sequence_open(e, &s), 0);
    feed_tokens(e, s, some, 4, 4, NULL);
    assert_refused(e, &(struct one){-1, s, 4, 1}, FAULT_INVALID_PARAMETER, "tokens");
    assert_refused(e, &(struct one){(int32_t)MODEL_VOCABULARY_MIN, s, 4, 1}, FAULT_INVALID_PARAMETER,
                   "tokens");
    assert_refused(e, &(struct one){INT32_MIN, s, 4, 1}, FAULT_INVALID_PARAMETER, "tokens");
    assert_refused(e, &(struct one){1, s, 3, 1}, FAULT_INVALID_PARAMETER, "positions");
    assert_refused(e, &(struct one){1, s, 5, 1}, FAULT_INVALID_PARAMETER, "positions");
    assert_refused(e, &(struct one){1, 1 - s, 0, 1}, FAULT_INVALID_PARAMETER, "sequences");
    assert_refused(e, &(struct one){1, 2, 0, 1}, FAULT_INVALID_PARAMETER, "sequences");
    assert_refused(e, &(struct one){1, UINT32_MAX, 0, 1}, FAULT_INVALID_PARAMETER, "sequences");
    assert_int_equal(engine_sequence_length(e, s), 4);
    assert_int_equal(step_one(e, &(struct one){1, s, 4, 1}, NULL), 0);
    assert_int_equal(engine_sequence_length(e, s), 5);
}

static void sizes_of_a_batch_are_limited(void **state)
{
    _cleanup_engine_ struct engine *e = open_small(2, 8, 0, 3);
    int32_t tokens[9] = {0};
    uint32_t sequences[9] = {0}, positions[9] = {0, 1, 2, 3, 4, 5, 6, 7, 8}, s;
    uint8_t wants[9] = {1, 1, 1};
    struct engine_batch batch = {
        .tokens = tokens, .sequences = sequences, .positions = positions, .wants_logits = wants};
    struct fault fault = {.kind = FAULT_NONE};
    const float *logits;

    assert_int_equal(engine_sequence_open(e, &s), 0);
    batch.n_tokens = 0;
    assert_int_equal(engine_step(e, &batch, &logits, &fault), -EINVAL);
    assert_string_equal(fault.subject, "n_tokens");
    batch.n_tokens = 9;
    assert_int_equal(engine_step(e, &batch, &logits, &fault), -EINVAL);
    batch.n_tokens = 8;
    wants[7] = 1;
    assert_int_equal(engine_step(e, &batch, &logits, &fault), -EINVAL);
    assert_string_equal(fault.subject, "wants_logits");
    wants[7] = 0;
    assert_int_equal(engine_step(e, &batch, &logits, &fault), 0);
    assert_non_null(logits);
    memset(wants, 0, sizeof(wants));
    for (uint32_t i = 0; i < 8; i++)
        positions[i] += 8;
    assert_int_equal(engine_step(e, &batch, &logits, &fault), 0);
    assert_null(logits);
}

/* The same token twice at one position, and a hole in the middle of a chunk. */
static void positions_of_a_chunk_ascend(void **state)
{
    _cleanup_engine_ struct engine *e = open_small(1, 8, 0, 8);
    int32_t tokens[3] = {1, 2, 3};
    uint32_t sequences[3] = {0}, positions[3] = {0, 0, 1}, s;
    uint8_t wants[3] = {0};
    struct engine_batch batch = {.n_tokens = 3,
                                 .tokens = tokens,
                                 .sequences = sequences,
                                 .positions = positions,
                                 .wants_logits = wants};
    const float *logits;

    assert_int_equal(engine_sequence_open(e, &s), 0);
    assert_int_equal(engine_step(e, &batch, &logits, NULL), -EINVAL);
    positions[1] = 2;
    positions[2] = 3;
    assert_int_equal(engine_step(e, &batch, &logits, NULL), -EINVAL);
    positions[1] = 1;
    positions[2] = 2;
    assert_int_equal(engine_step(e, &batch, &logits, NULL), 0);
}

static void a_context_ends_where_it_says(void **state)
{
    _cleanup_engine_ struct engine *e = open_small(1, 256, 0, 1);
    _cleanup_free_ int32_t *tokens = models_tokens(1, 256, MODEL_VOCABULARY_MIN);
    struct fault fault = {.kind = FAULT_NONE};
    uint32_t s;

    assert_int_equal(engine_sequence_open(e, &s), 0);
    feed_tokens(e, s, tokens, 255, 255, NULL);
    assert_int_equal(step_one(e, &(struct one){1, s, 255, 1}, NULL), 0);
    assert_int_equal(step_one(e, &(struct one){1, s, 256, 1}, &fault), -EINVAL);
    assert_int_equal(fault.kind, FAULT_CONTEXT_TOO_LONG);
    assert_int_equal(fault.limit, 256);
    assert_int_equal(fault.used, 257);
    assert_int_equal(engine_sequence_length(e, s), 256);
}

static void only_so_many_sequences_open(void **state)
{
    _cleanup_engine_ struct engine *e = open_small(3, 8, 0, 1);
    uint32_t s[3], more;

    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(engine_sequence_open(e, &s[i]), 0);
    assert_int_equal(engine_sequence_open(e, &more), ENGINE_FULL);
    assert_int_equal(engine_sequence_fork(e, s[0], 0, &more), ENGINE_FULL);
    assert_int_equal(engine_sequence_close(e, s[1]), 0);
    assert_int_equal(engine_sequence_close(e, s[1]), -EINVAL);
    assert_int_equal(engine_sequence_truncate(e, s[1], 0), -EINVAL);
    assert_int_equal(engine_sequence_fork(e, s[1], 0, &more), -EINVAL);
    assert_int_equal(engine_sequence_length(e, s[1]), 0);
    assert_int_equal(engine_sequence_pages(e, s[1]), 0);
    assert_int_equal(engine_sequence_open(e, &more), 0);
    assert_int_equal(more, s[1]);
    assert_int_equal(engine_sequence_close(e, 3), -EINVAL);
    assert_int_equal(engine_sequence_close(e, UINT32_MAX), -EINVAL);
    assert_int_equal(engine_sequence_truncate(e, s[0], 1), -EINVAL);
}

/* 3 pages for two sequences: what does not fit changes nothing, and what is given back can be had. */
static void a_full_cache_refuses_and_recovers(void **state)
{
    _cleanup_engine_ struct engine *e = open_small(3, 100, 3 * ENGINE_PAGE_TOKENS, 100);
    _cleanup_free_ int32_t *tokens = models_tokens(1, 100, MODEL_VOCABULARY_MIN);
    _cleanup_free_ float *before = calloc(66 * MODEL_VOCABULARY_MIN, sizeof(float));
    _cleanup_free_ float *after = calloc(66 * MODEL_VOCABULARY_MIN, sizeof(float));
    uint32_t a, b, fork;

    assert_int_equal(engine_pages_free(e), 3);
    feed_new(e, tokens, 66, 66, before);
    assert_int_equal(engine_sequence_open(e, &a), 0);
    assert_int_equal(engine_sequence_open(e, &b), 0);
    feed_tokens(e, a, tokens, 64, 64, after);
    assert_int_equal(engine_pages_free(e), 1);
    feed_tokens(e, b, tokens, 32, 32, NULL);
    assert_int_equal(engine_pages_free(e), 0);

    assert_int_equal(feed_step(e, a, tokens + 64, 1, NULL), ENGINE_KV_FULL);
    assert_int_equal(feed_step(e, b, tokens + 32, 60, NULL), ENGINE_KV_FULL);
    assert_int_equal(engine_sequence_fork(e, a, 33, &fork), ENGINE_KV_FULL);
    assert_int_equal(engine_sequence_length(e, a), 64);
    assert_int_equal(engine_sequence_pages(e, a), 2);
    assert_int_equal(engine_pages_free(e), 0);

    /* Whole pages are shared, so this needs none. */
    assert_int_equal(engine_sequence_fork(e, a, 64, &fork), 0);
    assert_int_equal(engine_sequence_close(e, b), 0);
    assert_int_equal(engine_pages_free(e), 1);
    feed_tokens(e, a, tokens + 64, 2, 2, after + 64 * MODEL_VOCABULARY_MIN);
    assert_memory_equal(after, before, 66 * MODEL_VOCABULARY_MIN * sizeof(float));
    assert_int_equal(engine_pages_free(e), 0);
    assert_int_equal(engine_sequence_close(e, a), 0);
    assert_int_equal(engine_pages_free(e), 1);
    assert_int_equal(engine_sequence_close(e, fork), 0);
    assert_int_equal(engine_pages_free(e), 3);
}

/* A batch of two sequences of which only one fits: neither is fed. */
static void a_batch_that_does_not_fit_feeds_nobody(void **state)
{
    _cleanup_engine_ struct engine *e = open_small(2, 100, 2 * ENGINE_PAGE_TOKENS, 1);
    int32_t tokens[66] = {0};
    uint32_t sequences[66], positions[66];
    uint8_t wants[66] = {0};
    const float *logits;
    uint32_t a, b;

    assert_int_equal(engine_sequence_open(e, &a), 0);
    assert_int_equal(engine_sequence_open(e, &b), 0);
    for (uint32_t i = 0; i < 66; i++) {
        sequences[i] = i < 33 ? a : b;
        positions[i] = i < 33 ? i : i - 33;
    }
    assert_int_equal(engine_step(e,
                                 &(struct engine_batch){.n_tokens = 66,
                                                        .tokens = tokens,
                                                        .sequences = sequences,
                                                        .positions = positions,
                                                        .wants_logits = wants},
                                 &logits, NULL),
                     ENGINE_KV_FULL);
    assert_int_equal(engine_pages_free(e), 2);
    assert_int_equal(engine_sequence_length(e, a), 0);
    assert_int_equal(engine_sequence_length(e, b), 0);
    feed_tokens(e, b, tokens, 64, 64, NULL);
}

static void a_cancelled_step_counts_as_not_fed(void **state)
{
    _cleanup_engine_ struct engine *e = open_small(1, 64, 0, 64);
    _cleanup_free_ int32_t *tokens = models_tokens(1, 64, MODEL_VOCABULARY_MIN);
    size_t n = 64 * MODEL_VOCABULARY_MIN;
    _cleanup_free_ float *expected = calloc(n, sizeof(float)), *got = calloc(n, sizeof(float));
    uint32_t s;

    feed_new(e, tokens, 64, 64, expected);
    assert_int_equal(engine_sequence_open(e, &s), 0);
    feed_tokens(e, s, tokens, 20, 20, got);
    engine_cancel(e);
    assert_int_equal(feed_step(e, s, tokens + 20, 44, NULL), ENGINE_CANCELLED);
    assert_int_equal(engine_sequence_length(e, s), 20);
    assert_int_equal(engine_sequence_pages(e, s), 1);
    assert_int_equal(engine_pages_free(e), 7);
    feed_tokens(e, s, tokens + 20, 44, 44, got + 20 * MODEL_VOCABULARY_MIN);
    assert_memory_equal(got, expected, n * sizeof(float));
}

struct canceller {
    struct engine *e;
    _Atomic bool stop;
};

static void *cancel_now_and_then(void *userdata)
{
    struct canceller *c = userdata;

    for (unsigned i = 0; !c->stop; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 100000 << i % 8}, NULL);
        engine_cancel(c->e);
    }
    return NULL;
}

/* From another thread, at any moment: each step is done or not done, and the numbers stay right. */
static void cancelling_from_another_thread_is_clean(void **state)
{
    _cleanup_engine_ struct engine *e = open_small(1, 64, 0, 64);
    _cleanup_free_ int32_t *tokens = models_tokens(1, 64, MODEL_VOCABULARY_MIN);
    size_t n = 64 * MODEL_VOCABULARY_MIN;
    _cleanup_free_ float *expected = calloc(n, sizeof(float));
    struct canceller c = {.e = e};
    pthread_t thread;
    uint32_t n_done = 0;

    assert_int_equal(engine_threads_set(e, 2), 0);
    feed_new(e, tokens, 64, 64, expected);
    assert_int_equal(pthread_create(&thread, NULL, cancel_now_and_then, &c), 0);
    for (uint32_t i = 0; i < 60; i++) {
        const float *logits;
        uint32_t s;
        int r;

        assert_int_equal(engine_sequence_open(e, &s), 0);
        r = feed_step(e, s, tokens, 64, &logits);
        assert_true(r == 0 || r == ENGINE_CANCELLED);
        assert_int_equal(engine_sequence_length(e, s), r == 0 ? 64 : 0);
        if (r == 0) {
            assert_memory_equal(logits, expected, n * sizeof(float));
            n_done++;
        }
        engine_sequence_close(e, s);
        assert_int_equal(engine_pages_free(e), 8);
    }
    c.stop = true;
    pthread_join(thread, NULL);
    print_message("%u of 60 steps were done\n", n_done);
}

/* Rows come in the batch's order, whoever else is in it: the k-th row is that of the k-th token that wanted
 * one. */
static void rows_of_logits_are_in_the_order_asked(void **state)
{
    _cleanup_engine_ struct engine *e = open_small(2, 64, 0, 3);
    _cleanup_engine_ struct engine *all = open_small(1, 64, 0, 64);
    _cleanup_free_ int32_t *tokens = models_tokens(1, 50, MODEL_VOCABULARY_MIN);
    _cleanup_free_ float *expected = calloc(50 * MODEL_VOCABULARY_MIN, sizeof(float));
    uint32_t sequences[50] = {0}, positions[50], s;
    uint8_t wants[50] = {[3] = 1, [31] = 255, [49] = 1};
    const float *logits;

    feed_new(all, tokens, 50, 50, expected);
    assert_int_equal(engine_sequence_open(e, &s), 0);
    for (uint32_t i = 0; i < 50; i++)
        positions[i] = i;
    assert_int_equal(engine_step(e,
                                 &(struct engine_batch){.n_tokens = 50,
                                                        .tokens = tokens,
                                                        .sequences = sequences,
                                                        .positions = positions,
                                                        .wants_logits = wants},
                                 &logits, NULL),
                     0);
    assert_memory_equal(logits, expected + 3 * MODEL_VOCABULARY_MIN, MODEL_VOCABULARY_MIN * sizeof(float));
    assert_memory_equal(logits + MODEL_VOCABULARY_MIN, expected + 31 * MODEL_VOCABULARY_MIN,
                        MODEL_VOCABULARY_MIN * sizeof(float));
    assert_memory_equal(logits + 2 * MODEL_VOCABULARY_MIN, expected + 49 * MODEL_VOCABULARY_MIN,
                        MODEL_VOCABULARY_MIN * sizeof(float));
}

static void configs_that_make_no_sense_are_refused(void **state)
{
    struct model_shape shape = models_deep();
    struct model_writer *w = model_writer_new();
    _cleanup_close_ int fd = -EBADF;
    struct engine *e = NULL;
    struct fault fault = {.kind = FAULT_NONE};
    const struct engine_config good = {.fds = &fd,
                                       .n_fds = 1,
                                       .sequences_max = 1,
                                       .n_threads = 1,
                                       .k_type = TENSOR_F16,
                                       .v_type = TENSOR_F16};
    struct engine_config config;

    model_writer_llama(w, &shape);
    fd = model_writer_memfd(w);
    model_writer_free(w);

    config = good;
    config.n_fds = 0;
    assert_int_equal(engine_open(&config, &e, &fault), -EINVAL);
    assert_string_equal(fault.subject, "n_fds");
    config = good;
    config.sequences_max = 0;
    assert_int_equal(engine_open(&config, &e, &fault), -EINVAL);
    assert_string_equal(fault.subject, "sequences_max");
    config.sequences_max = UINT32_MAX;
    assert_int_equal(engine_open(&config, &e, &fault), -EINVAL);
    config = good;
    config.batch_tokens_max = UINT32_MAX;
    assert_int_equal(engine_open(&config, &e, &fault), -EINVAL);
    assert_string_equal(fault.subject, "batch_tokens_max");
    config = good;
    config.n_threads = 1 << 20;
    assert_int_equal(engine_open(&config, &e, &fault), -EINVAL);
    assert_string_equal(fault.subject, "n_threads");
    config = good;
    config.k_type = TENSOR_I32;
    assert_int_equal(engine_open(&config, &e, &fault), -EINVAL);
    assert_int_equal(fault.kind, FAULT_INVALID_PARAMETER);
    assert_non_null(strstr(fault.reason, "i32"));
    config.k_type = (enum tensor_type)12345;
    assert_int_equal(engine_open(&config, &e, &fault), -EINVAL);
    config = good;
    config.kv_tokens = UINT64_MAX;
    assert_int_equal(engine_open(&config, &e, &fault), -ENOMEM);
    assert_int_equal(fault.kind, FAULT_INSUFFICIENT_MEMORY);
    assert_null(e);
    assert_int_equal(engine_open(&good, &e, &fault), 0);
    engine_free(e);
}

static void facts_say_what_the_model_is(void **state)
{
    struct model_shape shape = models_wide(TENSOR_Q4_K);
    struct engine_config config = models_config(3, 40);
    _cleanup_engine_ struct engine *e = NULL;
    struct engine_facts f;
    const uint64_t attention = 2 * 1280 * 1024 + 2 * 1280 * 128, ffn = 3 * 1280 * 2816, head = 400 * 1280;

    config.context_tokens = 1000;
    config.outputs_max = 5;
    config.n_threads = 2;
    e = models_open(&shape, &config);
    engine_facts(e, &f);
    assert_string_equal(f.architecture, "llama");
    assert_string_equal(f.name, "random test model");
    assert_string_equal(f.quantization, "Q4_K");
    assert_int_equal(f.n_layers, 1);
    assert_int_equal(f.n_vocab, 400);
    assert_int_equal(f.n_embedding, 1280);
    assert_int_equal(f.context_trained_tokens, 4096);
    assert_int_equal(f.context_tokens, 1000);
    assert_int_equal(f.sequences_max, 3);
    assert_int_equal(f.batch_tokens_max, 40);
    assert_int_equal(f.outputs_max, 5);
    assert_int_equal(f.n_threads, 2);
    assert_int_equal(f.page_tokens, 32);
    assert_int_equal(f.pages_total, 3 * 32);
    assert_int_equal(f.bytes_kv_page, 32 * 2 * 128 * 4);
    assert_int_equal(f.bytes_kv, f.bytes_kv_page * f.pages_total);
    assert_int_equal(f.n_parameters, attention + ffn + 2 * head + 3 * 1280);
    assert_int_equal(f.bytes_per_token, (attention + ffn + head) / 256 * 144);
    assert_int_equal(f.bytes_locked, 0);
}

/* What the processor has read of the mapping that has @data, in bytes; UINT64_MAX: the kernel does not say. */
static uint64_t referenced(const void *data, uint64_t *ret_mapped)
{
    _cleanup_fclose_ FILE *f = fopen("/proc/self/smaps", "re");
    uint64_t low = 0, high = 0, kib;
    char line[512], name[64];

    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &low, &high) == 2)
            continue;
        if ((uintptr_t)data < low || (uintptr_t)data >= high || sscanf(line, "%63[^:]: %" SCNu64 " kB", name, &kib) != 2)
            continue;
        if (strcmp(name, "Rss") == 0)
            *ret_mapped = kib * 1024;
        if (strcmp(name, "Referenced") == 0)
            return kib * 1024;
    }
    return UINT64_MAX;
}

static bool forget_references(void)
{
    _cleanup_close_ int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);

    return fd >= 0 && write(fd, "1", 1) == 1;
}

static void weights_are_read_once_before_they_are_needed(void **state)
{
    struct model_shape shape = models_wide(TENSOR_F16);

    for (uint32_t n_threads = 1; n_threads <= 3; n_threads++) {
        struct engine_config config = models_config(1, 8);
        _cleanup_engine_ struct engine *e = NULL;
        uint64_t n_mapped = 0, n_read;
        const void *data;

        config.n_threads = n_threads;
        config.populate = true;
        e = models_open(&shape, &config);
        data = gguf_tensor(engine_gguf(e), 0)->data;
        if (!forget_references() || referenced(data, &n_mapped) == UINT64_MAX)
            skip();
        n_read = referenced(data, &n_mapped);
        assert_true(n_mapped > 1 << 20);
        assert_int_equal(n_read, 0);
        engine_touch(e);
        assert_int_equal(referenced(data, &n_mapped), n_mapped);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_that_break_the_rules_are_refused),
        cmocka_unit_test(sizes_of_a_batch_are_limited),
        cmocka_unit_test(positions_of_a_chunk_ascend),
        cmocka_unit_test(a_context_ends_where_it_says),
        cmocka_unit_test(only_so_many_sequences_open),
        cmocka_unit_test(a_full_cache_refuses_and_recovers),
        cmocka_unit_test(a_batch_that_does_not_fit_feeds_nobody),
        cmocka_unit_test(a_cancelled_step_counts_as_not_fed),
        cmocka_unit_test(cancelling_from_another_thread_is_clean),
        cmocka_unit_test(rows_of_logits_are_in_the_order_asked),
        cmocka_unit_test(configs_that_make_no_sense_are_refused),
        cmocka_unit_test(facts_say_what_the_model_is),
        cmocka_unit_test(weights_are_read_once_before_they_are_needed),
    };

    return cmocka_run_group_tests_name("engine", tests, NULL, NULL);
}
