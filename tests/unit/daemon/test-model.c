/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of a model's states; what the states do is seen end to end in tests/e2e. */
#include "daemon/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void goes_up_and_down(void **state)
{
    static const struct {
        enum model_event event;
        enum model_state state;
    } way[] = {
        {MODEL_WANT, MODEL_MAPPING},    {MODEL_MAPPED, MODEL_LOADING},  {MODEL_LOADED, MODEL_READY},
        {MODEL_CRASHED, MODEL_LOADING}, {MODEL_LOADED, MODEL_READY},    {MODEL_UNLOAD, MODEL_DRAINING},
        {MODEL_DRAINED, MODEL_ABSENT},  {MODEL_WANT, MODEL_MAPPING},    {MODEL_FAULT, MODEL_FAILED},
        {MODEL_WANT, MODEL_MAPPING},    {MODEL_UNLOAD, MODEL_ABSENT},   {MODEL_WANT, MODEL_MAPPING},
        {MODEL_MAPPED, MODEL_LOADING},  {MODEL_CRASHED, MODEL_LOADING}, {MODEL_CRASHED_OUT, MODEL_FAILED},
        {MODEL_UNLOAD, MODEL_ABSENT},
    };
    enum model_state now = MODEL_ABSENT;

    for (size_t i = 0; i < sizeof(way) / sizeof(*way); i++) {
        now = model_next(now, way[i].event);
        assert_int_equal(now, way[i].state);
    }
}

/* A worker that was left running is taken back, and followed by one of this build. */
static void goes_on_with_what_was_kept(void **state)
{
    assert_int_equal(model_next(MODEL_ABSENT, MODEL_KEPT), MODEL_LOADING);
    assert_int_equal(model_next(MODEL_READY, MODEL_RENEW), MODEL_DRAINING);
    assert_int_equal(model_next(MODEL_DRAINING, MODEL_RENEWED), MODEL_LOADING);
    for (enum model_state s = 0; s < MODEL_STATE_MAX; s++) {
        if (s != MODEL_ABSENT)
            assert_int_equal(model_next(s, MODEL_KEPT), MODEL_STATE_MAX);
        if (s != MODEL_READY)
            assert_int_equal(model_next(s, MODEL_RENEW), MODEL_STATE_MAX);
        if (s != MODEL_DRAINING)
            assert_int_equal(model_next(s, MODEL_RENEWED), MODEL_STATE_MAX);
    }
}

static void ignores_what_makes_no_sense(void **state)
{
    assert_int_equal(model_next(MODEL_READY, MODEL_WANT), MODEL_STATE_MAX);
    assert_int_equal(model_next(MODEL_ABSENT, MODEL_UNLOAD), MODEL_STATE_MAX);
    assert_int_equal(model_next(MODEL_ABSENT, MODEL_LOADED), MODEL_STATE_MAX);
    assert_int_equal(model_next(MODEL_FAILED, MODEL_CRASHED), MODEL_STATE_MAX);
    assert_int_equal(model_next(MODEL_DRAINING, MODEL_LOADED), MODEL_STATE_MAX);
    assert_int_equal(model_next(MODEL_DRAINING, MODEL_WANT), MODEL_STATE_MAX);
}

static void every_state_can_be_left(void **state)
{
    for (enum model_state s = 0; s < MODEL_STATE_MAX; s++) {
        bool leaves = false;

        for (enum model_event e = 0; e < MODEL_EVENT_MAX; e++) {
            assert_in_range(model_next(s, e), 0, MODEL_STATE_MAX);
            leaves |= model_next(s, e) != MODEL_STATE_MAX && model_next(s, e) != s;
        }
        assert_true(leaves);
    }
}

static void waits_longer_after_each_crash(void **state)
{
    assert_int_equal(model_backoff_us(1), 100000);
    assert_int_equal(model_backoff_us(2), 200000);
    assert_int_equal(model_backoff_us(6), 3200000);
    assert_int_equal(model_backoff_us(20), 30000000);
    assert_int_equal(model_backoff_us(4000000000u), 30000000);
}

static void names_are_those_of_the_interface(void **state)
{
    assert_string_equal(model_state_to_string(MODEL_ABSENT), "absent");
    assert_string_equal(model_state_to_string(MODEL_MAPPING), "loading");
    assert_string_equal(model_state_to_string(MODEL_LOADING), "loading");
    assert_string_equal(model_state_to_string(MODEL_READY), "ready");
    assert_string_equal(model_state_to_string(MODEL_DRAINING), "draining");
    assert_string_equal(model_state_to_string(MODEL_FAILED), "failed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goes_up_and_down),
        cmocka_unit_test(goes_on_with_what_was_kept),
        cmocka_unit_test(ignores_what_makes_no_sense),
        cmocka_unit_test(every_state_can_be_left),
        cmocka_unit_test(waits_longer_after_each_crash),
        cmocka_unit_test(names_are_those_of_the_interface),
    };

    return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
