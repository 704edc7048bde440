/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The protocol between daemon and worker over a real socket pair: what passes comes out as it went in,
 * everything else is refused by the receiver, and no fd is lost on the way.
 */
#include "engine/proto/channel.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <syslog.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define EPOCH UINT64_C(0x1234567890)

struct pair {
    struct channel *daemon, *worker;
};

static size_t count_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    size_t n = 0;

    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static struct pair pair_new(void)
{
    struct pair p = {0};
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(channel_new(PROTO_DAEMON, fds[0], &p.daemon), 0);
    assert_int_equal(channel_new(PROTO_WORKER, fds[1], &p.worker), 0);
    return p;
}

static void pair_free(struct pair *p)
{
    channel_free(p->daemon);
    channel_free(p->worker);
}

static void receive(struct channel *c, enum packet_type type, struct channel_packet *ret)
{
    int r = channel_receive(c, ret);

    if (r < 0)
        print_error("%s\n", channel_error(c));
    assert_int_equal(r, 0);
    assert_int_equal(ret->p.type, type);
    assert_int_equal(ret->p.epoch, channel_context(c)->epoch);
}

static void swallow(struct channel *c, enum packet_type type)
{
    struct channel_packet got;

    receive(c, type, &got);
    channel_packet_done(&got);
}

static void send_fixed(struct channel *c, enum packet_type type, const void *fixed, size_t n_fixed,
                       const char *text)
{
    struct channel_blob blob = {text, text ? strlen(text) : 0};

    assert_int_equal(channel_send(c, type, fixed, n_fixed, &blob, 1, NULL, 0), 0);
}

#define SEND(c, packet, fixed, text) send_fixed(c, packet, &(fixed), sizeof(fixed), text)

/* Brings both sides to @state. */
static struct pair pair_in(enum proto_state state)
{
    struct pair p = pair_new();
    struct packet_model model = {0};
    struct packet_facts ready = {0};
    struct packet_drain drain = {0};
    struct channel_blob json = {"{}", 2};
    int fd;

    if (state == PROTO_STATE_NEW)
        return p;
    assert_int_equal(channel_greet(p.daemon, PACKET_HELLO, EPOCH, "test"), 0);
    swallow(p.worker, PACKET_HELLO);
    assert_int_equal(channel_answer(p.worker, "test"), 0);
    swallow(p.daemon, PACKET_HELLO);
    if (state >= PROTO_STATE_LOADING) {
        fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        assert_int_equal(channel_send(p.daemon, PACKET_MODEL, &model, sizeof(model), &json, 1, &fd, 1), 0);
        close(fd);
        swallow(p.worker, PACKET_MODEL);
    }
    if (state >= PROTO_STATE_READY) {
        SEND(p.worker, PACKET_READY, ready, "{}");
        swallow(p.daemon, PACKET_READY);
    }
    if (state == PROTO_STATE_DRAINING) {
        SEND(p.daemon, PACKET_DRAIN, drain, NULL);
        swallow(p.worker, PACKET_DRAIN);
    }
    assert_int_equal(channel_context(p.daemon)->state, state);
    assert_int_equal(channel_context(p.worker)->state, state);
    return p;
}

