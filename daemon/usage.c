/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What users have used: the ledger's day becomes the quotas', and both are reported.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "daemon/calendar.h"
#include "daemon/internal.h"

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
            log_line(m->log, LOG_ERR, NULL, "out of memory: what was used today is not counted in full");
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
