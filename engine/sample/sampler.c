/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The steps that sampler.h lists. Logits are copied only when something changes them (mask, bias, penalties).
 * Truncation works on a sorted beginning of the vocabulary: 64 tokens at first, four times as many when the
 * step could not be decided by those, so that a peaked distribution costs one scan and a flat one still comes
 * out right.
 */
#include "engine/sample/sampler.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "engine/sample/candidates.h"
#include "engine/sample/probability.h"

enum { FIRST_CANDIDATES = 64 };

struct sampler {
    struct sampler_params params;
    struct sampler_bias *biases;
    uint32_t n_vocab;
    int32_t *last; /* ring of penalty_last_n tokens */
    uint32_t n_last, i_last;
    uint64_t n_accepted;
    double mu;      /* mirostat: largest surprise that is let through, in bits */
    int32_t picked; /* the last pick and what it surprised; mirostat learns from it when it is accepted */
    double surprise;
};

struct sampler_workspace {
    uint32_t n_vocab;
    float *logits;          /* [n_vocab]: changed logits; with a mask the allowed ones alone */
    int32_t *ids;           /* [n_vocab]: which tokens those are */
    uint32_t *before;       /* [n_vocab / 64 + 1]: how many of them come before a word of the mask */
    float *keys;            /* [n_vocab] */
    uint32_t *counts;       /* [n_vocab]: zero between calls */
    struct candidate *list; /* [n_vocab] */
    double *chunks;         /* one per PROBABILITY_CHUNK tokens */
};

/* What is left at some point of a pick. */
struct choice {
    struct sampler_workspace *w;
    const float *logits;
    uint32_t n_vocab;
    float most;       /* the largest logit */
    uint32_t n;       /* candidates in w->list, sorted by logit */
    uint32_t n_limit; /* as many as there may be: top_k or the vocabulary */
    bool is_complete; /* list holds all that there are */
};

DEFINE_CLEANUP(struct sampler *, sampler_free)
DEFINE_CLEANUP(struct sampler_workspace *, sampler_workspace_free)

struct sampler_params sampler_params_default(void)
{
    return (struct sampler_params){
        .temperature = 0.8f,
        .top_k = 40,
        .top_p = 0.95f,
        .min_p = 0.05f,
        .typical_p = 1,
        .repeat_penalty = 1,
        .penalty_last_n = 64,
        .mirostat_tau = 5,
        .mirostat_eta = 0.1f,
    };
}

static int check_range(const char *name, float value, float low, float high, struct fault *reterr)
{
    if (value >= low && value <= high) /* NaN is neither */
        return 0;
    fault_set(reterr, FAULT_INVALID_PARAMETER, name, "expected a number from %g to %g", (double)low,
              (double)high);
    return -EINVAL;
}

static int check_biases(const struct sampler_params *p, uint32_t n_vocab, struct fault *reterr)
{
    if (p->n_biases > SAMPLER_BIASES_MAX) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, "logit_bias", "expected at most %d tokens",
                  SAMPLER_BIASES_MAX);
        return -EINVAL;
    }
    for (size_t i = 0; i < p->n_biases; i++) {
        const struct sampler_bias *b = &p->biases[i];

        if (b->token < 0 || (uint32_t)b->token >= n_vocab) {
            fault_set(reterr, FAULT_INVALID_PARAMETER, "logit_bias", "no token %d: the vocabulary has %u",
                      b->token, n_vocab);
            return -EINVAL;
        }
        if (isnan(b->bias) || b->bias == INFINITY) {
            fault_set(reterr, FAULT_INVALID_PARAMETER, "logit_bias",
                      "expected a number or -infinity for token %d", b->token);
            return -EINVAL;
        }
    }
    return 0;
}

