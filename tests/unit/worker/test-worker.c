/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The real resident-worker, driven over its socket: what the daemon relies on.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/utf8.h"
#include "engine/worker/clock.h"
#include "tests/model-writer/model_writer.h"
#include "tests/unit/worker/driver.h"

#define CONFIG "{\"model\": \"tiny\", \"sequences\": 4, \"threads\": 2}"

static void start_ready(struct driver *d, uint32_t context, const char *config)
{
    driver_start(d);
    driver_load(d, driver_model(context), config);
    assert_true(d->ready);
}

static void stop_well(struct driver *d)
{
    int status = driver_stop(d);

    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static json_object *parse(const char *text)
{
    const struct json_limits limits = {.bytes_max = 16 << 20, .depth_max = 16, .values_max = 4 << 20};
    json_object *o = NULL;

    assert_non_null(text);
    assert_int_equal(json_parse(text, strlen(text), &limits, &o, NULL, NULL), 0);
    return o;
}

static int64_t number(json_object *o, const char *name)
{
    json_object *value = NULL;

    assert_true(json_object_object_get_ex(o, name, &value));
    return json_object_get_int64(value);
}

static void ping(struct driver *d, uint64_t cookie)
{
    const struct packet_ping p = {.cookie = cookie};

    driver_send(d, PACKET_PING, &p, sizeof(p));
}

static void test_ready(void **state)
{
    struct driver d;
    json_object *facts, *value;

    start_ready(&d, 256, CONFIG);
    assert_int_equal(d.hello_state, PROTO_STATE_NEW);
    assert_int_equal(d.credentials.pid, d.pid);
    facts = parse(d.facts);
    assert_true(json_object_object_get_ex(facts, "architecture", &value));
    assert_string_equal(json_object_get_string(value), "llama");
    assert_int_equal(number(facts, "context_tokens"), 256);
    assert_int_equal(number(facts, "sequences"), 4);
    assert_int_equal(number(facts, "pages"), 4 * 256 / 32);
    assert_true(json_object_object_get_ex(facts, "capabilities", &value));
    assert_int_equal(json_object_array_length(value), 4);
    assert_true(json_object_object_get_ex(facts, "bytes", &value));
    assert_true(number(value, "weights") > 0);
    json_object_put(facts);
    ping(&d, 99);
    while (!d.pong)
        assert_true(driver_receive(&d, 60000));
    assert_int_equal(d.cookie, 99);
    stop_well(&d);
}

static void test_rights_given_up(void **state)
{
    struct driver d;
    char path[64], line[256];
    unsigned long long caps = ~0ull;
    int no_new_privs = -1, seccomp = -1;
    FILE *f;

    start_ready(&d, 256, CONFIG);
    snprintf(path, sizeof(path), "/proc/%d/status", (int)d.pid);
    f = fopen(path, "re");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        sscanf(line, "NoNewPrivs: %d", &no_new_privs);
        sscanf(line, "Seccomp: %d", &seccomp);
        sscanf(line, "CapPrm: %llx", &caps);
    }
    fclose(f);
    assert_int_equal(no_new_privs, 1);
    assert_int_equal(seccomp, 2);
    assert_int_equal(caps & ~(1ull << 14 /* CAP_IPC_LOCK */), 0);
    stop_well(&d);
}

static void test_complete(void **state)
{
    struct driver d;
    struct answer *a, *b;

    start_ready(&d, 256, CONFIG);
    a = driver_complete(&d, SUBMIT_COMPLETE,
                        "{\"prompt\": \"once upon a time\", \"temperature\": 0, \"max_tokens\": 20}");
    assert_true(a->done);
    assert_int_equal(a->usage.finish, DONE_LENGTH);
    assert_int_equal(a->usage.output_tokens, 20);
    assert_int_equal(a->n_tokens, 20);
    assert_true(a->usage.prompt_tokens > 0 && a->usage.prompt_tokens < 60);
    assert_true(a->n_text > 0);
    assert_true(utf8_is_valid(a->text, a->n_text, NULL));
    assert_int_equal(d.n_tenants, 1);
    assert_int_equal(d.tenants[0].tenant, 1);
    assert_true(d.cost_ns > 0);
    b = driver_complete(&d, SUBMIT_COMPLETE,
                        "{\"prompt\": \"once upon a time\", \"temperature\": 0, \"max_tokens\": 20}");
    assert_string_equal(a->text, b->text);
    assert_int_equal(d.step.pages_total, 32);
    stop_well(&d);
}

static void prompt_of(char *to, size_t size, int i)
{
    int n = snprintf(to, size, "{\"temperature\": 0, \"max_tokens\": %d, \"prompt\": \"", 10 + 5 * i);

    for (int k = 0; k <= 9 * i; k++)
        n += snprintf(to + n, size - (size_t)n, "%c%d ", 'a' + (i + k) % 26, k);
    snprintf(to + n, size - (size_t)n, "\"}");
}

static void test_alone_as_in_company(void **state)
{
    enum { N = 10 };
    struct answer *alone[N], *together[N];
    struct driver d;
    char json[2048];

    /* More requests than places and tenants that displace each other, with little room for keys and values.
     */
    start_ready(&d, 512, "{\"model\": \"tiny\", \"sequences\": 3, \"kv_tokens\": 512, \"batch_tokens\": 64}");
    for (int i = 0; i < N; i++) {
        prompt_of(json, sizeof(json), i);
        alone[i] = driver_complete(&d, SUBMIT_COMPLETE, json);
        assert_true(alone[i]->done);
    }
    for (int i = 0; i < N; i++) {
        prompt_of(json, sizeof(json), i);
        together[i] = driver_submit(&d, 1 + (uint32_t)i % 4, SUBMIT_COMPLETE, 0, json);
    }
    for (int i = 0; i < N; i++) {
        driver_wait(&d, together[i]);
        assert_string_equal(together[i]->text, alone[i]->text);
        assert_int_equal(together[i]->usage.output_tokens, alone[i]->usage.output_tokens);
        assert_int_equal(together[i]->usage.finish, alone[i]->usage.finish);
    }
    stop_well(&d);
}

