/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/trust.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct place {
    char dir[64], inner[80], file[96];
};

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static int setup(void **state)
{
    struct place *t = calloc(1, sizeof(*t));
    int fd;

    if (!t)
        return -1;
    umask(022);
    snprintf(t->dir, sizeof(t->dir), "/tmp/residentd-trust.XXXXXX");
    if (!mkdtemp(t->dir))
        return -1;
    snprintf(t->inner, sizeof(t->inner), "%s/inner", t->dir);
    snprintf(t->file, sizeof(t->file), "%s/file", t->inner);
    if (mkdir(t->inner, 0755) < 0)
        return -1;
    fd = open(t->file, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0)
        return -1;
    close(fd);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct place *t = *state;

    nftw(t->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    free(t);
    return 0;
}

static void expect(const char *path, unsigned flags, int r, const char *at, const char *reason)
{
    struct trust_error why = {.reason = ""};
    int fd = -EBADF;

    assert_int_equal(trust_open(path, geteuid(), flags, &fd, &why), r);
    if (r == 0) {
        assert_true(fd >= 0);
        assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
        assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
        close(fd);
        return;
    }
    assert_int_equal(fd, -EBADF);
    if (reason) {
        assert_string_equal(why.reason, reason);
        assert_string_equal(why.path, at);
    }
}

static void opens_what_only_we_can_change(void **state)
{
    struct place *t = *state;

    expect(t->file, 0, 0, NULL, NULL);
    expect(t->file, TRUST_NO_GROUP, 0, NULL, NULL);
    expect(t->inner, TRUST_DIRECTORY, 0, NULL, NULL);
    expect("/nonexistent", 0, -ENOENT, NULL, NULL);
}

static void looks_at_every_directory_above(void **state)
{
    struct place *t = *state;

    chmod(t->inner, 0757);
    expect(t->file, 0, -EPERM, t->inner, "not writable by others");
    chmod(t->inner, 01777); /* sticky: nobody else can replace our file there */
    expect(t->file, 0, 0, NULL, NULL);
    chmod(t->inner, 0755);
    chmod(t->dir, 0757);
    expect(t->file, 0, -EPERM, t->dir, "not writable by others");
}

static void group_may_write_if_it_is_ours(void **state)
{
    struct place *t = *state;

    chmod(t->file, 0664);
    expect(t->file, 0, 0, NULL, NULL);
    expect(t->file, TRUST_NO_GROUP, -EPERM, t->file, "not writable by its group");
    if (geteuid() != 0)
        return;
    assert_int_equal(chown(t->file, 0, 54321), 0);
    chmod(t->file, 0664);
    expect(t->file, 0, -EPERM, t->file, "not writable by its group");
}

static void follows_links_to_where_they_lead(void **state)
{
    struct place *t = *state;
    char link[128];

    snprintf(link, sizeof(link), "%s/link", t->dir);
    assert_int_equal(symlink(t->file, link), 0);
    expect(link, 0, 0, NULL, NULL);
    chmod(t->inner, 0757);
    expect(link, 0, -EPERM, t->inner, "not writable by others");
    assert_int_equal(unlink(link), 0);
    assert_int_equal(symlink("/proc/self/fd/0", link), 0);
    expect(link, 0, -ELOOP, NULL, NULL);
}

static void takes_only_the_kind_that_was_asked_for(void **state)
{
    struct place *t = *state;
    char fifo[128];

    expect(t->inner, 0, -EPERM, t->inner, "a regular file");
    expect(t->file, TRUST_DIRECTORY, -EPERM, t->file, "a directory");
    snprintf(fifo, sizeof(fifo), "%s/fifo", t->dir);
    assert_int_equal(mkfifo(fifo, 0644), 0);
    expect(fifo, 0, -EPERM, fifo, "a regular file");
    expect(fifo, TRUST_ANYBODY, -EPERM, fifo, "a regular file");
    expect("/dev/null", TRUST_ANYBODY, -EPERM, "/dev/null", "a regular file");
}

static void owner_is_root_or_the_service(void **state)
{
    struct place *t = *state;
    struct trust_error why;
    int fd = -EBADF;

    if (geteuid() != 0)
        skip();
    assert_int_equal(chown(t->file, 4321, 0), 0);
    expect(t->file, 0, -EPERM, t->file, "owned by root or the service's own user");
    expect(t->file, TRUST_ANYBODY, 0, NULL, NULL);
    assert_int_equal(trust_open(t->file, 4321, 0, &fd, &why), 0);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(opens_what_only_we_can_change, setup, teardown),
        cmocka_unit_test_setup_teardown(looks_at_every_directory_above, setup, teardown),
        cmocka_unit_test_setup_teardown(group_may_write_if_it_is_ours, setup, teardown),
        cmocka_unit_test_setup_teardown(follows_links_to_where_they_lead, setup, teardown),
        cmocka_unit_test_setup_teardown(takes_only_the_kind_that_was_asked_for, setup, teardown),
        cmocka_unit_test_setup_teardown(owner_is_root_or_the_service, setup, teardown),
    };

    return cmocka_run_group_tests_name("trust", tests, NULL, NULL);
}
