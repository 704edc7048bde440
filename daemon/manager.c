/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Start and stop, signals, the policy and its reload, the budget and the cores that models share. What a model does
 * with all that is in model.c; what is reported is in status.c.
 *
 * Stopping: after SIGTERM nothing new is taken, what waits ends with ShuttingDown, and what runs has LIMIT_DRAIN_US to
 * finish before it ends so, too. Then the sessions have a moment to send that, and the loop is left; main.c closes the
 * listener and frees the manager, which ends the workers, or leaves them to the next daemon (handover.h): systemd knows
 * whether there will be one. A second signal leaves the loop at once.
 */
#include "daemon/manager.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "base/json.h"
#include "base/units.h"
#include "daemon/budget.h"
#include "daemon/cores.h"
#include "daemon/internal.h"
#include "daemon/limits.h"
#include "daemon/messages.h"
#include "daemon/settle.h"
#include "daemon/reload.h"
#include "daemon/worker-start.h"
#include "daemon/shared.h"

/* How often those who wait hear something; the interface promises 10 s. */
#define TICK_US (UINT64_C(2) * 1000000)
/* How much longer systemd is asked to wait for READY=1, at each tick: several of them. */
#define EXTEND_START_US (UINT64_C(30) * 1000000)
/* What sessions have to send their last replies. */
#define STOP_GRACE_US UINT64_C(200000)
/* What they have when nothing runs: to be told of calls that are on their way that they are too late. */
#define STOP_IDLE_US UINT64_C(50000)
/* When to ask again: a daemon that restarts is there by then. */
#define STOP_RETRY_MS 1000

sd_event *manager_event(struct manager *m)
{
    return m->event;
}

const struct log *manager_log(const struct manager *m)
{
    return m->log;
}

const struct policy *manager_policy(const struct manager *m)
{
    return m->policy;
}

struct accounts *manager_accounts(struct manager *m)
{
    return m->accounts;
}

struct accounts *manager_group_accounts(struct manager *m)
{
    return m->group_accounts;
}

bool manager_is_stopping(const struct manager *m)
{
    return m->stopping;
}

uint64_t manager_now_us(const struct manager *m)
{
    uint64_t now = 0;

    /* Only fails for a clock that sd-event does not have. */
    sd_event_now(m->event, CLOCK_MONOTONIC, &now);
    return now;
}

static uint32_t count_cores(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set) < 0 || CPU_COUNT(&set) < 1)
        return 1;
    return (uint32_t)CPU_COUNT(&set);
}

static uint32_t cores_of(const struct policy *p)
{
    return p->threads == POLICY_AUTO ? count_cores() : p->threads;
}

/* One that does nothing keeps what it had: its threads sleep. */
void manager_share_cores(struct manager *m)
{
    _cleanup_free_ struct cores_claim *claims = NULL;
    size_t n_models = 0, n = 0;
    struct list *at, *after;

    list_foreach (at, after, &m->models)
        n_models++;
    claims = calloc(n_models ? n_models : 1, sizeof(*claims));
    if (!claims) /* they go on as they are */
        return;
    list_foreach (at, after, &m->models) {
        const struct model *model = list_entry(at, struct model, entry);

        if (model->n_submitted > 0)
            claims[n++] = (struct cores_claim){.priority = model->rules->priority, .n_requests = model->n_submitted};
    }
    cores_share(m->n_cores, claims, n);
    n = 0;
    list_foreach (at, after, &m->models) {
        struct model *model = list_entry(at, struct model, entry);

        if (model->n_submitted > 0 && model->worker)
            worker_threads(model->worker, claims[n].n_threads);
        n += model->n_submitted > 0;
    }
}

/* ---- systemd ---- */

static bool pinned_are_settled(const struct manager *m)
{
    struct list *at, *after;

    list_foreach (at, after, &m->models) {
        const struct model *model = list_entry(at, struct model, entry);

        if (model_is_pinned(model) && model->state != MODEL_READY && model->state != MODEL_FAILED)
            return false;
    }
    return true;
}

