/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The insides of the daemon's back half: what manager.c, model.c, request.c and status.c share. The front (sessions,
 * methods) includes manager.h, model.h and request.h instead.
 *
 * Ownership: manager → models → (residency, worker); manager → requests, each on one model's list. A request is held
 * by the manager, not by who started it; request_cancel() and the last callback end it.
 */

#include <systemd/sd-event.h>

#include "base/list.h"
#include "daemon/account.h"
#include "daemon/blame.h"
#include "daemon/gpus.h"
#include "daemon/grant.h"
#include "daemon/handover.h"
#include "daemon/ledger.h"
#include "daemon/look.h"
#include "daemon/manager-gpu.h"
#include "daemon/manager-room.h"
#include "daemon/manager.h"
#include "daemon/measure.h"
#include "daemon/model.h"
#include "daemon/quota.h"
#include "daemon/request.h"
#include "daemon/residency.h"
#include "daemon/totals.h"
#include "daemon/worker.h"
#include "policy/plan.h"
#include "policy/policy.h"

#define REQUEST_BUCKETS 1024
#define MODEL_CAPABILITIES_MAX 6

struct manager {
    sd_event *event;
    const struct log *log;
    struct policy *policy;
    char **policy_paths; /* [n_policy_paths] */
    size_t n_policy_paths;
    char *worker_path;
    char *pressure_path; /* NULL: the kernel says nothing of it */
    bool may_exceed_budget; /* what is in memory, a smaller one of a new policy */
    bool under_pressure;  /* at the last tick: caches were given back */
    uid_t own_uid;
    uint32_t n_cores;
    uint64_t ram_total_bytes;
    double read_gbps; /* of its memory, the most that a worker has measured; 0: none has */
    struct gpus gpus;
    struct look *look;         /* a worker that looks for them, and then watches them; NULL: none */
    bool has_looked;           /* … which it has done: now it watches */
    uint64_t look_at_us;       /* when one looks again, since something is missing; 0: never */
    uint64_t look_interval_us; /* how long that was waited for */
    uint64_t look_well_us;     /* since when nothing is missing; 0: something is */
    bool stopping;
    bool said_ready;
    uint64_t start_bytes_done; /* until then: read of models, at the last tick */
    bool recheck; /* the policy has changed: look at held requests again */
    bool listening;
    struct reload *reload;
    void (*reloaded)(void *userdata); /* of manager_set_reloaded() */
    void *reloaded_userdata;
    bool (*is_connected)(void *userdata); /* of manager_set_stopping() */
    void *is_connected_userdata;
    struct nss *nss; /* of manager_set_nss(); NULL: nobody to ask */

    struct accounts *accounts;
    struct accounts *group_accounts; /* by gid: of groups with a total */
    struct quotas *quotas;
    struct ledger *ledger;
    int64_t day_s, next_day_s; /* the day as of the last time that it was asked for */
    struct residencies *residencies;
    struct workers *workers;
    uint64_t epoch; /* of the links to all of them */
    struct handover *handover;
    struct list models; /* of struct model, sorted by name */
    struct grants grants; /* of the budget: theirs, and of those that are not quite gone */
    struct blame *blame;
    struct list shared; /* of struct shared: copies of those that left, which other programs have */
    struct list requests[REQUEST_BUCKETS]; /* of struct request, by id */
    struct list held;   /* of struct request, in order of arrival */
    struct list settling; /* of settle.c */
    struct list ending; /* of struct request: those that are written into the ledger */
    uint64_t next_request;
    size_t n_requests, n_plans;

    sd_event_source *pump;   /* defer: hand held requests on */
    sd_event_source *late;   /* time: the earliest deadline of a held request */
    sd_event_source *room;   /* defer: those that wait for room ask again */
    sd_event_source *tick;   /* time: news for those who wait */
    struct list watches;     /* of struct watch */
    sd_event_source *watch_timer; /* made with the first of them */
    uint64_t watched_us;     /* when they last heard */
    sd_event_source *sigterm, *sigint, *sighup, *stop_timer;
};

