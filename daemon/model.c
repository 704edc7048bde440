/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One configured model through its states. The table below is the whole truth about which event leads where; enter()
 * is what happens on the way in.
 *
 *                  WANT              MAPPED             LOADED
 *      ABSENT ──────────► MAPPING ──────────► LOADING ──────────► READY
 *        ▲ ▲                 │                  │ ▲ │                │
 *        │ └─── UNLOAD ──────┘        CRASHED ──┘ └─│─── CRASHED ────┤   (back-off; the mapping is kept,
 *        │                                          │                │    so nothing is read again)
 *        └────── DRAINED ────── DRAINING ◄─ UNLOAD ─┴─── UNLOAD ─────┘
 *
 *      FAULT (any state in which something is loaded), CRASHED_OUT ──► FAILED ── WANT ──► MAPPING
 *
 *      ABSENT ── KEPT ──► LOADING            a worker that an earlier daemon left (handover.c) answers, LOADED follows
 *      READY ── RENEW ──► DRAINING ── RENEWED ──► LOADING       it was of another build; the mapping is kept
 *
 * Invariants:
 *  1. There is a residency in MAPPING, LOADING, READY, DRAINING; a worker in READY, and in LOADING and DRAINING unless
 *     the back-off is running.
 *  2. Requests are submitted in READY only; each of them is on @submitted until it ends or the worker does.
 *  3. @timer belongs to the state: back-off in LOADING, idleness in READY, retry of a pinned model in FAILED.
 */
#include "daemon/model.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/units.h"
#include "daemon/internal.h"
#include "daemon/limits.h"
#include "daemon/messages.h"
#include "daemon/model-files.h"
#include "daemon/prefixes.h"
#include "daemon/settle.h"

#define BACKOFF_FIRST_US UINT64_C(100000)
#define BACKOFF_MAX_US (UINT64_C(30) * 1000000)
/* How often it is looked whether a worker's process has ended that another one follows. */
#define LINGER_US UINT64_C(20000)
/* A worker that lived so long has not crashed "in a row". */
#define HEALTHY_US (UINT64_C(60) * 1000000)
/* How long a failure is believed: requests are refused at once, then the next one tries again. Opening a file once more
 * costs little, starting a worker that crashes a lot. */
#define FAULT_BELIEVED_US (UINT64_C(5) * 1000000)
#define CRASHES_BELIEVED_US (UINT64_C(60) * 1000000)
/* The daemon's own lock on a model that was taken over waits no longer than this for a moment without requests. */
#define VERIFY_LATEST_US (UINT64_C(10) * 1000000)
/* How long a worker's lines are counted together. */
#define LINES_US (UINT64_C(60) * 1000000)
/* A pinned model is tried again by itself. */
#define PINNED_RETRY_US (UINT64_C(60) * 1000000)

/* clang-format off */
#define NONE MODEL_STATE_MAX
static const enum model_state transitions[MODEL_STATE_MAX][MODEL_EVENT_MAX] = {
    /*                  WANT           MAPPED         LOADED       FAULT         CRASHED        CRASHED_OUT    UNLOAD          DRAINED       KEPT           RENEW           RENEWED */
    [MODEL_ABSENT]   = {MODEL_MAPPING, NONE,          NONE,        NONE,         NONE,          NONE,          NONE,           NONE,         MODEL_LOADING, NONE,           NONE},
    [MODEL_MAPPING]  = {NONE,          MODEL_LOADING, NONE,        MODEL_FAILED, NONE,          NONE,          MODEL_ABSENT,   NONE,         NONE,          NONE,           NONE},
    [MODEL_LOADING]  = {NONE,          NONE,          MODEL_READY, MODEL_FAILED, MODEL_LOADING, MODEL_FAILED,  MODEL_DRAINING, NONE,         NONE,          NONE,           NONE},
    [MODEL_READY]    = {NONE,          NONE,          NONE,        MODEL_FAILED, MODEL_LOADING, MODEL_FAILED,  MODEL_DRAINING, NONE,         NONE,          MODEL_DRAINING, NONE},
    [MODEL_DRAINING] = {NONE,          NONE,          NONE,        MODEL_FAILED, MODEL_ABSENT,  MODEL_ABSENT,  NONE,           MODEL_ABSENT, NONE,          NONE,           MODEL_LOADING},
    [MODEL_FAILED]   = {MODEL_MAPPING, NONE,          NONE,        NONE,         NONE,          NONE,          MODEL_ABSENT,   NONE,         NONE,          NONE,           NONE},
};
/* clang-format on */

