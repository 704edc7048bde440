/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The end of requests: quotas get back what was not used, the ledger gets what was, and the caller its last reply.
 *
 *   the worker's DONE ──► request_finish() ──► ENDING, the ledger's ──recorded──► done(), gone
 *   the caller goes   ──► request_cancel() ──► without callbacks, still the worker's ──DONE, FAILED or its end──► gone
 *   anything else     ──► request_fail()   ──► failed(), gone
 *
 * A finished request is in the ledger before its caller hears of it, so none that somebody saw is missing there after
 * kill -9. One whose caller has gone waits for what the worker says that it has used; until then it holds its place
 * among its user's requests, since the worker may still be computing for it.
 */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/calendar.h"
#include "daemon/internal.h"
#include "daemon/messages.h"

/* What is kept of one while it is being written into the ledger. */
struct request_ending {
    struct ledger_record *record;
    char *model;
    const char *finish; /* a static text */
    struct request_usage usage;
    json_object *extra; /* a reference */
};

static void ending_free(struct request_ending *e)
{
    if (!e)
        return;
    ledger_forget(e->record);
    json_object_put(e->extra);
    free(e->model);
    free(e);
}

const char *request_ending_model(const struct request *r)
{
    return r->ending->model;
}

/* Out of all lists and accounts; the memory stays. */
void request_unhook(struct request *r, uint64_t tokens)
{
    struct manager *m = r->manager;
    const struct quota_time now = manager_quota_time(m);
    struct model *model = r->model;

    if (r->ended)
        return;
    r->ended = true;
    list_remove(&r->by_id);
    list_remove(&r->by_held);
    list_remove(&r->by_model);
    if (r->state == REQUEST_HELD)
        model->n_held--;
    else
        model->n_submitted--;
    account_discharge(&r->charge);
    account_discharge(&r->kv);
    totals_discharge(&r->totals);
    quotas_settle(m->quotas, &now, tokens, &r->quota);
    model_used(model);
    if (model->n_submitted == 0)
        manager_share_cores(m);
    requests_pump_soon(m);
    manager_requests_changed(m);
}

void request_release(struct request *r)
{
    list_remove(&r->by_held);
    if (r->parameters)
        explicit_bzero(r->parameters, r->n_parameters);
    free(r->parameters);
    ending_free(r->ending);
    totals_done(&r->totals);
    free(r->app);
    free(r->unit);
    free(r);
}

/* The last of it, once the caller has heard. */
static void leave(struct request *r)
{
    struct manager *m = r->manager;

    request_release(r);
    m->n_requests--;
    manager_request_ended(m);
}

static void log_end(const struct request *r, const char *how, const struct request_usage *usage)
{
    const struct log_fields fields = {
        .model = r->model->rules->name,
        .request = r->id,
        .has_uid = true,
        .uid = r->subject.uid,
    };

    log_line(r->manager->log, LOG_INFO, &fields,
             "request ended: %s, %" PRIu64 " prompt tokens (%" PRIu64 " cached), %" PRIu64 " output tokens, %" PRIu64
             " ms in the queue",
             how, usage->prompt_tokens, usage->cached_tokens, usage->output_tokens, usage->queue_ms);
}

/* ---- the ledger ---- */

/* One that the worker took in, but never began to compute, has used nothing. */
static bool was_computed(const struct packet_done *done)
{
    return done && (done->prefill_ns > 0 || done->decode_ns > 0 || done->output_tokens > 0);
}

static struct ledger_entry entry_of(const struct request *r, const struct packet_done *done)
{
    struct ledger_entry e = {
        .epoch = r->manager->epoch,
        .request = r->id,
        .uid = r->subject.uid,
        .model = r->model->rules->name,
        .day = r->day,
        .hour = r->hour,
        .output_tokens = r->output_tokens,
    };

    /* Of one that a worker took with it only what it said on the way is known. */
    if (done) {
        e.output_tokens = done->output_tokens;
        e.duration_us = (done->prefill_ns + done->decode_ns) / 1000;
    }
    if (was_computed(done)) {
        e.prompt_tokens = done->prompt_tokens;
        e.cached_tokens = done->cached_tokens;
    }
    return e;
}

static int record(struct request *r, struct ledger_entry *entry, ledger_recorded_t recorded,
                  struct ledger_record **ret)
{
    _cleanup_free_ gid_t *groups = calloc(r->totals.n + 1, sizeof(*groups));

