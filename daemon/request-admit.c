/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Admission: the model exists, the caller may use it, and has room in each quota. A request that is refused has taken
 * nothing. In order: rights; what the caller may hold at one moment (account.h, totals.h); what it may use over time
 * (quota.h). The last depends on tokens, which are known for certain only to the worker: it is told how many fit, and
 * refuses more with ContextTooLong.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/calendar.h"
#include "daemon/internal.h"
#include "daemon/limits.h"
#include "policy/class.h"
#include "policy/quota.h"

/* Tokens of an answer that nothing bounds, where the model has not said how long its context is. */
#define CONTEXT_GUESS 4096

static int refuse_quota(enum policy_quota_key key, uint64_t limit, uint64_t used, struct fault *reterr_fault)
{
    fault_init(reterr_fault, FAULT_QUOTA_EXCEEDED, policy_quota_key_name(key));
    reterr_fault->limit = (int64_t)limit;
    reterr_fault->used = (int64_t)used;
    return REQUEST_REFUSED;
}

void request_take_quota(struct request *r, const struct policy_quota *quota)
{
    r->weight = (uint32_t)quota->weight;
    /* For the worker 0 is no limit; one of a byte holds no page. */
    r->kv_max_bytes = quota->kv_bytes == POLICY_UNLIMITED ? 0 : quota->kv_bytes > 0 ? quota->kv_bytes : 1;
    r->concurrent_max = quota->concurrent;
    r->context_max = quota->context_tokens;
    r->class_weight = 0;
    r->tenant_class = policy_class_for(r->manager->policy, &r->subject, &r->class_weight);
}

