/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests between admission (request-admit.c) and their end (request-end.c). The diagram is in request.h.
 *
 * There is one queue, and it is in the worker: what is admitted is handed on at once, unless the model is not ready or
 * the user has as many requests with workers as the policy allows (`concurrent`, or the model's `sequences_per_user`).
 * Only those wait here, in order of arrival; what a user's own requests wait for never delays another user's.
 *
 * Invariants:
 *  1. A request is in its manager's table by id from request_start() until it has ended; on @held exactly while it is
 *     HELD, else on its model's @submitted. One that has ended is on @ending until the ledger has it.
 *  2. Its charge is in ACCOUNT_QUEUED while it is HELD, else in ACCOUNT_REQUESTS, and so are those of its groups.
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
    return r->ending ? request_ending_model(r) : r->model->rules->name;
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

uint64_t requests_last_id(const struct manager *m)
{
    return m->next_request - 1;
}

struct request *requests_next_held(struct manager *m, uint64_t after_id, uint64_t last)
{
    struct list *at, *after;

    list_foreach (at, after, &m->held) {
        struct request *r = list_entry(at, struct request, by_held);

        if (r->id > after_id)
            return r->id <= last ? r : NULL;
    }
    return NULL;
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

void request_pause(struct request *r, bool pause)
{
    if (r->ended || r->state == REQUEST_HELD || r->paused == pause || !r->model->worker)
        return;
    r->paused = pause;
    worker_pause(r->model->worker, r->id, pause);
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

/* From one token to the next, as fast as it is now, or was for others. */
static double token_ms_of(const struct request *r)
{
    double ran_ms = (double)(manager_now_us(r->manager) - r->submitted_us) / 1e3;

    return r->output_tokens > 0 ? ran_ms / (double)r->output_tokens : r->model->token_ms;
}

/* How long one that is with the worker will stay: it says as much as others said lately. */
static double left_ms(const struct request *r)
{
    double ran_ms = (double)(manager_now_us(r->manager) - r->submitted_us) / 1e3, said = (double)r->output_tokens;
    double first_ms = said > 0 || ran_ms > r->model->first_ms ? 0 : r->model->first_ms - ran_ms;

    return first_ms + (r->model->n_said > said ? r->model->n_said - said : 1) * token_ms_of(r);
}

/*
 * When a request that is held back will have its first token: the k-th of those of a user that wait is handed on when
 * the k-th of those that run has ended, or what followed it has. Ends are thought to lie evenly around their mean.
 */
static int64_t own_eta_ms(const struct request *r, int64_t position)
{
    const struct model *model = r->model;
    double mean_ms = 0, soonest_ms = 0, stay_ms = 0;
    struct list *at, *after;
    int64_t n = 0;

    list_foreach (at, after, &model->submitted) {
        const struct request *other = list_entry(at, struct request, by_model);
        double ms = left_ms(other);

        if (other->subject.uid != r->subject.uid)
            continue;
        mean_ms += ms;
        stay_ms += model->n_said * token_ms_of(other);
        soonest_ms = n++ == 0 || ms < soonest_ms ? ms : soonest_ms;
    }
    if (n == 0 || model->n_said <= 0)
        return -1;
    mean_ms /= (double)n;
    stay_ms = stay_ms / (double)n + model->first_ms;
    return (int64_t)(soonest_ms + 2 * (mean_ms - soonest_ms) * (double)((position - 1) % n) / (double)n +
                     stay_ms * (double)((position - 1) / n) + model->first_ms);
}

int64_t requests_place_ms(const struct manager *m, uid_t uid)
{
    double least_ms = -1;
    struct list *at, *after, *i, *after_i;

    list_foreach (at, after, &m->models) {
        const struct model *model = list_entry(at, struct model, entry);

        list_foreach (i, after_i, &model->submitted) {
            const struct request *r = list_entry(i, struct request, by_model);
            double ms;

            if (r->subject.uid != uid || r->output_tokens < 2 || r->output_max == POLICY_UNLIMITED)
                continue;
            /* Its prompt is in that, too: rather too long than not true. */
            ms = (double)(manager_now_us(m) - r->submitted_us) / 1e3 / (double)(r->output_tokens - 1);
            ms *= r->output_max > r->output_tokens ? (double)(r->output_max - r->output_tokens) : 0;
            least_ms = least_ms < 0 || ms < least_ms ? ms : least_ms;
        }
    }
    /* A machine is not as fast all the time. */
    return least_ms < 0 ? -1 : (int64_t)(1.25 * least_ms) + 100;
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
        r->eta_ms = own_eta_ms(r, r->queue_position);
        r->callbacks->queue(r, r->queue_position, r->eta_ms, r->userdata);
    }
}

void requests_tell_waiting(struct manager *m, struct model *only)
{
    uint64_t last = requests_last_id(m), id = 0;

    for (struct request *r; (r = requests_next_held(m, id, last));) {
        id = r->id;
        if (!only || r->model == only)
            tell(r);
    }
}

void request_on_piece(struct request *r, const struct step_piece *piece, const char *text, struct json_object *extra)
{
    r->output_tokens = piece->n_tokens;
    if (r->first_us == 0 && piece->n_tokens > 0) {
        r->first_us = manager_now_us(r->manager);
        r->n_first = piece->n_tokens;
    }
    manager_requests_changed(r->manager);
    if (!r->callbacks)
        return;
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

/* ---- handing on ---- */

static uint64_t running_of(const struct model *model, uid_t uid)
{
    struct list *at, *after;
    uint64_t n = 0;

    list_foreach (at, after, &model->submitted)
        n += list_entry(at, struct request, by_model)->subject.uid == uid;
    return n;
}

/* What it may take of KV at most, in bytes. Pages are whole, and a template writes more than the parameters have. */
static uint64_t kv_bound(const struct request *r)
{
    const struct model *model = r->model;
    uint64_t tokens = 4 * (uint64_t)r->n_parameters + 1024, pages;

    if (model->page_tokens == 0 || r->kind == REQUEST_TOKENIZE || r->kind == REQUEST_DETOKENIZE)
        return 0;
    if (r->n_prompt > 0)
        tokens = r->n_prompt + 1;
    if (r->output_max > model->context_tokens || tokens > model->context_tokens - r->output_max)
        tokens = model->context_tokens;
    else
        tokens += r->output_max;
    pages = (tokens + model->page_tokens - 1) / model->page_tokens;
    return pages * model->kv_page_bytes;
}

static uint64_t kv_of(const struct model *model, uid_t uid)
{
    struct list *at, *after;
    uint64_t sum = 0;

    list_foreach (at, after, &model->submitted) {
        const struct request *r = list_entry(at, struct request, by_model);

        sum += r->subject.uid == uid ? r->kv.amount : 0;
    }
    return sum;
}

/*
 * `kv` holds for all models together. What one worker gives to a user it counts itself, page by page; workers don't
 * know of each other. So while a user's requests run with several models, what each may take at most has to fit. A
 * bound that was let in is never taken back, so no two sequences can wait for each other's pages.
 */
static bool kv_fits(const struct request *r)
{
    uint64_t used = account_used(r->manager->accounts, r->subject.uid, ACCOUNT_KV), sum;

    if (r->kv_max_bytes == 0 || used == kv_of(r->model, r->subject.uid))
        return true;
    return !__builtin_add_overflow(used, kv_bound(r), &sum) && sum <= r->kv_max_bytes;
}

/* The groups' memory is only known by bounds; one that is larger than a group's total is cut by tokens_max(). */
static uint64_t group_kv(const struct request *r)
{
    uint64_t bound = kv_bound(r), max = totals_kv_max(&r->totals);

    return bound < max ? bound : max;
}

bool request_may_run(const struct request *r)
{
    const struct model *model = r->model;
    uint64_t per_user = model->rules->sequences_per_user;

    if (model->state != MODEL_READY)
        return false;
    if (account_used(r->manager->accounts, r->subject.uid, ACCOUNT_REQUESTS) >= r->concurrent_max)
        return false;
    if (per_user != POLICY_AUTO && running_of(model, r->subject.uid) >= per_user)
        return false;
    return kv_fits(r) && totals_may_run(&r->totals, r->manager->group_accounts, group_kv(r));
}

/* Prompt and answer together, for the worker, which counts the prompt; 0: no limit but the model's. */
static uint32_t tokens_max(const struct request *r)
{
    uint64_t max = r->context_max, kv = totals_kv_max(&r->totals);

    if (r->quota_max < max)
        max = r->quota_max;
    if (kv != POLICY_UNLIMITED && r->model->kv_page_bytes > 0 && kv / r->model->kv_page_bytes < UINT32_MAX) {
        uint64_t tokens = kv / r->model->kv_page_bytes * r->model->page_tokens;

        max = tokens < max ? tokens : max;
    }
    if (max >= UINT32_MAX)
        return 0;
    return max > 0 ? (uint32_t)max : 1; /* 1 is room for no prompt, too */
}

static int charge_running(struct request *r)
{
    int q;

    q = account_charge(r->manager->accounts, r->subject.uid, ACCOUNT_KV, kv_bound(r), UINT64_MAX, &r->kv);
    if (q == 0)
        q = totals_run(&r->totals, r->manager->group_accounts, group_kv(r));
    if (q < 0) {
        account_discharge(&r->kv);
        return q;
    }
    account_move(&r->charge, ACCOUNT_REQUESTS, UINT64_MAX);
    return 0;
}

/* Back to where it was; that always works, since the slots were its own a moment ago. */
static void stop_running(struct request *r)
{
    account_discharge(&r->kv);
    account_move(&r->charge, ACCOUNT_QUEUED, UINT64_MAX);
    totals_stop(&r->totals);
}

int request_submit(struct request *r)
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
        .tokens_max = tokens_max(r),
        .parameters = r->parameters,
        .n_parameters = r->n_parameters,
    };
    int q = charge_running(r);

    if (q < 0)
        return q;
    q = worker_submit(model->worker, &submit);
    if (q < 0) {
        stop_running(r);
        return q;
    }
    explicit_bzero(r->parameters, r->n_parameters);
    free(r->parameters);
    r->parameters = NULL;
    list_remove(&r->by_held);
    list_append(&model->submitted, &r->by_model);
    r->state = REQUEST_QUEUED;
    r->submitted_us = manager_now_us(r->manager);
    manager_requests_changed(r->manager);
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

/* Whoever is held is pumped, at the latest when a deadline passes. */
static void watch_deadlines(struct manager *m)
{
    uint64_t earliest_ns = UINT64_MAX;
    struct list *at, *after;

    list_foreach (at, after, &m->held) {
        const struct request *r = list_entry(at, struct request, by_held);

        if (r->deadline_ns > 0 && r->deadline_ns < earliest_ns)
            earliest_ns = r->deadline_ns;
    }
    sd_event_source_set_time(m->late, earliest_ns / 1000 + (earliest_ns < UINT64_MAX));
    sd_event_source_set_enabled(m->late, earliest_ns < UINT64_MAX ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
}

void requests_pump(struct manager *m)
{
    uint64_t last = requests_last_id(m), id = 0;

    for (struct request *r; (r = requests_next_held(m, id, last));) {
        id = r->id;
        if (r->cancelled) {
            struct fault fault;

            fault_set(&fault, FAULT_CANCELLED, NULL, "%s", r->cancelled);
            request_fail(r, &fault);
        } else if (is_late(r)) {
            const struct request_usage usage = {.queue_ms = (manager_now_us(m) - r->started_us) / 1000};

            request_finish(r, "deadline", &usage, NULL, NULL);
        } else if (request_may_run(r)) {
            struct fault fault;

            if (request_submit(r) >= 0)
                continue;
            fault_set(&fault, FAULT_MODEL_UNAVAILABLE, r->model->rules->name, "out of memory");
            request_fail(r, &fault);
        } else if (!r->told) {
            tell(r); /* with it the client learns the request's number */
        }
    }
    watch_deadlines(m);
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
