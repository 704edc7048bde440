/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Questions to a user database that is as slow as the test wants: nobody but those who wait for its answers may notice.
 */
#include "daemon/nss.h"

#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define NOBODY 77

static sem_t may_answer;
static atomic_uint n_lookups;

static int lookup(uid_t uid, struct nss_user *ret)
{
    while (sem_wait(&may_answer) < 0)
        ;
    n_lookups++;
    if (uid == NOBODY)
        return -ESRCH;
    ret->name = strdup("somebody");
    ret->groups = malloc(2 * sizeof(*ret->groups));
    if (!ret->name || !ret->groups)
        return -ENOMEM;
    ret->groups[0] = uid;
    ret->groups[1] = uid + 1;
    ret->n_groups = 2;
    return 0;
}

struct fixture {
    sd_event *event;
    struct nss *nss;
};

struct asked {
    struct nss_query *query;
    unsigned n_answers;
    int error;
    uid_t uid;
    gid_t last_group;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    n_lookups = 0;
    if (!f || sem_init(&may_answer, 0, 0) < 0 || sd_event_new(&f->event) < 0 || nss_new(f->event, lookup, &f->nss) < 0)
        return -1;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    /* The one that runs is waited for. */
    sem_post(&may_answer);
    nss_free(f->nss);
    sd_event_unref(f->event);
    sem_destroy(&may_answer);
    free(f);
    return 0;
}

static void on_answer(int error, const struct nss_user *user, void *userdata)
{
    struct asked *a = userdata;

    a->query = NULL;
    a->n_answers++;
    a->error = error;
    a->uid = user ? user->uid : 0;
    a->last_group = user ? user->groups[user->n_groups - 1] : 0;
}

static void ask(struct fixture *f, uid_t uid, struct asked *a)
{
    *a = (struct asked){.n_answers = 0};
    assert_int_equal(nss_ask(f->nss, uid, on_answer, a, &a->query), 0);
    assert_int_equal(a->n_answers, 0);
}

static void run_until(struct fixture *f, const struct asked *a)
{
    while (a->n_answers == 0)
        assert_true(sd_event_run(f->event, 60 * 1000000) > 0);
}

static int on_time(sd_event_source *s, uint64_t usec, void *userdata)
{
    *(bool *)userdata = true;
    return 0;
}

static void the_loop_goes_on_while_the_database_thinks(void **state)
{
    struct fixture *f = *state;
    struct asked slow;
    bool ticked = false;

    ask(f, 5, &slow);
    assert_true(sd_event_add_time_relative(f->event, NULL, CLOCK_MONOTONIC, 20000, 1, on_time, &ticked) >= 0);
    while (!ticked)
        assert_true(sd_event_run(f->event, 60 * 1000000) >= 0);
    assert_int_equal(slow.n_answers, 0);
    sem_post(&may_answer);
    run_until(f, &slow);
    assert_int_equal(slow.error, 0);
    assert_int_equal(slow.uid, 5);
    assert_int_equal(slow.last_group, 6);
}

static void one_lookup_serves_all_who_ask(void **state)
{
    struct fixture *f = *state;
    struct asked a, b, later;

    ask(f, 5, &a);
    ask(f, 5, &b);
    sem_post(&may_answer);
    run_until(f, &a);
    run_until(f, &b);
    /* From memory: the database would not answer. */
    ask(f, 5, &later);
    run_until(f, &later);
    assert_int_equal(later.last_group, 6);
    assert_int_equal(n_lookups, 1);
}

static void who_gave_up_is_not_answered(void **state)
{
    struct fixture *f = *state;
    struct asked gone, waits;

    ask(f, 5, &gone);
    ask(f, 8, &waits);
    gone.query = nss_query_cancel(gone.query);
    assert_null(gone.query);
    sem_post(&may_answer);
    sem_post(&may_answer);
    run_until(f, &waits);
    assert_int_equal(waits.last_group, 9);
    assert_int_equal(gone.n_answers, 0);
}

static void nobody_is_an_answer(void **state)
{
    struct fixture *f = *state;
    struct asked a;

    ask(f, NOBODY, &a);
    sem_post(&may_answer);
    run_until(f, &a);
    assert_int_equal(a.error, -ESRCH);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_loop_goes_on_while_the_database_thinks),
        TEST(one_lookup_serves_all_who_ask),
        TEST(who_gave_up_is_not_answered),
        TEST(nobody_is_an_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