static void test_greeting(void **state)
{
    size_t n_fds = count_fds();
    struct pair p = pair_new();
    struct channel_packet got;
    const int on = 1;

    assert_int_equal(setsockopt(channel_fd(p.daemon), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
    assert_int_equal(channel_receive(p.worker, &got), CHANNEL_NOTHING);
    assert_int_equal(channel_greet(p.daemon, PACKET_HELLO, EPOCH, "0.1.0-abc"), 0);
    receive(p.worker, PACKET_HELLO, &got);
    assert_int_equal(got.p.hello->version, PROTO_VERSION);
    assert_int_equal(got.p.n_blob, 9);
    assert_memory_equal(got.p.blob, "0.1.0-abc", 9);
    channel_packet_done(&got);
    assert_int_equal(channel_context(p.worker)->state, PROTO_STATE_NEW);

    assert_int_equal(channel_answer(p.worker, "0.1.0-abd"), 0);
    assert_int_equal(channel_context(p.worker)->state, PROTO_STATE_HELLO);
    receive(p.daemon, PACKET_HELLO, &got);
    assert_true(got.has_credentials);
    assert_int_equal(got.credentials.pid, getpid());
    assert_int_equal(got.credentials.uid, getuid());
    channel_packet_done(&got);
    assert_int_equal(channel_context(p.daemon)->state, PROTO_STATE_HELLO);
    assert_int_equal(channel_context(p.daemon)->epoch, EPOCH);
    pair_free(&p);
    assert_int_equal(count_fds(), n_fds);
}

static void test_model_fds(void **state)
{
    size_t n_fds = count_fds();
    struct pair p = pair_in(PROTO_STATE_HELLO);
    struct packet_model model = {0};
    struct channel_blob json = {"{\"name\":\"m\"}", 12};
    struct channel_packet got;
    struct stat a, b;
    int fds[2], kept;

    fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    fds[1] = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    assert_int_equal(channel_send(p.daemon, PACKET_MODEL, &model, sizeof(model), &json, 1, fds, 2), 0);
    assert_int_equal(channel_context(p.daemon)->state, PROTO_STATE_LOADING);
    receive(p.worker, PACKET_MODEL, &got);
    assert_int_equal(got.n_fds, 2);
    assert_int_equal(fstat(fds[1], &a), 0);
    assert_int_equal(fstat(got.fds[1], &b), 0);
    assert_int_equal(a.st_rdev, b.st_rdev);
    assert_true(fcntl(got.fds[0], F_GETFD) & FD_CLOEXEC);
    assert_memory_equal(got.p.blob, json.data, 12);
    kept = TAKE_FD(got.fds[0]);
    channel_packet_done(&got);
    assert_int_equal(close(kept), 0);
    close(fds[0]);
    close(fds[1]);
    pair_free(&p);
    assert_int_equal(count_fds(), n_fds);
}

static void test_every_packet(void **state)
{
    struct pair p = pair_in(PROTO_STATE_LOADING);
    struct packet_threads threads = {.n_threads = 3};
    const struct packet_spent spent = {.tenant = 7, .cost_ns = 5000000000};
    struct packet_tenant tenant = {.tenant = 7, .weight = 100, .kv_max_bytes = 1 << 20, .mark = 99};
    struct packet_submit submit = {
        .request = 1, .tenant = 7, .priority = -3, .deadline_ns = UINT64_C(1) << 60, .kind = SUBMIT_CHAT};
    struct packet_request request = {.request = 1};
    struct packet_trim trim = {.bytes = 4096};
    struct packet_drain drain = {.deadline_ns = 9};
    struct packet_ping ping = {.cookie = 42};
    struct packet_facts facts = {0};
    struct packet_progress progress = {.bytes_done = 3, .bytes_total = 4};
    struct packet_done done = {.request = 1, .finish = DONE_LENGTH, .prompt_tokens = 5, .decode_ns = 6};
    struct packet_failed failed = {.request = 2};
    struct packet_log log = {.level = LOG_INFO, .tenant = 7};
    struct packet_pong pong = {.cookie = 42, .n_steps = 1};
    struct packet_used used = {.epoch = EPOCH - 1, .request = 3, .mark = 99, .age_ns = 5, .output_tokens = 6};
    struct channel_packet got;

    SEND(p.worker, PACKET_FACTS, facts, "{\"a\":1}");
    receive(p.daemon, PACKET_FACTS, &got);
    assert_int_equal(got.p.n_blob, 7);
    channel_packet_done(&got);
    SEND(p.worker, PACKET_PROGRESS, progress, NULL);
    receive(p.daemon, PACKET_PROGRESS, &got);
    assert_int_equal(got.p.progress->bytes_done, 3);
    channel_packet_done(&got);
    SEND(p.worker, PACKET_READY, facts, "{}");
    swallow(p.daemon, PACKET_READY);

    SEND(p.daemon, PACKET_THREADS, threads, NULL);
    receive(p.worker, PACKET_THREADS, &got);
    assert_int_equal(got.p.threads->n_threads, 3);
    channel_packet_done(&got);
    SEND(p.daemon, PACKET_TENANT, tenant, NULL);
    receive(p.worker, PACKET_TENANT, &got);
    assert_memory_equal(got.p.tenant, &tenant, sizeof(tenant));
    channel_packet_done(&got);
    SEND(p.daemon, PACKET_SPENT, spent, NULL);
    receive(p.worker, PACKET_SPENT, &got);
    assert_memory_equal(got.p.spent, &spent, sizeof(spent));
    channel_packet_done(&got);
    SEND(p.daemon, PACKET_SUBMIT, submit, "{\"prompt\":\"x\"}");
    receive(p.worker, PACKET_SUBMIT, &got);
    assert_memory_equal(got.p.submit, &submit, sizeof(submit));
    assert_memory_equal(got.p.blob, "{\"prompt\":\"x\"}", 14);
    channel_packet_done(&got);
    SEND(p.daemon, PACKET_CANCEL, request, NULL);
    SEND(p.daemon, PACKET_PAUSE, request, NULL);
    SEND(p.daemon, PACKET_RESUME, request, NULL);
    SEND(p.daemon, PACKET_TRIM, trim, NULL);
    SEND(p.daemon, PACKET_PING, ping, NULL);
    SEND(p.daemon, PACKET_DRAIN, drain, NULL);
    swallow(p.worker, PACKET_CANCEL);
    swallow(p.worker, PACKET_PAUSE);
    swallow(p.worker, PACKET_RESUME);
    receive(p.worker, PACKET_TRIM, &got);
    assert_int_equal(got.p.trim->bytes, 4096);
    channel_packet_done(&got);
    receive(p.worker, PACKET_PING, &got);
    assert_int_equal(got.p.ping->cookie, 42);
    channel_packet_done(&got);

    /* Crossing packets: the daemon drains already, the worker does not know yet. */
    SEND(p.worker, PACKET_DONE, done, "{\"tokens\":[1]}");
    receive(p.daemon, PACKET_DONE, &got);
    assert_memory_equal(got.p.done, &done, sizeof(done));
    channel_packet_done(&got);
    SEND(p.worker, PACKET_FAILED, failed, "{\"error\":\"x\"}");
    receive(p.daemon, PACKET_FAILED, &got);
    assert_int_equal(got.p.failed->request, 2);
    channel_packet_done(&got);
    SEND(p.worker, PACKET_LOG, log, "hello");
    receive(p.daemon, PACKET_LOG, &got);
    assert_memory_equal(got.p.blob, "hello", 5);
    channel_packet_done(&got);
    SEND(p.worker, PACKET_PONG, pong, NULL);
    receive(p.daemon, PACKET_PONG, &got);
    assert_memory_equal(got.p.pong, &pong, sizeof(pong));
    channel_packet_done(&got);
    SEND(p.worker, PACKET_USED, used, NULL);
    receive(p.daemon, PACKET_USED, &got);
    assert_memory_equal(got.p.used, &used, sizeof(used));
    channel_packet_done(&got);
    /* Of this daemon's own requests only DONE speaks. */
    used.epoch = EPOCH;
    assert_int_equal(channel_send(p.worker, PACKET_USED, &used, sizeof(used), NULL, 0, NULL, 0), -EINVAL);
    receive(p.worker, PACKET_DRAIN, &got);
    assert_int_equal(got.p.drain->deadline_ns, 9);
    channel_packet_done(&got);
    pair_free(&p);
}

/* Prompts and answers are not left where they came in. */
static void test_a_packets_memory_is_zeroed(void **state)
{
    struct pair p = pair_in(PROTO_STATE_READY);
    struct packet_submit submit = {.request = 1, .tenant = 7, .kind = SUBMIT_COMPLETE};
    struct channel_packet got;
    const char *at;

    SEND(p.daemon, PACKET_SUBMIT, submit, "{\"prompt\":\"a secret\"}");
    receive(p.worker, PACKET_SUBMIT, &got);
    at = got.p.blob;
    assert_memory_equal(at, "{\"prompt\":\"a secret\"}", 21);
    channel_packet_done(&got);
    assert_int_equal(channel_receive(p.worker, &got), CHANNEL_NOTHING);
    for (size_t i = 0; i < 21; i++)
        assert_int_equal(at[i], 0);
    pair_free(&p);
}

/* Two pieces and a tenant, as the worker builds them. Returns the number of bytes. */
static size_t build_step(char *to)
{
    struct step_tenant tenant = {.tenant = 9, .n_pages = 4, .cost_ns = 100, .n_prompt = 3, .n_output = 1};
    struct step_piece pieces[2] = {
        {.request = 1,
         .n_text = 3,
         .n_tokens = 5,
         .queue_position = STEP_NOT_WAITING,
         .eta_ms = STEP_ETA_UNKNOWN},
        {.request = 2, .n_extra = 2, .queue_position = 4, .eta_ms = 1500},
    };
    char *at = to;

    memcpy(at, &tenant, sizeof(tenant));
    at += sizeof(tenant);
    memcpy(at, &pieces[0], sizeof(pieces[0]));
    memcpy(at + sizeof(pieces[0]), "\xe2\x82\xac", 3);
    at += sizeof(pieces[0]) + 3;
    memcpy(at, &pieces[1], sizeof(pieces[1]));
    memcpy(at + sizeof(pieces[1]), "{}", 2);
    at += sizeof(pieces[1]) + 2;
    return (size_t)(at - to);
}

static void test_step(void **state)
{
    struct pair p = pair_in(PROTO_STATE_READY);
    struct packet_step step = {.n_steps = 11, .n_pieces = 2, .n_tenants = 1, .n_running = 1, .n_waiting = 1};
    struct channel_packet got;
    struct step_iterator it;
    struct step_tenant tenant;
    struct step_piece piece;
    const char *text, *extra;
    char bytes[256];
    struct channel_blob blob = {bytes, build_step(bytes)};

    assert_int_equal(channel_send(p.worker, PACKET_STEP, &step, sizeof(step), &blob, 1, NULL, 0), 0);
    receive(p.daemon, PACKET_STEP, &got);
    assert_int_equal(got.p.step->n_steps, 11);
    step_iterator_init(&it, &got.p);
    assert_true(step_next_tenant(&it, &tenant));
    assert_int_equal(tenant.cost_ns, 100);
    assert_false(step_next_tenant(&it, &tenant));
    assert_true(step_next_piece(&it, &piece, &text, &extra));
    assert_int_equal(piece.request, 1);
    assert_memory_equal(text, "\xe2\x82\xac", 3);
    assert_true(step_next_piece(&it, &piece, &text, &extra));
    assert_int_equal(piece.queue_position, 4);
    assert_memory_equal(extra, "{}", 2);
    assert_false(step_next_piece(&it, &piece, &text, &extra));

    /* A second walk that skips the tenants. */
    step_iterator_init(&it, &got.p);
    assert_true(step_next_piece(&it, &piece, &text, &extra));
    assert_int_equal(piece.n_tokens, 5);
    channel_packet_done(&got);
    pair_free(&p);
}

/* Sends raw bytes to the other side's channel, past all checks of ours. */
static void send_raw(struct channel *c, const void *head, size_t n_head, const void *body, size_t n_body,
                     const int *fds, size_t n_fds)
{
    struct iovec iov[2] = {{(void *)head, n_head}, {(void *)body, n_body}};
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(200 * sizeof(int))];
    } control = {0};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};

    if (n_fds > 0) {
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        control.align.cmsg_level = SOL_SOCKET;
        control.align.cmsg_type = SCM_RIGHTS;
        control.align.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(&control.align), fds, n_fds * sizeof(int));
    }
    assert_true(sendmsg(channel_fd(c), &msg, MSG_NOSIGNAL) >= 0);
}

