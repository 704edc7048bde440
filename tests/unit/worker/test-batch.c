/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The scheduler on a simulated clock: a machine whose steps take 20 ms and 0.5 ms for each token, tenants
 * that send requests, and exact questions about who got what and when.
 */
#include "engine/sched/batch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define MS           UINT64_C(1000000)
#define STEP_BASE_NS (20 * MS)
#define TOKEN_NS     (MS / 2)

struct job {
    struct batch_request r;
    struct job *next;
    uint32_t tenant, n_prompt, n_output_max, n_output;
    uint32_t n_kept; /* what would be found of it, if it had to begin again */
    uint64_t submitted_ns, first_ns, done_ns;
    bool has_sequence;
};

struct sim {
    struct batch *b;
    struct batch_config config;
    uint64_t now_ns, step_ns, step_ns_longest;
    uint32_t n_sequences, n_sequences_longest;
    struct job *jobs; /* all that are not done */
    struct job *done; /* freed at the end */
    uint64_t n_prompt, n_output, n_dropped, n_found;
    uint64_t drafts; /* a random state: everybody drafts, and some of it is right; 0: nobody does */
    uint64_t n_drafted, n_right;
};

static const struct batch_config config_default = {
    .sequences_max = 8,
    .parked_max = 16,
    .step_tokens_max = 512,
    .drafts_max = 16,
    .page_tokens = 32,
    .pages_total = 8 * 4096 / 32,
    .step_ns_max = 250 * MS,
    .step_alone_ns_max = 500 * MS,
    .quantum_ns = 500 * MS,
};

static void sim_init(struct sim *s, const struct batch_config *config)
{
    *s = (struct sim){.config = *config};
    assert_int_equal(batch_new(config, &s->b), 0);
}

static struct job *sim_submit(struct sim *s, uint32_t tenant, int32_t priority, uint32_t n_prompt,
                              uint32_t n_output)
{
    struct job *j = calloc(1, sizeof(*j));

    assert_non_null(j);
    *j = (struct job){.tenant = tenant,
                      .n_prompt = n_prompt,
                      .n_output_max = n_output,
                      .submitted_ns = s->now_ns,
                      .next = s->jobs};
    assert_int_equal(batch_submit(s->b, &j->r, tenant, priority, n_prompt, s->now_ns), 0);
    j->r.n_more_max = n_output;
    s->jobs = j;
    return j;
}

/* What the worker does when a request ends, for whatever reason. */
static void sim_end(struct sim *s, struct job *j)
{
    struct job **at = &s->jobs;

    while (*at != j)
        at = &(*at)->next;
    *at = j->next;
    batch_remove(s->b, &j->r, s->now_ns);
    if (j->has_sequence)
        s->n_sequences--;
    j->has_sequence = false;
    j->done_ns = s->now_ns;
    j->next = s->done;
    s->done = j;
}

static void sim_done(struct sim *s)
{
    while (s->jobs)
        sim_end(s, s->jobs);
    assert_int_equal(s->n_sequences, 0);
    assert_int_equal(batch_pages_used(s->b), 0);
    batch_free(s->b);
    for (struct job *j = s->done, *next; j; j = next) {
        next = j->next;
        free(j);
    }
}

static struct job *of_request(struct batch_request *r)
{
    return (struct job *)(void *)((char *)r - offsetof(struct job, r));
}

/* Whether any job's pages are what its tokens need, and the sum is what the scheduler believes. */
static void check_pages(struct sim *s)
{
    uint32_t n = 0;

    for (struct job *j = s->jobs; j; j = j->next) {
        assert_int_equal(j->r.n_pages, (j->r.n_fed + s->config.page_tokens - 1) / s->config.page_tokens);
        assert_true(j->r.n_pages == 0 || j->has_sequence);
        n += j->r.n_pages;
    }
    assert_int_equal(n, batch_pages_used(s->b));
    assert_true(n <= s->config.pages_total);
}