void manager_model_changed(struct manager *m)
{
    unsigned n_ready = 0, n_loading = 0, n_failed = 0;
    uint64_t done = 0, total = 0;
    struct list *at, *after;
    char loading[64] = "";

    list_foreach (at, after, &m->models) {
        const struct model *model = list_entry(at, struct model, entry);

        n_ready += model->state == MODEL_READY;
        n_failed += model->state == MODEL_FAILED;
        if (model->state == MODEL_MAPPING || model->state == MODEL_LOADING) {
            n_loading++;
            done += model->bytes_done;
            total += model->bytes_total;
        }
    }
    manager_requests_changed(m);
    if (m->stopping)
        return;
    if (total > 0)
        snprintf(loading, sizeof(loading), " (%u%%)", (unsigned)((double)done * 100 / (double)total));
    sd_notifyf(0, "STATUS=%u models ready, %u loading%s, %u failed", n_ready, n_loading, loading, n_failed);
    if (!m->said_ready && m->listening &&
        (m->policy->ready == POLICY_READY_LISTENING || pinned_are_settled(m))) {
        m->said_ready = true;
        sd_notify(0, "READY=1");
    }
}

/* A start that waits for models takes as long as they do, as long as something is going on: a worker that gets ready
 * shows by its heartbeats that it lives, a file by the bytes that come. */
static void extend_start(struct manager *m)
{
    struct list *at, *after;
    bool is_loading = false;
    uint64_t done = 0;

    if (m->said_ready || m->stopping)
        return;
    list_foreach (at, after, &m->models) {
        const struct model *model = list_entry(at, struct model, entry);

        is_loading |= model->state == MODEL_LOADING;
        done += model->state == MODEL_MAPPING ? model->bytes_done : 0;
    }
    if (is_loading || done != m->start_bytes_done)
        sd_notifyf(0, "EXTEND_TIMEOUT_USEC=%" PRIu64, EXTEND_START_US);
    m->start_bytes_done = done;
}

void manager_listening(struct manager *m)
{
    m->listening = true;
    manager_model_changed(m);
}

/* ---- the policy ---- */

static void log_warnings(const struct manager *m, const struct policy *p)
{
    for (size_t i = 0; i < p->n_warnings; i++)
        log_line(m->log, LOG_WARNING, &(struct log_fields){.message_id = MESSAGE_POLICY_WARNING}, "%s", p->warnings[i]);
}

static struct policy_options policy_options_of(const struct manager *m)
{
    return (struct policy_options){
        .paths = (const char *const *)m->policy_paths,
        .n_paths = m->n_policy_paths,
        .own_uid = m->own_uid,
    };
}

static int add_model(struct manager *m, struct policy *p, const struct policy_model *rules)
{
    struct model *model;
    int r = model_new(m, p, rules, &model);

    if (r < 0)
        log_line(m->log, LOG_ERR, &(struct log_fields){.model = rules->name, .message_id = MESSAGE_OUT_OF_MEMORY},
                 "out of memory for model %s", rules->name);
    return r;
}

/* Models of the new policy; from here on nothing can be refused any more, only memory can be short. */
static int apply_models(struct manager *m)
{
    struct policy *p = m->policy;
    struct list *at, *after;
    int r = 0, q;

    list_foreach (at, after, &m->models) {
        struct model *model = list_entry(at, struct model, entry);
        const struct policy_model *rules = policy_find_model(p, model->rules->name);

        /* policy_find_model() also finds by alias, which a removed model's name may have become. */
        if (rules && strcmp(rules->name, model->rules->name) == 0)
            continue;
        model->removed = true;
        model_unload(model);
        sd_event_source_set_enabled(model->kick, SD_EVENT_ONESHOT);
    }
    for (size_t i = 0; i < p->n_models; i++) {
        struct model *model = model_find(m, p->models[i].name);

        q = model ? model_update(model, p, &p->models[i]) : add_model(m, p, &p->models[i]);
        if (q < 0)
            r = q;
    }
    return r;
}

static void swap_policy(struct manager *m, struct policy *p)
{
    m->policy = p;
    m->n_cores = cores_of(p);
    /* Held requests and sessions are looked at from the loop, since their callbacks may come from nowhere else. */
    m->recheck = true;
    sd_event_source_set_enabled(m->pump, SD_EVENT_ONESHOT);
}