static const struct residency_callbacks residency_callbacks;
static const struct worker_callbacks worker_callbacks;

enum model_state model_next(enum model_state state, enum model_event event)
{
    return transitions[state][event];
}

uint64_t model_backoff_us(unsigned n_crashes)
{
    uint64_t us = BACKOFF_FIRST_US;

    for (unsigned i = 1; i < n_crashes && us < BACKOFF_MAX_US; i++)
        us *= 2;
    return us < BACKOFF_MAX_US ? us : BACKOFF_MAX_US;
}

const char *model_state_to_string(enum model_state state)
{
    static const char *const names[MODEL_STATE_MAX] = {
        [MODEL_ABSENT] = "absent", [MODEL_MAPPING] = "loading",   [MODEL_LOADING] = "loading",
        [MODEL_READY] = "ready",   [MODEL_DRAINING] = "draining", [MODEL_FAILED] = "failed",
    };

    return names[state];
}

static void log_model(const struct model *model, int level, const char *message_id, const char *text)
{
    const struct log_fields fields = {.model = model->rules->name,
                                      .pid = model->worker ? worker_pid(model->worker) : 0,
                                      .message_id = message_id};

    log_line(model->manager->log, level, &fields, "model %s: %s", model->rules->name, text);
}

/* ---- the timer and the kick ---- */

static void set_timer(struct model *model, uint64_t after_us)
{
    /* Both were made with the model; setting them can't fail. */
    sd_event_source_set_time_relative(model->timer, after_us);
    sd_event_source_set_enabled(model->timer, SD_EVENT_ONESHOT);
}

static void stop_timer(struct model *model)
{
    sd_event_source_set_enabled(model->timer, SD_EVENT_OFF);
}

void model_kick(struct model *model)
{
    sd_event_source_set_enabled(model->kick, SD_EVENT_ONESHOT);
}

/* ---- what happens in each state ---- */

void model_fail(struct model *model, const struct fault *fault)
{
    char text[640];

    model->fault = *fault;
    if (fault->kind != FAULT_INSUFFICIENT_MEMORY) /* whose subject is the kind of memory */
        fault_subject(&model->fault, model->rules->name);
    if (model->fault.kind == FAULT_MODEL_UNAVAILABLE && model->fault.retry_after_ms < 0)
        model->fault.retry_after_ms = FAULT_BELIEVED_US / 1000;
    model->believed_us = FAULT_BELIEVED_US;
    log_model(model, LOG_ERR, MESSAGE_MODEL_FAILED, fault_describe(&model->fault, text, sizeof(text)));
    model_handle(model, MODEL_FAULT);
}

void model_fail_errno(struct model *model, const char *what, int error)
{
    struct fault fault;

    fault_set(&fault, FAULT_MODEL_UNAVAILABLE, model->rules->name, "%s: %s", what, strerror(-error));
    model_fail(model, &fault);
}

/* @kept, @copy_fds: as model_take_back() has them, or NULL. */
static int open_files(struct model *model, const struct snapshot_model *kept, const int *copy_fds)
{
    _cleanup_free_ struct residency_file *others = NULL;
    struct residency_options options;
    size_t n_others;
    int r = 0;

    model_set_loaded(model);
    if (!model->grant)
        r = grant_new(&model->manager->grants, &model->grant);
    r = r < 0 ? r : model_files_others(model->loaded_of, model->loaded, &others, &n_others);
    if (r < 0) {
        for (size_t i = 0; copy_fds && i < kept->n_files; i++)
            close(copy_fds[i]);
        return r;
    }
    options = (struct residency_options){
        .file = {.path = model->loaded->path, .sha256 = model->loaded->sha256},
        .ram = model->loaded->residency.ram,
        .huge = model->loaded->residency.huge,
        .numa = model->loaded->residency.numa,
        .numa_node = model->loaded->residency.numa_node,
        .bytes_max = policy_size_of(&model->loaded->residency.limit, model->manager->ram_total_bytes),
        .others = others,
        .n_others = n_others,
        .kept = kept ? kept->files : NULL,
        .n_kept = kept ? kept->n_files : 0,
        .kept_fds = copy_fds,
    };
    model->bytes_done = model->bytes_total = 0;
    r = residency_new(model->manager->residencies, &options, &residency_callbacks, model, &model->residency);
    if (r == 0)
        residency_hold(model->residency, grant_ref(model->grant), grant_unref);
    return r;
}