int sampler_params_check(const struct sampler_params *p, uint32_t n_vocab, struct fault *reterr)
{
    const struct {
        const char *name;
        float value, low, high;
    } ranges[] = {
        {"temperature", p->temperature, 0, 1000},
        {"top_p", p->top_p, 0, 1},
        {"min_p", p->min_p, 0, 1},
        {"typical_p", p->typical_p, 0, 1},
        {"repeat_penalty", p->repeat_penalty, 0.01f, 100},
        {"frequency_penalty", p->frequency_penalty, -100, 100},
        {"presence_penalty", p->presence_penalty, -100, 100},
        {"penalty_last_n", (float)p->penalty_last_n, 0, SAMPLER_LAST_N_MAX},
        {"mirostat_tau", p->mirostat_tau, 0, 100},
        {"mirostat_eta", p->mirostat_eta, 0, 1},
    };

    for (size_t i = 0; i < sizeof(ranges) / sizeof(*ranges); i++) {
        int r = check_range(ranges[i].name, ranges[i].value, ranges[i].low, ranges[i].high, reterr);

        if (r < 0)
            return r;
    }
    if (p->mirostat != 0 && p->mirostat != 2) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, "mirostat", "expected 0 or 2");
        return -EINVAL;
    }
    return check_biases(p, n_vocab, reterr);
}

int sampler_new(const struct sampler_params *params, uint32_t n_vocab, struct sampler **ret,
                struct fault *reterr)
{
    _cleanup_(sampler_freep) struct sampler *s = NULL;
    int r = sampler_params_check(params, n_vocab, reterr);

    if (r < 0)
        return r;
    s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->params = *params;
    s->n_vocab = n_vocab;
    s->picked = SAMPLER_NONE;
    s->mu = 2.0 * (double)params->mirostat_tau;
    s->last = calloc((size_t)params->penalty_last_n + 1, sizeof(*s->last));
    s->biases = calloc(params->n_biases + 1, sizeof(*s->biases));
    if (!s->last || !s->biases)
        return -ENOMEM;
    if (params->n_biases > 0)
        memcpy(s->biases, params->biases, params->n_biases * sizeof(*s->biases));
    s->params.biases = s->biases;
    *ret = TAKE_PTR(s);
    return 0;
}

struct sampler *sampler_free(struct sampler *s)
{
    if (!s)
        return NULL;
    free(s->last);
    free(s->biases);
    free(s);
    return NULL;
}

int sampler_workspace_new(uint32_t n_vocab, struct sampler_workspace **ret)
{
    _cleanup_(sampler_workspace_freep) struct sampler_workspace *w = NULL;

    if (n_vocab == 0 || n_vocab > INT32_MAX)
        return -EINVAL;
    w = calloc(1, sizeof(*w));
    if (!w)
        return -ENOMEM;
    w->n_vocab = n_vocab;
    w->logits = calloc(n_vocab, sizeof(*w->logits));
    w->ids = calloc(n_vocab, sizeof(*w->ids));
    w->before = calloc(n_vocab / 64 + 1, sizeof(*w->before));
    w->keys = calloc(n_vocab, sizeof(*w->keys));
    w->counts = calloc(n_vocab, sizeof(*w->counts));
    w->list = calloc(n_vocab, sizeof(*w->list));
    w->chunks = calloc(n_vocab / PROBABILITY_CHUNK + 1, sizeof(*w->chunks));
    if (!w->logits || !w->ids || !w->before || !w->keys || !w->counts || !w->list || !w->chunks)
        return -ENOMEM;
    *ret = TAKE_PTR(w);
    return 0;
}

struct sampler_workspace *sampler_workspace_free(struct sampler_workspace *w)
{
    if (!w)
        return NULL;
    free(w->logits);
    free(w->ids);
    free(w->before);
    free(w->keys);
    free(w->counts);
    free(w->list);
    free(w->chunks);
    free(w);
    return NULL;
}

void sampler_workspace_wipe(struct sampler_workspace *w)
{
    explicit_bzero(w->logits, w->n_vocab * sizeof(*w->logits));
    explicit_bzero(w->ids, w->n_vocab * sizeof(*w->ids));
    explicit_bzero(w->before, (w->n_vocab / 64 + 1) * sizeof(*w->before));
    explicit_bzero(w->keys, w->n_vocab * sizeof(*w->keys));
    explicit_bzero(w->list, w->n_vocab * sizeof(*w->list));
    explicit_bzero(w->chunks, (w->n_vocab / PROBABILITY_CHUNK + 1) * sizeof(*w->chunks));
}

