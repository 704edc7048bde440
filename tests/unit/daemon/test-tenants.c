/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/tenants.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const struct tenant_rules plain = {.weight = 100};

static uint32_t begin(struct tenants *t, uid_t uid, uint64_t request, bool expect_changed)
{
    uint32_t number = 0;
    bool changed;

    assert_int_equal(tenants_begin(t, uid, request, &plain, &number, &changed), 0);
    assert_int_equal(changed, expect_changed);
    assert_true(number > 0);
    return number;
}

static void a_user_has_one_number(void **state)
{
    struct tenant_rules heavy = {.weight = 200, .kv_max_bytes = 5, .tenant_class = 1001, .class_weight = 7};
    struct tenants *t;
    uint32_t alice, bob, number;
    bool changed;
    uid_t uid;

    assert_int_equal(tenants_new(&t), 0);
    assert_false(tenants_uid(t, 0, &uid));
    assert_false(tenants_uid(t, 1, &uid));
    alice = begin(t, 1001, 1, true);
    assert_int_equal(begin(t, 1001, 2, false), alice);
    bob = begin(t, 1001 + 1024, 3, true); /* in the same bucket */
    assert_int_not_equal(alice, bob);
    assert_true(tenants_uid(t, alice, &uid) && uid == 1001);
    assert_true(tenants_uid(t, bob, &uid) && uid == 1001 + 1024);
    /* Told again when anything of it is new. */
    assert_int_equal(tenants_begin(t, 1001, 4, &heavy, &number, &changed), 0);
    assert_true(changed && number == alice);
    assert_int_equal(tenants_begin(t, 1001, 5, &heavy, &number, &changed), 0);
    assert_false(changed);
    heavy.class_weight++;
    assert_int_equal(tenants_begin(t, 1001, 6, &heavy, &number, &changed), 0);
    assert_true(changed);
    tenants_end(t, 12345);
    tenants_free(t);
    assert_null(tenants_free(NULL));
}

static void the_longest_idle_are_forgotten(void **state)
{
    enum { N = 3 * TENANTS_IDLE_MAX };
    uint32_t numbers[N], n_forgotten = 0, number;
    struct tenants *t;
    uid_t uid;

    assert_int_equal(tenants_new(&t), 0);
    for (uid_t i = 0; i < N; i++)
        numbers[i] = begin(t, 5000 + i, i, true);
    /* However many there are: who has something with the worker stays. */
    assert_int_equal(tenants_count(t), N);
    assert_int_equal(tenants_excess(t), 0);
    for (uid_t i = 1; i < N; i++)
        tenants_end(t, i);
    while ((number = tenants_excess(t)) != 0) {
        n_forgotten++;
        assert_int_equal(number, numbers[n_forgotten]);
        assert_false(tenants_uid(t, number, &uid));
    }
    assert_int_equal(n_forgotten, N - 1 - TENANTS_IDLE_MAX);
    assert_int_equal(tenants_count(t), TENANTS_IDLE_MAX + 1);
    assert_true(tenants_uid(t, numbers[0], &uid) && uid == 5000);
    /* One that comes back is somebody new to the worker, with a number that nobody had. */
    assert_int_equal(begin(t, 5001, N, true), N + 1);
    /* One that was idle is not, with something to do; and ended twice is ended once. */
    assert_int_equal(begin(t, 5000 + N - 1, N + 1, false), numbers[N - 1]);
    assert_int_equal(tenants_excess(t), 0);
    tenants_end(t, N + 1);
    tenants_end(t, N + 1);
    tenants_end(t, 0);
    assert_int_equal(tenants_excess(t), numbers[n_forgotten + 1]);
    assert_int_equal(tenants_excess(t), 0);
    tenants_free(t);
}

static void pages_are_held_until_the_last_request_is_over(void **state)
{
    static const struct tenant_rules rules = {.weight = 100};
    _cleanup_(tenants_freep) struct tenants *t = NULL;
    uint32_t number;
    bool changed;

    assert_int_equal(tenants_new(&t), 0);
    assert_int_equal(tenants_begin(t, 1000, 1, &rules, &number, &changed), 0);
    assert_int_equal(tenants_begin(t, 1000, 2, &rules, &number, &changed), 0);
    assert_int_equal(tenants_pages(t, 1000), 0);
    tenants_set_pages(t, number, 7);
    tenants_set_pages(t, number + 1, 9); /* nobody */
    assert_int_equal(tenants_pages(t, 1000), 7);
    assert_int_equal(tenants_pages(t, 1001), 0);
    tenants_end(t, 1);
    assert_int_equal(tenants_pages(t, 1000), 7);
    tenants_end(t, 2);
    tenants_set_pages(t, number, 3); /* said before, heard afterwards */
    assert_int_equal(tenants_pages(t, 1000), 0);
}

static void what_was_spent_elsewhere_is_told_in_portions(void **state)
{
    struct tenants *t;
    uint32_t alice;
    uint64_t ns = 0;

    assert_int_equal(tenants_new(&t), 0);
    /* Nobody who is not here, and none who has nothing here. */
    assert_int_equal(tenants_spend(t, 1001, 5 * TENANTS_SPENT_NS, &ns), 0);
    alice = begin(t, 1001, 1, true);
    assert_int_equal(tenants_spend(t, 1002, 5 * TENANTS_SPENT_NS, &ns), 0);
    assert_int_equal(tenants_spend(t, 1001, TENANTS_SPENT_NS - 1, &ns), 0);
    assert_int_equal(tenants_spend(t, 1001, 1, &ns), alice);
    assert_int_equal(ns, TENANTS_SPENT_NS);
    assert_int_equal(tenants_spend(t, 1001, TENANTS_SPENT_NS - 1, &ns), 0);
    /* With its last request it is forgotten what it was. */
    tenants_end(t, 1);
    assert_int_equal(tenants_spend(t, 1001, 5 * TENANTS_SPENT_NS, &ns), 0);
    (void)begin(t, 1001, 2, false);
    assert_int_equal(tenants_spend(t, 1001, TENANTS_SPENT_NS - 1, &ns), 0);
    assert_int_equal(tenants_spend(t, 1001, UINT64_MAX, &ns), alice);
    assert_int_equal(ns, UINT64_MAX);
    tenants_end(t, 2);
    tenants_free(t);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_are_held_until_the_last_request_is_over),
        cmocka_unit_test(what_was_spent_elsewhere_is_told_in_portions),
        cmocka_unit_test(a_user_has_one_number),
        cmocka_unit_test(the_longest_idle_are_forgotten),
    };

    return cmocka_run_group_tests_name("tenants", tests, NULL, NULL);
}
