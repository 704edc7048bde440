/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/watch.h"

#include <errno.h>
#include <stdlib.h>

#include "daemon/internal.h"

/* A person can't read faster, and a program that needs each token asks for the answer itself. */
#define WATCH_INTERVAL_US UINT64_C(250000)

struct watch {
    struct list entry;
    void (*changed)(void *userdata);
    void *userdata;
};

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
    struct manager *m = userdata;
    struct list *at, *after;

    m->watched_us = manager_now_us(m);
    list_foreach (at, after, &m->watches) {
        struct watch *w = list_entry(at, struct watch, entry);

        w->changed(w->userdata);
    }
    return 0;
}

void manager_requests_changed(struct manager *m)
{
    int enabled = SD_EVENT_OFF;
    uint64_t next = m->watched_us + WATCH_INTERVAL_US;

    if (list_is_empty(&m->watches))
        return;
    (void)sd_event_source_get_enabled(m->watch_timer, &enabled);
    if (enabled != SD_EVENT_OFF)
        return;
    /* Both fail only for a source that is none; then the next change tries again. */
    if (sd_event_source_set_time(m->watch_timer, next) >= 0)
        (void)sd_event_source_set_enabled(m->watch_timer, SD_EVENT_ONESHOT);
}

int manager_watch(struct manager *m, void (*changed)(void *userdata), void *userdata, struct watch **ret)
{
    _cleanup_free_ struct watch *w = calloc(1, sizeof(*w));
    int r;

    if (!w)
        return -ENOMEM;
    if (!m->watch_timer) {
        r = sd_event_add_time_relative(m->event, &m->watch_timer, CLOCK_MONOTONIC, 0, 0, on_timer, m);
        if (r >= 0)
            r = sd_event_source_set_enabled(m->watch_timer, SD_EVENT_OFF);
        if (r < 0)
            return r;
    }
    w->changed = changed;
    w->userdata = userdata;
    list_append(&m->watches, &w->entry);
    *ret = TAKE_PTR(w);
    return 0;
}

struct watch *watch_free(struct watch *w)
{
    if (!w)
        return NULL;
    list_remove(&w->entry);
    free(w);
    return NULL;
}
