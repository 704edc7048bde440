/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests from admission to their end. The diagram is in request.h.
 *
 * There is one queue, and it is in the worker: what is admitted is handed on at once, unless the model is not ready or
 * the user has as many requests with workers as the policy allows (`concurrent`, or the model's `sequences_per_user`).
 * Only those wait here, in order of arrival; what a user's own requests wait for never delays another user's.
 *
 * Invariants:
 *  1. A request is in its manager's table by id from request_start() until it is gone; on @held exactly while it is
 *     HELD, else on its model's @submitted.
 *  2. Its charge is in ACCOUNT_QUEUED while it is HELD, else in ACCOUNT_REQUESTS.
 *  3. Callbacks come from the loop only. They may cancel any request, so nobody holds a pointer to one across a
 *     callback: loops go by id.
 */
#include "daemon/request.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/internal.h"
#include "daemon/limits.h"
#include "policy/class.h"

const char *request_state_to_string(enum request_state state)
{
    static const char *const names[REQUEST_STATE_MAX] = {"held", "queued", "running"};

    return names[state];
}

uint64_t request_id(const struct request *r)
{
    return r->id;
}

const char *request_model(const struct request *r)
{
    return r->model->rules->name;
}

struct request *request_find(struct manager *m, uint64_t id)
{
    struct list *head = &m->requests[id % REQUEST_BUCKETS], *at, *after;

    list_foreach (at, after, head) {
        struct request *r = list_entry(at, struct request, by_id);

        if (r->id == id)
            return r;
    }
    return NULL;
}

static void forget_parameters(struct request *r)
{
    if (r->parameters)
        explicit_bzero(r->parameters, r->n_parameters);
    free(r->parameters);
    r->parameters = NULL;
    r->n_parameters = 0;
}

/* Out of all lists and accounts; the memory stays. */
static void unhook(struct request *r)
{
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
    r->manager->n_requests--;
    manager_request_ended(r->manager);
    model_used(model);
    if (model->n_submitted == 0)
        manager_share_cores(r->manager);
    requests_pump_soon(r->manager);
}

static void release(struct request *r)
{
    forget_parameters(r);
    free(r->app);
    free(r);
}

struct request *request_cancel(struct request *r)
{
    if (!r || r->ended)
        return NULL;
    if (r->state != REQUEST_HELD && r->model->worker)
        worker_cancel(r->model->worker, r->id);
    log_line(r->manager->log, LOG_INFO,
             &(struct log_fields){
                 .model = r->model->rules->name, .request = r->id, .has_uid = true, .uid = r->subject.uid},
             "request cancelled: the client is gone");
    unhook(r);
    release(r);
    return NULL;
}

void request_pause(struct request *r, bool pause)
{
    if (r->ended || r->state == REQUEST_HELD || r->paused == pause || !r->model->worker)
        return;
    r->paused = pause;
    worker_pause(r->model->worker, r->id, pause);
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

void request_fail(struct request *r, const struct fault *fault)
{
    const struct request_usage usage = {.prompt_tokens = r->prompt_tokens, .output_tokens = r->output_tokens};
    struct fault copy = *fault;

    if (r->ended)
        return;
    log_end(r, fault_error_name(copy.kind), &usage);
    unhook(r);
    r->callbacks->failed(r, &copy, r->userdata);
    release(r);
}

static void finish(struct request *r, const char *finish, const struct request_usage *usage, json_object *extra)
{
    const struct request_result result = {.finish = finish, .usage = *usage, .extra = extra};

    log_end(r, finish, usage);
    unhook(r);
    r->callbacks->done(r, &result, r->userdata);
    release(r);
}

void requests_fail_submitted(struct model *model, const struct fault *fault)
{
    const struct fault copy = *fault;

    /* Callbacks may start new requests, but those are not submitted from inside them. */
    while (!list_is_empty(&model->submitted))
        request_fail(list_entry(model->submitted.next, struct request, by_model), &copy);
}

/* What of a quota is looked at once the request is handed on. */
static void take_quota(struct request *r, const struct policy_quota *quota)
{
    r->weight = (uint32_t)quota->weight;
    r->class_weight = 0;
    r->tenant_class = policy_class_for(r->manager->policy, &r->subject, &r->class_weight);
    r->kv_max_bytes = quota->kv_bytes == POLICY_UNLIMITED ? 0 : quota->kv_bytes;
    r->concurrent_max = quota->concurrent;
}

static uint64_t last_id(const struct manager *m)
{
    return m->next_request - 1;
}

/* The first held request behind @after, at most @last (so that those that come meanwhile are not met): ids rise. */
static struct request *next_held(struct manager *m, uint64_t after_id, uint64_t last)
{
    struct list *at, *after;

    list_foreach (at, after, &m->held) {
        struct request *r = list_entry(at, struct request, by_held);

        if (r->id > after_id)
            return r->id <= last ? r : NULL;
    }
    return NULL;
}

void requests_fail_held(struct model *model, const struct fault *fault)
{
    struct manager *m = model->manager;
    const struct fault copy = *fault;
    uint64_t last = last_id(m), id = 0;

    for (struct request *r; (r = next_held(m, id, last));) {
        id = r->id;
        if (r->model == model)
            request_fail(r, &copy);
    }
}

void requests_move_held(struct model *from, struct model *to)
{
    struct list *at, *after;

    list_foreach (at, after, &from->manager->held) {
        struct request *r = list_entry(at, struct request, by_held);

        if (r->model != from)
            continue;
        r->model = to;
        from->n_held--;
        to->n_held++;
    }
}

void requests_recheck_held(struct manager *m)
{
    uint64_t last = last_id(m), id = 0;
    struct fault fault;

    for (struct request *r; (r = next_held(m, id, last));) {
        const char *name = r->model->rules->name;
        const struct policy_model *rules = policy_find_model(m->policy, name);

        id = r->id;
        if (!rules)
            fault_init(&fault, FAULT_NO_SUCH_MODEL, name);
        else if (!policy_may_use(m->policy, rules, &r->subject))
            fault_set(&fault, FAULT_NOT_ALLOWED, name, "policy");
        else {
            struct policy_quota quota;

            policy_quota_for(m->policy, &r->subject, &quota);
            take_quota(r, &quota);
            continue;
        }
        request_fail(r, &fault);
    }
}

/* ---- news for those who wait ---- */

/* How many of the same user's are before it: others don't matter here. */
static int64_t own_position(const struct request *r)
{
    int64_t position = 1;
    struct list *at, *after;

    list_foreach (at, after, &r->manager->held) {
        const struct request *other = list_entry(at, struct request, by_held);

        if (other == r)
            break;
        position += other->subject.uid == r->subject.uid;
    }
    return position;
}

static void tell(struct request *r)
{
    struct model *model = r->model;

    r->told = true;
    if (model->state != MODEL_READY) {
        if (r->callbacks->progress)
            r->callbacks->progress(r, model->bytes_done, model->bytes_total, r->userdata);
    } else if (r->callbacks->queue) {
        r->queue_position = own_position(r);
        r->callbacks->queue(r, r->queue_position, -1, r->userdata);
    }
}

void requests_tell_waiting(struct manager *m, struct model *only)
{
    uint64_t last = last_id(m), id = 0;

    for (struct request *r; (r = next_held(m, id, last));) {
        id = r->id;
        if (!only || r->model == only)
            tell(r);
    }
}

void request_on_piece(struct request *r, const struct step_piece *piece, const char *text, struct json_object *extra)
{
    r->output_tokens = piece->n_tokens;
    if (piece->queue_position != STEP_NOT_WAITING) {
        r->queue_position = piece->queue_position;
        r->eta_ms = piece->eta_ms;
        if (r->callbacks->queue)
            r->callbacks->queue(r, piece->queue_position, piece->eta_ms, r->userdata);
        return;
    }
    r->state = REQUEST_RUNNING;
    r->queue_position = r->eta_ms = -1;
    if (r->callbacks->piece)
        r->callbacks->piece(r, text, piece->n_text, extra, r->userdata);
}

void request_on_done(struct request *r, const struct packet_done *done, struct json_object *extra)
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

    if (done->finish == DONE_CANCELLED) {
        struct fault fault;

        fault_set(&fault, FAULT_CANCELLED, NULL, "%s", r->cancelled ? r->cancelled : "unload");
        request_fail(r, &fault);
        return;
    }
    finish(r, names[done->finish], &usage, extra);
}

/* ---- handing on ---- */

static uint64_t running_of(const struct model *model, uid_t uid)
{
    struct list *at, *after;
    uint64_t n = 0;

    list_foreach (at, after, &model->submitted)
        n += list_entry(at, struct request, by_model)->subject.uid == uid;
    return n;
}

static bool may_run(const struct request *r)
{
    const struct model *model = r->model;
    uint64_t per_user = model->rules->sequences_per_user;

    if (model->state != MODEL_READY)
        return false;
    if (account_used(r->manager->accounts, r->subject.uid, ACCOUNT_REQUESTS) >= r->concurrent_max)
        return false;
    return per_user == POLICY_AUTO || running_of(model, r->subject.uid) < per_user;
}

/* From HELD to the worker. -ENOMEM: it stays where it is. */
static int submit(struct request *r)
{
    static const enum submit_kind kinds[REQUEST_KIND_MAX] = {
        [REQUEST_COMPLETE] = SUBMIT_COMPLETE, [REQUEST_CHAT] = SUBMIT_CHAT,
        [REQUEST_EMBED] = SUBMIT_EMBED,       [REQUEST_TOKENIZE] = SUBMIT_TOKENIZE,
        [REQUEST_DETOKENIZE] = SUBMIT_DETOKENIZE,
    };
    struct model *model = r->model;
    const struct worker_submit submit = {
        .request = r->id,
        .uid = r->subject.uid,
        .weight = r->weight,
        .kv_max_bytes = r->kv_max_bytes,
        .tenant_class = r->tenant_class,
        .class_weight = r->class_weight,
        .priority = r->priority,
        .deadline_ns = r->deadline_ns,
        .kind = kinds[r->kind],
        .parameters = r->parameters,
        .n_parameters = r->n_parameters,
    };
    int q;

    if (account_move(&r->charge, ACCOUNT_REQUESTS, r->concurrent_max) != 0)
        return 0;
    q = worker_submit(model->worker, &submit);
    if (q < 0) {
        /* Moving back always works: the slot was its own a moment ago. */
        account_move(&r->charge, ACCOUNT_QUEUED, UINT64_MAX);
        return q;
    }
    forget_parameters(r);
    list_remove(&r->by_held);
    list_append(&model->submitted, &r->by_model);
    r->state = REQUEST_QUEUED;
    r->submitted_us = manager_now_us(r->manager);
    model->n_held--;
    if (model->n_submitted++ == 0)
        manager_share_cores(r->manager);
    model_used(model);
    return 0;
}

/* A deadline passes also for those that are not with a worker yet. */
static bool is_late(const struct request *r)
{
    return r->deadline_ns > 0 && manager_now_us(r->manager) * 1000 >= r->deadline_ns;
}

void requests_pump(struct manager *m)
{
    uint64_t last = last_id(m), id = 0;

    for (struct request *r; (r = next_held(m, id, last));) {
        id = r->id;
        if (r->cancelled) {
            struct fault fault;

            fault_set(&fault, FAULT_CANCELLED, NULL, "%s", r->cancelled);
            request_fail(r, &fault);
        } else if (is_late(r)) {
            const struct request_usage usage = {.queue_ms = (manager_now_us(m) - r->started_us) / 1000};

            finish(r, "deadline", &usage, NULL);
        } else if (may_run(r)) {
            struct fault fault;

            if (submit(r) >= 0)
                continue;
            fault_set(&fault, FAULT_MODEL_UNAVAILABLE, r->model->rules->name, "out of memory");
            request_fail(r, &fault);
        } else if (!r->told) {
            tell(r); /* with it the client learns the request's number */
        }
    }
}

void request_stop(struct request *r, const char *reason)
{
    r->cancelled = reason;
    if (r->state == REQUEST_HELD)
        requests_pump_soon(r->manager);
    else if (r->model->worker)
        worker_cancel(r->model->worker, r->id);
}

void requests_pump_soon(struct manager *m)
{
    if (!list_is_empty(&m->held))
        sd_event_source_set_enabled(m->pump, SD_EVENT_ONESHOT);
}

/* ---- admission ---- */

static int refuse_quota(enum policy_quota_key key, uint64_t limit, uint64_t used, struct fault *reterr_fault)
{
    fault_init(reterr_fault, FAULT_QUOTA_EXCEEDED, policy_quota_key_name(key));
    reterr_fault->limit = (int64_t)limit;
    reterr_fault->used = (int64_t)used;
    return REQUEST_REFUSED;
}

static int check_rights(struct manager *m, const struct request_params *params, struct model **ret,
                        struct fault *reterr_fault)
{
    const struct policy_model *rules = policy_find_model(m->policy, params->model);

    if (m->stopping) {
        fault_init(reterr_fault, FAULT_SHUTTING_DOWN, NULL);
        return REQUEST_REFUSED;
    }
    if (!rules) {
        fault_init(reterr_fault, FAULT_NO_SUCH_MODEL, params->model);
        return REQUEST_REFUSED;
    }
    if (!policy_may_use(m->policy, rules, params->subject)) {
        fault_set(reterr_fault, FAULT_NOT_ALLOWED, rules->name, "policy");
        return REQUEST_REFUSED;
    }
    if (m->policy->maintenance) {
        fault_set(reterr_fault, FAULT_MODEL_UNAVAILABLE, rules->name, "%s", m->policy->maintenance);
        return REQUEST_REFUSED;
    }
    *ret = model_find(m, rules->name);
    if (!*ret) {
        /* Memory was short when the policy was loaded. */
        fault_set(reterr_fault, FAULT_MODEL_UNAVAILABLE, rules->name, "out of memory");
        return REQUEST_REFUSED;
    }
    return 0;
}

static int charge(struct manager *m, struct request *r, const struct policy_quota *quota, struct fault *reterr_fault)
{
    int q;

    q = account_charge(m->accounts, r->subject.uid, ACCOUNT_QUEUED, 1,
                       may_run(r) ? UINT64_MAX : quota->queued, &r->charge);
    if (q < 0)
        return q;
    if (q == ACCOUNT_FULL || m->n_requests >= LIMIT_REQUESTS) {
        account_discharge(&r->charge);
        fault_init(reterr_fault, FAULT_QUEUE_FULL, NULL);
        reterr_fault->limit = q == ACCOUNT_FULL ? (int64_t)quota->queued : LIMIT_REQUESTS;
        return REQUEST_REFUSED;
    }
    return 0;
}

static int fill(struct request *r, const struct request_params *params, const struct policy_quota *quota,
                struct fault *reterr_fault)
{
    int64_t priority = params->has_priority ? params->priority : 0;

    if (priority > quota->priority_max) {
        if (params->has_priority)
            return refuse_quota(POLICY_QUOTA_PRIORITY_MAX, (uint64_t)(int64_t)quota->priority_max, (uint64_t)priority,
                                reterr_fault);
        priority = quota->priority_max;
    }
    if (quota->concurrent == 0)
        return refuse_quota(POLICY_QUOTA_CONCURRENT, 0, 0, reterr_fault);
    r->kind = params->kind;
    r->subject = *params->subject;
    r->priority = (int32_t)priority;
    take_quota(r, quota);
    r->queue_position = r->eta_ms = -1;
    r->started_us = manager_now_us(r->manager);
    /* Beyond a year is no deadline, and must not overflow. */
    if (params->deadline_ms > 0 && params->deadline_ms < INT64_C(365) * 24 * 3600 * 1000)
        r->deadline_ns = (r->started_us + (uint64_t)params->deadline_ms * 1000) * 1000;
    if (params->app) {
        r->app = strdup(params->app);
        if (!r->app)
            return -ENOMEM;
    }
    return request_parameters(params->kind, params->parameters, r->model->rules, quota, &r->parameters,
                              &r->n_parameters, reterr_fault);
}

int request_start(struct manager *m, const struct request_params *params, const struct request_callbacks *callbacks,
                  void *userdata, struct request **ret, struct fault *reterr_fault)
{
    struct policy_quota quota;
    struct request *r;
    struct model *model;
    int q;

    q = check_rights(m, params, &model, reterr_fault);
    if (q != 0)
        return q;
    policy_quota_for(m->policy, params->subject, &quota);
    r = calloc(1, sizeof(*r));
    if (!r)
        return -ENOMEM;
    list_init(&r->by_id);
    list_init(&r->by_model);
    list_init(&r->by_held);
    r->manager = m;
    r->model = model;
    r->callbacks = callbacks;
    r->userdata = userdata;
    q = fill(r, params, &quota, reterr_fault);
    if (q == 0)
        q = charge(m, r, &quota, reterr_fault);
    if (q == 0 && !model_want(model, reterr_fault))
        q = REQUEST_REFUSED;
    if (q != 0) {
        account_discharge(&r->charge);
        release(r);
        return q;
    }
    r->id = m->next_request++;
    r->state = REQUEST_HELD;
    list_append(&m->requests[r->id % REQUEST_BUCKETS], &r->by_id);
    list_append(&m->held, &r->by_held);
    m->n_requests++;
    model->n_held++;
    model_used(model);
    log_line(m->log, LOG_DEBUG,
             &(struct log_fields){
                 .model = model->rules->name, .request = r->id, .has_uid = true, .uid = r->subject.uid},
             "request admitted");
    /* At once, unless it has to wait, or others of the same user came first; out of memory shows again in the loop. */
    if (may_run(r))
        (void)submit(r);
    if (r->state == REQUEST_HELD)
        requests_pump_soon(m);
    *ret = r;
    return 0;
}