static void begin_mapping(struct model *model)
{
    int r = open_files(model, NULL, NULL);

    if (r < 0)
        model_fail_errno(model, "can't open the model", r);
}

static int make_config(const struct model *model, char **ret)
{
    const struct policy_model *rules = model->loaded;
    _cleanup_json_ json_object *config = json_object_new_object();
    const char *text;
    int r = 0;

    if (!config)
        return -ENOMEM;
    r |= json_object_object_add(config, "model", json_object_new_string(rules->name));
    if (rules->context.tokens > 0)
        r |= json_object_object_add(config, "context_tokens", json_object_new_int64(rules->context.tokens));
    r |= json_object_object_add(config, "sequences", json_object_new_int64(rules->context.sequences));
    r |= json_object_object_add(config, "k", json_object_new_string(rules->context.k));
    r |= json_object_object_add(config, "v", json_object_new_string(rules->context.v));
    r |= json_object_object_add(config, "lock", json_object_new_boolean(rules->residency.ram != POLICY_RAM_MAP));
    r |= json_object_object_add(config, "small_pages",
                                json_object_new_boolean(rules->residency.huge == POLICY_HUGE_OFF));
    r |= json_object_object_add(config, "touch", json_object_new_boolean(!residency_is_read(model->residency)));
    if (r != 0 || !model_files_add(config, rules, model->residency) || !model_gpu_add(config, model) ||
        !prefixes_add(config, rules, model->manager->own_uid, model->manager->log))
        return -ENOMEM;
    text = json_text(config);
    if (!text)
        return -ENOMEM;
    *ret = strdup(text);
    return *ret ? 0 : -ENOMEM;
}

void model_start_worker(struct model *model)
{
    _cleanup_free_ char *config = NULL;
    struct worker_options options = {.path = model->manager->worker_path,
                                     .n_threads = model->manager->n_cores,
                                     .gpu = model->gpu.layers > 0};
    int *fds = NULL, r;

    r = make_config(model, &config);
    if (r < 0) {
        model_fail_errno(model, "can't start a worker", r);
        return;
    }
    r = residency_open_fds(model->residency, &fds, &options.n_fds);
    if (r < 0) {
        model_fail_errno(model, "can't hand the files to a worker", r);
        return;
    }
    options.fds = fds;
    options.config = config;
    r = worker_new(model->manager->workers, &options, &worker_callbacks, model, &model->worker);
    if (r < 0)
        model_fail_errno(model, "can't start a worker", r);
    else
        worker_hold(model->worker, grant_ref(model->grant), grant_unref);
}

/* The memory of one that is on its way out is in the same grant: there is room for one of them. With its end, what is
 * free on GPUs may have changed, or whether they are there at all. */
static void follow_worker(struct model *model)
{
    bool lingers = model->grant->n_refs > 2; /* the model's and the residency's */
    struct fault fault;

    if (lingers && manager_now_us(model->manager) - model->grant->left_us > LIMIT_LINGER_US) {
        fault_set(&fault, FAULT_MODEL_UNAVAILABLE, model->rules->name,
                  "its worker's process has not ended %u s after its link was closed, and its memory is not free",
                  (unsigned)(LIMIT_LINGER_US / 1000000));
        model_fail(model, &fault);
    } else if (lingers || residency_is_busy(model->residency))
        set_timer(model, LINGER_US);
    else if (model->gpu.layers > 0 || model->gpu.returns || model->leaves_out)
        model_measure(model);
    else
        model_start_worker(model);
}

static void forget_worker(struct model *model)
{
    if (model->worker && model->grant)
        model->grant->left_us = manager_now_us(model->manager);
    handover_forget_link(model);
    model->worker = worker_free(model->worker);
    model->n_running = model->pages_used = model->pages_kept = 0;
    model->n_drafted = model->n_accepted = 0;
}

static void let_go(struct model *model)
{
    forget_worker(model);
    model->measure = measure_free(model->measure);
    handover_forget_copies(model);
    manager_keep_shared(model);
    model->residency = residency_free(model->residency);
    model->is_kept = model->renews = false;
    model->leaves_out = model->leaves_anew = model->holds_again = false;
    if (model->grant && model->grant->left_us == 0)
        model->grant->left_us = manager_now_us(model->manager);
    model->gpu_layers_refused = 0;
    model->grant = grant_leave(model->grant);
    model->waits_for_room = model->measures_again = false;
    model_gpu_forget(model);
    manager_room_came(model->manager);
    model->kv_bytes = model->scratch_bytes = model->worker_locked_bytes = 0;
    model->bytes_done = model->bytes_lost = 0;
}

