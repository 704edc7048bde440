/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Opening files that only trusted people can change: policy files, and model files that are used in place. Shared by
 * the daemon and by whoever reads a policy.
 */

#include <stdbool.h>
#include <sys/types.h>

#define TRUST_PATH_MAX 512

enum trust_flags {
    TRUST_DIRECTORY = 1 << 0, /* open a directory instead of a regular file */
    TRUST_NO_GROUP = 1 << 1,  /* no group may write; otherwise root's and the service's own group may */
    TRUST_ANYBODY = 1 << 2,   /* whoever owns it: only the kind of file is checked */
};

struct trust_error {
    const char *reason;        /* static, what is wrong with the place below */
    char path[TRUST_PATH_MAX]; /* the file or the directory above it that is at fault, cut if need be */
};

/**
 * trust_open() - open @path for reading if nobody but root and @own_uid can change or replace it
 * The file and each directory above it (of the path that symbolic links lead to) must belong to root or @own_uid and
 * not be writable by others; a sticky directory may be (nobody can replace the entries of others there). Never
 * blocks on a FIFO or a device, never follows /proc's magic links.
 * @ret_fd: O_RDONLY | O_CLOEXEC, owned by the caller
 * @reterr: on -EPERM why; untouched otherwise
 * Returns 0, -EPERM (not trusted, or no file of that kind), or what the kernel says (-ENOENT, -EACCES, …).
 */
int trust_open(const char *path, uid_t own_uid, unsigned flags, int *ret_fd, struct trust_error *reterr);

/**
 * trust_open_at() - trust_open() of an entry of @dir_fd, a directory that trust_open() has opened
 * @path is what errors name. Only the entry itself and, if it is a link, where it leads are checked.
 */
int trust_open_at(int dir_fd, const char *name, const char *path, uid_t own_uid, unsigned flags, int *ret_fd,
                  struct trust_error *reterr);
