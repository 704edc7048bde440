/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The scheduler with ten thousand users and a million requests on a simulated clock: who gets how much, who waits how
 * long, and how much work a decision is. The machine's steps take 20 ms and 0.5 ms for each token.
 */
#include "engine/sched/batch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define MS           UINT64_C(1000000)
#define STEP_BASE_NS (20 * MS)
#define TOKEN_NS     (MS / 2)

enum { SEQUENCES = 16, BACKLOG = 3 };

struct job {
    struct batch_request r;
    uint32_t user, n_output_left;
    uint64_t waits_since_ns;
};

struct user {
    struct job jobs[BACKLOG]; /* in turn; each comes back as a new request when it is done */
    uint32_t n_left;          /* requests that it has still to send */
    uint64_t longest_wait_ns; /* between two of its tokens while it wants some */
    uint64_t served_ns;       /* when it had the last one */
    uint32_t size;            /* of its requests: 1 is small */
};

struct sim {
    struct batch *b;
    struct user *users; /* [n_users] */
    uint32_t n_users;
    uint64_t now_ns, n_steps, n_done, random;
    uint64_t costliest_ns; /* request that was done */
    uint64_t plan_ns; /* of this machine's own time */
};

static uint32_t random_next(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

static uint64_t clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void submit(struct sim *s, uint32_t user, struct job *j)
{
    struct user *u = &s->users[user];
    uint32_t n_prompt = 1 + random_next(&s->random) % (20 * u->size);

    u->n_left--;
    j->user = user;
    j->n_output_left = 1 + random_next(&s->random) % (5 * u->size);
    assert_int_equal(batch_submit(s->b, &j->r, user, 0, n_prompt, s->now_ns), 0);
}

static void begin(struct sim *s, uint32_t n_users, uint32_t n_requests_each)
{
    static const struct batch_config config = {
        .sequences_max = SEQUENCES,
        .parked_max = 2 * SEQUENCES,
        .step_tokens_max = 512,
        .page_tokens = 32,
        .pages_total = SEQUENCES * 1024 / 32,
        .step_ns_max = 250 * MS,
        .step_alone_ns_max = 500 * MS,
        .quantum_ns = 500 * MS,
    };

    *s = (struct sim){.n_users = n_users, .random = n_users};
    s->users = calloc(n_users, sizeof(*s->users));
    assert_non_null(s->users);
    assert_int_equal(batch_new(&config, &s->b), 0);
    for (uint32_t u = 0; u < n_users; u++)
        s->users[u] = (struct user){.n_left = n_requests_each, .size = 1};
}

static void submit_all(struct sim *s)
{
    for (uint32_t k = 0; k < BACKLOG; k++)
        for (uint32_t u = 0; u < s->n_users; u++)
            if (s->users[u].n_left > 0)
                submit(s, u, &s->users[u].jobs[k]);
}

static bool step(struct sim *s)
{
    uint64_t begin_ns = clock_ns(), step_ns;
    const struct batch_plan *plan = batch_plan(s->b, s->now_ns);
    struct job *sampled[SEQUENCES];
    size_t n_sampled = 0;

    s->plan_ns += clock_ns() - begin_ns;
    if (plan->n_slices == 0)
        return false;
    assert_null(plan->stuck);
    for (size_t i = 0; i < plan->n_slices; i++) {
        struct job *j = (struct job *)(void *)((char *)plan->slices[i].request - offsetof(struct job, r));

        if (plan->slices[i].wants_logits)
            sampled[n_sampled++] = j;
    }
    step_ns = STEP_BASE_NS + plan->n_tokens * TOKEN_NS;
    s->now_ns += step_ns;
    s->n_steps++;
    begin_ns = clock_ns();
    batch_step_done(s->b, step_ns);
    for (size_t i = 0; i < n_sampled; i++) {
        struct job *j = sampled[i];
        struct user *u = &s->users[j->user];

        if (s->now_ns - u->served_ns > u->longest_wait_ns)
            u->longest_wait_ns = s->now_ns - u->served_ns;
        u->served_ns = s->now_ns;
        batch_append(&j->r);
        if (--j->n_output_left > 0)
            continue;
        if (j->r.cost_ns > s->costliest_ns)
            s->costliest_ns = j->r.cost_ns;
        batch_remove(s->b, &j->r, s->now_ns);
        s->n_done++;
        if (u->n_left > 0)
            submit(s, j->user, j);
    }
    s->plan_ns += clock_ns() - begin_ns;
    return true;
}

static void end(struct sim *s)
{
    for (uint32_t u = 0; u < s->n_users; u++)
        for (uint32_t k = 0; k < BACKLOG; k++)
            if (s->users[u].jobs[k].r.item.tenant)
                batch_remove(s->b, &s->users[u].jobs[k].r, s->now_ns);
    batch_free(s->b);
    free(s->users);
}

static double cost_of(struct sim *s, uint32_t user)
{
    return (double)fair_tenant_find(batch_fair(s->b), user)->cost_ns;
}

/* Equal weights; every tenth user's requests are eight times as large as the others'. */
static void test_a_million_requests_of_ten_thousand(void **state)
{
    enum { USERS = 10000, EACH = 100 };
    double sum = 0, squares = 0, round_ns;
    struct sim s;
    uint64_t longest_ns = 0;

    begin(&s, USERS, EACH);
    for (uint32_t u = 0; u < USERS; u += 10)
        s.users[u].size = 8;
    submit_all(&s);
    /* As long as all want something. */
    while (s.n_done < (uint64_t)USERS * EACH / 3)
        assert_true(step(&s));
    for (uint32_t u = 0; u < USERS; u++) {
        sum += cost_of(&s, u);
        squares += cost_of(&s, u) * cost_of(&s, u);
        assert_true(s.users[u].n_left > 0);
        if (s.users[u].longest_wait_ns > longest_ns)
            longest_ns = s.users[u].longest_wait_ns;
    }
    print_message("Jain index %.5f\n", sum * sum / (USERS * squares));
    assert_true(sum * sum / (USERS * squares) >= 0.99);
    /* Nobody starves: who was ahead by the costliest request waits until all others are level, and ahead by another. */
    round_ns = 2.0 * USERS * (double)s.costliest_ns;
    print_message("longest wait %.0f s, twice the costliest request of all %.0f s\n", (double)longest_ns / 1e9,
                  round_ns / 1e9);
    assert_true((double)longest_ns < round_ns);
    while (step(&s))
        ;
    assert_int_equal(s.n_done, USERS * EACH);
    print_message("%.2f us for a step's decisions\n", (double)s.plan_ns / 1e3 / (double)s.n_steps);
    end(&s);
}

static void test_shares_follow_weights(void **state)
{
    enum { USERS = 10000 };
    static const uint32_t weights[] = {50, 100, 200, 400};
    double shares[4] = {0}, sum = 0, due = 0, *before = calloc(USERS, sizeof(*before));
    struct sim s;

    begin(&s, USERS, 100000);
    for (uint32_t u = 0; u < USERS; u++) {
        assert_int_equal(fair_tenant_set(batch_fair(s.b), u, weights[u % 4], 0, 0, NULL), 0);
        due += weights[u % 4];
    }
    submit_all(&s);
    assert_non_null(before);
    /* A request is finished although its user is over its share by then; from one such moment to another that cancels. */
    while (s.n_done < 100000)
        assert_true(step(&s));
    for (uint32_t u = 0; u < USERS; u++)
        before[u] = cost_of(&s, u);
    while (s.n_done < 1100000)
        assert_true(step(&s));
    for (uint32_t u = 0; u < USERS; u++) {
        shares[u % 4] += cost_of(&s, u) - before[u];
        sum += cost_of(&s, u) - before[u];
    }
    free(before);
    for (uint32_t k = 0; k < 4; k++) {
        double share = shares[k] / sum, expected = weights[k] * (USERS / 4.0) / due;

        print_message("weight %u: %.4f of all, %.4f due\n", weights[k], share, expected);
        assert_true(share > 0.98 * expected && share < 1.02 * expected);
    }
    end(&s);
}

/* Users who come and go: who was away has saved nothing up and lost nothing. */
static void test_whoever_comes_is_level_with_the_others(void **state)
{
    enum { USERS = 2000 };
    double before, others = 0, late = 0;
    struct sim s;

    begin(&s, USERS, 100000);
    for (uint32_t u = 1; u < USERS; u++)
        submit(&s, u, &s.users[u].jobs[0]);
    while (s.n_done < 100000)
        assert_true(step(&s));
    before = cost_of(&s, 1);
    submit(&s, 0, &s.users[0].jobs[0]);
    for (uint64_t n = s.n_done; s.n_done < n + 100000;)
        assert_true(step(&s));
    others = cost_of(&s, 1) - before;
    late = cost_of(&s, 0);
    print_message("late %.2f, another in the same time %.2f s\n", late / 1e9, others / 1e9);
    assert_true(late < 1.2 * others && late > 0.8 * others);
    end(&s);
}

/* What a step's decisions cost, by the number of users: a hundred times as many may take a few times as long. */
static void test_decisions_stay_cheap(void **state)
{
    static const uint32_t users[] = {100, 1000, 10000};
    double ns[3];

    for (size_t i = 0; i < 3; i++) {
        struct sim s;

        begin(&s, users[i], 1000000);
        submit_all(&s);
        while (s.n_done < 100000)
            assert_true(step(&s));
        ns[i] = (double)s.plan_ns / (double)s.n_steps;
        print_message("%u users: %.2f us\n", users[i], ns[i] / 1e3);
        end(&s);
    }
    if (!getenv("RESIDENTD_SLOW"))
        return; /* times are for a machine that does nothing else */
    assert_true(ns[2] < 5 * ns[0]);
    assert_true(ns[2] < 100e3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_million_requests_of_ten_thousand),
        cmocka_unit_test(test_shares_follow_weights),
        cmocka_unit_test(test_whoever_comes_is_level_with_the_others),
        cmocka_unit_test(test_decisions_stay_cheap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
