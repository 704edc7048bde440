/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libresident against a service that the test plays in a thread: one connection at a time, each method does what its
 * name says. Only the public header is used, as a program outside of the project would.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/libresident/resident.h"

struct service {
    char folder[64], path[128];
    int listen_fd;
    pthread_t thread;
    unsigned n_connections; /* read after the thread was joined */
    unsigned n_calls;
};

static void reply(int fd, const char *text)
{
    (void)!send(fd, text, strlen(text) + 1, MSG_NOSIGNAL);
}

/* With descriptors of pipes that hold "1", "2" and so on. */
static void reply_with_pipes(int fd, const char *text, size_t n)
{
    char control[CMSG_SPACE(128 * sizeof(int))] = {0};
    struct iovec iov = {.iov_base = (char *)(uintptr_t)text, .iov_len = strlen(text) + 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control};
    struct cmsghdr *c;
    int fds[128];

    message.msg_controllen = CMSG_SPACE(n * sizeof(int));
    c = CMSG_FIRSTHDR(&message);
    *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(n * sizeof(int))};
    for (size_t i = 0; i < n; i++) {
        char byte = (char)('1' + i);
        int both[2];

        if (pipe(both) < 0 || write(both[1], &byte, 1) < 0)
            abort();
        close(both[1]);
        fds[i] = both[0];
    }
    memcpy(CMSG_DATA(c), fds, n * sizeof(int));
    (void)!sendmsg(fd, &message, MSG_NOSIGNAL);
    for (size_t i = 0; i < n; i++)
        close(fds[i]);
}

static int answer_share(int fd, const char *call)
{
    if (strstr(call, "\"model\":\"two\""))
        reply_with_pipes(fd, "{\"parameters\":{\"files\":[1,0],\"size_bytes\":2}}", 2);
    else if (strstr(call, "\"model\":\"many\""))
        reply_with_pipes(fd, "{\"parameters\":{\"files\":[99]}}", 100);
    else if (strstr(call, "\"model\":\"fewer\""))
        reply_with_pipes(fd, "{\"parameters\":{\"files\":[0,1,2]}}", 2);
    else if (strstr(call, "\"model\":\"more\"")) {
        reply(fd, "{\"parameters\":{\"n\":1},\"continues\":true}");
        reply_with_pipes(fd, "{\"parameters\":{\"n\":2}}", 1);
    } else if (strstr(call, "\"model\":\"a\\\"b\""))
        reply(fd, "{\"parameters\":{\"files\":[]}}");
    else
        reply(fd, "{\"error\":\"io.residentd.NotAllowed\",\"parameters\":{\"model\":\"m\",\"reason\":\"share\"}}");
    return 1;
}

/* Returns whether the connection goes on. */
static int answer(int fd, const char *call)
{
    if (strstr(call, "\"a.b.Echo\"")) {
        const char *parameters = strstr(call, "\"parameters\":");
        char text[4096];

        snprintf(text, sizeof(text), "{%.*s}", (int)(strrchr(parameters, '}') - parameters), parameters);
        reply(fd, text);
    } else if (strstr(call, "\"io.residentd.Inference.Share\"")) {
        return answer_share(fd, call);
    } else if (strstr(call, "\"a.b.Fail\"")) {
        reply(fd,
              "{\"error\":\"io.residentd.QueueFull\",\"parameters\":{\"limit\":3,\"retry_after_ms\":20}}");
    } else if (strstr(call, "\"a.b.FailOddly\"")) {
        reply(fd, "{\"error\":\"a.b.Odd\",\"parameters\":{\"why\":\"x\"}}");
    } else if (strstr(call, "\"a.b.Three\"")) {
        reply(fd, "{\"parameters\":{\"text\":\"one\"},\"continues\":true}");
        reply(fd, "{\"parameters\":{\"text\":\"two\"},\"continues\":true}");
        reply(fd, "{\"parameters\":{\"text\":\"three\"}}");
    } else if (strstr(call, "\"a.b.Endless\"")) {
        static const char piece[] = "{\"parameters\":{\"text\":\"on\"},\"continues\":true}";

        while (send(fd, piece, sizeof(piece), MSG_NOSIGNAL) > 0)
            ;
        return 0;
    } else if (strstr(call, "\"a.b.Last\"")) {
        reply(fd, "{}");
        return 0;
    } else if (strstr(call, "\"a.b.Close\"")) {
        return 0;
    } else if (strstr(call, "\"a.b.Nonsense\"")) {
        reply(fd, "hello");
    } else if (strstr(call, "\"a.b.Twice\"")) {
        reply(fd, "{}");
        reply(fd, "{}");
    }
    /* Silent, and oneway calls: no answer. */
    return 1;
}

