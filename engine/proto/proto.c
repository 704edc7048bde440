/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The table of packets: who sends them, in which states they are legal, how long they may be, how many fds
 * they bring; and the checks that need nothing but bytes. Used by channel.c on both sides, for what is sent
 * and for what is received, and by the fuzzer.
 */
#include "engine/proto/proto.h"

#include <errno.h>
#include <string.h>
#include <syslog.h>

#include "base/checked.h"
#include "base/reader.h"
#include "base/utf8.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "packets and weights are used as they lie");

#define AT(type, member, offset) _Static_assert(offsetof(struct type, member) == (offset), #type "." #member)
#define SIZE(type, size)         _Static_assert(sizeof(struct type) == (size), #type)

SIZE(packet_head, 16);
AT(packet_head, type, 0);
AT(packet_head, flags, 2);
AT(packet_head, n_bytes, 4);
AT(packet_head, epoch, 8);
SIZE(packet_hello, 16);
AT(packet_hello, magic, 0);
AT(packet_hello, version, 4);
AT(packet_hello, state, 8);
AT(packet_hello, reserved, 12);
SIZE(packet_model, 8);
AT(packet_model, reserved, 0);
SIZE(packet_threads, 8);
AT(packet_threads, n_threads, 0);
AT(packet_threads, reserved, 4);
SIZE(packet_tenant, 32);
AT(packet_tenant, tenant, 0);
AT(packet_tenant, weight, 4);
AT(packet_tenant, kv_max_bytes, 8);
AT(packet_tenant, tenant_class, 16);
AT(packet_tenant, class_weight, 20);
AT(packet_tenant, mark, 24);
SIZE(packet_spent, 16);
AT(packet_spent, tenant, 0);
AT(packet_spent, reserved, 4);
AT(packet_spent, cost_ns, 8);
SIZE(packet_submit, 32);
AT(packet_submit, request, 0);
AT(packet_submit, tenant, 8);
AT(packet_submit, priority, 12);
AT(packet_submit, deadline_ns, 16);
AT(packet_submit, kind, 24);
AT(packet_submit, tokens_max, 28);
SIZE(packet_request, 8);
AT(packet_request, request, 0);
SIZE(packet_trim, 8);
AT(packet_trim, bytes, 0);
SIZE(packet_drain, 8);
AT(packet_drain, deadline_ns, 0);
SIZE(packet_ping, 8);
AT(packet_ping, cookie, 0);
SIZE(packet_facts, 8);
AT(packet_facts, reserved, 0);
SIZE(packet_progress, 16);
AT(packet_progress, bytes_done, 0);
AT(packet_progress, bytes_total, 8);
SIZE(packet_step, 56);
AT(packet_step, n_steps, 0);
AT(packet_step, duration_ns, 8);
AT(packet_step, n_pieces, 16);
AT(packet_step, n_tenants, 20);
AT(packet_step, n_running, 24);
AT(packet_step, n_waiting, 28);
AT(packet_step, pages_used, 32);
AT(packet_step, pages_total, 36);
AT(packet_step, n_drafted, 40);
AT(packet_step, n_accepted, 44);
AT(packet_step, pages_kept, 48);
AT(packet_step, reserved, 52);
SIZE(step_tenant, 24);
AT(step_tenant, tenant, 0);
AT(step_tenant, n_pages, 4);
AT(step_tenant, cost_ns, 8);
AT(step_tenant, n_prompt, 16);
AT(step_tenant, n_output, 20);
SIZE(step_piece, 32);
AT(step_piece, request, 0);
AT(step_piece, n_text, 8);
AT(step_piece, n_extra, 12);
AT(step_piece, n_tokens, 16);
AT(step_piece, queue_position, 20);
AT(step_piece, eta_ms, 24);
SIZE(packet_done, 64);
AT(packet_done, request, 0);
AT(packet_done, finish, 8);
AT(packet_done, reserved, 12);
AT(packet_done, prompt_tokens, 16);
AT(packet_done, cached_tokens, 24);
AT(packet_done, output_tokens, 32);
AT(packet_done, queue_ns, 40);
AT(packet_done, prefill_ns, 48);
AT(packet_done, decode_ns, 56);
SIZE(packet_failed, 8);
AT(packet_failed, request, 0);
SIZE(packet_log, 16);
AT(packet_log, level, 0);
AT(packet_log, tenant, 4);
AT(packet_log, request, 8);
SIZE(packet_pong, 24);
AT(packet_pong, cookie, 0);
AT(packet_pong, n_steps, 8);
AT(packet_pong, busy_ns, 16);
SIZE(packet_used, 64);
AT(packet_used, epoch, 0);
AT(packet_used, request, 8);
AT(packet_used, mark, 16);
AT(packet_used, age_ns, 24);
AT(packet_used, prompt_tokens, 32);
AT(packet_used, cached_tokens, 40);
AT(packet_used, output_tokens, 48);
AT(packet_used, duration_ns, 56);

