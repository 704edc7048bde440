/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One connection. Everything runs in the event loop's thread.
 *
 *   NAMING ──NSS knows the uid──► OPEN ──an error that ends it, or end of file──► FLUSHING ──written──► ended
 *      └──────nobody, or a refusal────► REFUSING ──the first call is answered──────────┘
 *
 * Rules that the code below leans on:
 *   1. One call runs at a time. While it runs nothing is read, so what a client sends ahead stays in its own socket
 *      buffer; at most one bufferful was read with the call before, and its whole frames are charged as queued.
 *   2. Replies are only queued by handlers and written from the loop, in on_work(); a call's memory goes there too. So
 *      nothing that a handler calls can free the call or the session.
 *   3. The session ends in exactly one place: the loop's handlers return through finish(), which looks at `dead`.
 *   4. A hang-up (both directions gone) cancels the call at once; an end of file alone (half-close) lets it finish.
 *   5. Frames and texts of calls are overwritten after use.
 *
 * A client that does not read is first given no new call (LIMIT_UNREAD_BYTES_PAUSE; streams ask call_is_slow()) and
 * then dropped (LIMIT_UNREAD_BYTES_DROP, LIMIT_UNREAD_US). While descriptors wait to be sent it gets no new call,
 * either.
 *
 * It is one file, since rules 1 to 4 hold between all its halves: who reads, who answers and who ends decide together.
 */
#include "daemon/session.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "base/json.h"
#include "client/varlink/frame.h"
#include "daemon/limits.h"
#include "daemon/messages.h"
#include "daemon/totals.h"

enum session_state { SESSION_NAMING, SESSION_OPEN, SESSION_REFUSING, SESSION_FLUSHING };

struct call {
    struct session *session;
    const struct method *method; /* NULL: the name was not known */
    const char *name;            /* as the client wrote it; never logged */
    json_object *message;        /* owns parameters */
    json_object *parameters;
    bool more, oneway;
    bool answered;
    const struct call_ops *ops; /* set while something runs for the call */
    void *data;
    uint64_t begin_us;
    bool sent; /* something since the last heartbeat */
    const char *note_model;
    uint64_t note_request;
};

struct session {
    struct session_host host;
    enum session_state state;
    int fd;
    struct identity identity;
    struct policy_subject subject; /* of identity; for the running call */
    struct account_charge connection, bytes, fds, queued;
    struct totals totals; /* the connection, in the accounts of the user's groups */
    struct nss_query *naming;
    struct fault refusal;

    sd_event_source *io, *work; /* work: a deferred source that flushes and goes on */
    sd_event_source *frame_timer, *unread_timer, *heartbeat;
    struct frame_reader in;
    struct frame_writer out;
    const int *reply_fds; /* [n_reply_fds] of the reply that is being made */
    size_t n_reply_fds;
    bool eof;                    /* the client sends no more */
    bool slow;                   /* more than LIMIT_UNREAD_BYTES_PAUSE waited, and has not gone yet */
    bool dead;                   /* to be ended by the next handler that returns */
    size_t n_waiting, n_refused; /* whole frames in the buffer: charged as queued, and beyond the quota */
    bool has_call;
    struct call call;
};

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void session_log(const struct session *s, int level, const char *message_id, const char *text)
{
    const struct log_fields fields = {
        .has_uid = true, .uid = s->identity.uid, .pid = s->identity.pid, .message_id = message_id};

    log_line(manager_log(s->host.manager), level, &fields, "%s", text);
}

/* From anywhere; the session is gone once the loop has control again. */
static void session_drop(struct session *s, const char *why)
{
    if (s->dead)
        return;
    s->dead = true;
    session_log(s, LOG_NOTICE, NULL, why);
    (void)sd_event_source_set_enabled(s->work, SD_EVENT_ONESHOT);
}

static void session_kick(struct session *s)
{
    if (sd_event_source_set_enabled(s->work, SD_EVENT_ONESHOT) < 0)
        s->dead = true;
}

/* What the user may hold of a pool at most. */
static uint64_t share_of(const struct session *s, enum account_slot slot, uint64_t pool, uint64_t max)
{
    uint64_t share = account_share(manager_accounts(s->host.manager), s->identity.uid, slot, pool);

    return share < max ? share : max;
}

