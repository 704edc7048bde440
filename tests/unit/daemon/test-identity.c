/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who is at the other end of a connection: as whom it was made, and in which unit as long as that is certain. Processes
 * here end, and others get their numbers.
 */
#include "daemon/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "daemon/peer-unit.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

#define SOMEBODY 1 /* whom every Debian knows */

/* A kernel before 6.5: the linker sends calls of getsockopt() here (meson.build, --wrap). */
static bool is_old_kernel;

int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *n);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *n);

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *n)
{
    if (is_old_kernel && level == SOL_SOCKET && name == SO_PEERPIDFD) {
        errno = ENOPROTOOPT;
        return -1;
    }
    return __real_getsockopt(fd, level, name, value, n);
}

static int listen_somewhere(struct sockaddr_un *address, socklen_t *n)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    *n = sizeof(sa_family_t); /* the kernel finds a name */
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)address, *n), 0);
    assert_int_equal(listen(fd, 8), 0);
    *n = sizeof(*address);
    assert_int_equal(getsockname(fd, (struct sockaddr *)address, n), 0);
    return fd;
}

/* A process that connects as @uid, becomes somebody else where that is to be seen, and stays until it is killed. */
static pid_t connect_as(const struct sockaddr_un *address, socklen_t n, uid_t uid)
{
    int ready[2];
    char byte;
    pid_t pid;

    assert_int_equal(pipe(ready), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);

        if ((uid != geteuid() && seteuid(uid) < 0) || connect(fd, (const struct sockaddr *)address, n) < 0 ||
            (uid != geteuid() && seteuid(0) < 0) || write(ready[1], "", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static void end(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static int accept_one(int listener)
{
    int fd = accept(listener, NULL, NULL);

    assert_true(fd >= 0);
    return fd;
}

/* The process that a pidfd stands for; -1: it has ended. */
static int pid_of(int pidfd)
{
    char path[64], line[128];
    int pid = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
    f = fopen(path, "re");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        if (sscanf(line, "Pid: %d", &pid) == 1)
            break;
    fclose(f);
    return pid;
}

/* Forks until somebody has the number @pid. Skips where that can't be had. */
static pid_t somebody_else_with(pid_t pid)
{
    for (int i = 0; i < 100; i++) {
        FILE *f = fopen("/proc/sys/kernel/ns_last_pid", "we");
        pid_t child;

        if (!f)
            skip();
        fprintf(f, "%d", (int)pid - 1);
        if (fclose(f) != 0)
            skip();
        child = fork();
        assert_true(child >= 0);
        if (child == 0)
            for (;;)
                pause();
        if (child == pid)
            return child;
        end(child); /* others start processes, too */
    }
    skip();
    return -1;
}

static void need_root(void)
{
    if (geteuid() != 0)
        skip();
}

static bool has_pidfds(void)
{
    int pair[2], pidfd;
    socklen_t n = sizeof(pidfd);
    bool has;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    has = __real_getsockopt(pair[0], SOL_SOCKET, SO_PEERPIDFD, &pidfd, &n) == 0;
    if (has)
        close(pidfd);
    close(pair[0]);
    close(pair[1]);
    return has;
}

static void a_connection_is_whose_it_was_when_it_was_made(void **state)
{
    struct sockaddr_un address;
    socklen_t n;
    struct identity i;
    int listener = listen_somewhere(&address, &n), fd;
    pid_t pid;

    need_root();
    pid = connect_as(&address, n, SOMEBODY);
    fd = accept_one(listener);
    assert_int_equal(identity_from_socket(fd, &i), 0);
    assert_int_equal(i.uid, SOMEBODY);
    assert_int_equal(i.pid, pid);
    identity_done(&i);
    assert_int_equal(i.pidfd, -EBADF);
    end(pid);
    /* Nor does it matter to who it was that it is gone. */
    assert_int_equal(identity_from_socket(fd, &i), 0);
    assert_int_equal(i.uid, SOMEBODY);
    assert_int_equal(i.pid, pid);
    identity_done(&i);
    close(fd);
    close(listener);
}

static void a_pidfd_is_of_the_process_that_connected(void **state)
{
    struct sockaddr_un address;
    socklen_t n;
    struct identity i;
    int listener = listen_somewhere(&address, &n), fd, pidfd;
    pid_t pid = connect_as(&address, n, geteuid());

    if (!has_pidfds()) {
        end(pid);
        skip();
    }
    fd = accept_one(listener);
    assert_int_equal(identity_from_socket(fd, &i), 0);
    assert_int_equal(pid_of(i.pidfd), pid);
    assert_true(fcntl(i.pidfd, F_GETFD) & FD_CLOEXEC);
    /* It has done its work once the unit was looked for: a connection costs one descriptor, not two. */
    pidfd = i.pidfd;
    (void)identity_unit(&i);
    assert_int_equal(i.pidfd, -EBADF);
    assert_int_equal(fcntl(pidfd, F_GETFD), -1);
    assert_ptr_equal(identity_unit(&i), i.unit);
    identity_done(&i);
    end(pid);
    close(fd);
    close(listener);
}

static void whoever_has_the_number_now_is_not_asked(void **state)
{
    struct sockaddr_un address;
    socklen_t n;
    struct identity before, after;
    int listener = listen_somewhere(&address, &n), first, second;
    pid_t pid, other;
    char *unit = NULL;

    need_root();
    if (!has_pidfds())
        skip();
    pid = connect_as(&address, n, SOMEBODY);
    /* Two connections of it: one is accepted while it is there, one when it is gone. */
    first = accept_one(listener);
    assert_int_equal(identity_from_socket(first, &before), 0);
    end(pid);
    other = somebody_else_with(pid);
    assert_int_equal(other, pid);

    assert_int_equal(before.pid, other);
    assert_int_equal(pid_of(before.pidfd), -1);
    assert_int_equal(peer_unit(before.pid, before.pidfd, &unit), -ESRCH);
    assert_null(unit);
    assert_null(identity_unit(&before));
    /* The same of a connection that nobody had looked at before. */
    second = dup(first);
    assert_int_equal(identity_from_socket(second, &after), 0);
    assert_int_equal(after.uid, SOMEBODY);
    assert_true(after.pidfd < 0 || pid_of(after.pidfd) == -1);
    assert_null(identity_unit(&after));
    identity_done(&before);
    identity_done(&after);
    end(other);
    close(first);
    close(second);
    close(listener);
}

static void an_old_kernel_says_who_but_not_in_which_unit(void **state)
{
    struct sockaddr_un address;
    socklen_t n;
    struct identity i;
    int listener = listen_somewhere(&address, &n), fd;
    pid_t pid = connect_as(&address, n, geteuid());
    char *unit = NULL;

    fd = accept_one(listener);
    is_old_kernel = true;
    assert_int_equal(identity_from_socket(fd, &i), 0);
    is_old_kernel = false;
    assert_int_equal(i.uid, geteuid());
    assert_int_equal(i.gid, getegid());
    assert_int_equal(i.pid, pid);
    assert_int_equal(i.pidfd, -EBADF);
    /* Its number alone is not asked with, though it would be answered. */
    assert_int_equal(peer_unit(i.pid, i.pidfd, &unit), -EOPNOTSUPP);
    assert_null(identity_unit(&i));
    assert_null(unit);
    identity_done(&i);
    end(pid);
    close(fd);
    close(listener);
}

static void expect_unit(const char *cgroup, const char *expected)
{
    char *unit = NULL;

    assert_int_equal(peer_unit_of_cgroup(cgroup, &unit), expected ? 0 : -ENOENT);
    if (expected)
        assert_string_equal(unit, expected);
    else
        assert_null(unit);
    free(unit);
}

static void the_innermost_unit_is_the_one(void **state)
{
    char longest[600] = "0::/", name[300];

    expect_unit("0::/system.slice/cron.service\n", "cron.service");
    expect_unit("0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope");
    expect_unit("0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-org.gnome.Edit@a\\x2db.service\n",
                "app-org.gnome.Edit@a\\x2db.service");
    expect_unit("0::/user.slice/user-1000.slice/user@1000.service/app.slice/made-by-hand\n", "user@1000.service");
    expect_unit("0::/../../system.slice/cron.service\n", "cron.service");
    /* Both versions of control groups: systemd's own hierarchy has a name. */
    expect_unit("12:memory:/x.service\n1:name=systemd:/system.slice/a.service\n0::/\n", "a.service");
    expect_unit("1:name=systemd:/system.slice/a.service\n0::/system.slice/b.service\n", "b.service");

    memset(name, 'a', sizeof(name));
    memcpy(name + PEER_UNIT_MAX - 8, ".service", 9);
    expect_unit(strcat(longest, name), name);
    memset(name, 'a', sizeof(name));
    memcpy(name + PEER_UNIT_MAX - 7, ".service", 9);
    strcpy(longest, "0::/");
    expect_unit(strcat(longest, name), NULL);
}

static void what_is_no_unit_is_none(void **state)
{
    static const char *const texts[] = {
        "", "\n", "0::/", "0::/\n", "0::/user.slice\n", "0::/.service\n", "0::/a.service.d\n", "0::a.service\n",
        "0::/a b.service\n", "0::/a\x1b[2J.service\n", "0::/\xc3\xa4.service\n", "nonsense", "3:cpu:/x.service\n",
        "0::/a.services/\n", "name=systemd:/a.service\n1:name=systemd", "1:name=systemd:/\n",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
        expect_unit(texts[i], NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_connection_is_whose_it_was_when_it_was_made),
        cmocka_unit_test(a_pidfd_is_of_the_process_that_connected),
        cmocka_unit_test(whoever_has_the_number_now_is_not_asked),
        cmocka_unit_test(an_old_kernel_says_who_but_not_in_which_unit),
        cmocka_unit_test(the_innermost_unit_is_the_one),
        cmocka_unit_test(what_is_no_unit_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
