/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A worker that computes nothing: it speaks the protocol over descriptor 3 and does what the prompt tells it, so that
 * tests of the daemon decide what a worker does and when. It never looks at the model's files, but says how many it got
 * and whether one can be written.
 *
 *   prompt "count N"   N pieces "1 " "2 " …, one every 20 ms
 *   prompt "crash"     kills itself, as who runs out of memory is
 *   prompt "segfault"  crashes
 *   prompt "lose"      ends as one does whose model's file can't be read any more
 *   prompt "hang"      one piece, then silence
 *   prompt "stuck"     one piece, then it says that a step runs for a year
 *   prompt "break"     sends a packet that is not legal
 *   prompt "log N"     N lines for the log about this request, then one piece
 *   prompt "fail"      FAILED with ContextTooLong
 *   prompt "echo…", or no prompt (Tokenize): one piece, the parameters as they came; a Chat's last message is its prompt
 *   "long N"           a prompt of N tokens: ContextTooLong where the daemon allows fewer
 *   anything else      one piece: the prompt
 * The model's name (MODEL's "model") may be "crash-at-load" or "invalid"; "lingers" takes a second to end.
 * $FAKE_WORKER=other-version: answers a daemon that took it over in another version of the protocol;
 * other-build: comes from another build; config: writes each model's configuration to stderr; "released […]": says that of what it does not lock, since GPUs have it.
 */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "base/memlock.h"
#include "engine/proto/channel.h"

enum { LINK_FD = 3, RUNNING_MAX = 256 };

struct running {
    uint64_t request;
    uint32_t tenant;
    int left, sent; /* left < 0: hangs */
};

static struct running running[RUNNING_MAX];
static size_t n_running;
static uint64_t n_steps;
static bool is_stuck, lingers;
static char facts[512]; /* for a daemon that takes it over */
static struct channel *channel;

static const char *released(void)
{
    const char *told = getenv("FAKE_WORKER");

    return told && strncmp(told, "released ", 9) == 0 ? told + 9 : "[]";
}

static void must(int r, const char *what)
{
    if (r < 0) {
        fprintf(stderr, "fake-worker: %s: %s\n", what, strerror(-r));
        _exit(3);
    }
}

static void send_json(enum packet_type type, const char *text)
{
    const struct packet_facts fixed = {.reserved = 0};
    const struct channel_blob blob = {.data = text, .n_bytes = strlen(text)};

    must(channel_send(channel, type, &fixed, sizeof(fixed), &blob, 1, NULL, 0), "facts");
}

static void send_piece(const struct running *r, const char *text, const char *extra)
{
    const struct packet_step step = {.n_steps = ++n_steps, .n_pieces = 1, .n_tenants = 1, .n_running = (uint32_t)n_running,
                                     .n_drafted = 4, .n_accepted = 3, .pages_used = 3, .pages_total = 64,
                                     .pages_kept = 5};
    const struct step_piece piece = {
        .request = r->request,
        .n_text = (uint32_t)strlen(text),
        .n_extra = (uint32_t)strlen(extra),
        .n_tokens = (uint32_t)r->sent,
        .queue_position = STEP_NOT_WAITING,
        .eta_ms = STEP_ETA_UNKNOWN,
    };
    const struct step_tenant part = {.tenant = r->tenant, .n_pages = 3};
    const struct channel_blob blobs[] = {
        {.data = &part, .n_bytes = sizeof(part)},
        {.data = &piece, .n_bytes = sizeof(piece)},
        {.data = text, .n_bytes = strlen(text)},
        {.data = extra, .n_bytes = strlen(extra)},
    };

    must(channel_send(channel, PACKET_STEP, &step, sizeof(step), blobs, 4, NULL, 0), "step");
}

static void send_done(size_t i, enum done_finish finish, const char *extra)
{
    const struct packet_done done = {
        .request = running[i].request,
        .finish = finish,
        .prompt_tokens = 1,
        .output_tokens = (uint64_t)running[i].sent,
    };
    const struct channel_blob blob = {.data = extra, .n_bytes = strlen(extra)};

    must(channel_send(channel, PACKET_DONE, &done, sizeof(done), &blob, 1, NULL, 0), "done");
    running[i] = running[--n_running];
}

