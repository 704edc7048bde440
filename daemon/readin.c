/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Blocks of 16 MiB, DEPTH of them under way, their order of arrival theirs. Only a window of DEPTH blocks behind what
 * has arrived without a gap is read at any time, so block i uses slot i % DEPTH and no list is needed.
 *
 * The ring only ever has the first try at a block. Whatever it leaves of one, be it an error, an unaligned rest behind
 * a short read, or a file system that takes O_DIRECT and then refuses it, read_rest() reads with pread(2) through the
 * page cache, and what that says counts.
 *
 * Registered buffers and a kernel thread that polls were left out: at 16 MiB a block they save nothing that shows.
 */
#include "daemon/readin.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"

#define DEPTH 4
/* What O_DIRECT asks of addresses, offsets and lengths is at most a page. */
#define ALIGNMENT UINT64_C(4096)

struct reading {
    const struct readin *r;
    int direct_fd;     /* O_DIRECT, or the file's own where that can't be had */
    uint64_t next;     /* where the next block begins that nobody has asked for */
    uint64_t arrived;  /* all before it is there */
    uint64_t failed_at;
    struct {
        bool is_there;
        int result; /* the ring's: bytes or a negative errno */
    } slots[DEPTH];
};

static uint64_t block_bytes(const struct reading *g, uint64_t at)
{
    uint64_t left = g->r->n_bytes - at;

    return left < READIN_BLOCK_BYTES ? left : READIN_BLOCK_BYTES;
}

/* O_DIRECT reads whole pages; the memory is that long, and the file's end cuts the read off. */
static uint64_t aligned(uint64_t n)
{
    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static int open_direct(int fd)
{
    char link[64];
    int direct;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    direct = open(link, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT);
    return direct < 0 ? -errno : direct;
}

static int read_rest(struct reading *g, uint64_t at, uint64_t n)
{
    while (n > 0) {
        ssize_t got = pread(g->r->fd, g->r->to + at, n, (off_t)at);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            g->failed_at = at;
            return got < 0 ? -errno : -ENODATA;
        }
        at += (uint64_t)got;
        n -= (uint64_t)got;
    }
    return 0;
}

/* @got: what the first try at the block brought. */
static int finish_block(struct reading *g, uint64_t at, int64_t got)
{
    uint64_t n = block_bytes(g, at), had = got > 0 ? (uint64_t)got : 0;
    int r = had < n ? read_rest(g, at + had, n - had) : 0;

    if (r < 0)
        return r;
    g->arrived = at + n;
    return g->r->arrived ? g->r->arrived(g->arrived, g->r->userdata) : 0;
}

static void prepare(struct reading *g, uint64_t at)
{
    if (g->r->prepare)
        g->r->prepare(at, block_bytes(g, at), g->r->userdata);
}

static int read_in_turn(struct reading *g, bool is_direct)
{
    int r = 0;

    for (uint64_t at = g->arrived; r == 0 && at < g->r->n_bytes; at += block_bytes(g, at)) {
        ssize_t got = 0;

        prepare(g, at);
        if (is_direct)
            got = pread(g->direct_fd, g->r->to + at, aligned(block_bytes(g, at)), (off_t)at);
        r = finish_block(g, at, got);
    }
    return r;
}

static unsigned slot_of(uint64_t at)
{
    return (unsigned)(at / READIN_BLOCK_BYTES % DEPTH);
}

static void ask_for_blocks(struct reading *g, struct io_uring *ring, unsigned *n_under_way)
{
    while (g->next < g->r->n_bytes && g->next < g->arrived + DEPTH * READIN_BLOCK_BYTES) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(ring); /* as many as slots: there is one */

        prepare(g, g->next);
        io_uring_prep_read(sqe, g->direct_fd, g->r->to + g->next, (unsigned)aligned(block_bytes(g, g->next)), g->next);
        sqe->user_data = slot_of(g->next);
        g->slots[slot_of(g->next)].is_there = false;
        g->next += block_bytes(g, g->next);
        ++*n_under_way;
    }
}

static void take_answers(struct reading *g, struct io_uring *ring, unsigned *n_under_way)
{
    struct io_uring_cqe *cqe;

    while (io_uring_peek_cqe(ring, &cqe) == 0) {
        g->slots[cqe->user_data].is_there = true;
        g->slots[cqe->user_data].result = cqe->res;
        io_uring_cqe_seen(ring, cqe);
        --*n_under_way;
    }
}

static int finish_what_is_there(struct reading *g)
{
    int r = 0;

    while (r == 0 && g->arrived < g->next && g->slots[slot_of(g->arrived)].is_there) {
        unsigned slot = slot_of(g->arrived);

        g->slots[slot].is_there = false;
        r = finish_block(g, g->arrived, g->slots[slot].result);
    }
    return r;
}

static int read_by_ring(struct reading *g, struct io_uring *ring)
{
    unsigned n_under_way = 0;
    int r = 0;

    while (r == 0 && g->arrived < g->r->n_bytes) {
        int q;

        ask_for_blocks(g, ring, &n_under_way);
        q = io_uring_submit_and_wait(ring, 1);
        if (q < 0 && q != -EINTR && q != -EAGAIN && q != -EBUSY)
            r = q;
        take_answers(g, ring, &n_under_way);
        if (r == 0)
            r = finish_what_is_there(g);
    }
    /* Until then the kernel may still write into the memory. */
    while (n_under_way > 0) {
        int q = io_uring_submit_and_wait(ring, 1);

        if (q < 0 && q != -EINTR && q != -EAGAIN && q != -EBUSY)
            break;
        take_answers(g, ring, &n_under_way);
    }
    return r;
}

int readin_run(const struct readin *r, enum readin_way *ret_way, uint64_t *reterr_at)
{
    struct reading g = {.r = r, .direct_fd = r->fd};
    _cleanup_close_ int direct = -EBADF;
    enum readin_way way = r->best;
    struct io_uring ring;
    int q;

    if (way != READIN_BUFFERED)
        direct = open_direct(r->fd);
    if (direct >= 0)
        g.direct_fd = direct;
    /* Refused by a seccomp filter, by kernel.io_uring_disabled, or not there at all. */
    if (way == READIN_RING && io_uring_queue_init(DEPTH, &ring, 0) < 0)
        way = READIN_DIRECT;
    if (way == READIN_DIRECT && direct < 0)
        way = READIN_BUFFERED;
    if (way == READIN_RING) {
        q = read_by_ring(&g, &ring);
        io_uring_queue_exit(&ring);
    } else {
        q = read_in_turn(&g, way == READIN_DIRECT);
    }
    if (q < 0) {
        if (reterr_at)
            *reterr_at = g.failed_at;
        return q;
    }
    if (ret_way)
        *ret_way = way;
    return 0;
}

const char *readin_way_to_string(enum readin_way way)
{
    static const char *const names[] = {
        [READIN_RING] = "io_uring", [READIN_DIRECT] = "O_DIRECT", [READIN_BUFFERED] = "the page cache"};

    return names[way];
}
