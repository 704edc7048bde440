/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Thin: messages to $NOTIFY_SOCKET, and the names that systemd passes with descriptors at start. Of those, only ours
 * are looked at: they begin with FDSTORE_PREFIX; the listening socket is the listener's.
 */
#include "daemon/fdstore.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>

#define FDSTORE_PREFIX "residentd-"

struct kept {
    char *name;
    int fd; /* -EBADF: taken */
};

struct fdstore {
    bool is_there;
    struct kept *kept; /* [n_kept] what came at start */
    size_t n_kept;
};

static int collect(struct fdstore *s, char **names, int n)
{
    s->kept = calloc(n > 0 ? (size_t)n : 1, sizeof(*s->kept));
    if (!s->kept)
        return -ENOMEM;
    for (int i = 0; i < n; i++) {
        if (!names || !names[i] || strncmp(names[i], FDSTORE_PREFIX, strlen(FDSTORE_PREFIX)) != 0)
            continue;
        s->kept[s->n_kept++] = (struct kept){.name = TAKE_PTR(names[i]), .fd = SD_LISTEN_FDS_START + i};
    }
    return 0;
}

int fdstore_open(bool is_wanted, struct fdstore **ret)
{
    _cleanup_(fdstore_closep) struct fdstore *s = calloc(1, sizeof(*s));
    char **names = NULL;
    int n, r;

    if (!s)
        return -ENOMEM;
    s->is_there = getenv("NOTIFY_SOCKET") != NULL;
    n = sd_listen_fds_with_names(/* unset_environment= */ 0, &names); /* an error: nothing was passed */
    r = collect(s, names, n);
    for (int i = 0; i < n && names; i++)
        free(names[i]);
    free(names);
    if (r < 0)
        return r;
    if (!is_wanted) {
        fdstore_drop_rest(s);
        s->is_there = false;
    }
    *ret = TAKE_PTR(s);
    return 0;
}

struct fdstore *fdstore_close(struct fdstore *s)
{
    if (!s)
        return NULL;
    for (size_t i = 0; i < s->n_kept; i++) {
        closep(&s->kept[i].fd);
        free(s->kept[i].name);
    }
    free(s->kept);
    free(s);
    return NULL;
}

bool fdstore_is_there(const struct fdstore *s)
{
    return s->is_there;
}

int fdstore_take(struct fdstore *s, const char *name)
{
    for (size_t i = 0; i < s->n_kept; i++) {
        if (s->kept[i].fd >= 0 && strcmp(s->kept[i].name, name) == 0)
            return TAKE_FD(s->kept[i].fd);
    }
    return -ENOENT;
}

bool fdstore_has(const struct fdstore *s, const char *name)
{
    for (size_t i = 0; i < s->n_kept; i++) {
        if (s->kept[i].fd >= 0 && strcmp(s->kept[i].name, name) == 0)
            return true;
    }
    return false;
}

const char *fdstore_next(const struct fdstore *s, const char *prefix)
{
    for (size_t i = 0; i < s->n_kept; i++) {
        if (s->kept[i].fd >= 0 && strncmp(s->kept[i].name, prefix, strlen(prefix)) == 0)
            return s->kept[i].name;
    }
    return NULL;
}

int fdstore_put(struct fdstore *s, const char *name, int fd)
{
    char text[128];
    int r;

    if (!s->is_there)
        return 0;
    snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s", name);
    r = sd_pid_notify_with_fds(0, /* unset_environment= */ 0, text, &fd, 1);
    return r < 0 ? r : 0;
}

void fdstore_remove(struct fdstore *s, const char *name)
{
    if (s->is_there)
        (void)sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", name);
}

unsigned fdstore_drop_rest(struct fdstore *s)
{
    unsigned n = 0;

    for (size_t i = 0; i < s->n_kept; i++) {
        if (s->kept[i].fd < 0)
            continue;
        fdstore_remove(s, s->kept[i].name);
        /* Not a socket: nothing happens. */
        (void)shutdown(s->kept[i].fd, SHUT_RDWR);
        closep(&s->kept[i].fd);
        s->kept[i].fd = -EBADF;
        n++;
    }
    return n;
}
