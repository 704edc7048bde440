/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/peer-unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

/* Paths of control groups are as long as paths may be; a controller of version 1 is a line more. */
#define CGROUP_BYTES_MAX 16384

static bool is_name(const char *name, size_t n)
{
    static const char *const suffixes[] = {".service", ".scope"};
    bool ends = false;

    for (size_t i = 0; i < sizeof(suffixes) / sizeof(*suffixes); i++) {
        size_t n_suffix = strlen(suffixes[i]);

        ends |= n > n_suffix && memcmp(name + n - n_suffix, suffixes[i], n_suffix) == 0;
    }
    /* A user names the groups below its own: what systemd would not have made is no name of a unit. */
    for (size_t i = 0; i < n; i++)
        if (!((name[i] >= '0' && name[i] <= '9') || (name[i] >= 'a' && name[i] <= 'z') ||
              (name[i] >= 'A' && name[i] <= 'Z') || strchr(":-_.\\@", name[i])))
            return false;
    return ends && n <= PEER_UNIT_MAX;
}

/* The path in the hierarchy that systemd keeps: the only one, or the one that it has given its name. */
static const char *find_path(const char *text, size_t *ret_n)
{
    static const char *const heads[] = {"0::/", "name=systemd:/"};

    for (size_t i = 0; i < sizeof(heads) / sizeof(*heads); i++)
        for (const char *line = text; line && *line;) {
            const char *end = strchrnul(line, '\n'), *at = i == 0 ? line : memchr(line, ':', (size_t)(end - line));
            size_t n_head = strlen(heads[i]);

            at += i == 1 && at;
            /* On a host of both versions the second one is there and empty. */
            if (at && (size_t)(end - at) > n_head && memcmp(at, heads[i], n_head) == 0) {
                *ret_n = (size_t)(end - at) - n_head;
                return at + n_head;
            }
            line = *end ? end + 1 : end;
        }
    return NULL;
}

int peer_unit_of_cgroup(const char *text, char **ret)
{
    size_t n;
    const char *path = find_path(text, &n), *end = path + (path ? n : 0);

    /* The innermost: a user's service lies in the user's manager, which is a service, too. */
    while (path && end > path) {
        const char *name = end;

        while (name > path && name[-1] != '/')
            name--;
        if (is_name(name, (size_t)(end - name))) {
            *ret = strndup(name, (size_t)(end - name));
            return *ret ? 0 : -ENOMEM;
        }
        end = name > path ? name - 1 : path;
    }
    return -ENOENT;
}

static int read_cgroup(pid_t pid, char *text, size_t n_room)
{
    char path[64];
    _cleanup_close_ int fd = -EBADF;
    size_t n = 0;

    snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -ESRCH;
    while (n + 1 < n_room) {
        ssize_t got = read(fd, text + n, n_room - 1 - n);

        if (got <= 0)
            break;
        n += (size_t)got;
    }
    text[n] = 0;
    return 0;
}

int peer_unit(pid_t pid, int pidfd, char **ret)
{
    char text[CGROUP_BYTES_MAX];
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    int r;

    if (pidfd < 0)
        return -EOPNOTSUPP;
    if (pid <= 0)
        return -ESRCH; /* of a pid namespace that is not below ours */
    r = read_cgroup(pid, text, sizeof(text));
    if (r < 0)
        return r;
    /* It still runs, so its number was nobody else's while the file was read. */
    if (poll(&p, 1, 0) != 0)
        return -ESRCH;
    return peer_unit_of_cgroup(text, ret);
}
