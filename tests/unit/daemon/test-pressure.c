/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/pressure.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void the_ten_second_average_is_read(void **state)
{
    double value = -1;

    assert_true(pressure_parse("some avg10=12.50 avg60=3.00 avg300=1.00 total=99\nfull avg10=1.00\n", &value));
    assert_true(value == 12.5);
    assert_true(pressure_parse("full avg10=1.00 avg60=0\nsome avg10=0.00 avg60=3\n", &value));
    assert_true(value == 0);
}

static void anything_else_is_no_pressure(void **state)
{
    static const char *const texts[] = {"",         "some", "some avg10=", "some avg10=x", "full avg10=3.00 avg60=1",
                                        "awesome avg10=3", "some avg10=-1", "some avg10=101", "some avg10=nan"};
    double value = 7;

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_false(pressure_parse(texts[i], &value));
    assert_true(value == 7);
    assert_int_equal(pressure_read("/nonexistent/pressure", &value), -ENOENT);
    assert_int_equal(pressure_read("/dev/null", &value), -EINVAL);
}

static void the_kernel_is_asked_where_it_answers(void **state)
{
    double value = -1;
    char *path = NULL;
    int r = pressure_path(&path);

    if (r == -ENOENT)
        skip();
    assert_int_equal(r, 0);
    assert_int_equal(pressure_read(path, &value), 0);
    assert_true(value >= 0 && value <= 100);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_ten_second_average_is_read),
        cmocka_unit_test(anything_else_is_no_pressure),
        cmocka_unit_test(the_kernel_is_asked_where_it_answers),
    };

    return cmocka_run_group_tests_name("pressure", tests, NULL, NULL);
}
