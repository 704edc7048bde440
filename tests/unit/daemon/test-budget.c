/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/budget.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static int make_room(uint64_t budget, uint64_t needed, struct budget_holder *h, size_t n, uint64_t *ret_available)
{
    const struct budget_memory memory = {.own_bytes = needed};
    uint64_t ret_needed = needed;
    int r = budget_make_room(budget, &memory, h, n, &ret_needed, ret_available);

    assert_int_equal(ret_needed, needed);
    return r;
}

static void takes_what_is_free_first(void **state)
{
    struct budget_holder h[] = {{.memory.own_bytes = 60, .may_leave = true}};
    uint64_t available = 0;

    assert_int_equal(make_room(100, 40, h, 1, &available), 0);
    assert_false(h[0].leaves);
    assert_int_equal(make_room(100, 41, h, 1, &available), BUDGET_LATER);
    assert_true(h[0].leaves);
}

static void those_on_their_way_out_are_waited_for(void **state)
{
    struct budget_holder h[] = {{.memory.own_bytes = 30, .is_leaving = true}, {.memory.own_bytes = 60, .may_leave = true}};
    uint64_t available = 0;

    assert_int_equal(make_room(100, 10, h, 2, &available), 0);
    assert_int_equal(make_room(100, 11, h, 2, &available), BUDGET_LATER);
    assert_false(h[0].leaves || h[1].leaves);
    assert_int_equal(make_room(100, 40, h, 2, &available), BUDGET_LATER);
    assert_false(h[1].leaves);
    assert_int_equal(make_room(100, 41, h, 2, &available), BUDGET_LATER);
    assert_true(h[1].leaves);
    assert_int_equal(make_room(100, 100, h, 2, &available), BUDGET_LATER);
    assert_int_equal(make_room(100, 101, h, 2, &available), BUDGET_TOO_SMALL);
    assert_int_equal(available, 100);
}

static void lowest_priority_then_longest_unused_leaves(void **state)
{
    struct budget_holder h[] = {
        {.memory.own_bytes = 20, .may_leave = true, .priority = 1, .used_us = 1},
        {.memory.own_bytes = 20, .may_leave = true, .priority = 0, .used_us = 9},
        {.memory.own_bytes = 20, .may_leave = true, .priority = 0, .used_us = 3},
        {.memory.own_bytes = 40, .may_leave = false, .priority = -5, .used_us = 0},
    };
    uint64_t available = 0;

    assert_int_equal(make_room(100, 20, h, 4, &available), BUDGET_LATER);
    assert_true(h[2].leaves);
    assert_false(h[0].leaves || h[1].leaves || h[3].leaves);
    assert_int_equal(make_room(100, 21, h, 4, &available), BUDGET_LATER);
    assert_true(h[1].leaves && h[2].leaves);
    assert_false(h[0].leaves || h[3].leaves);
    assert_int_equal(make_room(100, 60, h, 4, &available), BUDGET_LATER);
    assert_true(h[0].leaves && h[1].leaves && h[2].leaves);
    assert_false(h[3].leaves);
}

static void nobody_leaves_in_vain(void **state)
{
    struct budget_holder h[] = {{.memory.own_bytes = 20, .may_leave = true}, {.memory.own_bytes = 40, .may_leave = false}};
    uint64_t available = 0;

    assert_int_equal(make_room(100, 61, h, 2, &available), BUDGET_TOO_SMALL);
    assert_int_equal(available, 60);
    assert_false(h[0].leaves);
    assert_int_equal(make_room(30, 1, h, 2, &available), BUDGET_TOO_SMALL);
    assert_int_equal(available, 0);
}

static void a_budget_that_shrank_is_made_good(void **state)
{
    struct budget_holder h[] = {{.memory.own_bytes = 50, .may_leave = true, .used_us = 1},
                                {.memory.own_bytes = 50, .may_leave = true, .used_us = 2}};
    uint64_t available = 0;

    assert_int_equal(make_room(60, 10, h, 2, &available), BUDGET_LATER);
    assert_true(h[0].leaves);
    assert_false(h[1].leaves);
    assert_int_equal(make_room(60, UINT64_MAX, h, 2, &available), BUDGET_TOO_SMALL);
}

/* Three files of 10, 20 and 40 bytes. */
static const struct budget_file files[] = {{1, 1, 10, 10}, {1, 2, 20, 20}, {2, 1, 40, 40}};