static void test_seed(void **state)
{
    struct driver d;
    struct answer *a, *b, *c;

    start_ready(&d, 256, CONFIG);
    a = driver_complete(&d, SUBMIT_COMPLETE,
                        "{\"prompt\": \"x\", \"temperature\": 3, \"seed\": 5, \"max_tokens\": 30}");
    b = driver_complete(&d, SUBMIT_COMPLETE,
                        "{\"prompt\": \"x\", \"temperature\": 3, \"seed\": 5, \"max_tokens\": 30}");
    c = driver_complete(&d, SUBMIT_COMPLETE,
                        "{\"prompt\": \"x\", \"temperature\": 3, \"seed\": 6, \"max_tokens\": 30}");
    assert_string_equal(a->text, b->text);
    assert_string_not_equal(a->text, c->text);
    stop_well(&d);
}

/* Mirostat with no surprise allowed takes the likeliest token, however hot; penalties that look nowhere change nothing. */
static void test_mirostat(void **state)
{
    struct driver d;
    struct answer *greedy, *calm, *free_, *free_again;

    start_ready(&d, 256, CONFIG);
    greedy = driver_complete(&d, SUBMIT_COMPLETE, "{\"prompt\": \"x\", \"temperature\": 0, \"max_tokens\": 20}");
    calm = driver_complete(&d, SUBMIT_COMPLETE,
                           "{\"prompt\": \"x\", \"temperature\": 3, \"seed\": 5, \"mirostat\": 2, \"mirostat_tau\": 0, "
                           "\"mirostat_eta\": 1, \"max_tokens\": 20}");
    free_ = driver_complete(&d, SUBMIT_COMPLETE,
                            "{\"prompt\": \"x\", \"temperature\": 3, \"seed\": 5, \"mirostat\": 2, \"max_tokens\": 20}");
    free_again = driver_complete(&d, SUBMIT_COMPLETE,
                                 "{\"prompt\": \"x\", \"temperature\": 3, \"seed\": 5, \"mirostat\": 2, "
                                 "\"max_tokens\": 20, \"repeat_penalty\": 9, \"penalty_last_n\": 0}");
    assert_string_equal(calm->text, greedy->text);
    assert_string_not_equal(free_->text, greedy->text);
    assert_string_equal(free_again->text, free_->text);
    stop_well(&d);
}

static void test_chat(void **state)
{
    struct driver d;
    struct answer *a, *b;

    /* The default system message is the same as one that is sent, and another one replaces it. */
    start_ready(&d, 256, "{\"defaults\": {\"system\": \"be brief\", \"temperature\": 0, \"max_tokens\": 9}}");
    a = driver_complete(&d, SUBMIT_CHAT, "{\"messages\": [{\"role\": \"user\", \"content\": \"hello\"}]}");
    assert_true(a->done);
    b = driver_complete(&d, SUBMIT_CHAT,
                        "{\"messages\": [{\"role\": \"system\", \"content\": \"be brief\"},"
                        " {\"role\": \"user\", \"content\": \"hello\"}], \"max_tokens\": 5}");
    assert_int_equal(a->usage.prompt_tokens, b->usage.prompt_tokens);
    assert_int_equal(a->usage.output_tokens, 9);
    assert_int_equal(b->usage.output_tokens, 5);
    assert_memory_equal(a->text, b->text, b->n_text);
    b = driver_complete(&d, SUBMIT_CHAT,
                        "{\"messages\": [{\"role\": \"system\", \"content\": \"\"},"
                        " {\"role\": \"user\", \"content\": \"hello\"}]}");
    assert_true(b->usage.prompt_tokens < a->usage.prompt_tokens);
    stop_well(&d);
}

static void test_default_model_answers(void **state)
{
    const char *source = getenv("RESIDENTD_SOURCE");
    char path[4096], json[8192];
    json_object *expected, *cases, *value, *messages;
    struct driver d;
    int fd;

    snprintf(path, sizeof(path), "%s/primer/expected.json", source);
    expected = json_object_from_file(path);
    assert_non_null(expected);
    snprintf(path, sizeof(path), "%s/primer/primer.gguf", source);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    driver_start(&d);
    driver_load(&d, fd, CONFIG);
    assert_true(d.ready);
    assert_true(json_object_object_get_ex(expected, "cases", &cases));
    for (size_t i = 0; i < json_object_array_length(cases); i++) {
        json_object *c = json_object_array_get_idx(cases, i);
        struct answer *a;

        assert_true(json_object_object_get_ex(c, "messages", &messages));
        snprintf(json, sizeof(json), "{\"temperature\": 0, \"max_tokens\": 64, \"messages\": %s}",
                 json_object_to_json_string(messages));
        a = driver_complete(&d, SUBMIT_CHAT, json);
        assert_true(a->done);
        assert_true(json_object_object_get_ex(c, "prompt_ids", &value));
        assert_int_equal(a->usage.prompt_tokens, json_object_array_length(value));
        assert_true(json_object_object_get_ex(c, "answer_text", &value));
        assert_string_equal(a->text, json_object_get_string(value));
    }
    json_object_put(expected);
    stop_well(&d);
}

static void test_stop_and_length(void **state)
{
    struct driver d;
    struct answer *whole, *a;
    char json[512], stop[16] = "";

    start_ready(&d, 256, "{\"limits\": {\"max_tokens\": 40}, \"defaults\": {\"temperature\": 0}}");
    whole = driver_complete(&d, SUBMIT_COMPLETE, "{\"prompt\": \"abc\"}");
    assert_int_equal(whole->usage.output_tokens, 40); /* the policy's limit */
    assert_int_equal(whole->usage.finish, DONE_LENGTH);
    /* Some printable part of the answer as a stop string: the text ends before it. */
    for (size_t i = 1; i + 3 < whole->n_text && !*stop; i++) {
        bool plain = true;

        for (size_t k = 0; k < 3; k++)
            plain = plain && whole->text[i + k] > 0x20 && whole->text[i + k] < 0x7f &&
                    whole->text[i + k] != '"' && whole->text[i + k] != '\\';
        if (plain)
            memcpy(stop, whole->text + i, 3);
    }
    if (!*stop)
        skip();
    snprintf(json, sizeof(json), "{\"prompt\": \"abc\", \"stop\": [\"%s\"]}", stop);
    a = driver_complete(&d, SUBMIT_COMPLETE, json);
    assert_int_equal(a->usage.finish, DONE_STOP);
    assert_null(strstr(a->text, stop));
    assert_memory_equal(a->text, whole->text, a->n_text);
    assert_ptr_equal(strstr(whole->text, stop), whole->text + a->n_text);

    /* The context's end is a length, too. */
    a = driver_complete(&d, SUBMIT_COMPLETE, "{\"prompt_tokens\": [1, 5, 6], \"max_tokens\": 100000}");
    assert_int_equal(a->usage.output_tokens, 40);
    stop_well(&d);
    start_ready(&d, 64, CONFIG);
    a = driver_complete(&d, SUBMIT_COMPLETE, "{\"prompt_tokens\": [1, 5, 6], \"temperature\": 0}");
    if (a->usage.finish == DONE_LENGTH)
        assert_int_equal(a->usage.output_tokens, 64 - 3);
    stop_well(&d);
}

