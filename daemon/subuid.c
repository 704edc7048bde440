/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lines that are no ranges are passed over, as newuidmap does; one that belongs to nobody known gives nothing away.
 */
#include "daemon/subuid.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* Digits only: strtoul() takes signs and spaces, too. */
static bool parse_number(const char *text, uint64_t *ret)
{
    uint64_t n = 0;

    if (!*text)
        return false;
    for (; *text; text++) {
        if (!isdigit((unsigned char)*text) || n > UINT32_MAX)
            return false;
        n = 10 * n + (uint64_t)(*text - '0');
    }
    *ret = n;
    return n <= UINT32_MAX;
}

/* OWNER:FIRST:COUNT, cut into its parts. Returns whether @uid lies in it. */
static bool line_has(char *line, uid_t uid, const char **ret_owner)
{
    char *first = strchr(line, ':'), *count = first ? strchr(first + 1, ':') : NULL;
    uint64_t begin, n;

    if (!count || strchr(count + 1, ':'))
        return false;
    *first = *count = 0;
    if (!*line || !parse_number(first + 1, &begin) || !parse_number(count + 1, &n))
        return false;
    *ret_owner = line;
    return uid >= begin && uid - begin < n;
}

static int owner_uid(const char *owner, subuid_name_t name, void *userdata, uid_t *ret)
{
    int r = name(owner, ret, userdata);
    uint64_t n;

    if (r != -ESRCH || !parse_number(owner, &n))
        return r;
    *ret = (uid_t)n;
    return 0;
}

int subuid_owner(const char *path, uid_t uid, subuid_name_t name, void *userdata, uid_t *ret)
{
    _cleanup_fclose_ FILE *f = fopen(path, "re");
    _cleanup_free_ char *line = NULL;
    size_t n_room = 0;
    bool found = false;
    uid_t owner = 0;
    ssize_t n;

    if (!f)
        return errno == ENOENT ? SUBUID_NOBODYS : -errno;
    while ((n = getline(&line, &n_room, f)) >= 0) {
        const char *text;
        uid_t other;
        int r;

        if (n > 0 && line[n - 1] == '\n')
            line[n - 1] = 0;
        if (!line_has(line, uid, &text))
            continue;
        r = owner_uid(text, name, userdata, &other);
        if (r == -ESRCH)
            continue;
        if (r < 0)
            return r;
        if (found && other != owner)
            return -ENOTUNIQ;
        found = true;
        owner = other;
    }
    if (ferror(f))
        return -EIO;
    if (!found)
        return SUBUID_NOBODYS;
    *ret = owner;
    return 0;
}
