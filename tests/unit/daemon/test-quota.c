/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/quota.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/ledger-file.h"

#define DAY INT64_C(86400)
#define SECOND UINT64_C(1000000)

static const struct quota_limits unlimited = {POLICY_UNLIMITED, POLICY_UNLIMITED, POLICY_UNLIMITED};

/* @s seconds after a midnight at which the machine had been up for a thousand seconds. */
static struct quota_time at(double s)
{
    int64_t day = (int64_t)(s / (double)DAY);

    return (struct quota_time){
        .now_us = (uint64_t)((1000 + s) * 1e6),
        .wall_ms = 20000 * DAY * 1000 + (int64_t)(s * 1e3),
        .day_s = (20000 + day) * DAY,
        .next_day_s = (20001 + day) * DAY,
    };
}

static int setup(void **state)
{
    struct quotas *q;

    assert_int_equal(quotas_new(&q), 0);
    *state = q;
    return 0;
}

static int teardown(void **state)
{
    quotas_free(*state);
    return 0;
}

static int take(struct quotas *q, double s, const struct quota_party *p, uint64_t tokens, struct quota_hold *hold,
                struct fault *fault)
{
    const struct quota_time t = at(s);

    return quotas_take(q, &t, p, 1, tokens, true, hold, fault);
}

static void settle(struct quotas *q, double s, uint64_t tokens, struct quota_hold *hold)
{
    const struct quota_time t = at(s);

    quotas_settle(q, &t, tokens, hold);
}

static void assert_fault(const struct fault *f, const char *quota, int64_t limit, int64_t used, int64_t retry_ms)
{
    assert_int_equal(f->kind, FAULT_QUOTA_EXCEEDED);
    assert_string_equal(f->subject, quota);
    assert_int_equal(f->limit, limit);
    assert_int_equal(f->used, used);
    assert_int_equal(f->retry_after_ms, retry_ms);
}

static void requests_run_off_one_by_one(void **state)
{
    struct quota_party p = {.id = 1000, .limits = unlimited};
    struct quotas *q = *state;
    struct quota_hold hold = QUOTA_HOLD_NULL;
    struct fault fault;

    p.limits.requests_per_minute = 60;
    for (int i = 0; i < 60; i++) {
        assert_int_equal(take(q, 0, &p, 5, &hold, &fault), 0);
        settle(q, 0, 5, &hold);
    }
    assert_int_equal(take(q, 0, &p, 5, &hold, &fault), QUOTA_FULL);
    assert_fault(&fault, "requests_per_minute", 60, 61, 1000);
    assert_int_equal(take(q, 0.25, &p, 5, &hold, &fault), QUOTA_FULL);
    assert_fault(&fault, "requests_per_minute", 60, 61, 750);
    /* Exactly after the time that was said, and not a millisecond before. */
    assert_int_equal(take(q, 0.999, &p, 5, &hold, &fault), QUOTA_FULL);
    assert_int_equal(fault.retry_after_ms, 1);
    assert_int_equal(take(q, 1, &p, 5, &hold, &fault), 0);
    settle(q, 1, 5, &hold);
    assert_int_equal(take(q, 1, &p, 5, &hold, &fault), QUOTA_FULL);
    /* A minute later all of it is there again, and no more than that. */
    for (int i = 0; i < 60; i++) {
        assert_int_equal(take(q, 600, &p, 5, &hold, &fault), 0);
        settle(q, 600, 5, &hold);
    }
    assert_int_equal(take(q, 600, &p, 5, &hold, &fault), QUOTA_FULL);
}

static void tokens_are_reserved_and_given_back(void **state)
{
    struct quota_party p = {.id = 1000, .limits = unlimited};
    struct quotas *q = *state;
    struct quota_hold a = QUOTA_HOLD_NULL, b = QUOTA_HOLD_NULL;
    struct fault fault;

    p.limits.tokens_per_minute = 1000;
    assert_int_equal(take(q, 0, &p, 700, &a, &fault), 0);
    assert_int_equal(take(q, 0, &p, 400, &b, &fault), QUOTA_FULL);
    /* 100 too many at 1000 a minute. */
    assert_fault(&fault, "tokens_per_minute", 1000, 1100, 6000);
    settle(q, 0, 600, &a);
    assert_int_equal(take(q, 0, &p, 400, &b, &fault), 0);
    settle(q, 0, 400, &b);
    assert_int_equal(take(q, 0, &p, 1, &b, &fault), QUOTA_FULL);
    assert_fault(&fault, "tokens_per_minute", 1000, 1001, 60);
    assert_int_equal(take(q, 0.06, &p, 1, &b, &fault), 0);
    settle(q, 0.06, 1, &b);
}

