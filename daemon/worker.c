/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Invariants:
 *  1. Callbacks come from the loop, never from inside a function of worker.h: a send that fails marks the worker broken
 *     and wakes the loop up, which then says gone.
 *  2. gone comes at most once, and nothing comes after it.
 *  3. The process is waited for exactly once, by its pidfd, also after worker_free(): the worker then stays in
 *     owner->ending until its process has gone, killed after LIMIT_WORKER_END_US if it must be.
 *  4. A worker only counts as itself once HELLO has come with the credentials of the process that was started. Of one
 *     that systemd starts, HELLO's credentials are how the process is known at all: only systemd could accept the
 *     connection, since nobody else may listen on that socket.
 *  5. A unit's process is neither waited for nor signalled: closing the link ends it, and why it ended comes as
 *     a report of its ExecStopPost= (worker-report.h), a moment after its pidfd has said that it did.
 */
#include "daemon/worker.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/json.h"
#include "base/list.h"
#include "daemon/limits.h"
#include "daemon/patience.h"
#include "daemon/tenants.h"
#include "daemon/worker-report.h"
#include "daemon/worker-start.h"
#include "engine/proto/channel.h"

#define PING_INTERVAL_US 500000
/* Packets handled before other users of the loop have their turn. */
#define PACKETS_IN_A_ROW 32

struct workers {
    sd_event *event;
    uint64_t epoch;
    struct mark_key key;
    struct list live, ending; /* of struct worker */
    struct worker_reports *reports; /* NULL: workers are children */
};

struct worker {
    struct workers *owner;
    struct list entry;
    const struct worker_callbacks *callbacks;
    void *userdata;

    struct channel *channel; /* NULL once the link is closed */
    struct worker_process process;
    bool exited; /* waited for */
    char exit_reason[160];
    enum worker_end end;
    bool greeted, draining, told_gone;
    bool adopted, outdated;     /* an earlier daemon's; of another build */
    struct worker_process told; /* adopted: which process it has to be */
    bool reported, waits_for_report; /* a unit's end: its reason is known, or comes soon */
    bool dispatching; /* a callback may be running that frees the worker: on_link() then finishes */
    bool freed;
    void *held;
    void (*unhold)(void *held);
    char broken[160]; /* "": fine; else why the link is of no more use */

    int *fds; /* [n_fds] until MODEL is sent */
    size_t n_fds;
    char *config;
    uint32_t n_threads;

    struct tenants *tenants;

    sd_event_source *link, *pidfd, *ping, *defer;
    uint64_t ping_cookie;
    struct patience silence; /* since it was started, or since its last PONG */
    struct patience step;    /* since PONG said first that it is in the step behind this one */
    uint64_t i_step;
};

int workers_new(sd_event *event, uint64_t epoch, const struct mark_key *key, struct workers **ret)
{
    struct workers *ws = calloc(1, sizeof(*ws));

    if (!ws)
        return -ENOMEM;
    ws->event = sd_event_ref(event);
    ws->epoch = epoch;
    ws->key = *key;
    list_init(&ws->live);
    list_init(&ws->ending);
    *ret = ws;
    return 0;
}

static void close_fds(struct worker *w)
{
    for (size_t i = 0; i < w->n_fds; i++)
        close(w->fds[i]);
    free(w->fds);
    w->fds = NULL;
    w->n_fds = 0;
}

static void release(struct worker *w)
{
    list_remove(&w->entry);
    sd_event_source_disable_unref(w->link);
    sd_event_source_disable_unref(w->pidfd);
    sd_event_source_disable_unref(w->ping);
    sd_event_source_disable_unref(w->defer);
    channel_free(w->channel);
    if (w->process.pidfd >= 0)
        close(w->process.pidfd);
    close_fds(w);
    free(w->config);
    tenants_free(w->tenants);
    if (w->unhold)
        w->unhold(w->held);
    free(w);
}

static void kill_process(const struct worker *w)
{
    if (w->process.pidfd >= 0 && w->process.is_child && !w->exited)
        syscall(SYS_pidfd_send_signal, w->process.pidfd, SIGKILL, NULL, 0);
}

