/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A connection to the daemon's front, with a back half that does what the input says. The input is cut into pieces:
 * a byte, and as many bytes as its lower half says (0: all the rest), which are sent. The upper half moves the oldest
 * request or load before: a piece, done, failed, a place in the queue, progress; or the client half-closes or stops
 * reading. At the end the client is gone, and so must be every charge and every request.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "daemon/session.h"
#include "tests/unit/daemon/fake-back.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool truth)
{
    if (!truth)
        abort();
}

struct fixture {
    struct manager m;
    struct nss *nss;
    struct method_table *methods;
    struct session *session; /* NULL: it has ended */
};

static int lookup(uid_t uid, struct nss_user *ret)
{
    ret->name = strdup("somebody");
    return ret->name ? 0 : -ENOMEM;
}

static void on_ended(struct session *s, void *userdata)
{
    struct fixture *f = userdata;

    must(s == f->session);
    f->session = session_free(s);
}

static const char *user_name(uid_t uid, void *userdata)
{
    return NULL;
}

static void settle(struct fixture *f)
{
    while (sd_event_run(f->m.event, 0) > 0)
        ;
}

static void on_greeted(int error, const struct nss_user *user, void *userdata)
{
    *(bool *)userdata = true;
}

static struct fixture *fixture(void)
{
    static struct fixture f;
    static uid_t admin = 1000;
    struct nss_query *query;
    bool greeted = false;

    if (f.m.event)
        return &f;
    must(sd_event_new(&f.m.event) == 0);
    f.m.log = (struct log){.level_max = LOG_DEBUG, .fd = open("/dev/null", O_WRONLY | O_CLOEXEC)};
    must(accounts_new(&f.m.accounts) == 0);
    f.m.policy.admins = (struct policy_set){.given = true, .uids = &admin, .n_uids = 1};
    f.m.policy.quota_default.given = 1 << POLICY_QUOTA_QUEUED;
    f.m.policy.quota_default.values = (struct policy_quota){.queued = 3};
    must(nss_new(f.m.event, lookup, &f.nss) == 0);
    must(method_table_new(&f.methods) == 0);
    /* One answer of the helper thread; later ones come from its memory, without waiting. */
    must(nss_ask(f.nss, admin, on_greeted, &greeted, &query) == 0);
    while (!greeted)
        must(sd_event_run(f.m.event, UINT64_MAX) >= 0);
    return &f;
}

static void move_request(struct request *r, unsigned what)
{
    struct fault fault;

    switch (what) {
    case 1:
        return r->callbacks->piece ? fake_piece(r, "text", "{\"logprobs\":[],\"reasoning\":\"r\"}") : (void)0;
    case 2:
        return fake_done(r, "stop", "{\"tokens\":[1],\"tool_calls\":[]}");
    case 3:
        return fake_done(r, NULL, NULL);
    case 4:
        fault_set(&fault, FAULT_MODEL_UNAVAILABLE, "tiny", "why");
        return fake_failed(r, &fault);
    case 5:
        return r->callbacks->queue ? fake_queue(r, 3, -1) : (void)0;
    case 6:
        return r->callbacks->progress ? fake_progress(r, 1, 2) : (void)0;
    }
}

static void move_load(struct model_wait *w, unsigned what)
{
    if (what == 1)
        return w->callbacks->progress(w, MODEL_MAPPING, 1, 2, w->userdata);
    w->manager = NULL;
    w->callbacks->done(w, MODEL_READY, 2, w->userdata);
}

static void move(struct fixture *f, int fd, unsigned what)
{
    struct request *r = fake_request(&f->m, 0);
    char buffer[4096];

    if (what >= 8)
        while (recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT) > 0)
            ;
    what &= 7;
    if (what == 7)
        (void)shutdown(fd, SHUT_WR);
    else if (r)
        move_request(r, what);
    else if (!r && f->m.wait.manager && what > 0)
        move_load(&f->m.wait, what);
    settle(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fixture *f = fixture();
    const struct session_host host = {.manager = &f->m, .nss = f->nss, .methods = f->methods, .ended = on_ended,
                                      .user_name = user_name, .userdata = f};
    struct identity identity = IDENTITY_NULL;
    struct account_charge charge = ACCOUNT_CHARGE_NULL;
    struct account_status *left = NULL;
    size_t n_left = 0;
    int fds[2];

    identity.uid = identity.gid = 1000;
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
    must(account_charge(f->m.accounts, 1000, ACCOUNT_CONNECTIONS, 1, UINT64_MAX, &charge) == 0);
    must(session_new(&host, fds[0], &identity, &charge, NULL, &f->session) == 0);
    settle(f);
    while (size > 0) {
        unsigned what = data[0] >> 4;
        size_t n = data[0] & 15;

        data++;
        size--;
        if (n == 0 || n > size)
            n = size;
        move(f, fds[1], what);
        (void)send(fds[1], data, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        settle(f);
        data += n;
        size -= n;
    }
    for (unsigned i = 0; i < 8 && f->session; i++)
        move(f, fds[1], 8 + i % 7);
    close(fds[1]);
    settle(f);
    must(!f->session);
    must(!fake_request(&f->m, 0));
    must(accounts_list(f->m.accounts, &left, &n_left) == 0 && n_left == 0);
    free(left);
    return 0;
}
