/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Distributions are compared with probabilities that a plain implementation computes here: everything in
 * double, one full sort a step, following the order in sampler.h. Seeds are fixed, so a chi-square value is a
 * constant; its bound is the 99.99 % point.
 */
#include "engine/sample/sampler.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fault.h"

DEFINE_CLEANUP(struct sampler *, sampler_free)
DEFINE_CLEANUP(struct sampler_workspace *, sampler_workspace_free)

/* Everything off: temperature 1, the model's own distribution. */
static struct sampler_params plain(void)
{
    struct sampler_params p = sampler_params_default();

    p.temperature = 1;
    p.top_k = 0;
    p.top_p = 1;
    p.min_p = 0;
    return p;
}

static struct sampler *make(const struct sampler_params *p, uint32_t n_vocab)
{
    struct sampler *s;

    assert_int_equal(sampler_new(p, n_vocab, &s, NULL), 0);
    return s;
}

static struct sampler_workspace *work(uint32_t n_vocab)
{
    struct sampler_workspace *w;

    assert_int_equal(sampler_workspace_new(n_vocab, &w), 0);
    return w;
}

/* One pick with fresh state. */
static int32_t pick(const struct sampler_params *p, const float *logits, uint32_t n, const uint64_t *allowed)
{
    _cleanup_(sampler_freep) struct sampler *s = make(p, n);
    _cleanup_(sampler_workspace_freep) struct sampler_workspace *w = work(n);

    return sampler_pick(s, w, logits, allowed);
}

struct entry {
    double key, p;
    uint32_t id;
};

static int by_key(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    if (x->key != y->key)
        return x->key < y->key ? 1 : -1;
    return x->id < y->id ? -1 : 1;
}

static void sort(struct entry *e, uint32_t n)
{
    qsort(e, n, sizeof(*e), by_key);
}

/* p from keys that are logits; returns the entropy. */
static double normalise(struct entry *e, uint32_t n, double temperature)
{
    double sum = 0, entropy = 0, most = -INFINITY;

    for (uint32_t i = 0; i < n; i++)
        most = fmax(most, e[i].key);
    for (uint32_t i = 0; i < n; i++)
        sum += e[i].p = exp((e[i].key - most) / temperature);
    for (uint32_t i = 0; i < n; i++) {
        e[i].p /= sum;
        entropy -= e[i].p > 0 ? e[i].p * log(e[i].p) : 0;
    }
    return entropy;
}

/* The probability of each token, by the book. */
static void expected(const struct sampler_params *p, const float *logits, uint32_t n_vocab, double *ret)
{
    _cleanup_free_ struct entry *e = calloc(n_vocab, sizeof(*e));
    uint32_t n = 0, i;
    double entropy, sum;

    assert_non_null(e);
    for (i = 0; i < n_vocab; i++) {
        ret[i] = 0;
        if (logits[i] > -INFINITY)
            e[n++] = (struct entry){.key = (double)logits[i], .id = i};
    }
    sort(e, n);
    if (p->top_k > 0 && p->top_k < n)
        n = p->top_k;
    entropy = normalise(e, n, 1);
    if (p->typical_p < 1) {
        for (i = 0; i < n; i++)
            e[i].key = -fabs(-log(e[i].p) - entropy);
        sort(e, n);
        for (i = 0, sum = 0; i < n && (i == 0 || sum < (double)p->typical_p); i++)
            sum += e[i].p;
        n = i;
        for (i = 0; i < n; i++)
            e[i].key = (double)logits[e[i].id];
        sort(e, n);
        normalise(e, n, 1);
    }
    for (i = 0, sum = 0; i < n; i++) {
        if (i > 0 && ((p->top_p < 1 && sum >= (double)p->top_p) || e[i].p < (double)p->min_p * e[0].p))
            break;
        sum += e[i].p;
    }
    n = i;
    normalise(e, n, (double)p->temperature);
    for (i = 0; i < n; i++)
        ret[e[i].id] = e[i].p;
}

