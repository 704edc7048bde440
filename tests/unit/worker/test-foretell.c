/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What those who wait are told, beside what then happens: on a simulated clock, with several kinds of load.
 */
#include "engine/sched/batch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define MS           UINT64_C(1000000)
#define STEP_BASE_NS (20 * MS)
#define TOKEN_NS     (MS / 2)
#define REPORT_NS    (2000 * MS)
#define BETWEEN_NS   (4 * MS) /* on a machine that others want */

enum { SEQUENCES = 4, JOBS_MAX = 4000, TOLD_MAX = 200 };

struct job {
    struct batch_request r;
    bool in;
    uint32_t tenant, n_output_left;
    uint32_t n_told;
    struct {
        uint64_t at_ns;
        int64_t eta_ms;
    } told[TOLD_MAX];
};

struct sim {
    struct batch *b;
    struct job *jobs; /* [n_jobs] of [JOBS_MAX] */
    uint32_t n_jobs, n_in;
    uint64_t now_ns, told_ns, random;
    uint64_t others_ns;     /* since when the others want what they want */
    uint32_t others;        /* how many times as long everything takes because of them, in parts of 4 */
    uint32_t n_predictions, n_within_two, n_unknown;
};

/* A load: who sends what. Tenants keep some requests going until the end. */
struct load {
    const char *name;
    uint32_t n_tenants, n_each; /* at the same time */
    uint32_t n_prompt_max, n_more_max;
    uint32_t percent_said;      /* of what may be said; 0: all of any part */
    uint32_t heavy;             /* more of tenant 0 than of the others */
    bool busy_machine;          /* others want its processors, too, now more and now less */
};

