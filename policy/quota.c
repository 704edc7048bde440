/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How much of the service a user may have. The default holds until a group of the user's says otherwise, key by key;
 * among several such groups the most generous wins; what is said of the user by name replaces both. A key that nobody
 * gives is unlimited (weight 100, priority_max 0). Group totals are no user's quota: they are enforced apart.
 */
#include <string.h>

#include "policy/internal.h"
#include "policy/quota.h"

static const char *const key_names[POLICY_QUOTA_KEY_MAX] = {
    [POLICY_QUOTA_CONCURRENT] = "concurrent",
    [POLICY_QUOTA_QUEUED] = "queued",
    [POLICY_QUOTA_REQUESTS_PER_MINUTE] = "requests_per_minute",
    [POLICY_QUOTA_TOKENS_PER_MINUTE] = "tokens_per_minute",
    [POLICY_QUOTA_TOKENS_PER_DAY] = "tokens_per_day",
    [POLICY_QUOTA_CONTEXT_TOKENS] = "context_tokens",
    [POLICY_QUOTA_OUTPUT_TOKENS] = "output_tokens",
    [POLICY_QUOTA_KV] = "kv",
    [POLICY_QUOTA_CONNECTIONS] = "connections",
    [POLICY_QUOTA_WEIGHT] = "weight",
    [POLICY_QUOTA_PRIORITY_MAX] = "priority_max",
};

static const size_t key_at[POLICY_QUOTA_PRIORITY_MAX] = {
    [POLICY_QUOTA_CONCURRENT] = offsetof(struct policy_quota, concurrent),
    [POLICY_QUOTA_QUEUED] = offsetof(struct policy_quota, queued),
    [POLICY_QUOTA_REQUESTS_PER_MINUTE] = offsetof(struct policy_quota, requests_per_minute),
    [POLICY_QUOTA_TOKENS_PER_MINUTE] = offsetof(struct policy_quota, tokens_per_minute),
    [POLICY_QUOTA_TOKENS_PER_DAY] = offsetof(struct policy_quota, tokens_per_day),
    [POLICY_QUOTA_CONTEXT_TOKENS] = offsetof(struct policy_quota, context_tokens),
    [POLICY_QUOTA_OUTPUT_TOKENS] = offsetof(struct policy_quota, output_tokens),
    [POLICY_QUOTA_KV] = offsetof(struct policy_quota, kv_bytes),
    [POLICY_QUOTA_CONNECTIONS] = offsetof(struct policy_quota, connections),
    [POLICY_QUOTA_WEIGHT] = offsetof(struct policy_quota, weight),
};

const char *policy_quota_key_name(enum policy_quota_key key)
{
    return key_names[key];
}

uint64_t policy_quota_value(const struct policy_quota *q, enum policy_quota_key key)
{
    uint64_t value;

    if (key == POLICY_QUOTA_PRIORITY_MAX)
        return q->priority_max > 0 ? (uint64_t)q->priority_max : 0;
    memcpy(&value, (const char *)q + key_at[key], sizeof(value));
    return value;
}

/* Takes the keys of @mask from @from; with @generous only where that gives more. */
static void take(struct policy_quota *into, const struct policy_quota *from, uint32_t mask, bool generous)
{
    for (enum policy_quota_key key = 0; key < POLICY_QUOTA_PRIORITY_MAX; key++) {
        uint64_t value = policy_quota_value(from, key);

        if ((mask & (1u << key)) && (!generous || value > policy_quota_value(into, key)))
            memcpy((char *)into + key_at[key], &value, sizeof(value));
    }
    if ((mask & (1u << POLICY_QUOTA_PRIORITY_MAX)) && (!generous || from->priority_max > into->priority_max))
        into->priority_max = from->priority_max;
}

bool policy_is_member(const struct policy_subject *s, gid_t gid)
{
    if (s->gid == gid)
        return true;
    for (size_t i = 0; i < s->n_groups; i++) {
        if (s->groups[i] == gid)
            return true;
    }
    for (size_t i = 0; i < s->n_nss_groups; i++) {
        if (s->nss_groups[i] == gid)
            return true;
    }
    return false;
}

void policy_quota_for(const struct policy *p, const struct policy_subject *s, struct policy_quota *ret)
{
    uint32_t from_groups = 0;

    *ret = p->quota_default.values;
    for (size_t i = 0; i < p->n_quota_groups; i++) {
        const struct policy_quota_entry *group = &p->quota_groups[i];

        if (!group->known || !policy_is_member(s, group->id))
            continue;
        take(ret, &group->values, group->given & ~from_groups, false);
        take(ret, &group->values, group->given & from_groups, true);
        from_groups |= group->given;
    }
    for (size_t i = 0; i < p->n_quota_users; i++) {
        const struct policy_quota_entry *user = &p->quota_users[i];

        if (user->known && user->id == s->uid)
            take(ret, &user->values, user->given, false);
    }
}

size_t policy_totals_for(const struct policy *p, const struct policy_subject *s, const struct policy_quota_entry **ret)
{
    size_t n = 0;

    for (size_t i = 0; i < p->n_quota_groups; i++) {
        const struct policy_quota_entry *group = &p->quota_groups[i];

        if (group->known && group->has_total && policy_is_member(s, group->id))
            ret[n++] = group;
    }
    return n;
}