enum {
    N = 1 << PROTO_STATE_NEW,
    H = 1 << PROTO_STATE_HELLO,
    L = 1 << PROTO_STATE_LOADING,
    R = 1 << PROTO_STATE_READY,
    D = 1 << PROTO_STATE_DRAINING,
    ANY = N | H | L | R | D,
    BY_DAEMON = 1 << PROTO_DAEMON,
    BY_WORKER = 1 << PROTO_WORKER,
    BOTH = BY_DAEMON | BY_WORKER,
};

enum {
    JSON_SMALL = 1 << 20,
    /* A client's frame ends at 16 MiB; written out again by json-c it can be a little longer. */
    JSON_CALL = 24 << 20,
    /* What a reply may hold (16 MiB) is the limit of what is worth sending. */
    JSON_REPLY = 16 << 20,
    STEP_BYTES = 16 << 20,
    LOG_BYTES = 4096,
};

/*
 * Packets cross: the daemon may have sent DRAIN when the worker's READY comes, so what a worker sends while
 * loading is legal for a daemon that drains. The daemon never has to guess the worker's state: it only sends
 * what is legal in its own, and the worker can only be as far or further on.
 */
/* clang-format off */
#define F(type) sizeof(struct packet_##type)
static const struct row {
    const char *name;
    uint8_t from, states;
    uint16_t fixed_bytes;
    uint32_t blob_max;
    uint16_t fds_max;
} rows[PACKET_TYPE_MAX] = {
    /* name, sender, states, fixed part, longest blob, most fds */
    [PACKET_HELLO]    = {"HELLO",    BOTH,      ANY,           F(hello),    PROTO_BUILD_MAX, 0},
    [PACKET_MODEL]    = {"MODEL",    BY_DAEMON, H,             F(model),    JSON_SMALL,      PROTO_FDS_MAX},
    [PACKET_THREADS]  = {"THREADS",  BY_DAEMON, H | L | R | D, F(threads),  0,               0},
    [PACKET_TENANT]   = {"TENANT",   BY_DAEMON, L | R | D,     F(tenant),   0,               0},
    [PACKET_SPENT]    = {"SPENT",    BY_DAEMON, R | D,         F(spent),    0,               0},
    [PACKET_SUBMIT]   = {"SUBMIT",   BY_DAEMON, R,             F(submit),   JSON_CALL,       0},
    [PACKET_CANCEL]   = {"CANCEL",   BY_DAEMON, R | D,         F(request),  0,               0},
    [PACKET_PAUSE]    = {"PAUSE",    BY_DAEMON, R | D,         F(request),  0,               0},
    [PACKET_RESUME]   = {"RESUME",   BY_DAEMON, R | D,         F(request),  0,               0},
    [PACKET_TRIM]     = {"TRIM",     BY_DAEMON, L | R | D,     F(trim),     0,               0},
    [PACKET_DRAIN]    = {"DRAIN",    BY_DAEMON, H | L | R | D, F(drain),    0,               0},
    [PACKET_RESET]    = {"RESET",    BY_DAEMON, ANY,           F(hello),    PROTO_BUILD_MAX, 0},
    [PACKET_PING]     = {"PING",     BY_DAEMON, ANY,           F(ping),     0,               0},
    [PACKET_FACTS]    = {"FACTS",    BY_WORKER, L | R | D,     F(facts),    JSON_SMALL,      0},
    [PACKET_PROGRESS] = {"PROGRESS", BY_WORKER, L | D,         F(progress), 0,               0},
    [PACKET_READY]    = {"READY",    BY_WORKER, L | D,         F(facts),    JSON_SMALL,      0},
    [PACKET_STEP]     = {"STEP",     BY_WORKER, R | D,         F(step),     STEP_BYTES,      0},
    [PACKET_DONE]     = {"DONE",     BY_WORKER, R | D,         F(done),     JSON_REPLY,      0},
    [PACKET_FAILED]   = {"FAILED",   BY_WORKER, L | R | D,     F(failed),   JSON_SMALL,      0},
    [PACKET_LOG]      = {"LOG",      BY_WORKER, ANY,           F(log),      LOG_BYTES,       0},
    [PACKET_PONG]     = {"PONG",     BY_WORKER, ANY,           F(pong),     0,               0},
    [PACKET_USED]     = {"USED",     BY_WORKER, R | D,         F(used),     0,               0},
    [PACKET_GPUS]     = {"GPUS",     BY_WORKER, L | R | D,     F(facts),    JSON_SMALL,      0},
};
#undef F
/* clang-format on */

