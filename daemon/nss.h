/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Questions to the user database. NSS may ask a network server, so it is asked in a helper thread, one question at
 * a time, and answers are remembered for a while: a user that opens connection after connection costs one lookup.
 * All functions but the lookups themselves belong to the event loop's thread.
 */

#include <stddef.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"

struct nss;
struct nss_query;

struct nss_user {
    char *name;
    gid_t *groups; /* [n_groups] getgrouplist() */
    size_t n_groups;
    uid_t uid; /* who it is: the uid that was asked for, or the owner of the range that it lies in (subuid.h); name and
                  groups are this one's */
};

/* The blocking lookup; runs in the helper thread. A test hands in its own. Fills *ret, whose parts malloc() made and
 * whose uid is @uid before. Returns 0, -ESRCH (nobody has this uid) or another negative errno (the database can't
 * tell). */
typedef int (*nss_lookup_t)(uid_t uid, struct nss_user *ret);

/* @user is set when @error is 0, and borrowed for the call. */
typedef void (*nss_answer_t)(int error, const struct nss_user *user, void *userdata);

/**
 * nss_new() - start the helper thread
 * @lookup: NULL: getpwuid_r() and getgrouplist(). Returns 0 or a negative errno.
 */
int nss_new(sd_event *event, nss_lookup_t lookup, struct nss **ret);

/**
 * nss_free() - wait for the lookup that runs, drop the others; no answer comes any more. NULL is fine, returns NULL
 */
struct nss *nss_free(struct nss *nss);

DEFINE_CLEANUP(struct nss *, nss_free)

/**
 * nss_ask() - who is @uid?
 * @ret: to call the question off; gone once @answer was called, which happens from the event loop, never from here
 * Returns 0 or -ENOMEM.
 */
int nss_ask(struct nss *nss, uid_t uid, nss_answer_t answer, void *userdata, struct nss_query **ret);

/**
 * nss_query_cancel() - the answer is no longer wanted. Takes NULL, returns NULL
 */
struct nss_query *nss_query_cancel(struct nss_query *query);