/* Draws @n_draws tokens; fails on one that has no probability, or when the counts don't fit. */
static void check_distribution(const struct sampler_params *params, const float *logits, uint32_t n_vocab,
                               uint32_t n_draws)
{
    _cleanup_(sampler_freep) struct sampler *s = make(params, n_vocab);
    _cleanup_(sampler_workspace_freep) struct sampler_workspace *w = work(n_vocab);
    _cleanup_free_ double *p = calloc(n_vocab, sizeof(*p));
    _cleanup_free_ uint32_t *counts = calloc(n_vocab, sizeof(*counts));
    double chi2 = 0, rest_p = 0, z;
    uint32_t n_bins = 0, rest_n = 0;

    assert_non_null(p);
    assert_non_null(counts);
    expected(params, logits, n_vocab, p);
    for (uint32_t i = 0; i < n_draws; i++) {
        int32_t token = sampler_pick(s, w, logits, NULL);

        assert_in_range(token, 0, n_vocab - 1);
        if (p[token] == 0)
            fail_msg("drew token %d, which must not be possible", token);
        counts[token]++;
        sampler_accept(s, token);
    }
    /* Tokens that are expected less than 10 times make up one bin. */
    for (uint32_t i = 0; i < n_vocab; i++) {
        double n = p[i] * n_draws;

        if (n < 10) {
            rest_p += p[i];
            rest_n += counts[i];
            continue;
        }
        chi2 += (counts[i] - n) * (counts[i] - n) / n;
        n_bins++;
    }
    if (rest_p * n_draws >= 10) {
        chi2 += (rest_n - rest_p * n_draws) * (rest_n - rest_p * n_draws) / (rest_p * n_draws);
        n_bins++;
    }
    /* Wilson and Hilferty: (chi2 / k)^(1/3) is about normal. */
    if (n_bins > 1) {
        double k = n_bins - 1;

        z = (cbrt(chi2 / k) - (1 - 2 / (9 * k))) / sqrt(2 / (9 * k));
        if (!(fabs(z) < 3.9))
            fail_msg("chi-square %g in %u bins: z = %g", chi2, n_bins, z);
    }
}

/* Logits like a model's: a few good ones and a long tail, in no order. */
static void model_like(float *logits, uint32_t n, uint32_t seed)
{
    for (uint32_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        logits[i] = -2.0f * logf((float)((seed >> 8) + 1) / 16777216.0f) - 5.0f;
    }
}

static void draws_from_the_models_distribution(void **state)
{
    float logits[5000];
    struct sampler_params p = plain();

    model_like(logits, 5000, 1);
    p.seed = 11;
    check_distribution(&p, logits, 50, 8000);
    check_distribution(&p, logits, 1, 10);
    check_distribution(&p, logits, 1023, 8000);
    check_distribution(&p, logits, 1024, 8000);
    check_distribution(&p, logits, 1025, 8000);
    check_distribution(&p, logits, 5000, 8000);
    p.temperature = 0.5f;
    check_distribution(&p, logits, 5000, 8000);
    p.temperature = 1.7f;
    check_distribution(&p, logits, 5000, 8000);
}

static void truncates_by_the_book(void **state)
{
    static const struct {
        uint32_t top_k;
        float typical_p, top_p, min_p, temperature;
    } cases[] = {
        {1, 1, 1, 0, 1},        {5, 1, 1, 0, 1},    {40, 1, 1, 0, 0.7f},      {40, 1, 0.95f, 0.05f, 0.8f},
        {4000, 1, 1, 0, 1},     {0, 1, 0.5f, 0, 1}, {0, 1, 0.9f, 0, 1.3f},    {0, 1, 0.999f, 0, 1},
        {0, 1, 0, 0, 1},        {0, 1, 1, 0.1f, 1}, {0, 1, 1, 0.0001f, 2},    {0, 1, 1, 1, 1},
        {0, 0.2f, 1, 0, 1},     {0, 0.9f, 1, 0, 1}, {100, 0.5f, 1, 0, 1},     {100, 0.5f, 0.6f, 0.01f, 0.6f},
        {0, 0.95f, 0.5f, 0, 1}, {0, 0, 1, 0, 1},    {7, 0.7f, 0.7f, 0.2f, 1}, {5000, 1, 0.8f, 0, 1},
    };
    float logits[5000];

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct sampler_params p = plain();

        p.top_k = cases[i].top_k;
        p.typical_p = cases[i].typical_p;
        p.top_p = cases[i].top_p;
        p.min_p = cases[i].min_p;
        p.temperature = cases[i].temperature;
        p.seed = i;
        model_like(logits, 5000, (uint32_t)i + 5);
        check_distribution(&p, logits, 60, 4000);
        check_distribution(&p, logits, 5000, 700);
    }
}

