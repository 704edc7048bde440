/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A model's file as a memfd that nobody can change any more. Only after the writable mapping is gone can it be sealed,
 * and only sealed does anybody else get to see it.
 *
 * Its pages are made before its content: huge ones that the administrator reserved (hugetlbfs) if there are enough, or
 * ordinary ones that are collapsed to 2 MiB while they hold nothing but zeros. Collapsing what has been read already
 * would copy all of it (0.6 GB/s, a fraction of what the device gives); so it costs as much as clearing pages does.
 *
 * They are made by a thread of their own, which runs ahead of the reading: clearing memory (which a virtual machine's
 * host may have to find first) takes as long as reading into it, and one after the other takes the sum.
 */
#include "daemon/residency-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/pagecache.h"

/* Names that older C libraries do not have. */
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21U << 26)
#endif

/* Made at once: the kernel synchronises all processors for each collapse. */
#define PREPARED_BYTES (UINT64_C(64) << 20)

struct copying {
    struct residency *r;
    struct digest *digest;
    uint8_t *to;
    uint64_t n_bytes;
    bool collapses;
    uint64_t arrived;

    pthread_t thread;
    bool has_thread;
    pthread_mutex_t mutex;
    pthread_cond_t news;
    uint64_t prepared; /* under the mutex, as stop is */
    bool stop;
};

/* A range without any page is refused (EINVAL), so each 2 MiB gets one first. Where that fails, for want of memory in
 * one piece or on an old kernel, pages come small when they are read into, and the figures say so. */
static void make_pages(const struct copying *c, uint64_t at, uint64_t n)
{
    uint64_t whole = n / RESIDENCY_HUGE_BYTES * RESIDENCY_HUGE_BYTES;

    if (!c->collapses) {
        (void)madvise(c->to + at, n, MADV_POPULATE_WRITE);
        return;
    }
    if (whole == 0)
        return;
    for (uint64_t i = 0; i < whole; i += RESIDENCY_HUGE_BYTES)
        ((volatile uint8_t *)c->to)[at + i] = 0;
    (void)madvise(c->to + at, whole, MADV_COLLAPSE);
}

static void *thread_main(void *userdata)
{
    struct copying *c = userdata;

    pthread_mutex_lock(&c->mutex);
    while (!c->stop && c->prepared < c->n_bytes) {
        uint64_t at = c->prepared, left = c->n_bytes - at, n = left < PREPARED_BYTES ? left : PREPARED_BYTES;

        pthread_mutex_unlock(&c->mutex);
        make_pages(c, at, n);
        pthread_mutex_lock(&c->mutex);
        c->prepared = at + n;
        pthread_cond_signal(&c->news);
    }
    pthread_mutex_unlock(&c->mutex);
    return NULL;
}

/* In the reading thread, before it asks for a block. */
static void wait_for_pages(uint64_t at, uint64_t n, void *userdata)
{
    struct copying *c = userdata;

    if (!c->has_thread) {
        make_pages(c, at, n);
        return;
    }
    pthread_mutex_lock(&c->mutex);
    while (c->prepared < at + n)
        pthread_cond_wait(&c->news, &c->mutex);
    pthread_mutex_unlock(&c->mutex);
}

/* Signals are blocked here, in a residency's own thread, and where memory is to lie is inherited as well. */
static void begin_to_prepare(struct copying *c, uint64_t n_bytes)
{
    c->n_bytes = n_bytes;
    pthread_mutex_init(&c->mutex, NULL); /* these can't fail on Linux */
    pthread_cond_init(&c->news, NULL);
    c->has_thread = pthread_create(&c->thread, NULL, thread_main, c) == 0;
}

static void end_preparing(struct copying *c)
{
    if (c->has_thread) {
        pthread_mutex_lock(&c->mutex);
        c->stop = true;
        pthread_mutex_unlock(&c->mutex);
        pthread_join(c->thread, NULL);
    }
    pthread_cond_destroy(&c->news);
    pthread_mutex_destroy(&c->mutex);
}

static int on_arrived(uint64_t n_bytes, void *userdata)
{
    struct copying *c = userdata;

    if (c->digest)
        digest_advance(c->digest, n_bytes);
    residency_advance(c->r, n_bytes - c->arrived);
    c->arrived = n_bytes;
    return residency_is_stopped(c->r) ? -ECANCELED : 0;
}