static void refuse(struct channel *c)
{
    struct channel_packet got;

    assert_int_equal(channel_receive(c, &got), -EBADMSG);
    assert_true(strlen(channel_error(c)) > 0);
}

static void test_truncated_step(void **state)
{
    size_t n_fds = count_fds();
    struct {
        struct packet_head head;
        struct packet_step step;
        char blob[256];
    } raw = {.step = {.n_pieces = 2, .n_tenants = 1}};
    size_t n_blob = build_step(raw.blob);

    /* Cut at every byte, with a head that says so: all but the whole are refused. */
    for (size_t n = 0; n <= n_blob; n++) {
        struct pair p = pair_in(PROTO_STATE_READY);

        raw.head = (struct packet_head){PACKET_STEP, 0, (uint32_t)(sizeof(raw.step) + n), EPOCH};
        send_raw(p.worker, &raw, sizeof(raw.head) + sizeof(raw.step) + n, NULL, 0, NULL, 0);
        if (n < n_blob)
            refuse(p.daemon);
        else
            swallow(p.daemon, PACKET_STEP);
        pair_free(&p);
    }
    /* Cut at every byte, with a head that promises the whole. */
    raw.head.n_bytes = (uint32_t)(sizeof(raw.step) + n_blob);
    for (size_t n = 1; n < sizeof(raw.head) + sizeof(raw.step) + n_blob; n++) {
        struct pair p = pair_in(PROTO_STATE_READY);

        send_raw(p.worker, &raw, n, NULL, 0, NULL, 0);
        refuse(p.daemon);
        pair_free(&p);
    }
    assert_int_equal(count_fds(), n_fds);
}

