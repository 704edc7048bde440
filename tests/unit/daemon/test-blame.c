/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/blame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define S UINT64_C(1000000)
#define START (100 * S)

static void one_crash_is_nobodys_fault(void **state)
{
    static const uid_t both[] = {7, 8, 7, 7};
    struct blame *b;

    assert_int_equal(blame_new(&b), 0);
    /* Three requests of one user in one step are one crash. */
    blame_crash(b, "m", both, 4, START);
    assert_int_equal(blame_delay_us(b, "m", 7, START), 0);
    assert_int_equal(blame_delay_us(b, "m", 8, START), 0);
    blame_free(b);
}

static void who_was_in_two_has_to_wait(void **state)
{
    static const uid_t first[] = {7, 8}, second[] = {9, 7};
    struct blame *b;

    assert_int_equal(blame_new(&b), 0);
    blame_crash(b, "m", first, 2, START);
    blame_crash(b, "other", second, 2, START);
    assert_int_equal(blame_delay_us(b, "m", 7, START), 0);
    blame_crash(b, "m", second, 2, START + 5 * S);
    assert_int_equal(blame_delay_us(b, "m", 7, START + 5 * S), 30 * S);
    assert_int_equal(blame_delay_us(b, "m", 7, START + 34 * S), 1 * S);
    assert_int_equal(blame_delay_us(b, "m", 7, START + 35 * S), 0);
    /* Nobody else, and of no other model. */
    assert_int_equal(blame_delay_us(b, "m", 8, START + 5 * S), 0);
    assert_int_equal(blame_delay_us(b, "m", 9, START + 5 * S), 0);
    assert_int_equal(blame_delay_us(b, "other", 7, START + 5 * S), 0);
    blame_free(b);
}

static void each_crash_doubles_it_and_an_hour_forgets(void **state)
{
    static const uint64_t delays[] = {0, 30, 60, 120, 240, 480, 600, 600};
    const uid_t uid = 7;
    uint64_t now = START;
    struct blame *b;

    assert_int_equal(blame_new(&b), 0);
    for (size_t i = 0; i < sizeof(delays) / sizeof(*delays); i++, now += 700 * S) {
        blame_crash(b, "m", &uid, 1, now);
        assert_int_equal(blame_delay_us(b, "m", 7, now), delays[i] * S);
    }
    now += 3601 * S;
    blame_crash(b, "m", &uid, 1, now);
    assert_int_equal(blame_delay_us(b, "m", 7, now), 0);
    blame_free(b);
}

static void the_oldest_gives_way(void **state)
{
    struct blame *b;

    assert_int_equal(blame_new(&b), 0);
    for (uid_t uid = 0; uid <= BLAME_ENTRIES_MAX; uid++)
        blame_crash(b, "m", &uid, 1, START + uid);
    for (uid_t uid = 0; uid <= BLAME_ENTRIES_MAX; uid += BLAME_ENTRIES_MAX)
        blame_crash(b, "m", &uid, 1, START + BLAME_ENTRIES_MAX + 1);
    assert_int_equal(blame_delay_us(b, "m", 0, START + BLAME_ENTRIES_MAX + 1), 0);
    assert_int_equal(blame_delay_us(b, "m", BLAME_ENTRIES_MAX, START + BLAME_ENTRIES_MAX + 1), 30 * S);
    blame_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_crash_is_nobodys_fault),
        cmocka_unit_test(who_was_in_two_has_to_wait),
        cmocka_unit_test(each_crash_doubles_it_and_an_hour_forgets),
        cmocka_unit_test(the_oldest_gives_way),
    };

    return cmocka_run_group_tests_name("blame", tests, NULL, NULL);
}
