/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The reader's buffer: [0, begin) was handed out, [begin, end) waits. It moves to the front before it grows and it
 * grows by doubling, by copy and overwrite instead of realloc(), which would leave old bytes in freed memory. Past the
 * limit nothing grows: a peer without NULs costs 16 MiB and then its connection.
 */
#include "client/varlink/frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"

enum {
    BUFFER_BYTES_FIRST = 4096,
    CHUNKS_AT_ONCE = 16,
};

static void wipe(void *data, size_t n)
{
    if (data && n > 0)
        explicit_bzero(data, n);
}

void frame_reader_done(struct frame_reader *r)
{
    frame_reader_drop_fds(r);
    wipe(r->data, r->end);
    free(r->data);
    *r = (struct frame_reader){0};
}

/* Everything before begin is forgotten and what waits moves to the front. */
static void move_to_front(struct frame_reader *r)
{
    size_t n = r->end - r->begin;

    if (r->begin == 0)
        return;
    memmove(r->data, r->data + r->begin, n);
    wipe(r->data + n, r->end - n);
    r->scanned -= r->begin;
    r->begin = 0;
    r->end = n;
    r->handed = 0;
}

static int make_room(struct frame_reader *r)
{
    size_t size;
    char *data;

    move_to_front(r);
    if (r->end < r->size)
        return 0;
    if (r->size > FRAME_BYTES_MAX)
        return -EMSGSIZE;
    size = r->size == 0 ? BUFFER_BYTES_FIRST : 2 * r->size;
    if (size > FRAME_BYTES_MAX)
        size = FRAME_BYTES_MAX + 1; /* and its NUL */
    data = malloc(size);
    if (!data)
        return -ENOMEM;
    if (r->end > 0)
        memcpy(data, r->data, r->end);
    wipe(r->data, r->end);
    free(r->data);
    r->data = data;
    r->size = size;
    return 0;
}

static size_t fds_max(const struct frame_reader *r)
{
    return r->reads_answers ? FRAME_FDS_SENT_MAX : FRAME_FDS_MAX;
}

/* The array is made as large as it may become: a few integers. */
static bool keep_fd(struct frame_reader *r, int fd)
{
    if (!r->fds)
        r->fds = calloc(fds_max(r), sizeof(*r->fds));
    if (!r->fds || r->n_fds >= fds_max(r))
        return false;
    r->fds[r->n_fds++] = fd;
    return true;
}

/* Keeps what a message brought along, as far as there is room. */
static void keep_fds(struct frame_reader *r, struct msghdr *message)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (!keep_fd(r, fd))
                close(fd);
        }
    }
}

int frame_reader_take_fd(struct frame_reader *r, size_t i)
{
    int fd;

    if (i >= r->n_fds)
        return -EBADF;
    fd = r->fds[i];
    r->fds[i] = -EBADF;
    return fd;
}

size_t frame_reader_take_fds(struct frame_reader *r, int **ret)
{
    size_t n = r->n_fds;

    *ret = TAKE_PTR(r->fds);
    r->n_fds = 0;
    return n;
}

void frame_reader_drop_fds(struct frame_reader *r)
{
    for (size_t i = 0; i < r->n_fds; i++)
        if (r->fds[i] >= 0)
            close(r->fds[i]);
    free(r->fds);
    r->fds = NULL;
    r->n_fds = 0;
}