static void test_truncated_all(void **state)
{
    /* Every type with a body one byte shorter than its fixed part, in a state in which it is legal. */
    static const struct {
        enum packet_type type;
        enum proto_side from;
        enum proto_state in;
        size_t n_fixed;
    } cases[] = {
        {PACKET_THREADS, PROTO_DAEMON, PROTO_STATE_READY, sizeof(struct packet_threads)},
        {PACKET_TENANT, PROTO_DAEMON, PROTO_STATE_READY, sizeof(struct packet_tenant)},
        {PACKET_SPENT, PROTO_DAEMON, PROTO_STATE_READY, sizeof(struct packet_spent)},
        {PACKET_SUBMIT, PROTO_DAEMON, PROTO_STATE_READY, sizeof(struct packet_submit)},
        {PACKET_CANCEL, PROTO_DAEMON, PROTO_STATE_READY, sizeof(struct packet_request)},
        {PACKET_TRIM, PROTO_DAEMON, PROTO_STATE_READY, sizeof(struct packet_trim)},
        {PACKET_DRAIN, PROTO_DAEMON, PROTO_STATE_READY, sizeof(struct packet_drain)},
        {PACKET_PING, PROTO_DAEMON, PROTO_STATE_READY, sizeof(struct packet_ping)},
        {PACKET_FACTS, PROTO_WORKER, PROTO_STATE_LOADING, sizeof(struct packet_facts)},
        {PACKET_PROGRESS, PROTO_WORKER, PROTO_STATE_LOADING, sizeof(struct packet_progress)},
        {PACKET_READY, PROTO_WORKER, PROTO_STATE_LOADING, sizeof(struct packet_facts)},
        {PACKET_DONE, PROTO_WORKER, PROTO_STATE_READY, sizeof(struct packet_done)},
        {PACKET_FAILED, PROTO_WORKER, PROTO_STATE_READY, sizeof(struct packet_failed)},
        {PACKET_LOG, PROTO_WORKER, PROTO_STATE_READY, sizeof(struct packet_log)},
        {PACKET_PONG, PROTO_WORKER, PROTO_STATE_READY, sizeof(struct packet_pong)},
        {PACKET_USED, PROTO_WORKER, PROTO_STATE_READY, sizeof(struct packet_used)},
    };
    char zeros[128] = {0};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pair p = pair_in(cases[i].in);
        struct packet_head head = {(uint16_t)cases[i].type, 0, (uint32_t)cases[i].n_fixed - 1, EPOCH};
        bool daemon = cases[i].from == PROTO_DAEMON;

        send_raw(daemon ? p.daemon : p.worker, &head, sizeof(head), zeros, cases[i].n_fixed - 1, NULL, 0);
        refuse(daemon ? p.worker : p.daemon);
        pair_free(&p);
    }
}