static void enter_loading(struct model *model, enum model_state from)
{
    if (from == MODEL_MAPPING) {
        model_start_worker(model);
    } else if (from == MODEL_DRAINING) {
        model->renews = false;
        forget_worker(model);
        follow_worker(model);
    } else if (from != MODEL_ABSENT) { /* there its worker runs already */
        forget_worker(model);
        set_timer(model, model_backoff_us(model->n_crashes));
    }
}

static void log_locked(const struct model *model, const char *what)
{
    char locked[UNITS_TEXT_MAX], huge[UNITS_TEXT_MAX], text[200];
    const char *by = residency_read_by(model->residency);

    if (residency_is_partial(model->residency, NULL)) {
        snprintf(text, sizeof(text), "%s, %s of it locked, the rest is read when it is needed", what,
                 units_format_size(model->worker_locked_bytes, locked));
        log_model(model, LOG_INFO, NULL, text);
        return;
    }

    snprintf(text, sizeof(text), "%s, %s of it locked, %s in 2 MiB pages%s%s%s", what,
             units_format_size(residency_locked_bytes(model->residency), locked),
             units_format_size(residency_huge_bytes(model->residency), huge),
             residency_reserved_bytes(model->residency) > 0 ? " that were reserved" : "", by ? ", read by " : "",
             by ? by : "");
    log_model(model, LOG_INFO, NULL, text);
}

static void enter_ready(struct model *model)
{
    model->ready_us = model->used_us = model->sampled_us = manager_now_us(model->manager);
    model->note[0] = 0;
    if (model->is_kept)
        log_model(model, LOG_INFO, NULL,
                  model->link_id > 0 ? "ready: its worker went on while the daemon was started anew"
                                     : "ready: its memory was kept while the daemon was started anew");
    else
        log_locked(model, "ready");
    model_used(model);
    handover_changed(model->manager);
    model_take_over(model);
    requests_pump_soon(model->manager);
}

static void enter_draining(struct model *model)
{
    stop_timer(model);
    if (model->worker)
        worker_drain(model->worker);
    else
        model_handle(model, MODEL_DRAINED);
}

static void enter_absent(struct model *model)
{
    struct fault fault;

    stop_timer(model);
    fault_set(&fault, FAULT_MODEL_UNAVAILABLE, model->rules->name, "the model was unloaded");
    let_go(model);
    requests_fail_submitted(model, &fault);
    /* Whoever asked meanwhile has it loaded again; an administrator's unload answers those who waited before. */
    model_kick(model);
    log_model(model, LOG_INFO, NULL, "absent");
}

static void enter_failed(struct model *model)
{
    stop_timer(model);
    model->failed_us = manager_now_us(model->manager);
    snprintf(model->note, sizeof(model->note), "%s",
             model->fault.reason[0] ? model->fault.reason : fault_error_name(model->fault.kind));
    let_go(model);
    requests_fail_submitted(model, &model->fault);
    if (model->successor) {
        model_take_over(model->successor);
        return;
    }
    requests_fail_held(model, &model->fault);
    if (model->predecessor)
        model_successor_failed(model);
    else if (model_is_pinned(model))
        set_timer(model, PINNED_RETRY_US);
}

void model_handle(struct model *model, enum model_event event)
{
    enum model_state from = model->state, to = model_next(from, event);

    if (to == NONE)
        return;
    model->state = to;
    switch (to) {
    case MODEL_MAPPING:
        begin_mapping(model);
        break;
    case MODEL_LOADING:
        enter_loading(model, from);
        break;
    case MODEL_READY:
        enter_ready(model);
        break;
    case MODEL_DRAINING:
        enter_draining(model);
        break;
    case MODEL_ABSENT:
        enter_absent(model);
        break;
    case MODEL_FAILED:
        enter_failed(model);
        break;
    case MODEL_STATE_MAX:
        break;
    }
    /* Entering a state may have led on to another one already; waits look at the one that it is in. */
    model_kick(model);
    manager_model_changed(model->manager);
}

/* ---- taken over from an earlier daemon ---- */

/* Something is not as it was left: everything of it goes, and it is loaded as if there had been nothing. */
static void drop_kept(struct model *model, const char *why)
{
    char text[512];

    snprintf(text, sizeof(text), "loaded anew, since what was kept is of no use: %s", why);
    log_model(model, LOG_WARNING, MESSAGE_KEPT_DROPPED, text);
    forget_worker(model);
    model->wanted = true;
    model_handle(model, MODEL_UNLOAD);
}

