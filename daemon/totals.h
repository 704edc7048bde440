/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the groups of a user may hold as a whole (`total` in the policy): requests that run, that wait, and their
 * memory; and, in an object of its session's own, connections. Each of the user's groups that has a total counts all
 * that its members hold, in an account under its gid.
 */

#include <stdint.h>

#include "daemon/account.h"
#include "daemon/quota.h"
#include "policy/policy.h"

struct total {
    gid_t gid;
    char prefix[96]; /* "groups.NAME.total.": before the key in an error; a long name is cut */
    struct policy_quota limits;
    struct account_charge charge, kv; /* while the request waits or runs, or the connection is open; while it runs */
};

struct totals {
    struct total *list; /* [n] */
    size_t n;
};

/**
 * totals_init() - the groups of @s that have a total; nothing is charged. Returns 0 or -ENOMEM.
 */
int totals_init(struct totals *t, const struct policy *p, const struct policy_subject *s);

/**
 * totals_done() - gives back what is charged and releases; a zeroed one too
 */
void totals_done(struct totals *t);

/**
 * totals_discharge() - gives back what is charged
 */
void totals_discharge(struct totals *t);

/**
 * totals_queue() - one more request waits
 * @full: set when there is no room: which group's total it is. @is_limited: false to count it whatever the limit is
 * Returns 0; ACCOUNT_FULL (nothing is charged); -ENOMEM.
 */
int totals_queue(struct totals *t, struct accounts *groups, bool is_limited, const struct total **full);

/**
 * totals_connect() - one more connection, of an object that counts no request
 * @full: set when there is no room: which group's total it is
 * Returns 0; ACCOUNT_FULL (nothing is charged); -ENOMEM.
 */
int totals_connect(struct totals *t, struct accounts *groups, const struct total **full);

/**
 * totals_may_run() - whether each group has room for one more that runs and may take @kv_bytes
 */
bool totals_may_run(const struct totals *t, const struct accounts *groups, uint64_t kv_bytes);

/**
 * totals_run() - it runs from now on, and may take @kv_bytes; asked totals_may_run() before. Returns 0 or -ENOMEM.
 */
int totals_run(struct totals *t, struct accounts *groups, uint64_t kv_bytes);

/**
 * totals_stop() - the reverse of totals_run()
 */
void totals_stop(struct totals *t);

/**
 * totals_parties() - the user and its groups, for quota.h
 * @ret: [1 + t->n], the caller's; names are borrowed from @t. Returns 0 or -ENOMEM.
 */
int totals_parties(const struct totals *t, uid_t uid, const struct policy_quota *quota, struct quota_party **ret);

/**
 * totals_kv_max() - the least of what the groups may hold of KV, in bytes; POLICY_UNLIMITED: any
 */
uint64_t totals_kv_max(const struct totals *t);
