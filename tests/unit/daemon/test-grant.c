/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/grant.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>


static void count(void *userdata)
{
    ++*(unsigned *)userdata;
}

static void comes_back_with_its_last_holder(void **state)
{
    unsigned n_back = 0;
    struct grants grants = {.came_back = count, .userdata = &n_back};
    struct grant *g, *worker, *residency;

    list_init(&grants.all);
    assert_int_equal(grant_new(&grants, &g), 0);
    residency = grant_ref(g);
    worker = grant_ref(g);
    assert_int_equal(grant_set(g, 100, NULL, 0), 0);
    g->is_given = true;
    grant_unref(residency);
    assert_null(grant_leave(g));
    assert_int_equal(n_back, 0);
    assert_true(worker->is_leaving);
    assert_int_equal(grant_bytes(worker), 100);
    assert_ptr_equal(grants.all.next, &worker->entry);
    grant_unref(worker);
    assert_int_equal(n_back, 1);
    assert_true(list_is_empty(&grants.all));
    assert_null(grant_leave(NULL));
}

static void counts_from_when_it_is_given(void **state)
{
    unsigned n_back = 0;
    struct grants grants = {.came_back = count, .userdata = &n_back};
    struct grant *g;

    list_init(&grants.all);
    assert_int_equal(grant_bytes(NULL), 0);
    assert_int_equal(grant_new(&grants, &g), 0);
    assert_int_equal(grant_set(g, 100, NULL, 0), 0);
    assert_int_equal(grant_bytes(g), 0);
    g->is_given = true;
    assert_int_equal(grant_bytes(g), 100);
    grant_leave(g);
}

static void has_its_own_and_parts_of_files(void **state)
{
    static const struct budget_file files[] = {{1, 2, 60, 60}, {1, 3, 30, 10}};
    unsigned n_back = 0;
    struct grants grants = {.came_back = count, .userdata = &n_back};
    struct grant *g;

    list_init(&grants.all);
    assert_int_equal(grant_new(&grants, &g), 0);
    g->is_given = true;
    assert_int_equal(grant_set(g, 100, files, 2), 0);
    assert_int_equal(g->memory.own_bytes, 100);
    assert_int_equal(g->memory.n_files, 2);
    assert_int_equal(g->memory.files[1].inode, 3);
    assert_int_equal(grant_bytes(g), 170);
    assert_int_equal(grant_set(g, 70, files, 1), 0);
    assert_int_equal(g->memory.n_files, 1);
    assert_int_equal(grant_bytes(g), 130);
    grant_leave(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_with_its_last_holder),
        cmocka_unit_test(counts_from_when_it_is_given),
        cmocka_unit_test(has_its_own_and_parts_of_files),
    };

    return cmocka_run_group_tests_name("grant", tests, NULL, NULL);
}
