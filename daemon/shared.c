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
 * Programs that keep a copy after the daemon itself was replaced are not found any more: only what a model of the
 * policy has is handed over (handover.h).
 */
#include "daemon/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
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
    if (!s)
        return NULL;
    list_remove(&s->entry);
    for (size_t i = 0; i < s->n_fds; i++)
        close(s->fds[i]);
    free(s->fds);
    free(s);
    return NULL;
}

DEFINE_CLEANUP(struct shared *, shared_free)

uint64_t shared_keep(struct list *list, const struct residency *r, const char *model)
{
    _cleanup_(shared_freep) struct shared *s = calloc(1, sizeof(*s) + strlen(model) + 1);
    size_t n = residency_n_parts(r);

    if (!s)
        return 0;
    list_init(&s->entry);
    memcpy(s->model, model, strlen(model) + 1);
    s->fds = calloc(n ? n : 1, sizeof(*s->fds));
    for (size_t i = 0; s->fds && i < n; i++) {
        int copy = residency_copy_fd(r, i), fd;

        if (copy < 0 || !is_held_by_others(copy))
            continue;
        /* The same opener, which the residency's descriptor then leaves to this one. */
        fd = fcntl(copy, F_DUPFD_CLOEXEC, 0);
        if (fd < 0)
            continue;
        s->fds[s->n_fds++] = fd;
        s->n_bytes += bytes_of(fd);
    }
    if (s->n_fds == 0)
        return 0;
    list_append(list, &s->entry);
    return TAKE_PTR(s)->n_bytes;
}

uint64_t shared_look(struct list *list)
{
    struct list *at, *after;
    uint64_t n_bytes = 0;

    list_foreach (at, after, list) {
        struct shared *s = list_entry(at, struct shared, entry);
        size_t n = 0;

        for (size_t i = 0; i < s->n_fds; i++) {
            uint64_t bytes = bytes_of(s->fds[i]);

            if (is_held_by_others(s->fds[i])) {
                s->fds[n++] = s->fds[i];
                continue;
            }
            close(s->fds[i]);
            s->n_bytes -= bytes;
            n_bytes += bytes;
        }
        s->n_fds = n;
        if (n == 0)
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