static void a_file_that_several_have_counts_once(void **state)
{
    struct budget_holder h[] = {{.memory = {1, files, 2}}, {.memory = {2, files + 1, 2}}, {.memory = {3, files, 3}}};
    const struct budget_file twice[] = {files[0], files[0]};
    const struct budget_memory again = {5, files + 1, 1}, same = {.files = twice, .n_files = 2};
    uint64_t needed = 0, available = 0;

    assert_int_equal(budget_used(h, 1), 31);
    assert_int_equal(budget_used(h, 2), 73);
    assert_int_equal(budget_used(h, 3), 76);
    assert_int_equal(budget_make_room(78, &again, h, 2, &needed, &available), 0);
    assert_int_equal(budget_make_room(77, &again, h, 2, &needed, &available), BUDGET_TOO_SMALL);
    assert_int_equal(needed, 5);
    assert_int_equal(available, 4);
    assert_int_equal(budget_make_room(10, &same, h, 0, &needed, &available), 0);
    assert_int_equal(budget_make_room(9, &same, h, 0, &needed, &available), BUDGET_TOO_SMALL);
    assert_int_equal(needed, 10);
}

static void of_a_file_that_is_held_in_part_no_more_than_all_counts(void **state)
{
    /* Of 40 bytes 30, 25, and all. */
    const struct budget_file parts[] = {{2, 1, 40, 30}, {2, 1, 40, 25}, {2, 1, 40, 40}};
    struct budget_holder h[] = {
        {.memory = {1, parts, 1}}, {.memory = {2, parts + 1, 1}}, {.memory = {3, parts + 2, 1}, .may_leave = true}};
    const struct budget_memory more = {1, parts + 1, 1};
    uint64_t needed = 0, available = 0;

    assert_int_equal(budget_used(h, 1), 31);
    assert_int_equal(budget_used(h, 2), 43);
    assert_int_equal(budget_used(h, 3), 46);
    assert_int_equal(budget_make_room(42, &more, h, 1, &needed, &available), 0);
    assert_int_equal(budget_make_room(41, &more, h, 1, &needed, &available), BUDGET_TOO_SMALL);
    assert_int_equal(needed, 11);
    assert_int_equal(available, 10);
    /* What the last one has goes with it, if it has to. */
    assert_int_equal(budget_stays(h, 3), 43);
    assert_int_equal(budget_kept_bytes(h, 3, files, 3), 40);
    assert_int_equal(budget_kept_bytes(h, 1, files, 3), 30);
    assert_int_equal(budget_kept_bytes(h + 2, 1, files, 3), 0);
}

static void who_leaves_takes_only_what_nobody_else_has(void **state)
{
    struct budget_holder h[] = {
        {.memory = {1, files + 2, 1}, .may_leave = true, .used_us = 1},
        {.memory = {9, files, 1}, .may_leave = true, .used_us = 2},
        {.memory = {1, files + 2, 1}, .may_leave = true, .priority = 1},
    };
    const struct budget_memory five = {.own_bytes = 5}, forty = {.own_bytes = 40};
    uint64_t needed = 0, available = 0;

    assert_int_equal(budget_used(h, 3), 61);
    /* The first frees one byte, since the third keeps its file: the second has to go as well. */
    assert_int_equal(budget_make_room(61, &five, h, 3, &needed, &available), BUDGET_LATER);
    assert_true(h[0].leaves && h[1].leaves);
    assert_false(h[2].leaves);
    assert_int_equal(budget_make_room(61, &forty, h, 3, &needed, &available), BUDGET_LATER);
    assert_true(h[0].leaves && h[1].leaves && h[2].leaves);
    /* Its file comes with who asks: so nothing is gained by the first two. */
    h[2].may_leave = false;
    assert_int_equal(budget_make_room(61, &forty, h, 3, &needed, &available), BUDGET_TOO_SMALL);
    assert_int_equal(available, 20);
}

static void sums_that_are_too_large_stay_too_large(void **state)
{
    struct budget_holder h[] = {{.memory.own_bytes = UINT64_MAX - 5}, {.memory.own_bytes = 10}};
    uint64_t available = 0;

    assert_int_equal(budget_used(h, 2), UINT64_MAX);
    assert_int_equal(make_room(100, 1, h, 2, &available), BUDGET_TOO_SMALL);
    assert_int_equal(available, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_what_is_free_first),
        cmocka_unit_test(those_on_their_way_out_are_waited_for),
        cmocka_unit_test(lowest_priority_then_longest_unused_leaves),
        cmocka_unit_test(nobody_leaves_in_vain),
        cmocka_unit_test(a_budget_that_shrank_is_made_good),
        cmocka_unit_test(a_file_that_several_have_counts_once),
        cmocka_unit_test(of_a_file_that_is_held_in_part_no_more_than_all_counts),
        cmocka_unit_test(who_leaves_takes_only_what_nobody_else_has),
        cmocka_unit_test(sums_that_are_too_large_stay_too_large),
    };

    return cmocka_run_group_tests_name("budget", tests, NULL, NULL);
}