static void remember(struct sampler *s, int32_t token)
{
    uint32_t n_max = s->params.penalty_last_n;

    if (n_max == 0 || token < 0 || (uint32_t)token >= s->n_vocab)
        return;
    s->last[s->i_last] = token;
    s->i_last = (s->i_last + 1) % n_max;
    if (s->n_last < n_max)
        s->n_last++;
}

void sampler_prompt(struct sampler *s, const int32_t *tokens, size_t n_tokens)
{
    for (size_t i = 0; i < n_tokens; i++)
        remember(s, tokens[i]);
}

void sampler_accept(struct sampler *s, int32_t token)
{
    remember(s, token);
    s->n_accepted++;
    if (s->params.mirostat == 2 && token == s->picked && token != SAMPLER_NONE)
        s->mu -= (double)s->params.mirostat_eta * (s->surprise - (double)s->params.mirostat_tau);
    s->picked = SAMPLER_NONE;
}

/* SplitMix64 (Steele, Lea, Flood 2014): its state is a counter, so any element can be computed by itself. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* In [0, 1). */
static double random_of(const struct sampler *s)
{
    uint64_t z = mix(mix(s->params.seed) + (s->n_accepted + 1) * 0x9E3779B97F4A7C15u);

    return (double)(z >> 11) * 0x1p-53;
}

static bool has_penalties(const struct sampler *s)
{
    const struct sampler_params *p = &s->params;

    return s->n_last > 0 && (p->repeat_penalty != 1 || p->frequency_penalty != 0 || p->presence_penalty != 0);
}

/* Where the logit of a token is: with a mask only the allowed ones are there, one after the other. NULL:
 * nowhere. */
static float *logit_of(struct sampler_workspace *w, int32_t token, const uint64_t *allowed)
{
    uint32_t at = (uint32_t)token / 64, bit = (uint32_t)token % 64;

    if (!allowed)
        return &w->logits[token];
    if (!(allowed[at] >> bit & 1))
        return NULL;
    return &w->logits[w->before[at] +
                      (uint32_t)__builtin_popcountll(allowed[at] & ((UINT64_C(1) << bit) - 1))];
}

static void penalise(const struct sampler *s, struct sampler_workspace *w, const uint64_t *allowed)
{
    const struct sampler_params *p = &s->params;

    for (uint32_t i = 0; i < s->n_last; i++)
        w->counts[s->last[i]]++;
    for (uint32_t i = 0; i < s->n_last; i++) {
        uint32_t *count = &w->counts[s->last[i]];
        float *logit = logit_of(w, s->last[i], allowed);

        if (*count == 0 || !logit || *logit == -INFINITY) {
            *count = 0;
            continue;
        }
        *logit = *logit > 0 ? *logit / p->repeat_penalty : *logit * p->repeat_penalty;
        *logit -= (float)*count * p->frequency_penalty + p->presence_penalty;
        *logit = probability_clean(*logit);
        *count = 0;
    }
}

static void copy_clean(float *to, const float *from, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        to[i] = probability_clean(from[i]);
}

/*
 * Only the allowed logits are copied, and everything that follows looks at those alone: a mask of a few
 * tokens makes a pick cheaper than no mask. Most words of a mask are all or nothing. Returns how many there
 * are.
 */
static uint32_t gather(struct sampler_workspace *w, const float *from, uint32_t n_vocab,
                       const uint64_t *allowed)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < n_vocab; i += 64) {
        uint64_t word = allowed[i / 64];

        if (n_vocab - i < 64)
            word &= (UINT64_C(1) << (n_vocab - i)) - 1;
        w->before[i / 64] = n;
        if (word == (uint64_t)-1) {
            copy_clean(w->logits + n, from + i, 64);
            for (uint32_t j = 0; j < 64; j++)
                w->ids[n + j] = (int32_t)(i + j);
            n += 64;
            continue;
        }
        for (; word; word &= word - 1) {
            uint32_t token = i + (uint32_t)__builtin_ctzll(word);

            w->ids[n] = (int32_t)token;
            w->logits[n++] = probability_clean(from[token]);
        }
    }
    return n;
}

