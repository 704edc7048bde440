/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who waits how long. The order is that of virtual time. When somebody's turn comes is found in two ways, of which
 * the later time counts: - by places: each is left when its request has said what it is likely to say, or when its
 * tenant has run ahead by the quantum of one that waits; the next one takes the place that it gets first, and holds
 * it in its turn; - by shares: until a tenant's virtual time is where its request begins, all others that are there
 * get their shares, as long as they have work. Tenants who lately came back as soon as they were done are thought to
 * go on.
 *
 * What a request is likely to say is the part of its limit that requests said of theirs lately. Steps take as long as
 * they did lately, and the more as in the long run the further away they are. Who comes anew, and whose pages are lost
 * to whom, is not foreseen.
 */
#include <errno.h>
#include <stdlib.h>

#include "engine/sched/batch-internal.h"

struct batch_place {
    const struct fair_tenant *tenant;
    double left_ns;  /* from now, when its request is done */
    double taken_ns; /* from now, negative: before */
    bool is_real;    /* taken by a request that runs now, not by one that is thought to */
};

/* Of a request, before anything was measured: only the order is needed then. */
#define UNKNOWN_WORK_NS 1e9

/* Of what is further away than this less than half is thought to be as fast as it is just now. */
#define PACE_MS  3000.0
#define PACE_MAX 10.0
/* Steps that decide how long they are thought to be in the long run, which is minutes, and lately. */
#define PACE_STEPS   2048
#define LATELY_STEPS 32

/* Where the work until some virtual time changes its slope, in ns per unit. */
struct batch_bend {
    double virtual_time, slope;
};

int batch_foretell_init(struct batch *b)
{
    b->started = calloc((size_t)b->config.parked_max + 1, sizeof(*b->started));
    b->places = calloc(b->config.sequences_max, sizeof(*b->places));
    return b->started && b->places ? 0 : -ENOMEM;
}

static int by_virtual_start(const void *x, const void *y)
{
    const struct batch_position *a = x, *b = y;

    if (a->virtual_start != b->virtual_start)
        return a->virtual_start < b->virtual_start ? -1 : 1;
    return a->request->item.arrival < b->request->item.arrival ? -1 : 1;
}

static int by_tenant(const void *x, const void *y)
{
    const struct batch_request *a = ((const struct batch_position *)x)->request;
    const struct batch_request *b = ((const struct batch_position *)y)->request;

    if (a->item.tenant != b->item.tenant)
        return a->item.tenant->id < b->item.tenant->id ? -1 : 1;
    return fair_item_before(&a->item, &b->item) ? -1 : 1;
}

/* Until its next token, once it has a place. Prompts share their steps with what others decode. */
static double prefill_ns(const struct batch *b, const struct batch_request *r)
{
    double ns = batch_to_go(r) * b->ns_per_prompt_token, step_ns = (double)b->config.step_ns_max;

    if (batch_to_go(r) == 1)
        return b->company_step_ns;
    if (b->n_actives > 0 && b->decode_step_ns < step_ns / 2)
        ns *= step_ns / (step_ns - b->decode_step_ns);
    return ns + b->decode_step_ns;
}

/* Steps in which it will go on saying something. */
static double steps(const struct batch *b, const struct batch_request *r)
{
    double said = r->n_tokens - r->n_submitted, likely = b->more_fraction * r->n_more_max;

    /* One that has said more than that says half of the rest. */
    if (likely < said + 1)
        likely = (said + r->n_more_max) / 2;
    if (likely < said)
        return 0;
    return (likely - said) / (b->tokens_per_step > 1 ? b->tokens_per_step : 1);
}

static double residence_ns(const struct batch *b, const struct batch_request *r)
{
    return prefill_ns(b, r) + steps(b, r) * b->company_step_ns;
}

static uint32_t real_places(const struct batch *b, const struct fair_tenant *t)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < b->n_actives; i++)
        n += b->places[i].is_real && b->places[i].tenant == t;
    return n;
}

/* When @r could have this place. */
static double place_ns(const struct batch *b, const struct batch_place *p, const struct batch_request *r)
{
    const struct fair_tenant *t = r->item.tenant;
    double lead_ns = 0, preempted_ns;
    uint32_t n = 1;

    if (p->tenant == t)
        return p->left_ns;
    if (p->is_real) {
        lead_ns = (double)fair_lead_ns(p->tenant, t);
        n = real_places(b, p->tenant);
    }
    if (t->n_active == 0 && n >= 2 && lead_ns >= 0)
        return p->taken_ns > 0 ? p->taken_ns : 0;
    /* Its tenant has its part of the time only. */
    preempted_ns = ((double)b->config.quantum_ns - lead_ns) * b->n_actives / (n > 0 ? n : 1);
    preempted_ns = (p->taken_ns > 0 ? p->taken_ns : 0) + (preempted_ns > 0 ? preempted_ns : 0);
    return preempted_ns < p->left_ns ? preempted_ns : p->left_ns;
}

