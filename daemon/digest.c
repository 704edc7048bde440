/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One thread, one file at a time. @mutex guards all members below it; the thread reads and sums outside of it.
 *
 * A file that is cut short must be an error, not a signal: it reads with pread(2), or through a mapping by mapread.h.
 * The latter saves copying each byte, which costs a fifth of what summing it does.
 */
#include "daemon/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mapread.h"

/* Stays in the second cache between being copied and being summed. */
#define PIECE_BYTES (UINT64_C(256) << 10)
#define PAGE_BYTES 4096

struct digest {
    pthread_t thread;
    bool has_thread;
    bool only_reads;
    struct sha256 sum;       /* the thread's, until it has ended */
    uint8_t *buffer;         /* [PIECE_BYTES] the same */
    struct mapread *mapread; /* the same */

    pthread_mutex_t mutex;
    pthread_cond_t news;   /* for the thread */
    pthread_cond_t caught; /* for the caller: a file is through, or failed */
    int fd;             /* of the file, or */
    const uint8_t *map; /* where it is */
    uint64_t n_bytes, n_arrived, n_done; /* of the file */
    uint64_t waits_for;                  /* what the caller waits for to be done */
    int error;
    bool stop;
};

struct piece {
    struct sha256 *sum; /* NULL: only reads */
    const uint8_t *from;
    uint64_t n;
};

static void sum_in_place(void *userdata)
{
    const struct piece *p = userdata;

    if (p->sum) {
        sha256_add(p->sum, p->from, p->n);
        return;
    }
    for (uint64_t i = 0; i < p->n; i += PAGE_BYTES)
        (void)*(const volatile uint8_t *)(p->from + i);
}

static int sum_piece(struct digest *d, int fd, uint64_t at, uint64_t n)
{
    while (n > 0) {
        ssize_t got = pread(fd, d->buffer, n, (off_t)at);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : -ENODATA;
        sha256_add(&d->sum, d->buffer, (size_t)got);
        at += (uint64_t)got;
        n -= (uint64_t)got;
    }
    return 0;
}

static void *thread_main(void *userdata)
{
    struct digest *d = userdata;

    pthread_mutex_lock(&d->mutex);
    while (!d->stop) {
        uint64_t at = d->n_done, n = d->n_arrived - at;
        struct piece piece = {.sum = d->only_reads ? NULL : &d->sum, .from = d->map ? d->map + at : NULL};
        int fd = d->fd, r;

        if (n == 0 || d->error < 0) {
            pthread_cond_wait(&d->news, &d->mutex);
            continue;
        }
        if (n > PIECE_BYTES)
            n = PIECE_BYTES;
        piece.n = n;
        pthread_mutex_unlock(&d->mutex);
        r = piece.from ? mapread_call(d->mapread, sum_in_place, &piece) : sum_piece(d, fd, at, n);
        pthread_mutex_lock(&d->mutex);
        d->error = r;
        d->n_done = at + n;
        if (r < 0 || d->n_done >= d->waits_for)
            pthread_cond_signal(&d->caught);
    }
    pthread_mutex_unlock(&d->mutex);
    return NULL;
}

static int new(bool only_reads, struct digest **ret)
{
    _cleanup_(digest_freep) struct digest *d = calloc(1, sizeof(*d));
    int r;

    if (!d)
        return -ENOMEM;
    d->fd = -EBADF;
    d->only_reads = only_reads;
    sha256_init(&d->sum);
    pthread_mutex_init(&d->mutex, NULL); /* these can't fail on Linux */
    pthread_cond_init(&d->news, NULL);
    pthread_cond_init(&d->caught, NULL);
    d->buffer = malloc(PIECE_BYTES);
    if (!d->buffer)
        return -ENOMEM;
    r = mapread_new(&d->mapread);
    if (r == 0)
        r = -pthread_create(&d->thread, NULL, thread_main, d);
    if (r < 0)
        return r;
    d->has_thread = true;
    *ret = TAKE_PTR(d);
    return 0;
}

int digest_new(struct digest **ret)
{
    return new(/* only_reads= */ false, ret);
}

int digest_new_reader(struct digest **ret)
{
    return new(/* only_reads= */ true, ret);
}

/* With the mutex held. */
static int wait_for(struct digest *d, uint64_t n_bytes)
{
    d->waits_for = n_bytes;
    while (d->error == 0 && d->n_done < n_bytes)
        pthread_cond_wait(&d->caught, &d->mutex);
    return d->error;
}

/* The same. */
static int wait_until_through(struct digest *d)
{
    d->n_arrived = d->n_bytes;
    pthread_cond_signal(&d->news);
    return wait_for(d, d->n_bytes);
}

int digest_wait(struct digest *d, uint64_t n_bytes)
{
    int r;

    pthread_mutex_lock(&d->mutex);
    r = wait_for(d, n_bytes < d->n_bytes ? n_bytes : d->n_bytes);
    pthread_mutex_unlock(&d->mutex);
    return r;
}

/* Behind those before. @fd_take: consumed, or -EBADF, and @map. */
static int begin(struct digest *d, int fd_take, const uint8_t *map, uint64_t n_bytes)
{
    int r;

    pthread_mutex_lock(&d->mutex);
    r = wait_until_through(d);
    closep(&d->fd);
    d->fd = fd_take;
    d->map = map;
    d->n_bytes = n_bytes;
    d->n_arrived = d->n_done = 0;
    pthread_mutex_unlock(&d->mutex);
    return r;
}

int digest_file(struct digest *d, int fd, uint64_t n_bytes)
{
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    return own < 0 ? -errno : begin(d, own, NULL, n_bytes);
}

int digest_mapping(struct digest *d, const uint8_t *at, uint64_t n_bytes)
{
    return begin(d, -EBADF, at, n_bytes);
}

void digest_advance(struct digest *d, uint64_t n_bytes)
{
    pthread_mutex_lock(&d->mutex);
    d->n_arrived = n_bytes < d->n_bytes ? n_bytes : d->n_bytes;
    pthread_cond_signal(&d->news);
    pthread_mutex_unlock(&d->mutex);
}

int digest_end(struct digest *d, char ret_text[SHA256_TEXT_MAX])
{
    int r;

    pthread_mutex_lock(&d->mutex);
    r = wait_until_through(d);
    pthread_mutex_unlock(&d->mutex);
    /* The thread waits for news and does not touch the sum any more. */
    if (r == 0)
        sha256_text(&d->sum, ret_text);
    return r;
}

void digest_stop(struct digest *d)
{
    pthread_mutex_lock(&d->mutex);
    d->stop = true;
    pthread_cond_signal(&d->news);
    pthread_mutex_unlock(&d->mutex);
    if (d->has_thread)
        pthread_join(d->thread, NULL);
    d->has_thread = false;
}

struct digest *digest_free(struct digest *d)
{
    if (!d)
        return NULL;
    digest_stop(d);
    pthread_cond_destroy(&d->caught);
    pthread_cond_destroy(&d->news);
    pthread_mutex_destroy(&d->mutex);
    closep(&d->fd);
    mapread_free(d->mapread);
    free(d->buffer);
    free(d);
    return NULL;
}
