/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/worker/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/json.h"
#include "tests/model-writer/model_writer.h"

/* Long enough for a sanitizer build on a busy machine. */
#define PATIENCE_MS 120000

static void start_process(struct driver *d, int fd)
{
    const char *build = getenv("RESIDENTD_BUILD");
    char path[4096];

    assert_non_null(build);
    snprintf(path, sizeof(path), "%s/engine/worker/resident-worker", build);
    d->pid = fork();
    assert_true(d->pid >= 0);
    if (d->pid == 0) {
        /* Over the close-on-exec flag even if the number is right already. */
        if (dup2(fd, 5) < 0 || fcntl(5, F_SETFD, 0) < 0)
            _exit(99);
        execl(path, path, "--fd", "5", (char *)NULL);
        _exit(99);
    }
    d->pidfd = (int)syscall(SYS_pidfd_open, d->pid, 0);
    assert_true(d->pidfd >= 0);
    close(fd);
}

void driver_start(struct driver *d)
{
    const int on = 1;
    int fds[2];

    *d = (struct driver){.pidfd = -EBADF};
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(setsockopt(fds[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
    assert_int_equal(channel_new(PROTO_DAEMON, fds[0], &d->c), 0);
    start_process(d, fds[1]);
    assert_int_equal(channel_greet(d->c, PACKET_HELLO, DRIVER_EPOCH, "test"), 0);
    while (!d->hello)
        assert_true(driver_receive(d, PATIENCE_MS));
}

void driver_load(struct driver *d, int fd_take, const char *config)
{
    driver_load_files(d, &fd_take, 1, config);
}

void driver_load_files(struct driver *d, const int *fds_take, size_t n_fds, const char *config)
{
    const struct packet_model model = {0};
    const struct channel_blob blob = {.data = config, .n_bytes = strlen(config)};

    assert_int_equal(channel_send(d->c, PACKET_MODEL, &model, sizeof(model), &blob, 1, fds_take, n_fds), 0);
    for (size_t i = 0; i < n_fds; i++)
        close(fds_take[i]);
    while (!d->ready && !d->model_failed)
        assert_true(driver_receive(d, PATIENCE_MS));
}

int driver_model(uint32_t context)
{
    return driver_model_that_chats(context, model_shape_default().chat_template);
}

int driver_model_that_chats(uint32_t context, const char *chat_template)
{
    struct model_shape shape = model_shape_default();
    struct model_writer *w = model_writer_new();
    int fd;

    shape.context = context;
    shape.chat_template = chat_template;
    model_writer_llama(w, &shape);
    fd = model_writer_memfd(w);
    model_writer_free(w);
    assert_true(fd >= 0);
    return fd;
}

struct answer *driver_submit(struct driver *d, uint32_t tenant, enum submit_kind kind, uint64_t deadline_ns,
                             const char *json)
{
    const struct channel_blob blob = {.data = json, .n_bytes = strlen(json)};
    struct packet_submit submit = {.tenant = tenant, .deadline_ns = deadline_ns, .kind = kind};
    struct answer *a;

    assert_true(d->n_answers < DRIVER_REQUESTS_MAX);
    a = &d->answers[d->n_answers++];
    a->request = submit.request = d->n_answers;
    a->text = strdup("");
    assert_int_equal(channel_send(d->c, PACKET_SUBMIT, &submit, sizeof(submit), &blob, 1, NULL, 0), 0);
    return a;
}

void driver_send(struct driver *d, enum packet_type type, const void *fixed, size_t n_fixed)
{
    assert_int_equal(channel_send(d->c, type, fixed, n_fixed, NULL, 0, NULL, 0), 0);
}

static struct answer *find(struct driver *d, uint64_t request)
{
    assert_true(request >= 1 && request <= d->n_answers);
    assert_false(d->answers[request - 1].done || d->answers[request - 1].failed);
    return &d->answers[request - 1];
}

static void set_text(char **to, const char *from, size_t n)
{
    free(*to);
    *to = malloc(n + 1);
    assert_non_null(*to);
    /* Not strndup(): a packet's text is no string, and AddressSanitizer looks for the end of one. */
    if (n > 0)
        memcpy(*to, from, n);
    (*to)[n] = '\0';
}

static void take_step(struct driver *d, const struct packet *p)
{
    struct step_iterator it;
    struct step_piece piece;
    struct step_tenant tenant;
    const char *text, *extra;

    d->step = *p->step;
    d->n_steps_heard++;
    d->n_drafted += p->step->n_drafted;
    d->n_accepted += p->step->n_accepted;
    d->n_tenants = 0;
    step_iterator_init(&it, p);
    while (step_next_tenant(&it, &tenant)) {
        assert_true(d->n_tenants < 64);
        d->tenants[d->n_tenants++] = tenant;
        d->cost_ns += tenant.cost_ns;
        d->n_prompt += tenant.n_prompt;
        d->n_output += tenant.n_output;
    }
    while (step_next_piece(&it, &piece, &text, &extra)) {
        struct answer *a = find(d, piece.request);

        a->text = realloc(a->text, a->n_text + piece.n_text + 1);
        assert_non_null(a->text);
        memcpy(a->text + a->n_text, text, piece.n_text);
        a->n_text += piece.n_text;
        a->text[a->n_text] = 0;
        a->n_tokens = piece.n_tokens;
        a->n_pieces++;
        if (piece.queue_position > 0)
            a->position = piece.queue_position;
        if (piece.n_extra > 0)
            set_text(&a->extra, extra, piece.n_extra);
    }
}

static void take_fault(const struct packet *p, struct fault *ret)
{
    const struct json_limits limits = {.bytes_max = 1 << 20, .depth_max = 16, .values_max = 1000};
    json_object *o = NULL, *name = NULL, *parameters = NULL;

    assert_int_equal(json_parse(p->blob, p->n_blob, &limits, &o, NULL, NULL), 0);
    assert_true(json_object_object_get_ex(o, "error", &name));
    json_object_object_get_ex(o, "parameters", &parameters);
    assert_int_equal(fault_from_json(json_object_get_string(name), parameters, ret), 0);
    json_object_put(o);
}

static void take(struct driver *d, const struct channel_packet *received)
{
    const struct packet *p = &received->p;
    struct answer *a;

    switch (p->type) {
    case PACKET_HELLO:
        d->hello = true;
        d->hello_state = p->hello->state;
        assert_true(received->has_credentials);
        d->credentials = received->credentials;
        break;
    case PACKET_FACTS:
        set_text(&d->facts, p->blob, p->n_blob);
        break;
    case PACKET_READY:
        d->ready = true;
        break;
    case PACKET_STEP:
        take_step(d, p);
        break;
    case PACKET_DONE:
        a = find(d, p->done->request);
        a->done = true;
        a->usage = *p->done;
        if (p->n_blob > 0)
            set_text(&a->extra, p->blob, p->n_blob);
        break;
    case PACKET_FAILED:
        if (p->failed->request == 0) {
            d->model_failed = true;
            take_fault(p, &d->model_fault);
            break;
        }
        a = find(d, p->failed->request);
        a->failed = true;
        take_fault(p, &a->fault);
        break;
    case PACKET_USED:
        assert_true(d->n_used < 64);
        d->used[d->n_used++] = *p->used;
        break;
    case PACKET_PONG:
        d->pong = true;
        d->cookie = p->pong->cookie;
        break;
    default:
        break;
    }
}

bool driver_receive(struct driver *d, int timeout_ms)
{
    for (;;) {
        struct pollfd fd = {.fd = channel_fd(d->c), .events = channel_events(d->c)};
        struct channel_packet p;
        int r;

        if (fd.events & POLLOUT)
            channel_flush(d->c);
        r = channel_receive(d->c, &p);
        if (r == 0) {
            take(d, &p);
            channel_packet_done(&p);
            return true;
        }
        if (r < 0)
            print_error("%s\n", channel_error(d->c));
        assert_true(r >= 0);
        if (r == CHANNEL_EOF)
            return false;
        r = poll(&fd, 1, timeout_ms);
        assert_true(r >= 0);
        if (r == 0)
            return false;
    }
}

void driver_wait(struct driver *d, struct answer *a)
{
    while (!a->done && !a->failed)
        assert_true(driver_receive(d, PATIENCE_MS));
}

struct answer *driver_complete(struct driver *d, enum submit_kind kind, const char *json)
{
    struct answer *a = driver_submit(d, 1, kind, 0, json);

    driver_wait(d, a);
    return a;
}

int driver_exit_status(struct driver *d)
{
    struct pollfd fd = {.fd = d->pidfd, .events = POLLIN};
    int status = -1;

    if (d->pid <= 0)
        return -1;
    assert_int_equal(poll(&fd, 1, PATIENCE_MS), 1);
    assert_int_equal(waitpid(d->pid, &status, 0), d->pid);
    d->pid = 0;
    return status;
}

static void forget_answers(struct driver *d)
{
    for (size_t i = 0; i < d->n_answers; i++) {
        free(d->answers[i].text);
        free(d->answers[i].extra);
    }
    memset(d->answers, 0, sizeof(d->answers));
    d->n_answers = 0;
}

void driver_take_over(struct driver *d)
{
    uint64_t epoch = channel_context(d->c)->epoch;
    int fd = fcntl(channel_fd(d->c), F_DUPFD_CLOEXEC, 0);

    channel_free(d->c);
    assert_int_equal(channel_new(PROTO_DAEMON, fd, &d->c), 0);
    forget_answers(d);
    d->hello = false;
    d->step = (struct packet_step){0};
    assert_int_equal(channel_greet(d->c, PACKET_RESET, epoch + 1, "next"), 0);
    while (!d->hello)
        assert_true(driver_receive(d, PATIENCE_MS));
}

int driver_stop(struct driver *d)
{
    int status;

    d->c = channel_free(d->c);
    status = driver_exit_status(d);
    close(d->pidfd);
    forget_answers(d);
    free(d->facts);
    return status;
}