/* What is buffered, counted against the user. Shrinking always works. */
static int charge_bytes(struct session *s)
{
    uint64_t amount = LIMIT_SESSION_BYTES + s->in.size + s->out.n_bytes;

    /* The share is only asked for when more is wanted: it looks at everybody. */
    return account_resize(&s->bytes, amount,
                          amount > s->bytes.amount ? share_of(s, ACCOUNT_BYTES, LIMIT_BYTES, LIMIT_BYTES_PER_UID) : 0);
}

/* Descriptors that nobody has taken yet. */
static int charge_fds(struct session *s)
{
    if (s->fds.account)
        return account_resize(&s->fds, s->in.n_fds, share_of(s, ACCOUNT_FDS, LIMIT_FDS, LIMIT_FDS_PER_UID));
    if (s->in.n_fds == 0)
        return 0;
    return account_charge(manager_accounts(s->host.manager), s->identity.uid, ACCOUNT_FDS, s->in.n_fds,
                          share_of(s, ACCOUNT_FDS, LIMIT_FDS, LIMIT_FDS_PER_UID), &s->fds);
}

/* ---- overwriting ---- */

static void wipe_text(const char *text, size_t n)
{
    if (text && n > 0)
        explicit_bzero((char *)text, n);
}

/* Strings inside of a value that nobody else refers to. The depth was bounded when it was parsed or built. */
static void wipe_value(json_object *value)
{
    switch (json_object_get_type(value)) {
    case json_type_string:
        wipe_text(json_object_get_string(value), (size_t)json_object_get_string_len(value));
        break;
    case json_type_array:
        for (size_t i = 0, n = json_object_array_length(value); i < n; i++)
            wipe_value(json_object_array_get_idx(value, i));
        break;
    case json_type_object: {
        json_object_object_foreach (value, key, inner) {
            (void)key;
            wipe_value(inner);
        }
        break;
    }
    default:
        break;
    }
}

static void wipe_and_free(json_object *value)
{
    wipe_value(value);
    json_object_put(value);
}

/* ---- out ---- */

/* With the descriptors of call_reply_fds_take(), which are the writer's from here on. */
static int push_reply(struct session *s, const char *text, size_t n)
{
    size_t n_fds = s->n_reply_fds;

    s->n_reply_fds = 0;
    return frame_writer_push_fds(&s->out, text, n, s->reply_fds, n_fds);
}

static void send_object(struct session *s, json_object *message)
{
    size_t n = 0;
    const char *text;

    if (s->call.oneway || s->dead) {
        wipe_and_free(message);
        return;
    }
    if (s->out.n_bytes > LIMIT_UNREAD_BYTES_DROP) {
        wipe_and_free(message);
        session_drop(s, "Connection dropped: the client does not read its replies");
        return;
    }
    text = json_object_to_json_string_length(message, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE,
                                             &n);
    if (!text || push_reply(s, text, n) < 0)
        session_drop(s, "Connection dropped: no memory for a reply, or a reply too large");
    wipe_text(text, n);
    wipe_and_free(message);
    if (charge_bytes(s) != 0)
        session_drop(s, "Connection dropped: too many bytes are buffered for this user");
    s->slow |= s->out.n_bytes > LIMIT_UNREAD_BYTES_PAUSE;
    s->call.sent = true;
    session_kick(s);
}

/* {"parameters": …, "continues": true}, or with an error's name in front. */
static void send_message_take(struct session *s, const char *error, json_object *parameters, bool continues)
{
    _cleanup_json_ json_object *message = json_object_new_object();
    bool ok = message && parameters;

    if (ok && error)
        ok = json_object_object_add(message, "error", json_object_new_string(error)) == 0;
    if (ok)
        ok = json_object_object_add(message, "parameters", json_object_get(parameters)) == 0;
    if (ok && continues)
        ok = json_object_object_add(message, "continues", json_object_new_boolean(true)) == 0;
    json_object_put(parameters);
    if (!ok) {
        session_drop(s, "Connection dropped: no memory for a reply");
        return;
    }
    send_object(s, TAKE_PTR(message));
}

static void send_fault(struct session *s, const struct fault *fault)
{
    json_object *parameters = NULL;

    if (fault_to_json(fault, &parameters) < 0) {
        session_drop(s, "Connection dropped: no memory for an error");
        return;
    }
    send_message_take(s, fault_error_name(fault->kind), parameters, /* continues= */ false);
}

/* ---- the call ---- */

