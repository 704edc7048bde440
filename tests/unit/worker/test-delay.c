/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long a user of few requests waits for first tokens beside one who keeps 32 going, and how much longer than
 * alone: on a simulated clock, with the steps of a model of a billion weights on two cores.
 */
#include "engine/sched/batch.h"

#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define MS             UINT64_C(1000000)
#define STEP_BASE_NS   (33 * MS)
#define PROMPT_NS      (36 * MS / 10)
#define DECODE_NS      (2 * MS)
#define CHUNK_NS       (250 * MS)
#define ROUNDED_NS     (16 * PROMPT_NS) /* slices are multiples of 32 tokens, the nearest one */
#define ROUND_TRIP_NS  (2 * MS)

enum { SEQUENCES = 4, SEQUENCES_MAX = 16, FLOOD = 32, USERS_MAX = 4, LIGHT_REQUESTS = 500 };

struct job {
    struct batch_request r;
    uint32_t user, n_output_left;
    uint64_t asked_ns;
    bool in;
};

struct user {
    struct job jobs[FLOOD];
    uint32_t n_jobs;
    uint64_t next_ns[FLOOD]; /* when the job is sent again */
};

struct load {
    uint32_t n_light;            /* users beside the flood, which is the last one */
    bool flood;
    uint32_t n_prompt, n_output; /* of light users */
    uint64_t pause_ns;           /* of light users between two requests, about; 0: none */
    uint32_t sequences;          /* 0: SEQUENCES */
};

struct sim {
    const struct load *load;
    struct batch *b;
    struct user users[USERS_MAX];
    uint32_t n_users;
    uint64_t now_ns, random;
    uint64_t delays_ns[LIGHT_REQUESTS];
    uint32_t n_delays;
};

static uint32_t random_next(struct sim *s)
{
    s->random = s->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(s->random >> 33);
}

static bool is_light(const struct sim *s, uint32_t user)
{
    return user < s->load->n_light;
}

static void send_due(struct sim *s)
{
    for (uint32_t u = 0; u < s->n_users; u++)
        for (uint32_t i = 0; i < s->users[u].n_jobs; i++) {
            struct job *j = &s->users[u].jobs[i];
            uint32_t n_prompt = is_light(s, u) ? s->load->n_prompt : 1 + random_next(s) % 400;

            if (j->in || s->users[u].next_ns[i] > s->now_ns)
                continue;
            j->in = true;
            j->user = u;
            j->asked_ns = s->users[u].next_ns[i];
            j->n_output_left = is_light(s, u) ? s->load->n_output : 1 + random_next(s) % 200;
            assert_int_equal(batch_submit(s->b, &j->r, u, 0, n_prompt, s->now_ns), 0);
        }
}

static void sampled(struct sim *s, struct job *j)
{
    struct user *u = &s->users[j->user];

    if (j->r.n_tokens == j->r.n_submitted && is_light(s, j->user) && s->n_delays < LIGHT_REQUESTS)
        s->delays_ns[s->n_delays++] = s->now_ns - j->asked_ns;
    batch_append(&j->r);
    if (--j->n_output_left > 0)
        return;
    batch_remove(s->b, &j->r, s->now_ns);
    j->in = false;
    u->next_ns[j - u->jobs] = s->now_ns + ROUND_TRIP_NS;
    if (is_light(s, j->user) && s->load->pause_ns > 0)
        u->next_ns[j - u->jobs] += s->load->pause_ns / 2 + random_next(s) % (s->load->pause_ns / MS) * MS;
}

static void step(struct sim *s)
{
    const struct batch_plan *plan;
    struct job *done[SEQUENCES_MAX];
    size_t n_done = 0;
    uint64_t ns = STEP_BASE_NS;

    send_due(s);
    plan = batch_plan(s->b, s->now_ns);
    if (plan->n_slices == 0) {
        s->now_ns += MS;
        return;
    }
    for (size_t i = 0; i < plan->n_slices; i++) {
        const struct batch_slice *p = &plan->slices[i];

        ns += p->n_tokens > 1 ? p->n_tokens * PROMPT_NS : DECODE_NS;
        if (p->wants_logits)
            done[n_done++] = (struct job *)(void *)((char *)p->request - offsetof(struct job, r));
    }
    s->now_ns += ns;
    batch_step_done(s->b, ns);
    for (size_t i = 0; i < n_done; i++)
        sampled(s, done[i]);
}

