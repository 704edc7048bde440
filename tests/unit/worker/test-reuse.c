/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Prefixes in the real worker: who finds what, that answers stay the same, and what is left when a request, a tenant's
 * room or an epoch ends.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/json.h"
#include "tests/unit/worker/driver.h"

#define CONFIG "{\"model\": \"test\", \"sequences\": 4, \"threads\": 1}"

static void start_ready(struct driver *d, uint32_t context, const char *config)
{
    driver_start(d);
    driver_load(d, driver_model(context), config);
    assert_true(d->ready);
}

static void stop_well(struct driver *d)
{
    assert_int_equal(driver_stop(d), 0);
}

/* A call of @n_tokens tokens of prompt, of which the first @n_same are those of every call. */
static const char *call(char *text, size_t size, uint32_t n_tokens, uint32_t n_same, uint32_t seed, uint32_t n_output)
{
    size_t at = (size_t)snprintf(text, size, "{\"temperature\": 0, \"max_tokens\": %u, \"prompt_tokens\": [",
                                 n_output);

    for (uint32_t i = 0; i < n_tokens; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%u", i > 0 ? ", " : "",
                               3 + (i * 7 + (i < n_same ? 0 : 13 * seed)) % 200);
    snprintf(text + at, size - at, "]}");
    return text;
}

static struct answer *ask(struct driver *d, uint32_t tenant, const char *json)
{
    struct answer *a = driver_submit(d, tenant, SUBMIT_COMPLETE, 0, json);

    driver_wait(d, a);
    assert_true(a->done);
    return a;
}

static void test_own_prefixes_are_found(void **state)
{
    static char first[8192], second[8192];
    struct driver d, other;
    struct answer *a, *b, *c;

    call(first, sizeof(first), 300, 200, 1, 20);
    call(second, sizeof(second), 250, 200, 2, 20);
    start_ready(&d, 1024, CONFIG);
    a = ask(&d, 1, first);
    assert_int_equal(a->usage.prompt_tokens, 300);
    assert_int_equal(a->usage.cached_tokens, 0);
    b = ask(&d, 1, second);
    assert_int_equal(b->usage.cached_tokens, 192);
    c = ask(&d, 1, first);
    assert_int_equal(c->usage.cached_tokens, 288);
    assert_string_equal(c->text, a->text);
    /* What was answered is found, too, as soon as it comes back as part of a prompt. */
    start_ready(&other, 1024, CONFIG);
    a = ask(&other, 1, second);
    assert_int_equal(a->usage.cached_tokens, 0);
    assert_string_equal(a->text, b->text);
    stop_well(&other);
    stop_well(&d);
}

static void test_others_prefixes_are_not(void **state)
{
    static char text[8192];
    struct driver d;
    struct answer *a, *b;

    call(text, sizeof(text), 300, 300, 0, 5);
    start_ready(&d, 1024, CONFIG);
    a = ask(&d, 1, text);
    for (uint32_t tenant = 2; tenant < 5; tenant++) {
        b = ask(&d, tenant, text);
        assert_int_equal(b->usage.cached_tokens, 0);
        assert_string_equal(b->text, a->text);
        assert_int_equal(ask(&d, tenant, text)->usage.cached_tokens, 288);
    }
    /* Tenant numbers that look like one another's are none of each other's. */
    assert_int_equal(ask(&d, 0, text)->usage.cached_tokens, 0);
    assert_int_equal(ask(&d, UINT32_MAX, text)->usage.cached_tokens, 0);
    stop_well(&d);
}

/* What the worker computes of 2,000 tokens that were sent before, by its own account of each step: 16 of them, since
 * pages are whole, and what is new. For their own user only. */