/* It takes requests as soon as its files were seen to be the same and its worker has answered. The daemon's own mapping
 * is locked again, and that verified, when nothing runs (model_verify()): until then the worker's lock holds the pages,
 * and the first answers have the cores for themselves. */
static void go_on_if_both(struct model *model)
{
    if (model->is_opened && model->is_answered)
        model_handle(model, MODEL_LOADED);
}

void model_take_back(struct model *model, const struct snapshot_model *kept, int link_fd, const int *copy_fds)
{
    const struct worker_adoption adoption = {
        .link_fd = link_fd, .pid = kept->pid, .uid = kept->uid, .n_threads = model->manager->n_cores};

    model->wanted = false;
    model->is_kept = true;
    model->is_opened = model->is_answered = model->is_verifying = false;
    model->link_id = link_fd >= 0 ? kept->link_id : 0;
    model->copies_id = kept->copies_id;
    model->n_copies = kept->copies_id > 0 ? kept->n_files : 0;
    model->kv_bytes = kept->kv_bytes;
    model->scratch_bytes = kept->scratch_bytes;
    /* A worker that has just died: the link is broken already. */
    if (link_fd >= 0 &&
        worker_adopt(model->manager->workers, &adoption, &worker_callbacks, model, &model->worker) < 0)
        handover_forget_link(model);
    if (model->worker)
        worker_hold(model->worker, grant_ref(model->grant), grant_unref);
    model_handle(model, MODEL_KEPT);
    if (open_files(model, kept, copy_fds) < 0)
        drop_kept(model, "out of memory or descriptors");
}

/* ---- events from below ---- */

static void on_opened(struct residency *residency, uint64_t bytes_total, void *userdata)
{
    struct model *model = userdata;

    model->bytes_total = bytes_total;
    if (!model->is_kept) {
        model_measure(model);
        return;
    }
    model->is_opened = true;
    if (model->worker)
        go_on_if_both(model);
    else
        model_start_worker(model);
}

static void on_residency_progress(struct residency *residency, uint64_t bytes_done, uint64_t bytes_total,
                                  void *userdata)
{
    struct model *model = userdata;

    model->bytes_done = bytes_done;
    model_tell_progress(model);
    manager_model_changed(model->manager);
}

static void on_loaded(struct residency *residency, void *userdata)
{
    struct model *model = userdata;

    model->bytes_done = model->bytes_total;
    model_tell_progress(model);
    if (model->is_kept) {
        model->is_kept = false;
        log_locked(model, "verified");
    }
    if (model->holds_again) {
        model->holds_again = false;
        model_start_worker(model);
        return;
    }
    if (model->leaves_out)
        model_released(model);
    model_handle(model, MODEL_MAPPED);
}

static void on_residency_failed(struct residency *residency, const struct fault *fault, void *userdata)
{
    struct model *model = userdata;
    char why[448];

    if (model->is_kept)
        drop_kept(model, fault_describe(fault, why, sizeof(why)));
    else
        model_fail(model, fault);
}

static void on_sampled(struct residency *residency, uint64_t bytes_lost, void *userdata)
{
    model_sampled(userdata, bytes_lost);
}

static const struct residency_callbacks residency_callbacks = {
    .opened = on_opened,
    .progress = on_residency_progress,
    .loaded = on_loaded,
    .sampled = on_sampled,
    .failed = on_residency_failed,
};

static void on_facts(struct worker *w, json_object *facts, void *userdata)
{
    model_take_facts(userdata, facts);
}

static void on_worker_progress(struct worker *w, uint64_t bytes_done, uint64_t bytes_total, void *userdata)
{
    struct model *model = userdata;

    if (model->state == MODEL_LOADING && model->gpu.layers > 0 && bytes_total > 0)
        snprintf(model->note, sizeof(model->note), "copies weights to GPUs: %u%%",
                 (unsigned)((double)bytes_done * 100 / (double)bytes_total));
    model_tell_progress(model);
    manager_model_changed(model->manager);
}

static void on_ready(struct worker *w, json_object *facts, void *userdata)
{
    struct model *model = userdata;

    model_take_facts(model, facts);
    if (!model->is_kept || model->state != MODEL_LOADING) {
        model_handle(model, MODEL_LOADED);
        model_release(model);
        return;
    }
    model->is_answered = true;
    go_on_if_both(model);
}