static int by_size(const void *x, const void *y)
{
    uint64_t a = *(const uint64_t *)x, b = *(const uint64_t *)y;

    return (a > b) - (a < b);
}

static const struct batch_config machine = {
    .sequences_max = SEQUENCES,
    .parked_max = 3 * SEQUENCES,
    .step_tokens_max = 512,
    .page_tokens = 32,
    .pages_total = SEQUENCES * 4096 / 32,
    .step_ns_max = CHUNK_NS,
    .step_alone_ns_max = 500 * MS,
    .quantum_ns = 500 * MS,
};

struct result {
    double median_ms, p99_ms, longest_ms;
    double share; /* of the machine's time that the first user had */
};

static struct result run(const struct load *l)
{
    struct sim *s = calloc(1, sizeof(*s));
    struct batch_config config = machine;
    struct result r = {0};

    assert_non_null(s);
    s->load = l;
    s->random = 3;
    if (l->sequences > 0) {
        config.sequences_max = l->sequences;
        config.parked_max = 3 * l->sequences;
        config.pages_total = l->sequences * 4096 / 32;
    }
    assert_int_equal(batch_new(&config, &s->b), 0);
    s->n_users = l->n_light + l->flood;
    for (uint32_t u = 0; u < s->n_users; u++)
        s->users[u].n_jobs = is_light(s, u) ? 1 : FLOOD;
    while (s->n_delays < LIGHT_REQUESTS)
        step(s);
    qsort(s->delays_ns, LIGHT_REQUESTS, sizeof(*s->delays_ns), by_size);
    r.median_ms = (double)s->delays_ns[LIGHT_REQUESTS / 2] / 1e6;
    r.p99_ms = (double)s->delays_ns[LIGHT_REQUESTS * 99 / 100] / 1e6;
    r.longest_ms = (double)s->delays_ns[LIGHT_REQUESTS - 1] / 1e6;
    r.share = (double)fair_tenant_find(batch_fair(s->b), 0)->cost_ns / (double)s->now_ns;
    for (uint32_t u = 0; u < s->n_users; u++)
        for (uint32_t i = 0; i < s->users[u].n_jobs; i++)
            if (s->users[u].jobs[i].in)
                batch_remove(s->b, &s->users[u].jobs[i].r, s->now_ns);
    batch_free(s->b);
    free(s);
    return r;
}

/* One slice of a prompt, and one step in which all others decode: what may be added to a first token, in ms. */
static double bound_ms(uint32_t sequences)
{
    return (double)(CHUNK_NS + STEP_BASE_NS + (sequences - 1) * DECODE_NS) / 1e6;
}

/* From a part of a slice to more than thirty. */
static const uint32_t prompts_of_one[] = {8,   32,  64,   128,  192,  256,  400,  512,  600, 700,
                                          800, 900, 1000, 1200, 1500, 1800, 2000, 3000, 4000};

static void ask_now_and_then(uint32_t sequences, size_t every, double excess_max_ms)
{
    for (size_t i = 0; i < sizeof(prompts_of_one) / sizeof(*prompts_of_one); i += every) {
        struct load l = {.n_light = 1,
                         .n_prompt = prompts_of_one[i],
                         .n_output = 16,
                         .pause_ns = 8000 * MS,
                         .sequences = sequences};
        struct result alone = run(&l), beside;

        l.flood = true;
        beside = run(&l);
        print_message("%u tokens: alone %.0f ms, p99 %.0f; beside the flood %.0f, p99 %.0f, longest %.0f\n",
                      prompts_of_one[i], alone.median_ms, alone.p99_ms, beside.median_ms, beside.p99_ms,
                      beside.longest_ms);
        assert_true(beside.p99_ms - alone.p99_ms <= excess_max_ms);
    }
}

static void test_who_asks_now_and_then(void **state)
{
    ask_now_and_then(SEQUENCES, 1, bound_ms(SEQUENCES));
}

/* What others' decoding adds to a step is more here, and slices are as many tokens as come next to their time. */
static void test_who_asks_now_and_then_beside_many(void **state)
{
    ask_now_and_then(8, 3, bound_ms(8) + (double)ROUNDED_NS / 1e6);
    ask_now_and_then(SEQUENCES_MAX, 3, bound_ms(SEQUENCES_MAX) + (double)ROUNDED_NS / 1e6);
}