/* Nearly equal logits: a beginning of the sorted vocabulary has to grow several times. */
static void truncates_a_flat_distribution(void **state)
{
    float logits[700];
    struct sampler_params p = plain();

    for (uint32_t i = 0; i < 700; i++)
        logits[i] = (float)(i * 7919 % 700) * 4e-4f;
    p.top_p = 0.5f;
    check_distribution(&p, logits, 700, 3000);
    p.top_p = 1;
    p.min_p = 0.9f;
    check_distribution(&p, logits, 700, 3000);
    p.min_p = 0;
    p.typical_p = 0.3f;
    check_distribution(&p, logits, 700, 3000);
}

static void equal_logits_lose_to_lower_ids(void **state)
{
    float logits[100];
    struct sampler_params p = plain();

    for (int i = 0; i < 100; i++)
        logits[i] = 1;
    p.temperature = 0;
    assert_int_equal(pick(&p, logits, 100, NULL), 0);
    logits[70] = 2;
    logits[71] = 2;
    assert_int_equal(pick(&p, logits, 100, NULL), 70);
    logits[99] = 3;
    assert_int_equal(pick(&p, logits, 100, NULL), 99);
    logits[99] = logits[70] = logits[71] = 1;
    p.temperature = 1;
    p.top_k = 3;
    for (uint64_t seed = 0; seed < 200; seed++) {
        p.seed = seed;
        assert_in_range(pick(&p, logits, 100, NULL), 0, 2);
    }
}

static void is_defined_for_bad_logits(void **state)
{
    float logits[40];
    struct sampler_params greedy = plain(), drawn = plain(), cut = sampler_params_default(), miro = plain();
    const struct sampler_params *all[] = {&greedy, &drawn, &cut, &miro};

    greedy.temperature = 0;
    miro.mirostat = 2;
    for (size_t i = 0; i < 4; i++) {
        for (int j = 0; j < 40; j++)
            logits[j] = NAN;
        assert_int_equal(pick(all[i], logits, 40, NULL), SAMPLER_NONE);
        logits[3] = -INFINITY;
        assert_int_equal(pick(all[i], logits, 40, NULL), SAMPLER_NONE);
        logits[17] = -__FLT_MAX__;
        assert_int_equal(pick(all[i], logits, 40, NULL), 17);
        logits[20] = 5;
        assert_int_equal(pick(all[i], logits, 40, NULL), 20);
        logits[30] = INFINITY;
        assert_int_equal(pick(all[i], logits, 40, NULL), 30);
    }
    logits[31] = INFINITY;
    assert_int_equal(pick(&greedy, logits, 40, NULL), 30);
    for (uint64_t seed = 0; seed < 50; seed++) {
        drawn.seed = cut.seed = seed;
        assert_in_range(pick(&drawn, logits, 40, NULL), 30, 31);
        assert_in_range(pick(&cut, logits, 40, NULL), 30, 31);
    }
}

static void obeys_the_mask(void **state)
{
    float logits[130];
    uint64_t allowed[3] = {0};
    struct sampler_params greedy = plain(), drawn = plain(), cut = sampler_params_default();
    const struct sampler_params *all[] = {&greedy, &drawn, &cut};

    greedy.temperature = 0;
    for (int i = 0; i < 130; i++)
        logits[i] = (float)i;
    for (size_t i = 0; i < 3; i++) {
        memset(allowed, 0, sizeof(allowed));
        assert_int_equal(pick(all[i], logits, 130, allowed), SAMPLER_NONE);
        allowed[1] = 1;
        assert_int_equal(pick(all[i], logits, 130, allowed), 64);
        allowed[0] = 1;
        assert_int_equal(pick(&greedy, logits, 130, allowed), 64);
        allowed[2] = 2;
        assert_int_equal(pick(all[i], logits, 130, allowed), 129);
        /* bits behind the vocabulary mean nothing */
        allowed[2] = (uint64_t)-1 << 2;
        assert_int_equal(pick(all[i], logits, 130, allowed), 64);
    }
}

