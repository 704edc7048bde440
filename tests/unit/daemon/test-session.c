/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The daemon's front against a back half that the test plays: a real listener, real sockets, the loop run step by
 * step. Clients live in this process, so nothing here waits for a clock; where another uid is needed, a child connects.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/json.h"
#include "client/varlink/frame.h"
#include "client/varlink/idl.h"
#include "client/varlink/interfaces.h"
#include "daemon/limits.h"
#include "daemon/listener.h"
#include "fake-back.h"

#define INFERENCE "io.residentd.Inference."
#define COMPLETE(more) \
    "{\"method\":\"" INFERENCE "Complete\",\"parameters\":{\"model\":\"tiny\",\"prompt\":\"x\"}" more "}"

struct fixture {
    struct manager m;
    struct listener *l;
    char folder[64], path[128];
    uid_t admin;
};

struct client {
    int fd;
    struct frame_reader in;
};

/* uid 0 exists everywhere; 1 stands for somebody else; others nobody knows. */
static int lookup(uid_t uid, struct nss_user *ret)
{
    if (uid == 77777)
        return -EIO;
    if (uid > 1 && uid != getuid())
        return -ESRCH;
    ret->name = strdup(uid == 0 ? "root" : "somebody");
    return ret->name ? 0 : -ENOMEM;
}

/* Runs the loop until nothing is left to do. What clients of this process have sent is there already. */
static void settle(struct fixture *f)
{
    int r;

    do
        r = sd_event_run(f->m.event, 0);
    while (r > 0);
    assert_int_equal(r, 0);
}