/* They wait for each other's prompts, too, which are as long; so where answers are much shorter than these, more. */
static void test_who_always_asks(void **state)
{
    static const uint32_t outputs[] = {32, 64, 200};

    for (size_t i = 0; i < sizeof(outputs) / sizeof(*outputs); i++) {
        struct load l = {.n_light = 1, .n_prompt = 64, .n_output = outputs[i]};
        struct result alone = run(&l), beside;

        l.flood = true;
        l.n_light = 3;
        beside = run(&l);
        print_message("%u said: alone p99 %.0f ms; three beside the flood %.0f, p99 %.0f, longest %.0f\n", outputs[i],
                      alone.p99_ms, beside.median_ms, beside.p99_ms, beside.longest_ms);
        assert_true(beside.p99_ms - alone.p99_ms <= bound_ms(SEQUENCES));
    }
}

/* Their prompts are most of what they ask for, so they wait for each other whether the flood is there or not. */
static void test_long_prompts_of_several(void **state)
{
    static const uint32_t prompts[] = {128, 192, 256};

    for (size_t i = 0; i < sizeof(prompts) / sizeof(*prompts); i++) {
        struct load l = {.n_light = 3, .n_prompt = prompts[i], .n_output = 32};
        struct result among_them = run(&l), beside;

        l.flood = true;
        beside = run(&l);
        print_message("%u tokens: the three p99 %.0f ms; beside the flood %.0f, p99 %.0f, longest %.0f\n", prompts[i],
                      among_them.p99_ms, beside.median_ms, beside.p99_ms, beside.longest_ms);
        assert_true(beside.p99_ms - among_them.p99_ms <= bound_ms(SEQUENCES) + (double)STEP_BASE_NS / 1e6);
    }
}

/* It goes first until it has had its share; with each request it may be ahead by what that costs, and waits then. */
static void test_long_prompts_get_no_more_than_their_share(void **state)
{
    static const uint32_t prompts[] = {64, 256, 1000, 4000};

    for (size_t i = 0; i < sizeof(prompts) / sizeof(*prompts); i++) {
        struct result r =
            run(&(struct load){.n_light = 1, .n_prompt = prompts[i], .n_output = 1, .flood = true});

        print_message("%u tokens: %.3f of the machine\n", prompts[i], r.share);
        assert_true(r.share > 0.49 && r.share < 0.51);
    }
}

/* Tokens of @r in the next step, which takes @ns. */
static uint32_t tokens_of(struct batch *b, const struct batch_request *r, uint64_t *now_ns, uint64_t ns)
{
    const struct batch_plan *plan = batch_plan(b, *now_ns);
    uint32_t n = 0;

    for (size_t i = 0; i < plan->n_slices; i++)
        if (plan->slices[i].request == r)
            n = plan->slices[i].n_tokens;
    *now_ns += ns;
    batch_step_done(b, ns);
    return n;
}

static void test_a_short_prompt_passes_a_long_one(void **state)
{
    struct batch_request busy, long_one, short_one;
    struct batch *b;
    uint64_t now_ns = MS;

    assert_int_equal(batch_new(&machine, &b), 0);
    assert_int_equal(batch_submit(b, &busy, 1, 0, 1, now_ns), 0);
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_equal(tokens_of(b, &busy, &now_ns, 50 * MS), 1);
        batch_append(&busy);
    }
    assert_int_equal(batch_submit(b, &long_one, 2, 0, 4000, now_ns), 0);
    for (uint32_t i = 0; i < 10; i++) {
        assert_true(tokens_of(b, &long_one, &now_ns, CHUNK_NS) > 0);
        batch_append(&busy);
    }
    assert_int_equal(batch_submit(b, &short_one, 3, 0, 32, now_ns), 0);
    assert_int_equal(tokens_of(b, &short_one, &now_ns, CHUNK_NS), 32);
    batch_remove(b, &busy, now_ns);
    batch_remove(b, &long_one, now_ns);
    batch_remove(b, &short_one, now_ns);
    batch_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_asks_now_and_then),
        cmocka_unit_test(test_who_asks_now_and_then_beside_many),
        cmocka_unit_test(test_who_always_asks),
        cmocka_unit_test(test_long_prompts_of_several),
        cmocka_unit_test(test_long_prompts_get_no_more_than_their_share),
        cmocka_unit_test(test_a_short_prompt_passes_a_long_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