/* What becomes of a request is logged at its end by request.c, with its numbers; here only that it was refused. */
static void call_log(const struct call *call, const char *result)
{
    const struct session *s = call->session;
    const struct log_fields fields = {.model = call->note_model,
                                      .request = call->note_request,
                                      .has_uid = true,
                                      .uid = s->identity.uid,
                                      .pid = s->identity.pid};
    int level = call->method && !call->method->quiet && call->note_request == 0 ? LOG_INFO : LOG_DEBUG;

    log_line(manager_log(s->host.manager), level, &fields, "%s: %s after %" PRIu64 " ms",
             call->method ? call->method->name : "Call of a method that there is not", result,
             (now_us() - call->begin_us) / 1000);
}

static void call_ended(struct call *call, const char *result)
{
    assert(!call->answered);
    call->answered = true;
    call->ops = NULL;
    call_log(call, result);
    session_kick(call->session);
}

static void call_done(struct call *call)
{
    if (call->ops && !call->answered) {
        const struct call_ops *ops = call->ops;

        call->ops = NULL;
        ops->cancel(call->data);
        call_log(call, "cancelled, the client is gone");
    }
    wipe_value(call->message);
    json_object_put(call->message);
    *call = (struct call){0};
}

json_object *call_parameters(struct call *call)
{
    return call->parameters;
}

const char *call_string(struct call *call, const char *name)
{
    json_object *value = NULL;

    return json_object_object_get_ex(call->parameters, name, &value) ? json_object_get_string(value) : NULL;
}

int call_take_fd(struct call *call, int64_t index)
{
    return index < 0 ? -EBADF : frame_reader_take_fd(&call->session->in, (size_t)index);
}

bool call_more(const struct call *call)
{
    return call->more;
}

struct manager *call_manager(struct call *call)
{
    return call->session->host.manager;
}

const struct policy_subject *call_subject(const struct call *call)
{
    return &call->session->subject;
}

const char *call_unit(struct call *call)
{
    return identity_unit(&call->session->identity);
}

bool call_is_admin(const struct call *call)
{
    return policy_is_admin(manager_policy(call->session->host.manager), &call->session->subject);
}

const struct method_table *call_methods(const struct call *call)
{
    return call->session->host.methods;
}

const char *call_user_name(const struct call *call, uid_t uid)
{
    return call->session->host.user_name(uid, call->session->host.userdata);
}

struct nss *call_nss(const struct call *call)
{
    return call->session->host.nss;
}

void call_note(struct call *call, const char *model, uint64_t request)
{
    call->note_model = model;
    call->note_request = request;
}

void call_begin(struct call *call, const struct call_ops *ops, void *data)
{
    assert(!call->ops && !call->answered);
    call->ops = ops;
    call->data = data;
}

void call_continue_take(struct call *call, json_object *parameters)
{
    assert(call->more && !call->answered);
    send_message_take(call->session, NULL, parameters, /* continues= */ true);
}

void call_reply_take(struct call *call, json_object *parameters)
{
    send_message_take(call->session, NULL, parameters, /* continues= */ false);
    call_ended(call, "done");
}

void call_reply_fds_take(struct call *call, json_object *parameters, const int *fds, size_t n_fds)
{
    struct session *s = call->session;

    s->reply_fds = fds;
    s->n_reply_fds = n_fds;
    send_message_take(s, NULL, parameters, /* continues= */ false);
    for (size_t i = 0; i < s->n_reply_fds; i++) /* nothing was sent */
        close(fds[i]);
    s->n_reply_fds = 0;
    call_ended(call, "done");
}

void call_fail(struct call *call, const struct fault *fault)
{
    send_fault(call->session, fault);
    call_ended(call, fault_error_name(fault->kind));
}

bool call_is_slow(const struct call *call)
{
    return call->session->slow;
}

static int on_heartbeat(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct session *s = userdata;

    if (!s->has_call || !s->call.ops || !s->call.more)
        return 0;
    if (!s->call.sent && s->call.ops->heartbeat)
        s->call.ops->heartbeat(s->call.data);
    s->call.sent = false;
    if (sd_event_source_set_time_relative(source, LIMIT_SILENCE_US) < 0 ||
        sd_event_source_set_enabled(source, SD_EVENT_ONESHOT) < 0)
        session_drop(s, "Connection dropped: no timer");
    return 0;
}

static int on_frame_timer(sd_event_source *source, uint64_t usec, void *userdata);
static int on_unread_timer(sd_event_source *source, uint64_t usec, void *userdata);

/* ---- in: a frame becomes a call ---- */