static void on_piece(struct worker *w, const struct step_piece *piece, const char *text, json_object *extra,
                     void *userdata)
{
    struct model *model = userdata;
    struct request *r = request_find(model->manager, piece->request);

    /* One that was cancelled while the piece was under way, or that is none of this model's. */
    if (r && r->model == model && r->state != REQUEST_HELD)
        request_on_piece(r, piece, text, extra);
}

/* A user has one share of the machine: what one model computed for it counts with the others, too. */
static void on_spent(struct worker *w, uid_t uid, uint64_t thread_ns, void *userdata)
{
    struct model *model = userdata;
    struct list *at, *after;

    list_foreach (at, after, &model->manager->models) {
        struct model *other = list_entry(at, struct model, entry);

        if (other != model && other->worker && other->state == MODEL_READY)
            worker_spend(other->worker, uid, thread_ns);
    }
}

static void on_step(struct worker *w, const struct packet_step *step, void *userdata)
{
    struct model *model = userdata;

    model->n_running = step->n_running;
    model->pages_used = step->pages_used;
    model->pages_total = step->pages_total;
    model->pages_kept = step->pages_kept;
    model->n_drafted += step->n_drafted;
    model->n_accepted += step->n_accepted;
}

static void on_done(struct worker *w, const struct packet_done *done, json_object *extra, void *userdata)
{
    struct model *model = userdata;
    struct request *r = request_find(model->manager, done->request);

    if (r && r->model == model && r->state != REQUEST_HELD)
        request_on_done(r, done, extra);
}

static void on_used(struct worker *w, uid_t uid, const struct packet_used *used, void *userdata)
{
    settle_used(userdata, uid, used);
}

static void on_failed(struct worker *w, uint64_t request, const struct fault *fault, void *userdata)
{
    struct model *model = userdata;
    struct fault named = *fault;
    struct request *r;

    if (request == 0 && model_gpu_plans_anew(model, fault)) {
        model_handle(model, MODEL_CRASHED);
        return;
    }
    if (request == 0) {
        model_fail(model, fault);
        return;
    }
    r = request_find(model->manager, request);
    if (!r || r->model != model || r->state == REQUEST_HELD)
        return;
    /* A worker does not know what its model is called, nor the numbers of others. */
    if (named.kind == FAULT_MODEL_INVALID || named.kind == FAULT_MODEL_UNAVAILABLE)
        fault_subject(&named, model->rules->name);
    request_fail(r, &named);
}

static void on_gpus(struct worker *w, json_object *samples, void *userdata)
{
    struct manager *m = ((struct model *)userdata)->manager;

    gpus_take_samples(&m->gpus, samples, GPUS_USED, manager_now_us(m));
}

static void on_log(struct worker *w, int level, uint64_t request, uint32_t tenant, const char *text, void *userdata)
{
    struct model *model = userdata;
    uint64_t now_us = manager_now_us(model->manager);
    struct log_fields fields = {.model = model->rules->name, .request = request, .pid = worker_pid(w),
                                .message_id = MESSAGE_WORKER_SAYS};

    if (now_us - model->lines_us > LINES_US) {
        model->lines_us = now_us;
        model->n_lines = 0;
    }
    if (++model->n_lines > LIMIT_WORKER_LINES)
        return;
    fields.has_uid = worker_tenant_uid(w, tenant, &fields.uid);
    if (model->n_lines == LIMIT_WORKER_LINES)
        text = "it says too much; its lines are left out for up to a minute";
    log_line(model->manager->log, level, &fields, "worker of %s: %s", model->rules->name, text);
}

