/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/measure.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json-build.h"
#include "base/json.h"
#include "daemon/gpus.h"
#include "daemon/limits.h"
#include "daemon/model-files.h"

struct measure {
    struct worker *worker;
    const struct measure_callbacks *callbacks;
    void *userdata;
    sd_event_source *timer;
    struct gpus *gpus; /* NULL: not asked for */
    bool settled;
};

static void fail(struct measure *m, const struct fault *fault)
{
    if (m->settled)
        return;
    m->settled = true;
    m->callbacks->failed(m, fault, m->userdata);
}

static void fail_text(struct measure *m, const char *text)
{
    struct fault fault;

    fault_set(&fault, FAULT_MODEL_UNAVAILABLE, NULL, "%s", text);
    fail(m, &fault);
}

static void on_facts(struct worker *w, json_object *facts, void *userdata)
{
    struct plan_shape shape = {.layers = NULL};
    struct measure *m = userdata;
    json_object *value = NULL;
    uint64_t now;

    if (m->settled)
        return;
    if (m->gpus && sd_event_now(sd_event_source_get_event(m->timer), CLOCK_MONOTONIC, &now) >= 0)
        gpus_take_facts(m->gpus, facts, now);
    if (!json_object_object_get_ex(facts, "shape", &value) || plan_shape_parse(value, &shape) < 0) {
        fail_text(m, "a worker said what can't be true of a model");
        return;
    }
    m->settled = true;
    m->callbacks->done(m, &shape, m->userdata);
    plan_shape_done(&shape);
}

static void on_failed(struct worker *w, uint64_t request, const struct fault *fault, void *userdata)
{
    fail(userdata, fault);
}

static void on_gone(struct worker *w, const char *reason, bool expected, void *userdata)
{
    fail_text(userdata, reason);
}

/* One that measures never gets that far. */
static void on_ready(struct worker *w, json_object *facts, void *userdata)
{
    fail_text(userdata, "a worker loaded what it should have measured");
}

static const struct worker_callbacks worker_callbacks = {
    .facts = on_facts,
    .ready = on_ready,
    .failed = on_failed,
    .gone = on_gone,
};

static int on_timer(sd_event_source *s, uint64_t now, void *userdata)
{
    fail_text(userdata, "reading the model file took too long");
    return 0;
}

static int make_config(const struct measure_options *options, char **ret)
{
    _cleanup_json_ json_object *o = json_object_new_object();
    const char *text;

    if (!o || !add_text(o, "model", options->name) ||
        !add_count_if(o, options->context_tokens > 0, "context_tokens", options->context_tokens) ||
        !add_count(o, "sequences", options->sequences) || !add_text(o, "k", options->k) ||
        !add_text(o, "v", options->v) || !add_take(o, "measure", json_object_new_boolean(true)) ||
        !add_take(o, "bandwidth", json_object_new_boolean(options->bandwidth)) ||
        (options->rules && !model_files_add(o, options->rules, options->residency)))
        return -ENOMEM;
    text = json_text(o);
    *ret = text ? strdup(text) : NULL;
    return *ret ? 0 : -ENOMEM;
}

int measure_new(sd_event *event, struct workers *workers, const struct measure_options *options,
                const struct measure_callbacks *callbacks, void *userdata, struct measure **ret)
{
    _cleanup_(measure_freep) struct measure *m = calloc(1, sizeof(*m));
    _cleanup_free_ char *config = NULL;
    struct worker_options worker = {.path = options->worker_path,
                                    .fds = options->fds,
                                    .n_fds = options->n_fds,
                                    .n_threads = options->n_threads,
                                    .gpu = options->gpus != NULL};
    int r = -ENOMEM;

    if (m)
        r = make_config(options, &config);
    if (r == 0)
        r = sd_event_add_time_relative(event, &m->timer, CLOCK_MONOTONIC, LIMIT_MEASURE_US, 0, on_timer, m);
    if (r < 0) {
        for (size_t i = 0; i < options->n_fds; i++)
            close(options->fds[i]);
        free(options->fds);
        return r;
    }
    m->callbacks = callbacks;
    m->userdata = userdata;
    m->gpus = options->gpus;
    worker.config = config;
    r = worker_new(workers, &worker, &worker_callbacks, m, &m->worker);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(m);
    return 0;
}

struct measure *measure_free(struct measure *m)
{
    if (!m)
        return NULL;
    sd_event_source_disable_unref(m->timer);
    worker_free(m->worker);
    free(m);
    return NULL;
}