/* Steps 1 to 3. Returns the logits to go on with: the caller's, if nothing had to be changed. *ret_n of them.
 */
static const float *adjust(const struct sampler *s, struct sampler_workspace *w, const float *logits,
                           const uint64_t *allowed, uint32_t *ret_n)
{
    *ret_n = s->n_vocab;
    if (!allowed && s->params.n_biases == 0 && !has_penalties(s))
        return logits;
    if (allowed)
        *ret_n = gather(w, logits, s->n_vocab, allowed);
    else
        copy_clean(w->logits, logits, s->n_vocab);
    for (size_t i = 0; i < s->params.n_biases; i++) {
        float *logit = logit_of(w, s->biases[i].token, allowed);

        if (logit)
            *logit = probability_clean(*logit + s->biases[i].bias);
    }
    if (has_penalties(s))
        penalise(s, w, allowed);
    return w->logits;
}

/* Makes the list hold at least @n candidates, if there are as many. */
static void extend(struct choice *c, uint32_t n)
{
    if (n >= c->n_limit)
        n = c->n_limit;
    if (c->is_complete || n <= c->n)
        return;
    c->n = candidates_top(c->logits, c->n_vocab, n, c->w->list);
    c->is_complete = c->n < n || n == c->n_limit;
}

/* Enlarges the list; false when it is complete already. */
static bool extend_more(struct choice *c)
{
    if (c->is_complete)
        return false;
    extend(c, c->n < UINT32_MAX / 4 ? c->n * 4 : UINT32_MAX);
    return true;
}

/* p of list[from ... n) relative to the likeliest, at @temperature. */
static void weigh(struct choice *c, uint32_t from, float temperature)
{
    for (uint32_t i = from; i < c->n; i++)
        c->w->list[i].p = probability_exp((probability_clean(c->w->list[i].key) - c->most) / temperature);
}

static double list_sum(const struct choice *c)
{
    double sum = 0;

    for (uint32_t i = 0; i < c->n; i++)
        sum += (double)c->w->list[i].p;
    return sum;
}

/* The list gets back its logits, order and weights after it was ordered by something else. */
static void restore(struct choice *c)
{
    struct candidate *list = c->w->list;

    for (uint32_t i = 0; i < c->n; i++)
        list[i].key = c->logits[list[i].id];
    candidates_sort(list, c->n);
    c->most = probability_clean(list[0].key);
    weigh(c, 0, 1);
    c->is_complete = true;
}

static float typical_key(const struct choice *c, float logit, double entropy, double log_total)
{
    return logit > -INFINITY ? -(float)fabs((double)(c->most - logit) + log_total - entropy) : -INFINITY;
}

/* Step 7 after top_k: the list is all there is. */
static void typical_of_list(struct choice *c, float typical_p)
{
    struct candidate *list = c->w->list;
    double total, distance = 0, log_total, sum = 0;
    uint32_t n = 0;

    weigh(c, 0, 1);
    total = list_sum(c);
    log_total = probability_log(total);
    for (uint32_t i = 0; i < c->n; i++)
        if (list[i].p > 0)
            distance += (double)list[i].p * (double)(c->most - probability_clean(list[i].key));
    for (uint32_t i = 0; i < c->n; i++)
        list[i].key = typical_key(c, probability_clean(list[i].key), distance / total + log_total, log_total);
    candidates_sort(list, c->n);
    while (n < c->n) {
        sum += (double)list[n++].p;
        if (sum >= (double)typical_p * total)
            break;
    }
    c->n = n;
    restore(c);
}