/* Masked tokens are as if their logits were -infinity, through biases, penalties and every way to choose. */
static void a_mask_is_minus_infinity(void **state)
{
    enum { N = 1000, LAST = 30 };
    struct sampler_bias biases[] = {{5, 3}, {70, -INFINITY}, {500, -2}, {999, 4}};
    struct sampler_params greedy = plain(), cut = sampler_params_default(), typical = plain(), punished = cut;
    const struct sampler_params *all[] = {&greedy, &cut, &typical, &punished};
    _cleanup_(sampler_workspace_freep) struct sampler_workspace *w = work(N);
    uint64_t allowed[(N + 63) / 64], random = 1;
    float logits[N], masked[N];
    int32_t last[LAST];

    greedy.temperature = 0;
    typical.typical_p = 0.6f;
    punished.repeat_penalty = 1.3f;
    punished.frequency_penalty = 0.2f;
    punished.biases = biases;
    punished.n_biases = 4;
    for (int round = 0; round < 100; round++) {
        for (size_t i = 0; i < sizeof(allowed) / sizeof(*allowed); i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            allowed[i] = round % 4 == 0   ? random
                         : round % 4 == 1 ? random & random >> 7 & random << 9
                         : i % 3          ? (uint64_t)-1
                                          : 0;
        }
        for (int i = 0; i < N; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            logits[i] = (float)(int32_t)(random >> 40) / (float)(1 << 21);
            masked[i] = allowed[i / 64] >> (i % 64) & 1 ? logits[i] : -INFINITY;
        }
        for (int i = 0; i < LAST; i++)
            last[i] = (int32_t)((random >> 20) + (uint64_t)i * 37) % N;
        for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
            struct sampler_params p = *all[i];
            struct sampler *a, *b;

            p.seed = (uint64_t)round;
            a = make(&p, N);
            b = make(&p, N);
            sampler_prompt(a, last, LAST);
            sampler_prompt(b, last, LAST);
            assert_int_equal(sampler_pick(a, w, logits, allowed), sampler_pick(b, w, masked, NULL));
            sampler_free(a);
            sampler_free(b);
        }
    }
}

static void biases_are_added_and_ban(void **state)
{
    const float logits[4] = {1, 2, 3, 4};
    struct sampler_bias biases[4] = {{3, -INFINITY}, {0, 2.5f}};
    struct sampler_params p = plain();

    p.temperature = 0;
    p.biases = biases;
    p.n_biases = 1;
    assert_int_equal(pick(&p, logits, 4, NULL), 2);
    p.n_biases = 2;
    assert_int_equal(pick(&p, logits, 4, NULL), 0);
    biases[2] = (struct sampler_bias){0, -1};
    biases[3] = (struct sampler_bias){3, 100};
    p.n_biases = 4;
    assert_int_equal(pick(&p, logits, 4, NULL), 2);
    for (int i = 0; i < 4; i++)
        biases[i] = (struct sampler_bias){i, -INFINITY};
    assert_int_equal(pick(&p, logits, 4, NULL), SAMPLER_NONE);
}

/* Greedy picks between a token whose logit is changed and one whose logit is the exact border. */
static void expect_penalised(const struct sampler_params *params, const int32_t *prompt, size_t n_prompt,
                             float logit, float result)
{
    struct sampler_params p = *params;
    float logits[3] = {-1000, logit, result};
    _cleanup_(sampler_freep) struct sampler *s = NULL;
    _cleanup_(sampler_workspace_freep) struct sampler_workspace *w = work(3);

    p.temperature = 0;
    s = make(&p, 3);
    sampler_prompt(s, prompt, n_prompt);
    /* equal: token 1, the lower id; a little more on token 2 decides for it */
    assert_int_equal(sampler_pick(s, w, logits, NULL), 1);
    logits[2] = nextafterf(result, INFINITY);
    assert_int_equal(sampler_pick(s, w, logits, NULL), 2);
    assert_true(logits[1] == logit);
}