/* A timer of the session that is made when it is first needed. */
static int timer_start(struct session *s, sd_event_source **source, uint64_t us,
                       sd_event_time_handler_t handler)
{
    int r;

    if (!*source)
        return sd_event_add_time_relative(sd_event_source_get_event(s->io), source, CLOCK_MONOTONIC, us, 0,
                                          handler, s);
    r = sd_event_source_set_time_relative(*source, us);
    return r < 0 ? r : sd_event_source_set_enabled(*source, SD_EVENT_ONESHOT);
}

static void timer_stop(sd_event_source *source)
{
    if (source)
        (void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
}

static bool is_running(const struct session *s)
{
    return s->has_call && s->call.ops && !s->call.answered;
}

static int flag(json_object *value, const char *name, bool *ret, struct fault *reterr)
{
    if (!json_object_is_type(value, json_type_boolean) && value) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, name, "true or false is expected");
        return CALL_REFUSED;
    }
    *ret = json_object_get_boolean(value);
    return 0;
}

/* The members of the message around the parameters. A member that varlink does not know may be a typo of one that it
 * does ("oneways"), so it is refused like an unknown parameter. */
static int read_envelope(struct call *call, struct fault *reterr)
{
    json_object *name = NULL;
    bool upgrade = false;
    int r = 0;

    if (!json_object_is_type(call->message, json_type_object)) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, "", "a call is a JSON object");
        return CALL_REFUSED;
    }
    json_object_object_foreach (call->message, key, value) {
        if (strcmp(key, "method") == 0)
            name = value;
        else if (strcmp(key, "parameters") == 0)
            call->parameters = value;
        else if (strcmp(key, "more") == 0)
            r = flag(value, key, &call->more, reterr);
        else if (strcmp(key, "oneway") == 0)
            r = flag(value, key, &call->oneway, reterr);
        else if (strcmp(key, "upgrade") == 0)
            r = flag(value, key, &upgrade, reterr);
        else {
            fault_set(reterr, FAULT_INVALID_PARAMETER, key, "not a member of a varlink call");
            r = CALL_REFUSED;
        }
        if (r != 0)
            return r;
    }
    if (!json_object_is_type(name, json_type_string) ||
        strlen(json_object_get_string(name)) != (size_t)json_object_get_string_len(name)) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, "method", "the name of a method is expected");
        return CALL_REFUSED;
    }
    if (upgrade || (call->more && call->oneway)) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, upgrade ? "upgrade" : "oneway",
                  upgrade ? "no method of this service upgrades" : "a call can't be both oneway and more");
        return CALL_REFUSED;
    }
    call->name = json_object_get_string(name);
    if (!call->parameters) {
        call->parameters = json_object_new_object();
        if (!call->parameters || json_object_object_add(call->message, "parameters", call->parameters) < 0)
            return -ENOMEM;
    }
    return 0;
}

static void queue_full(const struct session *s, struct fault *ret)
{
    struct policy_quota quota;

    policy_quota_for(manager_policy(s->host.manager), &s->subject, &quota);
    fault_init(ret, FAULT_QUEUE_FULL, NULL);
    ret->limit = quota.queued > INT64_MAX ? INT64_MAX : (int64_t)quota.queued;
}

static int call_check(struct call *call, bool is_beyond_quota, struct fault *reterr)
{
    const struct session *s = call->session;
    const struct idl_method *idl;
    const struct method *method;
    int r;

    r = read_envelope(call, reterr);
    if (r != 0)
        return r;
    if (is_beyond_quota) {
        queue_full(s, reterr);
        return CALL_REFUSED;
    }
    if (s->state == SESSION_REFUSING) {
        *reterr = s->refusal;
        return CALL_REFUSED;
    }
    r = method_table_find(s->host.methods, call->name, &method, &idl, reterr);
    if (r != 0)
        return r;
    call->method = method;
    r = idl_check(idl->in, call->parameters, IDL_DROP_NULLS, reterr);
    if (r < 0)
        return r == -EINVAL ? CALL_REFUSED : r;
    if (idl->more == IDL_MORE_REQUIRED && !call->more) {
        fault_init(reterr, FAULT_EXPECTED_MORE, NULL);
        return CALL_REFUSED;
    }
    if (idl->more == IDL_MORE_NO)
        call->more = false; /* one reply answers it; varlink leaves that to the service */
    if (method->who == METHOD_ADMINS && !call_is_admin(call)) {
        fault_set(reterr, FAULT_NOT_ALLOWED, NULL, "admins_only");
        return CALL_REFUSED;
    }
    if (manager_is_stopping(s->host.manager) && strncmp(call->name, "org.varlink.", 12) != 0) {
        fault_init(reterr, FAULT_SHUTTING_DOWN, NULL);
        return CALL_REFUSED;
    }
    return 0;
}

