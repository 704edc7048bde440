/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether somebody else has a sealed memfd open, or mapped, which keeps it open, is asked of the kernel by trying to
 * take a write lease: it is granted only to the sole opener of a file (F_SETLEASE in fcntl(2)), and a memfd belongs to
 * who made it. A descriptor that was passed on, duplicated, or whose mapping alone is left is an opener; so is one that
 * was opened again through /proc, for writing too, which the seals make harmless. What a holder locks or leases itself
 * only makes it an opener that has a lock.
 *
 * A lease that is broken in the moment in which it is held tells so by SIGIO, which ends a process. SIGURG does not.
 *
 * A daemon that takes over gets the descriptors of the one before it through systemd's store: the same opener, so that
 * the question has the same answer.
 */
#include "daemon/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "daemon/residency.h"

static bool is_held_by_others(int fd)
{
    if (fcntl(fd, F_SETSIG, SIGURG) < 0 || fcntl(fd, F_SETLEASE, F_WRLCK) < 0)
        return errno == EAGAIN;
    (void)fcntl(fd, F_SETLEASE, F_UNLCK);
    return false;
}

static uint64_t bytes_of(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && st.st_size > 0 ? (uint64_t)st.st_size : 0;
}

static struct shared *shared_free(struct shared *s)
{
    list_remove(&s->entry);
    close(s->fd);
    free(s);
    return NULL;
}

/* @fd_take: consumed. Returns the bytes, 0 without memory. */
static uint64_t add(struct list *list, int fd_take, uint64_t id)
{
    struct shared *s = calloc(1, sizeof(*s));

    if (!s) {
        close(fd_take);
        return 0;
    }
    *s = (struct shared){.fd = fd_take, .n_bytes = bytes_of(fd_take), .id = id};
    list_init(&s->entry);
    list_append(list, &s->entry);
    return s->n_bytes;
}

uint64_t shared_keep(struct list *list, const struct residency *r)
{
    uint64_t n_bytes = 0;

    for (size_t i = 0, n = residency_n_parts(r); i < n; i++) {
        int copy = residency_copy_fd(r, i), fd;

        if (copy < 0 || !is_held_by_others(copy))
            continue;
        /* The same opener, which the residency's descriptor then leaves to this one. */
        fd = fcntl(copy, F_DUPFD_CLOEXEC, 0);
        if (fd >= 0)
            n_bytes += add(list, fd, /* id= */ 0);
    }
    return n_bytes;
}

uint64_t shared_take(struct list *list, int fd_take, uint64_t id)
{
    int seals = fcntl(fd_take, F_GET_SEALS);

    if (seals >= 0 && (seals & F_SEAL_WRITE) && is_held_by_others(fd_take))
        return add(list, fd_take, id);
    close(fd_take);
    return 0;
}

uint64_t shared_look(struct list *list, shared_gone_t gone, void *userdata)
{
    struct list *at, *after;
    uint64_t n_bytes = 0;

    list_foreach (at, after, list) {
        struct shared *s = list_entry(at, struct shared, entry);

        if (is_held_by_others(s->fd))
            continue;
        n_bytes += s->n_bytes;
        if (s->id > 0)
            gone(s->id, userdata);
        shared_free(s);
    }
    return n_bytes;
}

uint64_t shared_bytes(const struct list *list)
{
    uint64_t n_bytes = 0;

    for (const struct list *at = list->next; at != list; at = at->next)
        n_bytes += list_entry(at, const struct shared, entry)->n_bytes;
    return n_bytes;
}

void shared_done(struct list *list)
{
    while (!list_is_empty(list))
        shared_free(list_entry(list->next, struct shared, entry));
}