static uint32_t random_next(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

/* What was fed once is kept, in pages of 32. */
static uint32_t find_kept(const struct batch_request *r, void *userdata)
{
    const struct job *j = (const struct job *)(const void *)((const char *)r - offsetof(struct job, r));

    assert_int_equal(r->n_fed, 0);
    return j->n_kept < r->n_tokens ? j->n_kept : (r->n_tokens - 1) / 32 * 32;
}

/* One step of the worker. Returns false when there is nothing to run. */
static bool sim_step(struct sim *s)
{
    const struct batch_plan *plan = batch_plan(s->b, s->now_ns);
    struct job *sampled[64];
    uint32_t drafted[64];
    size_t n_sampled = 0;
    uint32_t n_tokens = 0;

    assert_null(plan->stuck);
    for (size_t i = 0; i < plan->n_dropped; i++) {
        struct job *j = of_request(plan->dropped[i]);

        assert_true(j->has_sequence);
        j->has_sequence = false;
        s->n_sequences--;
        s->n_dropped++;
    }
    if (plan->n_slices == 0)
        return false;
    assert_true(plan->n_slices <= s->config.sequences_max);
    for (size_t i = 0; i < plan->n_slices; i++) {
        struct job *j = of_request(plan->slices[i].request);

        assert_true(plan->slices[i].n_tokens > 0);
        uint32_t known = plan->slices[i].n_tokens - plan->slices[i].n_draft;

        assert_true(known > 0);
        known += plan->slices[i].n_found;
        assert_true(plan->slices[i].n_found == 0 || (j->r.n_fed == 0 && plan->slices[i].n_found <= j->n_kept));
        s->n_found += plan->slices[i].n_found;
        assert_true(j->r.n_fed + known <= j->r.n_tokens);
        assert_int_equal(plan->slices[i].wants_logits, j->r.n_fed + known == j->r.n_tokens);
        assert_true(plan->slices[i].n_draft == 0 || plan->slices[i].wants_logits);
        if (!j->has_sequence) {
            assert_int_equal(j->r.n_fed, 0);
            j->has_sequence = true;
            s->n_sequences++;
        }
        n_tokens += plan->slices[i].n_tokens;
        drafted[n_sampled] = plan->slices[i].n_draft;
        if (plan->slices[i].wants_logits)
            sampled[n_sampled++] = j;
        else
            s->n_prompt += plan->slices[i].n_tokens;
    }
    assert_int_equal(n_tokens, plan->n_tokens);
    assert_true(n_tokens <= s->config.step_tokens_max);
    assert_true(s->n_sequences <= s->config.sequences_max + s->config.parked_max);
    if (s->n_sequences > s->n_sequences_longest)
        s->n_sequences_longest = s->n_sequences;

    s->step_ns = STEP_BASE_NS + n_tokens * TOKEN_NS;
    if (s->step_ns > s->step_ns_longest)
        s->step_ns_longest = s->step_ns;
    s->now_ns += s->step_ns;
    batch_step_done(s->b, s->step_ns);
    for (size_t i = 0; i < n_sampled; i++) {
        struct job *j = sampled[i];
        uint32_t n_right = drafted[i] > 0 ? random_next(&s->drafts) % (drafted[i] + 1) : 0;

        if (j->n_output == 0)
            j->first_ns = s->now_ns;
        for (uint32_t k = 0; k <= n_right; k++)
            batch_append(&j->r);
        j->n_output += 1 + n_right;
        s->n_output += 1 + n_right;
        s->n_drafted += drafted[i];
        s->n_right += n_right;
        if (n_right < drafted[i])
            batch_refuse(s->b, &j->r, drafted[i] - n_right);
        if (s->drafts)
            j->r.n_draft = random_next(&s->drafts) % 9;
        if (j->n_output >= j->n_output_max)
            sim_end(s, j);
    }
    return true;
}

static uint64_t cost_of(struct sim *s, uint32_t tenant)
{
    struct fair_tenant *t = fair_tenant_find(batch_fair(s->b), tenant);

    return t ? t->cost_ns : 0;
}

static double jain(const double *x, size_t n)
{
    double sum = 0, squares = 0;

    for (size_t i = 0; i < n; i++) {
        sum += x[i];
        squares += x[i] * x[i];
    }
    return sum * sum / ((double)n * squares);
}

/* Keeps @n requests of @tenant in the system. */
static void keep_busy(struct sim *s, uint32_t tenant, uint32_t n, uint64_t *random)
{
    uint32_t have = 0;

    for (struct job *j = s->jobs; j; j = j->next)
        have += j->tenant == tenant;
    for (; have < n; have++)
        sim_submit(s, tenant, 0, 1 + random_next(random) % 200, 1 + random_next(random) % 100);
}

static void test_one_request(void **state)
{
    struct sim s;
    struct job *j;

    sim_init(&s, &config_default);
    assert_false(sim_step(&s));
    j = sim_submit(&s, 1, 0, 100, 3);
    /* Nothing is measured yet: 64 tokens, then the other 36, then one by one. */
    assert_true(sim_step(&s));
    assert_int_equal(j->r.n_fed, 64);
    assert_int_equal(j->n_output, 0);
    assert_true(sim_step(&s));
    assert_int_equal(j->n_output, 1);
    assert_int_equal(j->r.n_fed, 100);
    assert_true(sim_step(&s));
    assert_int_equal(j->r.n_fed, 101);
    assert_true(sim_step(&s));
    assert_int_equal(j->n_output, 3);
    assert_int_equal(j->done_ns, s.now_ns);
    assert_false(sim_step(&s));
    sim_done(&s);
}

static void test_slices_follow_the_clock(void **state)
{
    struct sim s;
    struct job *j;

    /* After the first steps a slice takes what fits into step_alone_ns_max, or step_ns_max in company. */
    sim_init(&s, &config_default);
    j = sim_submit(&s, 1, 0, 4000, 1);
    for (int i = 0; i < 30 && j->n_output == 0; i++)
        sim_step(&s);
    assert_int_equal(j->n_output, 1);
    assert_in_range(s.step_ns_longest, 100 * MS, 500 * MS);
    s.step_ns_longest = 0;
    sim_submit(&s, 1, 0, 4000, 1);
    sim_submit(&s, 2, 0, 4000, 1);
    while (sim_step(&s))
        assert_true(s.step_ns <= 275 * MS || !s.jobs || !s.jobs->next);
    sim_done(&s);
}

static void test_equal_tenants(void **state)
{
    struct sim s;
    uint64_t random = 1;
    double cost[5];

    /* Tenants differ in how much they send at once, not in weight. */
    sim_init(&s, &config_default);
    while (s.now_ns < 600 * 1000 * MS) {
        for (uint32_t t = 0; t < 5; t++)
            keep_busy(&s, t, 4 + 8 * t, &random);
        assert_true(sim_step(&s));
        check_pages(&s);
    }
    for (uint32_t t = 0; t < 5; t++)
        cost[t] = (double)cost_of(&s, t);
    assert_true(jain(cost, 5) >= 0.999);
    sim_done(&s);
}

static void weights_hold(uint32_t sequences)
{
    struct batch_config config = config_default;
    const uint32_t weights[3] = {100, 200, 400};
    struct sim s;
    uint64_t random = 2;
    double sum = 0;

    config.sequences_max = sequences;
    sim_init(&s, &config);
    for (uint32_t t = 0; t < 3; t++)
        assert_int_equal(fair_tenant_set(batch_fair(s.b), t, weights[t], 0, 0, NULL), 0);
    while (s.now_ns < 1000 * 1000 * MS) {
        for (uint32_t t = 0; t < 3; t++)
            keep_busy(&s, t, 20, &random);
        assert_true(sim_step(&s));
    }
    for (uint32_t t = 0; t < 3; t++)
        sum += (double)cost_of(&s, t);
    for (uint32_t t = 0; t < 3; t++) {
        double share = (double)cost_of(&s, t) / sum, due = weights[t] / 700.0;

        assert_true(share > 0.98 * due && share < 1.02 * due);
    }
    sim_done(&s);
}

static void test_weights(void **state)
{
    weights_hold(1);
    weights_hold(2);
    weights_hold(4);
    weights_hold(16);
}

static void test_class_weight(void **state)
{
    struct sim s;
    uint64_t random = 3;
    double class_cost = 0, other_cost;

    /* Ten tenants of a class that together weighs as much as one other tenant. */
    sim_init(&s, &config_default);
    for (uint32_t t = 1; t <= 10; t++)
        assert_int_equal(fair_tenant_set(batch_fair(s.b), t, 100, 7, 100, NULL), 0);
    while (s.now_ns < 1000 * 1000 * MS) {
        for (uint32_t t = 0; t <= 10; t++)
            keep_busy(&s, t, 9, &random);
        assert_true(sim_step(&s));
    }
    other_cost = (double)cost_of(&s, 0);
    for (uint32_t t = 1; t <= 10; t++) {
        class_cost += (double)cost_of(&s, t);
        assert_true((double)cost_of(&s, t) > 0.09 * other_cost && (double)cost_of(&s, t) < 0.11 * other_cost);
    }
    assert_true(class_cost > 0.97 * other_cost && class_cost < 1.03 * other_cost);
    sim_done(&s);
}

static void test_forgotten_tenants(void **state)
{
    struct sim s;
    struct job *j;

    sim_init(&s, &config_default);
    assert_int_equal(fair_tenant_set(batch_fair(s.b), 1, 300, 0, 0, NULL), 0);
    j = sim_submit(&s, 1, 0, 10, 5);
    for (uint32_t t = 2; t < 1000; t++)
        sim_end(&s, sim_submit(&s, t, 0, 10, 5));
    assert_int_equal(fair_n_tenants(batch_fair(s.b)), 999);
    for (uint32_t t = 0; t < 2000; t++)
        fair_forget(batch_fair(s.b), t);
    /* One that still has something stays until that is over, as it was. */
    assert_int_equal(fair_n_tenants(batch_fair(s.b)), 1);
    assert_int_equal(fair_tenant_find(batch_fair(s.b), 1)->weight, 300);
    while (sim_step(&s))
        ;
    assert_int_equal(j->n_output, 5);
    assert_int_equal(fair_n_tenants(batch_fair(s.b)), 0);
    /* It comes back as somebody new. */
    sim_submit(&s, 1, 0, 10, 5);
    assert_int_equal(fair_tenant_find(batch_fair(s.b), 1)->weight, FAIR_WEIGHT_DEFAULT);
    fair_forget_all(batch_fair(s.b));
    assert_int_equal(fair_tenant_set(batch_fair(s.b), 1, 50, 0, 0, NULL), 0);
    while (sim_step(&s))
        ;
    assert_int_equal(fair_n_tenants(batch_fair(s.b)), 1);
    sim_done(&s);
}

static void set_marked(struct sim *s, uint32_t id, uint64_t mark)
{
    struct fair_tenant *t;

    fair_rejoin(batch_fair(s->b), id, mark);
    assert_int_equal(fair_tenant_set(batch_fair(s->b), id, 100, 0, 0, &t), 0);
    t->mark = mark;
}

/* Another daemon gives the same users other numbers: who was ahead is still ahead. */
static void test_tenants_keep_their_due_under_other_numbers(void **state)
{
    struct fair_tenant *busy, *other, *unmarked;
    uint64_t cost_ns, virtual_time;
    struct sim s;

    sim_init(&s, &config_default);
    set_marked(&s, 1, 0xb);
    set_marked(&s, 2, 0xa);
    assert_int_equal(fair_tenant_set(batch_fair(s.b), 3, 100, 0, 0, NULL), 0);
    sim_submit(&s, 1, 0, 2000, 50);
    while (sim_step(&s))
        ;
    sim_submit(&s, 2, 0, 10, 2);
    sim_submit(&s, 3, 0, 10, 2);
    while (sim_step(&s))
        ;
    busy = fair_tenant_find(batch_fair(s.b), 1);
    cost_ns = busy->cost_ns;
    virtual_time = busy->virtual_time;
    for (int round = 0; round < 3; round++) {
        fair_part_all(batch_fair(s.b));
        assert_int_equal(fair_n_tenants(batch_fair(s.b)), 0);
        /* In the second round nobody comes: nobody's due is lost for that. */
        if (round == 1)
            continue;
        set_marked(&s, 1, 0xa);
        set_marked(&s, 2, 0xb);
        assert_int_equal(fair_n_tenants(batch_fair(s.b)), 2);
        busy = fair_tenant_find(batch_fair(s.b), 2);
        other = fair_tenant_find(batch_fair(s.b), 1);
        assert_int_equal(busy->cost_ns, cost_ns);
        assert_true(busy->virtual_time == virtual_time);
        assert_true(other->virtual_time > 0 && other->cost_ns < cost_ns);
    }
    assert_int_equal(fair_tenant_set(batch_fair(s.b), 3, 100, 0, 0, &unmarked), 0);
    assert_int_equal(unmarked->cost_ns, 0);
    /* A number that somebody has already is not given to another. */
    fair_part_all(batch_fair(s.b));
    set_marked(&s, 5, 0xc);
    fair_rejoin(batch_fair(s.b), 5, 0xb);
    assert_int_equal(fair_tenant_find(batch_fair(s.b), 5)->cost_ns, 0);
    sim_done(&s);
}

static void test_parted_tenants_are_bounded(void **state)
{
    struct sim s;

    sim_init(&s, &config_default);
    for (uint32_t i = 0; i < FAIR_PARTED_MAX + 100; i++) {
        set_marked(&s, 1, 1000 + i);
        fair_charge(batch_fair(s.b), fair_tenant_find(batch_fair(s.b), 1), MS);
        fair_part_all(batch_fair(s.b));
    }
    /* The latest are there, the first are not. */
    set_marked(&s, 1, 1000 + FAIR_PARTED_MAX + 99);
    set_marked(&s, 2, 1000 + 100);
    set_marked(&s, 3, 1000 + 99);
    assert_int_equal(fair_tenant_find(batch_fair(s.b), 1)->cost_ns, MS);
    assert_int_equal(fair_tenant_find(batch_fair(s.b), 2)->cost_ns, MS);
    assert_int_equal(fair_tenant_find(batch_fair(s.b), 3)->cost_ns, 0);
    sim_done(&s);
}

static void test_flood_delays_by_a_step(void **state)
{
    struct sim s;
    uint64_t alone_ns, worst_ns = 0;

    sim_init(&s, &config_default);
    sim_submit(&s, 2, 0, 30, 5);
    while (sim_step(&s))
        ;
    alone_ns = s.done->first_ns - s.done->submitted_ns;

    for (int i = 0; i < 1000; i++)
        sim_submit(&s, 1, 0, 300, 400);
    for (int i = 0; i < 20; i++)
        sim_step(&s);
    /* A light user comes now and then. What it waits for is the step that runs when it comes, and its own. */
    for (int i = 0; i < 50; i++) {
        struct job *j;

        sim_step(&s);
        j = sim_submit(&s, 2, 0, 30, 5);
        j->submitted_ns -= s.step_ns; /* it came right after that step had begun */
        while (j->n_output < 5)
            sim_step(&s);
        if (j->first_ns - j->submitted_ns > worst_ns)
            worst_ns = j->first_ns - j->submitted_ns;
        for (int k = 0; k < 30; k++)
            sim_step(&s);
    }
    assert_true(worst_ns <= alone_ns + 2 * s.step_ns_longest);
    sim_done(&s);
}

/* Whoever sends one request after the other is away for a moment each time, in which steps begin without it. */
static void test_moments_between_requests_cost_nothing(void **state)
{
    struct batch_config config = config_default;
    struct job *light[3] = {NULL};
    uint64_t back_ns[3] = {0}, random = 4;
    double output[4] = {0};
    struct sim s;

    config.sequences_max = 4;
    sim_init(&s, &config);
    while (s.now_ns < 2000 * 1000 * MS) {
        keep_busy(&s, 0, 32, &random);
        for (uint32_t t = 0; t < 3; t++) {
            if (light[t] && light[t]->n_output == light[t]->n_output_max) {
                light[t] = NULL;
                back_ns[t] = s.now_ns + 1; /* not in the next step, but in the one after that */
            } else if (!light[t] && s.now_ns > back_ns[t]) {
                light[t] = sim_submit(&s, 1 + t, 0, 1 + random_next(&random) % 200, 1 + random_next(&random) % 100);
            }
        }
        assert_true(sim_step(&s));
    }
    for (struct job *j = s.done; j; j = j->next)
        output[j->tenant] += (double)j->n_output;
    for (uint32_t t = 1; t < 4; t++) {
        double share = output[t] / (output[0] + output[1] + output[2] + output[3]);

        assert_true(share > 0.975 * 0.25 && share < 1.025 * 0.25);
    }
    sim_done(&s);
}

static void test_nobody_starves(void **state)
{
    struct sim s;
    uint64_t random = 5;
    uint32_t n_done = 0;

    /* Thirty heavy tenants that never stop; each request of a light one ends all the same. */
    sim_init(&s, &config_default);
    for (int i = 0; i < 40; i++) {
        struct job *j = sim_submit(&s, 1000, 0, 1500, 50);
        uint64_t begin_ns = s.now_ns;

        while (j->n_output < 50 && s.now_ns - begin_ns < 2000 * 1000 * MS) {
            for (uint32_t t = 0; t < 30; t++)
                keep_busy(&s, t, 2, &random);
            assert_true(sim_step(&s));
        }
        n_done += j->n_output == 50;
    }
    assert_int_equal(n_done, 40);
    sim_done(&s);
}

static void test_priority_within_a_tenant(void **state)
{
    struct batch_config config = config_default;
    struct sim s;
    struct job *low, *high, *other;

    config.sequences_max = 1;
    sim_init(&s, &config);
    sim_submit(&s, 1, 0, 10, 3);
    sim_step(&s);
    low = sim_submit(&s, 1, 0, 10, 3);
    high = sim_submit(&s, 1, 5, 10, 3);
    other = sim_submit(&s, 2, -5, 10, 3);
    while (sim_step(&s))
        ;
    assert_true(high->first_ns < low->first_ns);
    assert_true(other->first_ns < low->first_ns); /* another tenant's number says nothing here */
    sim_done(&s);
}

static void test_cancel_anywhere(void **state)
{
    struct sim s;
    uint64_t random = 7;

    sim_init(&s, &config_default);
    for (int i = 0; i < 20000; i++) {
        uint32_t what = random_next(&random) % 8;
        struct job *j = s.jobs;

        for (uint32_t k = random_next(&random) % 40; j && k > 0; k--)
            j = j->next;
        if (what < 3)
            sim_submit(&s, random_next(&random) % 12, (int32_t)(random_next(&random) % 3) - 1,
                       1 + random_next(&random) % 3000, 1 + random_next(&random) % 300);
        else if (what == 3 && j)
            sim_end(&s, j);
        else if (what == 4 && j)
            batch_pause(s.b, &j->r);
        else if (what == 5 && j)
            batch_resume(s.b, &j->r);
        sim_step(&s);
        check_pages(&s);
    }
    assert_true(s.n_dropped > 0);
    sim_done(&s);
}

static void test_paused_does_not_run(void **state)
{
    struct batch_config config = config_default;
    struct sim s;
    struct job *a, *b;

    config.sequences_max = 1;
    sim_init(&s, &config);
    a = sim_submit(&s, 1, 0, 10, 100);
    b = sim_submit(&s, 1, 0, 10, 5);
    sim_step(&s);
    assert_int_equal(a->n_output, 1);
    batch_pause(s.b, &a->r);
    for (int i = 0; i < 5; i++)
        sim_step(&s);
    assert_int_equal(a->n_output, 1);
    assert_int_equal(b->n_output, 5); /* in its place meanwhile */
    assert_false(sim_step(&s));
    batch_resume(s.b, &a->r);
    sim_step(&s);
    assert_int_equal(a->n_output, 2);
    assert_int_equal(s.n_dropped, 0); /* it kept its pages */
    sim_done(&s);
}

static void test_pages_run_out(void **state)
{
    struct batch_config config = config_default;
    struct sim s;
    uint64_t random = 8;
    uint32_t n_done = 0;

    /* Room for two long requests and a bit. All end, some of them after computing lost pages again. */
    config.pages_total = 80;
    sim_init(&s, &config);
    for (int i = 0; i < 200; i++)
        sim_submit(&s, random_next(&random) % 7, 0, 1 + random_next(&random) % 1000,
                   1 + random_next(&random) % 1000);
    for (int i = 0; i < 2000000 && s.jobs; i++) {
        assert_true(sim_step(&s));
        if (i % 100 == 0)
            check_pages(&s);
    }
    for (struct job *j = s.done; j; j = j->next)
        n_done += j->n_output == j->n_output_max;
    assert_int_equal(n_done, 200);
    assert_true(s.n_dropped > 0);
    sim_done(&s);
}

static void test_whole_prompts(void **state)
{
    struct batch_config config = config_default;
    struct sim s;
    uint64_t random = 9;

    config.whole_prompts = true;
    config.pages_total = 30;
    sim_init(&s, &config);
    for (int i = 0; i < 300; i++)
        sim_submit(&s, random_next(&random) % 7, 0, 1 + random_next(&random) % 512, 1);
    while (s.jobs) {
        /* What is no end of a prompt would count as a piece of one. */
        assert_true(sim_step(&s));
        assert_int_equal(s.n_prompt, 0);
        check_pages(&s);
    }
    assert_int_equal(s.n_output, 300);
    sim_done(&s);
}

static void test_what_is_found_is_not_computed(void **state)
{
    struct batch_config config = config_default;
    struct sim s;
    struct job *j, *other;

    config.found = find_kept;
    sim_init(&s, &config);
    j = sim_submit(&s, 1, 0, 1000, 2);
    j->n_kept = 960;
    assert_true(sim_step(&s));
    assert_int_equal(j->r.n_fed, 1000);
    assert_int_equal(j->n_output, 1);
    assert_int_equal(j->r.n_pages, 32);
    assert_int_equal(s.now_ns, STEP_BASE_NS + 40 * TOKEN_NS);
    /* Only what is computed costs anything. */
    assert_int_equal(cost_of(&s, 1), s.now_ns);
    /* All of it was there before: one token is computed anyway. */
    other = sim_submit(&s, 2, 0, 97, 1);
    other->n_kept = 96;
    assert_true(sim_step(&s));
    assert_int_equal(other->n_output, 1);
    /* A step that fails has found nothing, either. */
    other = sim_submit(&s, 2, 0, 97, 1);
    other->n_kept = 64;
    batch_plan(s.b, s.now_ns);
    assert_int_equal(other->r.n_found, 64);
    assert_int_equal(other->r.n_pages, 4);
    batch_step_failed(s.b);
    assert_int_equal(other->r.n_found, 0);
    assert_int_equal(other->r.n_pages, 0);
    assert_true(sim_step(&s));
    assert_int_equal(other->n_output, 1);
    sim_done(&s);
}

/* Too few pages for all, so that many begin again and again and find more or less of what they had. */
static void test_found_again_after_pages_ran_out(void **state)
{
    struct batch_config config = config_default;
    uint64_t random = 5, n_prompt[2];

    for (int keeps = 0; keeps < 2; keeps++) {
        struct sim s;

        config.pages_total = 40;
        config.found = find_kept;
        sim_init(&s, &config);
        for (uint32_t i = 0; i < 60; i++)
            sim_submit(&s, i % 5, 0, 1 + random_next(&random) % 700, 1 + random_next(&random) % 300);
        while (sim_step(&s)) {
            check_pages(&s);
            for (struct job *j = s.jobs; j && keeps; j = j->next)
                if (j->r.n_fed > 0 || random_next(&random) % 64 == 0)
                    j->n_kept = j->r.n_fed / 32 * 32;
        }
        assert_null(s.jobs);
        assert_int_equal(s.n_found > 0, keeps);
        assert_true(s.n_dropped > 0);
        n_prompt[keeps] = s.n_prompt;
        sim_done(&s);
    }
    assert_true(n_prompt[1] < n_prompt[0]);
}

static void test_longer_than_all_pages(void **state)
{
    struct batch_config config = config_default;
    const struct batch_plan *plan;
    struct sim s;
    struct job *j;

    config.pages_total = 4;
    sim_init(&s, &config);
    j = sim_submit(&s, 1, 0, 129, 10);
    for (;;) {
        plan = batch_plan(s.b, s.now_ns);
        if (plan->stuck)
            break;
        assert_true(plan->n_slices > 0);
        j->has_sequence = true;
        s.n_sequences = 1;
        batch_step_done(s.b, MS);
    }
    assert_ptr_equal(plan->stuck, &j->r);
    assert_int_equal(j->r.n_fed, 128);
    sim_done(&s);
}

static void test_tenant_pages(void **state)
{
    struct sim s;
    struct fair_tenant *t;

    /* A tenant with room for 10 pages of 32 tokens: two requests of 5 pages run, the third waits; others do
     * not care. */
    sim_init(&s, &config_default);
    assert_int_equal(fair_tenant_set(batch_fair(s.b), 1, 100, 0, 0, &t), 0);
    t->pages_max = 10;
    for (int i = 0; i < 30; i++)
        sim_submit(&s, 1, 0, 100, 40);
    for (int i = 0; i < 4; i++)
        sim_submit(&s, 2, 0, 100, 40);
    while (sim_step(&s)) {
        assert_true(t->n_pages <= 10);
        check_pages(&s);
    }
    assert_null(s.jobs);
    sim_done(&s);
}

static void test_step_failed(void **state)
{
    struct sim s;
    struct job *j;

    sim_init(&s, &config_default);
    j = sim_submit(&s, 1, 0, 100, 1);
    batch_plan(s.b, 0);
    assert_int_equal(batch_pages_used(s.b), 2);
    batch_step_failed(s.b);
    assert_int_equal(batch_pages_used(s.b), 0);
    assert_int_equal(j->r.n_fed, 0);
    assert_true(sim_step(&s));
    assert_int_equal(j->r.n_fed, 64);
    sim_done(&s);
}

static void test_smaller_steps(void **state)
{
    struct batch_config config = config_default;
    struct sim s;

    config.step_tokens_max = 40;
    sim_init(&s, &config);
    sim_submit(&s, 1, 0, 100, 1);
    assert_int_equal(batch_plan(s.b, 0)->n_tokens, 40);
    batch_step_failed(s.b);
    assert_true(batch_shrink(s.b));
    assert_true(batch_shrink(s.b));
    assert_int_equal(batch_plan(s.b, 0)->n_tokens, 10);
    batch_step_failed(s.b);
    /* Each of eight sequences has a token in a step. */
    assert_false(batch_shrink(s.b));
    while (sim_step(&s))
        assert_true(s.n_output <= 1);
    assert_int_equal(s.n_output, 1);
    sim_done(&s);

    config.whole_prompts = true;
    sim_init(&s, &config);
    assert_false(batch_shrink(s.b));
    sim_done(&s);
}

static void test_trim(void **state)
{
    struct sim s;
    struct job *a, *b;

    sim_init(&s, &config_default);
    a = sim_submit(&s, 1, 0, 64, 100);
    b = sim_submit(&s, 1, 0, 64, 100);
    while (b->n_output == 0)
        sim_step(&s);
    batch_pause(s.b, &a->r);
    sim_step(&s);
    assert_null(batch_trim(s.b, 1));
    assert_ptr_equal(batch_trim(s.b, s.config.pages_total), &a->r);
    a->has_sequence = false;
    s.n_sequences--;
    assert_null(batch_trim(s.b, s.config.pages_total)); /* what runs keeps its pages */
    batch_resume(s.b, &a->r);
    while (sim_step(&s))
        ;
    assert_int_equal(a->n_output, 100);
    sim_done(&s);
}

static void test_positions(void **state)
{
    struct batch_config config = config_default;
    struct batch_position p[8];
    struct sim s;
    struct job *a[4], *b;

    config.sequences_max = 1;
    sim_init(&s, &config);
    sim_submit(&s, 1, 0, 10, 50);
    sim_step(&s);
    for (int i = 0; i < 4; i++)
        a[i] = sim_submit(&s, 1, 0, 10, 50);
    b = sim_submit(&s, 2, 0, 10, 50);
    assert_int_equal(batch_n_new(s.b), 5);
    assert_int_equal(batch_positions(s.b, p), 5);
    /* The other tenant has had nothing yet: it comes before all of the first one's. */
    assert_ptr_equal(p[0].request, &b->r);
    assert_int_equal(p[0].position, 1);
    for (int i = 0; i < 4; i++)
        assert_ptr_equal(p[1 + i].request, &a[i]->r);
    assert_int_equal(p[4].position, 5);
    assert_int_equal(p[0].eta_ms, -1); /* nothing has ended yet */
    while (sim_step(&s))
        ;
    sim_submit(&s, 1, 0, 10, 50);
    sim_step(&s);
    sim_submit(&s, 1, 0, 10, 50);
    assert_int_equal(batch_positions(s.b, p), 1);
    assert_true(p[0].eta_ms > 0);
    sim_done(&s);
}

static void test_thousands_of_tenants(void **state)
{
    struct sim s;
    uint64_t random = 9;
    double output[2000] = {0};

    sim_init(&s, &config_default);
    for (uint32_t i = 0; i < 20000; i++)
        sim_submit(&s, i % 2000, 0, 1 + random_next(&random) % 20, 20);
    /* Half of the work, then everybody has had about the same. */
    while (s.n_output < 200000)
        assert_true(sim_step(&s));
    for (struct job *j = s.done; j; j = j->next)
        output[j->tenant] += j->n_output;
    assert_true(jain(output, 2000) >= 0.99);
    assert_int_equal(s.n_sequences_longest <= config_default.sequences_max + config_default.parked_max, 1);
    /* Cancelling the rest is quick from any place. */
    sim_done(&s);
}

static struct batch_request *decoding(struct sim *s, uint32_t tenant, uint32_t n_prompt)
{
    struct job *j = sim_submit(s, tenant, 0, n_prompt, 10000);

    while (j->n_output < 2)
        assert_true(sim_step(s));
    return &j->r;
}

static void expect_draft(struct sim *s, uint32_t n)
{
    const struct batch_plan *plan = batch_plan(s->b, s->now_ns);

    assert_int_equal(plan->n_slices, 1);
    assert_int_equal(plan->slices[0].n_draft, n);
    assert_int_equal(plan->slices[0].n_tokens, 1 + n);
    assert_int_equal(plan->n_tokens, 1 + n);
}

static void test_drafts_are_fed_and_taken_back(void **state)
{
    struct batch_request *r;
    struct sim s;

    sim_init(&s, &config_default);
    r = decoding(&s, 1, 30);
    assert_int_equal(r->n_tokens, 32);
    assert_int_equal(r->n_pages, 1);
    assert_int_equal(batch_drafts_max(s.b), 16);
    r->n_draft = 40;
    expect_draft(&s, 16);
    assert_int_equal(r->n_pages, 2);
    /* Ten times as long as a step without: that is what a token costs now. */
    batch_step_done(s.b, 10 * (STEP_BASE_NS + TOKEN_NS));
    assert_in_range((uint64_t)(batch_draft_cost(s.b) * 1000), 9000 / 16 - 1, 9000 / 16 + 1);
    batch_append(r);
    assert_int_equal(r->n_fed, 31 + 17);
    batch_refuse(s.b, r, 16);
    assert_int_equal(r->n_fed, 32);
    check_pages(&s);
    r->n_draft = 3;
    batch_append(r);
    batch_refuse(s.b, r, 0);
    assert_int_equal(r->n_draft, 0);
    sim_done(&s);
}

static void test_drafts_take_nothing_from_others(void **state)
{
    struct batch_config config = config_default;
    struct batch_request *r, *other;
    struct sim s;

    /* Both hold a page, and there is one more. */
    config.pages_total = 3;
    sim_init(&s, &config);
    r = decoding(&s, 1, 20);
    other = decoding(&s, 1, 20);
    r->n_draft = other->n_draft = 16;
    assert_int_equal(batch_plan(s.b, s.now_ns)->n_tokens, 2 + 16);
    assert_int_equal(batch_pages_used(s.b), 3);
    batch_step_failed(s.b);
    assert_int_equal(batch_pages_used(s.b), 2);
    check_pages(&s);

    /* Another tenant: one that waits counts, and one that runs. */
    batch_remove(s.b, other, s.now_ns);
    of_request(other)->has_sequence = false;
    s.n_sequences--;
    assert_true(batch_drafts_max(s.b) > 0);
    assert_int_equal(batch_submit(s.b, other, 2, 0, 20, s.now_ns), 0);
    assert_int_equal(batch_drafts_max(s.b), 0);
    r->n_draft = 16;
    assert_int_equal(batch_plan(s.b, s.now_ns)->slices[0].n_draft, 0);
    batch_step_failed(s.b);
    batch_remove(s.b, other, s.now_ns);
    assert_true(batch_drafts_max(s.b) > 0);
    sim_done(&s);
}

static void test_drafts_within_a_tenants_pages(void **state)
{
    struct batch_request *r;
    struct sim s;

    sim_init(&s, &config_default);
    r = decoding(&s, 1, 26);
    r->item.tenant->pages_max = 1;
    r->n_draft = 16;
    /* 27 are fed, 28 are known: four more fit into the page. */
    assert_int_equal(r->n_fed, 27);
    expect_draft(&s, 4);
    sim_done(&s);
}

static void test_now_and_then_a_step_without_drafts(void **state)
{
    struct batch_request *r;
    struct sim s;
    int n;

    sim_init(&s, &config_default);
    r = decoding(&s, 1, 20);
    for (n = 0; batch_drafts_max(s.b) > 0; n++) {
        r->n_draft = 1;
        expect_draft(&s, 1);
        batch_step_done(s.b, STEP_BASE_NS);
        batch_append(r);
        batch_append(r);
    }
    assert_int_equal(n, 64);
    expect_draft(&s, 0);
    batch_step_done(s.b, STEP_BASE_NS);
    batch_append(r);
    assert_int_equal(batch_drafts_max(s.b), 16);
    sim_done(&s);
}

static void test_a_cost_of_long_ago_is_forgotten(void **state)
{
    struct batch_request *r;
    struct sim s;

    sim_init(&s, &config_default);
    r = decoding(&s, 1, 20);
    assert_in_range((uint64_t)(batch_draft_cost(s.b) * 1000), 149, 151);
    r->n_draft = 1;
    expect_draft(&s, 1);
    batch_step_done(s.b, 5 * (STEP_BASE_NS + TOKEN_NS));
    batch_append(r);
    batch_refuse(s.b, r, 1);
    assert_in_range((uint64_t)(batch_draft_cost(s.b) * 1000), 3999, 4001);
    for (int i = 0; i < 1500; i++)
        assert_true(sim_step(&s));
    assert_in_range((uint64_t)(batch_draft_cost(s.b) * 1000), 150, 170);
    sim_done(&s);
}

static void test_drafts_of_many(void **state)
{
    struct batch_config config = config_default;
    struct sim s;
    uint64_t random = 9;

    /* Little room, tenants that come and go: the sums stay right, and some get drafts. */
    config.pages_total = 64;
    sim_init(&s, &config);
    s.drafts = 5;
    for (int i = 0; i < 20000; i++) {
        for (uint32_t t = 0; t < 1 + (uint32_t)i / 50 % 3; t++)
            keep_busy(&s, t, 1 + (uint32_t)i / 500 % 4, &random);
        sim_step(&s);
        check_pages(&s);
    }
    assert_true(s.n_drafted > 2000);
    assert_true(s.n_right > 1000 && s.n_right < s.n_drafted);
    sim_done(&s);
}

static void test_refused_configurations(void **state)
{
    struct batch_config config = config_default;
    struct batch *b;

    config.sequences_max = 0;
    assert_int_equal(batch_new(&config, &b), -EINVAL);
    config = config_default;
    config.step_tokens_max = 7;
    assert_int_equal(batch_new(&config, &b), -EINVAL);
    config = config_default;
    config.page_tokens = 0;
    assert_int_equal(batch_new(&config, &b), -EINVAL);
    config = config_default;
    config.pages_total = 0;
    assert_int_equal(batch_new(&config, &b), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_request),
        cmocka_unit_test(test_slices_follow_the_clock),
        cmocka_unit_test(test_equal_tenants),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_class_weight),
        cmocka_unit_test(test_forgotten_tenants),
        cmocka_unit_test(test_tenants_keep_their_due_under_other_numbers),
        cmocka_unit_test(test_parted_tenants_are_bounded),
        cmocka_unit_test(test_flood_delays_by_a_step),
        cmocka_unit_test(test_moments_between_requests_cost_nothing),
        cmocka_unit_test(test_nobody_starves),
        cmocka_unit_test(test_priority_within_a_tenant),
        cmocka_unit_test(test_cancel_anywhere),
        cmocka_unit_test(test_paused_does_not_run),
        cmocka_unit_test(test_pages_run_out),
        cmocka_unit_test(test_what_is_found_is_not_computed),
        cmocka_unit_test(test_found_again_after_pages_ran_out),
        cmocka_unit_test(test_longer_than_all_pages),
        cmocka_unit_test(test_tenant_pages),
        cmocka_unit_test(test_step_failed),
        cmocka_unit_test(test_smaller_steps),
        cmocka_unit_test(test_trim),
        cmocka_unit_test(test_whole_prompts),
        cmocka_unit_test(test_positions),
        cmocka_unit_test(test_thousands_of_tenants),
        cmocka_unit_test(test_drafts_are_fed_and_taken_back),
        cmocka_unit_test(test_drafts_take_nothing_from_others),
        cmocka_unit_test(test_drafts_within_a_tenants_pages),
        cmocka_unit_test(test_now_and_then_a_step_without_drafts),
        cmocka_unit_test(test_a_cost_of_long_ago_is_forgotten),
        cmocka_unit_test(test_drafts_of_many),
        cmocka_unit_test(test_refused_configurations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