/* Step 7 of the whole vocabulary: the same, on a beginning of it that grows until it holds enough. */
static void typical_of_all(struct choice *c, float typical_p)
{
    double total = probability_sum(c->logits, c->n_vocab, c->most, 1, NULL),
           log_total = probability_log(total);
    double entropy = probability_mean_distance(c->logits, c->n_vocab, c->most) / total + log_total;

    for (uint32_t i = 0; i < c->n_vocab; i++)
        c->w->keys[i] = typical_key(c, probability_clean(c->logits[i]), entropy, log_total);
    for (uint32_t n_wanted = FIRST_CANDIDATES;;
         n_wanted = n_wanted < UINT32_MAX / 4 ? n_wanted * 4 : UINT32_MAX) {
        uint32_t n_have =
            candidates_top(c->w->keys, c->n_vocab, n_wanted < c->n_vocab ? n_wanted : c->n_vocab, c->w->list);
        double sum = 0;

        for (c->n = 0; c->n < n_have && (c->n == 0 || sum < (double)typical_p * total); c->n++) {
            float logit = probability_clean(c->logits[c->w->list[c->n].id]);

            sum += (double)probability_exp(logit - c->most);
        }
        if (c->n < n_have || n_wanted >= c->n_vocab || sum >= (double)typical_p * total)
            break;
    }
    restore(c);
}

/*
 * Steps 8 and 9: how long a beginning of the list stays. @total is the sum over all candidates, listed or
 * not.
 */
static void cut(struct choice *c, double total, float top_p, float min_p)
{
    double sum = 0;
    uint32_t i = 0;

    for (;;) {
        for (; i < c->n; i++) {
            float p = c->w->list[i].p;

            if (i > 0 && ((top_p < 1 && sum >= (double)top_p * total) || p < min_p)) {
                c->n = i;
                return;
            }
            sum += (double)p;
        }
        if (!extend_more(c))
            return;
        weigh(c, i, 1);
    }
}

/* Draws from the list at @u in [0, 1), weighted by p. */
static uint32_t draw(const struct choice *c, double u)
{
    double left = u * list_sum(c);
    uint32_t last = 0;

    for (uint32_t i = 0; i < c->n; i++) {
        if (c->w->list[i].p == 0)
            continue;
        last = i;
        left -= (double)c->w->list[i].p;
        if (left < 0)
            break;
    }
    return last;
}

/* Nothing is cut: draw from the whole vocabulary without sorting it, first the chunk, then the token. */
static int32_t draw_from_all(const struct choice *c, double u, float temperature)
{
    double total = probability_sum(c->logits, c->n_vocab, c->most, temperature, c->w->chunks);
    double left = u * total;
    uint32_t n_chunks = (c->n_vocab + PROBABILITY_CHUNK - 1) / PROBABILITY_CHUNK, chunk = 0, end;
    int32_t last = SAMPLER_NONE;

    for (uint32_t i = 0; i < n_chunks; i++) {
        if (c->w->chunks[i] == 0)
            continue;
        chunk = i;
        if (left < c->w->chunks[i])
            break;
        left -= c->w->chunks[i];
    }
    end = (chunk + 1) * PROBABILITY_CHUNK;
    for (uint32_t i = chunk * PROBABILITY_CHUNK; i < end && i < c->n_vocab; i++) {
        float p = probability_exp((probability_clean(c->logits[i]) - c->most) / temperature);

        if (p == 0)
            continue;
        last = (int32_t)i;
        left -= (double)p;
        if (left < 0)
            break;
    }
    return last;
}

/* Step 5. Surprise is measured after the cut, as other engines do it. */
static int32_t mirostat(struct sampler *s, struct choice *c)
{
    const double ln2 = 0.6931471805599453;
    float temperature = s->params.temperature;
    double total = probability_sum(c->logits, c->n_vocab, c->most, temperature, NULL);
    double log_total = probability_log(total);
    uint32_t i = 1;

    extend(c, FIRST_CANDIDATES);
    for (;;) {
        const struct candidate *list = c->w->list;

        while (i < c->n && ((double)((c->most - probability_clean(list[i].key)) / temperature) + log_total) <=
                               s->mu * ln2)
            i++;
        if (i < c->n || !extend_more(c))
            break;
    }
    c->n = i < c->n ? i : c->n;
    weigh(c, 0, temperature);
    i = draw(c, random_of(s));
    s->surprise = (probability_log(list_sum(c)) - probability_log((double)c->w->list[i].p)) / ln2;
    return c->w->list[i].id;
}

