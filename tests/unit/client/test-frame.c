/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Framing: cut anywhere, bounded, wiped after use.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "client/varlink/frame.h"

static const char stream[] = "{\"a\":1}\0{}\0\0{\"text\":\"x\"}";

static void assert_frame(struct frame_reader *r, const char *expected)
{
    char *text;
    size_t n;

    assert_true(frame_reader_next(r, &text, &n));
    assert_int_equal(n, strlen(expected));
    assert_string_equal(text, expected);
}

static void assert_stream(struct frame_reader *r)
{
    char *text;
    size_t n;

    assert_frame(r, "{\"a\":1}");
    assert_frame(r, "{}");
    assert_frame(r, "");
    assert_frame(r, "{\"text\":\"x\"}");
    assert_false(frame_reader_next(r, &text, &n));
    assert_int_equal(frame_reader_pending(r), 0);
}

static void frames_split_at_every_byte(void **state)
{
    for (size_t cut = 0; cut <= sizeof(stream); cut++) {
        struct frame_reader r = {0};

        assert_int_equal(frame_reader_push(&r, stream, cut), 0);
        assert_int_equal(frame_reader_push(&r, stream + cut, sizeof(stream) - cut), 0);
        assert_stream(&r);
        frame_reader_done(&r);
    }
}

static void frames_come_out_as_soon_as_they_are_whole(void **state)
{
    struct frame_reader r = {0};
    unsigned n_frames = 0;

    for (size_t i = 0; i < sizeof(stream); i++) {
        char *text;
        size_t n;

        assert_int_equal(frame_reader_push(&r, stream + i, 1), 0);
        if (stream[i] == 0)
            n_frames++;
        assert_int_equal(frame_reader_next(&r, &text, &n), stream[i] == 0);
    }
    assert_int_equal(n_frames, 4);
    assert_int_equal(frame_reader_pending(&r), 0);
    frame_reader_done(&r);
}

static void frames_are_read_from_a_socket(void **state)
{
    struct frame_reader r = {0};
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(frame_reader_read(&r, fds[0]), -EAGAIN);
    assert_int_equal(write(fds[1], stream, sizeof(stream)), sizeof(stream));
    assert_int_equal(frame_reader_read(&r, fds[0]), sizeof(stream));
    assert_stream(&r);
    close(fds[1]);
    assert_int_equal(frame_reader_read(&r, fds[0]), 0);
    close(fds[0]);
    frame_reader_done(&r);
}

/* A frame of exactly the limit passes, one more byte does not, and the buffer never exceeds the limit and its NUL. */
static void a_frame_above_the_limit_is_refused(void **state)
{
    _cleanup_free_ char *big = malloc(FRAME_BYTES_MAX + 1);
    struct frame_reader r = {0};
    char *text;
    size_t n;

    assert_non_null(big);
    memset(big, 'x', FRAME_BYTES_MAX);
    big[FRAME_BYTES_MAX] = 0;
    assert_int_equal(frame_reader_push(&r, big, FRAME_BYTES_MAX + 1), 0);
    assert_true(frame_reader_next(&r, &text, &n));
    assert_int_equal(n, FRAME_BYTES_MAX);
    assert_int_equal(r.size, FRAME_BYTES_MAX + 1);
    frame_reader_forget(&r);
    assert_null(r.data);

    big[FRAME_BYTES_MAX] = 'x';
    assert_int_equal(frame_reader_push(&r, big, FRAME_BYTES_MAX + 1), 0);
    assert_false(frame_reader_next(&r, &text, &n));
    assert_int_equal(frame_reader_push(&r, "", 1), -EMSGSIZE);
    assert_int_equal(r.size, FRAME_BYTES_MAX + 1);
    frame_reader_done(&r);
}

static void a_frame_is_wiped_when_it_is_forgotten(void **state)
{
    static const char secret[] = "a secret prompt";
    struct frame_reader r = {0};
    char *text;
    size_t n;

    assert_int_equal(frame_reader_push(&r, secret, sizeof(secret)), 0);
    assert_int_equal(frame_reader_push(&r, "next", 5), 0);
    assert_true(frame_reader_next(&r, &text, &n));
    assert_memory_equal(text, secret, sizeof(secret));
    assert_true(frame_reader_next(&r, &text, &n));
    assert_string_equal(text, "next");
    assert_null(memmem(r.data, r.size, "secret", 6));
    frame_reader_forget(&r);
    assert_null(r.data);
    frame_reader_done(&r);
}

