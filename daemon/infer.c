/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An answer on its way from the model to the client. With `more` each step's text becomes a piece, and whatever the
 * request waits for (a place in the queue, the model's loading) becomes an empty one. Without, all of it is kept and
 * becomes one reply.
 *
 * Every piece has request, text and done, because the interface says so; what else the worker sends along (logprobs,
 * reasoning, tool_calls) keeps its name. Members of the worker never replace ours.
 */
#include "daemon/infer.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/json-build.h"
#include "base/json.h"
#include "client/varlink/frame.h"

enum { WAITING_PIECES_US = 250 * 1000 /* a queue that moves in every step is told four times a second */ };

struct infer {
    struct call *call;
    struct request *request;
    bool has_queue, has_progress; /* what the next empty piece says */
    int64_t queue_position, queue_eta_ms;
    uint64_t bytes_done, bytes_total;
    uint64_t told_us; /* when that was last said */

    /* Without `more`: what has come so far. */
    char *text;
    size_t n_text, n_room;
    json_object *extra;
    bool is_lost; /* too large for one reply, or for memory */
};

static void infer_free(struct infer *f)
{
    if (f->text)
        explicit_bzero(f->text, f->n_room);
    free(f->text);
    json_object_put(f->extra);
    free(f);
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* ---- pieces ---- */

/* Copies, because the reply is overwritten once it is sent and @from stays its owner's. */
static bool add_members(json_object *to, json_object *from)
{
    if (!from)
        return true;
    json_object_object_foreach (from, key, value) {
        json_object *copy = NULL;

        if (!value || json_object_object_get_ex(to, key, NULL))
            continue;
        if (json_object_deep_copy(value, &copy, NULL) < 0 || !add_take(to, key, copy))
            return false;
    }
    return true;
}

static json_object *queue_to_json(const struct infer *f)
{
    _cleanup_json_ json_object *o = json_object_new_object();

    if (!o || !add_int(o, "position", f->queue_position) ||
        !add_count_if(o, f->queue_eta_ms >= 0, "eta_ms", (uint64_t)f->queue_eta_ms))
        return NULL;
    return TAKE_PTR(o);
}

static json_object *progress_to_json(const struct infer *f)
{
    _cleanup_json_ json_object *o = json_object_new_object();

    if (!o || !add_count(o, "bytes_done", f->bytes_done) || !add_count(o, "bytes_total", f->bytes_total))
        return NULL;
    return TAKE_PTR(o);
}

json_object *infer_usage(const struct request_usage *u)
{
    _cleanup_json_ json_object *o = json_object_new_object();

    if (!o || !add_count(o, "prompt_tokens", u->prompt_tokens) ||
        !add_count(o, "cached_tokens", u->cached_tokens) ||
        !add_count(o, "output_tokens", u->output_tokens) || !add_count(o, "queue_ms", u->queue_ms) ||
        !add_count(o, "prefill_ms", u->prefill_ms) || !add_count(o, "decode_ms", u->decode_ms))
        return NULL;
    return TAKE_PTR(o);
}

/* NULL when memory is short. */
static json_object *piece_to_json(const struct infer *f, const char *text, size_t n, bool done,
                                  json_object *extra)
{
    _cleanup_json_ json_object *o = json_object_new_object();

    if (n > FRAME_BYTES_MAX || !o || !add_count(o, "request", request_id(f->request)) ||
        !add_take(o, "text", json_object_new_string_len(text, (int)n)) || !add_bool(o, "done", done) ||
        !add_members(o, extra))
        return NULL;
    return TAKE_PTR(o);
}

static void say_waiting(void *data)
{
    struct infer *f = data;
    _cleanup_json_ json_object *o = NULL;
    bool ok;

    if (call_is_slow(f->call))
        return;
    f->told_us = now_us();
    o = piece_to_json(f, "", 0, /* done= */ false, NULL);
    ok = o && (!f->has_queue || add_take(o, "queue", queue_to_json(f))) &&
         (!f->has_progress || add_take(o, "loading", progress_to_json(f)));
    call_continue_take(f->call, ok ? TAKE_PTR(o) : NULL);
}

static void tell_waiting(struct infer *f)
{
    if (call_more(f->call) && now_us() - f->told_us >= WAITING_PIECES_US)
        say_waiting(f);
}

/* ---- without `more` ---- */

static int keep_text(struct infer *f, const char *text, size_t n)
{
    if (n > FRAME_BYTES_MAX - f->n_text)
        return -EMSGSIZE;
    if (f->n_text + n > f->n_room) {
        size_t n_room = 2 * (f->n_text + n) + 256;
        char *room = malloc(n_room);

        if (!room)
            return -ENOMEM;
        if (f->n_text > 0)
            memcpy(room, f->text, f->n_text);
        if (f->text)
            explicit_bzero(f->text, f->n_room);
        free(f->text);
        f->text = room;
        f->n_room = n_room;
    }
    if (n > 0)
        memcpy(f->text + f->n_text, text, n);
    f->n_text += n;
    return 0;
}

/* Lists grow, texts grow, anything else is replaced. */
static int keep_member(struct infer *f, const char *key, json_object *value)
{
    json_object *kept = json_object_object_get(f->extra, key), *copy = NULL;

    if (kept && json_object_is_type(kept, json_type_array) && json_object_is_type(value, json_type_array)) {
        for (size_t i = 0, n = json_object_array_length(value); i < n; i++, copy = NULL)
            if (json_object_deep_copy(json_object_array_get_idx(value, i), &copy, NULL) < 0 ||
                !append_take(kept, copy))
                return -ENOMEM;
        return 0;
    }
    if (kept && json_object_is_type(kept, json_type_string) && json_object_is_type(value, json_type_string)) {
        size_t n_old = (size_t)json_object_get_string_len(kept),
               n_new = (size_t)json_object_get_string_len(value);
        _cleanup_free_ char *both = malloc(n_old + n_new + 1);

        if (!both || n_old + n_new > FRAME_BYTES_MAX)
            return -ENOMEM;
        memcpy(both, json_object_get_string(kept), n_old);
        memcpy(both + n_old, json_object_get_string(value), n_new);
        return json_object_set_string_len(kept, both, (int)(n_old + n_new)) ? 0 : -ENOMEM;
    }
    if (json_object_deep_copy(value, &copy, NULL) < 0)
        return -ENOMEM;
    return add_take(f->extra, key, copy) ? 0 : -ENOMEM;
}

static int keep_extra(struct infer *f, json_object *extra)
{
    int r = 0;

    if (!extra)
        return 0;
    if (!f->extra)
        f->extra = json_object_new_object();
    if (!f->extra)
        return -ENOMEM;
    json_object_object_foreach (extra, key, value) {
        if (value && r == 0)
            r = keep_member(f, key, value);
    }
    return r;
}

/* ---- what the request says ---- */

static void on_piece(struct request *r, const char *text, size_t n, struct json_object *extra, void *userdata)
{
    struct infer *f = userdata;

    f->has_queue = f->has_progress = false;
    if (call_more(f->call)) {
        call_continue_take(f->call, piece_to_json(f, text, n, /* done= */ false, extra));
        /* The service computes no faster than the client reads: what waits is bounded, and others get the time. */
        if (call_is_slow(f->call))
            request_pause(f->request, true);
        return;
    }
    if (f->is_lost || keep_text(f, text, n) < 0 || keep_extra(f, extra) < 0)
        f->is_lost = true;
}

static void on_queue(struct request *r, int64_t position, int64_t eta_ms, void *userdata)
{
    struct infer *f = userdata;

    f->has_queue = true;
    f->has_progress = false;
    f->queue_position = position;
    f->queue_eta_ms = eta_ms;
    tell_waiting(f);
}

static void on_progress(struct request *r, uint64_t done, uint64_t total, void *userdata)
{
    struct infer *f = userdata;

    f->has_progress = true;
    f->bytes_done = done;
    f->bytes_total = total;
    tell_waiting(f);
}

static json_object *result_to_json(struct infer *f, const struct request_result *result)
{
    _cleanup_json_ json_object *o = NULL;

    if (call_more(f->call)) {
        o = piece_to_json(f, "", 0, /* done= */ true, result->extra);
    } else {
        if (keep_extra(f, result->extra) < 0)
            return NULL;
        o = piece_to_json(f, f->text ? f->text : "", f->n_text, /* done= */ true, f->extra);
    }
    if (!o || !add_text_if(o, "finish", result->finish) ||
        !add_take(o, "usage", infer_usage(&result->usage)))
        return NULL;
    return TAKE_PTR(o);
}

static void on_done(struct request *r, const struct request_result *result, void *userdata)
{
    struct infer *f = userdata;

    if (f->is_lost) {
        struct fault fault;

        fault_init(&fault, FAULT_INSUFFICIENT_MEMORY, "ram");
        fault.used = fault.limit = (int64_t)FRAME_BYTES_MAX;
        call_fail(f->call, &fault);
    } else {
        call_reply_take(f->call, result_to_json(f, result));
    }
    infer_free(f);
}

static void on_failed(struct request *r, const struct fault *fault, void *userdata)
{
    struct infer *f = userdata;

    call_fail(f->call, fault);
    infer_free(f);
}

static const struct request_callbacks callbacks = {
    .piece = on_piece, .queue = on_queue, .progress = on_progress, .done = on_done, .failed = on_failed};

/* ---- what the session says ---- */

static void cancel(void *data)
{
    struct infer *f = data;

    request_cancel(f->request);
    infer_free(f);
}

static void drained(void *data)
{
    struct infer *f = data;

    request_pause(f->request, false);
}

static const struct call_ops ops = {.cancel = cancel, .heartbeat = say_waiting, .drained = drained};

void infer_request(struct call *call, enum request_kind kind, struct request_params *ret)
{
    json_object *parameters = call_parameters(call), *value;

    *ret = (struct request_params){
        .kind = kind,
        .model = call_string(call, "model"),
        .parameters = parameters,
        .subject = call_subject(call),
        .app = call_string(call, "app"),
        .unit = call_unit(call),
    };
    if (json_object_object_get_ex(parameters, "priority", &value)) {
        ret->has_priority = true;
        ret->priority = json_object_get_int(value);
    }
    if (json_object_object_get_ex(parameters, "deadline_ms", &value))
        ret->deadline_ms = json_object_get_int64(value);
}

int infer_start(struct call *call, enum request_kind kind, struct fault *reterr_fault)
{
    struct request_params params;
    struct infer *f;
    int r;

    r = infer_check(call_parameters(call), reterr_fault);
    if (r != 0)
        return r;
    infer_request(call, kind, &params);
    call_note(call, params.model, 0);
    f = calloc(1, sizeof(*f));
    if (!f)
        return -ENOMEM;
    f->call = call;
    r = request_start(call_manager(call), &params, &callbacks, f, &f->request, reterr_fault);
    if (r != 0) {
        infer_free(f);
        return r < 0 ? r : CALL_REFUSED;
    }
    call_note(call, params.model, request_id(f->request));
    call_begin(call, &ops, f);
    return 0;
}