static int connect_to(const struct fixture *f)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(address.sun_path, f->path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

static struct client client_new(const struct fixture *f)
{
    return (struct client){.fd = connect_to(f)};
}

static void client_close(struct client *c)
{
    closep(&c->fd);
    c->fd = -EBADF;
    frame_reader_done(&c->in);
}

static void say_bytes(struct client *c, const char *bytes, size_t n)
{
    assert_int_equal(send(c->fd, bytes, n, MSG_NOSIGNAL), n);
}

static void say(struct client *c, const char *text)
{
    say_bytes(c, text, strlen(text) + 1);
}

/* The next frame that has arrived, as text in the reader's buffer; NULL: nothing. */
static const char *hear(struct client *c)
{
    char *text;
    size_t n;

    while (!frame_reader_next(&c->in, &text, &n))
        if (frame_reader_read(&c->in, c->fd) <= 0)
            return NULL;
    return text;
}

/* The first connection of a uid waits for the NSS thread; from then on its answer is known. */
static void greet(struct fixture *f)
{
    struct client c = client_new(f);

    say(&c, "{\"method\":\"org.varlink.service.GetInfo\"}");
    while (!hear(&c))
        assert_true(sd_event_run(f->m.event, UINT64_MAX) >= 0);
    client_close(&c);
    settle(f);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct listener_options options = {.fd = -EBADF, .lookup = lookup};

    assert_non_null(f);
    assert_int_equal(sd_event_new(&f->m.event), 0);
    log_init(&f->m.log);
    f->m.log.fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    f->m.log.journal = false;
    assert_int_equal(accounts_new(&f->m.accounts), 0);
    f->admin = getuid();
    f->m.policy.admins = (struct policy_set){.given = true, .uids = &f->admin, .n_uids = 1};
    f->m.policy.quota_default.given = 1 << POLICY_QUOTA_QUEUED | 1 << POLICY_QUOTA_CONNECTIONS;
    f->m.policy.quota_default.values = (struct policy_quota){.queued = 3, .connections = 5};
    strcpy(f->folder, "/tmp/test-session-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    assert_int_equal(chmod(f->folder, 0755), 0);
    snprintf(f->path, sizeof(f->path), "%s/io.residentd", f->folder);
    options.path = f->path;
    assert_int_equal(listener_new(&f->m, &options, &f->l), 0);
    greet(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    listener_free(f->l);
    assert_int_not_equal(access(f->path, F_OK), 0);
    accounts_free(f->m.accounts); /* asserts that everything was given back */
    close(f->m.log.fd);
    sd_event_unref(f->m.event);
    rmdir(f->folder);
    free(f);
    return 0;
}

static bool is_closed(struct client *c)
{
    char byte;
    ssize_t n = recv(c->fd, &byte, 1, MSG_PEEK);

    return n == 0 || (n < 0 && errno == ECONNRESET);
}

static void assert_heard(struct client *c, const char *expected)
{
    const char *text = hear(c);

    assert_non_null(text);
    assert_string_equal(text, expected);
}

/* Only the error's name and the parameters that it must have. */
static void assert_heard_error(struct client *c, const char *error, const char *key, const char *value)
{
    const char *text = hear(c);
    _cleanup_json_ json_object *message = NULL;
    json_object *parameters;

    assert_non_null(text);
    message = json_tokener_parse(text);
    assert_non_null(json_object_object_get(message, "error"));
    assert_string_equal(json_object_get_string(json_object_object_get(message, "error")), error);
    parameters = json_object_object_get(message, "parameters");
    if (key)
        assert_string_equal(json_object_get_string(json_object_object_get(parameters, key)), value);
}

static void assert_error(struct fixture *f, const char *call, const char *error, const char *key,
                         const char *value)
{
    struct client c = client_new(f);

    say(&c, call);
    settle(f);
    assert_heard_error(&c, error, key, value);
    assert_null(hear(&c));
    client_close(&c);
    settle(f);
}

/* A reply has the type that its interface says. */
static void assert_reply_conforms(const char *reply, const char *interface, const char *method)
{
    const struct interface_text *text = interface_text_find(interface);
    _cleanup_(idl_freep) struct idl *idl = NULL;
    _cleanup_json_ json_object *message = json_tokener_parse(reply);
    struct fault fault = {0};

    assert_int_equal(idl_parse(text->text, text->n, &idl, NULL), 0);
    if (idl_check(idl_find_method(idl, method)->out, json_object_object_get(message, "parameters"), 0,
                  &fault) < 0)
        fail_msg("%s: %s: %s", reply, fault.subject, fault.reason);
}

/* ---- the service itself ---- */

static void the_service_describes_itself(void **state)
{
    struct fixture *f = *state;
    struct client c = client_new(f);
    const char *text;

    say(&c, "{\"method\":\"org.varlink.service.GetInfo\"}");
    settle(f);
    text = hear(&c);
    assert_non_null(text);
    assert_reply_conforms(text, "org.varlink.service", "GetInfo");
    assert_non_null(strstr(text, "\"io.residentd.Inference\""));
    for (const struct interface_text *row = interface_texts; row->name; row++) {
        _cleanup_json_ json_object *message = NULL;
        char call[256];

        snprintf(call, sizeof(call),
                 "{\"method\":\"org.varlink.service.GetInterfaceDescription\",\"parameters\":{\"interface\":"
                 "\"%s\"}}",
                 row->name);
        say(&c, call);
        settle(f);
        text = hear(&c);
        assert_non_null(text);
        message = json_tokener_parse(text);
        assert_string_equal(json_object_get_string(json_object_object_get(
                                json_object_object_get(message, "parameters"), "description")),
                            row->text);
    }
    client_close(&c);
}

static void wrong_calls_get_varlinks_errors(void **state)
{
    static const struct {
        const char *call, *error, *key, *value;
    } cases[] = {
        {"{\"method\":\"nodots\"}", "org.varlink.service.InterfaceNotFound", "interface", "nodots"},
        {"{\"method\":\"a.b.C\"}", "org.varlink.service.InterfaceNotFound", "interface", "a.b"},
        {"{\"method\":\"io.residentd.Inference.Explode\"}", "org.varlink.service.MethodNotFound", "method",
         "io.residentd.Inference.Explode"},
        {"{\"method\":\"org.varlink.service.GetInterfaceDescription\",\"parameters\":{\"interface\":\"a.b\"}"
         "}",
         "org.varlink.service.InterfaceNotFound", "interface", "a.b"},
        {"{\"method\":7}", "org.varlink.service.InvalidParameter", "parameter", "method"},
        {"{\"method\":\"a.b.C\\u0000\"}", "org.varlink.service.InvalidParameter", "parameter", "method"},
        {"{}", "org.varlink.service.InvalidParameter", "parameter", "method"},
        {"[]", "org.varlink.service.InvalidParameter", "parameter", ""},
        {"null", "org.varlink.service.InvalidParameter", "parameter", ""},
        {"{\"method\":\"org.varlink.service.GetInfo\",\"onewya\":true}",
         "org.varlink.service.InvalidParameter", "parameter", "onewya"},
        {"{\"method\":\"org.varlink.service.GetInfo\",\"more\":1}", "org.varlink.service.InvalidParameter",
         "parameter", "more"},
        {"{\"method\":\"org.varlink.service.GetInfo\",\"upgrade\":true}",
         "org.varlink.service.InvalidParameter", "parameter", "upgrade"},
        {"{\"method\":\"org.varlink.service.GetInfo\",\"parameters\":[]}",
         "org.varlink.service.InvalidParameter", "parameter", ""},
        {"{\"method\":\"org.varlink.service.GetInfo\",\"parameters\":{\"x\":1}}",
         "org.varlink.service.InvalidParameter", "parameter", "x"},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_error(f, cases[i].call, cases[i].error, cases[i].key, cases[i].value);
}

static void parameters_are_checked_beyond_their_types(void **state)
{
#define COMPLETE_WITH(p) "{\"method\":\"" INFERENCE "Complete\",\"parameters\":{\"model\":\"tiny\"," p "}}"
    static const struct {
        const char *call, *value;
    } cases[] = {
        {COMPLETE_WITH("\"top_k\":1"), "prompt"},
        {COMPLETE_WITH("\"prompt\":\"a\",\"prompt_tokens\":[]"), "prompt"},
        {COMPLETE_WITH("\"prompt_tokens\":[1,-1]"), "prompt_tokens"},
        {COMPLETE_WITH("\"prompt_tokens\":[2147483648]"), "prompt_tokens"},
        {COMPLETE_WITH("\"prompt\":\"a\",\"temprature\":1"), "temprature"},
        {COMPLETE_WITH("\"prompt\":\"a\",\"max_tokens\":0"), "max_tokens"},
        {COMPLETE_WITH("\"prompt\":\"a\",\"temperature\":-1"), "temperature"},
        {COMPLETE_WITH("\"prompt\":\"a\",\"top_p\":1.1"), "top_p"},
        {COMPLETE_WITH("\"prompt\":\"a\",\"stop\":[\"\"]"), "stop"},
        {COMPLETE_WITH("\"prompt\":\"a\",\"logit_bias\":{\"x\":1}"), "logit_bias"},
        {COMPLETE_WITH("\"prompt\":\"a\",\"logit_bias\":{\"99999999999\":1}"), "logit_bias"},
        {COMPLETE_WITH("\"prompt\":\"a\",\"logit_bias\":{\"1\":1e9}"), "logit_bias"},
        {COMPLETE_WITH("\"prompt\":\"a\",\"app\":\"a\\nb\""), "app"},
        {COMPLETE_WITH("\"prompt\":\"a\",\"priority\":1001"), "priority"},
        {COMPLETE_WITH("\"prompt\":\"a\",\"deadline_ms\":0"), "deadline_ms"},
        {COMPLETE_WITH("\"prompt\":\"a\",\"grammar\":\"\",\"json_schema\":{}"), "grammar"},
        {"{\"method\":\"" INFERENCE "Chat\",\"parameters\":{\"model\":\"tiny\",\"messages\":[]}}",
         "messages"},
        {"{\"method\":\"" INFERENCE
         "Chat\",\"parameters\":{\"model\":\"tiny\",\"messages\":[{\"rolle\":\"user\"}]}}",
         "messages[0].rolle"},
        {"{\"method\":\"" INFERENCE "Detokenize\",\"parameters\":{\"model\":\"tiny\",\"tokens\":[-5]}}",
         "tokens"},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_error(f, cases[i].call, "org.varlink.service.InvalidParameter", "parameter", cases[i].value);
    assert_int_equal(f->m.n_started, 0);
}

static void what_is_no_json_is_answered_and_cut_off(void **state)
{
    struct fixture *f = *state;
    struct client c = client_new(f);

    say(&c, "{\"method\":");
    settle(f);
    assert_heard_error(&c, "org.varlink.service.InvalidParameter", NULL, NULL);
    assert_true(is_closed(&c));
    client_close(&c);
}

/* ---- calls ---- */

static void a_call_arrives_cut_at_every_byte(void **state)
{
    static const char call[] = "{\"method\":\"" INFERENCE "ListModels\"}";
    struct fixture *f = *state;

    f->m.policy.quota_default.values.connections = 1000;
    for (size_t cut = 1; cut < sizeof(call); cut += 7) {
        struct client c = client_new(f);
        const char *text;

        say_bytes(&c, call, cut);
        settle(f);
        assert_null(hear(&c));
        say_bytes(&c, call + cut, sizeof(call) - cut);
        settle(f);
        text = hear(&c);
        assert_non_null(text);
        assert_reply_conforms(text, "io.residentd.Inference", "ListModels");
        client_close(&c);
    }
    settle(f);
}

static void an_answer_streams_with_more(void **state)
{
    struct fixture *f = *state;
    struct client c = client_new(f);
    const char *text;

    say(&c, COMPLETE(",\"more\":true"));
    settle(f);
    assert_int_equal(f->m.n_started, 1);
    assert_string_equal(fake_request(&f->m, 0)->parameters, "{\"model\":\"tiny\",\"prompt\":\"x\"}");
    fake_piece(fake_request(&f->m, 0), "Once", NULL);
    settle(f);
    text = hear(&c);
    assert_string_equal(
        text, "{\"parameters\":{\"request\":1,\"text\":\"Once\",\"done\":false},\"continues\":true}");
    assert_reply_conforms(text, "io.residentd.Inference", "Complete");
    fake_piece(fake_request(&f->m, 0), " upon", "{\"logprobs\":[],\"text\":\"not this\",\"request\":9}");
    fake_done(fake_request(&f->m, 0), "stop", NULL);
    settle(f);
    assert_heard(&c, "{\"parameters\":{\"request\":1,\"text\":\" "
                     "upon\",\"done\":false,\"logprobs\":[]},\"continues\":true}");
    text = hear(&c);
    assert_string_equal(
        text, "{\"parameters\":{\"request\":1,\"text\":\"\",\"done\":true,\"finish\":\"stop\",\"usage\":{"
              "\"prompt_tokens\":3,\"cached_tokens\":0,\"output_tokens\":2,\"queue_ms\":0,\"prefill_ms\":0,"
              "\"decode_ms\":5}}}");
    assert_reply_conforms(text, "io.residentd.Inference", "Complete");
    assert_null(hear(&c));
    assert_false(is_closed(&c));
    client_close(&c);
}

static void an_answer_is_one_reply_without_more(void **state)
{
    struct fixture *f = *state;
    struct client c = client_new(f);
    const char *text;

    say(&c,
        "{\"method\":\"" INFERENCE
        "Chat\",\"parameters\":{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}}");
    settle(f);
    fake_queue(fake_request(&f->m, 0), 2, 100);
    fake_progress(fake_request(&f->m, 0), 1, 2);
    fake_piece(fake_request(&f->m, 0), "Good", "{\"reasoning\":\"mo\"}");
    settle(f);
    assert_null(hear(&c));
    fake_piece(fake_request(&f->m, 0), " morning", "{\"reasoning\":\"rning\"}");
    fake_done(fake_request(&f->m, 0), "length", NULL);
    settle(f);
    text = hear(&c);
    assert_non_null(text);
    assert_reply_conforms(text, "io.residentd.Inference", "Chat");
    assert_non_null(strstr(
        text, "\"text\":\"Good morning\",\"done\":true,\"reasoning\":\"morning\",\"finish\":\"length\""));
    assert_null(strstr(text, "continues"));
    client_close(&c);
}

static void waiting_is_told_in_pieces(void **state)
{
    struct fixture *f = *state;
    struct client c = client_new(f);
    const char *text;

    say(&c, COMPLETE(",\"more\":true"));
    settle(f);
    fake_queue(fake_request(&f->m, 0), 4, -1);
    settle(f);
    text = hear(&c);
    assert_string_equal(text, "{\"parameters\":{\"request\":1,\"text\":\"\",\"done\":false,\"queue\":{"
                              "\"position\":4}},\"continues\":true}");
    assert_reply_conforms(text, "io.residentd.Inference", "Complete");
    client_close(&c);
    settle(f);
    assert_int_equal(f->m.n_cancelled, 1);
}

static void a_refused_request_is_a_typed_error(void **state)
{
    struct fixture *f = *state;

    fault_set(&f->m.refusal, FAULT_NOT_ALLOWED, "tiny", "policy");
    assert_error(f, COMPLETE(",\"more\":true"), "io.residentd.NotAllowed", "model", "tiny");
    fault_init(&f->m.refusal, FAULT_NO_SUCH_MODEL, "tiny");
    assert_error(f, COMPLETE(""), "io.residentd.NoSuchModel", "model", "tiny");
}

static void a_failed_request_is_a_typed_error(void **state)
{
    struct fixture *f = *state;
    struct client c = client_new(f);
    struct fault fault;

    say(&c, COMPLETE(",\"more\":true"));
    settle(f);
    fault_set(&fault, FAULT_MODEL_UNAVAILABLE, "tiny", "the worker died");
    fake_piece(fake_request(&f->m, 0), "Once", NULL);
    fake_failed(fake_request(&f->m, 0), &fault);
    settle(f);
    assert_non_null(hear(&c));
    assert_heard(&c, "{\"error\":\"io.residentd.ModelUnavailable\",\"parameters\":{\"model\":\"tiny\","
                     "\"reason\":\"the worker died\"}}");
    client_close(&c);
}

static void a_oneway_call_is_done_and_not_answered(void **state)
{
    struct fixture *f = *state;
    struct client c = client_new(f);

    say(&c, "{\"method\":\"" INFERENCE
            "Complete\",\"parameters\":{\"model\":\"tiny\",\"prompt\":\"x\"},\"oneway\":true}");
    say(&c, "{\"method\":\"a.b.C\",\"oneway\":true}");
    settle(f);
    fake_done(fake_request(&f->m, 0), "stop", NULL);
    say(&c, "{\"method\":\"org.varlink.service.GetInfo\"}");
    settle(f);
    assert_non_null(strstr(hear(&c), "vendor"));
    assert_null(hear(&c));
    client_close(&c);
}

/* ---- one call a connection ---- */

static void pipelined_calls_wait_for_their_turn_and_count_as_queued(void **state)
{
    struct fixture *f = *state;
    struct client c = client_new(f);
    char all[8 * sizeof(COMPLETE(""))];
    size_t n = 0;

    for (unsigned i = 0; i < 6; i++) {
        memcpy(all + n, COMPLETE(""), sizeof(COMPLETE("")));
        n += sizeof(COMPLETE(""));
    }
    say_bytes(&c, all, n);
    settle(f);
    assert_int_equal(f->m.n_started, 1);
    assert_int_equal(account_used(f->m.accounts, getuid(), ACCOUNT_QUEUED), 3);
    for (unsigned i = 1; i <= 4; i++) {
        assert_int_equal(fake_request(&f->m, 0)->id, i);
        fake_done(fake_request(&f->m, 0), "stop", NULL);
        settle(f);
        assert_int_equal(account_used(f->m.accounts, getuid(), ACCOUNT_QUEUED), i < 3 ? 3 - i : 0);
        assert_non_null(strstr(hear(&c), "\"done\":true"));
    }
    /* One ran, three waited, two were too many. */
    assert_int_equal(f->m.n_started, 4);
    assert_heard_error(&c, "io.residentd.QueueFull", "limit", "3");
    assert_heard_error(&c, "io.residentd.QueueFull", "limit", "3");
    assert_null(hear(&c));
    assert_false(is_closed(&c));
    client_close(&c);
}

static void a_hangup_cancels_at_once(void **state)
{
    struct fixture *f = *state;
    struct client c = client_new(f);

    say(&c, COMPLETE(",\"more\":true"));
    settle(f);
    assert_non_null(fake_request(&f->m, 0));
    client_close(&c);
    settle(f);
    assert_null(fake_request(&f->m, 0));
    assert_int_equal(f->m.n_cancelled, 1);
    assert_int_equal(account_used(f->m.accounts, getuid(), ACCOUNT_CONNECTIONS), 0);
}

static void a_half_close_does_not(void **state)
{
    struct fixture *f = *state;
    struct client c = client_new(f);

    say(&c, COMPLETE(""));
    assert_int_equal(shutdown(c.fd, SHUT_WR), 0);
    settle(f);
    assert_int_equal(f->m.n_cancelled, 0);
    fake_piece(fake_request(&f->m, 0), "still here", NULL);
    fake_done(fake_request(&f->m, 0), "stop", NULL);
    settle(f);
    assert_non_null(strstr(hear(&c), "still here"));
    assert_true(is_closed(&c));
    client_close(&c);
    assert_int_equal(account_used(f->m.accounts, getuid(), ACCOUNT_CONNECTIONS), 0);
}

/* Calls behind the running one are answered too before the service closes its half. */
static void a_half_close_leaves_pipelined_calls(void **state)
{
    static const char calls[] = COMPLETE("") "\0{\"method\":\"org.varlink.service.GetInfo\"}";
    struct fixture *f = *state;
    struct client c = client_new(f);

    say_bytes(&c, calls, sizeof(calls));
    assert_int_equal(shutdown(c.fd, SHUT_WR), 0);
    settle(f);
    fake_done(fake_request(&f->m, 0), "stop", NULL);
    settle(f);
    assert_non_null(strstr(hear(&c), "\"done\":true"));
    assert_non_null(strstr(hear(&c), "vendor"));
    assert_true(is_closed(&c));
    client_close(&c);
}

static void a_reader_that_does_not_read_is_dropped(void **state)
{
    struct fixture *f = *state;
    struct client c = client_new(f);
    char text[16384];
    unsigned n = 0;

    say(&c, COMPLETE(",\"more\":true"));
    settle(f);
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    while (fake_request(&f->m, 0) && n < 1000) {
        fake_piece(fake_request(&f->m, 0), text, NULL);
        settle(f);
        n++;
        assert_true(account_used(f->m.accounts, getuid(), ACCOUNT_BYTES) <
                    LIMIT_UNREAD_BYTES_DROP + (1 << 20));
    }
    assert_in_range(n, LIMIT_UNREAD_BYTES_DROP / sizeof(text), LIMIT_UNREAD_BYTES_DROP / sizeof(text) + 50);
    assert_int_equal(f->m.n_cancelled, 1);
    assert_int_equal(account_used(f->m.accounts, getuid(), ACCOUNT_BYTES), 0);
    client_close(&c);
}

static void a_slow_reader_pauses_its_request(void **state)
{
    struct fixture *f = *state;
    struct client c = client_new(f);
    unsigned n_sent = 0, n_heard = 0;
    char text[16384];

    say(&c, COMPLETE(",\"more\":true"));
    settle(f);
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    for (; !fake_request(&f->m, 0)->paused; n_sent++) {
        assert_in_range(n_sent, 0, 2 * LIMIT_UNREAD_BYTES_PAUSE / sizeof(text) + 50);
        fake_piece(fake_request(&f->m, 0), text, NULL);
        settle(f);
    }
    assert_true(n_sent > LIMIT_UNREAD_BYTES_PAUSE / sizeof(text));
    for (; n_heard < n_sent; settle(f))
        while (hear(&c))
            n_heard++;
    assert_false(fake_request(&f->m, 0)->paused);
    fake_done(fake_request(&f->m, 0), "stop", NULL);
    settle(f);
    assert_non_null(strstr(hear(&c), "\"done\":true"));
    assert_int_equal(f->m.n_cancelled, 0);
    client_close(&c);
}

/* A client that calls and calls and never reads gets no further than the pause. */
static void no_new_call_begins_while_replies_wait(void **state)
{
    static const char call[] = "{\"method\":\"org.varlink.service.GetInterfaceDescription\",\"parameters\":{"
                               "\"interface\":\"io.residentd.Inference\"}}";
    struct fixture *f = *state;
    struct client c = client_new(f);
    unsigned n_sent = 0, n_heard = 0;

    for (bool full = false; !full;) {
        while (send(c.fd, call, sizeof(call), MSG_NOSIGNAL) == sizeof(call))
            n_sent++;
        full = account_used(f->m.accounts, getuid(), ACCOUNT_BYTES) > LIMIT_UNREAD_BYTES_PAUSE;
        settle(f);
        assert_true(account_used(f->m.accounts, getuid(), ACCOUNT_BYTES) <
                    LIMIT_UNREAD_BYTES_PAUSE + (1 << 17));
    }
    for (bool idle = false; !idle;) {
        idle = true;
        while (hear(&c)) {
            n_heard++;
            idle = false;
        }
        settle(f);
    }
    /* The last call may have been cut by the full socket. */
    assert_in_range(n_heard, n_sent, n_sent);
    client_close(&c);
}

static void a_frame_above_the_limit_ends_the_connection(void **state)
{
    struct fixture *f = *state;
    struct client c = client_new(f);
    char part[65536];
    size_t n = 0;

    memset(part, ' ', sizeof(part));
    while (n <= FRAME_BYTES_MAX + sizeof(part)) {
        ssize_t k = send(c.fd, part, sizeof(part), MSG_NOSIGNAL);

        if (k < 0 && errno != EAGAIN)
            break;
        if (k > 0)
            n += (size_t)k;
        assert_true(sd_event_run(f->m.event, 0) >= 0);
    }
    settle(f);
    assert_true(n > FRAME_BYTES_MAX);
    assert_heard_error(&c, "org.varlink.service.InvalidParameter", NULL, NULL);
    assert_true(is_closed(&c));
    client_close(&c);
    assert_int_equal(account_used(f->m.accounts, getuid(), ACCOUNT_BYTES), 0);
}

static void connections_beyond_the_quota_hear_why(void **state)
{
    struct fixture *f = *state;
    struct client c[5 + LIMIT_CONNECTIONS_REFUSED + 1];
    const unsigned n = sizeof(c) / sizeof(c[0]);

    for (unsigned i = 0; i < n; i++)
        c[i] = client_new(f);
    settle(f);
    assert_int_equal(account_used(f->m.accounts, getuid(), ACCOUNT_CONNECTIONS), n - 1);
    assert_true(is_closed(&c[n - 1]));
    for (unsigned i = 0; i < n - 1; i++)
        say(&c[i], "{\"method\":\"org.varlink.service.GetInfo\"}");
    settle(f);
    for (unsigned i = 0; i < 5; i++)
        assert_non_null(strstr(hear(&c[i]), "vendor"));
    for (unsigned i = 5; i < n - 1; i++) {
        assert_heard_error(&c[i], "io.residentd.QuotaExceeded", "quota", "connections");
        assert_true(is_closed(&c[i]));
    }
    assert_int_equal(account_used(f->m.accounts, getuid(), ACCOUNT_CONNECTIONS), 5);
    for (unsigned i = 0; i < n; i++)
        client_close(&c[i]);
}

static void connections_are_counted_anew_after_a_reload(void **state)
{
    struct fixture *f = *state;
    struct client c[5];

    for (unsigned i = 0; i < 5; i++)
        c[i] = client_new(f);
    say(&c[4], COMPLETE(",\"more\":true"));
    settle(f);
    f->m.policy.quota_default.values.connections = 2;
    say(&c[3], "{\"method\":\"io.residentd.Models.Reload\"}");
    settle(f);
    fake_reloaded(&f->m);
    settle(f);
    assert_heard(&c[3], "{\"parameters\":{\"changed\":[\"quotas.default.connections\"]}}");
    /* One with a running call and the one that asked were busy; they stay, whatever room there is for the others. */
    for (unsigned i = 0; i < 5; i++)
        if (i != 4)
            say(&c[i], "{\"method\":\"org.varlink.service.GetInfo\"}");
    settle(f);
    assert_non_null(strstr(hear(&c[3]), "vendor"));
    for (unsigned i = 0; i < 3; i++) {
        assert_heard_error(&c[i], "io.residentd.QuotaExceeded", "quota", "connections");
        assert_true(is_closed(&c[i]));
    }
    assert_int_equal(account_used(f->m.accounts, getuid(), ACCOUNT_CONNECTIONS), 2);
    fake_done(fake_request(&f->m, 0), "stop", NULL);
    settle(f);
    assert_non_null(strstr(hear(&c[4]), "\"done\":true"));
    for (unsigned i = 0; i < 5; i++)
        client_close(&c[i]);
}

static void a_stopping_service_takes_no_calls(void **state)
{
    struct fixture *f = *state;
    struct client c = client_new(f);

    settle(f);
    f->m.stopping = true;
    say(&c, COMPLETE(""));
    say(&c, "{\"method\":\"org.varlink.service.GetInfo\"}");
    settle(f);
    assert_heard_error(&c, "io.residentd.ShuttingDown", NULL, NULL);
    assert_non_null(strstr(hear(&c), "vendor"));
    client_close(&c);
}

/* ---- models and requests ---- */

static void status_load_and_usage_conform(void **state)
{
    struct fixture *f = *state;
    struct client c = client_new(f), other = client_new(f);
    const char *text;

    say(&other, COMPLETE(",\"more\":true"));
    say(&c, "{\"method\":\"io.residentd.Models.Status\"}");
    settle(f);
    text = hear(&c);
    assert_reply_conforms(text, "io.residentd.Models", "Status");
    assert_non_null(strstr(text, "\"kv_bytes\":7"));
    assert_non_null(strstr(text, "\"connections\":2"));
    say(&c, "{\"method\":\"io.residentd.Usage.Requests\"}");
    settle(f);
    text = hear(&c);
    assert_reply_conforms(text, "io.residentd.Usage", "Requests");
    assert_non_null(strstr(text, "\"request\":1"));

    say(&c, "{\"method\":\"io.residentd.Models.Load\",\"parameters\":{\"model\":\"tiny\"},\"more\":true}");
    settle(f);
    f->m.wait.callbacks->progress(&f->m.wait, MODEL_MAPPING, 1, 10, f->m.wait.userdata);
    f->m.wait.callbacks->done(&f->m.wait, MODEL_READY, 10, f->m.wait.userdata);
    settle(f);
    assert_heard(
        &c,
        "{\"parameters\":{\"state\":\"loading\",\"bytes_done\":1,\"bytes_total\":10},\"continues\":true}");
    assert_heard(&c, "{\"parameters\":{\"state\":\"ready\",\"bytes_done\":10,\"bytes_total\":10}}");
    say(&c, "{\"method\":\"io.residentd.Models.Unload\",\"parameters\":{\"model\":\"tiny\"},\"more\":true}");
    settle(f);
    f->m.wait.callbacks->done(&f->m.wait, MODEL_ABSENT, 0, f->m.wait.userdata);
    settle(f);
    assert_heard(&c, "{\"parameters\":{}}");

    say(&c, "{\"method\":\"io.residentd.Usage.Cancel\",\"parameters\":{\"request\":1}}");
    settle(f);
    assert_heard(&c, "{\"parameters\":{}}");
    assert_heard_error(&other, "io.residentd.Cancelled", "reason", "client");
    say(&c, "{\"method\":\"io.residentd.Usage.Cancel\",\"parameters\":{\"request\":1}}");
    settle(f);
    assert_heard_error(&c, "io.residentd.NoSuchRequest", "request", "1");
    say(&c, "{\"method\":\"io.residentd.Models.Load\",\"parameters\":{\"model\":\"tiny\"}}");
    settle(f);
    client_close(&c);
    client_close(&other);
    settle(f);
    assert_int_equal(f->m.n_waits_cancelled, 1);
}

static void tokenize_hands_on_what_the_worker_wrote(void **state)
{
    struct fixture *f = *state;
    struct client c = client_new(f);

    say(&c, "{\"method\":\"" INFERENCE
            "Tokenize\",\"parameters\":{\"model\":\"tiny\",\"text\":\"a\",\"special\":null}}");
    settle(f);
    assert_int_equal(fake_request(&f->m, 0)->kind, REQUEST_TOKENIZE);
    assert_string_equal(fake_request(&f->m, 0)->parameters, "{\"model\":\"tiny\",\"text\":\"a\"}");
    fake_done(fake_request(&f->m, 0), NULL, "{\"tokens\":[1,2]}");
    settle(f);
    assert_heard(&c, "{\"parameters\":{\"tokens\":[1,2]}}");
    client_close(&c);
}

/* ---- who ---- */

/* A child becomes @uid, connects, says @call and compares the beginning of the reply. */
static void assert_other_uid_hears(struct fixture *f, uid_t uid, const char *call, const char *expected)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        struct client c;
        char byte;

        if (setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
            _exit(2);
        c = client_new(f);
        say(&c, call);
        fcntl(c.fd, F_SETFL, 0);
        (void)!recv(c.fd, &byte, 1, MSG_PEEK);
        _exit(strstr(hear(&c), expected) ? 0 : 1);
    }
    while (waitpid(pid, &status, WNOHANG) == 0)
        assert_true(sd_event_run(f->m.event, 1000) >= 0);
    assert_int_equal(status, 0);
    settle(f);
}

static void the_kernel_says_who_calls(void **state)
{
    struct fixture *f = *state;

    if (getuid() != 0)
        skip();
    assert_other_uid_hears(f, 1, "{\"method\":\"org.varlink.service.GetInfo\"}", "vendor");
    assert_other_uid_hears(
        f, 1, "{\"method\":\"io.residentd.Models.Load\",\"parameters\":{\"model\":\"tiny\"}}",
        "{\"error\":\"io.residentd.NotAllowed\",\"parameters\":{\"reason\":\"admins_only\"}}");
    assert_other_uid_hears(f, 1, "{\"method\":\"io.residentd.Models.Status\"}",
                           "\"models\":[{\"name\":\"tiny\"");
    assert_other_uid_hears(f, 1, "{\"method\":\"io.residentd.Usage.Requests\",\"parameters\":{\"uid\":0}}",
                           "admins_only");
    assert_other_uid_hears(
        f, 4242, "{\"method\":\"org.varlink.service.GetInfo\"}",
        "{\"error\":\"io.residentd.NotAllowed\",\"parameters\":{\"reason\":\"unknown_uid\"}}");
    assert_other_uid_hears(f, 77777, "{\"method\":\"org.varlink.service.GetInfo\"}", "unknown_uid");
}

static void a_socket_that_answers_is_not_replaced(void **state)
{
    struct fixture *f = *state;
    struct listener_options options = {.path = f->path, .fd = -EBADF, .lookup = lookup};
    struct listener *second = NULL;
    struct stat st;
    int fd;

    assert_int_equal(listener_new(&f->m, &options, &second), -EADDRINUSE);
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0666);

    /* A socket that nobody listens on is in nobody's use. */
    {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        char stale[160];

        snprintf(stale, sizeof(stale), "%s/stale", f->folder);
        strcpy(address.sun_path, stale);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        close(fd);
        options.path = stale;
        assert_int_equal(listener_new(&f->m, &options, &second), 0);
        assert_string_equal(listener_path(second), stale);
        listener_free(second);
        assert_int_not_equal(access(stale, F_OK), 0);
    }
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_service_describes_itself),
        TEST(wrong_calls_get_varlinks_errors),
        TEST(parameters_are_checked_beyond_their_types),
        TEST(what_is_no_json_is_answered_and_cut_off),
        TEST(a_call_arrives_cut_at_every_byte),
        TEST(an_answer_streams_with_more),
        TEST(an_answer_is_one_reply_without_more),
        TEST(waiting_is_told_in_pieces),
        TEST(a_refused_request_is_a_typed_error),
        TEST(a_failed_request_is_a_typed_error),
        TEST(a_oneway_call_is_done_and_not_answered),
        TEST(pipelined_calls_wait_for_their_turn_and_count_as_queued),
        TEST(a_hangup_cancels_at_once),
        TEST(a_half_close_does_not),
        TEST(a_half_close_leaves_pipelined_calls),
        TEST(a_reader_that_does_not_read_is_dropped),
        TEST(a_slow_reader_pauses_its_request),
        TEST(no_new_call_begins_while_replies_wait),
        TEST(a_frame_above_the_limit_ends_the_connection),
        TEST(connections_beyond_the_quota_hear_why),
        TEST(connections_are_counted_anew_after_a_reload),
        TEST(a_stopping_service_takes_no_calls),
        TEST(status_load_and_usage_conform),
        TEST(tokenize_hands_on_what_the_worker_wrote),
        TEST(the_kernel_says_who_calls),
        TEST(a_socket_that_answers_is_not_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