static void note_signal(struct worker *w, int signal)
{
    const char *name = sigabbrev_np(signal) ? sigabbrev_np(signal) : "?";

    w->end = worker_signal_is_crash(name) ? WORKER_END_CRASH : WORKER_END_OTHER;
    snprintf(w->exit_reason, sizeof(w->exit_reason), "the worker was killed by signal %d (%s)", signal, name);
}

/* Waits for the process and notes why it ended. */
static void reap(struct worker *w)
{
    siginfo_t info = {.si_pid = 0};
    int r;

    if (w->exited || w->process.pidfd < 0)
        return;
    w->exited = true;
    if (!w->process.is_child) {
        snprintf(w->exit_reason, sizeof(w->exit_reason), "the worker ended");
        return;
    }
    do
        r = waitid(P_PIDFD, (id_t)w->process.pidfd, &info, WEXITED);
    while (r < 0 && errno == EINTR);
    if (r < 0)
        snprintf(w->exit_reason, sizeof(w->exit_reason), "the worker ended");
    else if (info.si_code == CLD_EXITED)
        w->end = worker_exit_describe(info.si_status, w->exit_reason, sizeof(w->exit_reason));
    else
        note_signal(w, info.si_status);
}

struct workers *workers_free(struct workers *ws)
{
    if (!ws)
        return NULL;
    while (!list_is_empty(&ws->ending)) {
        struct worker *w = list_entry(ws->ending.next, struct worker, entry);
        struct pollfd p = {.fd = w->process.pidfd, .events = POLLIN};

        /* The links are closed already, so they all end at the same time. */
        if (poll(&p, 1, LIMIT_WORKER_END_US / 1000) <= 0)
            kill_process(w);
        reap(w);
        release(w);
    }
    worker_reports_free(ws->reports);
    sd_event_unref(ws->event);
    free(ws);
    return NULL;
}

static void on_report(uid_t uid, const char *reason, enum worker_end end, void *userdata)
{
    workers_report(userdata, uid, reason, end);
}

int workers_expect_reports(struct workers *ws, const char *worker_socket)
{
    return worker_reports_new(ws->event, worker_socket, on_report, ws, &ws->reports);
}

static int on_broken(sd_event_source *s, void *userdata);

static void __attribute__((format(printf, 2, 3))) mark_broken(struct worker *w, const char *format, ...)
{
    va_list ap;

    if (w->broken[0])
        return;
    va_start(ap, format);
    vsnprintf(w->broken, sizeof(w->broken), format, ap);
    va_end(ap);
    if (w->link)
        sd_event_source_set_enabled(w->link, SD_EVENT_OFF);
    /* The source was made with the worker, so this can't fail for want of memory. */
    sd_event_source_set_enabled(w->defer, SD_EVENT_ONESHOT);
}

static void say_gone(struct worker *w)
{
    char reason[192];

    if (w->told_gone)
        return;
    w->told_gone = true;
    snprintf(reason, sizeof(reason), "%s", w->exited ? w->exit_reason : w->broken);
    w->callbacks->gone(w, reason, w->draining, w->userdata);
}

static int on_broken(sd_event_source *s, void *userdata)
{
    struct worker *w = userdata;

    /* A worker that crashed closes its link a moment before its end can be read from the pidfd; that says more. */
    if (!w->exited && w->process.pidfd >= 0) {
        struct pollfd p = {.fd = w->process.pidfd, .events = POLLIN};

        if (poll(&p, 1, 20) > 0)
            reap(w);
    }
    if (w->exited && !w->process.is_child && !w->reported && !w->draining && w->owner->reports) {
        w->waits_for_report = true;
        if (sd_event_source_set_time_relative(w->ping, LIMIT_REPORT_US) >= 0 &&
            sd_event_source_set_enabled(w->ping, SD_EVENT_ONESHOT) >= 0)
            return 0;
    }
    say_gone(w);
    return 0;
}

