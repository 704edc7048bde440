/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Speculation in the real worker: whatever is asked for, the answer is the same with drafts and without, and of the
 * drafts some were right and some wrong.
 */
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/json.h"
#include "tests/model-writer/model_writer.h"
#include "tests/unit/worker/driver.h"

/* What a random model says is a loop sooner or later, which is what drafts are made of. */
static const char *const calls[] = {
    "{\"prompt\": \"once upon a time\", \"temperature\": 0, \"max_tokens\": 200}",
    "{\"prompt\": \"a b c a b c a b c a b\", \"temperature\": 0, \"max_tokens\": 150}",
    "{\"prompt\": \"x\", \"temperature\": 0.5, \"top_k\": 3, \"seed\": 11, \"max_tokens\": 200}",
    "{\"prompt\": \"x\", \"temperature\": 0.7, \"seed\": 12, \"repeat_penalty\": 1.1, \"max_tokens\": 200}",
    "{\"prompt\": \"x\", \"temperature\": 1, \"mirostat\": 2, \"mirostat_tau\": 2, \"seed\": 3, \"max_tokens\": 150}",
    "{\"prompt\": \"x\", \"temperature\": 0, \"max_tokens\": 60, \"logprobs\": 2}",
    "{\"prompt\": \"x\", \"temperature\": 1, \"seed\": 5, \"max_tokens\": 120, \"grammar\": "
    "\"root ::= (\\\"abc, \\\" | \\\"abd, \\\")+\"}",
    "{\"prompt\": \"x\", \"temperature\": 1, \"seed\": 6, \"max_tokens\": 120, \"grammar\": "
    "\"root ::= \\\"yes \\\"{20} \\\"no\\\"\"}",
    "{\"prompt\": \"x\", \"temperature\": 1, \"seed\": 7, \"max_tokens\": 120, \"grammar\": "
    "\"root ::= \\\"yes \\\"{20} \\\"no\\\"\", \"stop\": [\"s yes yes\"]}",
};
#define N_CALLS (sizeof(calls) / sizeof(calls[0]))

static int make_model(const char *architecture, uint32_t window, uint64_t seed)
{
    struct model_shape shape = model_shape_default();
    struct model_writer *w = model_writer_new();
    int fd;

    shape.architecture = architecture;
    shape.context = 512;
    shape.window = window;
    shape.seed = seed;
    if (window > 0)
        shape.n_layers = 6;
    model_writer_llama(w, &shape);
    fd = model_writer_memfd(w);
    model_writer_free(w);
    assert_true(fd >= 0);
    return fd;
}

/* @draft_seed: of a draft model, 0: none. That of the model itself is 1. */
static void start(struct driver *d, const char *architecture, uint32_t window, const char *drafts, uint64_t draft_seed)
{
    int fds[2] = {make_model(architecture, window, 1)};
    char config[256];

    if (draft_seed > 0)
        fds[1] = make_model(architecture, window, draft_seed);
    snprintf(config, sizeof(config), "{\"model\": \"m\", \"sequences\": 4, \"drafts\": \"%s\", \"draft_files\": %d}",
             drafts, draft_seed > 0);
    driver_start(d);
    driver_load_files(d, fds, draft_seed > 0 ? 2 : 1, config);
    assert_true(d->ready);
}