/* What only the daemon is to blame for has no error of its own on the wire. */
static void internal_fault(const struct call *call, int error, struct fault *ret)
{
    if (error == -ENOMEM) {
        fault_init(ret, FAULT_INSUFFICIENT_MEMORY, "ram");
        ret->used = ret->limit = 0;
        return;
    }
    fault_set(ret, FAULT_MODEL_UNAVAILABLE, call->note_model, "internal error: %s", strerror(-error));
}

static void call_start(struct session *s, json_object *message, bool is_beyond_quota)
{
    struct call *call = &s->call;
    struct fault fault;
    int r;

    *call = (struct call){.session = s, .message = message, .begin_us = now_us()};
    s->has_call = true;
    s->subject = identity_subject(&s->identity);
    fault_init(&fault, FAULT_NONE, NULL);
    r = call_check(call, is_beyond_quota, &fault);
    if (r == 0)
        r = call->method->handler(call, &fault);
    if (r < 0)
        internal_fault(call, r, &fault);
    if (r != 0)
        return call_fail(call, &fault);
    assert(call->ops || call->answered);
    if (is_running(s) && call->more && timer_start(s, &s->heartbeat, LIMIT_SILENCE_US, on_heartbeat) < 0)
        session_drop(s, "Connection dropped: no timer");
}

/* After an error that leaves no doubt about the other end: answer, and no more. */
static void refuse_frame(struct session *s, const struct fault *fault)
{
    s->call.oneway = false;
    send_fault(s, fault);
    s->state = SESSION_FLUSHING;
    session_kick(s);
}

static void handle_frame(struct session *s, const char *text, size_t n, bool is_beyond_quota)
{
    static const struct json_limits limits = {
        .bytes_max = FRAME_BYTES_MAX, .depth_max = LIMIT_CALL_DEPTH, .values_max = LIMIT_CALL_VALUES};
    struct json_error error = {0};
    json_object *message = NULL;
    struct fault fault;
    int r;

    r = json_parse(text, n, &limits, &message, NULL, &error);
    if (r == -ENOMEM)
        return session_drop(s, "Connection dropped: no memory for a call");
    if (r < 0) {
        fault_set(&fault, FAULT_INVALID_PARAMETER, error.key,
                  "not accepted as JSON at line %u, column %u: %s", error.line, error.column,
                  error.reason ? error.reason : "too large");
        return refuse_frame(s, &fault);
    }
    call_start(s, message, is_beyond_quota);
}

/* The next frame leaves the queue. Returns whether it had no place there: such a call has its turn like the others,
 * but only to hear that. */
static bool leave_queue(struct session *s)
{
    if (s->n_waiting == 0) {
        if (s->n_refused == 0)
            return false;
        s->n_refused--;
        return true;
    }
    s->n_waiting--;
    if (s->n_waiting == 0)
        account_discharge(&s->queued);
    else
        (void)account_resize(&s->queued, s->n_waiting, POLICY_UNLIMITED);
    return false;
}

/* Whole frames that have to wait because a call runs, right after they were read. */
static void charge_waiting(struct session *s)
{
    struct policy_quota quota;
    const char *at, *end;

    assert(s->n_waiting == 0 && s->n_refused == 0);
    if (!is_running(s) || frame_reader_pending(&s->in) == 0)
        return;
    at = s->in.data + s->in.begin;
    end = s->in.data + s->in.end;
    policy_quota_for(manager_policy(s->host.manager), &s->subject, &quota);
    while ((at = memchr(at, 0, (size_t)(end - at)))) {
        int r;

        at++;
        if (s->n_refused == 0) {
            r = s->n_waiting == 0 ? account_charge(manager_accounts(s->host.manager), s->identity.uid,
                                                   ACCOUNT_QUEUED, 1, quota.queued, &s->queued)
                                  : account_resize(&s->queued, s->n_waiting + 1, quota.queued);
            if (r == 0) {
                s->n_waiting++;
                continue;
            }
        }
        s->n_refused++;
    }
}

/* Descriptors that wait are the daemon's to keep, and it has not many. */
static bool has_to_read_first(const struct session *s)
{
    return s->out.n_bytes > LIMIT_UNREAD_BYTES_PAUSE || s->out.n_fds > 0;
}