static void test_violations(void **state)
{
    struct packet_ping ping = {.cookie = 1};
    struct packet_submit submit = {.request = 1};
    struct packet_pong pong = {0};
    /* What is wrong with each is in its row; every one alone ends the connection. */
    const struct {
        enum proto_state in;
        struct packet_head head;
        const void *body;
        size_t n_body;
    } cases[] = {
        {PROTO_STATE_READY, {0, 0, 8, EPOCH}, &ping, 8},                                 /* unknown type */
        {PROTO_STATE_READY, {PACKET_TYPE_MAX, 0, 8, EPOCH}, &ping, 8},                   /* unknown type */
        {PROTO_STATE_READY, {PACKET_PONG, 0, sizeof(pong), EPOCH}, &pong, sizeof(pong)}, /* direction */
        {PROTO_STATE_READY, {PACKET_PING, 2, 8, EPOCH}, &ping, 8},                       /* unknown flag */
        {PROTO_STATE_READY, {PACKET_PING, 0, 8, 0}, &ping, 8},                           /* epoch 0 */
        {PROTO_STATE_READY, {PACKET_PING, 0, 8, EPOCH - 1}, &ping, 8},   /* older epoch to the worker */
        {PROTO_STATE_READY, {PACKET_PING, 0, 8, EPOCH + 1}, &ping, 8},   /* epoch never given */
        {PROTO_STATE_READY, {PACKET_PING, 0, 9, EPOCH}, "123456789", 9}, /* too long */
        {PROTO_STATE_READY, {PACKET_PING, PACKET_FLAG_MEMFD, 8, EPOCH}, "", 0}, /* memfd for a short one */
        {PROTO_STATE_LOADING, {PACKET_SUBMIT, 0, sizeof(submit), EPOCH}, &submit, sizeof(submit)}, /* state */
        {PROTO_STATE_DRAINING,
         {PACKET_SUBMIT, 0, sizeof(submit), EPOCH},
         &submit,
         sizeof(submit)},                                                          /* state */
        {PROTO_STATE_READY, {PACKET_CANCEL, 0, 8, EPOCH}, "\0\0\0\0\0\0\0\0", 8},  /* request 0 */
        {PROTO_STATE_READY, {PACKET_THREADS, 0, 8, EPOCH}, "\1\0\0\0\1\0\0\0", 8}, /* reserved */
        {PROTO_STATE_READY, {PACKET_THREADS, 0, 8, EPOCH}, "\0\0\0\0\0\0\0\0", 8}, /* no thread */
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pair p = pair_in(cases[i].in);

        send_raw(p.daemon, &cases[i].head, sizeof(struct packet_head), cases[i].body, cases[i].n_body, NULL,
                 0);
        refuse(p.worker);
        pair_free(&p);
    }
}