static void test_logprobs(void **state)
{
    struct driver d;
    struct answer *a;
    json_object *extra, *list, *entry, *top, *first, *token, *best;

    start_ready(&d, 256, CONFIG);
    a = driver_complete(&d, SUBMIT_COMPLETE,
                        "{\"prompt\": \"abc\", \"temperature\": 0, \"max_tokens\": 1, \"logprobs\": 3}");
    extra = parse(a->extra);
    assert_true(json_object_object_get_ex(extra, "logprobs", &list));
    assert_int_equal(json_object_array_length(list), 1);
    entry = json_object_array_get_idx(list, 0);
    assert_true(json_object_object_get_ex(entry, "top", &top));
    assert_int_equal(json_object_array_length(top), 3);
    first = json_object_array_get_idx(top, 0);
    assert_true(json_object_object_get_ex(entry, "token", &token));
    assert_true(json_object_object_get_ex(first, "token", &best));
    assert_int_equal(json_object_get_int(token), json_object_get_int(best)); /* greedy takes the likeliest */
    json_object_put(extra);
    stop_well(&d);
}

static void test_tokenize(void **state)
{
    struct driver d;
    struct answer *a, *b;
    json_object *o, *tokens, *value;
    char *json;

    start_ready(&d, 256, CONFIG);
    a = driver_complete(&d, SUBMIT_TOKENIZE, "{\"text\": \"hello <|im_start|> w\\u00f6rld\"}");
    assert_true(a->done);
    o = parse(a->extra);
    assert_true(json_object_object_get_ex(o, "tokens", &tokens));
    assert_true(asprintf(&json, "{\"tokens\": %s}", json_object_to_json_string(tokens)) > 0);
    b = driver_complete(&d, SUBMIT_DETOKENIZE, json);
    free(json);
    json_object_put(o);
    o = parse(b->extra);
    assert_true(json_object_object_get_ex(o, "text", &value));
    assert_non_null(strstr(json_object_get_string(value), "hello <|im_start|> w\xc3\xb6rld"));
    json_object_put(o);
    b = driver_complete(&d, SUBMIT_TOKENIZE,
                        "{\"text\": \"hello <|im_start|> w\\u00f6rld\", \"special\": true}");
    assert_true(strlen(b->extra) < strlen(a->extra)); /* one control token instead of its letters */
    stop_well(&d);
}

/* Texts one after the other in one request; cancelled and late ones leave nothing behind. */
static void test_embed(void **state)
{
    static const char two[] = "{\"input\": [\"a text of some length that is cut into steps\", \"b\"]}";
    struct driver d;
    struct answer *a, *b;
    json_object *reply, *list, *values;

    start_ready(&d, 256, CONFIG);
    a = driver_complete(&d, SUBMIT_EMBED, two);
    assert_true(a->done);
    assert_int_equal(a->usage.finish, DONE_STOP);
    assert_int_equal(a->usage.output_tokens, 0);
    assert_true(a->usage.prompt_tokens > 2);
    reply = json_tokener_parse(a->extra);
    assert_true(json_object_object_get_ex(reply, "embeddings", &list));
    assert_int_equal(json_object_array_length(list), 2);
    for (size_t i = 0; i < 2; i++) {
        double sum = 0;

        assert_true(json_object_object_get_ex(json_object_array_get_idx(list, i), "values", &values));
        assert_true(json_object_array_length(values) > 0);
        for (size_t k = 0; k < json_object_array_length(values); k++) {
            double v = json_object_get_double(json_object_array_get_idx(values, k));

            sum += v * v;
        }
        assert_float_equal(sum, 1, 1e-5);
    }
    json_object_put(reply);
    /* Again, and at the same time as another: the same text. */
    b = driver_submit(&d, 2, SUBMIT_COMPLETE, 0, "{\"prompt\": \"x\", \"max_tokens\": 20}");
    {
        struct answer *again = driver_complete(&d, SUBMIT_EMBED, two);

        assert_string_equal(again->extra, a->extra);
    }
    driver_wait(&d, b);
    assert_true(b->done);
    b = driver_submit(&d, 1, SUBMIT_EMBED, 1, two);
    driver_wait(&d, b);
    assert_true(b->done);
    assert_int_equal(b->usage.finish, DONE_DEADLINE);
    stop_well(&d);
}

static void refused(struct driver *d, enum submit_kind kind, const char *json, enum fault_kind fault,
                    const char *subject)
{
    struct answer *a = driver_complete(d, kind, json);

    assert_true(a->failed);
    assert_int_equal(a->fault.kind, fault);
    assert_string_equal(a->fault.subject, subject);
}

