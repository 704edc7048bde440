/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/mapread.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define PAGES 4
#define PAGE_BYTES 4096

struct summing {
    const uint8_t *from;
    unsigned sum;
    bool is_done;
};

static void sum_all(void *userdata)
{
    struct summing *s = userdata;

    for (size_t i = 0; i < (size_t)PAGES * PAGE_BYTES; i++)
        s->sum += s->from[i];
    s->is_done = true;
}

/* A file of ones, of which only the first @n_pages are left behind the mapping. */
static const uint8_t *map_of(unsigned n_pages)
{
    int fd = memfd_create("mapread", MFD_CLOEXEC);
    uint8_t *at;

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)PAGES * PAGE_BYTES), 0);
    at = mmap(NULL, (size_t)PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(at, MAP_FAILED);
    memset(at, 1, (size_t)PAGES * PAGE_BYTES);
    assert_int_equal(ftruncate(fd, (off_t)n_pages * PAGE_BYTES), 0);
    close(fd);
    return at;
}

static void unmap(const uint8_t *at)
{
    munmap((void *)(uintptr_t)at, (size_t)PAGES * PAGE_BYTES);
}

static void reads_what_is_there(void **state)
{
    struct summing s = {.from = map_of(PAGES)};
    struct mapread *m;

    assert_int_equal(mapread_new(&m), 0);
    assert_int_equal(mapread_call(m, sum_all, &s), 0);
    assert_true(s.is_done);
    assert_int_equal(s.sum, PAGES * PAGE_BYTES);
    mapread_free(m);
    unmap(s.from);
}

static void pages_that_are_gone_are_an_error_each_time(void **state)
{
    struct summing s = {.from = map_of(1)};
    stack_t before, after;
    struct mapread *m;
    sigset_t mask;

    assert_int_equal(mapread_new(&m), 0);
    assert_int_equal(sigaltstack(NULL, &before), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(mapread_call(m, sum_all, &s), -EFAULT);
    assert_false(s.is_done);
    assert_int_equal(sigaltstack(NULL, &after), 0);
    assert_ptr_equal(before.ss_sp, after.ss_sp);
    assert_int_equal(before.ss_flags, after.ss_flags);
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    assert_false(sigismember(&mask, SIGBUS));
    mapread_free(m);
    unmap(s.from);
}

static void *read_with_all_signals_blocked(void *userdata)
{
    struct summing *s = userdata;
    struct mapread *m;
    sigset_t all, mask;
    intptr_t r = mapread_new(&m);

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    if (r == 0) {
        r = mapread_call(m, sum_all, s);
        mapread_free(m);
    }
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    return (void *)(sigismember(&mask, SIGBUS) ? r : 1);
}

static void threads_do_not_meet_the_pages_of_others(void **state)
{
    struct summing whole = {.from = map_of(PAGES)}, cut = {.from = map_of(2)};
    struct summing each[8];
    pthread_t threads[8];
    void *r;

    for (int i = 0; i < 8; i++) {
        each[i] = i % 2 ? cut : whole;
        assert_int_equal(pthread_create(&threads[i], NULL, read_with_all_signals_blocked, &each[i]), 0);
    }
    for (int i = 0; i < 8; i++) {
        assert_int_equal(pthread_join(threads[i], &r), 0);
        assert_int_equal((intptr_t)r, i % 2 ? -EFAULT : 0);
    }
    unmap(whole.from);
    unmap(cut.from);
}

static void elsewhere_it_ends_the_process_as_ever(void **state)
{
    struct summing s = {.from = map_of(1)};
    struct mapread *m;
    int status;
    pid_t child;

    assert_int_equal(mapread_new(&m), 0);
    assert_int_equal(mapread_call(m, sum_all, &s), -EFAULT);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(20);
        sum_all(&s);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGBUS);
    mapread_free(m);
    unmap(s.from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_is_there),
        cmocka_unit_test(pages_that_are_gone_are_an_error_each_time),
        cmocka_unit_test(threads_do_not_meet_the_pages_of_others),
        cmocka_unit_test(elsewhere_it_ends_the_process_as_ever),
    };

    return cmocka_run_group_tests_name("mapread", tests, NULL, NULL);
}