static void penalties_have_exact_values(void **state)
{
    static const int32_t twice[] = {1, 0, 1, 0}, once[] = {0, 1}, never[] = {0, 0, 0};
    struct sampler_params p = plain();

    p.repeat_penalty = 2;
    expect_penalised(&p, twice, 4, 3.0f, 1.5f);
    expect_penalised(&p, twice, 4, -3.0f, -6.0f);
    expect_penalised(&p, never, 3, 3.0f, 3.0f);
    p.repeat_penalty = 0.5f;
    expect_penalised(&p, once, 2, 3.0f, 6.0f);
    p.repeat_penalty = 1;
    p.frequency_penalty = 0.25f;
    expect_penalised(&p, twice, 4, 3.0f, 2.5f);
    expect_penalised(&p, once, 2, 3.0f, 2.75f);
    p.presence_penalty = 1;
    expect_penalised(&p, twice, 4, 3.0f, 1.5f);
    expect_penalised(&p, never, 3, 3.0f, 3.0f);
    p.repeat_penalty = 2;
    expect_penalised(&p, twice, 4, 3.0f, 0.0f);
    p.frequency_penalty = -0.25f;
    expect_penalised(&p, twice, 4, 3.0f, 1.0f);
}

static void penalties_forget(void **state)
{
    const float logits[4] = {0, 3, 2.9f, -9};
    struct sampler_params p = plain();
    _cleanup_(sampler_freep) struct sampler *s = NULL;
    _cleanup_(sampler_workspace_freep) struct sampler_workspace *w = work(4);

    p.temperature = 0;
    p.presence_penalty = 1;
    p.penalty_last_n = 2;
    s = make(&p, 4);
    assert_int_equal(sampler_pick(s, w, logits, NULL), 1);
    sampler_accept(s, 1);
    assert_int_equal(sampler_pick(s, w, logits, NULL), 2);
    sampler_accept(s, 3);
    assert_int_equal(sampler_pick(s, w, logits, NULL), 2);
    sampler_accept(s, 3);
    assert_int_equal(sampler_pick(s, w, logits, NULL), 1);
    s = sampler_free(s);
    p.penalty_last_n = 0;
    s = make(&p, 4);
    sampler_accept(s, 1);
    assert_int_equal(sampler_pick(s, w, logits, NULL), 1);
}

/* Recorded once: a seed means these tokens, on every machine and in every later version. */
static void a_seed_is_a_promise(void **state)
{
    static const int32_t drawn[] = {595, 164, 173, 50, 976, 237, 284, 161};
    static const int32_t cut[] = {741, 926, 926, 642, 198, 568, 210, 605};
    float logits[1000];
    struct sampler_params p = plain();
    _cleanup_(sampler_workspace_freep) struct sampler_workspace *w = work(1000);

    for (uint32_t i = 0; i < 1000; i++)
        logits[i] = (float)(i * 7919 % 1000) * 0.0078125f;
    for (int with_cut = 0; with_cut < 2; with_cut++) {
        _cleanup_(sampler_freep) struct sampler *s = NULL;

        if (with_cut)
            p = sampler_params_default();
        p.seed = 42;
        s = make(&p, 1000);
        for (int i = 0; i < 8; i++) {
            int32_t token = sampler_pick(s, w, logits, NULL);

            assert_int_equal(token, with_cut ? cut[i] : drawn[i]);
            /* a pick that is not accepted changes nothing */
            assert_int_equal(sampler_pick(s, w, logits, NULL), token);
            sampler_accept(s, token);
        }
    }
}

static void seeds_differ(void **state)
{
    float logits[1000] = {0};
    struct sampler_params p = plain();
    uint32_t n_equal = 0;

    for (uint64_t seed = 0; seed < 200; seed++) {
        int32_t a, b;

        p.seed = seed;
        a = pick(&p, logits, 1000, NULL);
        p.seed = seed + 1;
        b = pick(&p, logits, 1000, NULL);
        n_equal += a == b;
    }
    assert_in_range(n_equal, 0, 3);
}