static void send_failed(const struct running *r, const char *fault)
{
    const struct packet_failed failed = {.request = r->request};
    const struct channel_blob blob = {.data = fault, .n_bytes = strlen(fault)};

    must(channel_send(channel, PACKET_FAILED, &failed, sizeof(failed), &blob, 1, NULL, 0), "failed");
}

/* What a model takes for which READY then says the same: 4096 bytes of KV for 4 sequences of 128 tokens, 8192 of
 * scratch. */
static void send_shape(const struct channel_packet *packet)
{
    char text[1024];
    struct stat st;
    unsigned long long size = 0;

    for (size_t i = 0; i < packet->n_fds; i++) {
        must(fstat(packet->fds[i], &st), "fstat");
        size += (unsigned long long)st.st_size;
    }
    snprintf(text, sizeof(text),
             "{\"shape\": {\"layers\": [[%llu, 0, 0, 1, 0, 0]], \"groups\": [{\"window\": 0, \"window_pages\": [0, 0], \"kv\": {\"f16\": [128, 128, 1], "
             "\"f32\": [256, 256, 1]}}], \"file\": %llu, \"embedding\": 0, \"head\": 0, \"head_adapters\": 0, \"rest\": 0, \"tied\": false, "
             "\"parameters\": %llu, \"experts\": 0, \"experts_used\": 0, \"open\": [4, 4], \"context_trained\": 128, "
             "\"page_tokens\": 32, \"batch_tokens\": 512, \"scratch\": 8192, \"thread_scratch\": 0, "
             "\"gpu\": {\"scratch\": [0, 0, 0, 0, 0, 0, 0, 0], \"small_scratch\": [0, 0, 0, 0, 0, 0, 0, 0], \"small_tokens\": 0, \"padding\": 0, \"runs\": []}}}",
             size, size, size / 2);
    send_json(PACKET_FACTS, text);
}

static void on_model(const struct channel_packet *packet)
{
    char *copy = strndup(packet->p.blob, packet->p.n_blob);
    json_object *config = json_tokener_parse(copy), *name = NULL, *lock = NULL, *measure = NULL, *look = NULL;
    const char *model = "";
    struct stat st;
    uint64_t size = 0;

    if (getenv("FAKE_WORKER") && strcmp(getenv("FAKE_WORKER"), "config") == 0)
        fprintf(stderr, "fake-worker: config %s\n", copy);
    free(copy);
    if (json_object_object_get_ex(config, "model", &name))
        model = json_object_get_string(name);
    if (json_object_object_get_ex(config, "look", &look) && json_object_get_boolean(look)) {
        send_json(PACKET_FACTS, "{\"gpus\": [], \"gpu_reason\": \"a worker of tests has no GPUs\"}");
        json_object_put(config);
        return;
    }
    if (json_object_object_get_ex(config, "measure", &measure) && json_object_get_boolean(measure) &&
        strcmp(model, "invalid") != 0) {
        send_shape(packet);
        json_object_put(config);
        return;
    }
    lingers = strcmp(model, "lingers") == 0;
    if (strcmp(model, "crash-at-load") == 0)
        raise(SIGKILL);
    if (strcmp(model, "invalid") == 0) {
        const struct packet_failed failed = {.request = 0};
        const char *fault = "{\"error\": \"io.residentd.ModelInvalid\", \"parameters\": {\"model\": \"\", \"reason\": "
                            "\"no such magic\", \"offset\": 4}}";
        const struct channel_blob blob = {.data = fault, .n_bytes = strlen(fault)};

        must(channel_send(channel, PACKET_FAILED, &failed, sizeof(failed), &blob, 1, NULL, 0), "failed");
        json_object_put(config);
        return;
    }
    for (size_t i = 0; i < packet->n_fds; i++) {
        must(fstat(packet->fds[i], &st), "fstat");
        size += (uint64_t)st.st_size;
        if ((fcntl(packet->fds[i], F_GETFL) & O_ACCMODE) != O_RDONLY)
            must(-EBADF, "a descriptor that can be written");
        if (json_object_object_get_ex(config, "lock", &lock) && json_object_get_boolean(lock)) {
            void *at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, packet->fds[i], 0);

            if (at == MAP_FAILED || memlock(at, (size_t)st.st_size) < 0)
                must(-errno, "mlock");
        }
    }
    snprintf(facts, sizeof(facts),
             "{\"architecture\": \"fake\", \"quantization\": \"f32\", \"parameters\": %llu, \"context_tokens\": 128, "
             "\"page_tokens\": 32, \"layers\": %zu, \"bytes\": {\"kv\": 4096, \"kv_page\": 256, \"scratch\": 8192}, \"released\": %s, \"capabilities\": [\"complete\", \"chat\"]}",
             (unsigned long long)size, packet->n_fds, released());
    send_json(PACKET_FACTS, facts);
    send_json(PACKET_READY, facts);
    json_object_put(config);
}

