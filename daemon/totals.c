/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/totals.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/ledger-file.h"
#include "policy/quota.h"

int totals_init(struct totals *t, const struct policy *p, const struct policy_subject *s)
{
    _cleanup_free_ const struct policy_quota_entry **entries = calloc(p->n_quota_groups + 1, sizeof(*entries));
    size_t n;

    *t = (struct totals){.n = 0};
    if (!entries)
        return -ENOMEM;
    n = policy_totals_for(p, s, entries);
    if (n == 0)
        return 0;
    t->list = calloc(n, sizeof(*t->list));
    if (!t->list)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        struct total *total = &t->list[i];

        total->gid = entries[i]->id;
        total->limits = entries[i]->total;
        snprintf(total->prefix, sizeof(total->prefix), "groups.%.70s.total.", entries[i]->name);
    }
    t->n = n;
    return 0;
}

void totals_discharge(struct totals *t)
{
    for (size_t i = 0; i < t->n; i++) {
        account_discharge(&t->list[i].charge);
        account_discharge(&t->list[i].kv);
    }
}

void totals_done(struct totals *t)
{
    totals_discharge(t);
    free(t->list);
    *t = (struct totals){.n = 0};
}

static int charge_all(struct totals *t, struct accounts *groups, enum account_slot slot, bool is_limited,
                      const struct total **full)
{
    for (size_t i = 0; i < t->n; i++) {
        struct total *total = &t->list[i];
        uint64_t max = slot == ACCOUNT_CONNECTIONS ? total->limits.connections : total->limits.queued;
        int r = account_charge(groups, total->gid, slot, 1, is_limited ? max : UINT64_MAX, &total->charge);

        if (r == 0)
            continue;
        totals_discharge(t);
        *full = total;
        return r;
    }
    return 0;
}

int totals_queue(struct totals *t, struct accounts *groups, bool is_limited, const struct total **full)
{
    return charge_all(t, groups, ACCOUNT_QUEUED, is_limited, full);
}

int totals_connect(struct totals *t, struct accounts *groups, const struct total **full)
{
    return charge_all(t, groups, ACCOUNT_CONNECTIONS, /* is_limited= */ true, full);
}

static bool has_room(const struct accounts *groups, const struct total *total, enum account_slot slot, uint64_t amount,
                     uint64_t limit)
{
    uint64_t used = account_used(groups, total->gid, slot);

    return used <= limit && amount <= limit - used;
}

bool totals_may_run(const struct totals *t, const struct accounts *groups, uint64_t kv_bytes)
{
    for (size_t i = 0; i < t->n; i++) {
        const struct total *total = &t->list[i];

        if (!has_room(groups, total, ACCOUNT_REQUESTS, 1, total->limits.concurrent) ||
            !has_room(groups, total, ACCOUNT_KV, kv_bytes, total->limits.kv_bytes))
            return false;
    }
    return true;
}

int totals_run(struct totals *t, struct accounts *groups, uint64_t kv_bytes)
{
    for (size_t i = 0; i < t->n; i++) {
        int r = account_charge(groups, t->list[i].gid, ACCOUNT_KV, kv_bytes, UINT64_MAX, &t->list[i].kv);

        if (r < 0) {
            while (i-- > 0)
                account_discharge(&t->list[i].kv);
            return r;
        }
    }
    for (size_t i = 0; i < t->n; i++)
        account_move(&t->list[i].charge, ACCOUNT_REQUESTS, UINT64_MAX);
    return 0;
}

void totals_stop(struct totals *t)
{
    for (size_t i = 0; i < t->n; i++) {
        account_discharge(&t->list[i].kv);
        account_move(&t->list[i].charge, ACCOUNT_QUEUED, UINT64_MAX);
    }
}

static struct quota_limits limits_of(const struct policy_quota *q)
{
    return (struct quota_limits){.requests_per_minute = q->requests_per_minute,
                                 .tokens_per_minute = q->tokens_per_minute,
                                 .tokens_per_day = q->tokens_per_day};
}

int totals_parties(const struct totals *t, uid_t uid, const struct policy_quota *quota, struct quota_party **ret)
{
    struct quota_party *list = calloc(1 + t->n, sizeof(*list));

    if (!list)
        return -ENOMEM;
    list[0] = (struct quota_party){.id = uid, .limits = limits_of(quota)};
    for (size_t i = 0; i < t->n; i++)
        list[i + 1] = (struct quota_party){.id = LEDGER_GROUP | t->list[i].gid,
                                           .name = t->list[i].prefix,
                                           .limits = limits_of(&t->list[i].limits)};
    *ret = list;
    return 0;
}

uint64_t totals_kv_max(const struct totals *t)
{
    uint64_t max = POLICY_UNLIMITED;

    for (size_t i = 0; i < t->n; i++)
        if (t->list[i].limits.kv_bytes < max)
            max = t->list[i].limits.kv_bytes;
    return max;
}