static void test_two_thousand_tokens_are_computed_once(void **state)
{
    enum { SHARED = 2000, OWN = 20, KEPT = SHARED / 32 * 32 };
    static char first[16384], second[16384];
    struct driver d;
    struct answer *a;
    uint64_t n_prompt;

    call(first, sizeof(first), SHARED + OWN, SHARED, 1, 4);
    call(second, sizeof(second), SHARED + OWN, SHARED, 2, 4);
    start_ready(&d, 4096, CONFIG);
    a = ask(&d, 1, first);
    assert_int_equal(a->usage.cached_tokens, 0);
    assert_int_equal(d.n_prompt, SHARED + OWN);
    n_prompt = d.n_prompt;
    a = ask(&d, 1, second);
    assert_int_equal(a->usage.prompt_tokens, SHARED + OWN);
    assert_int_equal(a->usage.cached_tokens, KEPT);
    assert_int_equal(d.n_prompt - n_prompt, SHARED + OWN - KEPT);
    assert_true(10 * (d.n_prompt - n_prompt) <= SHARED + OWN);
    n_prompt = d.n_prompt;
    a = ask(&d, 2, second);
    assert_int_equal(a->usage.cached_tokens, 0);
    assert_int_equal(d.n_prompt - n_prompt, SHARED + OWN);
    stop_well(&d);
}

/* Nothing is asked yet, and something is kept: public prefixes. */
static void wait_warm(struct driver *d)
{
    while (d->step.pages_kept == 0)
        assert_true(driver_receive(d, 60000));
    assert_int_equal(d->step.n_running, 0);
    assert_int_equal(d->step.pages_used, 0);
    assert_int_equal(d->n_prompt, 0); /* nobody's account */
}

/* A text of the policy's is everybody's, in prompts and as a system message; what comes behind it is not. */
static void test_public_prefixes(void **state)
{
#define HELP "You help the people of this house with their machines. Be short and kind. Never guess. "
    static const char config[] = "{\"model\": \"test\", \"sequences\": 4, \"threads\": 1, \"public_prefixes\": [\"" HELP
                                 "\", \"Something else that nobody uses at all in any prompt.\"]}";
    static const char prompt[] = "{\"prompt\": \"" HELP "My machine makes a noise like a cat with a cold and stops.\", "
                                 "\"max_tokens\": 5, \"temperature\": 0}";
    static const char chat[] = "{\"messages\": [{\"role\": \"system\", \"content\": \"" HELP "\"}, {\"role\": \"user\", "
                               "\"content\": \"It makes a noise like a cat with a cold and then it stops.\"}], "
                               "\"max_tokens\": 5, \"temperature\": 0}";
    static const char near[] = "{\"prompt\": \"You help the people of that house with their machines. Be short and kind. "
                               "Never guess. And so on.\", \"max_tokens\": 5}";
    static const struct {
        enum submit_kind kind;
        const char *json;
    } calls[] = {{SUBMIT_COMPLETE, prompt}, {SUBMIT_CHAT, chat}};
    struct answer *first, *second, *again, *other;
    struct driver d, plain;

    start_ready(&d, 1024, config);
    start_ready(&plain, 1024, CONFIG);
    wait_warm(&d);
    for (size_t i = 0; i < 2; i++) {
        uint64_t n_prompt = d.n_prompt;

        first = driver_submit(&d, 1, calls[i].kind, 0, calls[i].json);
        driver_wait(&d, first);
        second = driver_submit(&d, 2, calls[i].kind, 0, calls[i].json);
        driver_wait(&d, second);
        again = driver_submit(&d, 2, calls[i].kind, 0, calls[i].json);
        driver_wait(&d, again);
        other = driver_submit(&plain, 1, calls[i].kind, 0, calls[i].json);
        driver_wait(&plain, other);
        /* Computed in advance: the first user's prompt is as cheap as the second's. */
        assert_int_equal(first->usage.cached_tokens, second->usage.cached_tokens);
        assert_int_equal(d.n_prompt - n_prompt, first->usage.prompt_tokens + second->usage.prompt_tokens +
                                                    again->usage.prompt_tokens - first->usage.cached_tokens -
                                                    second->usage.cached_tokens - again->usage.cached_tokens);
        /* All of the public text in whole pages, and none of what she wrote. */
        assert_true(second->usage.cached_tokens >= 32 && second->usage.cached_tokens < again->usage.cached_tokens);
        assert_string_equal(second->text, other->text);
        assert_string_equal(again->text, other->text);
    }
    ask(&d, 1, near);
    other = ask(&d, 2, near);
    assert_true(other->usage.cached_tokens < 32);
    stop_well(&plain);
    stop_well(&d);
}

