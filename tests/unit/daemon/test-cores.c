/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cores.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void are(const struct cores_claim *claims, const uint32_t *expected, size_t n)
{
    for (size_t i = 0; i < n; i++)
        assert_int_equal(claims[i].n_threads, expected[i]);
}

static void one_model_has_all(void **state)
{
    struct cores_claim claim = {.priority = -5};

    cores_share(2, &claim, 1);
    assert_int_equal(claim.n_threads, 2);
}

static void two_models_halve_them(void **state)
{
    struct cores_claim claims[] = {{.priority = 10, .n_requests = 9}, {.priority = 0, .n_requests = 1}};

    cores_share(2, claims, 2);
    are(claims, (const uint32_t[]){1, 1}, 2);
    cores_share(8, claims, 2);
    are(claims, (const uint32_t[]){4, 4}, 2);
}

static void a_rest_goes_to_priority_then_to_need(void **state)
{
    struct cores_claim claims[] = {{.n_requests = 1}, {.n_requests = 3}, {.priority = 1}};

    cores_share(10, claims, 3);
    are(claims, (const uint32_t[]){3, 3, 4}, 3);
    cores_share(11, claims, 3);
    are(claims, (const uint32_t[]){3, 4, 4}, 3);
    cores_share(12, claims, 3);
    are(claims, (const uint32_t[]){4, 4, 4}, 3);
}

static void equals_are_served_in_order(void **state)
{
    struct cores_claim claims[3] = {{.n_requests = 0}};

    cores_share(4, claims, 3);
    are(claims, (const uint32_t[]){2, 1, 1}, 3);
}

static void nobody_has_none(void **state)
{
    struct cores_claim claims[5] = {{.n_requests = 0}};

    cores_share(2, claims, 5);
    are(claims, (const uint32_t[]){1, 1, 1, 1, 1}, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_model_has_all),
        cmocka_unit_test(two_models_halve_them),
        cmocka_unit_test(a_rest_goes_to_priority_then_to_need),
        cmocka_unit_test(equals_are_served_in_order),
        cmocka_unit_test(nobody_has_none),
    };

    return cmocka_run_group_tests_name("cores", tests, NULL, NULL);
}
