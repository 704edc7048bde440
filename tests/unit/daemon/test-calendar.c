/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/calendar.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

static void zone(const char *tz)
{
    setenv("TZ", tz, 1);
    tzset();
}

static void hours_begin_with_the_local_hour(void **state)
{
    zone("UTC0");
    assert_int_equal(calendar_hour(1700003599), 1700002800);
    assert_int_equal(calendar_hour(1700002800), 1700002800);
    /* India: local hours begin at half past. */
    zone("IST-5:30");
    assert_int_equal(calendar_hour(1700004600), 1700004600);
    assert_int_equal(calendar_hour(1700004599), 1700001000);
}

static void days_begin_at_local_midnight(void **state)
{
    zone("UTC0");
    assert_int_equal(calendar_day(1700000000), 1699920000);
    assert_int_equal(calendar_next_day(1700000000), 1700006400);
    zone("IST-5:30");
    assert_int_equal(calendar_day(1700000000), 1699986600);
    assert_int_equal(calendar_next_day(1700000000), 1700073000);
}

static void days_may_have_23_or_25_hours(void **state)
{
    zone("CET-1CEST,M3.5.0,M10.5.0/3");
    /* 2023-03-26 and 2023-10-29, noon. */
    assert_int_equal(calendar_next_day(1679824800) - calendar_day(1679824800), 23 * 3600);
    assert_int_equal(calendar_next_day(1698577200) - calendar_day(1698577200), 25 * 3600);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hours_begin_with_the_local_hour),
        cmocka_unit_test(days_begin_at_local_midnight),
        cmocka_unit_test(days_may_have_23_or_25_hours),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
