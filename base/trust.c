/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The check happens after the open, on what was opened: the kernel's own name for the fd (/proc/self/fd) is the path
 * without links, its directories are looked at from the root down, and that the name still leads to the same file is
 * checked last. A link in a place that others control can therefore lead to another trusted file, never to one of
 * theirs.
 */
#include "base/trust.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/cleanup.h"

static int refuse(struct trust_error *reterr, const char *reason, const char *path)
{
    size_t n = strnlen(path, TRUST_PATH_MAX - 1);

    if (reterr) {
        reterr->reason = reason;
        memcpy(reterr->path, path, n);
        reterr->path[n] = 0;
    }
    return -EPERM;
}

static const char *who_can_change(const struct stat *st, uid_t own_uid, unsigned flags)
{
    bool group_is_ours = !(flags & TRUST_NO_GROUP) && (st->st_gid == 0 || st->st_gid == getegid());

    if (st->st_uid != 0 && st->st_uid != own_uid)
        return "owned by root or the service's own user";
    if (S_ISDIR(st->st_mode) && (st->st_mode & S_ISVTX))
        return NULL;
    if (st->st_mode & S_IWOTH)
        return "not writable by others";
    if ((st->st_mode & S_IWGRP) && !group_is_ours)
        return "not writable by its group";
    return NULL;
}

static int check_parents(int fd, const struct stat *st, const char *path, uid_t own_uid, unsigned flags,
                         struct trust_error *reterr)
{
    char link[64], real[PATH_MAX], *slash;
    const char *wrong;
    struct stat at;
    ssize_t n;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, real, sizeof(real));
    if (n < 0)
        return -errno;
    if ((size_t)n >= sizeof(real) || real[0] != '/')
        return refuse(reterr, "at a path that can be checked", path);
    real[n] = 0;
    if (stat("/", &at) < 0)
        return -errno;
    wrong = who_can_change(&at, own_uid, flags);
    if (wrong)
        return refuse(reterr, wrong, "/");
    for (slash = strchr(real + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        if (lstat(real, &at) < 0)
            return -errno;
        wrong = S_ISDIR(at.st_mode) ? who_can_change(&at, own_uid, flags) : "a directory";
        if (wrong)
            return refuse(reterr, wrong, real);
        *slash = '/';
    }
    if (lstat(real, &at) < 0 || at.st_dev != st->st_dev || at.st_ino != st->st_ino)
        return refuse(reterr, "still where it was opened", path);
    return 0;
}

int trust_open_at(int dir_fd, const char *name, const char *path, uid_t own_uid, unsigned flags, int *ret_fd,
                  struct trust_error *reterr)
{
    const struct open_how how = {
        .flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
        .resolve = RESOLVE_NO_MAGICLINKS,
    };
    _cleanup_close_ int fd = -EBADF;
    const char *wrong;
    struct stat st;
    int r;

    fd = (int)syscall(SYS_openat2, dir_fd, name, &how, sizeof(how));
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0)
        return -errno;
    if ((flags & TRUST_DIRECTORY) ? !S_ISDIR(st.st_mode) : !S_ISREG(st.st_mode))
        return refuse(reterr, (flags & TRUST_DIRECTORY) ? "a directory" : "a regular file", path);
    if (!(flags & TRUST_ANYBODY)) {
        wrong = who_can_change(&st, own_uid, flags);
        if (wrong)
            return refuse(reterr, wrong, path);
        r = check_parents(fd, &st, path, own_uid, flags, reterr);
        if (r < 0)
            return r;
    }
    *ret_fd = TAKE_FD(fd);
    return 0;
}

int trust_open(const char *path, uid_t own_uid, unsigned flags, int *ret_fd, struct trust_error *reterr)
{
    return trust_open_at(AT_FDCWD, path, path, own_uid, flags, ret_fd, reterr);
}