static void warn_of_budget(struct manager *m)
{
    char used_text[UNITS_TEXT_MAX], budget_text[UNITS_TEXT_MAX];
    uint64_t used, budget = manager_ram_budget(m);

    if (manager_ram_used(m, NULL, &used) < 0 || used <= budget)
        return;
    log_line(m->log, LOG_WARNING, &(struct log_fields){.message_id = MESSAGE_POLICY_WARNING},
             "host.ram.budget is %s now, and the models in memory take %s: those that are not in use and not pinned "
             "leave, and nothing is loaded until the rest fits",
             units_format_size(budget, budget_text), units_format_size(used, used_text));
}

int manager_take_policy(struct manager *m, int result, struct policy *p_take, const struct fault *fault,
                        json_object **ret_changed)
{
    _cleanup_(policy_unrefp) struct policy *p = p_take, *before = NULL;
    _cleanup_json_ json_object *changed = NULL;
    char text[640];
    int r = result;

    if (r == -EINVAL) {
        log_line(m->log, LOG_ERR, &(struct log_fields){.message_id = MESSAGE_POLICY_REFUSED},
                 "the old policy stays: %s", fault_describe(fault, text, sizeof(text)));
        return REQUEST_REFUSED;
    }
    if (r >= 0)
        r = policy_diff(m->policy, p, &changed);
    if (r < 0) {
        log_line(m->log, LOG_ERR, &(struct log_fields){.message_id = MESSAGE_OUT_OF_MEMORY}, "reload: %s",
                 strerror(-r));
        return r;
    }
    log_warnings(m, p);
    before = m->policy;
    swap_policy(m, TAKE_PTR(p));
    r = apply_models(m);
    m->may_exceed_budget = true;
    warn_of_budget(m);
    manager_look_at_budget(m);
    if (manager_look_for_gpus(m) < 0)
        r = -ENOMEM;
    log_line(m->log, LOG_NOTICE, &(struct log_fields){.message_id = MESSAGE_POLICY_RELOADED},
             "policy reloaded: %zu models, %zu keys changed", m->policy->n_models,
             json_object_array_length(changed));
    manager_model_changed(m);
    if (r >= 0)
        *ret_changed = TAKE_PTR(changed);
    return r;
}

int manager_reload(struct manager *m, manager_reloaded_t done, void *userdata, struct reload_wait **ret)
{
    return reload_wait(m->reload, done, userdata, ret);
}

void manager_set_reloaded(struct manager *m, void (*reloaded)(void *userdata), void *userdata)
{
    m->reloaded = reloaded;
    m->reloaded_userdata = userdata;
}

void manager_set_stopping(struct manager *m, bool (*stopping)(void *userdata), void *userdata)
{
    m->is_connected = stopping;
    m->is_connected_userdata = userdata;
}

void manager_set_nss(struct manager *m, struct nss *nss_borrow)
{
    /* Answers that are waited for won't come from it any more. */
    if (!nss_borrow)
        settle_done(m);
    m->nss = nss_borrow;
}

/* ---- methods ---- */

static int find_for_admin(struct manager *m, const struct policy_subject *s, const char *name, struct model **ret,
                          struct fault *reterr_fault)
{
    const struct policy_model *rules;

    if (!policy_is_admin(m->policy, s)) {
        fault_set(reterr_fault, FAULT_NOT_ALLOWED, name, "admins_only");
        return REQUEST_REFUSED;
    }
    if (m->stopping) {
        fault_init(reterr_fault, FAULT_SHUTTING_DOWN, NULL);
        return REQUEST_REFUSED;
    }
    rules = policy_find_model(m->policy, name);
    *ret = rules ? model_find(m, rules->name) : NULL;
    if (!*ret) {
        fault_init(reterr_fault, FAULT_NO_SUCH_MODEL, name);
        return REQUEST_REFUSED;
    }
    return 0;
}

