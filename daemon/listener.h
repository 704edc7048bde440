/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The public socket and everything behind it: accepting, sessions, methods. Owns all sessions; freeing it ends them
 * and cancels what they run.
 */

#include "base/cleanup.h"
#include "base/fault.h"
#include "daemon/manager.h"
#include "daemon/nss.h"

#define LISTENER_PATH_DEFAULT "/run/residentd/io.residentd"

struct listener;

struct listener_options {
    const char *path;    /* where to bind; NULL: the fd, or systemd's, or LISTENER_PATH_DEFAULT */
    int fd;              /* a listening socket, taken; -EBADF: none */
    nss_lookup_t lookup; /* NULL: the system's user database */
};

/**
 * listener_new() - open the socket and answer on it from the manager's event loop
 * A path is bound with mode 0666 (who may do what is decided by credentials, not by the file), its folder is made if it
 * is missing, a stale socket is replaced; one that somebody answers on is not (-EADDRINUSE).
 * With neither path nor fd, a listening Unix socket named "io.residentd" or "varlink" among the descriptors that
 * systemd passed is used (FileDescriptorName=, or the file name of its path); the environment is left as it is.
 * Returns 0 or a negative errno.
 */
int listener_new(struct manager *m, const struct listener_options *options, struct listener **ret);

/**
 * listener_free() - end all sessions and remove the socket if it is the one that was bound; NULL is fine, returns NULL
 */
struct listener *listener_free(struct listener *l);

DEFINE_CLEANUP(struct listener *, listener_free)

/**
 * listener_path() - where clients connect, for the log; NULL when the socket was handed in
 */
const char *listener_path(const struct listener *l);