static void a_writer_gives_frames_in_order_and_keeps_the_rest(void **state)
{
    struct frame_writer w = {0};
    struct frame_reader r = {0};
    size_t n_got = 0;
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    for (unsigned i = 0; i < 40000; i++) {
        char text[32];
        int n = snprintf(text, sizeof(text), "{\"i\":%u}", i);

        assert_int_equal(frame_writer_push(&w, text, (size_t)n), 0);
    }
    assert_int_equal(frame_writer_write(&w, fds[1]), 0);
    assert_true(w.n_bytes > 0); /* more than a socket's buffer takes */
    while (n_got < 40000) {
        char *text, expected[32];
        size_t n;

        while (frame_reader_next(&r, &text, &n)) {
            snprintf(expected, sizeof(expected), "{\"i\":%zu}", n_got++);
            assert_string_equal(text, expected);
        }
        if (n_got < 40000)
            assert_true(frame_reader_read(&r, fds[0]) > 0);
        assert_int_equal(frame_writer_write(&w, fds[1]), 0);
    }
    assert_int_equal(w.n_bytes, 0);
    close(fds[0]);
    assert_int_equal(frame_writer_push(&w, "x", 1), 0);
    assert_int_equal(frame_writer_write(&w, fds[1]), -EPIPE);
    close(fds[1]);
    frame_writer_done(&w);
    assert_null(w.first);
    frame_reader_done(&r);
}

static unsigned open_fds(void)
{
    unsigned n = 0;

    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static int fresh_fd(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

static void descriptors_come_with_their_frame(void **state)
{
    unsigned before = open_fds();
    struct frame_writer w = {0};
    struct frame_reader r = {0};
    struct stat a, b;
    int pair[2], fds[2], fd;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    fds[0] = fresh_fd();
    fds[1] = open("/", O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    assert_int_equal(stat("/", &a), 0);
    assert_int_equal(frame_writer_push(&w, "{}", 2), 0);
    assert_int_equal(frame_writer_push_fds(&w, "{\"a\":1}", 7, fds, 2), 0);
    assert_int_equal(frame_writer_push(&w, "{\"b\":1}", 7), 0);
    assert_int_equal(frame_writer_write(&w, pair[0]), 0);
    assert_int_equal(w.n_bytes, 0);
    while (frame_reader_pending(&r) < 19)
        assert_true(frame_reader_read(&r, pair[1]) > 0);
    assert_int_equal(r.n_fds, 2);
    fd = frame_reader_take_fd(&r, 1);
    assert_int_equal(fstat(fd, &b), 0);
    assert_true(a.st_ino == b.st_ino && a.st_dev == b.st_dev);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    close(fd);
    assert_int_equal(frame_reader_take_fd(&r, 1), -EBADF); /* taken */
    assert_int_equal(frame_reader_take_fd(&r, 2), -EBADF); /* never there */
    assert_frame(&r, "{}");
    assert_frame(&r, "{\"a\":1}");
    assert_frame(&r, "{\"b\":1}");
    frame_reader_drop_fds(&r);
    assert_int_equal(open_fds(), before + 2);
    frame_reader_done(&r);
    close(pair[0]);
    close(pair[1]);
    assert_int_equal(open_fds(), before);
}

static void descriptors_beyond_the_limit_are_closed(void **state)
{
    unsigned before = open_fds();
    struct frame_writer w = {0};
    struct frame_reader r = {0};
    int pair[2], fds[FRAME_FDS_SENT_MAX + 1];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < FRAME_FDS_MAX; i++)
            fds[i] = fresh_fd();
        assert_int_equal(frame_writer_push_fds(&w, "{}", 2, fds, FRAME_FDS_MAX), 0);
        assert_int_equal(frame_writer_write(&w, pair[0]), 0);
        assert_true(frame_reader_read(&r, pair[1]) > 0);
    }
    assert_int_equal(r.n_fds, FRAME_FDS_MAX);
    assert_int_equal(open_fds(), before + 2 + FRAME_FDS_MAX);
    /* One that was never sent, and one more than may be: nobody keeps them either. */
    fds[0] = fresh_fd();
    assert_int_equal(frame_writer_push_fds(&w, "{}", 2, fds, 1), 0);
    frame_writer_done(&w);
    for (int i = 0; i <= FRAME_FDS_SENT_MAX; i++)
        fds[i] = fresh_fd();
    assert_int_equal(frame_writer_push_fds(&w, "{}", 2, fds, FRAME_FDS_SENT_MAX + 1), -EMSGSIZE);
    frame_reader_done(&r);
    close(pair[0]);
    close(pair[1]);
    assert_int_equal(open_fds(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_split_at_every_byte),
        cmocka_unit_test(frames_come_out_as_soon_as_they_are_whole),
        cmocka_unit_test(frames_are_read_from_a_socket),
        cmocka_unit_test(a_frame_above_the_limit_is_refused),
        cmocka_unit_test(a_frame_is_wiped_when_it_is_forgotten),
        cmocka_unit_test(a_writer_gives_frames_in_order_and_keeps_the_rest),
        cmocka_unit_test(descriptors_come_with_their_frame),
        cmocka_unit_test(descriptors_beyond_the_limit_are_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