static void on_submit(const struct packet *p)
{
    struct running *r = &running[n_running];
    char *copy = strndup(p->blob, p->n_blob);
    json_object *parameters = json_tokener_parse(copy), *value = NULL;
    const char *prompt = "echo";
    bool untemplated = false;
    unsigned n_prompt = 1;
    int n_lines;
    char fault[160];

    if (n_running == RUNNING_MAX || !parameters)
        must(-EINVAL, "submit");
    *r = (struct running){.request = p->submit->request, .tenant = p->submit->tenant, .sent = 1};
    n_running++;
    if (json_object_object_get_ex(parameters, "prompt", &value))
        prompt = json_object_get_string(value);
    else if (json_object_object_get_ex(parameters, "messages", &value)) {
        value = json_object_array_get_idx(value, json_object_array_length(value) - 1);
        prompt = json_object_get_string(json_object_object_get(value, "content"));
        untemplated = strcmp(prompt, "untemplated") == 0;
    }
    if (sscanf(prompt, "long %u", &n_prompt) == 1 && p->submit->tokens_max > 0 && n_prompt + 1 > p->submit->tokens_max) {
        snprintf(fault, sizeof(fault), "{\"error\": \"io.residentd.ContextTooLong\", \"parameters\": {\"limit\": %u, "
                 "\"given\": %u}}", p->submit->tokens_max, n_prompt + 1);
        send_failed(r, fault);
        n_running--;
    } else if (sscanf(prompt, "count %d", &r->left) == 1) {
        r->sent = 0;
    } else if (sscanf(prompt, "log %d", &n_lines) == 1) {
        const struct packet_log line = {.level = LOG_WARNING, .tenant = r->tenant, .request = r->request};
        const struct channel_blob text = {.data = "about\nit", .n_bytes = 8};

        while (n_lines-- > 0)
            must(channel_send(channel, PACKET_LOG, &line, sizeof(line), &text, 1, NULL, 0), "log");
        send_piece(r, prompt, "");
        send_done(n_running - 1, DONE_STOP, "");
    } else if (strcmp(prompt, "crash") == 0) {
        raise(SIGKILL);
    } else if (strcmp(prompt, "segfault") == 0) {
        signal(SIGSEGV, SIG_DFL); /* also where a sanitizer has one of its own */
        raise(SIGSEGV);
    } else if (strcmp(prompt, "lose") == 0) {
        _exit(PROTO_EXIT_PAGES_LOST);
    } else if (strcmp(prompt, "hang") == 0) {
        send_piece(r, "…", "");
        r->left = -1;
    } else if (strcmp(prompt, "stuck") == 0) {
        send_piece(r, "…", "");
        r->left = -1;
        is_stuck = true;
    } else if (strcmp(prompt, "break") == 0) {
        const char bytes[32] = {99};

        if (write(LINK_FD, bytes, sizeof(bytes)) < 0)
            must(-errno, "write");
    } else if (strcmp(prompt, "fail") == 0) {
        send_failed(r, "{\"error\": \"io.residentd.ContextTooLong\", \"parameters\": {\"limit\": 1, \"given\": 2}}");
        n_running--;
    } else if (untemplated) {
        send_failed(r, "{\"error\": \"org.varlink.service.InvalidParameter\", \"parameters\": {\"parameter\": \"model\"}}");
        n_running--;
    } else {
        send_piece(r, strncmp(prompt, "echo", 4) == 0 ? copy : prompt, "");
        send_done(n_running - 1, DONE_STOP, "");
    }
    json_object_put(parameters);
    free(copy);
}