int manager_load(struct manager *m, const struct policy_subject *s, const char *name,
                 const struct model_wait_callbacks *callbacks, void *userdata, struct model_wait **ret,
                 struct fault *reterr_fault)
{
    struct model *model;
    int r;

    r = find_for_admin(m, s, name, &model, reterr_fault);
    if (r != 0)
        return r;
    model_load(model);
    return model_wait_new(model, false, callbacks, userdata, ret);
}

int manager_unload(struct manager *m, const struct policy_subject *s, const char *name,
                   const struct model_wait_callbacks *callbacks, void *userdata, struct model_wait **ret,
                   struct fault *reterr_fault)
{
    struct model *model;
    int r;

    r = find_for_admin(m, s, name, &model, reterr_fault);
    if (r != 0)
        return r;
    model_unload(model);
    return model_wait_new(model, true, callbacks, userdata, ret);
}

int manager_pin(struct manager *m, const struct policy_subject *s, const char *name,
                const struct model_wait_callbacks *callbacks, void *userdata, struct model_wait **ret,
                struct fault *reterr_fault)
{
    struct model *model;
    int r;

    r = find_for_admin(m, s, name, &model, reterr_fault);
    if (r != 0)
        return r;
    model_pin(model, PIN_ON);
    model_load(model);
    return model_wait_new(model, false, callbacks, userdata, ret);
}

int manager_unpin(struct manager *m, const struct policy_subject *s, const char *name, struct fault *reterr_fault)
{
    struct model *model;
    int r;

    r = find_for_admin(m, s, name, &model, reterr_fault);
    if (r != 0)
        return r;
    model_pin(model, PIN_OFF);
    return 0;
}

int manager_cancel(struct manager *m, const struct policy_subject *s, uint64_t id, struct fault *reterr_fault)
{
    struct request *r = request_find(m, id);

    if (!r || !r->callbacks || (r->subject.uid != s->uid && !policy_is_admin(m->policy, s))) {
        fault_init(reterr_fault, FAULT_NO_SUCH_REQUEST, NULL);
        reterr_fault->request = id;
        return REQUEST_REFUSED;
    }
    request_stop(r, r->subject.uid == s->uid ? "client" : "admin");
    return 0;
}

/* ---- the loop ---- */

static int on_pump(sd_event_source *s, void *userdata)
{
    struct manager *m = userdata;

    if (m->recheck) {
        m->recheck = false;
        requests_recheck_held(m);
        if (m->reloaded)
            m->reloaded(m->reloaded_userdata);
    }
    requests_pump(m);
    return 0;
}

static int on_late(sd_event_source *s, uint64_t now, void *userdata)
{
    requests_pump(userdata);
    return 0;
}

