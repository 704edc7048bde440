/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/budget.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void takes_what_is_free_first(void **state)
{
    struct budget_holder h[] = {{.bytes = 60, .may_leave = true}};
    uint64_t available = 0;

    assert_int_equal(budget_make_room(100, 40, h, 1, &available), 0);
    assert_false(h[0].leaves);
    assert_int_equal(budget_make_room(100, 41, h, 1, &available), BUDGET_LATER);
    assert_true(h[0].leaves);
}

static void those_on_their_way_out_are_waited_for(void **state)
{
    struct budget_holder h[] = {{.bytes = 30, .is_leaving = true}, {.bytes = 60, .may_leave = true}};
    uint64_t available = 0;

    assert_int_equal(budget_make_room(100, 10, h, 2, &available), 0);
    assert_int_equal(budget_make_room(100, 11, h, 2, &available), BUDGET_LATER);
    assert_false(h[0].leaves || h[1].leaves);
    assert_int_equal(budget_make_room(100, 40, h, 2, &available), BUDGET_LATER);
    assert_false(h[1].leaves);
    assert_int_equal(budget_make_room(100, 41, h, 2, &available), BUDGET_LATER);
    assert_true(h[1].leaves);
    assert_int_equal(budget_make_room(100, 100, h, 2, &available), BUDGET_LATER);
    assert_int_equal(budget_make_room(100, 101, h, 2, &available), BUDGET_TOO_SMALL);
    assert_int_equal(available, 100);
}

static void lowest_priority_then_longest_unused_leaves(void **state)
{
    struct budget_holder h[] = {
        {.bytes = 20, .may_leave = true, .priority = 1, .used_us = 1},
        {.bytes = 20, .may_leave = true, .priority = 0, .used_us = 9},
        {.bytes = 20, .may_leave = true, .priority = 0, .used_us = 3},
        {.bytes = 40, .may_leave = false, .priority = -5, .used_us = 0},
    };
    uint64_t available = 0;

    assert_int_equal(budget_make_room(100, 20, h, 4, &available), BUDGET_LATER);
    assert_true(h[2].leaves);
    assert_false(h[0].leaves || h[1].leaves || h[3].leaves);
    assert_int_equal(budget_make_room(100, 21, h, 4, &available), BUDGET_LATER);
    assert_true(h[1].leaves && h[2].leaves);
    assert_false(h[0].leaves || h[3].leaves);
    assert_int_equal(budget_make_room(100, 60, h, 4, &available), BUDGET_LATER);
    assert_true(h[0].leaves && h[1].leaves && h[2].leaves);
    assert_false(h[3].leaves);
}

static void nobody_leaves_in_vain(void **state)
{
    struct budget_holder h[] = {{.bytes = 20, .may_leave = true}, {.bytes = 40, .may_leave = false}};
    uint64_t available = 0;

    assert_int_equal(budget_make_room(100, 61, h, 2, &available), BUDGET_TOO_SMALL);
    assert_int_equal(available, 60);
    assert_false(h[0].leaves);
    assert_int_equal(budget_make_room(30, 1, h, 2, &available), BUDGET_TOO_SMALL);
    assert_int_equal(available, 0);
}

static void a_budget_that_shrank_is_made_good(void **state)
{
    struct budget_holder h[] = {{.bytes = 50, .may_leave = true, .used_us = 1},
                                {.bytes = 50, .may_leave = true, .used_us = 2}};
    uint64_t available = 0;

    assert_int_equal(budget_make_room(60, 10, h, 2, &available), BUDGET_LATER);
    assert_true(h[0].leaves);
    assert_false(h[1].leaves);
    assert_int_equal(budget_make_room(60, UINT64_MAX, h, 2, &available), BUDGET_TOO_SMALL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_what_is_free_first),
        cmocka_unit_test(those_on_their_way_out_are_waited_for),
        cmocka_unit_test(lowest_priority_then_longest_unused_leaves),
        cmocka_unit_test(nobody_leaves_in_vain),
        cmocka_unit_test(a_budget_that_shrank_is_made_good),
    };

    return cmocka_run_group_tests_name("budget", tests, NULL, NULL);
}
