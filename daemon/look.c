/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/look.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/fault.h"
#include "daemon/gpus.h"
#include "daemon/limits.h"
#include "daemon/worker.h"

struct look {
    sd_event *event; /* borrowed */
    struct worker *worker;
    struct gpus *gpus;
    const struct look_callbacks *callbacks;
    void *userdata;
    sd_event_source *timer;
    bool looked;
};

static uint64_t now_us(const struct look *l)
{
    uint64_t now = 0;

    sd_event_now(l->event, CLOCK_MONOTONIC, &now);
    return now;
}

static void fail_text(struct look *l, const char *text)
{
    struct fault fault;

    fault_set(&fault, FAULT_MODEL_UNAVAILABLE, NULL, "%s", text);
    l->callbacks->ended(l, &fault, l->userdata);
}

static void on_facts(struct worker *w, json_object *facts, void *userdata)
{
    struct look *l = userdata;
    json_object *value;
    bool goes_on = json_object_object_get_ex(facts, "gpus_watched", &value) && json_object_get_boolean(value);

    if (l->looked)
        return;
    l->looked = true;
    sd_event_source_set_enabled(l->timer, SD_EVENT_OFF);
    gpus_take_facts(l->gpus, facts, now_us(l));
    l->callbacks->looked(l, l->userdata);
    if (!goes_on)
        l->callbacks->ended(l, NULL, l->userdata);
}

static void on_gpus(struct worker *w, json_object *samples, void *userdata)
{
    struct look *l = userdata;

    if (l->looked)
        gpus_take_samples(l->gpus, samples, GPUS_WATCHED, now_us(l));
}

static void on_failed(struct worker *w, uint64_t request, const struct fault *fault, void *userdata)
{
    struct look *l = userdata;

    l->callbacks->ended(l, fault, l->userdata);
}

static void on_gone(struct worker *w, const char *reason, bool expected, void *userdata)
{
    fail_text(userdata, reason);
}

/* There is no model of which it could say any of this. */
static void on_ready(struct worker *w, json_object *facts, void *userdata)
{
    fail_text(userdata, "a worker loaded a model where it should have looked for GPUs");
}

static const struct worker_callbacks worker_callbacks = {
    .facts = on_facts,
    .ready = on_ready,
    .failed = on_failed,
    .gpus = on_gpus,
    .gone = on_gone,
};

static int on_timer(sd_event_source *s, uint64_t now, void *userdata)
{
    fail_text(userdata, "opening the GPUs took too long");
    return 0;
}

int look_new(sd_event *event, struct workers *workers, const struct look_options *options, struct look **ret)
{
    _cleanup_(look_freep) struct look *l = calloc(1, sizeof(*l));
    const struct worker_options worker = {
        .path = options->worker_path, .config = "{\"look\":true}", .n_threads = 1, .gpu = true};
    int r;

    if (!l)
        return -ENOMEM;
    *l = (struct look){
        .event = event, .gpus = options->gpus, .callbacks = options->callbacks, .userdata = options->userdata};
    r = sd_event_add_time_relative(event, &l->timer, CLOCK_MONOTONIC, LIMIT_MEASURE_US, 0, on_timer, l);
    if (r >= 0)
        r = worker_new(workers, &worker, &worker_callbacks, l, &l->worker);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(l);
    return 0;
}

struct look *look_free(struct look *l)
{
    if (!l)
        return NULL;
    sd_event_source_disable_unref(l->timer);
    worker_free(l->worker);
    free(l);
    return NULL;
}