ssize_t frame_reader_read(struct frame_reader *r, int fd)
{
    union {
        char bytes[CMSG_SPACE(FRAME_FDS_SENT_MAX * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part;
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t n;
    int k;

    k = make_room(r);
    if (k < 0)
        return k;
    part = (struct iovec){.iov_base = r->data + r->end, .iov_len = r->size - r->end};
    do {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(fds_max(r) * sizeof(int));
        n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n >= 0)
        keep_fds(r, &message);
    else if (errno == ENOTSOCK)
        n = read(fd, part.iov_base, part.iov_len); /* a pipe, in tests and behind tools */
    if (n < 0)
        return -errno;
    r->end += (size_t)n;
    return n;
}

int frame_reader_push(struct frame_reader *r, const char *bytes, size_t n)
{
    while (n > 0) {
        size_t part;
        int k = make_room(r);

        if (k < 0)
            return k;
        part = r->size - r->end < n ? r->size - r->end : n;
        memcpy(r->data + r->end, bytes, part);
        r->end += part;
        bytes += part;
        n -= part;
    }
    return 0;
}

bool frame_reader_next(struct frame_reader *r, char **ret, size_t *ret_n)
{
    char *nul;

    frame_reader_forget(r);
    if (r->scanned == r->end)
        return false;
    nul = memchr(r->data + r->scanned, 0, r->end - r->scanned);
    if (!nul) {
        r->scanned = r->end;
        return false;
    }
    *ret = r->data + r->begin;
    *ret_n = (size_t)(nul - *ret);
    r->handed = *ret_n + 1;
    r->begin += r->handed;
    r->scanned = r->begin;
    return true;
}

void frame_reader_forget(struct frame_reader *r)
{
    if (!r->data)
        return;
    wipe(r->data + r->begin - r->handed, r->handed);
    r->handed = 0;
    if (r->begin < r->end)
        return;
    /* Nothing is kept for the next frame: thousands of connections are idle, and an allocation is nothing beside
     * what a call costs. */
    free(r->data);
    r->data = NULL;
    r->begin = r->end = r->scanned = r->size = 0;
}

size_t frame_reader_pending(const struct frame_reader *r)
{
    return r->end - r->begin;
}

struct frame_chunk {
    struct frame_chunk *next;
    size_t n, at; /* at: the first byte that was not written */
    int *fds; /* [n_fds] that go along with the first byte */
    size_t n_fds;
    char data[];
};

static void close_all(const int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++)
        close(fds[i]);
}

static void pop(struct frame_writer *w)
{
    struct frame_chunk *chunk = w->first;

    w->first = chunk->next;
    if (!w->first)
        w->last = NULL;
    close_all(chunk->fds, chunk->n_fds);
    w->n_fds -= chunk->n_fds;
    free(chunk->fds);
    wipe(chunk->data, chunk->n);
    free(chunk);
}

void frame_writer_done(struct frame_writer *w)
{
    while (w->first)
        pop(w);
    w->n_bytes = 0;
}

int frame_writer_push(struct frame_writer *w, const char *text, size_t n)
{
    return frame_writer_push_fds(w, text, n, NULL, 0);
}

int frame_writer_push_fds(struct frame_writer *w, const char *text, size_t n, const int *fds, size_t n_fds)
{
    bool fits = n <= FRAME_BYTES_MAX && n_fds <= FRAME_FDS_SENT_MAX;
    struct frame_chunk *chunk = fits ? malloc(sizeof(*chunk) + n + 1) : NULL;
    int *own = fits ? calloc(n_fds ? n_fds : 1, sizeof(*own)) : NULL;

    if (!chunk || !own) {
        free(chunk);
        free(own);
        close_all(fds, n_fds);
        return fits ? -ENOMEM : -EMSGSIZE;
    }
    *chunk = (struct frame_chunk){.n = n + 1, .fds = own, .n_fds = n_fds};
    for (size_t i = 0; i < n_fds; i++)
        own[i] = fds[i];
    w->n_fds += n_fds;
    memcpy(chunk->data, text, n);
    chunk->data[n] = 0;
    if (w->last)
        w->last->next = chunk;
    else
        w->first = chunk;
    w->last = chunk;
    w->n_bytes += n + 1;
    return 0;
}

static void written(struct frame_writer *w, size_t n)
{
    w->n_bytes -= n;
    while (n > 0) {
        struct frame_chunk *chunk = w->first;
        size_t left = chunk->n - chunk->at;

        if (n < left) {
            chunk->at += n;
            return;
        }
        n -= left;
        pop(w);
    }
}

/* Descriptors belong to the first byte of a message: they begin one, so that they come with their own frame. */
static ssize_t send_some(const struct frame_writer *w, int fd)
{
    union {
        char bytes[CMSG_SPACE(FRAME_FDS_SENT_MAX * sizeof(int))];
        struct cmsghdr align;
    } control = {.bytes = {0}};
    struct frame_chunk *first = w->first;
    struct iovec parts[CHUNKS_AT_ONCE];
    struct msghdr message = {.msg_iov = parts};

    for (struct frame_chunk *c = first; c && message.msg_iovlen < CHUNKS_AT_ONCE; c = c->next) {
        if (c != first && c->n_fds > 0)
            break;
        parts[message.msg_iovlen++] = (struct iovec){.iov_base = c->data + c->at, .iov_len = c->n - c->at};
    }
    if (first->n_fds > 0) {
        struct cmsghdr *c = &control.align;

        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(first->n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), first->fds, first->n_fds * sizeof(int));
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(first->n_fds * sizeof(int));
    }
    return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

int frame_writer_write(struct frame_writer *w, int fd)
{
    while (w->first) {
        ssize_t n = send_some(w, fd);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? 0 : -errno;
        close_all(w->first->fds, w->first->n_fds);
        w->n_fds -= w->first->n_fds;
        w->first->n_fds = 0;
        written(w, (size_t)n);
    }
    return 0;
}