static void serve(struct service *s, int fd)
{
    static __thread char buffer[65536];
    size_t n = 0;

    for (;;) {
        ssize_t k = read(fd, buffer + n, sizeof(buffer) - n);
        char *nul;

        if (k <= 0)
            return;
        n += (size_t)k;
        while ((nul = memchr(buffer, 0, n))) {
            size_t n_frame = (size_t)(nul - buffer) + 1;

            s->n_calls++;
            if (!answer(fd, buffer))
                return;
            memmove(buffer, buffer + n_frame, n - n_frame);
            n -= n_frame;
        }
    }
}

static void *run(void *userdata)
{
    struct service *s = userdata;
    int fd;

    while ((fd = accept(s->listen_fd, NULL, NULL)) >= 0) {
        s->n_connections++;
        serve(s, fd);
        close(fd);
    }
    return NULL;
}

static int setup(void **state)
{
    struct service *s = calloc(1, sizeof(*s));
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    assert_non_null(s);
    strcpy(s->folder, "/tmp/test-libresident-XXXXXX");
    assert_non_null(mkdtemp(s->folder));
    snprintf(s->path, sizeof(s->path), "%s/socket", s->folder);
    strcpy(address.sun_path, s->path);
    s->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->listen_fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(s->listen_fd, 8), 0);
    assert_int_equal(pthread_create(&s->thread, NULL, run, s), 0);
    *state = s;
    return 0;
}

static void stop(struct service *s)
{
    shutdown(s->listen_fd, SHUT_RDWR);
    pthread_join(s->thread, NULL);
}

static int teardown(void **state)
{
    struct service *s = *state;

    stop(s);
    close(s->listen_fd);
    unlink(s->path);
    rmdir(s->folder);
    free(s);
    return 0;
}

static struct resident *connect_to(const struct service *s)
{
    struct resident *r = NULL;

    assert_int_equal(resident_connect(s->path, &r), 0);
    return r;
}

static void connecting_fails_with_a_reason(void **state)
{
    struct service *s = *state;
    struct resident *r = NULL;
    char path[200];

    snprintf(path, sizeof(path), "%s/nothing", s->folder);
    assert_int_equal(resident_connect(path, &r), -ENOENT);
    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = 0;
    assert_int_equal(resident_connect(path, &r), -ENAMETOOLONG);
    assert_null(r);
    setenv("RESIDENTD_SOCKET", s->path, 1);
    assert_int_equal(resident_connect(NULL, &r), 0);
    unsetenv("RESIDENTD_SOCKET");
    assert_null(resident_close(r));
    assert_null(resident_close(NULL));
}

static void a_reply_can_be_looked_into(void **state)
{
    struct resident *r = connect_to(*state);
    struct resident_reply *reply = NULL;
    int64_t number = -1;
    double real = -1;
    int truth = -1;
    size_t n;

    assert_int_equal(resident_call(r, "a.b.Echo",
                                   "{\"text\":\"a\\u0000b\",\"list\":[{\"n\":5},{\"n\":-6}],\"real\":0.5,"
                                   "\"yes\":true,\"none\":null}",
                                   &reply, NULL),
                     0);
    assert_int_equal(resident_reply_is_last(reply), 1);
    assert_memory_equal(resident_reply_text(reply, "text", &n), "a\0b", 3);
    assert_int_equal(n, 3);
    assert_int_equal(resident_reply_length(reply, "list"), 2);
    assert_int_equal(resident_reply_int(reply, "list/1/n", &number), 0);
    assert_int_equal(number, -6);
    assert_int_equal(resident_reply_double(reply, "real", &real), 0);
    assert_true(real == 0.5);
    assert_int_equal(resident_reply_bool(reply, "yes", &truth), 0);
    assert_int_equal(truth, 1);
    assert_int_equal(resident_reply_int(reply, "list/2/n", &number), -ENOENT);
    assert_int_equal(resident_reply_int(reply, "list/x/n", &number), -ENOENT);
    assert_int_equal(resident_reply_int(reply, "real", &number), -ENOENT);
    assert_int_equal(resident_reply_int(reply, "text/0", &number), -ENOENT);
    assert_int_equal(resident_reply_length(reply, "none"), -ENOENT);
    assert_null(resident_reply_text(reply, "none", NULL));
    assert_string_equal(
        resident_reply_json(reply),
        "{\"text\":\"a\\u0000b\",\"list\":[{\"n\":5},{\"n\":-6}],\"real\":0.5,\"yes\":true,\"none\":null}");
    resident_reply_free(reply);
    resident_close(r);
}

