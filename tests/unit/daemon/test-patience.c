/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/patience.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static void waiting_counts_while_the_loop_runs(void **state)
{
    struct patience p;

    patience_begin(&p, 1000);
    assert_int_equal(patience_look(&p, 1500, 500), 500);
    assert_int_equal(patience_look(&p, 2100, 500), 1100);
    /* A loop that is a little late has waited all the same. */
    assert_int_equal(patience_look(&p, 3100, 500), 2100);
    patience_begin(&p, 3200);
    assert_int_equal(patience_look(&p, 3300, 500), 100);
    assert_int_equal(p.lost_us, 0);
}

static void a_standstill_of_the_machine_does_not(void **state)
{
    struct patience p;

    patience_begin(&p, 0);
    assert_int_equal(patience_look(&p, 60000000, 500), 1000);
    assert_int_equal(patience_look(&p, 60000500, 500), 1500);
    assert_int_equal(p.lost_us, 60000000 - 1000);
    /* Nor does a clock that does not go on. */
    assert_int_equal(patience_look(&p, 60000400, 500), 1500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waiting_counts_while_the_loop_runs),
        cmocka_unit_test(a_standstill_of_the_machine_does_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