enum model_event {
    MODEL_WANT,        /* a request, a pin or an administrator */
    MODEL_MAPPED,      /* the files are in memory */
    MODEL_LOADED,      /* the worker is ready */
    MODEL_FAULT,       /* it can't work: the file, the budget, the limits */
    MODEL_CRASHED,     /* the worker ended by itself */
    MODEL_CRASHED_OUT, /* … once too often */
    MODEL_UNLOAD,      /* an administrator, the policy, idleness or the budget */
    MODEL_DRAINED,     /* the worker ended as it was told */
    MODEL_KEPT,        /* an earlier daemon left its worker running */
    MODEL_RENEW,       /* that worker is of another build: one of this build is to take its place */
    MODEL_RENEWED,     /* it ended as it was told, to be followed */
    MODEL_EVENT_MAX,
};

/* Whether it is kept in memory: as the policy says, or as an administrator said since it was read. */
enum model_pin { PIN_BY_POLICY, PIN_ON, PIN_OFF };

struct model {
    struct manager *manager;
    struct list entry;
    struct policy *rules_of; /* a reference: the policy that @rules lies in */
    const struct policy_model *rules;
    struct policy *loaded_of; /* the same for what it was loaded with; NULL before the first time */
    const struct policy_model *loaded;
    struct model *successor, *predecessor; /* see model-update.c; both NULL but while it is being replaced */
    enum model_pin pin;
    enum model_state state;
    bool removed;  /* the policy has it no more: goes when it is absent and nobody holds it */
    bool reload;   /* absent is followed by loading again (the policy changed what it is loaded with) */
    bool wanted;   /* the same, because somebody asked while it was draining */

    struct residency *residency;
    struct measure *measure; /* while a worker reads what it takes */
    struct plan_shape shape; /* what one said; no layers: nothing yet */
    struct grant *grant;     /* of the budget; of nothing until there is room */
    bool waits_for_room;
    bool measures_again; /* … since what is free on GPUs has to be seen anew then */
    struct model_gpu gpu;
    bool leaves_out;  /* its residency was told what GPUs have, or will */
    bool leaves_anew; /* … and its worker says that it is something else */
    uint32_t gpu_layers_refused; /* so many were planned, and fewer fitted, which left too much for RAM; 0: none */
    bool holds_again; /* LOADING: its worker starts when the residency holds all of it again */
    struct worker *worker;
    bool is_kept;  /* taken over from an earlier daemon, and its memory is not verified yet */
    bool is_opened, is_answered; /* of one taken over: its files are the same still; the worker has answered */
    bool is_verifying; /* the thread that locks and verifies it has begun */
    bool renews;   /* DRAINING leads to a new worker, not to absence */
    uint64_t link_id, copies_id; /* the names under which handover.c had link and copies kept, 0: it has not */
    size_t n_copies;
    struct fault fault;     /* of FAILED */
    char note[512];         /* what status says as reason; "" none */
    uint64_t failed_us;     /* when it failed … */
    uint64_t believed_us;   /* … and for how long nobody tries again */
    uint64_t ready_us, used_us;
    unsigned n_crashes;     /* in a row */
    unsigned n_lines;       /* that its workers logged since … */
    uint64_t lines_us;
    uint64_t bytes_done, bytes_total;
    uint64_t sampled_us, bytes_lost; /* when it was last looked at, and what was not held any more */

    struct list submitted;  /* of struct request */
    size_t n_submitted, n_held;
    double first_ms, token_ms, n_said; /* lately: to the first token, to each next one, tokens in all; 0: unknown */
    struct list waits;      /* of struct model_wait */
    sd_event_source *timer; /* back-off, retry of a pinned model, idleness: whichever the state has */
    sd_event_source *kick;  /* defer: WANT after absent, and what waits that are settled at once */

