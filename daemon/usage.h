/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * How somebody stands with each quota: what Usage.Get reports.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "policy/policy.h"

struct manager;

/* One for each key of the policy, in the order of enum policy_quota_key. */
struct usage_item {
    uint64_t limit; /* POLICY_UNLIMITED: none */
    bool has_used;  /* a key that limits one request, or a share, is not used up */
    uint64_t used;
    int64_t renews_ms; /* -1: it does not come back with time */
};

struct usage {
    struct usage_item items[POLICY_QUOTA_KEY_MAX];
};

/**
 * manager_usage() - of a user, by what is known of its groups
 */
void manager_usage(struct manager *m, const struct policy_subject *s, struct usage *ret);

/**
 * manager_group_usage() - of a group with a total as a whole
 */
void manager_group_usage(struct manager *m, const struct policy_quota_entry *group, struct usage *ret);

/**
 * manager_usage_uids() - users who hold something, or used something since the start or today; in order
 * @ret: [*ret_n], the caller's. Returns 0 or -ENOMEM.
 */
int manager_usage_uids(struct manager *m, uid_t **ret, size_t *ret_n);

/**
 * manager_kv_bytes() - what the running requests of @uid hold of KV in all models, as of their last steps
 */
uint64_t manager_kv_bytes(const struct manager *m, uid_t uid);
