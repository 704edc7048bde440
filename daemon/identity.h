/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Who is at the other end of a connection: what the kernel recorded when the peer connected, never what a message
 * says, and what NSS adds to it (a name, the groups of the user database). Fixed once, at accept; a change of groups
 * shows on the next connection.
 */

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "daemon/nss.h"
#include "policy/policy.h"

struct identity {
    uid_t uid; /* SO_PEERCRED, all three; once NSS was asked, of a subordinate uid that of its owner */
    gid_t gid;
    pid_t pid;
    int pidfd;     /* SO_PEERPIDFD; -EBADF where the kernel has none, and once the unit was looked for */
    char *unit;    /* peer-unit.h; NULL: none, not known, or not looked for */
    gid_t *groups; /* [n_groups] SO_PEERGROUPS */
    size_t n_groups;
    gid_t *nss_groups; /* [n_nss_groups] what NSS says, once it was asked */
    size_t n_nss_groups;
    bool is_subordinate;
    char *name; /* in NSS; NULL until it was asked */
};

#define IDENTITY_NULL ((struct identity){.uid = (uid_t)-1, .gid = (gid_t)-1, .pidfd = -EBADF})

/**
 * identity_from_socket() - what the kernel knows of the peer of a connected Unix socket
 * @ret: to be released by identity_done(). Blocks on nothing.
 * Returns 0, -ENOMEM or the errno of getsockopt().
 */
int identity_from_socket(int fd, struct identity *ret);

/**
 * identity_add_nss() - what NSS knows; copied. The uid may be another afterwards. Returns 0 or -ENOMEM.
 */
int identity_add_nss(struct identity *i, const struct nss_user *user);

/**
 * identity_unit() - the systemd unit of the peer, NULL where that can't be told; lives as long as @i
 * Looked for when it is first asked for: most connections never need it.
 */
const char *identity_unit(struct identity *i);

/**
 * identity_done() - release; an IDENTITY_NULL or half-made one too
 */
void identity_done(struct identity *i);

/**
 * identity_subject() - the same for the policy; the arrays are borrowed from @i
 */
struct policy_subject identity_subject(const struct identity *i);
