/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The link thread. The channel is shared under @lock, which is held for non-blocking calls only; a greeting
 * is received and answered without letting it go, so that no other thread can put a packet of the new epoch
 * before the HELLO.
 */
#include "engine/worker/link.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/utf8.h"
#include "base/wipe.h"
#include "engine/proto/channel.h"
#include "engine/worker/clock.h"
#include "engine/worker/intake.h"
#include "engine/worker/watchdog.h"

/* A daemon that lives says so more often than this (design: the fd store keeps the link open when it has
 * died). */
#define PING_MISSING_NS UINT64_C(2000000000)
/* How long the last words may take. */
#define FINISH_NS UINT64_C(5000000000)

struct link {
    pthread_mutex_t lock;
    struct channel *channel;
    char *facts;
    size_t n_facts;

    struct intake *intake;
    const struct log *log;
    const char *build;
    int wake_fd; /* eventfd: something waits that the link thread has to send */

    /* Statistics only: relaxed. */
    _Atomic uint64_t n_steps, step_began_ns;

    /* Of the link thread. */
    uint64_t ping_ns; /* when the last one came, 0: none yet */
    bool parked;
    struct watchdog watchdog;
};

/* The process ends here and now: other threads may be in the middle of anything, and nothing is to be saved.
 */
static _Noreturn void die(struct link *l, const char *why)
{
    if (why)
        log_line(l->log, LOG_ERR, NULL, "worker ends: %s", why);
    _exit(why ? EXIT_FAILURE : EXIT_SUCCESS);
}

/* What a call on the channel came to, if it is the end. */
static void check(struct link *l, int r)
{
    if (r >= 0)
        return;
    if (r == -EPIPE || r == -ECONNRESET || r == -ENOTCONN)
        die(l, NULL);
    if (r == -EBADMSG || r == -EINVAL)
        die(l, channel_error(l->channel));
    die(l, r == -ENOBUFS ? "the daemon does not read" : strerrordesc_np(-r));
}

int link_new(int fd_take, struct intake *intake, const struct log *log, const char *build,
             const struct watchdog *watchdog, struct link **ret)
{
    struct link *l = calloc(1, sizeof(*l));
    int r;

    if (!l) {
        close(fd_take);
        return -ENOMEM;
    }
    r = channel_new(PROTO_WORKER, fd_take, &l->channel);
    if (r < 0) {
        free(l);
        return r;
    }
    l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->wake_fd < 0) {
        r = -errno;
        channel_free(l->channel);
        free(l);
        return r;
    }
    pthread_mutex_init(&l->lock, NULL);
    l->intake = intake;
    l->log = log;
    l->build = build;
    l->watchdog = *watchdog;
    *ret = l;
    return 0;
}