/* @r takes the place that it gets first. Returns when. */
static double take_place(struct batch *b, const struct batch_request *r)
{
    uint32_t best = 0;
    double best_ns = 0;

    for (uint32_t i = 0; i < b->n_actives; i++) {
        double ns = place_ns(b, &b->places[i], r);

        if (i == 0 || ns < best_ns) {
            best = i;
            best_ns = ns;
        }
    }
    if (b->n_actives > 0)
        b->places[best] = (struct batch_place){
            .tenant = r->item.tenant, .left_ns = best_ns + residence_ns(b, r), .taken_ns = best_ns};
    return best_ns;
}

static int by_turn(const void *x, const void *y)
{
    const struct batch_request *a = *(struct batch_request *const *)x, *b = *(struct batch_request *const *)y;

    if (a->item.tenant->virtual_time != b->item.tenant->virtual_time)
        return a->item.tenant->virtual_time < b->item.tenant->virtual_time ? -1 : 1;
    return a->item.arrival < b->item.arrival ? -1 : 1;
}

/* Those that had begun and gave up their places wait, too. */
static size_t parked(const struct batch *b)
{
    size_t n = 0;

    for (uint32_t i = 0; i < b->n_keepers; i++)
        if (b->keepers[i]->state == BATCH_PARKED)
            b->started[n++] = b->keepers[i];
    qsort(b->started, n, sizeof(*b->started), by_turn);
    return n;
}

/* Work that a request still is, of the whole machine's time. */
static double work_ns(const struct batch *b, const struct batch_request *r)
{
    if (b->company_step_ns <= 0)
        return UNKNOWN_WORK_NS;
    return batch_to_go(r) * b->ns_per_prompt_token +
           steps(b, r) * b->decode_step_ns / (b->n_actives > 0 ? b->n_actives : 1);
}

static int by_time(const void *x, const void *y)
{
    const struct batch_bend *a = x, *b = y;

    return (a->virtual_time > b->virtual_time) - (a->virtual_time < b->virtual_time);
}

/* What tenants' requests that have begun still are, into their work_ns. */
static void started_work(struct batch *b)
{
    size_t n_tenants;
    struct fair_tenant *const *tenants = fair_present(b->fair, &n_tenants);

    for (size_t i = 0; i < n_tenants; i++)
        tenants[i]->work_ns = 0;
    for (uint32_t i = 0; i < b->n_actives; i++)
        b->actives[i]->item.tenant->work_ns += work_ns(b, b->actives[i]);
    for (uint32_t i = 0; i < b->n_keepers; i++)
        b->keepers[i]->item.tenant->work_ns += work_ns(b, b->keepers[i]);
}

static double virtual_per_ns(const struct fair_tenant *t)
{
    return (double)fair_cost_to_virtual(t, 1000000) / 1e6;
}

/* The machine's work until virtual time is somewhere, as a function of that: its slope changes where a tenant begins
 * to get a share, and where one has no more work. Without memory there is nothing to say. */
static size_t bends(struct batch *b)
{
    size_t n_tenants, n_bends = 0;
    struct fair_tenant *const *tenants = fair_present(b->fair, &n_tenants);

    if (2 * n_tenants > b->bends_allocated) {
        struct batch_bend *grown = reallocarray(b->bends, 4 * n_tenants, sizeof(*grown));

        if (!grown)
            return 0;
        b->bends = grown;
        b->bends_allocated = 4 * n_tenants;
    }
    for (size_t i = 0; i < n_tenants; i++) {
        const struct fair_tenant *t = tenants[i];
        double begin = (double)t->virtual_time, per_ns = virtual_per_ns(t);

        b->bends[n_bends++] = (struct batch_bend){.virtual_time = begin, .slope = 1 / per_ns};
        if (t->returns < 0.5)
            b->bends[n_bends++] =
                (struct batch_bend){.virtual_time = begin + t->work_ns * per_ns, .slope = -1 / per_ns};
    }
    qsort(b->bends, n_bends, sizeof(*b->bends), by_time);
    return n_bends;
}