static void test_refusals(void **state)
{
    static const struct {
        const char *json, *parameter;
    } cases[] = {
        {"{\"prompt\": \"x\", \"temperature\": -1}", "temperature"},
        {"{\"prompt\": \"x\", \"temperature\": \"hot\"}", "temperature"},
        {"{\"prompt\": \"x\", \"top_p\": 1.5}", "top_p"},
        {"{\"prompt\": \"x\", \"min_p\": -0.1}", "min_p"},
        {"{\"prompt\": \"x\", \"typical_p\": 2}", "typical_p"},
        {"{\"prompt\": \"x\", \"top_k\": -1}", "top_k"},
        {"{\"prompt\": \"x\", \"top_k\": 1.5}", "top_k"},
        {"{\"prompt\": \"x\", \"repeat_penalty\": 0}", "repeat_penalty"},
        {"{\"prompt\": \"x\", \"frequency_penalty\": 1000}", "frequency_penalty"},
        {"{\"prompt\": \"x\", \"presence_penalty\": -1000}", "presence_penalty"},
        {"{\"prompt\": \"x\", \"penalty_last_n\": 65537}", "penalty_last_n"},
        {"{\"prompt\": \"x\", \"mirostat\": 1}", "mirostat"},
        {"{\"prompt\": \"x\", \"mirostat\": 3}", "mirostat"},
        {"{\"prompt\": \"x\", \"mirostat\": 2, \"mirostat_tau\": -1}", "mirostat_tau"},
        {"{\"prompt\": \"x\", \"mirostat\": 2, \"mirostat_eta\": 2}", "mirostat_eta"},
        {"{\"prompt\": \"x\", \"logit_bias\": {\"a\": 1}}", "logit_bias"},
        {"{\"prompt\": \"x\", \"logit_bias\": {\"999999999\": 1}}", "logit_bias"},
        {"{\"prompt\": \"x\", \"max_tokens\": 0}", "max_tokens"},
        {"{\"prompt\": \"x\", \"max_tokens\": -5}", "max_tokens"},
        {"{\"prompt\": \"x\", \"stop\": [\"\"]}", "stop"},
        {"{\"prompt\": \"x\", \"stop\": \"y\"}", "stop"},
        {"{\"prompt\": \"x\", \"logprobs\": 21}", "logprobs"},
        {"{\"prompt\": \"x\", \"seed\": 1.5}", "seed"},
        {"{\"prompt\": \"x\", \"temprature\": 1}", "temprature"},
        {"{\"prompt\": \"x\", \"json_schema\": {\"typ\": 1}}", "json_schema"},
        {"{\"prompt\": \"x\", \"json_schema\": true}", "json_schema"},
        {"{\"prompt\": \"x\", \"grammar\": \"g\"}", "grammar"},
        {"{\"prompt\": \"x\", \"json_schema\": {}, \"grammar\": \"root ::= \\\"a\\\"\"}", "grammar"},
        {"{\"prompt\": \"x\", \"adapter\": \"a\"}", "adapter"},
        {"{}", "prompt"},
        {"{\"prompt\": \"x\", \"prompt_tokens\": [1]}", "prompt"},
        {"{\"prompt_tokens\": []}", "prompt"},
        {"{\"prompt_tokens\": [512]}", "prompt_tokens"},
        {"{\"prompt_tokens\": [-1]}", "prompt_tokens"},
        {"[]", "parameters"},
        {"{\"prompt\": \"x\", \"prompt\": \"y\"}", "parameters"},
    };
    struct driver d;
    struct answer *a;

    start_ready(&d, 256, CONFIG);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        refused(&d, SUBMIT_COMPLETE, cases[i].json, FAULT_INVALID_PARAMETER, cases[i].parameter);
    refused(&d, SUBMIT_CHAT, "{\"messages\": []}", FAULT_INVALID_PARAMETER, "messages");
    refused(&d, SUBMIT_CHAT, "{\"messages\": [1]}", FAULT_INVALID_PARAMETER, "messages");
    refused(&d, SUBMIT_CHAT, "{\"messages\": [{\"content\": \"x\"}]}", FAULT_INVALID_PARAMETER, "messages");
    refused(&d, SUBMIT_CHAT, "{\"messages\": [{\"role\": \"user\"}], \"tools\": [{}]}",
            FAULT_INVALID_PARAMETER, "tools");
    refused(&d, SUBMIT_CHAT,
            "{\"messages\": [{\"role\": \"user\"}], \"template_parameters\": {\"messages\": 1}}",
            FAULT_INVALID_PARAMETER, "template_parameters");
    refused(&d, SUBMIT_EMBED, "{}", FAULT_INVALID_PARAMETER, "input");
    refused(&d, SUBMIT_EMBED, "{\"input\": []}", FAULT_INVALID_PARAMETER, "input");
    refused(&d, SUBMIT_EMBED, "{\"input\": [\"x\", 1]}", FAULT_INVALID_PARAMETER, "input");
    refused(&d, SUBMIT_EMBED, "{\"input\": [\"x\"], \"top_k\": 1}", FAULT_INVALID_PARAMETER, "top_k");
    refused(&d, SUBMIT_TOKENIZE, "{}", FAULT_INVALID_PARAMETER, "text");
    refused(&d, SUBMIT_DETOKENIZE, "{\"tokens\": [99999]}", FAULT_INVALID_PARAMETER, "tokens");
    /* null is absent */
    a = driver_complete(&d, SUBMIT_COMPLETE,
                        "{\"prompt\": \"x\", \"prompt_tokens\": null, \"grammar\": null, \"top_k\": null, "
                        "\"max_tokens\": 1}");
    assert_true(a->done);
    stop_well(&d);
}

/* A random model says anything; within a form only that, and it ends where the form ends. */
static void test_answers_have_the_form_that_is_asked_for(void **state)
{
    struct driver d;
    struct answer *a;
    char json[512];

    start_ready(&d, 256, CONFIG);
    for (int seed = 0; seed < 8; seed++) {
        _cleanup_json_ json_object *value = NULL;
        json_object *n = NULL, *kind = NULL;

        snprintf(json, sizeof(json),
                 "{\"prompt\": \"x\", \"seed\": %d, \"temperature\": 1, \"max_tokens\": 200, \"grammar\": "
                 "\"root ::= \\\"yes\\\" | \\\"no\\\"\"}",
                 seed);
        a = driver_complete(&d, SUBMIT_COMPLETE, json);
        assert_true(a->done);
        assert_int_equal(a->usage.finish, DONE_STOP);
        assert_true(strcmp(a->text, "yes") == 0 || strcmp(a->text, "no") == 0);

        snprintf(
            json, sizeof(json),
            "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"seed\": %d, \"temperature\": 1, "
            "\"max_tokens\": 200, \"json_schema\": {\"type\": \"object\", \"properties\": {\"n\": {\"type\": "
            "\"integer\", \"minimum\": -3, \"maximum\": 120}, \"kind\": {\"enum\": [\"a\", \"b\"]}}, "
            "\"required\": "
            "[\"n\", \"kind\"], \"additionalProperties\": false}}",
            seed);
        a = driver_complete(&d, SUBMIT_CHAT, json);
        assert_true(a->done);
        assert_int_equal(a->usage.finish, DONE_STOP);
        value = json_tokener_parse(a->text);
        assert_true(json_object_object_get_ex(value, "n", &n) && json_object_is_type(n, json_type_int));
        assert_in_range(json_object_get_int(n) + 3, 0, 123);
        assert_true(json_object_object_get_ex(value, "kind", &kind));
        assert_int_equal(json_object_object_length(value), 2);
    }
    stop_well(&d);
}

#define MESSAGES "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}"
#define TOOLS                                                                                               \
    "\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"description\": "      \
    "\"x\", "                                                                                               \
    "\"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"enum\": [\"Oslo\", \"Rome\"]}}, " \
    "\"required\": "                                                                                        \
    "[\"city\"]}}}, {\"name\": \"stop\"}]"

