/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What users have used: the ledger's day becomes the quotas', and both are reported.
 */
#include "daemon/usage.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "daemon/calendar.h"
#include "daemon/internal.h"
#include "daemon/messages.h"
#include "policy/quota.h"

struct quota_time manager_quota_time(struct manager *m)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    /* The calendar is only asked when a day has ended, or the clock was set. */
    if (now.tv_sec < m->day_s || now.tv_sec >= m->next_day_s) {
        m->day_s = calendar_day(now.tv_sec);
        m->next_day_s = calendar_next_day(now.tv_sec);
    }
    return (struct quota_time){
        .now_us = manager_now_us(m),
        .wall_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000,
        .day_s = m->day_s,
        .next_day_s = m->next_day_s,
    };
}

static void on_loaded(const struct ledger_day *list, size_t n, void *userdata)
{
    struct manager *m = userdata;
    const struct quota_time now = manager_quota_time(m);

    for (size_t i = 0; i < n; i++)
        if (quotas_add_day(m->quotas, &now, list[i].id, list[i].tokens) < 0)
            log_line(m->log, LOG_ERR, &(struct log_fields){.message_id = MESSAGE_LEDGER_LOST},
                 "out of memory: what was used today is not counted in full");
}

int manager_open_ledger(struct manager *m, const char *dir)
{
    const struct ledger_options options = {.dir = dir, .loaded = on_loaded, .userdata = m, .log = m->log};
    int r = ledger_new(m->event, &options, &m->ledger);

    if (r >= 0 && !dir)
        log_line(m->log, LOG_NOTICE, NULL,
                 "No state directory (--state): usage is not recorded, and the quotas of a day begin anew with each "
                 "start");
    return r;
}

/* ---- reports ---- */

uint64_t manager_kv_bytes(const struct manager *m, uid_t uid)
{
    struct list *at, *after;
    uint64_t sum = 0;

    list_foreach (at, after, &m->models) {
        const struct model *model = list_entry(at, struct model, entry);

        if (model->worker)
            sum += worker_kv_pages(model->worker, uid) * model->kv_page_bytes;
    }
    return sum;
}

static struct usage_item not_renewed(uint64_t limit, uint64_t used)
{
    return (struct usage_item){.limit = limit, .has_used = true, .used = used, .renews_ms = -1};
}

/* Without a limit nobody counts by the minute. */
static struct usage_item of_minute(uint64_t limit, uint64_t used, uint64_t renews_ms)
{
    return (struct usage_item){
        .limit = limit, .has_used = limit != POLICY_UNLIMITED, .used = used, .renews_ms = (int64_t)renews_ms};
}

static void fill(struct manager *m, const struct policy_quota *limits, uint64_t id, const struct accounts *accounts,
                 uint64_t kv_bytes, struct usage *ret)
{
    const struct quota_party party = {.id = id,
                                      .limits = {.requests_per_minute = limits->requests_per_minute,
                                                 .tokens_per_minute = limits->tokens_per_minute,
                                                 .tokens_per_day = limits->tokens_per_day}};
    const struct quota_time now = manager_quota_time(m);
    uid_t account = (uid_t)id;
    struct quota_used used;

    quotas_used(m->quotas, &now, &party, &used);
    for (enum policy_quota_key key = 0; key < POLICY_QUOTA_KEY_MAX; key++)
        ret->items[key] = (struct usage_item){.limit = policy_quota_value(limits, key), .renews_ms = -1};
    ret->items[POLICY_QUOTA_CONCURRENT] =
        not_renewed(limits->concurrent, account_used(accounts, account, ACCOUNT_REQUESTS));
    ret->items[POLICY_QUOTA_QUEUED] = not_renewed(limits->queued, account_used(accounts, account, ACCOUNT_QUEUED));
    ret->items[POLICY_QUOTA_CONNECTIONS] =
        not_renewed(limits->connections, account_used(accounts, account, ACCOUNT_CONNECTIONS));
    ret->items[POLICY_QUOTA_KV] = not_renewed(limits->kv_bytes, kv_bytes);
    ret->items[POLICY_QUOTA_REQUESTS_PER_MINUTE] =
        of_minute(limits->requests_per_minute, used.requests_per_minute, used.requests_renew_ms);
    ret->items[POLICY_QUOTA_TOKENS_PER_MINUTE] =
        of_minute(limits->tokens_per_minute, used.tokens_per_minute, used.tokens_renew_ms);
    ret->items[POLICY_QUOTA_TOKENS_PER_DAY] = (struct usage_item){.limit = limits->tokens_per_day,
                                                                  .has_used = true,
                                                                  .used = used.tokens_per_day,
                                                                  .renews_ms = (int64_t)used.day_renew_ms};
}

void manager_usage(struct manager *m, const struct policy_subject *s, struct usage *ret)
{
    struct policy_quota limits;

    policy_quota_for(m->policy, s, &limits);
    fill(m, &limits, s->uid, m->accounts, manager_kv_bytes(m, s->uid), ret);
}

void manager_group_usage(struct manager *m, const struct policy_quota_entry *group, struct usage *ret)
{
    fill(m, &group->total, LEDGER_GROUP | group->id, m->group_accounts,
         account_used(m->group_accounts, group->id, ACCOUNT_KV), ret);
}

static int compare_uids(const void *a, const void *b)
{
    uid_t x = *(const uid_t *)a, y = *(const uid_t *)b;

    return (x > y) - (x < y);
}

int manager_usage_uids(struct manager *m, uid_t **ret, size_t *ret_n)
{
    _cleanup_free_ struct account_status *holders = NULL;
    _cleanup_free_ uint64_t *ids = NULL;
    size_t n_holders, n_ids, n = 0, n_different = 0;
    uid_t *uids;

    if (accounts_list(m->accounts, &holders, &n_holders) < 0 || quotas_ids(m->quotas, &ids, &n_ids) < 0)
        return -ENOMEM;
    uids = calloc(n_holders + n_ids + 1, sizeof(*uids));
    if (!uids)
        return -ENOMEM;
    for (size_t i = 0; i < n_holders; i++)
        uids[n++] = holders[i].uid;
    for (size_t i = 0; i < n_ids; i++)
        if (!(ids[i] & LEDGER_GROUP))
            uids[n++] = (uid_t)ids[i];
    qsort(uids, n, sizeof(*uids), compare_uids);
    for (size_t i = 0; i < n; i++)
        if (n_different == 0 || uids[n_different - 1] != uids[i])
            uids[n_different++] = uids[i];
    *ret = uids;
    *ret_n = n_different;
    return 0;
}