static void parameters_that_are_no_object_are_not_sent(void **state)
{
    struct service *s = *state;
    struct resident *r = connect_to(s);

    assert_int_equal(resident_call(r, "a.b.Echo", "[]", NULL, NULL), -EINVAL);
    assert_int_equal(resident_call(r, "a.b.Echo", "{", NULL, NULL), -EINVAL);
    assert_int_equal(resident_call(r, NULL, NULL, NULL, NULL), -EINVAL);
    resident_close(r);
    stop(s);
    assert_int_equal(s->n_calls, 0);
    assert_int_equal(pthread_create(&s->thread, NULL, run, s), 0);
}

static void errors_are_typed(void **state)
{
    struct resident *r = connect_to(*state);
    struct resident_error *error = NULL;
    int64_t limit = 0;

    assert_int_equal(resident_call(r, "a.b.Fail", NULL, NULL, &error), RESIDENT_REFUSED);
    assert_string_equal(resident_error_name(error), "io.residentd.QueueFull");
    assert_int_equal(resident_error_errno(error), 0);
    assert_int_equal(resident_error_int(error, "limit", &limit), 0);
    assert_int_equal(limit, 3);
    assert_int_equal(resident_error_int(error, "nothing", &limit), -ENOENT);
    assert_string_equal(resident_error_parameters(error), "{\"limit\":3,\"retry_after_ms\":20}");
    assert_non_null(strstr(resident_error_description(error), "3 requests"));
    assert_null(resident_error_free(error));
    error = NULL;
    assert_int_equal(resident_call(r, "a.b.FailOddly", NULL, NULL, &error), RESIDENT_REFUSED);
    assert_string_equal(resident_error_text(error, "why"), "x");
    assert_non_null(strstr(resident_error_description(error), "a.b.Odd {\"why\":\"x\"}"));
    resident_error_free(error);
    /* Nobody has to want the error. */
    assert_int_equal(resident_call(r, "a.b.Fail", NULL, NULL, NULL), RESIDENT_REFUSED);
    resident_close(r);
}

struct heard {
    char text[256];
    unsigned n, stop_after;
    struct resident_call *call;
    int error;
};

static int on_piece(const struct resident_reply *reply, void *userdata)
{
    struct heard *h = userdata;

    strncat(h->text, resident_reply_text(reply, "text", NULL), sizeof(h->text) - strlen(h->text) - 1);
    strncat(h->text, resident_reply_is_last(reply) ? "." : ",", sizeof(h->text) - strlen(h->text) - 1);
    h->n++;
    return h->n == h->stop_after;
}