    if (!groups)
        return -ENOMEM;
    for (size_t i = 0; i < r->totals.n; i++)
        groups[i] = r->totals.list[i].gid;
    entry->groups = groups;
    entry->n_groups = r->totals.n;
    return ledger_record(r->manager->ledger, entry, recorded, r, ret);
}

static void count(struct request *r, const struct ledger_entry *entry)
{
    struct model *model = r->model;

    model->counters.n_requests++;
    model->counters.prompt_tokens += entry->prompt_tokens;
    model->counters.cached_tokens += entry->cached_tokens;
    model->counters.output_tokens += entry->output_tokens;
    model->counters.duration_us += entry->duration_us;
}

/* Of one whose end nobody waits for. */
static void record_unwaited(struct request *r, struct ledger_entry *entry)
{
    count(r, entry);
    if (record(r, entry, NULL, NULL) < 0)
        log_line(r->manager->log, LOG_ERR,
                 &(struct log_fields){
                     .request = r->id, .has_uid = true, .uid = r->subject.uid, .message_id = MESSAGE_LEDGER_LOST},
                 "out of memory: a request is missing in the ledger");
}

/* ---- ends ---- */

void request_fail(struct request *r, const struct fault *fault)
{
    const struct request_usage usage = {.prompt_tokens = r->prompt_tokens, .output_tokens = r->output_tokens};
    struct ledger_entry entry = entry_of(r, NULL);
    struct fault copy = *fault;

    if (r->ended)
        return;
    log_end(r, fault_error_name(copy.kind), &usage);
    if (r->state != REQUEST_HELD)
        record_unwaited(r, &entry);
    request_unhook(r, ledger_entry_tokens(&entry));
    if (r->callbacks)
        r->callbacks->failed(r, &copy, r->userdata);
    leave(r);
}

static void tell_done(struct request *r, const char *finish, const struct request_usage *usage, json_object *extra)
{
    const struct request_result result = {.finish = finish, .usage = *usage, .extra = extra};

    if (r->callbacks)
        r->callbacks->done(r, &result, r->userdata);
    leave(r);
}

static void on_recorded(bool is_new, void *userdata)
{
    struct request *r = userdata;
    struct request_ending *e = r->ending;

    e->record = NULL;
    tell_done(r, e->finish, &e->usage, e->extra);
}

/* Keeps what the caller is to hear, until the ledger has it. */
static int wait_for_ledger(struct request *r, struct ledger_entry *entry, const char *finish,
                           const struct request_usage *usage, json_object *extra)
{
    struct request_ending *e = calloc(1, sizeof(*e));
    int q;

    if (!e)
        return -ENOMEM;
    *e = (struct request_ending){.finish = finish, .usage = *usage, .extra = json_object_get(extra)};
    e->model = strdup(r->model->rules->name);
    q = e->model ? record(r, entry, on_recorded, &e->record) : -ENOMEM;
    if (q < 0) {
        ending_free(e);
        return q;
    }
    r->ending = e;
    return 0;
}

void request_finish(struct request *r, const char *finish, const struct request_usage *usage,
                    const struct packet_done *done, json_object *extra)
{
    struct ledger_entry entry = entry_of(r, done);
    int q;

    log_end(r, finish, usage);
    if (!done) {
        request_unhook(r, 0);
        tell_done(r, finish, usage, extra);
        return;
    }
    if (!r->callbacks) {
        record_unwaited(r, &entry);
        request_unhook(r, ledger_entry_tokens(&entry));
        leave(r);
        return;
    }
    count(r, &entry);
    q = wait_for_ledger(r, &entry, finish, usage, extra);
    request_unhook(r, ledger_entry_tokens(&entry));
    if (q < 0) {
        log_line(r->manager->log, LOG_ERR,
                 &(struct log_fields){
                     .request = r->id, .has_uid = true, .uid = r->subject.uid, .message_id = MESSAGE_LEDGER_LOST},
                 "out of memory: a request is missing in the ledger");
        tell_done(r, finish, usage, extra);
        return;
    }
    list_append(&r->manager->ending, &r->by_held);
}

static void note(double *average, double now)
{
    *average = *average > 0 ? (3 * *average + now) / 4 : now;
}