/* Not executable, if the kernel knows how to say so (6.3); that can't be undone, as little as the other seals. */
static int make_memfd(unsigned flags)
{
    int fd = memfd_create("residentd-model", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL | flags);

    if (fd < 0 && errno == EINVAL)
        fd = memfd_create("residentd-model", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
    return fd < 0 ? -errno : fd;
}

/* On pages that the administrator reserved, whole ones: it is longer than the file by up to 2 MiB of zeros. */
static bool make_on_reserved(struct residency *r, struct residency_part *part, struct copying *c, int *ret_fd)
{
    uint64_t whole = (part->n_bytes + RESIDENCY_HUGE_BYTES - 1) / RESIDENCY_HUGE_BYTES * RESIDENCY_HUGE_BYTES;
    _cleanup_close_ int fd = make_memfd(MFD_HUGETLB | MFD_HUGE_2MB);
    struct fault before = r->fault;

    if (fd < 0 || ftruncate(fd, (off_t)whole) < 0)
        return false;
    /* Here the kernel says whether there are enough. */
    if (residency_map_fd(r, fd, whole, PROT_READ | PROT_WRITE, &c->to) < 0) {
        r->fault = before;
        return false;
    }
    part->map_bytes = whole;
    part->is_hugetlb = true;
    *ret_fd = TAKE_FD(fd);
    return true;
}

static int make_on_ordinary(struct residency *r, const struct residency_part *part, struct copying *c, int *ret_fd)
{
    _cleanup_close_ int fd = make_memfd(0);
    int q;

    if (fd < 0)
        return residency_fail_errno(r, "memfd_create", -fd);
    if (ftruncate(fd, (off_t)part->n_bytes) < 0)
        return residency_fail_errno(r, "memfd", errno);
    q = residency_map_fd(r, fd, part->map_bytes, PROT_READ | PROT_WRITE, &c->to);
    if (q < 0)
        return q;
    c->collapses = r->huge != POLICY_HUGE_OFF;
    *ret_fd = TAKE_FD(fd);
    return 0;
}

static int read_failed(struct residency *r, const struct residency_part *part, int error, uint64_t at)
{
    if (error == -ECANCELED)
        return error;
    if (error == -ENODATA) {
        fault_model_invalid(&r->fault, (int64_t)at, "%s became shorter while it was read", r->paths[part->i_path]);
        return -EIO;
    }
    return residency_fail_errno(r, r->paths[part->i_path], -error);
}

/* The mapping may go afterwards: nobody reads it any more. */
static int read_into(struct residency *r, const struct residency_part *part, struct copying *c)
{
    const struct readin readin = {.fd = part->fd,
                                  .n_bytes = part->n_bytes,
                                  .to = c->to,
                                  .best = READIN_RING,
                                  .prepare = wait_for_pages,
                                  .arrived = on_arrived,
                                  .userdata = c};
    uint64_t at = 0;
    int q = c->digest ? digest_mapping(c->digest, c->to, part->n_bytes) : 0;

    if (q < 0)
        return residency_digest_failed(r, part->i_path, q);
    begin_to_prepare(c, part->n_bytes);
    q = readin_run(&readin, &r->way, &at);
    end_preparing(c);
    if (q < 0) {
        if (c->digest)
            digest_stop(c->digest);
        return read_failed(r, part, q, at);
    }
    q = c->digest ? digest_wait(c->digest, part->n_bytes) : 0;
    return q < 0 ? residency_digest_failed(r, part->i_path, q) : 0;
}

int residency_copy_part(struct residency *r, struct residency_part *part, struct digest *digest)
{
    struct copying c = {.r = r, .digest = digest};
    _cleanup_close_ int fd = -EBADF;
    char link[64];
    int q = 0;

    if (r->huge == POLICY_HUGE_OFF || !make_on_reserved(r, part, &c, &fd))
        q = make_on_ordinary(r, part, &c, &fd);
    if (q < 0)
        return q;
    q = read_into(r, part, &c);
    munmap(c.to, part->map_bytes);
    if (q < 0)
        return q;
    /* The copy is what is used from here on; the file need not be in memory as well. */
    if (r->way == READIN_BUFFERED)
        (void)pagecache_drop(part->fd);
    if (fcntl(fd, F_ADD_SEALS, RESIDENCY_SEALS) < 0)
        return residency_fail_errno(r, "sealing", errno);
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    q = open(link, O_RDONLY | O_CLOEXEC);
    if (q < 0)
        return residency_fail_errno(r, "memfd", errno);
    close(part->fd);
    part->fd = q;
    return residency_identify(r, part, r->paths[part->i_path]);
}
