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
    BUFFER_BYTES_KEPT = 64 * 1024, /* what an idle connection may keep */
    CHUNKS_AT_ONCE = 16,
};

static void wipe(void *data, size_t n)
{
    if (data && n > 0)
        explicit_bzero(data, n);
}

void frame_reader_done(struct frame_reader *r)
{
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

ssize_t frame_reader_read(struct frame_reader *r, int fd)
{
    ssize_t n;
    int k;

    k = make_room(r);
    if (k < 0)
        return k;
    do
        n = read(fd, r->data + r->end, r->size - r->end);
    while (n < 0 && errno == EINTR);
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
    wipe(r->data + r->begin - r->handed, r->handed);
    r->handed = 0;
    if (r->begin < r->end)
        return;
    r->begin = r->end = r->scanned = 0;
    if (r->size > BUFFER_BYTES_KEPT) {
        free(r->data);
        r->data = NULL;
        r->size = 0;
    }
}

size_t frame_reader_pending(const struct frame_reader *r)
{
    return r->end - r->begin;
}

struct frame_chunk {
    struct frame_chunk *next;
    size_t n, at; /* at: the first byte that was not written */
    char data[];
};

static void pop(struct frame_writer *w)
{
    struct frame_chunk *chunk = w->first;

    w->first = chunk->next;
    if (!w->first)
        w->last = NULL;
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
    struct frame_chunk *chunk;

    if (n > FRAME_BYTES_MAX)
        return -EMSGSIZE;
    chunk = malloc(sizeof(*chunk) + n + 1);
    if (!chunk)
        return -ENOMEM;
    *chunk = (struct frame_chunk){.n = n + 1};
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

int frame_writer_write(struct frame_writer *w, int fd)
{
    while (w->first) {
        struct iovec parts[CHUNKS_AT_ONCE];
        struct msghdr message = {.msg_iov = parts};
        ssize_t n;

        for (struct frame_chunk *c = w->first; c && message.msg_iovlen < CHUNKS_AT_ONCE; c = c->next)
            parts[message.msg_iovlen++] =
                (struct iovec){.iov_base = c->data + c->at, .iov_len = c->n - c->at};
        n = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? 0 : -errno;
        written(w, (size_t)n);
    }
    return 0;
}