/* With the lock held: if something waits, the link thread has to poll for it. */
static void wake_if_waiting(struct link *l)
{
    const uint64_t one = 1;

    if ((channel_events(l->channel) & POLLOUT) && write(l->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
        die(l, "eventfd");
}

void link_send(struct link *l, uint64_t epoch, enum packet_type type, const void *fixed, size_t n_fixed,
               const void *blob, size_t n_blob)
{
    const struct channel_blob b = {.data = blob, .n_bytes = n_blob};
    const struct proto_context *c;

    pthread_mutex_lock(&l->lock);
    c = channel_context(l->channel);
    if (epoch == LINK_EPOCH_ANY || epoch == c->epoch) {
        check(l, channel_send(l->channel, type, fixed, n_fixed, &b, n_blob > 0 ? 1 : 0, NULL, 0));
        wake_if_waiting(l);
    }
    pthread_mutex_unlock(&l->lock);
}

void link_log(int level, const struct log_fields *fields, const char *text, void *link)
{
    const struct packet_log p = {.level = (uint32_t)level, .tenant = fields->tenant, .request = fields->request};
    size_t n = strlen(text);

    /* A reason may quote bytes of a file, and a packet of another text would be the end of the link. */
    if (utf8_is_valid(text, n, NULL))
        link_send(link, LINK_EPOCH_ANY, PACKET_LOG, &p, sizeof(p), text, n);
    else
        link_send(link, LINK_EPOCH_ANY, PACKET_LOG, &p, sizeof(p), "a line that is no UTF-8", 23);
}

/* With the lock held. */
static void send_facts(struct link *l)
{
    const struct packet_facts facts = {0};
    const struct channel_blob b = {.data = l->facts, .n_bytes = l->n_facts};

    if (l->facts)
        check(l, channel_send(l->channel, PACKET_FACTS, &facts, sizeof(facts), &b, 1, NULL, 0));
}

int link_set_facts(struct link *l, const char *text, size_t n)
{
    char *copy = malloc(n + 1);

    if (!copy)
        return -ENOMEM;
    memcpy(copy, text, n);
    pthread_mutex_lock(&l->lock);
    free(l->facts);
    l->facts = copy;
    l->n_facts = n;
    send_facts(l);
    wake_if_waiting(l);
    pthread_mutex_unlock(&l->lock);
    return 0;
}

uint64_t link_backlog(struct link *l)
{
    uint64_t r;

    pthread_mutex_lock(&l->lock);
    r = channel_queued_bytes(l->channel);
    pthread_mutex_unlock(&l->lock);
    return r;
}

void link_step_begins(struct link *l, uint64_t now_ns)
{
    atomic_store_explicit(&l->step_began_ns, now_ns, memory_order_relaxed);
}

void link_step_ends(struct link *l)
{
    atomic_store_explicit(&l->step_began_ns, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&l->n_steps, 1, memory_order_relaxed);
}

uint64_t link_n_steps(const struct link *l)
{
    return atomic_load_explicit(&l->n_steps, memory_order_relaxed);
}

static void pong(struct link *l, uint64_t cookie, uint64_t now_ns)
{
    uint64_t began_ns = atomic_load_explicit(&l->step_began_ns, memory_order_relaxed);
    const struct packet_pong p = {
        .cookie = cookie,
        .n_steps = link_n_steps(l),
        .busy_ns = began_ns > 0 && now_ns > began_ns ? now_ns - began_ns : 0,
    };

    link_send(l, LINK_EPOCH_ANY, PACKET_PONG, &p, sizeof(p), NULL, 0);
}

static int take_model(struct link *l, struct channel_packet *p)
{
    struct command c = {.kind = COMMAND_MODEL, .epoch = p->p.epoch};
    int r;

    c.model.json = malloc(p->p.n_blob + 1);
    c.model.fds = calloc(p->n_fds + 1, sizeof(int));
    c.model.n_json = p->p.n_blob;
    if (!c.model.json || !c.model.fds) {
        free(c.model.json);
        free(c.model.fds);
        return -ENOMEM;
    }
    memcpy(c.model.json, p->p.blob, p->p.n_blob);
    for (size_t i = 0; i < p->n_fds; i++)
        c.model.fds[i] = TAKE_FD(p->fds[i]);
    c.model.n_fds = p->n_fds;
    r = intake_post(l->intake, &c);
    return r;
}

static int cancel(struct link *l, const struct packet *p)
{
    const struct packet_done done = {.request = p->request->request, .finish = DONE_CANCELLED};
    int r = intake_cancel(l->intake, done.request, p->epoch);

    if (r == 1)
        link_send(l, p->epoch, PACKET_DONE, &done, sizeof(done), NULL, 0);
    return r < 0 ? r : 0;
}

static int post(struct link *l, struct command c, const struct packet *p)
{
    c.epoch = p->epoch;
    return intake_post(l->intake, &c);
}

static int handle(struct link *l, struct channel_packet *received)
{
    const struct packet *p = &received->p;

    switch (p->type) {
    case PACKET_PING:
        l->ping_ns = clock_now_ns();
        if (l->parked)
            intake_park(l->intake, false);
        l->parked = false;
        pong(l, p->ping->cookie, l->ping_ns);
        return 0;
    case PACKET_RESET:
        return intake_reset(l->intake, p->epoch);
    case PACKET_MODEL:
        return take_model(l, received);
    case PACKET_SUBMIT:
        return intake_submit(l->intake, p->submit, p->epoch, p->blob, p->n_blob);
    case PACKET_CANCEL:
        return cancel(l, p);
    case PACKET_TENANT:
        return intake_tenant(l->intake, p->tenant, p->epoch);
    case PACKET_SPENT:
        return post(l, (struct command){.kind = COMMAND_SPENT, .spent = *p->spent}, p);
    case PACKET_PAUSE:
        return post(l, (struct command){.kind = COMMAND_PAUSE, .request = p->request->request}, p);
    case PACKET_RESUME:
        return post(l, (struct command){.kind = COMMAND_RESUME, .request = p->request->request}, p);
    case PACKET_THREADS:
        return post(l, (struct command){.kind = COMMAND_THREADS, .n_threads = p->threads->n_threads}, p);
    case PACKET_TRIM:
        return post(l, (struct command){.kind = COMMAND_TRIM, .bytes = p->trim->bytes}, p);
    case PACKET_DRAIN:
        return post(l, (struct command){.kind = COMMAND_DRAIN, .deadline_ns = p->drain->deadline_ns}, p);
    default:
        /* HELLO has been answered already, and the channel lets no other through. */
        return 0;
    }
}

/* Receives and handles one packet. Returns false when there was none. */
static bool receive(struct link *l)
{
    struct channel_packet p;
    int r;

    pthread_mutex_lock(&l->lock);
    r = channel_receive(l->channel, &p);
    if (r == 0 && (p.p.type == PACKET_HELLO || p.p.type == PACKET_RESET)) {
        check(l, channel_answer(l->channel, l->build));
        /* A daemon that takes over a loaded model; whoever sees another version will end this process. */
        if (p.p.hello->version == PROTO_VERSION && channel_context(l->channel)->state >= PROTO_STATE_LOADING)
            send_facts(l);
        wake_if_waiting(l);
    }
    pthread_mutex_unlock(&l->lock);
    if (r == CHANNEL_NOTHING)
        return false;
    if (r == CHANNEL_EOF)
        die(l, NULL);
    check(l, r);
    r = handle(l, &p);
    channel_packet_done(&p);
    check(l, r);
    return true;
}

static void *run(void *userdata)
{
    struct link *l = userdata;
    uint64_t count;

    for (;;) {
        struct pollfd fds[2] = {{.fd = channel_fd(l->channel)}, {.fd = l->wake_fd, .events = POLLIN}};
        int timeout_ms = l->ping_ns > 0 && !l->parked ? (int)(PING_MISSING_NS / 4 / 1000000) : -1;
        int watchdog_ms = watchdog_feed(&l->watchdog, clock_now_ns());

        if (watchdog_ms >= 0 && (timeout_ms < 0 || watchdog_ms < timeout_ms))
            timeout_ms = watchdog_ms;

        pthread_mutex_lock(&l->lock);
        fds[0].events = channel_events(l->channel);
        pthread_mutex_unlock(&l->lock);
        if (poll(fds, 2, timeout_ms) < 0 && errno != EINTR)
            die(l, strerrordesc_np(errno));
        if (fds[1].revents && read(l->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
            die(l, "eventfd");
        if (fds[0].revents & POLLOUT) {
            int r;

            pthread_mutex_lock(&l->lock);
            r = channel_flush(l->channel);
            pthread_mutex_unlock(&l->lock);
            check(l, r);
            intake_wake(l->intake);
        }
        if (fds[0].revents & ~POLLOUT)
            while (receive(l))
                ;
        wipe_stack();
        if (l->ping_ns > 0 && !l->parked && clock_now_ns() - l->ping_ns > PING_MISSING_NS) {
            l->parked = true;
            intake_park(l->intake, true);
        }
    }
    return NULL;
}

int link_start(struct link *l)
{
    pthread_attr_t attr;
    pthread_t thread;
    int r;

    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    r = pthread_create(&thread, &attr, run, l);
    pthread_attr_destroy(&attr);
    return -r;
}

_Noreturn void link_finish(struct link *l, int status)
{
    uint64_t until_ns = clock_now_ns() + FINISH_NS;

    while (link_backlog(l) > 0 && clock_now_ns() < until_ns) {
        const struct timespec pause = {.tv_nsec = 5000000};

        nanosleep(&pause, NULL);
    }
    _exit(status);
}