static uint32_t random_next(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

static void submit(struct sim *s, const struct load *l, uint32_t tenant)
{
    struct job *j = &s->jobs[s->n_jobs++];
    uint32_t n_more = l->n_more_max / 2 + random_next(&s->random) % (l->n_more_max / 2);

    assert_true(s->n_jobs <= JOBS_MAX);
    j->tenant = tenant;
    j->in = true;
    j->n_output_left =
        1 + (l->percent_said > 0 ? n_more * l->percent_said / 100 : random_next(&s->random) % n_more);
    assert_int_equal(batch_submit(s->b, &j->r, tenant, 0, 1 + random_next(&s->random) % l->n_prompt_max, s->now_ns),
                     0);
    j->r.n_more_max = n_more;
    s->n_in++;
}

static struct job *of_request(struct batch_request *r)
{
    return (struct job *)(void *)((char *)r - offsetof(struct job, r));
}

static void tell(struct sim *s)
{
    static struct batch_position p[JOBS_MAX];
    size_t n = batch_positions(s->b, p);

    for (size_t i = 0; i < n; i++) {
        struct job *j = of_request(p[i].request);

        assert_int_equal(p[i].position, i + 1);
        if (j->n_told < TOLD_MAX) {
            j->told[j->n_told].at_ns = s->now_ns;
            j->told[j->n_told++].eta_ms = p[i].eta_ms;
        }
    }
}

/* Its first token is there: how good was what it was told? What passes within a second needs no foretelling. */
static void judge(struct sim *s, const struct job *j)
{
    for (uint32_t i = 0; i < j->n_told; i++) {
        double waited_ms = (double)(s->now_ns - j->told[i].at_ns) / 1e6, eta_ms = (double)j->told[i].eta_ms;

        if (eta_ms < 0) {
            s->n_unknown++;
            continue;
        }
        s->n_predictions++;
        s->n_within_two +=
            (waited_ms < 1000 && eta_ms < 2000) || (eta_ms <= 2 * waited_ms && waited_ms <= 2 * eta_ms);
    }
}

/* Somebody compiles something, for a second or for half a minute, and is done. What a step takes is seen; what the
 * scheduler's own thread waits between two steps nobody tells it. */
static uint64_t slowed(struct sim *s, const struct load *l, uint64_t ns)
{
    if (!l->busy_machine)
        return ns;
    if (s->now_ns >= s->others_ns) {
        static const uint32_t times[] = {4, 4, 5, 8, 10, 14};

        s->others = times[random_next(&s->random) % 6];
        s->others_ns = s->now_ns + (500 + random_next(&s->random) % 8000) * MS;
    }
    return ns * s->others / 4 * (75 + random_next(&s->random) % 50) / 100;
}

static void step(struct sim *s, const struct load *l)
{
    const struct batch_plan *plan = batch_plan(s->b, s->now_ns);
    struct job *sampled[SEQUENCES];
    size_t n_sampled = 0;
    uint64_t step_ns = STEP_BASE_NS + plan->n_tokens * TOKEN_NS;

    assert_true(plan->n_slices > 0);
    for (size_t i = 0; i < plan->n_slices; i++)
        if (plan->slices[i].wants_logits)
            sampled[n_sampled++] = of_request(plan->slices[i].request);
    step_ns = slowed(s, l, step_ns);
    s->now_ns += step_ns;
    batch_step_done(s->b, step_ns);
    s->now_ns += l->busy_machine ? slowed(s, l, BETWEEN_NS) : 0;
    for (size_t i = 0; i < n_sampled; i++) {
        struct job *j = sampled[i];

        if (j->r.n_tokens == j->r.n_submitted)
            judge(s, j);
        batch_append(&j->r);
        if (--j->n_output_left > 0)
            continue;
        batch_remove(s->b, &j->r, s->now_ns);
        j->in = false;
        s->n_in--;
    }
}

static void check(const struct load *l, double least)
{
    static const struct batch_config config = {
        .sequences_max = SEQUENCES,
        .parked_max = 3 * SEQUENCES,
        .step_tokens_max = 512,
        .page_tokens = 32,
        .pages_total = SEQUENCES * 4096 / 32,
        .step_ns_max = 250 * MS,
        .step_alone_ns_max = 500 * MS,
        .quantum_ns = 500 * MS,
    };
    struct sim s = {.random = 1};
    uint32_t n_have[64];

    s.jobs = calloc(JOBS_MAX, sizeof(*s.jobs));
    assert_non_null(s.jobs);
    assert_int_equal(batch_new(&config, &s.b), 0);
    while (s.n_jobs < JOBS_MAX - 200 && s.now_ns < 2000 * 1000 * MS) {
        memset(n_have, 0, sizeof(n_have));
        for (uint32_t i = 0; i < s.n_jobs; i++)
            n_have[s.jobs[i].tenant] += s.jobs[i].in;
        for (uint32_t t = 0; t < l->n_tenants; t++)
            for (uint32_t n = n_have[t]; n < (t == 0 && l->heavy ? l->heavy : l->n_each); n++)
                submit(&s, l, t);
        if (s.now_ns - s.told_ns >= REPORT_NS) {
            s.told_ns = s.now_ns;
            tell(&s);
        }
        step(&s, l);
    }
    while (s.n_in > 0)
        step(&s, l);
    print_message("%s: %u of %u within a factor of two (%.1f %%), %u unknown\n", l->name, s.n_within_two,
                  s.n_predictions, 100.0 * s.n_within_two / s.n_predictions, s.n_unknown);
    assert_true(s.n_predictions > 100);
    assert_true(s.n_within_two >= least * s.n_predictions);
    batch_free(s.b);
    free(s.jobs);
}

static void test_one_user_with_many(void **state)
{
    check(&(struct load){.name = "one user", .n_tenants = 1, .n_each = 24, .n_prompt_max = 200, .n_more_max = 200,
                         .percent_said = 100},
          0.9);
}

static void test_answers_of_any_length(void **state)
{
    check(&(struct load){.name = "any length", .n_tenants = 1, .n_each = 24, .n_prompt_max = 200, .n_more_max = 300},
          0.9);
}

static void test_many_users(void **state)
{
    check(&(struct load){.name = "ten users", .n_tenants = 10, .n_each = 1, .n_prompt_max = 200, .n_more_max = 200,
                         .percent_said = 60},
          0.9);
    check(&(struct load){.name = "ten users, three each", .n_tenants = 10, .n_each = 3, .n_prompt_max = 200,
                         .n_more_max = 200, .percent_said = 60},
          0.9);
}

static void test_one_floods(void **state)
{
    check(&(struct load){.name = "a flood", .n_tenants = 4, .n_each = 1, .heavy = 32, .n_prompt_max = 200,
                         .n_more_max = 200, .percent_said = 80},
          0.9);
}

static void test_long_prompts(void **state)
{
    check(&(struct load){.name = "long prompts", .n_tenants = 3, .n_each = 5, .n_prompt_max = 3000, .n_more_max = 100,
                         .percent_said = 80},
          0.9);
}

/* Others slow everything down, up to three and a half times, for seconds at a time. */
static void test_a_busy_machine(void **state)
{
    check(&(struct load){.name = "one user, busy", .n_tenants = 1, .n_each = 24, .n_prompt_max = 200, .n_more_max = 200,
                         .percent_said = 100, .busy_machine = true},
          0.96);
    check(&(struct load){.name = "ten users, busy", .n_tenants = 10, .n_each = 1, .n_prompt_max = 200, .n_more_max = 200,
                         .percent_said = 60, .busy_machine = true},
          0.93);
    check(&(struct load){.name = "a flood, busy", .n_tenants = 4, .n_each = 1, .heavy = 32, .n_prompt_max = 200,
                         .n_more_max = 200, .percent_said = 80, .busy_machine = true},
          0.94);
    /* Few wait, for a second or two: how much somebody will say and how fast that is are both luck. */
    check(&(struct load){.name = "short waits, busy", .n_tenants = 1, .n_each = 12, .n_prompt_max = 200,
                         .n_more_max = 300, .busy_machine = true},
          0.78);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_user_with_many), cmocka_unit_test(test_answers_of_any_length),
        cmocka_unit_test(test_many_users),         cmocka_unit_test(test_one_floods),
        cmocka_unit_test(test_long_prompts),       cmocka_unit_test(test_a_busy_machine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
