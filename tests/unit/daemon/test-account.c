/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/account.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void grants_up_to_the_limit(void **state)
{
    struct account_charge charges[512] = {{.account = NULL}}, one_more = ACCOUNT_CHARGE_NULL;
    _cleanup_(accounts_freep) struct accounts *a = NULL;

    assert_int_equal(accounts_new(&a), 0);
    for (size_t i = 0; i < 512; i++)
        assert_int_equal(account_charge(a, 1000, ACCOUNT_CONNECTIONS, 1, 512, &charges[i]), 0);
    assert_int_equal(account_charge(a, 1000, ACCOUNT_CONNECTIONS, 1, 512, &one_more), ACCOUNT_FULL);
    assert_null(one_more.account);
    assert_int_equal(account_used(a, 1000, ACCOUNT_CONNECTIONS), 512);
    /* Other slots and other users are not touched by it. */
    assert_int_equal(account_charge(a, 1000, ACCOUNT_BYTES, 1, 1, &one_more), 0);
    account_discharge(&one_more);
    assert_int_equal(account_charge(a, 1001, ACCOUNT_CONNECTIONS, 1, 1, &one_more), 0);
    account_discharge(&one_more);
    account_discharge(&charges[7]);
    assert_int_equal(account_charge(a, 1000, ACCOUNT_CONNECTIONS, 1, 512, &one_more), 0);
    account_discharge(&one_more);
    for (size_t i = 0; i < 512; i++)
        account_discharge(&charges[i]);
    assert_int_equal(account_used(a, 1000, ACCOUNT_CONNECTIONS), 0);
}

static void resizes_and_moves(void **state)
{
    struct account_charge x = ACCOUNT_CHARGE_NULL, y = ACCOUNT_CHARGE_NULL;
    _cleanup_(accounts_freep) struct accounts *a = NULL;

    assert_int_equal(accounts_new(&a), 0);
    assert_int_equal(account_charge(a, 5, ACCOUNT_BYTES, 0, 100, &x), 0);
    assert_int_equal(account_resize(&x, 60, 100), 0);
    assert_int_equal(account_charge(a, 5, ACCOUNT_BYTES, 41, 100, &y), ACCOUNT_FULL);
    assert_int_equal(account_charge(a, 5, ACCOUNT_BYTES, 40, 100, &y), 0);
    assert_int_equal(account_resize(&x, 61, 100), ACCOUNT_FULL);
    assert_int_equal(account_resize(&x, UINT64_MAX, UINT64_MAX), ACCOUNT_FULL);
    /* Shrinking works above the limit, too: a limit may have become smaller. */
    assert_int_equal(account_resize(&x, 10, 0), 0);
    assert_int_equal(account_used(a, 5, ACCOUNT_BYTES), 50);
    assert_int_equal(account_move(&x, ACCOUNT_QUEUED, 9), ACCOUNT_FULL);
    assert_int_equal(account_used(a, 5, ACCOUNT_BYTES), 50);
    assert_int_equal(account_move(&x, ACCOUNT_QUEUED, 10), 0);
    assert_int_equal(account_used(a, 5, ACCOUNT_BYTES), 40);
    assert_int_equal(account_used(a, 5, ACCOUNT_QUEUED), 10);
    account_discharge(&x);
    account_discharge(&x); /* an empty one is left alone */
    account_discharge(&y);
}

static void what_a_container_holds_becomes_its_owners(void **state)
{
    struct account_charge x = ACCOUNT_CHARGE_NULL, y = ACCOUNT_CHARGE_NULL;
    _cleanup_(accounts_freep) struct accounts *a = NULL;

    assert_int_equal(accounts_new(&a), 0);
    assert_int_equal(account_charge(a, 100000, ACCOUNT_CONNECTIONS, 1, 2, &x), 0);
    assert_int_equal(account_charge(a, 1000, ACCOUNT_CONNECTIONS, 2, 2, &y), 0);
    assert_int_equal(account_rehome(&x, 1000, 2), ACCOUNT_FULL);
    assert_int_equal(account_used(a, 100000, ACCOUNT_CONNECTIONS), 1);
    assert_int_equal(account_rehome(&x, 1000, 3), 0);
    assert_int_equal(account_used(a, 100000, ACCOUNT_CONNECTIONS), 0);
    assert_int_equal(account_used(a, 1000, ACCOUNT_CONNECTIONS), 3);
    assert_int_equal(account_rehome(&x, 1000, 0), 0); /* it is there already */
    account_discharge(&x);
    account_discharge(&y);
}