/* When the service's thread, which is in the same process, has closed its own. */
static unsigned open_fds(struct resident *r)
{
    unsigned n = 0;

    assert_int_equal(resident_call(r, "a.b.Echo", "{}", NULL, NULL), 0);
    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void expect_byte(int fd, char expected)
{
    char byte = 0;

    assert_int_equal(read(fd, &byte, 1), 1);
    assert_int_equal(byte, expected);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    close(fd);
}

static void the_files_of_a_model_are_shared(void **state)
{
    struct resident *r = connect_to(*state);
    struct resident_error *error = NULL;
    struct resident_reply *reply = NULL;
    unsigned before;
    size_t n = 0;
    int *fds = NULL;

    before = open_fds(r);
    assert_int_equal(resident_share(r, "two", &fds, &n, &error), 0);
    assert_int_equal(n, 2);
    assert_int_equal(open_fds(r), before + 2);
    expect_byte(fds[0], '2');
    expect_byte(fds[1], '1');
    free(fds);

    /* As many as a split model may have parts. */
    assert_int_equal(resident_share(r, "many", &fds, &n, &error), 0);
    assert_int_equal(n, 1);
    expect_byte(fds[0], (char)('1' + 99));
    free(fds);

    /* The service says other things than it does; a name with quotes; no right to it. */
    assert_int_equal(resident_share(r, "fewer", &fds, &n, &error), -EBADMSG);
    assert_int_equal(resident_share(r, "a\"b", &fds, &n, &error), -EBADMSG);
    assert_int_equal(resident_share(r, "m", &fds, &n, &error), RESIDENT_REFUSED);
    assert_string_equal(resident_error_name(error), "io.residentd.NotAllowed");
    resident_error_free(error);
    assert_int_equal(resident_share(r, NULL, &fds, &n, NULL), -EINVAL);
    assert_int_equal(open_fds(r), before);

    /* Left in the reply, they go with it. */
    assert_int_equal(resident_call(r, RESIDENT_INFERENCE "Share", "{\"model\": \"two\"}", &reply, NULL), 0);
    assert_int_equal(open_fds(r), before + 2);
    assert_int_equal(resident_reply_fd(reply, 2), -ENOENT);
    resident_reply_free(reply);
    assert_int_equal(open_fds(r), before);
    resident_close(r);
}

static int count_fds(const struct resident_reply *reply, void *userdata)
{
    int *n = userdata, fd = resident_reply_fd(reply, 0);

    assert_int_equal(fd >= 0, resident_reply_is_last(reply));
    if (fd >= 0)
        expect_byte(fd, '1');
    ++*n;
    return 0;
}

/* The kernel may hand a descriptor out with the pieces before the one that it was sent with. */
static void descriptors_belong_to_the_last_piece(void **state)
{
    struct resident *r = connect_to(*state);
    unsigned before = open_fds(r);
    int n = 0;

    for (int i = 0; i < 20; i++)
        assert_int_equal(
            resident_stream(r, RESIDENT_INFERENCE "Share", "{\"model\": \"more\"}", count_fds, &n, NULL), 0);
    assert_int_equal(n, 40);
    assert_int_equal(open_fds(r), before);
    resident_close(r);
}

static void an_answer_streams(void **state)
{
    struct resident *r = connect_to(*state);
    struct heard h = {.n = 0};

    assert_int_equal(resident_stream(r, "a.b.Three", NULL, on_piece, &h, NULL), 0);
    assert_string_equal(h.text, "one,two,three.");
    resident_close(r);
}

/* Stopping closes the socket, which the service sees, and the connection object goes on with a new one. */
static void a_stream_can_be_stopped_and_the_connection_used_again(void **state)
{
    struct service *s = *state;
    struct resident *r = connect_to(s);
    struct resident_reply *reply = NULL;
    struct heard h = {.stop_after = 2};
    int fd = resident_get_fd(r);

    assert_int_equal(resident_stream(r, "a.b.Endless", NULL, on_piece, &h, NULL), RESIDENT_STOPPED);
    assert_int_equal(h.n, 2);
    assert_int_equal(resident_get_fd(r), fd);
    assert_int_equal(resident_call(r, "a.b.Echo", "{\"a\":1}", &reply, NULL), 0);
    assert_string_equal(resident_reply_json(reply), "{\"a\":1}");
    resident_reply_free(reply);
    resident_close(r);
    stop(s);
    assert_int_equal(s->n_connections, 2);
    assert_int_equal(pthread_create(&s->thread, NULL, run, s), 0);
}

static void on_answer(struct resident_call *call, const struct resident_reply *reply,
                      const struct resident_error *error, void *userdata)
{
    struct heard *h = userdata;

    h->n++;
    if (error) {
        h->error = resident_error_errno(error);
        assert_string_equal(resident_error_name(error), "");
        assert_string_not_equal(resident_error_description(error), "");
        return;
    }
    strncat(h->text, resident_reply_json(reply), sizeof(h->text) - strlen(h->text) - 1);
    if (h->n == h->stop_after)
        h->call = resident_cancel(call);
}

static void process_until(struct resident *r, const struct heard *h, unsigned n)
{
    while (h->n < n) {
        struct pollfd fd = {.fd = resident_get_fd(r), .events = (short)resident_get_events(r)};
        int k = resident_process(r);

        if (k < 0)
            return;
        if (k == 0)
            assert_int_equal(poll(&fd, 1, -1), 1);
    }
}

static void calls_from_a_loop_are_answered_in_order(void **state)
{
    struct resident *r = connect_to(*state);
    struct resident_call *dropped = NULL;
    struct heard h = {.n = 0}, none = {.n = 0};

    assert_int_equal(resident_start(r, "a.b.Echo", "{\"a\":1}", 0, on_answer, &h, NULL), 0);
    assert_int_equal(resident_start(r, "a.b.Echo", "{\"a\":2}", 0, on_answer, &none, &dropped), 0);
    assert_int_equal(resident_start(r, "a.b.Silent", NULL, RESIDENT_ONEWAY, NULL, NULL, NULL), 0);
    assert_int_equal(resident_start(r, "a.b.Three", NULL, RESIDENT_MORE, on_answer, &h, NULL), 0);
    assert_null(resident_cancel(dropped));
    process_until(r, &h, 4);
    assert_string_equal(h.text, "{\"a\":1}{\"text\":\"one\"}{\"text\":\"two\"}{\"text\":\"three\"}");
    assert_int_equal(none.n, 0);
    assert_int_equal(resident_process(r), 0);
    resident_close(r);
}

static void a_cancel_from_the_callback_lets_the_next_call_run(void **state)
{
    struct resident *r = connect_to(*state);
    struct heard h = {.stop_after = 1}, next = {.n = 0};

    assert_int_equal(resident_start(r, "a.b.Endless", NULL, RESIDENT_MORE, on_answer, &h, &h.call), 0);
    assert_int_equal(resident_start(r, "a.b.Echo", "{\"b\":1}", 0, on_answer, &next, NULL), 0);
    process_until(r, &next, 1);
    assert_int_equal(h.n, 1);
    assert_null(h.call);
    assert_string_equal(next.text, "{\"b\":1}");
    resident_close(r);
}

static void a_lost_connection_ends_every_call(void **state)
{
    struct resident *r = connect_to(*state);
    struct heard a = {.n = 0}, b = {.n = 0};

    assert_int_equal(resident_start(r, "a.b.Close", NULL, 0, on_answer, &a, NULL), 0);
    assert_int_equal(resident_start(r, "a.b.Echo", NULL, 0, on_answer, &b, NULL), 0);
    process_until(r, &b, 1);
    assert_int_equal(a.error, -ECONNRESET);
    assert_int_equal(b.error, -ECONNRESET);
    assert_int_equal(resident_process(r), -ECONNRESET);
    assert_int_equal(resident_wait(r, -1), -ECONNRESET);
    assert_int_equal(resident_call(r, "a.b.Echo", NULL, NULL, NULL), -ECONNRESET);
    resident_close(r);
}

/* As after kill -9 of the service in the middle of an answer. */
static void a_lost_connection_says_what_to_do(void **state)
{
    struct resident *r = connect_to(*state);
    struct resident_error *error = NULL;

    assert_int_equal(resident_call(r, "a.b.Close", NULL, NULL, &error), -ECONNRESET);
    assert_non_null(error);
    assert_int_equal(resident_error_errno(error), -ECONNRESET);
    assert_string_equal(resident_error_name(error), "");
    assert_non_null(strstr(resident_error_description(error), "ask again"));
    error = resident_error_free(error);
    assert_int_equal(resident_call(r, "a.b.Echo", NULL, NULL, &error), -ECONNRESET);
    assert_non_null(error);
    resident_error_free(error);
    resident_close(r);
}

/* A service that was restarted between two calls. */
static void a_connection_that_was_closed_while_idle_is_opened_again(void **state)
{
    struct service *s = *state;
    struct resident *r = connect_to(s);
    struct resident_reply *reply = NULL;
    int fd = resident_get_fd(r);

    /* Noticed by the next call, or while waiting for one, or with the last answer. */
    assert_int_equal(resident_call(r, "a.b.Last", NULL, NULL, NULL), 0);
    poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 100);
    assert_int_equal(resident_call(r, "a.b.Last", NULL, NULL, NULL), 0);
    poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 100);
    assert_int_equal(resident_process(r), 0);
    assert_int_equal(resident_wait(r, 0), 0);
    assert_int_equal(resident_call(r, "a.b.Echo", "{\"a\":1}", &reply, NULL), 0);
    assert_string_equal(resident_reply_json(reply), "{\"a\":1}");
    resident_reply_free(reply);
    assert_int_equal(resident_get_fd(r), fd);
    resident_close(r);
    stop(s);
    assert_int_equal(s->n_connections, 3);
    assert_int_equal(pthread_create(&s->thread, NULL, run, s), 0);
}