static void on_gone(struct worker *w, const char *reason, bool expected, void *userdata)
{
    struct model *model = userdata;
    struct fault fault;

    if (expected) {
        model_handle(model, model->renews ? MODEL_RENEWED : MODEL_DRAINED);
        return;
    }
    if (model->is_kept && !model->is_opened) {
        /* Another version of the protocol, or it died with the daemon. What it used may still be the same: a new one is
         * started when that has been seen. */
        log_model(model, LOG_WARNING, MESSAGE_KEPT_DROPPED, reason);
        forget_worker(model);
        return;
    }
    /* A file that was cut short under the mapping ends its reader (SIGBUS); starting it again would not help, and
     * nobody's request is to blame. */
    if (model->residency && residency_check_files(model->residency, &fault) < 0) {
        log_model(model, LOG_ERR, MESSAGE_WORKER_ENDED, reason);
        model_fail(model, &fault);
        return;
    }
    if (worker_end(w) == WORKER_END_PAGES_LOST) {
        fault_model_invalid(&fault, FAULT_NO_OFFSET, "%s: its device fails, or it was cut short for a while",
                            reason);
        log_model(model, LOG_ERR, MESSAGE_WORKER_ENDED, reason);
        model_fail(model, &fault);
        return;
    }
    if (model->state == MODEL_READY && manager_now_us(model->manager) - model->ready_us > HEALTHY_US)
        model->n_crashes = 0;
    model->n_crashes++;
    log_model(model, LOG_ERR, MESSAGE_WORKER_ENDED, reason);
    fault_set(&fault, FAULT_MODEL_UNAVAILABLE, model->rules->name, "%s", reason);
    fault.retry_after_ms = (int64_t)(model_backoff_us(model->n_crashes) / 1000) + 1000;
    if (worker_end(w) == WORKER_END_CRASH)
        requests_blame(model);
    if (model->n_crashes >= LIMIT_CRASHES) {
        fault_set(&model->fault, FAULT_MODEL_UNAVAILABLE, model->rules->name, "%s, %u times in a row", reason,
                  model->n_crashes);
        model->fault.retry_after_ms = CRASHES_BELIEVED_US / 1000;
        model->believed_us = CRASHES_BELIEVED_US;
        model_handle(model, MODEL_CRASHED_OUT);
        return;
    }
    snprintf(model->note, sizeof(model->note), "%s; it is being started again", reason);
    model_handle(model, MODEL_CRASHED);
    requests_fail_submitted(model, &fault);
}

static const struct worker_callbacks worker_callbacks = {
    .facts = on_facts,
    .progress = on_worker_progress,
    .ready = on_ready,
    .piece = on_piece,
    .spent = on_spent,
    .step = on_step,
    .done = on_done,
    .failed = on_failed,
    .used = on_used,
    .gpus = on_gpus,
    .log = on_log,
    .gone = on_gone,
};

static int on_timer(sd_event_source *s, uint64_t now, void *userdata)
{
    struct model *model = userdata;

    switch (model->state) {
    case MODEL_LOADING:
        follow_worker(model);
        break;
    case MODEL_READY:
        log_model(model, LOG_INFO, NULL, "idle, leaves");
        model_handle(model, MODEL_UNLOAD);
        break;
    case MODEL_FAILED:
        model->n_crashes = 0;
        model_handle(model, MODEL_WANT);
        break;
    default:
        break;
    }
    return 0;
}

/* From the loop, after a change: answers to those who wait, and whether it has to come back. */
static int on_kick(sd_event_source *s, void *userdata)
{
    struct model *model = userdata;

    model_settle_waits(model);
    if (model->state == MODEL_ABSENT && !model->removed && !model->manager->stopping &&
        (model->wanted || model->reload || model->n_held > 0)) {
        model->wanted = model->reload = false;
        model_handle(model, MODEL_WANT);
    } else if (model->state == MODEL_FAILED && model->wanted) {
        /* Its rules are new ones. */
        model->wanted = false;
        model->n_crashes = 0;
        model_handle(model, MODEL_WANT);
    }
    if (model->removed && model->state == MODEL_ABSENT && list_is_empty(&model->waits)) {
        struct fault fault;

        fault_init(&fault, FAULT_NO_SUCH_MODEL, model->rules->name);
        requests_fail_held(model, &fault);
        model_free(model);
    }
    return 0;
}

/* ---- from above ---- */

struct model *model_find(struct manager *m, const char *name)
{
    struct list *at, *after;

    list_foreach (at, after, &m->models) {
        struct model *model = list_entry(at, struct model, entry);

        if (!model->removed && !model->predecessor && strcmp(model->rules->name, name) == 0)
            return model;
    }
    return NULL;
}

bool model_want(struct model *model, struct fault *reterr)
{
    uint64_t since = manager_now_us(model->manager) - model->failed_us;

    if (model->state == MODEL_FAILED) {
        if (since < model->believed_us) {
            *reterr = model->fault;
            if (reterr->kind == FAULT_MODEL_UNAVAILABLE)
                reterr->retry_after_ms = (int64_t)((model->believed_us - since) / 1000) + 1;
            return false;
        }
        model->n_crashes = 0;
    }
    if (model->state == MODEL_DRAINING)
        model->wanted = true;
    model_handle(model, MODEL_WANT);
    /* Loading may have failed on the spot. */
    if (model->state == MODEL_FAILED) {
        *reterr = model->fault;
        return false;
    }
    return true;
}