void request_on_done(struct request *r, const struct packet_done *done, json_object *extra)
{
    static const char *const names[DONE_FINISH_MAX] = {
        [DONE_STOP] = "stop",           [DONE_LENGTH] = "length",     [DONE_TOOL_CALLS] = "tool_calls",
        [DONE_CANCELLED] = "cancelled", [DONE_DEADLINE] = "deadline",
    };
    const struct request_usage usage = {
        .prompt_tokens = done->prompt_tokens,
        .cached_tokens = done->cached_tokens,
        .output_tokens = done->output_tokens,
        .queue_ms = done->queue_ns / 1000000 + (r->submitted_us - r->started_us) / 1000,
        .prefill_ms = done->prefill_ns / 1000000,
        .decode_ms = done->decode_ns / 1000000,
    };

    if (usage.output_tokens > 0) {
        note(&r->model->first_ms, (double)(done->queue_ns + done->prefill_ns) / 1e6);
        note(&r->model->token_ms, (double)done->decode_ns / 1e6 / (double)usage.output_tokens);
        note(&r->model->n_said, (double)usage.output_tokens);
    }
    if (done->finish == DONE_CANCELLED && r->callbacks) {
        struct ledger_entry entry = entry_of(r, done);
        struct fault fault;

        fault_set(&fault, FAULT_CANCELLED, NULL, "%s", r->cancelled ? r->cancelled : "unload");
        log_end(r, fault_error_name(fault.kind), &usage);
        record_unwaited(r, &entry);
        request_unhook(r, ledger_entry_tokens(&entry));
        r->callbacks->failed(r, &fault, r->userdata);
        leave(r);
        return;
    }
    request_finish(r, names[done->finish], &usage, done, extra);
}

struct request *request_cancel(struct request *r)
{
    if (!r)
        return NULL;
    r->callbacks = NULL;
    r->userdata = NULL;
    /* What they pointed to goes with the caller. */
    r->subject.groups = r->subject.nss_groups = NULL;
    r->subject.n_groups = r->subject.n_nss_groups = 0;
    if (r->ended)
        return NULL;
    log_line(r->manager->log, LOG_INFO,
             &(struct log_fields){
                 .model = r->model->rules->name, .request = r->id, .has_uid = true, .uid = r->subject.uid},
             "request cancelled: the client is gone");
    if (r->state == REQUEST_HELD) {
        request_unhook(r, 0);
        leave(r);
        return NULL;
    }
    if (r->model->worker)
        worker_cancel(r->model->worker, r->id);
    manager_requests_changed(r->manager);
    return NULL;
}

void requests_fail_submitted(struct model *model, const struct fault *fault)
{
    const struct fault copy = *fault;

    /* Callbacks may start new requests, but those are not submitted from inside them. */
    while (!list_is_empty(&model->submitted))
        request_fail(list_entry(model->submitted.next, struct request, by_model), &copy);
}

/* In the step that ended it, or in one that nobody has heard of yet: whoever was told that others come first was not
 * there. The first in line may just have had its turn. */
static bool may_have_been_there(const struct request *r)
{
    return r->queue_position <= 1;
}

void requests_blame(struct model *model)
{
    struct manager *m = model->manager;
    _cleanup_free_ uid_t *uids = calloc(model->n_submitted ? model->n_submitted : 1, sizeof(*uids));
    struct list *at, *after;
    size_t n = 0;

    list_foreach (at, after, &model->submitted) {
        const struct request *r = list_entry(at, struct request, by_model);

        if (uids && n < model->n_submitted && may_have_been_there(r))
            uids[n++] = r->subject.uid;
    }
    if (uids)
        blame_crash(m->blame, model->rules->name, uids, n, manager_now_us(m));
}

void requests_fail_held(struct model *model, const struct fault *fault)
{
    struct manager *m = model->manager;
    const struct fault copy = *fault;
    uint64_t last = requests_last_id(m), id = 0;

    for (struct request *r; (r = requests_next_held(m, id, last));) {
        id = r->id;
        if (r->model == model)
            request_fail(r, &copy);
    }
}

void requests_abandon(struct manager *m)
{
    struct list *at, *after;

    list_foreach (at, after, &m->models) {
        struct list *submitted = &list_entry(at, struct model, entry)->submitted, *one, *next;

        list_foreach (one, next, submitted) {
            struct request *r = list_entry(one, struct request, by_model);
            struct ledger_entry entry = entry_of(r, NULL);

            if (r->callbacks)
                continue;
            record_unwaited(r, &entry);
            request_unhook(r, ledger_entry_tokens(&entry));
            leave(r);
        }
    }
    list_foreach (at, after, &m->ending) {
        struct request *r = list_entry(at, struct request, by_held);

        if (!r->callbacks)
            leave(r);
    }
}