/* Some hundreds of tokens, in slices between which requests come first; again for another daemon, not after a TRIM. */
static void test_public_prefixes_are_computed_in_advance(void **state)
{
    static const struct packet_trim trim = {.bytes = UINT64_MAX / 2};
    static char config[8192], prompt[8192], text[8000];
    struct answer *early, *a;
    struct driver d, plain;
    uint32_t n_pages, n_cached;

    for (size_t i = 0; i < 600; i++)
        snprintf(text + 5 * i, 6, "%c%c%c%c ", (char)('a' + i % 26), (char)('a' + i / 26), (char)('a' + i % 7),
                 (char)('a' + i % 11));
    snprintf(config, sizeof(config),
             "{\"model\": \"test\", \"sequences\": 4, \"threads\": 1, \"public_prefixes\": [\"%s\"]}", text);
    snprintf(prompt, sizeof(prompt), "{\"prompt\": \"%sand so on\", \"max_tokens\": 5, \"temperature\": 0}", text);
    start_ready(&plain, 4096, CONFIG);
    start_ready(&d, 4096, config);
    early = driver_submit(&d, 1, SUBMIT_COMPLETE, 0, "{\"prompt\": \"and so on\", \"max_tokens\": 3}");
    driver_wait(&d, early);
    assert_true(early->done);
    a = ask(&plain, 1, prompt);
    n_pages = (uint32_t)(a->usage.prompt_tokens / 32) - 1;
    while (d.step.pages_kept < n_pages)
        assert_true(driver_receive(&d, 60000));
    n_cached = (uint32_t)ask(&d, 2, prompt)->usage.cached_tokens;
    assert_in_range(n_cached, 32 * n_pages, a->usage.prompt_tokens);
    driver_wait(&d, driver_submit(&d, 3, SUBMIT_COMPLETE, 0, prompt));
    assert_string_equal(d.answers[d.n_answers - 1].text, a->text);

    driver_take_over(&d);
    while (d.step.pages_kept < n_pages)
        assert_true(driver_receive(&d, 60000));
    driver_send(&d, PACKET_TRIM, &trim, sizeof(trim));
    assert_int_equal(ask(&d, 1, prompt)->usage.cached_tokens, 0);
    stop_well(&plain);
    stop_well(&d);
}

static void test_forms_and_embeddings(void **state)
{
    static const char integer[] =
        "{\"prompt\": \"the quick brown fox jumps over the lazy dog and goes home to sleep\", \"max_tokens\": 4, "
        "\"seed\": 3, \"temperature\": 1.5, \"json_schema\": {\"type\": \"integer\"}}";
    struct driver d;
    struct answer *a, *b;

    start_ready(&d, 1024, CONFIG);
    /* An embedding needs all states: it finds nothing and leaves nothing. */
    for (int i = 0; i < 2; i++) {
        a = driver_complete(&d, SUBMIT_EMBED,
                            "{\"input\": [\"the quick brown fox jumps over the lazy dog and goes home to sleep\"]}");
        assert_true(a->done);
        assert_int_equal(a->usage.cached_tokens, 0);
    }
    a = driver_complete(&d, SUBMIT_COMPLETE, integer);
    assert_int_equal(a->usage.cached_tokens, 0);
    b = driver_complete(&d, SUBMIT_COMPLETE, integer);
    assert_true(b->usage.cached_tokens > 0);
    assert_string_equal(a->text, b->text);
    stop_well(&d);
}