static void mirostat_keeps_its_surprise(void **state)
{
    float logits[2000];
    struct sampler_params p = plain();
    _cleanup_(sampler_workspace_freep) struct sampler_workspace *w = work(2000);
    _cleanup_(sampler_freep) struct sampler *s = NULL;
    double sum = 0, before = 0, entropy = 0;

    model_like(logits, 2000, 3);
    for (int i = 0; i < 2000; i++)
        logits[i] *= 0.4f;
    for (int i = 0; i < 2000; i++)
        sum += exp((double)logits[i]);
    for (int i = 0; i < 2000; i++)
        entropy -= exp((double)logits[i]) / sum * log2(exp((double)logits[i]) / sum);
    p.mirostat = 2;
    for (int round = 0; round < 3; round++) {
        double surprise = 0;

        p.mirostat_tau = 2.0f * (float)(round + 1);
        s = make(&p, 2000);
        for (int i = 0; i < 3000; i++) {
            int32_t token = sampler_pick(s, w, logits, NULL);

            assert_in_range(token, 0, 1999);
            if (i >= 1000)
                surprise -= log2(exp((double)logits[token]) / sum) / 2000;
            sampler_accept(s, token);
        }
        s = sampler_free(s);
        /*
         * Aimed at after the cut, which is less surprise than before it; the model's own would be far above.
         */
        assert_true(surprise > (double)p.mirostat_tau);
        assert_true(surprise < 0.8 * entropy);
        assert_true(surprise > before + 0.5);
        before = surprise;
    }

    p.mirostat_tau = 0; /* nothing may surprise: the likeliest, always */
    s = make(&p, 2000);
    p.mirostat = 0;
    p.temperature = 0;
    assert_int_equal(sampler_pick(s, w, logits, NULL), pick(&p, logits, 2000, NULL));
}

static void log_probabilities_are_the_models(void **state)
{
    float logits[3000], logprob;
    struct sampler_logprob top[5];
    double sum = 0;
    _cleanup_(sampler_workspace_freep) struct sampler_workspace *w = work(3000);

    model_like(logits, 3000, 9);
    logits[17] = NAN;
    logits[18] = -INFINITY;
    for (int i = 0; i < 3000; i++)
        sum += isnan(logits[i]) ? 0 : exp((double)logits[i]);
    assert_int_equal(sampler_logprobs(w, logits, 3000, 1234, 5, &logprob, top), 5);
    assert_true(fabs((double)logprob - ((double)logits[1234] - log(sum))) < 1e-5);
    for (int i = 0; i < 5; i++) {
        uint32_t n_better = 0;

        for (int j = 0; j < 3000; j++)
            n_better += logits[j] > logits[top[i].token];
        assert_int_equal(n_better, i);
        assert_true(fabs((double)top[i].logprob - ((double)logits[top[i].token] - log(sum))) < 1e-5);
    }
    assert_int_equal(sampler_logprobs(w, logits, 3000, 17, 0, &logprob, NULL), 0);
    assert_true(logprob == -INFINITY);
    assert_int_equal(sampler_logprobs(w, logits, 3000, 18, 0, &logprob, NULL), 0);
    assert_true(logprob == -INFINITY);
    logits[0] = 0;
    logits[1] = logf(3);
    assert_int_equal(sampler_logprobs(w, logits, 2, 0, 5, &logprob, top), 2);
    assert_true(fabs((double)logprob - log(0.25)) < 1e-6);
    assert_int_equal(top[0].token, 1);
    assert_true(fabs((double)top[0].logprob - log(0.75)) < 1e-6);
    logits[0] = logits[1] = NAN;
    assert_int_equal(sampler_logprobs(w, logits, 2, 0, 5, &logprob, top), 0);
    assert_true(logprob == -INFINITY);
}

static void refused(const struct sampler_params *p, const char *name)
{
    struct sampler *s = NULL;
    struct fault fault = {0};

    assert_int_equal(sampler_params_check(p, 100, &fault), -EINVAL);
    assert_int_equal(fault.kind, FAULT_INVALID_PARAMETER);
    assert_string_equal(fault.subject, name);
    assert_int_equal(sampler_new(p, 100, &s, NULL), -EINVAL);
    assert_null(s);
}

static void accepted(const struct sampler_params *p)
{
    assert_int_equal(sampler_params_check(p, 100, NULL), 0);
}