static void on_cancel(uint64_t request)
{
    for (size_t i = 0; i < n_running; i++) {
        if (running[i].request == request) {
            fprintf(stderr, "fake-worker: cancelled %llu after %d\n", (unsigned long long)request, running[i].sent);
            send_done(i, DONE_CANCELLED, "");
            return;
        }
    }
}

static void on_ping(const struct packet *p)
{
    const struct packet_pong pong = {
        .cookie = p->ping->cookie, .n_steps = n_steps, .busy_ns = is_stuck ? UINT64_C(31536000000000000) : 0};

    must(channel_send(channel, PACKET_PONG, &pong, sizeof(pong), NULL, 0, NULL, 0), "pong");
}

static bool is_told(const char *what)
{
    const char *told = getenv("FAKE_WORKER");

    return told && strcmp(told, what) == 0;
}

static void on_reset(void)
{
    n_running = 0;
    if (is_told("other-version")) {
        const struct {
            struct packet_head head;
            struct packet_hello hello;
        } packet = {
            .head = {.type = PACKET_HELLO, .n_bytes = sizeof(packet.hello), .epoch = channel_context(channel)->epoch},
            .hello = {.magic = PROTO_MAGIC, .version = PROTO_VERSION + 1, .state = PROTO_STATE_READY},
        };

        if (write(LINK_FD, &packet, sizeof(packet)) < 0)
            must(-errno, "write");
        return;
    }
    must(channel_answer(channel, is_told("other-build") ? "another" : RESIDENTD_BUILD), "hello");
    if (facts[0])
        send_json(PACKET_FACTS, facts);
}

static void on_packet(const struct channel_packet *packet)
{
    switch (packet->p.type) {
    case PACKET_HELLO:
        must(channel_answer(channel, RESIDENTD_BUILD), "hello");
        break;
    case PACKET_RESET:
        on_reset();
        break;
    case PACKET_MODEL:
        on_model(packet);
        break;
    case PACKET_SUBMIT:
        on_submit(&packet->p);
        break;
    case PACKET_CANCEL:
        on_cancel(packet->p.request->request);
        break;
    case PACKET_PING:
        on_ping(&packet->p);
        break;
    default:
        break;
    }
}

static void step(void)
{
    for (size_t i = n_running; i-- > 0;) {
        struct running *r = &running[i];
        char text[32];

        if (r->left <= 0)
            continue;
        r->sent++;
        r->left--;
        snprintf(text, sizeof(text), "%d ", r->sent);
        send_piece(r, text, r->sent == 1 ? "{\"logprobs\": []}" : "");
        if (r->left == 0)
            send_done(i, DONE_LENGTH, "");
    }
}

/* Its link is closed before it ends, as that of any process may be whose memory takes a while to be given back. */
static int end(void)
{
    channel_free(channel);
    if (lingers)
        sleep(1);
    return 0;
}

int main(void)
{
    bool draining = false;

    must(channel_new(PROTO_WORKER, LINK_FD, &channel), "link");
    for (;;) {
        struct pollfd p = {.fd = LINK_FD, .events = channel_events(channel)};
        struct channel_packet packet;
        int r;

        poll(&p, 1, n_running > 0 ? 20 : -1);
        if (p.revents & POLLOUT)
            must(channel_flush(channel), "flush");
        r = channel_receive(channel, &packet);
        if (r == CHANNEL_EOF) {
            return end();
        }
        if (r == 0) {
            draining |= packet.p.type == PACKET_DRAIN;
            on_packet(&packet);
            channel_packet_done(&packet);
        } else if (r == CHANNEL_NOTHING) {
            step();
        } else {
            must(r, channel_error(channel));
        }
        if (draining && n_running == 0)
            return end();
    }
}