static int violation(const char *why, const char **reterr_why)
{
    if (reterr_why)
        *reterr_why = why;
    return -EBADMSG;
}

const char *proto_type_to_string(unsigned type)
{
    return type < PACKET_TYPE_MAX && rows[type].name ? rows[type].name : "?";
}

const char *proto_state_to_string(unsigned state)
{
    static const char *const names[PROTO_STATE_MAX] = {"new", "hello", "loading", "ready", "draining"};

    return state < PROTO_STATE_MAX ? names[state] : "?";
}

static int check_epoch(const struct proto_context *c, enum proto_side from, const struct packet_head *head,
                       const char **reterr_why)
{
    if (head->epoch == 0)
        return violation("epoch 0", reterr_why);
    if (from == PROTO_WORKER) {
        if (head->epoch < c->epoch)
            return PROTO_STALE;
        return head->epoch == c->epoch ? 0 : violation("an epoch that was never given", reterr_why);
    }
    if (head->type == PACKET_RESET)
        return head->epoch > c->epoch ? 0 : violation("RESET to an epoch that is not higher", reterr_why);
    if (head->type == PACKET_HELLO)
        return c->epoch == 0 ? 0 : violation("HELLO twice", reterr_why);
    return head->epoch == c->epoch ? 0 : violation("wrong epoch", reterr_why);
}

int proto_head_check(const struct proto_context *c, enum proto_side from, const struct packet_head *head,
                     size_t n_fds, const char **reterr_why)
{
    const struct row *row;
    bool greeting = head->type == PACKET_HELLO || head->type == PACKET_RESET;
    int r;

    if (head->type >= PACKET_TYPE_MAX || !rows[head->type].name)
        return violation("unknown packet type", reterr_why);
    row = &rows[head->type];
    if (!(row->from & (1 << from)))
        return violation("packet in the wrong direction", reterr_why);
    if (head->flags & ~PACKET_FLAG_MEMFD)
        return violation("unknown flags", reterr_why);
    if (head->n_bytes < row->fixed_bytes || head->n_bytes - row->fixed_bytes > row->blob_max)
        return violation("length out of range", reterr_why);
    if (!!(head->flags & PACKET_FLAG_MEMFD) != (head->n_bytes > PROTO_INLINE_MAX))
        return violation("a memfd is for long bodies, and only for them", reterr_why);
    if (n_fds > row->fds_max)
        return violation("wrong number of file descriptors", reterr_why);

    r = check_epoch(c, from, head, reterr_why);
    if (r != 0)
        return r;
    if (!(row->states & (1 << c->state)))
        return violation("packet not legal in this state", reterr_why);
    /* The worker answers each greeting once; that the daemon says HELLO once was a matter of the epoch. */
    if (head->type == PACKET_HELLO && from == PROTO_WORKER && c->state != PROTO_STATE_NEW && !c->reset)
        return violation("HELLO twice", reterr_why);
    if (!greeting && c->peer_version != 0 && c->peer_version != PROTO_VERSION)
        return violation("another protocol version", reterr_why);
    return 0;
}

