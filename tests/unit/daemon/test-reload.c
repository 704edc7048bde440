/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/reload.h"

#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "daemon/internal.h"

/* A user database that answers when the test lets it. */
struct fixture {
    struct manager m;
    struct reload *reload;
    sem_t asked, may_answer;
    char dir[32], path[64];
    unsigned n_taken, n_done;
    int result;
};

static struct fixture *taking; /* manager_take_policy() gets none */

int manager_take_policy(struct manager *m, int result, struct policy *p_take, const struct fault *fault,
                        struct json_object **ret_changed)
{
    assert_ptr_equal(m, &taking->m);
    taking->n_taken++;
    policy_unref(p_take);
    if (result < 0)
        return REQUEST_REFUSED;
    *ret_changed = json_object_new_array();
    return 0;
}

static int slow_user(const char *name, uid_t *ret, void *userdata)
{
    struct fixture *f = userdata;

    sem_post(&f->asked);
    sem_wait(&f->may_answer);
    *ret = 7;
    return 0;
}

static int no_group(const char *name, gid_t *ret, void *userdata)
{
    return -ESRCH;
}

static void write_policy(const struct fixture *f, const char *text)
{
    FILE *file = fopen(f->path, "w");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int setup(void **state)
{
    struct fixture *f = taking = calloc(1, sizeof(*f));
    const struct policy_names names = {.user = slow_user, .group = no_group, .userdata = f};
    static struct policy_names kept;
    static const char *paths[1];

    assert_non_null(f);
    strcpy(f->dir, "/tmp/residentd-reload.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/policy.json", f->dir);
    write_policy(f, "{\"version\": 1, \"admins\": {\"users\": [\"somebody\"]}}");
    sem_init(&f->asked, 0, 0);
    sem_init(&f->may_answer, 0, 0);
    assert_return_code(sd_event_new(&f->m.event), 0);
    kept = names;
    paths[0] = f->path;
    assert_int_equal(reload_new(&f->m,
                                &(struct policy_options){
                                    .paths = paths, .n_paths = 1, .own_uid = geteuid(), .names = &kept},
                                &f->reload),
                     0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    reload_free(f->reload);
    sd_event_unref(f->m.event);
    unlink(f->path);
    rmdir(f->dir);
    sem_destroy(&f->asked);
    sem_destroy(&f->may_answer);
    free(f);
    return 0;
}

static void on_done(int result, struct json_object *changed, const struct fault *fault, void *userdata)
{
    struct fixture *f = userdata;

    f->n_done++;
    f->result = result;
}

static void run_until(struct fixture *f, unsigned n_done)
{
    while (f->n_done < n_done)
        assert_return_code(sd_event_run(f->m.event, UINT64_MAX), 0);
}

static void the_loop_goes_on_while_names_are_asked_for(void **state)
{
    struct fixture *f = *state;
    struct reload_wait *wait;

    assert_int_equal(reload_wait(f->reload, on_done, f, &wait), 0);
    sem_wait(&f->asked);
    assert_int_equal(sd_event_run(f->m.event, 0), 0);
    assert_int_equal(f->n_done, 0);
    sem_post(&f->may_answer);
    run_until(f, 1);
    assert_int_equal(f->result, 0);
    assert_int_equal(f->n_taken, 1);
}

static void who_asks_meanwhile_waits_for_another_reading(void **state)
{
    struct fixture *f = *state;
    struct reload_wait *first, *second, *third;

    assert_int_equal(reload_wait(f->reload, on_done, f, &first), 0);
    sem_wait(&f->asked);
    assert_int_equal(reload_wait(f->reload, on_done, f, &second), 0);
    assert_int_equal(reload_wait(f->reload, on_done, f, &third), 0);
    write_policy(f, "{\"version\": 1, \"admins\": 7}");
    sem_post(&f->may_answer);
    run_until(f, 1);
    assert_int_equal(f->result, 0);
    run_until(f, 3);
    assert_int_equal(f->result, REQUEST_REFUSED);
    assert_int_equal(f->n_taken, 2);
}

static void a_wait_that_is_called_off_is_not_answered(void **state)
{
    struct fixture *f = *state;
    struct reload_wait *wait;

    assert_int_equal(reload_wait(f->reload, on_done, f, &wait), 0);
    assert_null(reload_wait_cancel(wait));
    sem_post(&f->may_answer);
    while (f->n_taken == 0)
        assert_return_code(sd_event_run(f->m.event, UINT64_MAX), 0);
    assert_int_equal(f->n_done, 0);
}

static void the_end_waits_for_the_reading(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(reload_start(f->reload), 0);
    sem_wait(&f->asked);
    sem_post(&f->may_answer);
    f->reload = reload_free(f->reload);
    assert_int_equal(f->n_taken, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_loop_goes_on_while_names_are_asked_for),
        TEST(who_asks_meanwhile_waits_for_another_reading),
        TEST(a_wait_that_is_called_off_is_not_answered),
        TEST(the_end_waits_for_the_reading),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