static void parameters_have_edges(void **state)
{
    static const struct {
        const char *name;
        size_t at;
        float low, high; /* the extreme values that are still accepted */
    } ranges[] = {
        {"temperature", offsetof(struct sampler_params, temperature), 0, 1000},
        {"top_p", offsetof(struct sampler_params, top_p), 0, 1},
        {"min_p", offsetof(struct sampler_params, min_p), 0, 1},
        {"typical_p", offsetof(struct sampler_params, typical_p), 0, 1},
        {"repeat_penalty", offsetof(struct sampler_params, repeat_penalty), 0.01f, 100},
        {"frequency_penalty", offsetof(struct sampler_params, frequency_penalty), -100, 100},
        {"presence_penalty", offsetof(struct sampler_params, presence_penalty), -100, 100},
        {"mirostat_tau", offsetof(struct sampler_params, mirostat_tau), 0, 100},
        {"mirostat_eta", offsetof(struct sampler_params, mirostat_eta), 0, 1},
    };

    accepted(&(struct sampler_params){.repeat_penalty = 1, .mirostat_tau = 1});
    for (size_t i = 0; i < sizeof(ranges) / sizeof(*ranges); i++) {
        struct sampler_params p = sampler_params_default();
        float *value = (float *)((char *)&p + ranges[i].at);

        accepted(&p);
        *value = ranges[i].low;
        accepted(&p);
        *value = ranges[i].high;
        accepted(&p);
        *value = nextafterf(ranges[i].high, INFINITY);
        refused(&p, ranges[i].name);
        *value = nextafterf(ranges[i].low, -INFINITY);
        refused(&p, ranges[i].name);
        *value = NAN;
        refused(&p, ranges[i].name);
        *value = INFINITY;
        refused(&p, ranges[i].name);
        *value = -INFINITY;
        refused(&p, ranges[i].name);
    }
}

static void parameters_that_are_no_ranges(void **state)
{
    struct sampler_params p = sampler_params_default();
    struct sampler_bias bias = {99, 1};

    p.penalty_last_n = SAMPLER_LAST_N_MAX;
    accepted(&p);
    p.penalty_last_n++;
    refused(&p, "penalty_last_n");
    p.penalty_last_n = 64;
    p.top_k = UINT32_MAX;
    accepted(&p);
    p.mirostat = 2;
    accepted(&p);
    p.mirostat = 1;
    refused(&p, "mirostat");
    p.mirostat = 0;
    p.biases = &bias;
    p.n_biases = 1;
    accepted(&p);
    bias.token = 100;
    refused(&p, "logit_bias");
    bias.token = -1;
    refused(&p, "logit_bias");
    bias.token = 0;
    bias.bias = NAN;
    refused(&p, "logit_bias");
    bias.bias = INFINITY;
    refused(&p, "logit_bias");
    bias.bias = -INFINITY;
    accepted(&p);
    p.n_biases = SAMPLER_BIASES_MAX + 1;
    refused(&p, "logit_bias");
}

/* What a GPU hands over: the @n largest, sorted, ties by id, NaN behind them. */
static void top_of(const float *logits, uint32_t n_vocab, uint32_t n, uint32_t *ids, float *top)
{
    struct entry e[1000];

    for (uint32_t i = 0; i < n_vocab; i++)
        e[i] = (struct entry){.key = isnan(logits[i]) ? -INFINITY : (double)logits[i], .id = i};
    sort(e, n_vocab);
    for (uint32_t i = 0; i < n; i++) {
        ids[i] = e[i].id;
        top[i] = logits[e[i].id];
    }
}

/* Sequences picked from the largest logits alone are those that were picked from all of them. */
static void the_largest_are_enough(void **state)
{
    enum { VOCAB = 1000, PICKS = 40, CASES = 300, TOP = 64 };
    _cleanup_(sampler_workspace_freep) struct sampler_workspace *w = work(VOCAB);
    uint32_t ids[TOP], state32 = 1;
    float logits[VOCAB], top[TOP];

    for (uint32_t i = 0; i < CASES; i++) {
        struct sampler_params p = plain();
        _cleanup_(sampler_freep) struct sampler *all = NULL, *some = NULL;

        p.seed = i;
        p.temperature = i % 4 == 0 ? 0 : 0.3f * (float)(i % 7 + 1);
        p.top_k = 1 + i * 5 % TOP;
        p.top_p = i % 3 == 0 ? 1 : 0.5f;
        p.min_p = i % 5 == 0 ? 0.1f : 0;
        p.typical_p = i % 6 == 0 ? 0.7f : 1;
        all = make(&p, VOCAB);
        some = make(&p, VOCAB);
        assert_int_equal(sampler_n_top(some), p.temperature == 0 ? 1 : p.top_k);
        for (uint32_t k = 0; k < PICKS; k++) {
            int32_t expected;

            for (uint32_t v = 0; v < VOCAB; v++) {
                state32 = state32 * 1664525u + 1013904223u;
                logits[v] = (float)(state32 >> 16 & 0xFF) / 16.0f; /* ties */
                if (i % 8 == 1 && state32 >> 28 > 0)
                    logits[v] = state32 >> 28 > 8 ? NAN : -INFINITY; /* fewer than k that are possible */
                if (i % 8 == 2 && state32 >> 27 == 3)
                    logits[v] = INFINITY;
                if (i % 8 == 3)
                    logits[v] = -INFINITY;
            }
            top_of(logits, VOCAB, TOP, ids, top);
            expected = sampler_pick(all, w, logits, NULL);
            assert_int_equal(sampler_pick_top(some, w, ids, top, TOP), expected);
            if (expected == SAMPLER_NONE)
                break;
            sampler_accept(all, expected);
            sampler_accept(some, expected);
        }
    }
}