static int check_hello(const struct proto_context *c, enum proto_side from, const struct packet *p,
                       const char **reterr_why)
{
    const struct packet_hello *hello = p->hello;

    if (hello->magic != PROTO_MAGIC)
        return violation("wrong magic", reterr_why);
    if (hello->reserved != 0 || hello->version == 0)
        return violation("bad HELLO", reterr_why);
    if (from == PROTO_DAEMON ? hello->state != 0 : hello->state >= PROTO_STATE_MAX)
        return violation("bad state in HELLO", reterr_why);
    /* Without RESET the answer comes from a worker that has just heard of us. */
    if (from == PROTO_WORKER && !c->reset && hello->state != PROTO_STATE_NEW)
        return violation("bad state in HELLO", reterr_why);
    for (size_t i = 0; i < p->n_blob; i++)
        if (p->blob[i] < 0x20 || p->blob[i] > 0x7e)
            return violation("bad build id", reterr_why);
    return 0;
}

static int check_step(const struct packet *p, const char **reterr_why)
{
    struct reader r;
    uint64_t n_bytes;

    reader_init(&r, p->blob, p->n_blob);
    if (p->step->reserved != 0)
        return violation("reserved field", reterr_why);
    if (!checked_mul(p->step->n_tenants, sizeof(struct step_tenant), &n_bytes) || !reader_skip(&r, n_bytes))
        return violation("tenants beyond the end of STEP", reterr_why);
    for (uint32_t i = 0; i < p->step->n_pieces; i++) {
        struct step_piece piece;
        const uint8_t *bytes;

        if (!reader_bytes(&r, sizeof(piece), &bytes))
            return violation("pieces beyond the end of STEP", reterr_why);
        memcpy(&piece, bytes, sizeof(piece));
        if (piece.request == 0)
            return violation("request 0", reterr_why);
        if (!reader_bytes(&r, piece.n_text, &bytes))
            return violation("text beyond the end of STEP", reterr_why);
        if (!utf8_is_valid((const char *)bytes, piece.n_text, NULL))
            return violation("text that is no UTF-8", reterr_why);
        if (!reader_skip(&r, piece.n_extra))
            return violation("extra beyond the end of STEP", reterr_why);
        if (piece.queue_position < STEP_NOT_WAITING || piece.queue_position == 0 ||
            piece.eta_ms < STEP_ETA_UNKNOWN)
            return violation("bad queue position", reterr_why);
    }
    return reader_left(&r) == 0 ? 0 : violation("bytes behind the end of STEP", reterr_why);
}