/* So little room that nearly everything is evicted and computed again, by several tenants at once. */
static void test_little_room_changes_no_answer(void **state)
{
    enum { CALLS = 12, ROUNDS = 5 };
    static char texts[CALLS][8192];
    char *expected[CALLS];
    struct driver d;
    uint64_t n_cached = 0;

    for (uint32_t i = 0; i < CALLS; i++)
        call(texts[i], sizeof(texts[i]), 40 + 31 * i, 60 + 20 * (i % 3), i, 30);
    start_ready(&d, 512, CONFIG);
    for (uint32_t i = 0; i < CALLS; i++)
        expected[i] = strdup(ask(&d, 1000 + i, texts[i])->text);
    stop_well(&d);

    start_ready(&d, 512, "{\"model\": \"test\", \"sequences\": 4, \"threads\": 1, \"kv_tokens\": 640}");
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct answer *a[CALLS];

        for (uint32_t i = 0; i < CALLS; i++)
            a[i] = driver_submit(&d, 1 + i % 3, SUBMIT_COMPLETE, 0, texts[(i + round) % CALLS]);
        for (uint32_t i = 0; i < CALLS; i++) {
            driver_wait(&d, a[i]);
            assert_true(a[i]->done);
            assert_string_equal(a[i]->text, expected[(i + round) % CALLS]);
            n_cached += a[i]->usage.cached_tokens;
        }
    }
    assert_true(n_cached > 0);
    for (uint32_t i = 0; i < CALLS; i++)
        free(expected[i]);
    stop_well(&d);
}

static uint64_t bytes_of_page(struct driver *d)
{
    const struct json_limits limits = {.bytes_max = 1 << 20, .depth_max = 16, .values_max = 1000};
    json_object *facts = NULL, *bytes, *page;
    uint64_t n;

    assert_int_equal(json_parse(d->facts, strlen(d->facts), &limits, &facts, NULL, NULL), 0);
    assert_true(json_object_object_get_ex(facts, "bytes", &bytes));
    assert_true(json_object_object_get_ex(bytes, "kv_page", &page));
    n = (uint64_t)json_object_get_int64(page);
    json_object_put(facts);
    return n;
}

static void test_a_tenants_limit_holds_for_what_is_kept(void **state)
{
    static char texts[3][8192];
    struct packet_tenant tenant = {.tenant = 1, .weight = 100};
    struct driver d;

    for (uint32_t i = 0; i < 3; i++)
        call(texts[i], sizeof(texts[i]), 200, 0, i, 2);
    start_ready(&d, 1024, CONFIG);
    tenant.kv_max_bytes = 8 * bytes_of_page(&d);
    driver_send(&d, PACKET_TENANT, &tenant, sizeof(tenant));
    for (uint32_t i = 0; i < 3; i++)
        ask(&d, 1, texts[i]);
    /* Eight pages: all of the last one, two of the one before. */
    assert_int_equal(ask(&d, 1, texts[2])->usage.cached_tokens, 192);
    assert_int_equal(ask(&d, 1, texts[1])->usage.cached_tokens, 64);
    stop_well(&d);
}

static void test_trim_and_reset_forget(void **state)
{
    static char text[8192];
    const struct packet_trim trim = {.bytes = UINT64_MAX / 2};
    struct driver d;

    call(text, sizeof(text), 300, 300, 0, 5);
    start_ready(&d, 1024, CONFIG);
    ask(&d, 1, text);
    assert_int_equal(ask(&d, 1, text)->usage.cached_tokens, 288);
    driver_send(&d, PACKET_TRIM, &trim, sizeof(trim));
    assert_int_equal(ask(&d, 1, text)->usage.cached_tokens, 0);
    assert_int_equal(ask(&d, 1, text)->usage.cached_tokens, 288);
    /* Another daemon, other tenants: number 1, of whom nobody said more, may be somebody else now. */
    driver_take_over(&d);
    assert_int_equal(ask(&d, 1, text)->usage.cached_tokens, 0);
    stop_well(&d);
}