void workers_report(struct workers *ws, uid_t uid, const char *reason, enum worker_end end)
{
    struct list *at, *after;

    list_foreach(at, after, &ws->live)
    {
        struct worker *w = list_entry(at, struct worker, entry);

        if (w->process.is_child || w->process.uid != uid || w->reported)
            continue;
        w->reported = true;
        w->exited = true;
        w->end = end;
        snprintf(w->exit_reason, sizeof(w->exit_reason), "%s", reason);
        if (w->waits_for_report)
            sd_event_source_set_enabled(w->defer, SD_EVENT_ONESHOT);
        else
            mark_broken(w, "the worker ended");
        return;
    }
}

static void update_events(struct worker *w)
{
    if (!w->broken[0])
        sd_event_source_set_io_events(w->link, channel_events(w->channel) & POLLOUT ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static int send_packet(struct worker *w, enum packet_type type, const void *fixed, size_t n_fixed,
                       const void *blob, size_t n_blob)
{
    const struct channel_blob part = {.data = blob, .n_bytes = n_blob};
    int r;

    if (w->broken[0])
        return 0;
    r = channel_send(w->channel, type, fixed, n_fixed, &part, n_blob > 0 ? 1 : 0, type == PACKET_MODEL ? w->fds : NULL,
                     type == PACKET_MODEL ? w->n_fds : 0);
    if (r == -ENOMEM)
        return r;
    /* The worker has closed its end: what it sent before that is heard first, then comes the end of the link. */
    if (r == -EPIPE || r == -ECONNRESET)
        return 0;
    if (r < 0)
        mark_broken(w, r == -ENOBUFS ? "the worker does not read its packets" : "the link to the worker broke (%s)",
                    strerror(-r));
    else
        update_events(w);
    return 0;
}

static int name_tenant(struct worker *w, const struct worker_submit *submit, uint32_t *ret)
{
    const struct tenant_rules rules = {
        .weight = submit->weight,
        .kv_max_bytes = submit->kv_max_bytes,
        .tenant_class = submit->tenant_class,
        .class_weight = submit->class_weight,
    };
    struct packet_tenant packet = {
        .weight = rules.weight,
        .kv_max_bytes = rules.kv_max_bytes,
        .tenant_class = rules.tenant_class,
        .class_weight = rules.class_weight,
        .mark = mark_of(&w->owner->key, submit->uid),
    };
    bool changed;
    int r;

    r = tenants_begin(w->tenants, submit->uid, submit->request, &rules, ret, &changed);
    if (r < 0 || !changed)
        return r;
    packet.tenant = *ret;
    return send_packet(w, PACKET_TENANT, &packet, sizeof(packet), NULL, 0);
}

/* The worker is through with a request. Who has had none for long is forgotten there, too. */
static void request_over(struct worker *w, uint64_t request)
{
    struct packet_tenant packet = {.weight = 0};

    tenants_end(w->tenants, request);
    while ((packet.tenant = tenants_excess(w->tenants)) != 0)
        if (send_packet(w, PACKET_TENANT, &packet, sizeof(packet), NULL, 0) < 0)
            mark_broken(w, "out of memory");
}

int worker_submit(struct worker *w, const struct worker_submit *submit)
{
    struct packet_submit packet = {
        .request = submit->request,
        .priority = submit->priority,
        .deadline_ns = submit->deadline_ns,
        .kind = submit->kind,
        .tokens_max = submit->tokens_max,
    };
    int r;

    r = name_tenant(w, submit, &packet.tenant);
    if (r == 0)
        r = send_packet(w, PACKET_SUBMIT, &packet, sizeof(packet), submit->parameters, submit->n_parameters);
    if (r < 0)
        tenants_end(w->tenants, submit->request);
    return r;
}

void worker_cancel(struct worker *w, uint64_t request)
{
    const struct packet_request packet = {.request = request};

    if (send_packet(w, PACKET_CANCEL, &packet, sizeof(packet), NULL, 0) < 0)
        mark_broken(w, "out of memory");
}

void worker_pause(struct worker *w, uint64_t request, bool pause)
{
    const struct packet_request packet = {.request = request};

    if (send_packet(w, pause ? PACKET_PAUSE : PACKET_RESUME, &packet, sizeof(packet), NULL, 0) < 0)
        mark_broken(w, "out of memory");
}

void worker_threads(struct worker *w, uint32_t n_threads)
{
    const struct packet_threads packet = {.n_threads = n_threads};

    if (w->n_threads == n_threads)
        return;
    w->n_threads = n_threads;
    if (w->greeted && send_packet(w, PACKET_THREADS, &packet, sizeof(packet), NULL, 0) < 0)
        mark_broken(w, "out of memory");
}

void worker_trim(struct worker *w, uint64_t bytes)
{
    const struct packet_trim packet = {.bytes = bytes};

    if (w->greeted && !w->draining && send_packet(w, PACKET_TRIM, &packet, sizeof(packet), NULL, 0) < 0)
        mark_broken(w, "out of memory");
}

void worker_drain(struct worker *w)
{
    const struct packet_drain packet = {.deadline_ns = 0};

    if (w->draining)
        return;
    w->draining = true;
    if (!w->greeted)
        mark_broken(w, "ended before it was greeted");
    else if (send_packet(w, PACKET_DRAIN, &packet, sizeof(packet), NULL, 0) < 0)
        mark_broken(w, "out of memory");
}

void worker_spend(struct worker *w, uid_t uid, uint64_t thread_ns)
{
    struct packet_spent packet = {.reserved = 0};

    packet.tenant = tenants_spend(w->tenants, uid, thread_ns / (w->n_threads ? w->n_threads : 1), &packet.cost_ns);
    if (packet.tenant != 0 && send_packet(w, PACKET_SPENT, &packet, sizeof(packet), NULL, 0) < 0)
        mark_broken(w, "out of memory");
}

bool worker_tenant_uid(const struct worker *w, uint32_t tenant, uid_t *ret)
{
    return tenants_uid(w->tenants, tenant, ret);
}

uint32_t worker_kv_pages(const struct worker *w, uid_t uid)
{
    return tenants_pages(w->tenants, uid);
}

pid_t worker_pid(const struct worker *w)
{
    return w->process.pid;
}

/* ---- packets from the worker; each returns -EBADMSG for one that breaks the rules beyond what the channel
 * checks ---- */

/* What a worker sends was made by its own json-c; limits are those of a reply. */
static int parse_blob(const struct packet *p, json_object **ret)
{
    static const struct json_limits limits = {.bytes_max = 16u << 20, .depth_max = 64, .values_max = 4u << 20};

    if (p->n_blob == 0) {
        *ret = NULL;
        return 0;
    }
    return json_parse(p->blob, p->n_blob, &limits, ret, NULL, NULL) == -ENOMEM
               ? -ENOMEM
               : (json_object_is_type(*ret, json_type_object) ? 0 : -EBADMSG);
}

static int on_process_end(sd_event_source *s, int fd, uint32_t events, void *userdata);

/* After the link, so that last words are heard first. */
static int watch_process(struct worker *w)
{
    int r = sd_event_add_io(w->owner->event, &w->pidfd, w->process.pidfd, EPOLLIN, on_process_end, w);

    return r < 0 ? r : sd_event_source_set_priority(w->pidfd, SD_EVENT_PRIORITY_NORMAL + 10);
}

/* HELLO comes from the process that was started; or it says which process systemd has started. */
static int check_credentials(struct worker *w, struct channel_packet *packet)
{
    if (!packet->has_credentials)
        return -EBADMSG;
    if (w->process.pid > 0)
        return packet->credentials.pid == w->process.pid && packet->credentials.uid == w->process.uid ? 0 : -EBADMSG;
    if (packet->credentials.pid <= 0)
        return -EBADMSG;
    w->process.pidfd = packet->pidfd > 0 ? TAKE_FD(packet->pidfd)
                                         : (int)syscall(SYS_pidfd_open, packet->credentials.pid, 0);
    if (w->process.pidfd < 0)
        return -errno;
    w->process.pid = packet->credentials.pid;
    w->process.uid = packet->credentials.uid;
    if (w->adopted && (w->process.pid != w->told.pid || w->process.uid != w->told.uid))
        return -EBADMSG;
    return watch_process(w);
}

static int on_gpus(struct worker *w, const struct packet *p)
{
    _cleanup_json_ json_object *samples = NULL;
    int r = parse_blob(p, &samples);

    if (r == 0 && samples && w->callbacks->gpus)
        w->callbacks->gpus(w, samples, w->userdata);
    return r;
}

/* The answer to RESET. What it has loaded follows as FACTS. */
static int on_hello_again(struct worker *w, const struct packet *p)
{
    const struct packet_threads threads = {.n_threads = w->n_threads};

    if (channel_context(w->channel)->state != PROTO_STATE_READY) {
        mark_broken(w, "the worker was not ready when the daemon came back");
        return 0;
    }
    w->greeted = true;
    patience_begin(&w->silence, w->silence.looked_us);
    w->outdated = p->n_blob != strlen(RESIDENTD_BUILD) || memcmp(p->blob, RESIDENTD_BUILD, p->n_blob) != 0;
    return send_packet(w, PACKET_THREADS, &threads, sizeof(threads), NULL, 0);
}

static int on_hello(struct worker *w, struct channel_packet *packet)
{
    const struct packet_threads threads = {.n_threads = w->n_threads};
    const struct packet_model model = {.reserved = 0};
    int r;

    r = check_credentials(w, packet);
    if (r < 0)
        return r;
    if (packet->p.hello->version != PROTO_VERSION) {
        mark_broken(w, "the worker speaks version %" PRIu32 " of the protocol, this daemon %" PRIu32,
                    packet->p.hello->version, PROTO_VERSION);
        return 0;
    }
    if (w->adopted)
        return on_hello_again(w, &packet->p);
    w->greeted = true;
    patience_begin(&w->silence, w->silence.looked_us);
    r = send_packet(w, PACKET_THREADS, &threads, sizeof(threads), NULL, 0);
    if (r < 0)
        return r;
    r = send_packet(w, PACKET_MODEL, &model, sizeof(model), w->config, strlen(w->config));
    close_fds(w);
    return r;
}

static int on_facts(struct worker *w, const struct packet *p)
{
    _cleanup_json_ json_object *facts = NULL;
    int r = parse_blob(p, &facts);

    if (r < 0)
        return r;
    if (!facts)
        return -EBADMSG;
    if (p->type == PACKET_READY || w->adopted)
        w->callbacks->ready(w, facts, w->userdata);
    else
        w->callbacks->facts(w, facts, w->userdata);
    return 0;
}

/* A worker whose step takes longer is ended. */
#define COST_NS_MAX (LIMIT_STEP_US * 1000)

static int on_step(struct worker *w, const struct packet *p)
{
    static const struct json_limits limits = {.bytes_max = 16u << 20, .depth_max = 64, .values_max = 1u << 20};
    struct step_iterator it;
    struct step_tenant tenant;
    struct step_piece piece;
    const char *text, *extra;

    step_iterator_init(&it, p);
    while (step_next_tenant(&it, &tenant)) {
        uid_t uid;

        if (!worker_tenant_uid(w, tenant.tenant, &uid))
            return -EBADMSG;
        tenants_set_pages(w->tenants, tenant.tenant, tenant.n_pages);
        if (w->callbacks->spent && tenant.cost_ns > 0 && tenant.cost_ns < COST_NS_MAX)
            w->callbacks->spent(w, uid, tenant.cost_ns * (w->n_threads ? w->n_threads : 1), w->userdata);
    }
    while (step_next_piece(&it, &piece, &text, &extra)) {
        _cleanup_json_ json_object *object = NULL;

        if (piece.n_extra > 0) {
            int r = json_parse(extra, piece.n_extra, &limits, &object, NULL, NULL);

            if (r < 0)
                return r == -ENOMEM ? r : -EBADMSG;
            if (!json_object_is_type(object, json_type_object))
                return -EBADMSG;
        }
        if (w->callbacks->piece)
            w->callbacks->piece(w, &piece, text, object, w->userdata);
        if (w->freed)
            return 0;
    }
    if (w->callbacks->step)
        w->callbacks->step(w, p->step, w->userdata);
    return 0;
}

static int on_done(struct worker *w, const struct packet *p)
{
    _cleanup_json_ json_object *extra = NULL;
    int r = parse_blob(p, &extra);

    if (r < 0)
        return r;
    request_over(w, p->done->request);
    if (w->callbacks->done)
        w->callbacks->done(w, p->done, extra, w->userdata);
    return 0;
}

static int on_failed(struct worker *w, const struct packet *p)
{
    _cleanup_json_ json_object *object = NULL;
    json_object *error, *parameters = NULL;
    struct fault fault;
    int r = parse_blob(p, &object);

    if (r < 0)
        return r;
    if (!json_object_object_get_ex(object, "error", &error) || !json_object_is_type(error, json_type_string))
        return -EBADMSG;
    json_object_object_get_ex(object, "parameters", &parameters);
    if (fault_from_json(json_object_get_string(error), parameters, &fault) < 0)
        return -EBADMSG;
    request_over(w, p->failed->request);
    w->callbacks->failed(w, p->failed->request, &fault, w->userdata);
    return 0;
}

static int on_used(struct worker *w, const struct packet_used *used)
{
    uid_t uid;

    if (!w->adopted || !mark_uid(&w->owner->key, used->mark, &uid))
        return -EBADMSG;
    w->callbacks->used(w, uid, used, w->userdata);
    return 0;
}

static int on_log(struct worker *w, const struct packet *p)
{
    char text[1024];
    size_t n = p->n_blob < sizeof(text) ? p->n_blob : sizeof(text) - 1;

    memcpy(text, p->blob, n);
    text[n] = 0;
    if (w->callbacks->log)
        w->callbacks->log(w, (int)p->log->level, p->log->request, p->log->tenant, text, w->userdata);
    return 0;
}

static int on_pong(struct worker *w, const struct packet_pong *pong)
{
    uint64_t now_us;
    int r = sd_event_now(w->owner->event, CLOCK_MONOTONIC, &now_us);

    if (r < 0)
        return r;
    patience_begin(&w->silence, now_us);
    if (pong->busy_ns == 0 || pong->n_steps != w->i_step)
        patience_begin(&w->step, now_us);
    w->i_step = pong->n_steps;
    if (pong->busy_ns / 1000 > LIMIT_STEP_US + w->step.lost_us)
        mark_broken(w, "the worker is stuck in one step");
    return 0;
}

static int on_packet(struct worker *w, struct channel_packet *packet)
{
    const struct packet *p = &packet->p;

    switch (p->type) {
    case PACKET_HELLO:
        return on_hello(w, packet);
    case PACKET_FACTS:
    case PACKET_READY:
        return on_facts(w, p);
    case PACKET_PROGRESS:
        if (w->callbacks->progress)
            w->callbacks->progress(w, p->progress->bytes_done, p->progress->bytes_total, w->userdata);
        return 0;
    case PACKET_STEP:
        return on_step(w, p);
    case PACKET_DONE:
        return on_done(w, p);
    case PACKET_FAILED:
        return on_failed(w, p);
    case PACKET_USED:
        return on_used(w, p->used);
    case PACKET_LOG:
        return on_log(w, p);
    case PACKET_GPUS:
        return on_gpus(w, p);
    case PACKET_PONG:
        return on_pong(w, p->pong);
    default:
        return -EBADMSG; /* the channel lets no other through */
    }
}

/* ---- the loop ---- */

static void end(struct worker *w)
{
    w->link = sd_event_source_disable_unref(w->link);
    w->defer = sd_event_source_disable_unref(w->defer);
    /* A copy of the link may be in systemd's keeping: closing ours would not tell the worker. */
    shutdown(channel_fd(w->channel), SHUT_RDWR);
    w->channel = channel_free(w->channel);
    close_fds(w);
    if (w->exited || w->process.pidfd < 0) {
        release(w);
        return;
    }
    list_remove(&w->entry);
    list_append(&w->owner->ending, &w->entry);
    w->ping_cookie = 0;
    if (sd_event_source_set_time_relative(w->ping, LIMIT_WORKER_END_US) < 0 ||
        sd_event_source_set_enabled(w->ping, SD_EVENT_ONESHOT) < 0)
        kill_process(w);
}

static int on_link(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
    struct worker *w = userdata;
    int r = 0;

    w->dispatching = true;
    if (events & EPOLLOUT) {
        r = channel_flush(w->channel);
        if (r < 0 && r != -ENOMEM)
            mark_broken(w, "the link to the worker broke (%s)", strerror(-r));
        update_events(w);
    }
    for (int i = 0; i < PACKETS_IN_A_ROW && !w->broken[0] && !w->freed; i++) {
        struct channel_packet packet;

        r = channel_receive(w->channel, &packet);
        if (r == CHANNEL_NOTHING)
            break;
        if (r == CHANNEL_EOF) {
            mark_broken(w, "the worker closed its link");
            break;
        }
        if (r == 0) {
            r = on_packet(w, &packet);
            channel_packet_done(&packet);
        }
        if (r == -EBADMSG)
            mark_broken(w, "the worker broke the protocol (%s)",
                        channel_error(w->channel)[0] ? channel_error(w->channel) : "bad content");
        else if (r < 0)
            mark_broken(w, "the link to the worker broke (%s)", strerror(-r));
    }
    w->dispatching = false;
    if (w->freed)
        end(w);
    return 0;
}

static int on_process_end(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
    struct worker *w = userdata;

    reap(w);
    sd_event_source_set_enabled(s, SD_EVENT_OFF);
    if (w->freed) {
        release(w);
        return 0;
    }
    /* Only now, at a lower priority than the link: what it said last was heard. */
    mark_broken(w, "the worker ended");
    return 0;
}

static int on_ping(sd_event_source *s, uint64_t due_us, void *userdata)
{
    struct worker *w = userdata;
    struct packet_ping packet;
    uint64_t now;
    int r;

    if (w->freed) {
        kill_process(w);
        return 0;
    }
    if (w->waits_for_report) {
        say_gone(w);
        return 0;
    }
    /* Not @due_us, which lies in the past by as long as the loop stood still. */
    r = sd_event_now(w->owner->event, CLOCK_MONOTONIC, &now);
    if (r < 0)
        return r;
    /* After a standstill answers may lie there that were not read yet: at most one second counts of it, and they are
     * read before the next look. */
    if (patience_look(&w->silence, now, PING_INTERVAL_US) > (w->greeted ? LIMIT_PONG_US : LIMIT_HELLO_US))
        mark_broken(w, w->greeted ? "the worker does not answer" : "the worker did not start");
    patience_look(&w->step, now, PING_INTERVAL_US);
    if (w->broken[0])
        return 0;
    packet = (struct packet_ping){.cookie = ++w->ping_cookie};
    if (w->greeted && send_packet(w, PACKET_PING, &packet, sizeof(packet), NULL, 0) < 0)
        mark_broken(w, "out of memory");
    r = sd_event_source_set_time(s, now + PING_INTERVAL_US);
    return r < 0 ? r : sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

static int watch(struct worker *w)
{
    sd_event *event = w->owner->event;
    uint64_t now_us;
    int r;

    r = sd_event_now(event, CLOCK_MONOTONIC, &now_us);
    if (r < 0)
        return r;
    patience_begin(&w->silence, now_us);
    patience_begin(&w->step, now_us);
    r = sd_event_add_io(event, &w->link, channel_fd(w->channel), EPOLLIN, on_link, w);
    if (r < 0)
        return r;
    r = w->process.pidfd >= 0 ? watch_process(w) : 0;
    if (r < 0)
        return r;
    r = sd_event_add_time(event, &w->ping, CLOCK_MONOTONIC, now_us + PING_INTERVAL_US, 0, on_ping, w);
    if (r < 0)
        return r;
    r = sd_event_add_defer(event, &w->defer, on_broken, w);
    if (r < 0)
        return r;
    return sd_event_source_set_enabled(w->defer, SD_EVENT_OFF);
}

int worker_new(struct workers *owner, const struct worker_options *options, const struct worker_callbacks *callbacks,
               void *userdata, struct worker **ret)
{
    struct worker *w = calloc(1, sizeof(*w));
    int r;

    if (!w) {
        for (size_t i = 0; i < options->n_fds; i++)
            close(options->fds[i]);
        free((int *)(uintptr_t)options->fds);
        return -ENOMEM;
    }
    list_init(&w->entry);
    w->owner = owner;
    w->callbacks = callbacks;
    w->userdata = userdata;
    w->process = (struct worker_process){.link_fd = -EBADF, .pidfd = -EBADF};
    w->fds = (int *)(uintptr_t)options->fds;
    w->n_fds = options->n_fds;
    w->n_threads = options->n_threads;
    w->config = strdup(options->config);
    r = w->config ? tenants_new(&w->tenants) : -ENOMEM;
    if (r >= 0)
        r = worker_start(options->path, options->gpu, &w->process);
    if (r >= 0)
        r = channel_new(PROTO_DAEMON, TAKE_FD(w->process.link_fd), &w->channel);
    if (r >= 0)
        r = watch(w);
    if (r >= 0)
        r = channel_greet(w->channel, PACKET_HELLO, owner->epoch, RESIDENTD_BUILD);
    if (r < 0) {
        kill_process(w);
        reap(w);
        release(w);
        return r;
    }
    update_events(w);
    list_append(&owner->live, &w->entry);
    *ret = w;
    return 0;
}

int worker_adopt(struct workers *owner, const struct worker_adoption *adoption,
                 const struct worker_callbacks *callbacks, void *userdata, struct worker **ret)
{
    struct worker *w = calloc(1, sizeof(*w));
    int r;

    if (!w) {
        close(adoption->link_fd);
        return -ENOMEM;
    }
    list_init(&w->entry);
    w->owner = owner;
    w->callbacks = callbacks;
    w->userdata = userdata;
    w->process = (struct worker_process){.link_fd = -EBADF, .pidfd = -EBADF, .uid = (uid_t)-1};
    w->told = (struct worker_process){.pid = adoption->pid, .uid = adoption->uid};
    w->adopted = true;
    w->n_threads = adoption->n_threads;
    r = channel_new(PROTO_DAEMON, adoption->link_fd, &w->channel);
    if (r >= 0)
        r = tenants_new(&w->tenants);
    if (r >= 0)
        r = watch(w);
    if (r >= 0)
        r = channel_greet(w->channel, PACKET_RESET, owner->epoch, RESIDENTD_BUILD);
    if (r < 0) {
        release(w);
        return r;
    }
    update_events(w);
    list_append(&owner->live, &w->entry);
    *ret = w;
    return 0;
}

void worker_hold(struct worker *w, void *held, void (*unhold)(void *held))
{
    w->held = held;
    w->unhold = unhold;
}

struct worker *worker_leave(struct worker *w)
{
    if (w)
        release(w);
    return NULL;
}

int worker_link_fd(const struct worker *w)
{
    return w->channel && !w->process.is_child ? channel_fd(w->channel) : -EBADF;
}

uid_t worker_uid(const struct worker *w)
{
    return w->process.uid;
}

enum worker_end worker_end(const struct worker *w)
{
    return w->end;
}

bool worker_is_outdated(const struct worker *w)
{
    return w->outdated;
}

struct worker *worker_free(struct worker *w)
{
    if (!w)
        return NULL;
    w->told_gone = true;
    w->freed = true;
    if (!w->dispatching)
        end(w);
    return NULL;
}
