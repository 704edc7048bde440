/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Peer credentials. SO_PEERCRED and SO_PEERGROUPS are snapshots of the moment of connect(), so a peer that changes its
 * uid or hands its end to another process is still charged as who it was.
 */
#include "daemon/identity.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "daemon/peer-unit.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5; missing from older headers */
#endif

enum { GROUPS_FIRST = 32, GROUPS_MAX = 65536 /* NGROUPS_MAX of Linux */ };

static int read_groups(int fd, struct identity *i)
{
    size_t n_room = GROUPS_FIRST;

    for (;;) {
        _cleanup_free_ gid_t *groups = malloc(n_room * sizeof(gid_t));
        socklen_t n_bytes = (socklen_t)(n_room * sizeof(gid_t));

        if (!groups)
            return -ENOMEM;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &n_bytes) == 0) {
            i->n_groups = n_bytes / sizeof(gid_t);
            i->groups = TAKE_PTR(groups);
            return 0;
        }
        if (errno != ERANGE || n_room >= GROUPS_MAX)
            return -errno;
        n_room = n_bytes / sizeof(gid_t); /* the kernel said how many there are */
        if (n_room > GROUPS_MAX)
            return -ERANGE;
    }
}

int identity_from_socket(int fd, struct identity *ret)
{
    _cleanup_(identity_done) struct identity i = IDENTITY_NULL;
    struct ucred cred;
    socklen_t n_bytes = sizeof(cred);
    int pidfd, r;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n_bytes) < 0)
        return -errno;
    i.uid = cred.uid;
    i.gid = cred.gid;
    i.pid = cred.pid;
    r = read_groups(fd, &i);
    if (r < 0)
        return r;
    n_bytes = sizeof(pidfd);
    /* An old kernel has no such option, and a peer that is gone has no pidfd: neither matters to who it was. */
    if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &n_bytes) == 0)
        i.pidfd = pidfd;
    *ret = i;
    i = IDENTITY_NULL;
    return 0;
}

int identity_add_nss(struct identity *i, const struct nss_user *user)
{
    _cleanup_free_ char *name = strdup(user->name);
    _cleanup_free_ gid_t *groups = NULL;

    if (!name)
        return -ENOMEM;
    if (user->n_groups > 0) {
        groups = malloc(user->n_groups * sizeof(gid_t));
        if (!groups)
            return -ENOMEM;
        memcpy(groups, user->groups, user->n_groups * sizeof(gid_t));
    }
    free(i->name);
    free(i->nss_groups);
    i->name = TAKE_PTR(name);
    i->nss_groups = TAKE_PTR(groups);
    i->n_nss_groups = user->n_groups;
    i->is_subordinate |= user->uid != i->uid;
    i->uid = user->uid;
    return 0;
}

const char *identity_unit(struct identity *i)
{
    /* A label is no reason to fail; without memory it is not there. */
    (void)peer_unit(i->pid, i->pidfd, &i->unit);
    closep(&i->pidfd);
    i->pidfd = -EBADF;
    return i->unit;
}

void identity_done(struct identity *i)
{
    closep(&i->pidfd);
    free(i->unit);
    free(i->groups);
    free(i->nss_groups);
    free(i->name);
    *i = IDENTITY_NULL;
}

struct policy_subject identity_subject(const struct identity *i)
{
    return (struct policy_subject){
        .uid = i->uid,
        .is_subordinate = i->is_subordinate,
        .gid = i->gid,
        .groups = i->groups,
        .n_groups = i->n_groups,
        .nss_groups = i->nss_groups,
        .n_nss_groups = i->n_nss_groups,
    };
}