static void stop(struct driver *d)
{
    int status = driver_stop(d);

    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void expect_same(const struct answer *a, const struct answer *b)
{
    assert_true(a->done && b->done);
    assert_int_equal(a->n_text, b->n_text);
    assert_memory_equal(a->text, b->text, a->n_text);
    assert_int_equal(a->usage.finish, b->usage.finish);
    assert_int_equal(a->usage.output_tokens, b->usage.output_tokens);
    if (a->extra)
        assert_string_equal(a->extra, b->extra);
}

/* Every call with and without drafts, one by one and then all together. */
static void compare(const char *architecture, uint32_t window, uint64_t draft_seed)
{
    struct answer *plain[N_CALLS], *drafted[N_CALLS];
    struct driver off, on;
    uint64_t n_output = 0;

    start(&off, architecture, window, "off", 0);
    start(&on, architecture, window, "always", draft_seed);
    for (size_t i = 0; i < N_CALLS; i++) {
        plain[i] = driver_complete(&off, SUBMIT_COMPLETE, calls[i]);
        drafted[i] = driver_complete(&on, SUBMIT_COMPLETE, calls[i]);
        expect_same(plain[i], drafted[i]);
    }
    for (size_t i = 0; i < N_CALLS; i++)
        drafted[i] = driver_submit(&on, 1, SUBMIT_COMPLETE, 0, calls[i]);
    for (size_t i = 0; i < N_CALLS; i++) {
        driver_wait(&on, drafted[i]);
        expect_same(plain[i], drafted[i]);
        n_output += plain[i]->usage.output_tokens;
    }
    assert_int_equal(off.n_drafted, 0);
    /* Right ones save steps; wrong ones were taken back. */
    assert_true(on.n_accepted > 30);
    assert_true(on.n_drafted > on.n_accepted + 20);
    assert_true(on.n_output - on.n_accepted <= 2 * n_output);
    stop(&off);
    stop(&on);
}

static void test_same_answers(void **state)
{
    compare("llama", 0, 0);
}

/* The pages before a window are given back, but never ones that a refused draft reaches back to. */
static void test_same_answers_with_windows(void **state)
{
    compare("gemma3", 40, 0);
}

/* The model itself, which is always right where nothing is drawn, and another one that hardly ever is. */
static void test_same_answers_with_a_draft_model(void **state)
{
    compare("llama", 0, 1);
    compare("llama", 0, 2);
    compare("gemma3", 40, 1);
}

static void test_a_draft_model_saves_steps(void **state)
{
    struct answer *a;
    struct driver d;

    /* Nothing in it repeats itself before it is said, so only the draft model can know. */
    start(&d, "llama", 0, "always", 1);
    a = driver_complete(&d, SUBMIT_COMPLETE,
                        "{\"prompt\": \"once upon a time\", \"temperature\": 0, \"max_tokens\": 60}");
    assert_int_equal(a->usage.output_tokens, 60);
    assert_in_range(d.n_accepted, 45, 59);
    assert_true(d.n_steps_heard < 20);
    stop(&d);
}

/* Of @tenant: the answer has room for one drafted token, if the draft model knows the prompt in its first call. */
static uint64_t drafted_of(struct driver *d, uint32_t tenant, const char *json)
{
    uint64_t n = d->n_drafted;
    struct answer *a = driver_submit(d, tenant, SUBMIT_COMPLETE, 0, json);

    driver_wait(d, a);
    assert_int_equal(a->usage.output_tokens, 3);
    return d->n_drafted - n;
}

static void test_a_draft_model_reads_a_prompt_once(void **state)
{
    static const struct packet_trim trim = {.bytes = UINT64_MAX};
    char json[4096] = "{\"temperature\": 0, \"max_tokens\": 3, \"prompt_tokens\": [3";
    uint32_t random = 1;
    struct driver d;

    /* More than it reads in one call, and nothing that repeats itself. */
    for (int i = 0; i < 400; i++) {
        random = random * 1664525 + 1013904223;
        snprintf(json + strlen(json), sizeof(json) - strlen(json), ", %u", 3 + (random >> 16) % 240);
    }
    strcat(json, "]}");
    start(&d, "llama", 0, "always", 1);
    /* So that it is known how long a step takes: nobody drafts before that. */
    driver_complete(&d, SUBMIT_COMPLETE, "{\"prompt\": \"x\", \"temperature\": 0, \"max_tokens\": 5}");
    assert_int_equal(drafted_of(&d, 1, json), 0);
    assert_int_equal(drafted_of(&d, 1, json), 1);
    /* Whoever comes with the same words has to have them read again. */
    assert_int_equal(drafted_of(&d, 2, json), 0);
    assert_int_equal(drafted_of(&d, 2, json), 1);
    driver_send(&d, PACKET_TRIM, &trim, sizeof(trim));
    assert_int_equal(drafted_of(&d, 1, json), 0);
    stop(&d);
}

/* More than the draft model reads in one call, so only what it has read before is drafted for. */
static void test_a_draft_model_has_read_public_prefixes(void **state)
{
    static char text[512], config[1024], json[1024];
    int fds[2] = {make_model("llama", 0, 1), make_model("llama", 0, 1)};
    struct answer *a;
    struct driver d;

    for (size_t i = 0; i < 80; i++)
        snprintf(text + 5 * i, 6, "%c%c%c%c ", (char)('a' + i % 26), (char)('a' + i / 26), (char)('a' + i % 7),
                 (char)('a' + i % 11));
    snprintf(config, sizeof(config),
             "{\"model\": \"m\", \"sequences\": 4, \"drafts\": \"always\", \"draft_files\": 1, "
             "\"public_prefixes\": [\"%s\"]}",
             text);
    snprintf(json, sizeof(json), "{\"temperature\": 0, \"max_tokens\": 3, \"prompt\": \"%sq7\"}", text);
    driver_start(&d);
    driver_load_files(&d, fds, 2, config);
    assert_true(d.ready);
    /* Figures come when nothing is left to be computed in advance. */
    while (d.step.pages_kept == 0)
        assert_true(driver_receive(&d, 60000));
    driver_complete(&d, SUBMIT_COMPLETE, "{\"prompt\": \"x\", \"temperature\": 0, \"max_tokens\": 5}");
    assert_int_equal(drafted_of(&d, 1, json), 1);
    a = driver_complete(&d, SUBMIT_COMPLETE, json);
    assert_true(a->usage.prompt_tokens > 300);
    stop(&d);
}

/* Where a grammar leaves no choice of bytes, it is the draft; the text has nothing of it before. */
static void test_a_grammar_saves_steps(void **state)
{
    struct model_shape shape = model_shape_default();
    struct model_writer *w = model_writer_new();
    struct answer *a;
    struct driver d;
    int fd;

    /* A vocabulary in which nothing can be said in two ways. */
    shape.tokenizer = "gpt2";
    model_writer_llama(w, &shape);
    fd = model_writer_memfd(w);
    model_writer_free(w);
    driver_start(&d);
    driver_load(&d, fd, "{\"model\": \"m\", \"drafts\": \"always\"}");
    a = driver_complete(&d, SUBMIT_COMPLETE,
                        "{\"prompt\": \"x\", \"temperature\": 1, \"seed\": 2, \"max_tokens\": 200, \"grammar\": "
                        "\"root ::= (\\\"q7z-1k4x9w\\\" | \\\"7\\\") \\\"+5j2v8*6b3y0=\\\"\"}");
    assert_true(a->done);
    assert_true(strcmp(a->text, "q7z-1k4x9w+5j2v8*6b3y0=") == 0 || strcmp(a->text, "7+5j2v8*6b3y0=") == 0);
    assert_true(d.n_accepted >= 8);
    assert_true(d.n_output > 10 && d.n_accepted + d.n_steps_heard < d.n_output + 8);
    stop(&d);
}

static void test_a_draft_model_has_to_fit(void **state)
{
    struct model_shape shape = model_shape_default();
    struct model_writer *w = model_writer_new();
    int fds[2] = {make_model("llama", 0, 1)};
    struct driver d;

    shape.tokenizer = "gpt2";
    model_writer_llama(w, &shape);
    fds[1] = model_writer_memfd(w);
    model_writer_free(w);
    driver_start(&d);
    driver_load_files(&d, fds, 2, "{\"model\": \"m\", \"draft_files\": 1}");
    assert_true(d.model_failed);
    assert_int_equal(d.model_fault.kind, FAULT_MODEL_INVALID);
    assert_string_equal(d.model_fault.subject, "m");
    assert_string_equal(d.model_fault.reason, "the draft model has another vocabulary: token 0 differs");
    driver_stop(&d);

    fds[0] = make_model("llama", 0, 1);
    driver_start(&d);
    driver_load_files(&d, fds, 1, "{\"model\": \"m\", \"draft_files\": 1}");
    assert_true(d.model_failed);
    assert_string_equal(d.model_fault.subject, "files");
    driver_stop(&d);
}

static void test_same_answers_where_it_pays(void **state)
{
    struct driver off, on;

    start(&off, "llama", 0, "off", 0);
    start(&on, "llama", 0, "auto", 1);
    for (size_t i = 0; i < N_CALLS; i++)
        expect_same(driver_complete(&off, SUBMIT_COMPLETE, calls[i]), driver_complete(&on, SUBMIT_COMPLETE, calls[i]));
    stop(&off);
    stop(&on);
}

static void start_with_adapters(struct driver *d, const char *config)
{
    struct model_shape shape = model_shape_default();
    int fds[3] = {make_model("llama", 0, 1)};

    for (int i = 1; i <= 2; i++) {
        const struct adapter_shape adapter = {.architecture = "llama", .rank = 4, .period = 1, .seed = (uint64_t)i};
        struct model_writer *model = model_writer_new(), *w = model_writer_new();

        model_writer_llama(model, &shape);
        model_writer_adapter(w, model, &adapter);
        fds[i] = model_writer_memfd(w);
        model_writer_free(model);
        model_writer_free(w);
    }
    driver_start(d);
    driver_load_files(d, fds, 3, config);
    assert_true(d->ready);
}

/* What an adapter computes of a text is its own, so it is computed in advance for each. */
static void test_public_prefixes_are_there_for_adapters(void **state)
{
    static const char text[] = "once upon a time there was a little fox who knew the way home and told it nobody else";
    static const char *const adapters[] = {"null", "\"a\"", "\"b\""};
    char config[512], json[512];
    struct answer *a;
    struct driver d;

    snprintf(config, sizeof(config),
             "{\"model\": \"m\", \"sequences\": 3, \"adapters\": [\"a\", \"b\"], \"public_prefixes\": [\"%s\"]}", text);
    start_with_adapters(&d, config);
    while (d.step.pages_kept == 0)
        assert_true(driver_receive(&d, 60000));
    for (uint32_t i = 0; i < 3; i++) {
        snprintf(json, sizeof(json), "{\"prompt\": \"%s, or?\", \"max_tokens\": 2, \"adapter\": %s}", text, adapters[i]);
        a = driver_submit(&d, 1 + i, SUBMIT_COMPLETE, 0, json);
        driver_wait(&d, a);
        assert_true(a->done);
        assert_true(a->usage.cached_tokens >= 32 && a->usage.cached_tokens + 40 > a->usage.prompt_tokens);
    }
    stop(&d);
}

/* Two adapters and none, more requests than places and little room, so that pages are dropped and computed again. */
static void test_adapters_and_drafts_in_company(void **state)
{
    enum { N = 9 };
    static const char *const adapters[] = {"null", "\"a\"", "\"b\""};
    struct answer *alone[N], *together[N];
    struct driver d;
    char json[512];

    start_with_adapters(&d, "{\"model\": \"m\", \"sequences\": 3, \"kv_tokens\": 512, \"batch_tokens\": 64, "
                            "\"drafts\": \"always\", \"adapters\": [\"a\", \"b\"]}");
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < N; i++) {
            snprintf(json, sizeof(json),
                     "{\"prompt\": \"%.*s\", \"temperature\": 0, \"max_tokens\": %d, \"adapter\": %s}", 5 + 3 * i,
                     "once upon a time there was a little fox", 60 + 10 * i, adapters[i % 3]);
            if (round == 0)
                alone[i] = driver_complete(&d, SUBMIT_COMPLETE, json);
            else
                together[i] = driver_submit(&d, 1 + (uint32_t)i % 2, SUBMIT_COMPLETE, 0, json);
        }
    for (int i = 0; i < N; i++) {
        driver_wait(&d, together[i]);
        expect_same(alone[i], together[i]);
    }
    assert_true(driver_complete(&d, SUBMIT_COMPLETE, "{\"prompt\": \"x\", \"adapter\": \"c\"}")->failed);
    stop(&d);
}