int proto_body_check(const struct proto_context *c, enum proto_side from, const struct packet_head *head,
                     const void *body, struct packet *ret, const char **reterr_why)
{
    uint16_t fixed_bytes = rows[head->type].fixed_bytes;
    struct packet p = {
        .type = (enum packet_type)head->type,
        .epoch = head->epoch,
        .fixed = body,
        .blob = (const char *)body + fixed_bytes,
        .n_blob = head->n_bytes - fixed_bytes,
    };
    int r = 0;

    switch (p.type) {
    case PACKET_HELLO:
    case PACKET_RESET:
        r = check_hello(c, from, &p, reterr_why);
        break;
    case PACKET_MODEL:
        if (p.model->reserved != 0)
            r = violation("reserved field", reterr_why);
        break;
    case PACKET_GPUS:
    case PACKET_FACTS:
    case PACKET_READY:
        if (p.facts->reserved != 0)
            r = violation("reserved field", reterr_why);
        break;
    case PACKET_THREADS:
        if (p.threads->reserved != 0 || p.threads->n_threads == 0)
            r = violation("bad number of threads", reterr_why);
        break;
    case PACKET_TENANT:
        if ((p.tenant->tenant_class != 0) != (p.tenant->class_weight != 0) ||
            (p.tenant->weight == 0 &&
             (p.tenant->tenant_class != 0 || p.tenant->kv_max_bytes != 0 || p.tenant->mark != 0)))
            r = violation("bad weight", reterr_why);
        break;
    case PACKET_SPENT:
        if (p.spent->reserved != 0)
            r = violation("reserved field", reterr_why);
        break;
    case PACKET_SUBMIT:
        if (p.submit->request == 0 || p.submit->kind >= SUBMIT_KIND_MAX)
            r = violation("bad SUBMIT", reterr_why);
        break;
    case PACKET_CANCEL:
        if (p.request->request == 0)
            r = violation("request 0", reterr_why);
        break;
    case PACKET_PROGRESS:
        if (p.progress->bytes_done > p.progress->bytes_total)
            r = violation("more than all", reterr_why);
        break;
    case PACKET_STEP:
        r = check_step(&p, reterr_why);
        break;
    case PACKET_DONE:
        if (p.done->request == 0 || p.done->reserved != 0 || p.done->finish >= DONE_FINISH_MAX)
            r = violation("bad DONE", reterr_why);
        break;
    case PACKET_USED:
        if (p.used->request == 0 || p.used->mark == 0 || p.used->epoch == 0 || p.used->epoch >= p.epoch)
            r = violation("bad USED", reterr_why);
        break;
    case PACKET_LOG:
        if (p.log->level > LOG_DEBUG || !utf8_is_valid(p.blob, p.n_blob, NULL))
            r = violation("bad LOG", reterr_why);
        break;
    case PACKET_PAUSE:
    case PACKET_RESUME:
    case PACKET_TRIM:
    case PACKET_DRAIN:
    case PACKET_PING:
    case PACKET_FAILED:
    case PACKET_PONG:
    case PACKET_TYPE_MAX:
        break;
    }
    if (r < 0)
        return r;
    *ret = p;
    return 0;
}

void proto_advance(struct proto_context *c, enum proto_side from, const struct packet *p)
{
    switch (p->type) {
    case PACKET_HELLO:
    case PACKET_RESET:
        if (from != c->side)
            c->peer_version = p->hello->version;
        if (from == PROTO_WORKER) {
            /* A worker that was greeted for the first time is in HELLO from its answer on. */
            c->state =
                p->hello->state == PROTO_STATE_NEW ? PROTO_STATE_HELLO : (enum proto_state)p->hello->state;
            c->reset = false;
            break;
        }
        c->epoch = p->epoch;
        if (p->type == PACKET_RESET) {
            c->reset = true;
            /* The daemon knows nothing until the worker has answered; the worker is where it was. */
            if (c->side == PROTO_DAEMON)
                c->state = PROTO_STATE_NEW;
        }
        break;
    case PACKET_MODEL:
        c->state = PROTO_STATE_LOADING;
        break;
    case PACKET_READY:
        if (c->state == PROTO_STATE_LOADING)
            c->state = PROTO_STATE_READY;
        break;
    case PACKET_DRAIN:
        c->state = PROTO_STATE_DRAINING;
        break;
    default:
        break;
    }
}

void step_iterator_init(struct step_iterator *it, const struct packet *p)
{
    *it =
        (struct step_iterator){.at = p->blob, .n_tenants = p->step->n_tenants, .n_pieces = p->step->n_pieces};
}

bool step_next_tenant(struct step_iterator *it, struct step_tenant *ret)
{
    if (it->n_tenants == 0)
        return false;
    memcpy(ret, it->at, sizeof(*ret));
    it->at += sizeof(*ret);
    it->n_tenants--;
    return true;
}

bool step_next_piece(struct step_iterator *it, struct step_piece *ret, const char **ret_text,
                     const char **ret_extra)
{
    /* Whoever is not interested in the tenants need not walk over them. */
    it->at += it->n_tenants * sizeof(struct step_tenant);
    it->n_tenants = 0;
    if (it->n_pieces == 0)
        return false;
    memcpy(ret, it->at, sizeof(*ret));
    *ret_text = it->at + sizeof(*ret);
    *ret_extra = *ret_text + ret->n_text;
    it->at = *ret_extra + ret->n_extra;
    it->n_pieces--;
    return true;
}