static void set_tenant(struct driver *d, uint32_t number, uint64_t mark)
{
    const struct packet_tenant tenant = {.tenant = number, .weight = 100, .mark = mark};

    driver_send(d, PACKET_TENANT, &tenant, sizeof(tenant));
}

/* By their marks: the next daemon gives numbers anew. */
static void test_users_find_their_own_again_when_the_daemon_is_another(void **state)
{
    static char text[8192];
    struct driver d;

    call(text, sizeof(text), 300, 300, 0, 5);
    start_ready(&d, 1024, CONFIG);
    set_tenant(&d, 1, 77);
    assert_int_equal(ask(&d, 1, text)->usage.cached_tokens, 0);
    driver_take_over(&d);
    set_tenant(&d, 1, 78);
    assert_int_equal(ask(&d, 1, text)->usage.cached_tokens, 0);
    set_tenant(&d, 2, 77);
    assert_int_equal(ask(&d, 2, text)->usage.cached_tokens, 288);
    /* A user who is forgotten is forgotten under either name. */
    driver_send(&d, PACKET_TENANT, &(struct packet_tenant){.tenant = 2}, sizeof(struct packet_tenant));
    set_tenant(&d, 3, 77);
    assert_int_equal(ask(&d, 3, text)->usage.cached_tokens, 0);
    assert_int_equal(ask(&d, 1, text)->usage.cached_tokens, 288);
    stop_well(&d);
}

static void test_the_end_of_a_request_frees_its_pages_within_a_step(void **state)
{
    static char text[8192];
    struct packet_request cancel;
    struct answer *a[4], *last;
    struct driver d;
    uint64_t n_steps;

    start_ready(&d, 4096, CONFIG);
    for (uint32_t i = 0; i < 4; i++)
        a[i] = driver_submit(&d, 1 + i, SUBMIT_COMPLETE, 0, call(text, sizeof(text), 100, 0, i, 4000));
    while (a[0]->n_tokens == 0 || a[1]->n_tokens == 0 || a[2]->n_tokens == 0 || a[3]->n_tokens == 0)
        assert_true(driver_receive(&d, 60000));
    assert_true(d.step.pages_used >= 16);
    for (uint32_t i = 0; i < 3; i++) {
        cancel.request = a[i]->request;
        driver_send(&d, PACKET_CANCEL, &cancel, sizeof(cancel));
    }
    for (uint32_t i = 0; i < 3; i++) {
        driver_wait(&d, a[i]);
        assert_int_equal(a[i]->usage.finish, DONE_CANCELLED);
    }
    /* Whatever step comes next does not know them any more. */
    n_steps = d.step.n_steps;
    while (d.step.n_steps == n_steps)
        assert_true(driver_receive(&d, 60000));
    assert_int_equal(d.step.n_running, 1);
    assert_int_equal(d.n_tenants, 1);
    assert_int_equal(d.tenants[0].tenant, 4);
    assert_int_equal(d.step.pages_used, d.tenants[0].n_pages);
    last = a[3];
    cancel.request = last->request;
    driver_send(&d, PACKET_CANCEL, &cancel, sizeof(cancel));
    driver_wait(&d, last);
    stop_well(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_prefixes_are_found),
        cmocka_unit_test(test_others_prefixes_are_not),
        cmocka_unit_test(test_two_thousand_tokens_are_computed_once),
        cmocka_unit_test(test_public_prefixes),
        cmocka_unit_test(test_public_prefixes_are_computed_in_advance),
        cmocka_unit_test(test_forms_and_embeddings),
        cmocka_unit_test(test_little_room_changes_no_answer),
        cmocka_unit_test(test_a_tenants_limit_holds_for_what_is_kept),
        cmocka_unit_test(test_trim_and_reset_forget),
        cmocka_unit_test(test_users_find_their_own_again_when_the_daemon_is_another),
        cmocka_unit_test(test_the_end_of_a_request_frees_its_pages_within_a_step),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