    /* from the worker's facts */
    char *architecture, *quantization;
    uint64_t n_parameters, context_tokens, n_drafted, n_accepted; /* the last two: tokens, of this worker */
    uint64_t kv_bytes, scratch_bytes, worker_locked_bytes; /* planned until the worker is ready */
    uint64_t kv_page_bytes, page_tokens; /* 0: the worker has not said so */
    const char *capabilities[MODEL_CAPABILITIES_MAX]; /* [n_capabilities] static texts */
    size_t n_capabilities;
    uint32_t n_running, pages_used, pages_total, pages_kept;
    struct model_counters counters; /* since the start of the daemon */
    const char **aliases; /* [n_aliases] borrowed from the policy; made anew at reload */
    size_t n_aliases;
};

struct request {
    struct manager *manager;
    struct list by_id, by_model, by_held; /* the last: of those that end, too */
    struct model *model;
    uint64_t id;
    enum request_kind kind;
    enum request_state state;
    bool ended;
    bool told; /* that it waits */
    bool paused; /* its reader is slow */
    const char *cancelled; /* why it is to end with Cancelled; a static text, NULL: it is not */
    const struct request_callbacks *callbacks; /* NULL: the caller is gone, and the worker has still to say so */
    void *userdata;
    struct policy_subject subject; /* arrays borrowed from the caller */
    char *app, *unit;
    int32_t priority;
    uint32_t weight;
    uint32_t tenant_class, class_weight; /* policy_class_for() */
    uint64_t kv_max_bytes, concurrent_max, context_max; /* of the user's quota; POLICY_UNLIMITED: any */
    uint64_t quota_max;   /* tokens of prompt and answer that fit into the quotas over time at all */
    uint64_t output_max;  /* tokens that the answer may have at most, as far as is known */
    uint64_t n_prompt;    /* tokens of the prompt, if it came as tokens; else 0 */
    uint64_t deadline_ns; /* CLOCK_MONOTONIC */
    char *parameters;     /* JSON text until it is submitted; zeroed before it is freed */
    size_t n_parameters;
    struct account_charge charge, kv;
    struct totals totals;
    struct quota_hold quota;
    int64_t day, hour;     /* in which it was admitted (calendar.h) */
    struct request_ending *ending; /* while it is written into the ledger; see request-end.c */
    uint64_t started_us;   /* CLOCK_MONOTONIC */
    uint64_t submitted_us; /* 0: not yet */
    uint64_t prompt_tokens, output_tokens;
    int64_t queue_position, eta_ms;
    uint64_t first_us, n_first; /* when the first tokens came, 0: none have; and how many those were */
};

/* ---- manager.c ---- */

/* The set of working models or their number changed: cores are handed out anew. */
void manager_share_cores(struct manager *m);

/* What reload.h has read: in force from now on, or logged and dropped. Returns 0 and the keys that differ;
 * REQUEST_REFUSED: @fault says why; a negative errno. */
int manager_take_policy(struct manager *m, int result, struct policy *p_take, const struct fault *fault,
                        struct json_object **ret_changed);

/* A model changed its state: READY= and STATUS= for systemd. */
void manager_model_changed(struct manager *m);

/* ---- manager-share.c ---- */

/* At each tick: memory that other programs kept, and have let go. */
void manager_look_at_shared(struct manager *m);

/* Before a model's residency is released: what other programs have of it stays in the budget. */
void manager_keep_shared(struct model *model);

/* Who waits or runs, or how far they are, has changed: news for those who watch. */
void manager_requests_changed(struct manager *m);

/* A request is gone; after SIGTERM the last one is waited for. */
void manager_request_ended(struct manager *m);

uint64_t manager_now_us(const struct manager *m);

/* ---- usage.c ---- */

/* The time, as quotas want it. */
struct quota_time manager_quota_time(struct manager *m);

/* Opens the ledger in @dir (NULL: none) and takes over what it knows of the day. Returns 0 or a negative errno. */
int manager_open_ledger(struct manager *m, const char *dir);

#include "daemon/model-internal.h"
#include "daemon/request-internal.h"