/* A draft makes a step longer for all, so nobody drafts while another tenant runs. */
static void test_nobody_drafts_in_company(void **state)
{
    struct answer *a, *b;
    struct driver d;
    uint64_t n;

    start(&d, "llama", 0, "always", 0);
    a = driver_submit(&d, 1, SUBMIT_COMPLETE, 0, calls[0]);
    while (d.n_drafted == 0)
        assert_true(driver_receive(&d, 60000));
    b = driver_submit(&d, 2, SUBMIT_COMPLETE, 0, calls[0]);
    while (b->n_pieces == 0)
        assert_true(driver_receive(&d, 60000));
    n = d.n_drafted;
    while (!a->done && b->n_tokens < 100) {
        assert_true(driver_receive(&d, 60000));
        if (!a->done)
            assert_int_equal(d.n_drafted, n);
    }
    driver_wait(&d, a);
    driver_wait(&d, b);
    assert_string_equal(a->text, b->text);
    stop(&d);
}

static void test_bad_setting(void **state)
{
    struct driver d;

    driver_start(&d);
    driver_load(&d, make_model("llama", 0, 1), "{\"drafts\": \"often\"}");
    assert_true(d.model_failed);
    assert_int_equal(d.model_fault.kind, FAULT_INVALID_PARAMETER);
    assert_string_equal(d.model_fault.subject, "drafts");
    driver_stop(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_answers),
        cmocka_unit_test(test_same_answers_with_windows),
        cmocka_unit_test(test_same_answers_with_a_draft_model),
        cmocka_unit_test(test_a_draft_model_saves_steps),
        cmocka_unit_test(test_a_draft_model_reads_a_prompt_once),
        cmocka_unit_test(test_a_draft_model_has_read_public_prefixes),
        cmocka_unit_test(test_a_grammar_saves_steps),
        cmocka_unit_test(test_a_draft_model_has_to_fit),
        cmocka_unit_test(test_same_answers_where_it_pays),
        cmocka_unit_test(test_public_prefixes_are_there_for_adapters),
        cmocka_unit_test(test_adapters_and_drafts_in_company),
        cmocka_unit_test(test_nobody_drafts_in_company),
        cmocka_unit_test(test_bad_setting),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
