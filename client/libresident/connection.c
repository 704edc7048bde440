/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The connection: a socket behind an epoll descriptor. Users poll the epoll descriptor, so that a new socket after
 * a cancel needs nothing of their event loop (an epoll set forgets a descriptor that was replaced by dup2()).
 */
#include "client/libresident/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/cleanup.h"

enum {
    CONNECT_SECONDS = 5,    /* a connect() only waits while the service's backlog is full */
    READS_PER_PROCESS = 16, /* then the event loop gets control back */
};

DEFINE_CLEANUP(struct resident *, resident_close)

static int open_socket(const char *path)
{
    const struct timeval patience = {.tv_sec = CONNECT_SECONDS};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    _cleanup_close_ int fd = -EBADF;
    size_t n = strlen(path);

    if (n == 0 || n >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, n + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0)
        return -errno;
    while (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        if (errno != EINTR)
            return errno == EAGAIN ? -ETIMEDOUT : -errno;
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        return -errno;
    return TAKE_FD(fd);
}

static int watch(struct resident *r, int operation, int fd, unsigned events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};

    return epoll_ctl(r->epoll_fd, operation, fd, &event) < 0 ? -errno : 0;
}

static void close_socket(struct resident *r)
{
    if (r->socket_fd >= 0)
        close(r->socket_fd); /* which takes it out of the epoll set: nobody else has a copy */
    r->socket_fd = -EBADF;
    frame_reader_done(&r->in);
    frame_writer_done(&r->out);
}

int connection_open(struct resident *r)
{
    int fd, k;

    close_socket(r);
    fd = open_socket(r->path);
    if (fd < 0)
        return fd;
    r->events = EPOLLIN;
    k = watch(r, EPOLL_CTL_ADD, fd, r->events);
    if (k < 0) {
        close(fd);
        return k;
    }
    r->socket_fd = fd;
    r->in.reads_answers = true;
    r->generation++;
    return 0;
}

