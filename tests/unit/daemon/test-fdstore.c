/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The messages that systemd gets, and the descriptors that it passes at start. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/fdstore.h"

/* systemd's end: where messages arrive. */
struct manager_end {
    char folder[32], path[64];
    int fd;
};

static int setup(void **state)
{
    struct manager_end *end = calloc(1, sizeof(*end));
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    assert_non_null(end);
    strcpy(end->folder, "/tmp/test-fdstore-XXXXXX");
    assert_non_null(mkdtemp(end->folder));
    snprintf(end->path, sizeof(end->path), "%s/notify", end->folder);
    strcpy(address.sun_path, end->path);
    end->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(end->fd, (struct sockaddr *)&address, sizeof(address)), 0);
    setenv("NOTIFY_SOCKET", end->path, 1);
    unsetenv("LISTEN_FDS");
    *state = end;
    return 0;
}

static int teardown(void **state)
{
    struct manager_end *end = *state;

    unsetenv("NOTIFY_SOCKET");
    unsetenv("LISTEN_FDS");
    close(end->fd);
    unlink(end->path);
    rmdir(end->folder);
    free(end);
    return 0;
}

/* The next message, and the descriptor that came with it. */
static const char *hear(struct manager_end *end, char text[256], int *ret_fd)
{
    union {
        struct cmsghdr align;
        char space[256];
    } control;
    struct iovec iov = {.iov_base = text, .iov_len = 255};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(end->fd, &msg, MSG_CMSG_CLOEXEC);

    *ret_fd = -EBADF;
    if (n < 0)
        return NULL;
    text[n] = 0;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&msg); h; h = CMSG_NXTHDR(&msg, h)) {
        if (h->cmsg_type == SCM_RIGHTS)
            memcpy(ret_fd, CMSG_DATA(h), sizeof(int));
    }
    return text;
}

/* As systemd does it: descriptors from 3 on, with names. Those that the test runner left there are in the way. */
static void pass(int fd_a, int fd_b, const char *names)
{
    char pid[16];
    int a = fcntl(fd_a, F_DUPFD_CLOEXEC, 100), b = fcntl(fd_b, F_DUPFD_CLOEXEC, 100);

    assert_true(a >= 0 && b >= 0);
    dup2(a, SD_LISTEN_FDS_START);
    dup2(b, SD_LISTEN_FDS_START + 1);
    close(a);
    close(b);
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "2", 1);
    setenv("LISTEN_FDNAMES", names, 1);
}

static void what_is_put_is_sent_with_its_name(void **state)
{
    _cleanup_(fdstore_closep) struct fdstore *s = NULL;
    char text[256];
    int fd, null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    assert_int_equal(fdstore_open(true, &s), 0);
    assert_true(fdstore_is_there(s));
    assert_int_equal(fdstore_put(s, "residentd-link-7", null), 0);
    assert_string_equal(hear(*state, text, &fd), "FDSTORE=1\nFDNAME=residentd-link-7");
    assert_true(fd >= 0);
    close(fd);
    fdstore_remove(s, "residentd-link-7");
    assert_string_equal(hear(*state, text, &fd), "FDSTOREREMOVE=1\nFDNAME=residentd-link-7");
    assert_int_equal(fd, -EBADF);
    close(null);
}

static void without_systemd_nothing_happens(void **state)
{
    _cleanup_(fdstore_closep) struct fdstore *s = NULL;

    unsetenv("NOTIFY_SOCKET");
    assert_int_equal(fdstore_open(true, &s), 0);
    assert_false(fdstore_is_there(s));
    assert_int_equal(fdstore_put(s, "residentd-link-7", 0), 0);
    assert_int_equal(fdstore_take(s, "residentd-link-7"), -ENOENT);
    assert_null(fdstore_next(s, "residentd-"));
    assert_int_equal(fdstore_drop_rest(s), 0);
}

static void what_was_left_is_taken_once_and_the_rest_dropped(void **state)
{
    _cleanup_(fdstore_closep) struct fdstore *s = NULL;
    int pair[2], null, fd;
    char text[256], byte;

    /* Numbers 3 and 4 are taken before anything else is opened there. */
    null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    null = fcntl(null, F_DUPFD_CLOEXEC, 50);
    pair[0] = fcntl(pair[0], F_DUPFD_CLOEXEC, 50);
    pair[1] = fcntl(pair[1], F_DUPFD_CLOEXEC, 50);
    ((struct manager_end *)*state)->fd = fcntl(((struct manager_end *)*state)->fd, F_DUPFD_CLOEXEC, 50);
    pass(null, pair[0], "residentd-copy-1-0:residentd-link-2");
    assert_int_equal(fdstore_open(true, &s), 0);
    assert_string_equal(fdstore_next(s, "residentd-link-"), "residentd-link-2");
    fd = fdstore_take(s, "residentd-copy-1-0");
    assert_int_equal(fd, SD_LISTEN_FDS_START);
    assert_int_equal(fdstore_take(s, "residentd-copy-1-0"), -ENOENT);
    close(fd);
    close(pair[0]);
    /* The other end learns of it, although the store may hold its copy a moment longer. */
    assert_int_equal(fdstore_drop_rest(s), 1);
    assert_int_equal(recv(pair[1], &byte, 1, 0), 0);
    assert_string_equal(hear(*state, text, &fd), "FDSTOREREMOVE=1\nFDNAME=residentd-link-2");
    close(pair[1]);
    close(null);
}

static void what_nobody_wants_goes_at_once(void **state)
{
    _cleanup_(fdstore_closep) struct fdstore *s = NULL;
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC), fd;
    char text[256];

    null = fcntl(null, F_DUPFD_CLOEXEC, 50);
    ((struct manager_end *)*state)->fd = fcntl(((struct manager_end *)*state)->fd, F_DUPFD_CLOEXEC, 50);
    /* The listening socket is not the store's. */
    pass(null, null, "io.residentd:residentd-link-2");
    assert_int_equal(fdstore_open(false, &s), 0);
    assert_string_equal(hear(*state, text, &fd), "FDSTOREREMOVE=1\nFDNAME=residentd-link-2");
    assert_null(hear(*state, text, &fd));
    assert_true(fcntl(SD_LISTEN_FDS_START, F_GETFD) >= 0);
    assert_true(fcntl(SD_LISTEN_FDS_START + 1, F_GETFD) < 0);
    assert_false(fdstore_is_there(s));
    assert_int_equal(fdstore_put(s, "residentd-link-3", null), 0);
    assert_null(hear(*state, text, &fd));
    close(SD_LISTEN_FDS_START);
    close(null);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_put_is_sent_with_its_name, setup, teardown),
        cmocka_unit_test_setup_teardown(without_systemd_nothing_happens, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_left_is_taken_once_and_the_rest_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(what_nobody_wants_goes_at_once, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
