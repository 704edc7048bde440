/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/units.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void reads_sizes(void **state)
{
    static const struct {
        const char *text;
        int r;
        uint64_t bytes;
    } cases[] = {
        {"0", 0, 0},
        {"4096", 0, 4096},
        {"8G", 0, 8589934592},
        {"512MiB", 0, 536870912},
        {"1.5K", 0, 1536},
        {"0.1G", 0, 107374182},
        {"9223372036854775807", 0, INT64_MAX},
        {"9223372036854775808", -ERANGE, 0},
        {"8388608T", -ERANGE, 0},
        {"99999999999999999999999", -ERANGE, 0},
        {"", -EINVAL, 0},
        {"G", -EINVAL, 0},
        {"-1", -EINVAL, 0},
        {"1 G", -EINVAL, 0},
        {"1g", -EINVAL, 0},
        {"1.", -EINVAL, 0},
        {"0x10", -EINVAL, 0},
        {"1GG", -EINVAL, 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        uint64_t bytes = 0;

        if (units_parse_size(cases[i].text, &bytes) != cases[i].r || bytes != cases[i].bytes)
            fail_msg("%s: %ju", cases[i].text, (uintmax_t)bytes);
    }
}

static void reads_shares(void **state)
{
    uint64_t bytes;

    assert_int_equal(units_parse_size_of("80%", 1000, &bytes), 0);
    assert_int_equal(bytes, 800);
    assert_int_equal(units_parse_size_of("12.5%", 1ull << 40, &bytes), 0);
    assert_int_equal(bytes, 1ull << 37);
    assert_int_equal(units_parse_size_of("101%", 1000, &bytes), -ERANGE);
    assert_int_equal(units_parse_size_of("%", 1000, &bytes), -EINVAL);
    assert_int_equal(units_parse_size_of("2K", 1000, &bytes), 0);
    assert_int_equal(bytes, 2048);
}

static void reads_durations(void **state)
{
    uint64_t us;

    assert_int_equal(units_parse_duration("10min", &us), 0);
    assert_int_equal(us, 600000000);
    assert_int_equal(units_parse_duration("1h 30min", &us), 0);
    assert_int_equal(us, 5400000000);
    assert_int_equal(units_parse_duration("500ms", &us), 0);
    assert_int_equal(us, 500000);
    assert_int_equal(units_parse_duration("90", &us), 0);
    assert_int_equal(us, 90000000);
    assert_int_equal(units_parse_duration("infinity", &us), 0);
    assert_true(us == UINT64_MAX);
    assert_int_equal(units_parse_duration("", &us), -EINVAL);
    assert_int_equal(units_parse_duration("1x", &us), -EINVAL);
    assert_int_equal(units_parse_duration("1h,", &us), -EINVAL);
    assert_int_equal(units_parse_duration("99999999999999w", &us), -ERANGE);
}

static void reads_counts(void **state)
{
    uint64_t n;

    assert_int_equal(units_parse_count("1M", &n), 0);
    assert_int_equal(n, 1000000);
    assert_int_equal(units_parse_count("20000", &n), 0);
    assert_int_equal(n, 20000);
    assert_int_equal(units_parse_count("1Mi", &n), -EINVAL);
}

static void writes_what_people_read(void **state)
{
    char b[UNITS_TEXT_MAX];

    assert_string_equal(units_format_size(0, b), "0B");
    assert_string_equal(units_format_size(999, b), "999B");
    assert_string_equal(units_format_size(1000, b), "1.0K");
    assert_string_equal(units_format_size(4692000000, b), "4.4G");
    assert_string_equal(units_format_size(150ull << 20, b), "150M");
    assert_string_equal(units_format_size(UINT64_MAX, b), "16.0E");
    assert_string_equal(units_format_duration(65000000, b), "1min 5s");
    assert_string_equal(units_format_duration(250000, b), "250ms");
    assert_string_equal(units_format_duration(3600000000, b), "1h");
    assert_string_equal(units_format_duration(UINT64_MAX, b), "infinity");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_sizes),  cmocka_unit_test(reads_shares),           cmocka_unit_test(reads_durations),
        cmocka_unit_test(reads_counts), cmocka_unit_test(writes_what_people_read),
    };

    return cmocka_run_group_tests_name("base/units", tests, NULL, NULL);
}