static void what_was_used_beyond_the_reservation_is_owed(void **state)
{
    struct quota_party p = {.id = 1000, .limits = unlimited};
    struct quotas *q = *state;
    struct quota_hold a = QUOTA_HOLD_NULL;
    struct fault fault;

    p.limits.tokens_per_minute = 600;
    assert_int_equal(take(q, 0, &p, 100, &a, &fault), 0);
    settle(q, 0, 900, &a);
    assert_int_equal(take(q, 0, &p, 100, &a, &fault), QUOTA_FULL);
    assert_fault(&fault, "tokens_per_minute", 600, 1000, 40000);
    assert_int_equal(take(q, 39.999, &p, 100, &a, &fault), QUOTA_FULL);
    assert_int_equal(take(q, 40, &p, 100, &a, &fault), 0);
    settle(q, 40, 0, &a);
}

static void what_has_run_off_is_not_given_back_again(void **state)
{
    struct quota_party p = {.id = 1000, .limits = unlimited};
    struct quotas *q = *state;
    struct quota_hold a = QUOTA_HOLD_NULL, b = QUOTA_HOLD_NULL;
    const struct quota_time t = at(60);
    struct quota_used used;
    struct fault fault;

    p.limits.tokens_per_minute = 1000;
    /* Reserves all, uses nothing, takes a minute: then all of it has run off. */
    assert_int_equal(take(q, 0, &p, 1000, &a, &fault), 0);
    assert_int_equal(take(q, 60, &p, 1000, &b, &fault), 0);
    settle(q, 60, 1000, &b);
    settle(q, 60, 0, &a);
    quotas_used(q, &t, &p, &used);
    assert_int_equal(used.tokens_per_minute, 1000);
    assert_int_equal(take(q, 60, &p, 1, &b, &fault), QUOTA_FULL);
}

static void day_is_whole_again_at_midnight(void **state)
{
    struct quota_party p = {.id = 1000, .limits = unlimited};
    struct quotas *q = *state;
    struct quota_hold a = QUOTA_HOLD_NULL, b = QUOTA_HOLD_NULL;
    const struct quota_time noon = at(43200), next = at(86400);
    struct quota_used used;
    struct fault fault;

    p.limits.tokens_per_day = 1000;
    assert_int_equal(quotas_add_day(q, &noon, 1000, 500), 0);
    assert_int_equal(take(q, 43200, &p, 400, &a, &fault), 0);
    quotas_used(q, &noon, &p, &used);
    assert_int_equal(used.tokens_per_day, 900);
    assert_int_equal(used.day_renew_ms, 43200000);
    assert_int_equal(take(q, 43200, &p, 101, &b, &fault), QUOTA_FULL);
    assert_fault(&fault, "tokens_per_day", 1000, 1001, 43200000);
    assert_int_equal(take(q, 43200, &p, 100, &b, &fault), 0);
    settle(q, 43200, 10, &b);
    assert_int_equal(take(q, 86399.999, &p, 1000, &b, &fault), QUOTA_FULL);
    assert_int_equal(fault.retry_after_ms, 1);
    /* What still runs from the day before takes nothing of this one, also when it ends. */
    assert_int_equal(take(q, 86400, &p, 1000, &b, &fault), 0);
    settle(q, 86400, 1000, &b);
    settle(q, 86400, 400, &a);
    quotas_used(q, &next, &p, &used);
    assert_int_equal(used.tokens_per_day, 1000);
}

static void clock_that_is_set_back_gives_no_second_day(void **state)
{
    struct quota_party p = {.id = 1000, .limits = unlimited};
    struct quotas *q = *state;
    struct quota_hold a = QUOTA_HOLD_NULL;
    struct fault fault;

    p.limits.tokens_per_day = 10;
    assert_int_equal(take(q, 100000, &p, 10, &a, &fault), 0);
    settle(q, 100000, 10, &a);
    assert_int_equal(take(q, 50000, &p, 1, &a, &fault), QUOTA_FULL);
}

static void longest_wait_is_the_one_that_is_said(void **state)
{
    struct quota_party parties[2] = {{.id = 1000, .limits = unlimited},
                                     {.id = LEDGER_GROUP | 50, .name = "groups.students.total.", .limits = unlimited}};
    struct quotas *q = *state;
    struct quota_hold a = QUOTA_HOLD_NULL;
    const struct quota_time t = at(0);
    struct fault fault;

    parties[0].limits.requests_per_minute = 1;
    parties[0].limits.tokens_per_minute = 100;
    parties[1].limits.tokens_per_minute = 120;
    assert_int_equal(quotas_tokens_max(parties, 2), 100);
    assert_int_equal(quotas_take(q, &t, parties, 2, 60, true, &a, &fault), 0);
    quotas_settle(q, &t, 60, &a);
    /* The request itself waits a minute, the tokens less. */
    assert_int_equal(quotas_take(q, &t, parties, 2, 80, true, &a, &fault), QUOTA_FULL);
    assert_fault(&fault, "requests_per_minute", 1, 2, 60000);
    parties[0].limits.requests_per_minute = 1000;
    assert_int_equal(quotas_take(q, &t, parties, 2, 80, true, &a, &fault), QUOTA_FULL);
    assert_fault(&fault, "tokens_per_minute", 100, 140, 24000);
    /* Another of the group has used it up, too. */
    parties[0].id = 1001;
    assert_int_equal(quotas_take(q, &t, parties, 2, 80, true, &a, &fault), QUOTA_FULL);
    assert_fault(&fault, "groups.students.total.tokens_per_minute", 120, 140, 10000);
    /* A refused request has taken nothing from anybody. */
    assert_int_equal(quotas_take(q, &t, parties, 1, 100, true, &a, &fault), 0);
    quotas_settle(q, &t, 0, &a);
}