static int on_tick(sd_event_source *s, uint64_t now, void *userdata)
{
    struct manager *m = userdata;
    struct list *at, *after;
    int r;

    if (!list_is_empty(&m->held)) {
        requests_tell_waiting(m, NULL);
        requests_pump(m);
    }
    manager_look_at_pressure(m);
    manager_look_at_shared(m);
    manager_look_at_budget(m);
    manager_look_at_stuck(m);
    manager_look_at_gpus(m);
    extend_start(m);
    list_foreach (at, after, &m->models) {
        model_verify(list_entry(at, struct model, entry));
        model_look_at_build(list_entry(at, struct model, entry));
        model_look_at_gpus(list_entry(at, struct model, entry));
        model_release(list_entry(at, struct model, entry));
        model_sample(list_entry(at, struct model, entry));
    }
    r = sd_event_source_set_time(s, now + TICK_US);
    return r < 0 ? r : sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

static void fail_everything(struct manager *m, bool running_too)
{
    struct fault fault;
    struct list *at, *after;

    fault_init(&fault, FAULT_SHUTTING_DOWN, NULL);
    fault.retry_after_ms = STOP_RETRY_MS;
    list_foreach (at, after, &m->models) {
        struct model *model = list_entry(at, struct model, entry);

        requests_fail_held(model, &fault);
        if (running_too)
            requests_fail_submitted(model, &fault);
    }
}

void manager_request_ended(struct manager *m)
{
    /* The last one: what the sessions still have to send is all that is waited for. */
    if (m->stopping && m->n_requests == 0) {
        sd_event_source_set_time_relative(m->stop_timer, STOP_GRACE_US);
        sd_event_source_set_enabled(m->stop_timer, SD_EVENT_ONESHOT);
    }
}

static int on_stop_timer(sd_event_source *s, uint64_t now, void *userdata)
{
    struct manager *m = userdata;

    if (m->n_requests == 0)
        return sd_event_exit(m->event, 0);
    log_line(m->log, LOG_NOTICE, NULL, "%zu requests did not finish in time", m->n_requests);
    fail_everything(m, /* running_too= */ true);
    return 0;
}

static int on_stop_signal(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata)
{
    struct manager *m = userdata;
    bool is_connected;
    int r;

    if (m->stopping)
        return sd_event_exit(m->event, 0);
    log_line(m->log, LOG_NOTICE, NULL, "stopping");
    sd_notify(0, "STOPPING=1\nSTATUS=Stopping");
    r = sd_event_add_time_relative(m->event, &m->stop_timer, CLOCK_MONOTONIC, LIMIT_DRAIN_US, 0, on_stop_timer, m);
    if (r < 0)
        return r;
    m->stopping = true;
    handover_stopping(m->handover);
    is_connected = m->is_connected && m->is_connected(m->is_connected_userdata);
    if (m->n_requests > 0) {
        fail_everything(m, /* running_too= */ false);
        manager_request_ended(m);
        return 0;
    }
    /* Soon: whoever connects now waits for the next daemon. */
    return is_connected ? sd_event_source_set_time_relative(m->stop_timer, STOP_IDLE_US) : sd_event_exit(m->event, 0);
}

static int on_sighup(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata)
{
    int r = reload_start(((struct manager *)userdata)->reload);

    if (r < 0)
        log_line(((struct manager *)userdata)->log, LOG_ERR,
                 &(struct log_fields){.message_id = MESSAGE_OUT_OF_MEMORY}, "reload: %s", strerror(-r));
    return 0;
}

static int watch(struct manager *m)
{
    sigset_t signals;
    int r;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    if (sigprocmask(SIG_BLOCK, &signals, NULL) < 0)
        return -errno;
    r = sd_event_add_signal(m->event, &m->sigterm, SIGTERM, on_stop_signal, m);
    if (r >= 0)
        r = sd_event_add_signal(m->event, &m->sigint, SIGINT, on_stop_signal, m);
    if (r >= 0)
        r = sd_event_add_signal(m->event, &m->sighup, SIGHUP, on_sighup, m);
    if (r >= 0)
        r = sd_event_add_defer(m->event, &m->pump, on_pump, m);
    if (r >= 0)
        r = sd_event_add_time(m->event, &m->late, CLOCK_MONOTONIC, UINT64_MAX, 1, on_late, m);
    if (r >= 0)
        r = manager_watch_room(m);
    if (r >= 0)
        r = sd_event_add_time_relative(m->event, &m->tick, CLOCK_MONOTONIC, TICK_US, 0, on_tick, m);
    if (r >= 0)
        r = sd_event_set_watchdog(m->event, true);
    return r < 0 ? r : 0;
}

static int copy_paths(struct manager *m, const struct manager_options *options)
{
    m->policy_paths = calloc(options->n_policy_paths ? options->n_policy_paths : 1, sizeof(char *));
    if (!m->policy_paths)
        return -ENOMEM;
    for (; m->n_policy_paths < options->n_policy_paths; m->n_policy_paths++) {
        m->policy_paths[m->n_policy_paths] = strdup(options->policy_paths[m->n_policy_paths]);
        if (!m->policy_paths[m->n_policy_paths])
            return -ENOMEM;
    }
    return 0;
}

static void on_grant_back(void *userdata)
{
    manager_room_came(userdata);
}

int manager_new(const struct manager_options *options, struct manager **ret, struct fault *reterr_fault)
{
    _cleanup_(manager_freep) struct manager *m = calloc(1, sizeof(*m));
    struct timespec now;
    struct policy_options policy_options;
    int r;

    if (!m)
        return -ENOMEM;
    list_init(&m->models);
    list_init(&m->grants.all);
    m->grants.came_back = on_grant_back;
    m->grants.userdata = m;
    list_init(&m->shared);
    list_init(&m->held);
    list_init(&m->ending);
    list_init(&m->settling);
    list_init(&m->watches);
    for (size_t i = 0; i < REQUEST_BUCKETS; i++)
        list_init(&m->requests[i]);
    m->log = options->log;
    m->own_uid = geteuid();
    m->next_request = 1;
    m->ram_total_bytes = budget_total_ram();
    r = copy_paths(m, options);
    if (r < 0)
        return r;
    policy_options = policy_options_of(m);
    r = policy_load(&policy_options, &m->policy, reterr_fault);
    if (r < 0)
        return r;
    log_warnings(m, m->policy);
    m->n_cores = cores_of(m->policy);
    r = worker_start_find(options->worker_path, &m->worker_path);
    if (r == -ENOENT) {
        log_line(m->log, LOG_ERR, &(struct log_fields){.message_id = MESSAGE_START_FAILED},
                 "resident-worker was not found; say where it is with --worker");
        return r;
    }
    if (r < 0)
        return r;
    r = manager_find_pressure(m, options->pressure_path);
    if (r >= 0)
        r = sd_event_default(&m->event);
    if (r >= 0)
        r = reload_new(m, &policy_options, &m->reload);
    if (r >= 0)
        r = accounts_new(&m->accounts);
    if (r >= 0)
        r = accounts_new(&m->group_accounts);
    if (r >= 0)
        r = blame_new(&m->blame);
    if (r >= 0)
        r = quotas_new(&m->quotas);
    if (r >= 0)
        r = manager_open_ledger(m, options->state_dir ? options->state_dir : getenv("STATE_DIRECTORY"));
    if (r >= 0)
        r = residencies_new(m->event, m->own_uid, &m->residencies);
    if (r >= 0)
        r = handover_new(m, &m->handover);
    clock_gettime(CLOCK_REALTIME, &now);
    if (r >= 0) {
        m->epoch = handover_epoch(m->handover, (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
        r = workers_new(m->event, m->epoch, handover_mark_key(m->handover), &m->workers);
    }
    if (r >= 0 && worker_start_is_unit(m->worker_path))
        r = workers_expect_reports(m->workers, m->worker_path);
    if (r >= 0)
        r = watch(m);
    if (r >= 0)
        r = apply_models(m);
    if (r >= 0)
        r = manager_look_for_gpus(m);
    if (r < 0)
        return r;
    handover_take_back(m->handover);
    *ret = TAKE_PTR(m);
    return 0;
}

struct manager *manager_free(struct manager *m)
{
    if (!m)
        return NULL;
    requests_abandon(m);
    settle_done(m);
    assert(m->n_requests == 0);
    reload_free(m->reload);
    if (m->handover)
        handover_leave(m->handover);
    look_free(m->look);
    while (!list_is_empty(&m->models))
        model_free(list_entry(m->models.next, struct model, entry));
    workers_free(m->workers);
    shared_done(&m->shared);
    blame_free(m->blame);
    residencies_free(m->residencies);
    handover_free(m->handover);
    ledger_free(m->ledger);
    quotas_free(m->quotas);
    accounts_free(m->group_accounts);
    accounts_free(m->accounts);
    sd_event_source_disable_unref(m->pump);
    sd_event_source_disable_unref(m->room);
    sd_event_source_disable_unref(m->late);
    sd_event_source_disable_unref(m->tick);
    sd_event_source_disable_unref(m->watch_timer);
    sd_event_source_disable_unref(m->sigterm);
    sd_event_source_disable_unref(m->sigint);
    sd_event_source_disable_unref(m->sighup);
    sd_event_source_disable_unref(m->stop_timer);
    sd_event_unref(m->event);
    policy_unref(m->policy);
    for (size_t i = 0; i < m->n_policy_paths; i++)
        free(m->policy_paths[i]);
    free(m->policy_paths);
    free(m->worker_path);
    free(m->pressure_path);
    free(m);
    return NULL;
}