/* As many frames as can be dealt with now: until one leaves something running, or the client has to read first. */
static void handle_frames(struct session *s)
{
    char *text;
    size_t n;

    while (!s->dead && !s->has_call && (s->state == SESSION_OPEN || s->state == SESSION_REFUSING) &&
           !has_to_read_first(s) && frame_reader_next(&s->in, &text, &n)) {
        handle_frame(s, text, n, leave_queue(s));
        frame_reader_forget(&s->in);
    }
}

/* Whether the client may send, and the loop shall read: never with whole frames in the buffer. */
static bool may_read(const struct session *s)
{
    return !s->eof && !s->has_call && !has_to_read_first(s) &&
           (s->state == SESSION_OPEN || s->state == SESSION_REFUSING);
}

/* Whether a frame has begun that does not end, or the one call that is waited for does not come. */
static bool is_owed_a_frame(const struct session *s)
{
    return may_read(s) && (frame_reader_pending(&s->in) > 0 || s->state == SESSION_REFUSING);
}

static void watch_frame(struct session *s)
{
    int enabled = SD_EVENT_OFF;

    if (s->frame_timer)
        (void)sd_event_source_get_enabled(s->frame_timer, &enabled);
    if (!is_owed_a_frame(s))
        timer_stop(s->frame_timer);
    else if (enabled == SD_EVENT_OFF && timer_start(s, &s->frame_timer, LIMIT_FRAME_US, on_frame_timer) < 0)
        session_drop(s, "Connection dropped: no timer");
}

/* What has come is given back first: it is what is too much, and the answer would find no room beside it. */
static void refuse_full(struct session *s, const char *what, enum account_slot slot, uint64_t limit, uint64_t more)
{
    struct fault fault;

    fault_init(&fault, FAULT_QUOTA_EXCEEDED, what);
    fault.limit = (int64_t)limit;
    fault.used = (int64_t)(account_used(manager_accounts(s->host.manager), s->identity.uid, slot) + more);
    frame_reader_done(&s->in);
    refuse_frame(s, &fault);
}

static void read_some(struct session *s)
{
    ssize_t n = frame_reader_read(&s->in, s->fd);

    if (n == -EAGAIN)
        return;
    if (n == -EMSGSIZE) {
        struct fault fault;

        fault_set(&fault, FAULT_INVALID_PARAMETER, NULL, "a call of at most %zu bytes is expected",
                  FRAME_BYTES_MAX);
        return refuse_frame(s, &fault);
    }
    if (n < 0) {
        s->dead = true; /* ECONNRESET and its like: the client is gone */
        return;
    }
    if (n == 0) {
        s->eof = true;
        return;
    }
    if (charge_bytes(s) != 0)
        return refuse_full(s, "bytes", ACCOUNT_BYTES, share_of(s, ACCOUNT_BYTES, LIMIT_BYTES, LIMIT_BYTES_PER_UID),
                           s->in.size);
    if (charge_fds(s) != 0)
        return refuse_full(s, "fds", ACCOUNT_FDS, share_of(s, ACCOUNT_FDS, LIMIT_FDS, LIMIT_FDS_PER_UID), s->in.n_fds);
}

/* ---- the loop ---- */

static void flush(struct session *s)
{
    size_t before = s->out.n_bytes;
    int r;

    if (before == 0)
        return;
    r = frame_writer_write(&s->out, s->fd);
    if (r < 0) {
        s->dead = true; /* EPIPE: the client is gone */
        return;
    }
    (void)charge_bytes(s);
    if (s->slow && s->out.n_bytes <= LIMIT_UNREAD_BYTES_PAUSE / 2) {
        s->slow = false;
        if (is_running(s) && s->call.ops->drained)
            s->call.ops->drained(s->call.data);
    }
    if (s->out.n_bytes == 0)
        timer_stop(s->unread_timer);
    else if ((s->out.n_bytes < before || !s->unread_timer) &&
             timer_start(s, &s->unread_timer, LIMIT_UNREAD_US, on_unread_timer) < 0)
        session_drop(s, "Connection dropped: no timer");
}

/* What the loop shall wake us for, from what the session can do now. A hang-up always does. */
static void choose_events(struct session *s)
{
    uint32_t events = may_read(s) ? EPOLLIN : 0;

    if (s->out.n_bytes > 0)
        events |= EPOLLOUT;
    if (sd_event_source_set_io_events(s->io, events) < 0)
        s->dead = true;
}

static bool is_finished(const struct session *s)
{
    if (s->dead)
        return true;
    if (s->has_call || s->out.n_bytes > 0)
        return false;
    return s->state == SESSION_FLUSHING || (s->state != SESSION_NAMING && s->eof);
}