static void test_hello_checked(void **state)
{
    const struct {
        struct packet_hello hello;
        const char *build;
    } cases[] = {
        {{PROTO_MAGIC + 1, PROTO_VERSION, 0, 0}, "x"}, {{PROTO_MAGIC, 0, 0, 0}, "x"},
        {{PROTO_MAGIC, PROTO_VERSION, 1, 0}, "x"},     {{PROTO_MAGIC, PROTO_VERSION, 0, 1}, "x"},
        {{PROTO_MAGIC, PROTO_VERSION, 0, 0}, "x\n"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pair p = pair_new();
        size_t n = strlen(cases[i].build);
        struct packet_head head = {PACKET_HELLO, 0, (uint32_t)(sizeof(struct packet_hello) + n), EPOCH};
        char body[64];

        memcpy(body, &cases[i].hello, sizeof(struct packet_hello));
        memcpy(body + sizeof(struct packet_hello), cases[i].build, n);
        send_raw(p.daemon, &head, sizeof(head), body, sizeof(struct packet_hello) + n, NULL, 0);
        refuse(p.worker);
        pair_free(&p);
    }
}

static void test_other_version(void **state)
{
    struct pair p = pair_new();
    struct {
        struct packet_head head;
        struct packet_hello hello;
    } raw = {{PACKET_HELLO, 0, sizeof(struct packet_hello), EPOCH}, {PROTO_MAGIC, PROTO_VERSION + 1, 0, 0}};
    struct packet_head head = {PACKET_PING, 0, 8, EPOCH};
    struct channel_packet got;

    /* The greeting itself is understood, so that either side can say why it ends; nothing after it is. */
    send_raw(p.daemon, &raw, sizeof(raw), NULL, 0, NULL, 0);
    receive(p.worker, PACKET_HELLO, &got);
    assert_int_equal(got.p.hello->version, PROTO_VERSION + 1);
    channel_packet_done(&got);
    assert_int_equal(channel_answer(p.worker, "x"), 0);
    send_raw(p.daemon, &head, sizeof(head), "12345678", 8, NULL, 0);
    refuse(p.worker);
    pair_free(&p);
}

static void test_unexpected_fds(void **state)
{
    size_t n_fds = count_fds();
    struct pair p = pair_in(PROTO_STATE_READY);
    struct packet_head head = {PACKET_PING, 0, 8, EPOCH};
    int fds[200];

    for (size_t i = 0; i < 200; i++)
        fds[i] = STDERR_FILENO;
    send_raw(p.daemon, &head, sizeof(head), "12345678", 8, fds, 1);
    refuse(p.worker);
    pair_free(&p);

    /* More than any packet may have: the kernel says that it cut them off. */
    p = pair_in(PROTO_STATE_HELLO);
    head = (struct packet_head){PACKET_MODEL, 0, 8, EPOCH};
    send_raw(p.daemon, &head, sizeof(head), "\0\0\0\0\0\0\0\0", 8, fds, 200);
    refuse(p.worker);
    pair_free(&p);

    p = pair_in(PROTO_STATE_HELLO);
    send_raw(p.daemon, &head, sizeof(head), "\0\0\0\0\0\0\0\0", 8, fds, PROTO_FDS_MAX + 1);
    refuse(p.worker);
    pair_free(&p);

    assert_int_equal(count_fds(), n_fds);
}

static void test_memfd(void **state)
{
    size_t n_fds = count_fds(), n_text = 200 << 10;
    struct pair p = pair_in(PROTO_STATE_READY);
    struct packet_submit submit = {.request = 1, .kind = SUBMIT_COMPLETE};
    char *text = malloc(n_text);
    struct channel_blob blob = {text, n_text};
    struct channel_packet got;

    assert_non_null(text);
    for (size_t i = 0; i < n_text; i++)
        text[i] = (char)('a' + i % 23);
    assert_int_equal(channel_send(p.daemon, PACKET_SUBMIT, &submit, sizeof(submit), &blob, 1, NULL, 0), 0);
    receive(p.worker, PACKET_SUBMIT, &got);
    assert_int_equal(got.p.n_blob, n_text);
    assert_memory_equal(got.p.blob, text, n_text);
    assert_int_equal(got.n_fds, 0);
    channel_packet_done(&got);

    /* The largest that is allowed for its type, and one byte more. */
    free(text);
    text = calloc(1, (24 << 20) + 1);
    assert_non_null(text);
    blob = (struct channel_blob){text, 24 << 20};
    assert_int_equal(channel_send(p.daemon, PACKET_SUBMIT, &submit, sizeof(submit), &blob, 1, NULL, 0), 0);
    swallow(p.worker, PACKET_SUBMIT);
    blob.n_bytes++;
    assert_int_equal(channel_send(p.daemon, PACKET_SUBMIT, &submit, sizeof(submit), &blob, 1, NULL, 0),
                     -EINVAL);
    free(text);
    pair_free(&p);
    assert_int_equal(count_fds(), n_fds);
}

static void test_memfd_must_be_sealed(void **state)
{
    size_t n_fds = count_fds();
    const uint32_t n_bytes = PROTO_INLINE_MAX + 1;
    struct packet_submit submit = {.request = 1};
    const int all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
    /* Length of the memfd, its seals, whether it is sent at all. */
    const struct {
        off_t n_memfd;
        int seals;
        bool sent;
    } cases[] = {
        {n_bytes, all, true},
        {n_bytes, all & ~F_SEAL_WRITE, true},
        {n_bytes, all & ~F_SEAL_SHRINK, true},
        {n_bytes, all & ~F_SEAL_GROW, true},
        {n_bytes, all & ~F_SEAL_SEAL, true},
        {n_bytes - 1, all, true},
        {n_bytes + 1, all, true},
        {n_bytes, all, false},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pair p = pair_in(PROTO_STATE_READY);
        struct packet_head head = {PACKET_SUBMIT, PACKET_FLAG_MEMFD, n_bytes, EPOCH};
        int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        assert_true(fd >= 0);
        assert_int_equal(pwrite(fd, &submit, sizeof(submit), 0), sizeof(submit));
        assert_int_equal(ftruncate(fd, cases[i].n_memfd), 0);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, cases[i].seals), 0);
        send_raw(p.daemon, &head, sizeof(head), NULL, 0, &fd, cases[i].sent ? 1 : 0);
        close(fd);
        if (i == 0)
            swallow(p.worker, PACKET_SUBMIT);
        else
            refuse(p.worker);
        pair_free(&p);
    }
    assert_int_equal(count_fds(), n_fds);
}