/* Steps 4 to 10: an index into the logits that are left. @has_top_k: top_k has something to do, or has done it. */
static int32_t choose(struct sampler *s, struct sampler_workspace *w, const float *logits, uint32_t n, bool has_top_k)
{
    const struct sampler_params *p = &s->params;
    struct choice c = {.w = w, .logits = logits, .n_vocab = n, .n_limit = has_top_k ? p->top_k : n};
    double total;

    if (p->temperature == 0)
        return candidates_best(c.logits, c.n_vocab);
    c.most = probability_max(c.logits, c.n_vocab);
    if (c.most == -INFINITY)
        return SAMPLER_NONE;
    if (p->mirostat == 2) {
        c.n_limit = n;
        return mirostat(s, &c);
    }
    if (!has_top_k && p->typical_p >= 1 && p->top_p >= 1 && p->min_p <= 0)
        return draw_from_all(&c, random_of(s), p->temperature);

    if (!has_top_k && p->typical_p < 1) {
        typical_of_all(&c, p->typical_p);
    } else {
        extend(&c, has_top_k ? c.n_limit : FIRST_CANDIDATES);
        if (p->typical_p < 1)
            typical_of_list(&c, p->typical_p);
        else
            weigh(&c, 0, 1);
    }
    total = c.is_complete ? list_sum(&c) : probability_sum(c.logits, c.n_vocab, c.most, 1, NULL);
    cut(&c, total, p->top_p, p->min_p);
    weigh(&c, 0, p->temperature);
    return w->list[draw(&c, random_of(s))].id;
}

int32_t sampler_pick(struct sampler *s, struct sampler_workspace *w, const float *logits,
                     const uint64_t *allowed)
{
    int32_t picked = SAMPLER_NONE;
    uint32_t n;

    assert(w->n_vocab >= s->n_vocab);
    logits = adjust(s, w, logits, allowed, &n);
    if (n > 0)
        picked = choose(s, w, logits, n, s->params.top_k > 0 && s->params.top_k < n);
    if (picked >= 0 && allowed)
        picked = w->ids[picked];
    return s->picked = picked;
}

uint32_t sampler_n_top(const struct sampler *s)
{
    const struct sampler_params *p = &s->params;

    /* Penalties may begin with any token, so it is not asked whether there are some to penalise already. */
    if (p->n_biases > 0 || p->mirostat == 2 ||
        (p->penalty_last_n > 0 &&
         (p->repeat_penalty != 1 || p->frequency_penalty != 0 || p->presence_penalty != 0)))
        return 0;
    if (p->temperature == 0)
        return 1;
    return p->top_k < s->n_vocab ? p->top_k : 0;
}

int32_t sampler_pick_top(struct sampler *s, struct sampler_workspace *w, const uint32_t *ids, const float *logits,
                         uint32_t n_top)
{
    uint32_t n = sampler_n_top(s);
    int32_t picked;

    assert(n > 0 && n <= n_top);
    picked = choose(s, w, logits, n, /* has_top_k= */ true);
    return s->picked = picked >= 0 ? (int32_t)ids[picked] : SAMPLER_NONE;
}

uint32_t sampler_logprobs(struct sampler_workspace *w, const float *logits, uint32_t n_vocab, int32_t token,
                          uint32_t n_top, float *ret_logprob, struct sampler_logprob *ret_top)
{
    float most = probability_max(logits, n_vocab);
    double log_total;
    uint32_t n;

    *ret_logprob = -INFINITY;
    if (most == -INFINITY)
        return 0;
    log_total = probability_log(probability_sum(logits, n_vocab, most, 1, NULL));
    if (token >= 0 && (uint32_t)token < n_vocab)
        *ret_logprob = (float)((double)(probability_clean(logits[token]) - most) - log_total);
    n = candidates_top(logits, n_vocab, n_top < n_vocab ? n_top : n_vocab, w->list);
    for (uint32_t i = 0; i < n; i++) {
        ret_top[i].token = w->list[i].id;
        ret_top[i].logprob = (float)((double)(probability_clean(w->list[i].key) - most) - log_total);
    }
    return n;
}