static void a_service_that_is_none_is_told_apart(void **state)
{
    struct resident *r = connect_to(*state);
    struct heard h = {.n = 0};

    assert_int_equal(resident_call(r, "a.b.Nonsense", NULL, NULL, NULL), -EBADMSG);
    resident_close(r);
    /* An answer that nobody asked for. */
    r = connect_to(*state);
    assert_int_equal(resident_call(r, "a.b.Twice", NULL, NULL, NULL), 0);
    while (resident_process(r) >= 0)
        resident_wait(r, -1);
    assert_int_equal(resident_process(r), -EBADMSG);
    resident_close(r);
    /* A piece for a call without `more`. */
    r = connect_to(*state);
    assert_int_equal(resident_start(r, "a.b.Three", NULL, 0, on_answer, &h, NULL), 0);
    process_until(r, &h, 1);
    assert_int_equal(h.error, -EBADMSG);
    resident_close(r);
}

static struct resident *interrupted; /* a signal handler has no userdata */

static void on_alarm(int signal)
{
    resident_interrupt(interrupted);
}

static void a_blocking_call_can_be_interrupted(void **state)
{
    struct sigaction action = {.sa_handler = on_alarm}, before;
    struct resident *r = connect_to(*state);

    interrupted = r;
    assert_int_equal(sigaction(SIGALRM, &action, &before), 0);
    ualarm(20000, 0);
    assert_int_equal(resident_call(r, "a.b.Silent", NULL, NULL, NULL), RESIDENT_STOPPED);
    sigaction(SIGALRM, &before, NULL);
    /* One that comes early counts for the next call, and only for that. */
    resident_interrupt(r);
    assert_int_equal(resident_call(r, "a.b.Silent", NULL, NULL, NULL), RESIDENT_STOPPED);
    assert_int_equal(resident_call(r, "a.b.Echo", NULL, NULL, NULL), 0);
    resident_close(r);
}

