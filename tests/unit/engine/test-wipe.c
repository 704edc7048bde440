/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What steps leave in memory is zero after engine_wipe(), to the last byte, and costs no more than it has to: a small
 * step touches little of the scratch memory, and no more of it is zeroed.
 */
#include "engine/engine-wipe.h"

#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "engine/cpu/exec-ops.h"
#include "engine/engine-internal.h"
#include "tests/unit/engine/feed.h"
#include "tests/unit/engine/models.h"

#define BATCH 256u

static uint64_t count_non_zero(const uint8_t *bytes, uint64_t n)
{
    uint64_t n_found = 0;

    for (uint64_t i = 0; i < n; i++)
        n_found += bytes[i] != 0;
    return n_found;
}

static uint64_t count_traces(const struct engine *e)
{
    return count_non_zero(e->exec->scratch, e->graph.scratch_bytes) +
           count_non_zero(e->exec->thread_scratch, e->exec->thread_scratch_total);
}

/* Bytes of values that would be zeroed now. */
static uint64_t wiped_bytes(const struct engine *e)
{
    uint64_t n_bytes = 0;

    for (uint32_t i = 0; i < e->exec->traces.n_extents; i++)
        n_bytes += e->exec->traces.extents[i].n_bytes;
    return n_bytes;
}

/* Prompts of several sizes and single tokens, wiped in between: nothing stays, and nothing changes. */
static void check(struct model_shape shape, uint32_t n_threads)
{
    static const uint32_t sizes[] = {BATCH, 1, 3, 8, 9, 40, 130, 1, BATCH};
    struct engine_config config = models_config(2, BATCH);
    _cleanup_free_ int32_t *tokens = models_tokens(5, BATCH * 4, shape.n_vocab);
    _cleanup_free_ float *expected = malloc(BATCH * shape.n_vocab * sizeof(float));
    _cleanup_engine_ struct engine *wiped = NULL, *plain = NULL;
    uint32_t s_wiped, s_plain, at = 0;

    assert_non_null(expected);
    config.n_threads = n_threads;
    wiped = models_open(&shape, &config);
    plain = models_open(&shape, &config);
    assert_int_equal(engine_sequence_open(wiped, &s_wiped), 0);
    assert_int_equal(engine_sequence_open(plain, &s_plain), 0);
    engine_wipe(wiped); /* before any step, too */
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        const float *logits;

        assert_int_equal(feed_step(plain, s_plain, tokens + at, sizes[i], &logits), 0);
        memcpy(expected, logits, (size_t)sizes[i] * shape.n_vocab * sizeof(float));
        assert_int_equal(feed_step(wiped, s_wiped, tokens + at, sizes[i], &logits), 0);
        assert_memory_equal(logits, expected, (size_t)sizes[i] * shape.n_vocab * sizeof(float));
        assert_true(count_traces(wiped) > (uint64_t)sizes[i] * shape.n_vocab);
        engine_wipe(wiped);
        assert_int_equal(count_traces(wiped), 0);
        at += sizes[i];
    }
}

static void nothing_of_a_step_is_left(void **state)
{
    struct model_shape shape = models_deep();

    check(shape, 1);
    shape.dim = shape.ff = 256;
    shape.type = TENSOR_Q4_K;
    check(shape, 1);
    check(shape, 3);
    check(models_wide(TENSOR_Q8_0), 2);
}

static void nothing_is_left_of_experts(void **state)
{
    struct model_shape shape = models_deep();

    shape.architecture = "qwen3moe";
    shape.dim = shape.ff = shape.expert_ff = 256;
    shape.head_dim = 64;
    shape.n_experts = 8;
    shape.n_experts_used = 3;
    shape.type = TENSOR_Q4_K;
    check(shape, 2);
}

static void small_steps_have_little_to_wipe(void **state)
{
    struct model_shape shape = models_wide(TENSOR_Q8_0);
    struct engine_config config = models_config(1, BATCH);
    _cleanup_free_ int32_t *tokens = models_tokens(6, BATCH + 2, shape.n_vocab);
    _cleanup_engine_ struct engine *e = models_open(&shape, &config);
    uint32_t sequence;
    uint64_t large;

    assert_int_equal(engine_sequence_open(e, &sequence), 0);
    assert_int_equal(feed_step(e, sequence, tokens, BATCH, NULL), 0);
    engine_wipe(e);
    large = wiped_bytes(e);
    assert_true(large > e->graph.scratch_bytes / 4 && large <= e->graph.scratch_bytes);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(feed_step(e, sequence, tokens + BATCH + i, 1, NULL), 0);
    engine_wipe(e);
    assert_true(wiped_bytes(e) > 0 && wiped_bytes(e) < large / 16);
    assert_int_equal(count_traces(e), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_of_a_step_is_left),
        cmocka_unit_test(nothing_is_left_of_experts),
        cmocka_unit_test(small_steps_have_little_to_wipe),
    };

    return cmocka_run_group_tests_name("wipe", tests, NULL, NULL);
}