/* The tail of every handler of the loop: end the session or decide what to wait for. */
static int finish(struct session *s)
{
    if (!is_finished(s)) {
        watch_frame(s);
        choose_events(s);
    }
    if (is_finished(s))
        s->host.ended(s, s->host.userdata);
    return 0;
}

/* Everything that can go on goes on: an answered call is put away, the next frame has its turn, replies are written. */
static void work(struct session *s)
{
    bool was_blocked;

    do {
        if (s->has_call && s->call.answered) {
            call_done(&s->call);
            s->has_call = false;
            /* With bytes that wait, the descriptors may belong to the frame that those begin. */
            if (frame_reader_pending(&s->in) == 0)
                frame_reader_drop_fds(&s->in);
            (void)charge_fds(s);
            if (s->state == SESSION_REFUSING)
                s->state = SESSION_FLUSHING;
        }
        handle_frames(s);
        was_blocked = has_to_read_first(s);
        if (!s->dead)
            flush(s);
        /* Frames that waited for the client to read can go on at once when it has. */
    } while (!s->dead && ((s->has_call && s->call.answered) || (was_blocked && !has_to_read_first(s))));
    (void)charge_bytes(s);
}

static int on_work(sd_event_source *source, void *userdata)
{
    struct session *s = userdata;

    if (!s->dead)
        work(s);
    return finish(s);
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct session *s = userdata;
    bool was_blocked = has_to_read_first(s);

    if (revents & EPOLLOUT)
        flush(s);
    /* Nothing is read while whole frames wait, and some may have waited for this. */
    if (!s->dead && was_blocked && !has_to_read_first(s))
        work(s);
    if (s->dead)
        return finish(s);
    if (may_read(s) && (revents & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
        /* Also after a hang-up: what came before it may be a oneway call. */
        read_some(s);
        if (!s->dead)
            work(s);
        if (!s->dead)
            charge_waiting(s);
    } else if (revents & (EPOLLHUP | EPOLLERR)) {
        s->dead = true; /* both directions are closed: nobody is left to answer */
    } else {
        work(s);
    }
    return finish(s);
}

static int on_frame_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct session *s = userdata;

    if (is_owed_a_frame(s))
        session_drop(s, "Connection dropped: a call does not end, or does not come");
    return finish(s);
}

static int on_unread_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct session *s = userdata;

    if (s->out.n_bytes > 0)
        session_drop(s, "Connection dropped: the client does not read its replies");
    return finish(s);
}

/* A subordinate uid turned out to be its owner's: so is what was charged until now. */
static int rehome(struct session *s)
{
    const uid_t uid = s->identity.uid;
    struct policy_quota quota;
    uint64_t limit;
    int r;

    s->subject = identity_subject(&s->identity);
    policy_quota_for(manager_policy(s->host.manager), &s->subject, &quota);
    limit = quota.connections < LIMIT_CONNECTIONS_PER_UID ? quota.connections : LIMIT_CONNECTIONS_PER_UID;
    r = account_rehome(&s->bytes, uid, LIMIT_BYTES_PER_UID);
    if (r == 0)
        r = account_rehome(&s->connection, uid, limit);
    if (r == ACCOUNT_FULL) {
        /* A few are told why, as at accept. */
        if (account_rehome(&s->connection, uid, limit + LIMIT_CONNECTIONS_REFUSED) != 0)
            return -EDQUOT;
        fault_init(&s->refusal, FAULT_QUOTA_EXCEEDED, "connections");
        s->refusal.limit = (int64_t)limit;
        s->refusal.used = (int64_t)account_used(manager_accounts(s->host.manager), uid, ACCOUNT_CONNECTIONS);
    }
    return r;
}

/* Its groups are known: those that have a total count it, too. */
static int charge_groups(struct session *s)
{
    struct accounts *groups = manager_group_accounts(s->host.manager);
    const struct total *full = NULL;
    char name[192];
    int r;

    r = totals_init(&s->totals, manager_policy(s->host.manager), &s->subject);
    if (r == 0)
        r = totals_connect(&s->totals, groups, &full);
    if (r != ACCOUNT_FULL)
        return r;
    snprintf(name, sizeof(name), "%sconnections", full->prefix);
    fault_init(&s->refusal, FAULT_QUOTA_EXCEEDED, name);
    s->refusal.limit = (int64_t)full->limits.connections;
    s->refusal.used = (int64_t)account_used(groups, full->gid, ACCOUNT_CONNECTIONS) + 1;
    return ACCOUNT_FULL;
}

