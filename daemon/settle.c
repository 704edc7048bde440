/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/settle.h"

#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "daemon/calendar.h"
#include "daemon/internal.h"
#include "daemon/messages.h"

/* Until the ledger has said whether it is new. */
struct settling {
    struct list entry;
    struct manager *manager;
    struct ledger_record *record;
    struct log_fields fields; /* request and user */
    int64_t day;
    uint64_t tokens;
};

static void on_recorded(bool is_new, void *userdata)
{
    struct settling *s = userdata;
    struct manager *m = s->manager;
    const struct quota_time now = manager_quota_time(m);

    /* Most were written by the daemon that had them. */
    if (is_new)
        log_line(m->log, LOG_INFO, &s->fields,
                 "a request of the daemon before, which did not write it into the ledger, has used %" PRIu64 " tokens",
                 s->tokens);
    if (is_new && s->day == now.day_s && quotas_add_day(m->quotas, &now, s->fields.uid, s->tokens) < 0)
        log_line(m->log, LOG_ERR,
                 &(struct log_fields){.has_uid = true, .uid = s->fields.uid, .message_id = MESSAGE_LEDGER_LOST},
                 "out of memory: what was used today is not counted in full");
    list_remove(&s->entry);
    free(s);
}

void settle_used(struct model *model, uid_t uid, const struct packet_used *used)
{
    struct manager *m = model->manager;
    struct settling *s = calloc(1, sizeof(*s));
    struct timespec now;
    int64_t admitted_s;

    clock_gettime(CLOCK_REALTIME, &now);
    admitted_s = now.tv_sec - (int64_t)(used->age_ns / 1000000000);
    const struct ledger_entry entry = {
        .epoch = used->epoch,
        .request = used->request,
        .uid = uid,
        .model = model->rules->name,
        .day = calendar_day(admitted_s),
        .hour = calendar_hour(admitted_s),
        .prompt_tokens = used->prompt_tokens,
        .cached_tokens = used->cached_tokens,
        .output_tokens = used->output_tokens,
        .duration_us = used->duration_ns / 1000,
    };

    if (s)
        *s = (struct settling){
            .manager = m,
            .fields = {.request = used->request, .has_uid = true, .uid = uid},
            .day = entry.day,
            .tokens = ledger_entry_tokens(&entry)};
    if (s && ledger_record(m->ledger, &entry, on_recorded, s, &s->record) == 0) {
        list_append(&m->settling, &s->entry);
        return;
    }
    free(s);
    log_line(m->log, LOG_ERR,
             &(struct log_fields){
                 .request = used->request, .has_uid = true, .uid = uid, .message_id = MESSAGE_LEDGER_LOST},
             "out of memory: a request is missing in the ledger");
}

void settle_done(struct manager *m)
{
    struct list *at, *after;

    list_foreach (at, after, &m->settling) {
        struct settling *s = list_entry(at, struct settling, entry);

        ledger_forget(s->record);
        list_remove(&s->entry);
        free(s);
    }
}