static void the_largest_are_not_enough_for(void **state)
{
    const struct sampler_bias bias = {.token = 3, .bias = 1};
    const struct {
        struct sampler_params p;
        uint32_t n_top;
    } cases[] = {
        {{.temperature = 1, .top_k = 40, .typical_p = 1, .repeat_penalty = 1, .top_p = 1}, 40},
        {{.temperature = 1, .top_k = 0, .typical_p = 1, .repeat_penalty = 1, .top_p = 0.9f}, 0},
        {{.temperature = 1, .top_k = 100, .typical_p = 1, .repeat_penalty = 1, .top_p = 1}, 0}, /* no limit here */
        {{.temperature = 0, .top_k = 0, .typical_p = 1, .repeat_penalty = 1, .top_p = 1}, 1},
        {{.temperature = 0, .typical_p = 1, .repeat_penalty = 1.1f, .penalty_last_n = 64, .top_p = 1}, 0},
        {{.temperature = 0, .typical_p = 1, .repeat_penalty = 1.1f, .penalty_last_n = 0, .top_p = 1}, 1},
        {{.temperature = 0, .typical_p = 1, .repeat_penalty = 1, .presence_penalty = 1, .penalty_last_n = 1, .top_p = 1}, 0},
        {{.temperature = 0, .typical_p = 1, .repeat_penalty = 1, .frequency_penalty = 1, .penalty_last_n = 1, .top_p = 1}, 0},
        {{.temperature = 1, .top_k = 4, .typical_p = 1, .repeat_penalty = 1, .top_p = 1, .mirostat = 2}, 0},
        {{.temperature = 1, .top_k = 4, .typical_p = 1, .repeat_penalty = 1, .top_p = 1, .biases = &bias, .n_biases = 1}, 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        _cleanup_(sampler_freep) struct sampler *s = make(&cases[i].p, 100);

        assert_int_equal(sampler_n_top(s), cases[i].n_top);
    }
}

static void a_workspace_needs_a_vocabulary(void **state)
{
    struct sampler_workspace *w = NULL;

    assert_int_equal(sampler_workspace_new(0, &w), -EINVAL);
    assert_null(w);
    assert_null(sampler_workspace_free(NULL));
    assert_null(sampler_free(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_from_the_models_distribution),
        cmocka_unit_test(truncates_by_the_book),
        cmocka_unit_test(truncates_a_flat_distribution),
        cmocka_unit_test(equal_logits_lose_to_lower_ids),
        cmocka_unit_test(is_defined_for_bad_logits),
        cmocka_unit_test(obeys_the_mask),
        cmocka_unit_test(a_mask_is_minus_infinity),
        cmocka_unit_test(biases_are_added_and_ban),
        cmocka_unit_test(penalties_have_exact_values),
        cmocka_unit_test(penalties_forget),
        cmocka_unit_test(a_seed_is_a_promise),
        cmocka_unit_test(seeds_differ),
        cmocka_unit_test(mirostat_keeps_its_surprise),
        cmocka_unit_test(log_probabilities_are_the_models),
        cmocka_unit_test(parameters_have_edges),
        cmocka_unit_test(parameters_that_are_no_ranges),
        cmocka_unit_test(a_workspace_needs_a_vocabulary),
        cmocka_unit_test(the_largest_are_enough),
        cmocka_unit_test(the_largest_are_not_enough_for),
    };

    return cmocka_run_group_tests_name("sample/sampler", tests, NULL, NULL);
}