static void open_calls_may_be_left_behind(void **state)
{
    struct resident *r = connect_to(*state);
    struct heard h = {.n = 0};

    assert_int_equal(resident_start(r, "a.b.Silent", NULL, 0, on_answer, &h, NULL), 0);
    assert_int_equal(resident_start(r, "a.b.Echo", NULL, 0, on_answer, &h, NULL), 0);
    assert_int_equal(resident_process(r), 0);
    resident_close(r);
    assert_int_equal(h.n, 0);
    assert_string_not_equal(resident_version(), "");
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(connecting_fails_with_a_reason),
        TEST(a_reply_can_be_looked_into),
        TEST(parameters_that_are_no_object_are_not_sent),
        TEST(errors_are_typed),
        TEST(the_files_of_a_model_are_shared),
        TEST(descriptors_belong_to_the_last_piece),
        TEST(an_answer_streams),
        TEST(a_stream_can_be_stopped_and_the_connection_used_again),
        TEST(calls_from_a_loop_are_answered_in_order),
        TEST(a_cancel_from_the_callback_lets_the_next_call_run),
        TEST(a_lost_connection_ends_every_call),
        TEST(a_lost_connection_says_what_to_do),
        TEST(a_connection_that_was_closed_while_idle_is_opened_again),
        TEST(a_service_that_is_none_is_told_apart),
        TEST(a_blocking_call_can_be_interrupted),
        TEST(open_calls_may_be_left_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