static void test_not_even_sent(void **state)
{
    struct pair p = pair_in(PROTO_STATE_HELLO);
    struct packet_submit submit = {.request = 1};
    struct packet_request request = {0};
    struct packet_pong pong = {0};
    struct channel_packet got;

    /* The sender refuses what the receiver would, and goes on. */
    assert_int_equal(channel_send(p.daemon, PACKET_SUBMIT, &submit, sizeof(submit), NULL, 0, NULL, 0),
                     -EINVAL);
    assert_int_equal(channel_send(p.daemon, PACKET_PONG, &pong, sizeof(pong), NULL, 0, NULL, 0), -EINVAL);
    assert_int_equal(channel_send(p.daemon, PACKET_HELLO, &pong, sizeof(pong), NULL, 0, NULL, 0), -EINVAL);
    assert_int_equal(channel_send(p.worker, PACKET_READY, &request, sizeof(request), NULL, 0, NULL, 0),
                     -EINVAL);
    assert_int_equal(channel_answer(p.worker, "again"), -EINVAL);
    assert_int_equal(channel_receive(p.worker, &got), CHANNEL_NOTHING);
    assert_int_equal(channel_receive(p.daemon, &got), CHANNEL_NOTHING);
    pair_free(&p);
}

static void test_reset(void **state)
{
    struct pair p = pair_in(PROTO_STATE_READY);
    struct packet_submit submit = {.request = 1};
    struct packet_pong pong = {0};
    struct packet_facts facts = {0};
    struct channel *next;
    struct channel_packet got;
    int fd;

    /* A new daemon takes the link over while an old answer is still on its way. */
    SEND(p.worker, PACKET_PONG, pong, NULL);
    fd = fcntl(channel_fd(p.daemon), F_DUPFD_CLOEXEC, 0);
    p.daemon = channel_free(p.daemon);
    assert_int_equal(channel_new(PROTO_DAEMON, fd, &next), 0);
    p.daemon = next;
    assert_int_equal(channel_greet(p.daemon, PACKET_RESET, EPOCH + 1, "new"), 0);
    assert_int_equal(channel_receive(p.daemon, &got), CHANNEL_NOTHING); /* the stale PONG is dropped */
    assert_int_equal(channel_send(p.daemon, PACKET_SUBMIT, &submit, sizeof(submit), NULL, 0, NULL, 0),
                     -EINVAL);

    receive(p.worker, PACKET_RESET, &got);
    assert_int_equal(got.p.epoch, EPOCH + 1);
    channel_packet_done(&got);
    assert_int_equal(channel_context(p.worker)->state, PROTO_STATE_READY);
    assert_int_equal(channel_answer(p.worker, "old"), 0);
    receive(p.daemon, PACKET_HELLO, &got);
    assert_int_equal(got.p.hello->state, PROTO_STATE_READY);
    channel_packet_done(&got);
    assert_int_equal(channel_context(p.daemon)->state, PROTO_STATE_READY);
    SEND(p.worker, PACKET_FACTS, facts, "{}");
    swallow(p.daemon, PACKET_FACTS);
    SEND(p.daemon, PACKET_SUBMIT, submit, "{}");
    swallow(p.worker, PACKET_SUBMIT);

    /* Not backwards, and not to the same. */
    struct packet_hello hello = {.magic = PROTO_MAGIC, .version = PROTO_VERSION};
    struct packet_head head = {PACKET_RESET, 0, sizeof(hello), EPOCH + 1};

    send_raw(p.daemon, &head, sizeof(head), &hello, sizeof(hello), NULL, 0);
    refuse(p.worker);
    pair_free(&p);
}