static void share_shrinks_with_the_number_of_holders(void **state)
{
    struct account_charge charges[100] = {{.account = NULL}};
    _cleanup_(accounts_freep) struct accounts *a = NULL;

    assert_int_equal(accounts_new(&a), 0);
    assert_int_equal(account_share(a, 1, ACCOUNT_CONNECTIONS, 1000), 500);
    assert_int_equal(account_charge(a, 1, ACCOUNT_CONNECTIONS, 500, 500, &charges[0]), 0);
    /* What it holds itself does not count against it; what it holds of something else does not for others. */
    assert_int_equal(account_share(a, 1, ACCOUNT_CONNECTIONS, 1000), 500);
    assert_int_equal(account_share(a, 2, ACCOUNT_CONNECTIONS, 1000), 166);
    assert_int_equal(account_share(a, 2, ACCOUNT_BYTES, 1000), 500);
    for (uid_t uid = 2; uid <= 100; uid++)
        assert_int_equal(account_charge(a, uid, ACCOUNT_CONNECTIONS, 5, UINT64_MAX, &charges[uid - 1]), 0);
    assert_int_equal(account_share(a, 1, ACCOUNT_CONNECTIONS, 1000), 5);
    /* A newcomer finds a place as long as there is one. */
    assert_int_equal(account_share(a, 200, ACCOUNT_CONNECTIONS, 1000), 1);
    assert_int_equal(account_share(a, 200, ACCOUNT_CONNECTIONS, 995), 0);
    for (size_t i = 0; i < 100; i++)
        account_discharge(&charges[i]);
}

static void unknown_users_are_nobody_in_the_list(void **state)
{
    _cleanup_(accounts_freep) struct accounts *a = NULL;
    _cleanup_free_ struct account_status *list = NULL;
    struct account_charge x = ACCOUNT_CHARGE_NULL, y = ACCOUNT_CHARGE_NULL;
    size_t n = 9;

    assert_int_equal(accounts_new(&a), 0);
    assert_int_equal(account_charge(a, ACCOUNT_UNKNOWN, ACCOUNT_CONNECTIONS, 1, 1, &x), 0);
    assert_int_equal(account_charge(a, 7, ACCOUNT_CONNECTIONS, 1, 1, &y), 0);
    assert_int_equal(accounts_list(a, &list, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(list[0].uid, 7);
    account_discharge(&x);
    account_discharge(&y);
}

static void lists_holders_by_uid(void **state)
{
    static const uid_t uids[] = {7, 3, 4000000000u, 5};
    struct account_charge charges[4] = {{.account = NULL}};
    _cleanup_(accounts_freep) struct accounts *a = NULL;
    struct account_status *list;
    size_t n;

    assert_int_equal(accounts_new(&a), 0);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(account_charge(a, uids[i], ACCOUNT_REQUESTS, i + 1, UINT64_MAX, &charges[i]), 0);
    account_discharge(&charges[3]);
    assert_int_equal(accounts_list(a, &list, &n), 0);
    assert_int_equal(n, 3);
    assert_int_equal(list[0].uid, 3);
    assert_int_equal(list[0].used[ACCOUNT_REQUESTS], 2);
    assert_int_equal(list[1].uid, 7);
    assert_int_equal(list[2].uid, 4000000000u);
    free(list);
    for (size_t i = 0; i < 4; i++)
        account_discharge(&charges[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grants_up_to_the_limit),
        cmocka_unit_test(resizes_and_moves),
        cmocka_unit_test(share_shrinks_with_the_number_of_holders),
        cmocka_unit_test(unknown_users_are_nobody_in_the_list),
        cmocka_unit_test(what_a_container_holds_becomes_its_owners),
        cmocka_unit_test(lists_holders_by_uid),
    };

    return cmocka_run_group_tests_name("account", tests, NULL, NULL);
}
