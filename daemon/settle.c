/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/settle.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "daemon/calendar.h"
#include "daemon/internal.h"
#include "daemon/messages.h"
#include "daemon/nss.h"
#include "policy/quota.h"

/* Until the user database has said in which groups the user is, and the ledger whether it is new. */
struct settling {
    struct list entry;
    struct manager *manager;
    struct nss_query *query;
    struct ledger_record *record;
    struct ledger_entry what; /* model and groups are its own */
    char model[POLICY_NAME_MAX + 1];
    gid_t *groups;
    uint64_t tokens;
};

static struct settling *settling_free(struct settling *s)
{
    if (!s)
        return NULL;
    nss_query_cancel(s->query);
    ledger_forget(s->record);
    list_remove(&s->entry);
    free(s->groups);
    free(s);
    return NULL;
}

static void lost(const struct settling *s, const char *what)
{
    log_line(s->manager->log, LOG_ERR,
             &(struct log_fields){.request = s->what.request,
                                  .has_uid = true,
                                  .uid = s->what.uid,
                                  .message_id = MESSAGE_LEDGER_LOST},
             "out of memory: %s", what);
}

/* The day's tokens of the user and of its groups. */
static int add_day(struct settling *s, const struct quota_time *now)
{
    struct quotas *q = s->manager->quotas;
    int r = quotas_add_day(q, now, s->what.uid, s->tokens);

    for (size_t i = 0; r == 0 && i < s->what.n_groups; i++)
        r = quotas_add_day(q, now, LEDGER_GROUP | s->groups[i], s->tokens);
    return r;
}

static void on_recorded(bool is_new, void *userdata)
{
    struct settling *s = userdata;
    struct manager *m = s->manager;
    const struct quota_time now = manager_quota_time(m);

    s->record = NULL;
    /* Most were written by the daemon that had them. */
    if (is_new)
        log_line(m->log, LOG_INFO,
                 &(struct log_fields){.request = s->what.request, .has_uid = true, .uid = s->what.uid},
                 "a request of the daemon before, which did not write it into the ledger, has used %" PRIu64 " tokens",
                 s->tokens);
    if (is_new && s->what.day == now.day_s && add_day(s, &now) < 0)
        lost(s, "what was used today is not counted in full");
    settling_free(s);
}

static void write_down(struct settling *s)
{
    if (ledger_record(s->manager->ledger, &s->what, on_recorded, s, &s->record) == 0)
        return;
    lost(s, "a request is missing in the ledger");
    settling_free(s);
}

/* The groups with a total among those of @user. Returns 0 or -ENOMEM. */
static int find_groups(struct settling *s, const struct nss_user *user)
{
    const struct policy *p = s->manager->policy;
    const struct policy_subject subject = {
        .uid = s->what.uid, .gid = (gid_t)-1, .nss_groups = user->groups, .n_nss_groups = user->n_groups};
    _cleanup_free_ const struct policy_quota_entry **entries = calloc(p->n_quota_groups + 1, sizeof(*entries));
    size_t n;

    s->groups = calloc(p->n_quota_groups + 1, sizeof(*s->groups));
    if (!entries || !s->groups)
        return -ENOMEM;
    n = policy_totals_for(p, &subject, entries);
    for (size_t i = 0; i < n; i++)
        s->groups[i] = entries[i]->id;
    s->what.groups = s->groups;
    s->what.n_groups = n;
    return 0;
}

/* A user whom nobody knows any more is in no group. */
static void on_named(int error, const struct nss_user *user, void *userdata)
{
    struct settling *s = userdata;

    s->query = NULL;
    if (user && find_groups(s, user) < 0)
        lost(s, "what was used today is not counted against groups");
    write_down(s);
}

static bool has_totals(const struct policy *p)
{
    for (size_t i = 0; i < p->n_quota_groups; i++)
        if (p->quota_groups[i].has_total)
            return true;
    return false;
}

void settle_used(struct model *model, uid_t uid, const struct packet_used *used)
{
    struct manager *m = model->manager;
    struct settling *s = calloc(1, sizeof(*s));
    struct timespec now;
    int64_t admitted_s;

    if (!s) {
        lost(&(struct settling){.manager = m, .what = {.request = used->request, .uid = uid}},
             "a request is missing in the ledger");
        return;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    admitted_s = now.tv_sec - (int64_t)(used->age_ns / 1000000000);
    s->manager = m;
    snprintf(s->model, sizeof(s->model), "%s", model->rules->name);
    s->what = (struct ledger_entry){
        .epoch = used->epoch,
        .request = used->request,
        .uid = uid,
        .model = s->model,
        .day = calendar_day(admitted_s),
        .hour = calendar_hour(admitted_s),
        .prompt_tokens = used->prompt_tokens,
        .cached_tokens = used->cached_tokens,
        .output_tokens = used->output_tokens,
        .duration_us = used->duration_ns / 1000,
    };
    s->tokens = ledger_entry_tokens(&s->what);
    list_append(&m->settling, &s->entry);
    if (!has_totals(m->policy) || !m->nss)
        write_down(s);
    else if (nss_ask(m->nss, uid, on_named, s, &s->query) < 0)
        on_named(-ENOMEM, NULL, s);
}

void settle_done(struct manager *m)
{
    struct list *at, *after;

    list_foreach (at, after, &m->settling)
        settling_free(list_entry(at, struct settling, entry));
}