static void test_never_blocks(void **state)
{
    size_t n_fds = count_fds();
    struct pair p = pair_in(PROTO_STATE_READY);
    struct packet_log log = {.level = LOG_INFO};
    char text[4000];
    struct channel_blob blob = {text, sizeof(text)};
    struct channel_packet got;
    uint64_t sent = 0, received = 0;
    int r;

    /* Nobody reads: the socket fills up, then the queue, then it is an error. */
    memset(text, 'x', sizeof(text));
    for (;;) {
        log.request = sent + 1;
        r = channel_send(p.worker, PACKET_LOG, &log, sizeof(log), &blob, 1, NULL, 0);
        if (r < 0)
            break;
        sent++;
        assert_true(channel_queued_bytes(p.worker) <= CHANNEL_QUEUE_BYTES_MAX);
    }
    assert_int_equal(r, -ENOBUFS);
    assert_true(sent > CHANNEL_QUEUE_BYTES_MAX / 5000);
    assert_true(channel_events(p.worker) & POLLOUT);

    /* All of it arrives, in order. */
    while ((r = channel_flush(p.worker)) >= 0) {
        int n;

        while ((n = channel_receive(p.daemon, &got)) == 0) {
            assert_int_equal(got.p.log->request, ++received);
            channel_packet_done(&got);
        }
        assert_int_equal(n, CHANNEL_NOTHING);
        if (r == 0)
            break;
    }
    assert_int_equal(received, sent);
    assert_int_equal(channel_queued_bytes(p.worker), 0);
    assert_int_equal(channel_events(p.worker), POLLIN);
    pair_free(&p);
    assert_int_equal(count_fds(), n_fds);
}

static void test_queued_fds(void **state)
{
    size_t n_fds = count_fds();
    struct pair p = pair_in(PROTO_STATE_HELLO);
    struct packet_ping ping = {0};
    struct packet_model model = {0};
    struct channel_packet got;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    while (!(channel_events(p.daemon) & POLLOUT))
        SEND(p.daemon, PACKET_PING, ping, NULL);
    assert_int_equal(channel_send(p.daemon, PACKET_MODEL, &model, sizeof(model), NULL, 0, &fd, 1), 0);
    close(fd);
    for (;;) {
        assert_true(channel_flush(p.daemon) >= 0);
        assert_int_equal(channel_receive(p.worker, &got), 0);
        if (got.p.type == PACKET_MODEL)
            break;
        channel_packet_done(&got);
    }
    assert_int_equal(got.n_fds, 1);
    channel_packet_done(&got);

    /* What waits when the channel ends is closed with it. */
    fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    p.worker = channel_free(p.worker);
    close(fd);
    pair_free(&p);
    assert_int_equal(count_fds(), n_fds);
}

static void test_eof(void **state)
{
    struct pair p = pair_in(PROTO_STATE_READY);
    struct packet_ping ping = {0};
    struct channel_packet got;

    p.daemon = channel_free(p.daemon);
    assert_int_equal(channel_receive(p.worker, &got), CHANNEL_EOF);
    pair_free(&p);

    p = pair_in(PROTO_STATE_READY);
    p.worker = channel_free(p.worker);
    assert_true(channel_send(p.daemon, PACKET_PING, &ping, sizeof(ping), NULL, 0, NULL, 0) < 0);
    pair_free(&p);
}

static void test_only_seqpacket(void **state)
{
    struct channel *c;
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(channel_new(PROTO_WORKER, fds[0], &c), -EINVAL);
    assert_int_equal(fcntl(fds[0], F_GETFD), -1); /* consumed */
    close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greeting),
        cmocka_unit_test(test_model_fds),
        cmocka_unit_test(test_every_packet),
        cmocka_unit_test(test_a_packets_memory_is_zeroed),
        cmocka_unit_test(test_step),
        cmocka_unit_test(test_truncated_step),
        cmocka_unit_test(test_truncated_all),
        cmocka_unit_test(test_violations),
        cmocka_unit_test(test_hello_checked),
        cmocka_unit_test(test_other_version),
        cmocka_unit_test(test_unexpected_fds),
        cmocka_unit_test(test_memfd),
        cmocka_unit_test(test_memfd_must_be_sealed),
        cmocka_unit_test(test_not_even_sent),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_never_blocks),
        cmocka_unit_test(test_queued_fds),
        cmocka_unit_test(test_eof),
        cmocka_unit_test(test_only_seqpacket),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