/* What is unread is no end yet, even if one follows. */
static bool was_closed(const struct resident *r)
{
    char byte;
    ssize_t n;

    if (r->socket_fd < 0)
        return true;
    n = recv(r->socket_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

int connection_renew(struct resident *r)
{
    return !r->first && was_closed(r) ? connection_open(r) : 0;
}

int resident_connect(const char *path, struct resident **ret)
{
    _cleanup_(resident_closep) struct resident *r = NULL;
    int k;

    if (!ret)
        return -EINVAL;
    if (!path)
        path = secure_getenv("RESIDENTD_SOCKET");
    if (!path || !*path)
        path = RESIDENT_SOCKET;
    r = calloc(1, sizeof(*r));
    if (!r)
        return -ENOMEM;
    r->epoll_fd = r->socket_fd = r->interrupt_fd = -EBADF;
    r->path = strdup(path);
    if (!r->path)
        return -ENOMEM;
    r->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    r->interrupt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (r->epoll_fd < 0 || r->interrupt_fd < 0)
        return -errno;
    k = watch(r, EPOLL_CTL_ADD, r->interrupt_fd, EPOLLIN);
    if (k < 0)
        return k;
    k = connection_open(r);
    if (k < 0)
        return k;
    *ret = TAKE_PTR(r);
    return 0;
}

struct resident *resident_close(struct resident *r)
{
    if (!r)
        return NULL;
    close_socket(r);
    while (r->first) {
        struct resident_call *call = r->first;

        r->first = call->next;
        for (size_t i = 0; i < call->n_fds; i++)
            close(call->fds[i]);
        free(call->frame);
        free(call);
    }
    for (size_t i = 0; i < r->n_fds; i++)
        close(r->fds[i]);
    closep(&r->interrupt_fd);
    closep(&r->epoll_fd);
    free(r->path);
    free(r);
    return NULL;
}

int resident_get_fd(const struct resident *r)
{
    return r->epoll_fd;
}

int resident_get_events(const struct resident *r)
{
    return POLLIN;
}

void resident_interrupt(struct resident *r)
{
    uint64_t one = 1;
    int before = errno;

    (void)!write(r->interrupt_fd, &one, sizeof(one));
    errno = before;
}

void connection_mark_lost(struct resident *r, int error)
{
    if (r->lost == 0)
        r->lost = error;
    close_socket(r);
    resident_interrupt(r);
}

/* Waits for the socket to take more when something is left. A write that fails is no news: what the service said
 * before it went away is still to be read, and the end of it tells. */
static void flush(struct resident *r)
{
    unsigned events;

    if (r->socket_fd < 0)
        return;
    if (frame_writer_write(&r->out, r->socket_fd) < 0)
        frame_writer_done(&r->out);
    events = EPOLLIN | (r->out.n_bytes > 0 ? EPOLLOUT : 0);
    if (events != r->events && watch(r, EPOLL_CTL_MOD, r->socket_fd, events) == 0)
        r->events = events;
}

void connection_send(struct resident *r)
{
    while (r->first && r->socket_fd >= 0) {
        struct resident_call *call = r->first;

        if (call->frame) {
            size_t n_fds = call->n_fds;

            call->n_fds = 0; /* the writer's from here */
            if (frame_writer_push_fds(&r->out, call->frame, call->n_frame, call->fds, n_fds) < 0)
                return connection_mark_lost(r, -ENOMEM);
            explicit_bzero(call->frame, call->n_frame);
            free(call->frame);
            call->frame = NULL;
        }
        flush(r);
        if (!(call->flags & RESIDENT_ONEWAY) || r->out.n_bytes > 0)
            return;
        call_end_oneway(r);
    }
}

/* Frames that are here already. Stops when a callback closed this socket by cancelling. */
static int handle_frames(struct resident *r, bool *ret_did_something)
{
    unsigned generation = r->generation;
    char *text;
    size_t n;

    while (r->lost == 0 && r->generation == generation && frame_reader_next(&r->in, &text, &n)) {
        int k = call_handle_frame(r, text, n);

        if (k < 0)
            return k;
        *ret_did_something = true;
        connection_send(r);
    }
    return 0;
}

static int read_and_handle(struct resident *r, bool *ret_did_something)
{
    for (unsigned i = 0; i < READS_PER_PROCESS && r->lost == 0; i++) {
        ssize_t n;
        int k;

        k = handle_frames(r, ret_did_something);
        if (k < 0 || r->lost < 0)
            return k;
        n = frame_reader_read(&r->in, r->socket_fd);
        if (n == -EAGAIN)
            return 0;
        if (n <= 0)
            return n == 0 || n == -EPIPE ? -ECONNRESET : n == -EMSGSIZE ? -EBADMSG : (int)n;
        *ret_did_something = true;
    }
    return 0;
}

static void take_interrupts(struct resident *r)
{
    uint64_t count;

    if (read(r->interrupt_fd, &count, sizeof(count)) == sizeof(count))
        r->interrupted = true;
}

int resident_process(struct resident *r)
{
    bool did_something = false;
    int k;

    if (r->in_process)
        return -EINVAL; /* from a callback of this connection */
    r->in_process = true;
    take_interrupts(r);
    if (r->lost == 0) {
        connection_send(r);
        flush(r);
    }
    if (r->lost == 0) {
        k = r->socket_fd >= 0 ? read_and_handle(r, &did_something) : 0;
        if (k == -ECONNRESET && !r->first)
            close_socket(r); /* nobody waits for anything: the next call opens it again */
        else if (k < 0)
            connection_mark_lost(r, k);
    }
    while (r->lost < 0 && r->first)
        call_lose_first(r, r->lost);
    r->in_process = false;
    return r->lost < 0 ? r->lost : did_something;
}

int resident_wait(struct resident *r, int timeout_ms)
{
    struct pollfd fd = {.fd = r->epoll_fd, .events = POLLIN};
    int k;

    if (r->lost < 0)
        return r->lost;
    k = poll(&fd, 1, timeout_ms);
    if (k < 0)
        return errno == EINTR ? 0 : -errno;
    return k > 0;
}
