/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One call that a model has to answer, from admission to its last piece. The border between the daemon's front
 * (sessions and methods) and its back (models and workers): a method hands in parameters and gets callbacks.
 *
 *      request_start()                                     request_cancel(), connection gone
 *   ──────────────► HELD ──────► RUNNING ──► DONE          ┌────────────────► CANCELLED
 *                     │             ├─────► FAILED  (any live state)
 *                     └─ the model is not ready, or the user's own `concurrent` requests are
 *
 * Everything happens in the event loop's thread. Callbacks come from the loop only, never from inside a function of
 * this header; exactly one of done and failed ends a request that was not cancelled by request_cancel().
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/fault.h"
#include "policy/policy.h"

struct json_object;
struct manager;
struct request;

enum request_kind {
    REQUEST_COMPLETE,
    REQUEST_CHAT,
    REQUEST_EMBED,
    REQUEST_TOKENIZE,
    REQUEST_DETOKENIZE,
    REQUEST_KIND_MAX,
};

enum request_state {
    REQUEST_HELD,    /* waits for the model, or for the user's own other requests */
    REQUEST_QUEUED,  /* the worker has it, nothing came back yet */
    REQUEST_RUNNING, /* the worker has begun */
    REQUEST_STATE_MAX,
};

struct request_usage {
    uint64_t prompt_tokens, cached_tokens, output_tokens;
    uint64_t queue_ms, prefill_ms, decode_ms;
};

struct request_result {
    const char *finish; /* a value of the interface's Finish: "stop", "length", … */
    struct request_usage usage;
    struct json_object *extra; /* what the reply carries besides: tokens, text, bytes, embeddings, tool_calls, … under
                                  the interface's names; borrowed for the callback, may be NULL */
};

/* All optional but done and failed. @r is valid in each, and gone when done or failed returns. */
struct request_callbacks {
    /* New text (whole UTF-8, may be empty) and what goes with it (logprobs, reasoning, …; may be NULL, borrowed). */
    void (*piece)(struct request *r, const char *text, size_t n_bytes, struct json_object *extra, void *userdata);
    /* The request waits: how many are before it, and for how long; eta_ms < 0: unknown. */
    void (*queue)(struct request *r, int64_t position, int64_t eta_ms, void *userdata);
    /* The model is being loaded. */
    void (*progress)(struct request *r, uint64_t bytes_done, uint64_t bytes_total, void *userdata);
    void (*done)(struct request *r, const struct request_result *result, void *userdata);
    void (*failed)(struct request *r, const struct fault *fault, void *userdata);
};

struct request_params {
    enum request_kind kind;
    const char *model; /* name or alias, as the client wrote it */
    struct json_object *parameters; /* the call's, checked against the interface; borrowed for the call. The members
                                       model, app, priority and deadline_ms are not passed on to the worker */
    const struct policy_subject *subject; /* borrowed until the request's end */
    const char *app;  /* may be NULL; copied */
    const char *unit; /* likewise */
    bool has_priority;
    int32_t priority;
    int64_t deadline_ms; /* from now, 0: none */
};

enum { REQUEST_REFUSED = 1 };

/**
 * request_start() - admit a call: the model exists, the caller may use it, and the caller's quotas have room
 * Starts loading a model that is not there. Defaults and limits of the policy are applied to the parameters here.
 * @callbacks:    borrowed until the request's end (a const table)
 * @ret:          the request, owned by @m; forget the pointer when done or failed has been called
 * @reterr_fault: why not: NoSuchModel, NotAllowed, QuotaExceeded, QueueFull, ModelUnavailable, InvalidParameter, …
 * Returns 0; REQUEST_REFUSED (with the fault); -ENOMEM.
 */
int request_start(struct manager *m, const struct request_params *params, const struct request_callbacks *callbacks,
                  void *userdata, struct request **ret, struct fault *reterr_fault);

/**
 * request_cancel() - the caller is gone: stop the work; no callback comes any more, @r is gone on return
 * Takes NULL and returns NULL.
 */
struct request *request_cancel(struct request *r);

/**
 * request_pause() - the reader is slow (or, without @pause, has caught up): nothing more is computed for it meanwhile
 * What is on its way already still comes. May be called from callbacks.
 */
void request_pause(struct request *r, bool pause);

/**
 * request_id() - the number that the first piece carries and ps, journal and Cancel know
 */
uint64_t request_id(const struct request *r);

/**
 * request_model() - the name of the model (aliases resolved); lives as long as the request
 */
const char *request_model(const struct request *r);

/**
 * request_state_to_string() - "held", "queued", "running"
 */
const char *request_state_to_string(enum request_state state);

/* One line of Usage.Requests and Models.Watch. Strings are borrowed until control goes back to the event loop. */
struct request_status {
    uint64_t request;
    uid_t uid;
    const char *app, *unit; /* NULL: none */
    const char *model;
    enum request_state state;
    uint64_t prompt_tokens, output_tokens;
    double decode_tps;      /* tokens a second since the first ones; 0: there are no others yet */
    int64_t queue_position; /* -1: unknown or running */
    int64_t eta_ms;         /* -1: unknown */
};