/* Later times than by places, where others' shares make them so. @order is by virtual_start. */
static void foretell_shares(struct batch *b, struct batch_position *order, size_t n)
{
    size_t n_bends = bends(b), i_bend = 0;
    double work = 0, slope = 0, at = n_bends > 0 ? b->bends[0].virtual_time : 0;

    for (size_t i = 0; i < n && n_bends > 0; i++) {
        const struct batch_request *r = order[i].request;
        double to = (double)order[i].virtual_start, first_ns, eta_ms;

        for (; i_bend < n_bends && b->bends[i_bend].virtual_time <= to; i_bend++) {
            work += slope * (b->bends[i_bend].virtual_time - at);
            at = b->bends[i_bend].virtual_time;
            slope += b->bends[i_bend].slope;
        }
        if (to > at) {
            work += slope * (to - at);
            at = to;
        }
        /* Its own first token costs it its share, too. */
        first_ns = batch_to_go(r) * b->ns_per_prompt_token * virtual_per_ns(r->item.tenant);
        eta_ms = (work + slope * first_ns) / 1e6;
        if ((int64_t)eta_ms > order[i].eta_ms)
            order[i].eta_ms = (int64_t)eta_ms;
    }
}

static void foretell_places(struct batch *b, struct batch_position *order, size_t n)
{
    size_t n_parked = parked(b), i_parked = 0;

    for (uint32_t i = 0; i < b->n_actives; i++)
        b->places[i] = (struct batch_place){.tenant = b->actives[i]->item.tenant,
                                            .left_ns = residence_ns(b, b->actives[i]),
                                            .taken_ns = -1,
                                            .is_real = true};
    for (size_t i = 0; i < n; i++) {
        const struct batch_request *r = order[i].request;

        while (i_parked < n_parked && b->started[i_parked]->item.tenant->virtual_time <= order[i].virtual_start)
            (void)take_place(b, b->started[i_parked++]);
        order[i].eta_ms = (int64_t)((take_place(b, r) + prefill_ns(b, r)) / 1e6);
    }
}

static void add_to_mean(double *mean, uint32_t *n, uint32_t n_max, double value)
{
    *n += *n < n_max;
    *mean += (value - *mean) / *n;
}

void batch_foretell_learn(struct batch *b, double duration_ns, double prompt_ns, uint32_t n_prompt, uint32_t n_decode)
{
    struct batch_pace *p = &b->pace;
    double expected_ns;

    if (n_prompt == 0 && n_decode > 0)
        add_to_mean(&p->decode_step_ns, &p->n_decode, PACE_STEPS, duration_ns);
    else if (prompt_ns > 0)
        add_to_mean(&p->prompt_token_ns, &p->n_prompt, PACE_STEPS, prompt_ns / n_prompt);
    if (n_prompt + n_decode == 0 || (n_prompt > 0 && p->n_prompt == 0) || (n_decode > 0 && p->n_decode == 0))
        return;
    expected_ns = n_prompt * p->prompt_token_ns + (n_decode > 0 ? p->decode_step_ns : 0);
    add_to_mean(&p->lately, &p->n, LATELY_STEPS, duration_ns / expected_ns);
}

/* How fast the machine is just now says much about the next seconds, and little about the next minutes. */
static void foretell_pace(const struct batch *b, struct batch_position *order, size_t n)
{
    double back = b->pace.lately > 0 ? 1 / b->pace.lately : 1;

    back = back < 1 / PACE_MAX ? 1 / PACE_MAX : back > PACE_MAX ? PACE_MAX : back;
    for (size_t i = 0; i < n; i++) {
        double ms = (double)order[i].eta_ms;

        order[i].eta_ms = (int64_t)(ms * (1 + (back - 1) * ms / (ms + PACE_MS)));
    }
}

size_t batch_positions(struct batch *b, struct batch_position *ret)
{
    bool is_known = b->company_step_ns > 0;
    size_t n = 0, n_tenants;

    for (struct batch_request *r = b->first_new; r; r = r->next_new)
        ret[n++] = (struct batch_position){.request = r};
    /* The k-th of a tenant starts when what the tenant has before it is paid for. */
    qsort(ret, n, sizeof(*ret), by_tenant);
    started_work(b);
    for (size_t i = 0; i < n; i++) {
        struct fair_tenant *t = ret[i].request->item.tenant;

        ret[i].virtual_start = t->virtual_time + fair_cost_to_virtual(t, (uint64_t)t->work_ns);
        t->work_ns += work_ns(b, ret[i].request);
    }
    qsort(ret, n, sizeof(*ret), by_virtual_start);
    for (size_t i = 0; i < n; i++) {
        ret[i].position = (uint32_t)i + 1;
        ret[i].eta_ms = -1;
    }
    if (is_known)
        foretell_places(b, ret, n);
    (void)fair_present(b->fair, &n_tenants);
    if (is_known && n_tenants > 1)
        foretell_shares(b, ret, n);
    if (is_known)
        foretell_pace(b, ret, n);
    return n;
}