static void nothing_is_promised_that_can_not_come_true(void **state)
{
    struct quota_party p = {.id = 1000, .limits = unlimited};
    struct quotas *q = *state;
    struct quota_hold a = QUOTA_HOLD_NULL, b = QUOTA_HOLD_NULL;
    const struct quota_time t = at(0);
    struct fault fault;

    p.limits.tokens_per_minute = 100;
    /* One that may be larger than the bucket takes all of it … */
    assert_int_equal(quotas_take(q, &t, &p, 1, 5000, false, &a, &fault), 0);
    assert_int_equal(a.tokens, 100);
    /* … and is not told to come again, since it may not fit then either. */
    assert_int_equal(quotas_take(q, &t, &p, 1, 5000, false, &b, &fault), QUOTA_FULL);
    assert_int_equal(fault.retry_after_ms, FAULT_NO_RETRY);
    quotas_settle(q, &t, 0, &a);
    p.limits.requests_per_minute = 0;
    assert_int_equal(quotas_take(q, &t, &p, 1, 1, true, &a, &fault), QUOTA_FULL);
    assert_fault(&fault, "requests_per_minute", 0, 1, FAULT_NO_RETRY);
}

static void what_did_not_begin_is_given_back(void **state)
{
    struct quota_party p = {.id = 1000, .limits = {1, 10, 10}};
    struct quotas *q = *state;
    struct quota_hold a = QUOTA_HOLD_NULL;
    const struct quota_time t = at(0);
    struct quota_used used;
    struct fault fault;

    assert_int_equal(take(q, 0, &p, 10, &a, &fault), 0);
    quotas_give_back(q, &t, &a);
    quotas_used(q, &t, &p, &used);
    assert_int_equal(used.requests_per_minute + used.tokens_per_minute + used.tokens_per_day, 0);
    assert_int_equal(take(q, 0, &p, 10, &a, &fault), 0);
    quotas_used(q, &t, &p, &used);
    assert_int_equal(used.requests_per_minute, 1);
    assert_int_equal(used.requests_renew_ms, 60000);
    assert_int_equal(used.tokens_per_minute, 10);
    assert_int_equal(used.tokens_per_day, 10);
    settle(q, 0, 10, &a);
}

static void another_limit_holds_for_what_was_used_before(void **state)
{
    struct quota_party p = {.id = 1000, .limits = unlimited};
    struct quotas *q = *state;
    struct quota_hold a = QUOTA_HOLD_NULL;
    struct fault fault;

    p.limits.tokens_per_minute = 1000;
    assert_int_equal(take(q, 0, &p, 900, &a, &fault), 0);
    settle(q, 0, 900, &a);
    p.limits.tokens_per_minute = 2000;
    assert_int_equal(take(q, 0, &p, 1100, &a, &fault), 0);
    settle(q, 0, 1100, &a);
    assert_int_equal(take(q, 0, &p, 1, &a, &fault), QUOTA_FULL);
}

static void thousands_of_users_do_not_mix(void **state)
{
    struct quotas *q = *state;
    struct quota_hold a = QUOTA_HOLD_NULL;
    _cleanup_free_ uint64_t *ids = NULL;
    struct fault fault;
    size_t n;

    for (uint64_t i = 0; i < 5000; i++) {
        struct quota_party p = {.id = (i * 7919) % 5000, .limits = {1, 10, 10}};

        assert_int_equal(take(q, 0, &p, 10, &a, &fault), 0);
        settle(q, 0, 10, &a);
        assert_int_equal(take(q, 0, &p, 10, &a, &fault), QUOTA_FULL);
    }
    assert_int_equal(quotas_ids(q, &ids, &n), 0);
    assert_int_equal(n, 5000);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(ids[i], i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(requests_run_off_one_by_one, setup, teardown),
        cmocka_unit_test_setup_teardown(tokens_are_reserved_and_given_back, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_used_beyond_the_reservation_is_owed, setup, teardown),
        cmocka_unit_test_setup_teardown(what_has_run_off_is_not_given_back_again, setup, teardown),
        cmocka_unit_test_setup_teardown(day_is_whole_again_at_midnight, setup, teardown),
        cmocka_unit_test_setup_teardown(clock_that_is_set_back_gives_no_second_day, setup, teardown),
        cmocka_unit_test_setup_teardown(longest_wait_is_the_one_that_is_said, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_is_promised_that_can_not_come_true, setup, teardown),
        cmocka_unit_test_setup_teardown(what_did_not_begin_is_given_back, setup, teardown),
        cmocka_unit_test_setup_teardown(another_limit_holds_for_what_was_used_before, setup, teardown),
        cmocka_unit_test_setup_teardown(thousands_of_users_do_not_mix, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