void model_load(struct model *model)
{
    if (model->state == MODEL_DRAINING)
        model->wanted = true;
    if (model->state == MODEL_FAILED)
        model->n_crashes = 0;
    model_handle(model, MODEL_WANT);
}

void model_unload(struct model *model)
{
    model->wanted = model->reload = model->renews = false;
    model_drop_successor(model);
    model_handle(model, MODEL_UNLOAD);
}

void model_verify(struct model *model)
{
    bool is_idle = model->n_submitted == 0;

    if (model->state != MODEL_READY || !model->is_kept || model->is_verifying)
        return;
    if (!is_idle && manager_now_us(model->manager) - model->ready_us < VERIFY_LATEST_US)
        return;
    model->is_verifying = true;
    if (model_release_leave_out(model) < 0 || residency_load(model->residency) < 0)
        drop_kept(model, "no thread to verify it");
}

void model_look_at_build(struct model *model)
{
    uint64_t deadline_us = model->manager->policy->upgrade_deadline_us;
    bool is_idle = model->n_submitted == 0 && model->n_held == 0;

    if (model->state != MODEL_READY || model->is_kept || model->successor || !worker_is_outdated(model->worker))
        return;
    if (!is_idle && manager_now_us(model->manager) - model->ready_us < deadline_us)
        return;
    snprintf(model->note, sizeof(model->note), "its worker is of another build and is being replaced");
    log_model(model, LOG_NOTICE, NULL, model->note);
    model->renews = true;
    model_handle(model, MODEL_RENEW);
}

void model_watch_idle(struct model *model)
{
    uint64_t idle_us = model->rules->residency.idle_us, has_been_us;

    if (model->state != MODEL_READY)
        return;
    has_been_us = manager_now_us(model->manager) - model->used_us;
    if (!model_is_pinned(model) && model->n_submitted == 0 && model->n_held == 0 && idle_us != POLICY_UNLIMITED)
        set_timer(model, has_been_us < idle_us ? idle_us - has_been_us : 0);
    else
        stop_timer(model);
}

void model_used(struct model *model)
{
    model->used_us = manager_now_us(model->manager);
    model_watch_idle(model);
}

const char *model_reason(const struct model *model)
{
    return model->note[0] && model->state != MODEL_ABSENT ? model->note : NULL;
}

int model_new(struct manager *m, struct policy *policy, const struct policy_model *rules, struct model **ret)
{
    struct model *model = calloc(1, sizeof(*model));
    struct list *at, *after;
    int r;

    if (!model)
        return -ENOMEM;
    list_init(&model->entry);
    list_init(&model->submitted);
    list_init(&model->waits);
    model->manager = m;
    model->rules_of = policy_ref(policy);
    model->rules = rules;
    r = model_collect_aliases(model);
    if (r >= 0)
        r = sd_event_add_time_relative(m->event, &model->timer, CLOCK_MONOTONIC, 0, 0, on_timer, model);
    if (r >= 0)
        r = sd_event_source_set_enabled(model->timer, SD_EVENT_OFF);
    if (r >= 0)
        r = sd_event_add_defer(m->event, &model->kick, on_kick, model);
    if (r < 0) {
        model_free(model);
        return r;
    }
    list_foreach (at, after, &m->models) {
        if (strcmp(list_entry(at, struct model, entry)->rules->name, rules->name) > 0)
            break;
    }
    list_append(at, &model->entry); /* before @at */
    model->wanted = model_is_pinned(model);
    *ret = model;
    return 0;
}

struct model *model_free(struct model *model)
{
    if (!model)
        return NULL;
    list_remove(&model->entry);
    if (model->successor)
        model->successor->predecessor = NULL;
    if (model->predecessor)
        model->predecessor->successor = NULL;
    model_abandon_waits(model);
    sd_event_source_disable_unref(model->timer);
    sd_event_source_disable_unref(model->kick);
    worker_free(model->worker);
    measure_free(model->measure);
    plan_shape_done(&model->shape);
    residency_free(model->residency);
    model_gpu_forget(model);
    grant_leave(model->grant);
    free(model->architecture);
    free(model->quantization);
    free(model->aliases);
    policy_unref(model->rules_of);
    policy_unref(model->loaded_of);
    free(model);
    return NULL;
}