static json_object *one_call(const struct answer *a, json_object **ret_all)
{
    json_object *calls = NULL;

    assert_true(a->done);
    assert_non_null(a->extra);
    *ret_all = parse(a->extra);
    assert_true(json_object_object_get_ex(*ret_all, "tool_calls", &calls));
    assert_int_equal(json_object_array_length(calls), 1);
    return json_object_array_get_idx(calls, 0);
}

/* A random model calls no tools; where it has to, it does, in the form that its template speaks. */
static void test_tools_are_called_where_they_have_to_be(void **state)
{
    static const char *const templates[] = {
        MESSAGES "{% if tools %}{{ tools | tojson }}<tool_call>{% endif %}",
        MESSAGES "{% if tools %}{{ tools | tojson }}\"parameters\"<|python_tag|>{% endif %}",
        MESSAGES "{% if tools %}{{ tools | tojson }}[TOOL_CALLS]{% endif %}",
        MESSAGES "{% if tools %}{{ tools | tojson }}{% endif %}{{ '<|channel|><|message|>' if false "
                 "}}<|start|>assistant",
    };

    for (size_t i = 0; i < sizeof(templates) / sizeof(templates[0]); i++) {
        json_object *all, *call;
        const char *arguments;
        struct answer *a;
        struct driver d;

        driver_start(&d);
        driver_load(&d, driver_model_that_chats(1024, templates[i]), CONFIG);
        assert_true(d.ready);
        assert_non_null(strstr(d.facts, "\"tools\""));
        assert_int_equal(strstr(d.facts, "\"reasoning\"") != NULL, i == 3);
        a = driver_complete(
            &d, SUBMIT_CHAT,
            "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"seed\": 3, \"tool_choice\": "
            "\"get_weather\", \"max_tokens\": 300, " TOOLS "}");
        call = one_call(a, &all);
        assert_string_equal(a->text, "");
        assert_int_equal(a->usage.finish, DONE_TOOL_CALLS);
        assert_string_equal(json_object_get_string(json_object_object_get(call, "name")), "get_weather");
        arguments = json_object_get_string(json_object_object_get(call, "arguments"));
        assert_true(strstr(arguments, "Oslo") || strstr(arguments, "Rome"));
        json_object_put(all);

        /* Without a schema the arguments are any object, and "required" is any tool. */
        a = driver_complete(
            &d, SUBMIT_CHAT,
            "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"tool_choice\": \"required\", "
            "\"max_tokens\": 1, " TOOLS "}");
        assert_true(a->done);
        assert_int_equal(a->usage.finish, DONE_LENGTH);

        refused(&d, SUBMIT_CHAT,
                "{\"messages\": [{\"role\": \"user\"}], \"tool_choice\": \"other\", " TOOLS "}",
                FAULT_INVALID_PARAMETER, "tool_choice");
        refused(&d, SUBMIT_CHAT, "{\"messages\": [{\"role\": \"user\"}], \"tool_choice\": \"required\"}",
                FAULT_INVALID_PARAMETER, "tool_choice");
        refused(&d, SUBMIT_CHAT, "{\"messages\": [{\"role\": \"user\"}], \"tools\": [{\"name\": \"a b\"}]}",
                FAULT_INVALID_PARAMETER, "tools");
        refused(
            &d, SUBMIT_CHAT,
            "{\"messages\": [{\"role\": \"user\"}], \"tool_choice\": \"f\", \"tools\": [{\"name\": \"f\", "
            "\"parameters\": {\"not\": {}}}]}",
            FAULT_INVALID_PARAMETER, "tools");
        stop_well(&d);
    }
}

/* Tools change the prompt, unless none may be called; a template without tools can't have any. */
static void test_tools_reach_the_prompt(void **state)
{
    struct answer *with, *none, *without;
    struct driver d;

    driver_start(&d);
    driver_load(
        &d,
        driver_model_that_chats(1024, MESSAGES "{% if tools %}{{ tools | tojson }}<tool_call>{% endif %}"),
        CONFIG);
    assert_true(d.ready);
    with = driver_complete(
        &d, SUBMIT_CHAT,
        "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"max_tokens\": 1, " TOOLS "}");
    none = driver_complete(&d, SUBMIT_CHAT,
                           "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"max_tokens\": 1, "
                           "\"tool_choice\": \"none\", " TOOLS "}");
    without = driver_complete(
        &d, SUBMIT_CHAT, "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"max_tokens\": 1}");
    assert_true(with->done && none->done && without->done);
    assert_true(with->usage.prompt_tokens > without->usage.prompt_tokens + 20);
    assert_int_equal(none->usage.prompt_tokens, without->usage.prompt_tokens);
    stop_well(&d);

    start_ready(&d, 256, CONFIG);
    refused(&d, SUBMIT_CHAT, "{\"messages\": [{\"role\": \"user\"}], " TOOLS "}", FAULT_INVALID_PARAMETER,
            "tools");
    stop_well(&d);
}

/* A prompt that ends in <think> makes all of it reasoning until </think>; a schema waits for the text behind.
 */
static void test_thoughts_are_no_text(void **state)
{
    json_object *all, *reasoning = NULL;
    struct answer *a;
    struct driver d;

    driver_start(&d);
    driver_load(&d, driver_model_that_chats(256, MESSAGES "<think>\n"), CONFIG);
    assert_true(d.ready);
    a = driver_complete(
        &d, SUBMIT_CHAT,
        "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"seed\": 1, \"max_tokens\": 12, "
        "\"json_schema\": {\"type\": \"object\"}}");
    assert_true(a->done);
    assert_string_equal(a->text, "");
    assert_non_null(a->extra);
    all = parse(a->extra);
    assert_true(json_object_object_get_ex(all, "reasoning", &reasoning));
    assert_true(json_object_get_string_len(reasoning) > 0);
    json_object_put(all);
    stop_well(&d);
}

/* Memory that is there: the compiler does not know that cmocka's assertions do not come back. */
static char *room(size_t n_bytes)
{
    char *p = malloc(n_bytes);

    if (!p)
        abort();
    return p;
}

/* A call whose text has @n_text letters. */
static char *long_call(const char *member, size_t n_text)
{
    char *json = room(n_text + 64), *at;

    at = json + sprintf(json, "{\"%s\": \"", member);
    for (size_t i = 0; i < n_text; i++)
        *at++ = i % 7 == 6 ? ' ' : (char)('a' + i % 26);
    strcpy(at, "\"}");
    return json;
}