static void on_named(int error, const struct nss_user *user, void *userdata)
{
    struct session *s = userdata;
    int r = error == 0 ? identity_add_nss(&s->identity, user) : 0;

    s->naming = NULL;
    if (error == 0 && r == 0)
        r = rehome(s);
    if (error == 0 && r == 0)
        r = charge_groups(s);
    if (r < 0) {
        session_drop(s, r == -EDQUOT ? "Connection dropped: the user has too many"
                                     : "Connection dropped: no memory for its user");
    } else if (r == ACCOUNT_FULL) {
        s->state = SESSION_REFUSING;
    } else if (error == 0) {
        s->state = SESSION_OPEN;
    } else {
        if (error == -ENOTUNIQ)
            session_log(s, LOG_WARNING, MESSAGE_UID_AMBIGUOUS,
                        "Refused: the ranges of several users in /etc/subuid have this uid");
        else if (error != -ESRCH)
            session_log(s, LOG_WARNING, MESSAGE_USERS_UNKNOWN, "The user database can't say who a client is");
        fault_set(&s->refusal, FAULT_NOT_ALLOWED, NULL, "unknown_uid");
        s->state = SESSION_REFUSING;
        if (account_rehome(&s->connection, ACCOUNT_UNKNOWN, LIMIT_CONNECTIONS_UNKNOWN) != 0 ||
            account_rehome(&s->bytes, ACCOUNT_UNKNOWN, LIMIT_BYTES_PER_UID) != 0)
            session_drop(s, "Connection dropped: too many of unknown users wait to be told so");
    }
    (void)finish(s);
}

int session_new(const struct session_host *host, int fd, struct identity *identity,
                struct account_charge *charge, const struct fault *refusal, struct session **ret)
{
    _cleanup_(session_freep) struct session *s = calloc(1, sizeof(*s));
    sd_event *event = manager_event(host->manager);
    int r;

    if (!s)
        return -ENOMEM;
    *s = (struct session){.host = *host, .fd = -EBADF, .identity = IDENTITY_NULL};
    if (refusal) {
        s->refusal = *refusal;
        s->state = SESSION_REFUSING;
    }
    r = account_charge(manager_accounts(host->manager), identity->uid, ACCOUNT_BYTES, LIMIT_SESSION_BYTES,
                       LIMIT_BYTES_PER_UID, &s->bytes);
    if (r != 0)
        return r < 0 ? r : -ENOBUFS;
    r = sd_event_add_io(event, &s->io, fd, refusal ? EPOLLIN : 0, on_io, s);
    if (r < 0)
        return r;
    r = sd_event_add_defer(event, &s->work, on_work, s);
    if (r < 0)
        return r;
    r = sd_event_source_set_enabled(s->work, SD_EVENT_OFF);
    if (r < 0)
        return r;
    if (!refusal) {
        r = nss_ask(host->nss, identity->uid, on_named, s, &s->naming);
        if (r < 0)
            return r;
    }
    s->fd = fd;
    s->identity = *identity;
    *identity = IDENTITY_NULL;
    s->connection = *charge;
    *charge = ACCOUNT_CHARGE_NULL;
    s->subject = identity_subject(&s->identity);
    *ret = TAKE_PTR(s);
    return 0;
}

struct session *session_free(struct session *s)
{
    if (!s)
        return NULL;
    nss_query_cancel(s->naming);
    if (s->has_call)
        call_done(&s->call);
    sd_event_source_disable_unref(s->heartbeat);
    sd_event_source_disable_unref(s->unread_timer);
    sd_event_source_disable_unref(s->frame_timer);
    sd_event_source_disable_unref(s->work);
    sd_event_source_disable_unref(s->io);
    frame_reader_done(&s->in);
    frame_writer_done(&s->out);
    closep(&s->fd);
    identity_done(&s->identity);
    account_discharge(&s->queued);
    account_discharge(&s->bytes);
    account_discharge(&s->fds);
    account_discharge(&s->connection);
    totals_done(&s->totals);
    free(s);
    return NULL;
}

bool session_is_idle(const struct session *s)
{
    return s->state == SESSION_OPEN && !s->has_call && !s->dead && frame_reader_pending(&s->in) == 0;
}

void session_refuse(struct session *s, const struct fault *refusal)
{
    s->refusal = *refusal;
    s->state = SESSION_REFUSING;
    session_kick(s); /* from now on it is owed a call: one that never comes does not keep the connection */
}

const struct identity *session_identity(const struct session *s)
{
    return &s->identity;
}