static int check_rights(struct manager *m, const struct request_params *params, struct model **ret,
                        struct fault *reterr_fault)
{
    const struct policy_model *rules = policy_find_model(m->policy, params->model);
    uint64_t delay_us;

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
    delay_us = blame_delay_us(m->blame, rules->name, params->subject->uid, manager_now_us(m));
    if (delay_us > 0) {
        fault_set(reterr_fault, FAULT_MODEL_UNAVAILABLE, rules->name,
                  "requests of this user were there more than once when the model's worker crashed");
        reterr_fault->retry_after_ms = (int64_t)(delay_us / 1000) + 1;
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

static int queue_full(const char *prefix, uint64_t limit, struct fault *reterr_fault)
{
    if (prefix) {
        char name[192];

        snprintf(name, sizeof(name), "%s%s", prefix, policy_quota_key_name(POLICY_QUOTA_QUEUED));
        fault_init(reterr_fault, FAULT_QUOTA_EXCEEDED, name);
        reterr_fault->used = (int64_t)limit + 1;
    } else {
        fault_init(reterr_fault, FAULT_QUEUE_FULL, NULL);
    }
    reterr_fault->limit = (int64_t)limit;
    return REQUEST_REFUSED;
}

/* Its place among those that wait. One that can run at once needs none. */
static int charge(struct manager *m, struct request *r, const struct policy_quota *quota, struct fault *reterr_fault)
{
    bool waits = !request_may_run(r);
    const struct total *full = NULL;
    int q;

    if (m->n_requests >= LIMIT_REQUESTS)
        return queue_full(NULL, LIMIT_REQUESTS, reterr_fault);
    q = account_charge(m->accounts, r->subject.uid, ACCOUNT_QUEUED, 1, waits ? quota->queued : UINT64_MAX, &r->charge);
    if (q == ACCOUNT_FULL) {
        q = queue_full(NULL, quota->queued, reterr_fault);
        reterr_fault->retry_after_ms = requests_place_ms(m, r->subject.uid);
        return q;
    }
    if (q == 0)
        q = totals_queue(&r->totals, m->group_accounts, waits, &full);
    if (q == ACCOUNT_FULL)
        return queue_full(full->prefix, full->limits.queued, reterr_fault);
    return q;
}

/* Groups of which the policy says something else now. */
static int change_totals(struct request *r)
{
    const struct total *full;

    totals_done(&r->totals);
    if (totals_init(&r->totals, r->manager->policy, &r->subject) < 0)
        return -ENOMEM;
    return totals_queue(&r->totals, r->manager->group_accounts, /* is_limited= */ false, &full);
}

/* ---- tokens ---- */

/* The prompt's tokens, as far as can be known without its model: exactly when it came as tokens, else what texts mostly
 * are. Before the worker has counted, more than this is not held against the user, and what is missing is owed. */
static uint64_t guess_prompt(const struct request *r)
{
    return r->n_prompt > 0 ? r->n_prompt : (uint64_t)r->n_parameters / 4 + 1;
}

/* A text in which tokens are as short as this is hardly longer in tokens. */
static uint64_t bound_prompt(const struct request *r)
{
    return r->n_prompt > 0 ? r->n_prompt : (uint64_t)r->n_parameters / 3 + 1;
}

static uint64_t context_of(const struct model *model)
{
    uint64_t tokens = model->context_tokens ? model->context_tokens : model->rules->context.tokens;

    return tokens ? tokens : POLICY_UNLIMITED;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* What it may compute at most: what is reserved until its end. */
static uint64_t tokens_needed(const struct request *r)
{
    uint64_t context = context_of(r->model), prompt = guess_prompt(r), sum;

    if (r->kind == REQUEST_TOKENIZE || r->kind == REQUEST_DETOKENIZE)
        return 0;
    if (__builtin_add_overflow(prompt, r->output_max, &sum))
        sum = POLICY_UNLIMITED;
    sum = least(sum, least(context, r->context_max));
    /* Of a model that has not said how long its context is. */
    return sum == POLICY_UNLIMITED ? prompt + CONTEXT_GUESS : sum;
}

static int take_rates(struct manager *m, struct request *r, const struct policy_quota *quota,
                      struct fault *reterr_fault)
{
    const struct quota_time now = manager_quota_time(m);
    _cleanup_free_ struct quota_party *parties = NULL;
    size_t n = 1 + r->totals.n;
    uint64_t tokens = tokens_needed(r);
    int q;

    if (totals_parties(&r->totals, r->subject.uid, quota, &parties) < 0)
        return -ENOMEM;
    r->day = now.day_s;
    r->hour = calendar_hour(now.wall_ms / 1000);
    r->quota_max = quotas_tokens_max(parties, n);
    /* Prompts that came as tokens are counted already; of others the worker says so. */
    if (tokens > 0 && r->n_prompt + 1 > r->quota_max) {
        fault_init(reterr_fault, FAULT_CONTEXT_TOO_LONG, NULL);
        reterr_fault->limit = (int64_t)r->quota_max;
        reterr_fault->used = (int64_t)r->n_prompt + 1;
        return REQUEST_REFUSED;
    }
    q = quotas_take(m->quotas, &now, parties, n, tokens, bound_prompt(r) < r->quota_max, &r->quota, reterr_fault);
    return q == QUOTA_FULL ? REQUEST_REFUSED : q;
}

/* ---- admission ---- */

static uint64_t count_tokens(const struct request_params *params)
{
    json_object *tokens;

    if (params->kind != REQUEST_COMPLETE || !json_object_object_get_ex(params->parameters, "prompt_tokens", &tokens) ||
        !json_object_is_type(tokens, json_type_array))
        return 0;
    return json_object_array_length(tokens);
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
    request_take_quota(r, quota);
    r->n_prompt = count_tokens(params);
    r->queue_position = r->eta_ms = -1;
    r->started_us = manager_now_us(r->manager);
    /* Beyond a year is no deadline, and must not overflow. */
    if (params->deadline_ms > 0 && params->deadline_ms < INT64_C(365) * 24 * 3600 * 1000)
        r->deadline_ns = (r->started_us + (uint64_t)params->deadline_ms * 1000) * 1000;
    r->app = params->app ? strdup(params->app) : NULL;
    r->unit = params->unit ? strdup(params->unit) : NULL;
    if ((params->app && !r->app) || (params->unit && !r->unit))
        return -ENOMEM;
    return request_parameters(params->kind, params->parameters, r->model->rules, quota, &r->parameters,
                              &r->n_parameters, &r->output_max, reterr_fault);
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
    q = totals_init(&r->totals, m->policy, params->subject);
    if (q == 0)
        q = fill(r, params, &quota, reterr_fault);
    if (q == 0)
        q = charge(m, r, &quota, reterr_fault);
    if (q == 0)
        q = take_rates(m, r, &quota, reterr_fault);
    if (q == 0 && !model_want(model, reterr_fault))
        q = REQUEST_REFUSED;
    if (q != 0) {
        const struct quota_time now = manager_quota_time(m);

        quotas_give_back(m->quotas, &now, &r->quota);
        account_discharge(&r->charge);
        request_release(r);
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
    if (request_may_run(r))
        (void)request_submit(r);
    if (r->state == REQUEST_HELD)
        requests_pump_soon(m);
    manager_requests_changed(m);
    *ret = r;
    return 0;
}

/* ---- another policy ---- */

void requests_recheck_held(struct manager *m)
{
    uint64_t last = requests_last_id(m), id = 0;
    struct fault fault;

    for (struct request *r; (r = requests_next_held(m, id, last));) {
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
            request_take_quota(r, &quota);
            if (change_totals(r) >= 0)
                continue;
            fault_set(&fault, FAULT_MODEL_UNAVAILABLE, name, "out of memory");
        }
        request_fail(r, &fault);
    }
}