static void test_long_texts(void **state)
{
    struct driver d;
    struct answer *a;
    char *json = long_call("prompt", 200 << 10);
    json_object *o, *tokens;

    /* Both ways as a memfd: the prompt, and the tokens of a text. */
    start_ready(&d, 256, "{\"limits\": {\"prompt_bytes\": 300000}}");
    a = driver_complete(&d, SUBMIT_COMPLETE, json);
    assert_true(a->failed);
    assert_int_equal(a->fault.kind, FAULT_CONTEXT_TOO_LONG);
    assert_int_equal(a->fault.limit, 256);
    assert_true(a->fault.used > 256);
    free(json);
    json = long_call("text", 200 << 10);
    a = driver_complete(&d, SUBMIT_TOKENIZE, json);
    assert_true(a->done);
    o = parse(a->extra);
    assert_true(json_object_object_get_ex(o, "tokens", &tokens));
    assert_true(strlen(a->extra) > PROTO_INLINE_MAX);
    json_object_put(o);
    free(json);
    json = long_call("prompt", 300001);
    refused(&d, SUBMIT_COMPLETE, json, FAULT_INVALID_PARAMETER, "prompt");
    free(json);

    /* Exactly as long as fits, and one more. */
    json = room(8 * 300);
    for (size_t n = 255; n <= 256; n++) {
        char *at = json + sprintf(json, "{\"temperature\": 0, \"prompt_tokens\": [7");

        for (size_t i = 1; i < n; i++)
            at += sprintf(at, ", 7");
        sprintf(at, "]}");
        a = driver_complete(&d, SUBMIT_COMPLETE, json);
        if (n == 255) {
            assert_true(a->done);
            assert_true(a->usage.output_tokens <= 1);
        } else {
            assert_true(a->failed);
            assert_int_equal(a->fault.kind, FAULT_CONTEXT_TOO_LONG);
            assert_int_equal(a->fault.used, 257);
        }
    }
    free(json);
    stop_well(&d);
}

/* An answer that does not end by itself: always the same token. */
#define ENDLESS      "{\"prompt\": \"x\", \"temperature\": 0, \"logit_bias\": {\"300\": 1e9}}"
#define LONG_CONTEXT 32768

static void test_cancel(void **state)
{
    struct driver d;
    struct answer *a, *b;
    struct packet_request cancel = {0};

    start_ready(&d, LONG_CONTEXT, CONFIG);
    a = driver_submit(&d, 1, SUBMIT_COMPLETE, 0, ENDLESS);
    while (a->n_tokens < 3)
        assert_true(driver_receive(&d, 60000));
    cancel.request = a->request;
    driver_send(&d, PACKET_CANCEL, &cancel, sizeof(cancel));
    driver_wait(&d, a);
    assert_true(a->done);
    assert_int_equal(a->usage.finish, DONE_CANCELLED);
    assert_true(a->usage.output_tokens >= 3);
    /* Cancelled when it is over: nothing happens. */
    driver_send(&d, PACKET_CANCEL, &cancel, sizeof(cancel));
    b = driver_complete(&d, SUBMIT_COMPLETE, "{\"prompt\": \"x\", \"max_tokens\": 2}");
    assert_true(b->done);
    assert_int_equal(d.step.pages_used, 1); /* its own: the cancelled one's are back */
    /* Cancelled at once, wherever it is by then. */
    for (int i = 0; i < 20; i++) {
        a = driver_submit(&d, 1, SUBMIT_COMPLETE, 0, ENDLESS);
        cancel.request = a->request;
        driver_send(&d, PACKET_CANCEL, &cancel, sizeof(cancel));
        driver_wait(&d, a);
        assert_true(a->done);
        assert_int_equal(a->usage.finish, DONE_CANCELLED);
    }
    stop_well(&d);
}

static void test_deadline(void **state)
{
    struct driver d;
    struct answer *a, *b;

    start_ready(&d, LONG_CONTEXT, CONFIG);
    a = driver_submit(&d, 1, SUBMIT_COMPLETE, clock_now_ns() + 300000000, ENDLESS);
    b = driver_submit(&d, 1, SUBMIT_COMPLETE, 1, ENDLESS); /* long ago */
    driver_wait(&d, a);
    assert_int_equal(a->usage.finish, DONE_DEADLINE);
    driver_wait(&d, b);
    assert_int_equal(b->usage.finish, DONE_DEADLINE);
    assert_int_equal(b->usage.output_tokens, 0);
    stop_well(&d);
}

static void test_end_of_connection(void **state)
{
    struct driver d;

    /* In the middle of work, while loading, and before anything. */
    start_ready(&d, LONG_CONTEXT, CONFIG);
    for (int i = 0; i < 8; i++)
        driver_submit(&d, 1, SUBMIT_COMPLETE, 0, ENDLESS);
    assert_true(driver_receive(&d, 60000));
    stop_well(&d);

    driver_start(&d);
    stop_well(&d);
}

static void send_raw(struct driver *d, const void *data, size_t n)
{
    assert_int_equal(send(channel_fd(d->c), data, n, MSG_NOSIGNAL), (ssize_t)n);
}

static void test_garbage_ends_it(void **state)
{
    const struct {
        struct packet_head head;
        struct packet_submit submit;
    } early = {{PACKET_SUBMIT, 0, sizeof(early.submit), DRIVER_EPOCH}, {.request = 1}};
    struct driver d;
    int status;

    start_ready(&d, 256, CONFIG);
    send_raw(&d, "garbage", 7);
    status = driver_exit_status(&d);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    driver_stop(&d);

    driver_start(&d);
    send_raw(&d, &early, sizeof(early)); /* SUBMIT without a model */
    status = driver_exit_status(&d);
    assert_int_equal(WEXITSTATUS(status), 1);
    driver_stop(&d);
}

static void test_nobody_reads(void **state)
{
    enum { N = 12 };
    struct driver d;
    struct answer *a[N];
    char json[256];

    /* Far more than a socket holds: each token brings 20 alternatives. The worker waits for us, and nothing
     * is lost. */
    start_ready(&d, 4096, CONFIG);
    snprintf(json, sizeof(json),
             "{\"prompt\": \"x\", \"logprobs\": 20, \"max_tokens\": 400, \"seed\": 1, \"temperature\": 1}");
    for (int i = 0; i < N; i++)
        a[i] = driver_submit(&d, 1, SUBMIT_COMPLETE, 0, json);
    sleep(2);
    for (int i = 0; i < N; i++) {
        driver_wait(&d, a[i]);
        assert_true(a[i]->done);
        assert_string_equal(a[i]->text, a[0]->text);
    }
    /* And again, but we never read and just leave. */
    for (int i = 0; i < N; i++)
        driver_submit(&d, 1, SUBMIT_COMPLETE, 0, json);
    sleep(1);
    stop_well(&d);
}

static void test_no_ping_parks(void **state)
{
    struct driver d;
    struct answer *a;
    uint32_t n;

    start_ready(&d, LONG_CONTEXT, CONFIG);
    ping(&d, 1);
    a = driver_submit(&d, 1, SUBMIT_COMPLETE, 0, ENDLESS);
    /* Without another PING it falls silent sooner or later, long before its end; */
    while (driver_receive(&d, 1500))
        ;
    assert_false(a->done);
    n = a->n_tokens;
    assert_true(n > 0);
    /* with one it goes on. */
    ping(&d, 2);
    while (a->n_tokens < n + 10)
        assert_true(driver_receive(&d, 60000));
    stop_well(&d);
}

static void test_pause(void **state)
{
    struct driver d;
    struct answer *a, *b;
    struct packet_request r = {0};
    uint32_t n;

    start_ready(&d, LONG_CONTEXT, CONFIG);
    a = driver_submit(&d, 1, SUBMIT_COMPLETE, 0, ENDLESS);
    while (a->n_tokens < 5)
        assert_true(driver_receive(&d, 60000));
    r.request = a->request;
    driver_send(&d, PACKET_PAUSE, &r, sizeof(r));
    /* Whatever was on its way has come when another request, sent after it, has ended. */
    b = driver_complete(&d, SUBMIT_COMPLETE, "{\"prompt\": \"y\", \"max_tokens\": 1}");
    assert_true(b->done);
    n = a->n_tokens;
    b = driver_complete(&d, SUBMIT_COMPLETE, "{\"prompt\": \"y\", \"max_tokens\": 50}");
    assert_int_equal(a->n_tokens, n);
    driver_send(&d, PACKET_RESUME, &r, sizeof(r));
    while (a->n_tokens < n + 5)
        assert_true(driver_receive(&d, 60000));
    stop_well(&d);
}

static void test_queue_position(void **state)
{
    struct driver d;
    struct answer *waiting[3];

    start_ready(&d, LONG_CONTEXT, "{\"sequences\": 1}");
    driver_submit(&d, 1, SUBMIT_COMPLETE, 0, ENDLESS);
    for (int i = 0; i < 3; i++)
        waiting[i] = driver_submit(&d, 1, SUBMIT_COMPLETE, 0, ENDLESS);
    for (int i = 0; i < 3; i++) {
        while (waiting[i]->position == 0)
            assert_true(driver_receive(&d, 60000));
        assert_int_equal(waiting[i]->position, i + 1);
        assert_int_equal(waiting[i]->n_tokens, 0);
    }
    stop_well(&d);
}

static void test_light_user_is_not_held_up(void **state)
{
    struct driver d;
    struct answer *heavy[6], *light;

    /* One place, taken by a tenant with endless requests: another tenant's short one is answered all the
     * same. */
    start_ready(&d, LONG_CONTEXT, "{\"sequences\": 2, \"kv_tokens\": 65536}");
    for (int i = 0; i < 6; i++)
        heavy[i] = driver_submit(&d, 1, SUBMIT_COMPLETE, 0, ENDLESS);
    while (heavy[0]->n_tokens < 5)
        assert_true(driver_receive(&d, 60000));
    light = driver_submit(&d, 2, SUBMIT_COMPLETE, 0,
                          "{\"prompt\": \"y\", \"max_tokens\": 10, \"temperature\": 0}");
    driver_wait(&d, light);
    assert_true(light->done);
    for (int i = 0; i < 6; i++)
        assert_false(heavy[i]->done);
    stop_well(&d);
}

static void test_tenant_kv_limit(void **state)
{
    struct driver d;
    struct answer *a;
    struct packet_tenant tenant = {.tenant = 1, .weight = 100};
    json_object *facts, *bytes;

    start_ready(&d, 4096, CONFIG);
    facts = parse(d.facts);
    assert_true(json_object_object_get_ex(facts, "bytes", &bytes));
    tenant.kv_max_bytes = 2 * (uint64_t)number(bytes, "kv_page"); /* 64 tokens */
    json_object_put(facts);
    driver_send(&d, PACKET_TENANT, &tenant, sizeof(tenant));
    a = driver_complete(&d, SUBMIT_COMPLETE, ENDLESS);
    assert_true(a->done);
    assert_int_equal(a->usage.finish, DONE_LENGTH);
    assert_int_equal(a->usage.prompt_tokens + a->usage.output_tokens, 64);
    a = driver_complete(
        &d, SUBMIT_COMPLETE,
        "{\"prompt\": \"0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789\"}");
    assert_true(a->failed);
    assert_int_equal(a->fault.kind, FAULT_QUOTA_EXCEEDED);
    assert_string_equal(a->fault.subject, "kv");
    assert_int_equal(a->fault.limit, tenant.kv_max_bytes);
    stop_well(&d);
}

/* Two who ask for the same: whoever was computed much elsewhere has to wait, though its request came first. */
static void test_what_was_spent_elsewhere_counts(void **state)
{
    const struct packet_spent spent = {.tenant = 1, .cost_ns = UINT64_C(3600) * 1000000000};
    const struct packet_spent nobody = {.tenant = 9, .cost_ns = 1};
    struct driver d;
    struct answer *a, *b;

    start_ready(&d, 4096, "{\"model\": \"test\", \"sequences\": 1, \"threads\": 1}");
    a = driver_submit(&d, 1, SUBMIT_COMPLETE, 0, ENDLESS);
    while (a->n_tokens == 0)
        assert_true(driver_receive(&d, 60000));
    driver_send(&d, PACKET_SPENT, &nobody, sizeof(nobody));
    driver_send(&d, PACKET_SPENT, &spent, sizeof(spent));
    b = driver_submit(&d, 2, SUBMIT_COMPLETE, 0, "{\"prompt\": \"abc\", \"max_tokens\": 400, \"temperature\": 0}");
    driver_wait(&d, b);
    assert_true(b->done);
    assert_false(a->done);
    driver_wait(&d, a);
    assert_true(a->done);
    stop_well(&d);
}

static void test_threads(void **state)
{
    struct driver d;
    struct packet_threads threads = {.n_threads = 1};
    struct answer *a, *b;

    start_ready(&d, 256, CONFIG);
    a = driver_complete(&d, SUBMIT_COMPLETE, "{\"prompt\": \"abc\", \"temperature\": 0, \"max_tokens\": 20}");
    driver_send(&d, PACKET_THREADS, &threads, sizeof(threads));
    b = driver_complete(&d, SUBMIT_COMPLETE, "{\"prompt\": \"abc\", \"temperature\": 0, \"max_tokens\": 20}");
    assert_string_equal(a->text, b->text);
    stop_well(&d);
}

static void test_reset(void **state)
{
    struct driver d;
    struct answer *a;
    int fd;

    start_ready(&d, LONG_CONTEXT, CONFIG);
    for (int i = 0; i < 6; i++)
        driver_submit(&d, 1, SUBMIT_COMPLETE, 0, ENDLESS);
    for (int i = 0; i < 5; i++)
        assert_true(driver_receive(&d, 60000));
    /* Another daemon with the same connection; what the first one asked for is never heard of again. */
    fd = fcntl(channel_fd(d.c), F_DUPFD_CLOEXEC, 0);
    channel_free(d.c);
    assert_int_equal(channel_new(PROTO_DAEMON, fd, &d.c), 0);
    for (size_t i = 0; i < d.n_answers; i++)
        free(d.answers[i].text);
    d.n_answers = 0;
    memset(d.answers, 0, sizeof(d.answers));
    d.hello = false;
    free(d.facts);
    d.facts = NULL;
    assert_int_equal(channel_greet(d.c, PACKET_RESET, DRIVER_EPOCH + 1, "next"), 0);
    while (!d.hello || !d.facts)
        assert_true(driver_receive(&d, 60000));
    assert_int_equal(d.hello_state, PROTO_STATE_READY);
    a = driver_complete(&d, SUBMIT_COMPLETE, "{\"prompt\": \"x\", \"max_tokens\": 3}");
    assert_true(a->done);
    assert_int_equal(d.step.n_running, 1);
    assert_int_equal(d.step.pages_used, 1);
    stop_well(&d);
}

static void test_drain(void **state)
{
    struct driver d;
    struct answer *a, *b;
    struct packet_drain drain = {0};
    int status;

    start_ready(&d, 256, CONFIG);
    a = driver_submit(&d, 1, SUBMIT_COMPLETE, 0, "{\"prompt\": \"x\", \"max_tokens\": 50}");
    b = driver_submit(&d, 2, SUBMIT_CHAT, 0, "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}");
    driver_send(&d, PACKET_DRAIN, &drain, sizeof(drain));
    driver_wait(&d, a);
    driver_wait(&d, b);
    assert_true(a->done && b->done);
    status = driver_exit_status(&d);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    driver_stop(&d);

    /* With a deadline that is over, running requests hear of it. */
    start_ready(&d, LONG_CONTEXT, CONFIG);
    a = driver_submit(&d, 1, SUBMIT_COMPLETE, 0, ENDLESS);
    while (a->n_tokens == 0)
        assert_true(driver_receive(&d, 60000));
    drain.deadline_ns = 1;
    driver_send(&d, PACKET_DRAIN, &drain, sizeof(drain));
    driver_wait(&d, a);
    assert_true(a->failed);
    assert_int_equal(a->fault.kind, FAULT_SHUTTING_DOWN);
    status = driver_exit_status(&d);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    driver_stop(&d);

    /* Before there was a model. */
    driver_start(&d);
    drain.deadline_ns = 0;
    driver_send(&d, PACKET_DRAIN, &drain, sizeof(drain));
    status = driver_exit_status(&d);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    driver_stop(&d);
}

static void test_bad_models(void **state)
{
    struct driver d;
    int fd = memfd_create("bad", MFD_CLOEXEC);

    assert_int_equal(write(fd, "GGUF no more than that", 22), 22);
    driver_start(&d);
    driver_load(&d, fd, "{\"model\": \"broken\"}");
    assert_true(d.model_failed);
    assert_int_equal(d.model_fault.kind, FAULT_MODEL_INVALID);
    assert_string_equal(d.model_fault.subject, "broken");
    stop_well(&d);

    driver_start(&d);
    driver_load(&d, driver_model(256), "{\"sequences\": 0}");
    assert_true(d.model_failed);
    assert_int_equal(d.model_fault.kind, FAULT_INVALID_PARAMETER);
    assert_string_equal(d.model_fault.subject, "sequences");
    stop_well(&d);

    driver_start(&d);
    driver_load(&d, driver_model(256), "{\"k\": \"q9_9\"}");
    assert_true(d.model_failed);
    assert_string_equal(d.model_fault.subject, "k");
    stop_well(&d);
}

/* A file that is cut short while it is used in place. */
static void test_pages_lost(void **state)
{
    int fd = driver_model(256), own = fcntl(fd, F_DUPFD_CLOEXEC, 0), status;
    struct driver d;

    driver_start(&d);
    driver_load(&d, fd, CONFIG);
    assert_true(d.ready);
    assert_int_equal(ftruncate(own, 8192), 0);
    driver_submit(&d, 1, SUBMIT_COMPLETE, 0, "{\"prompt\": \"abc\", \"max_tokens\": 4}");
    while (driver_receive(&d, 60000))
        ;
    status = driver_exit_status(&d);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), PROTO_EXIT_PAGES_LOST);
    driver_stop(&d);
    close(own);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ready),
        cmocka_unit_test(test_rights_given_up),
        cmocka_unit_test(test_complete),
        cmocka_unit_test(test_alone_as_in_company),
        cmocka_unit_test(test_seed),
        cmocka_unit_test(test_mirostat),
        cmocka_unit_test(test_chat),
        cmocka_unit_test(test_default_model_answers),
        cmocka_unit_test(test_stop_and_length),
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_tokenize),
        cmocka_unit_test(test_embed),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_tools_are_called_where_they_have_to_be),
        cmocka_unit_test(test_tools_reach_the_prompt),
        cmocka_unit_test(test_thoughts_are_no_text),
        cmocka_unit_test(test_answers_have_the_form_that_is_asked_for),
        cmocka_unit_test(test_long_texts),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_end_of_connection),
        cmocka_unit_test(test_garbage_ends_it),
        cmocka_unit_test(test_nobody_reads),
        cmocka_unit_test(test_no_ping_parks),
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_queue_position),
        cmocka_unit_test(test_light_user_is_not_held_up),
        cmocka_unit_test(test_tenant_kv_limit),
        cmocka_unit_test(test_what_was_spent_elsewhere_counts),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_bad_models),
        cmocka_unit_test(test_pages_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
