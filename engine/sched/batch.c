/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Planning, once per step and in this order:
 *  1. free places go to whoever fair_next() names, as long as there are pages for it;
 *  2. a tenant that waits takes a place from the tenant that is furthest ahead (preemption);
 *  3. those in a place are sorted, decode tokens are taken, then prompt slices until the step is long enough;
 *  4. pages are found for each, in that order: free ones, then those of parked requests, then those of the
 * last active;
 *  5. drafts are added from what is left: pages that nobody has, and only while nobody else is there.
 *
 * When preemption happens (2): at once when the one that waits has nothing running and the other has more
 * than one place, for then a light user never waits for a heavy one's answer (unless it is ahead by more than
 * FAIR_HEAD_START); otherwise only when the lead exceeds the quantum, and by four times what it would cost to
 * compute lost pages again, so that at most a fifth of the time is lost to it.
 *
 * Whoever began as the only request of a tenant that had no more than its share then is urgent: it goes before all
 * others that are not, and keeps its place against those who have another, until its first token. So a prompt of many
 * slices waits once and not at each of them; what it costs is charged all the same, and the tenant's next request is
 * urgent only when the others have caught up. Among urgent ones virtual time decides slice by slice, so a short prompt
 * does not wait for the end of a long one.
 *
 * Invariants:
 *  1. @actives holds exactly the ACTIVE, @keepers exactly those not active with n_pages > 0; n_keepers <=
 * parked_max.
 *  2. pages_used is the sum of n_pages, and that of a tenant its part of it; never above pages_total.
 *  3. n_pages = ceil(n_fed / page_tokens), but between batch_plan() and batch_step_done() it is that after
 * the step.
 */
#include "engine/sched/batch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/sched/batch-internal.h"

/* Below this a step reads all weights for too little work. */
#define SLICE_TOKENS_MIN 32
/* Before anything was measured. */
#define SLICE_TOKENS_FIRST 64
/* Times of steps with fewer prompt tokens say more about the weights than about the tokens. */
#define SLICE_TOKENS_MEASURED 16
/* What a token of a draft costs in steps, before it was measured. */
#define DRAFT_COST_FIRST 0.15
/* Steps without drafts after which a third is left of what was measured. */
#define DRAFT_COST_FORGOTTEN 256
/* Steps that decide how long one is thought to be. */
#define COMPANY_STEPS 32
/* Whoever is back within this time, or half of what its request took, was hardly gone. */
#define RETURN_NS UINT64_C(2000000000)
/* So many steps with drafts, then one without: how long that takes has to stay known. */
#define DRAFTS_IN_A_ROW 64
/* By how much of a lone one's step each further sequence makes it longer, before that was measured. */
#define COMPANY_COST_FIRST 0.07
/* So many times as long at most a slice becomes because others decode beside it. */
#define COMPANY_MAX 2.0


static double average(double old, double now)
{
    return old > 0 ? old + (now - old) / 8 : now;
}

static uint32_t pages_for(const struct batch *b, uint32_t n_tokens)
{
    return (uint32_t)(((uint64_t)n_tokens + b->config.page_tokens - 1) / b->config.page_tokens);
}

int batch_new(const struct batch_config *config, struct batch **ret)
{
    _cleanup_(batch_freep) struct batch *b = NULL;
    int r;

    if (config->sequences_max == 0 || config->step_tokens_max < config->sequences_max ||
        config->page_tokens == 0 || config->pages_total == 0 || config->sequences_max > UINT16_MAX ||
        config->parked_max > UINT16_MAX)
        return -EINVAL;
    b = calloc(1, sizeof(*b));
    if (!b)
        return -ENOMEM;
    b->config = *config;
    b->actives = calloc(config->sequences_max, sizeof(*b->actives));
    b->keepers = calloc((size_t)config->parked_max + 1, sizeof(*b->keepers));
    b->slices = calloc(config->sequences_max, sizeof(*b->slices));
    b->dropped = calloc((size_t)config->sequences_max + config->parked_max, sizeof(*b->dropped));
    b->blocked = calloc(config->sequences_max, sizeof(*b->blocked));
    if (!b->actives || !b->keepers || !b->slices || !b->dropped || !b->blocked || batch_foretell_init(b) < 0)
        return -ENOMEM;
    r = fair_new(&b->fair);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(b);
    return 0;
}

struct batch *batch_free(struct batch *b)
{
    if (!b)
        return NULL;
    assert(b->n_requests == 0 && b->pages_used == 0);
    fair_free(b->fair);
    free(b->actives);
    free(b->keepers);
    free(b->slices);
    free(b->dropped);
    free(b->blocked);
    free(b->started);
    free(b->bends);
    free(b->places);
    free(b);
    return NULL;
}

struct fair *batch_fair(struct batch *b)
{
    return b->fair;
}

/* ---- places and pages ---- */

static struct batch_request *of_item(struct fair_item *item)
{
    return (struct batch_request *)(void *)((char *)item - offsetof(struct batch_request, item));
}

/* Whether @a is served before @b, whoever they belong to. */
static bool before(const struct batch_request *a, const struct batch_request *b)
{
    const struct fair_tenant *s = a->item.tenant, *t = b->item.tenant;
    bool hurries = batch_is_urgent(a);

    if (hurries != batch_is_urgent(b))
        return hurries;
    if (s != t) {
        __int128 u = s->virtual_time, v = t->virtual_time;

        u -= s->n_active < 2 ? FAIR_HEAD_START : 0;
        v -= t->n_active < 2 ? FAIR_HEAD_START : 0;
        if (u != v)
            return u < v;
    }
    /* One that comes back is level with the last of those present: it must not have to wait for their long
     * prompts. */
    if (s->n_active != t->n_active)
        return s->n_active < t->n_active;
    return fair_item_before(&a->item, &b->item);
}

static void set_pages(struct batch *b, struct batch_request *r, uint32_t n_pages)
{
    b->pages_used = b->pages_used - r->n_pages + n_pages;
    r->item.tenant->n_pages = r->item.tenant->n_pages - r->n_pages + n_pages;
    r->n_pages = n_pages;
}

/* Keeps the order of the others: cut_slices() removes some while it walks. */
static void out_of_actives(struct batch *b, struct batch_request *r)
{
    assert(b->actives[r->i_place] == r);
    b->n_actives--;
    for (size_t i = r->i_place; i < b->n_actives; i++) {
        b->actives[i] = b->actives[i + 1];
        b->actives[i]->i_place = i;
    }
}

static void out_of_keepers(struct batch *b, struct batch_request *r)
{
    struct batch_request *last = b->keepers[--b->n_keepers];

    assert(b->keepers[r->i_place] == r);
    b->keepers[r->i_place] = last;
    last->i_place = r->i_place;
}

static bool is_keeper(const struct batch_request *r)
{
    return r->n_pages > 0 && (r->state == BATCH_PARKED || r->state == BATCH_PAUSED);
}

/* The request that is last in order among those that keep pages without running; NULL: none does. */
static struct batch_request *worst_keeper(const struct batch *b)
{
    struct batch_request *worst = NULL;

    for (uint32_t i = 0; i < b->n_keepers; i++) {
        struct batch_request *r = b->keepers[i];

        /* Paused ones first: they do not even want to run. */
        if (!worst || (r->state == BATCH_PAUSED && worst->state != BATCH_PAUSED) ||
            ((r->state == BATCH_PAUSED) == (worst->state == BATCH_PAUSED) && before(worst, r)))
            worst = r;
    }
    return worst;
}

static void drop_keeper(struct batch *b, struct batch_request *r)
{
    out_of_keepers(b, r);
    set_pages(b, r, 0);
    r->n_fed = 0;
    if (r->state == BATCH_PARKED)
        r->state = BATCH_WAITING;
}

static void drop_in_plan(struct batch *b, struct batch_request *r)
{
    drop_keeper(b, r);
    b->dropped[b->plan.n_dropped++] = r;
}

/* Out of its place, keeping its pages if there is room among the keepers. Returns the one that loses its
 * pages then. */
static struct batch_request *give_up_place(struct batch *b, struct batch_request *r, enum batch_state state)
{
    out_of_actives(b, r);
    r->state = state;
    if (r->n_pages == 0) {
        if (state == BATCH_PARKED)
            r->state = BATCH_WAITING;
        return NULL;
    }
    /* One more than fits for a moment: there is room for it, and then the worst of all goes. */
    r->i_place = b->n_keepers;
    b->keepers[b->n_keepers++] = r;
    if (b->n_keepers <= b->config.parked_max)
        return NULL;
    return worst_keeper(b);
}

static void park(struct batch *b, struct batch_request *r)
{
    struct batch_request *loser = give_up_place(b, r, BATCH_PARKED);

    fair_wait(b->fair, &r->item);
    if (loser)
        drop_in_plan(b, loser);
}

static void start(struct batch *b, struct batch_request *r, uint64_t now_ns)
{
    if (is_keeper(r))
        out_of_keepers(b, r);
    fair_activate(b->fair, &r->item);
    r->state = BATCH_ACTIVE;
    r->i_place = b->n_actives;
    b->actives[b->n_actives++] = r;
    if (!r->started) {
        r->started = true;
        r->started_ns = now_ns;
        r->urgent = fair_is_due(b->fair, r->item.tenant);
        b->n_new--;
        if (r->prev_new)
            r->prev_new->next_new = r->next_new;
        else
            b->first_new = r->next_new;
        if (r->next_new)
            r->next_new->prev_new = r->prev_new;
    }
}

/* ---- coming and going ---- */

/* Whether a tenant that had nothing left is back soon: then its next request will follow the present one, too. */
static void note_return(struct fair_tenant *t, uint64_t now_ns)
{
    uint64_t soon_ns = t->stay_ns / 2 > RETURN_NS ? t->stay_ns / 2 : RETURN_NS;

    if (t->n_items == 1 && t->gone_ns > 0)
        t->returns += ((now_ns - t->gone_ns < soon_ns) - t->returns) / 2;
}

int batch_submit(struct batch *b, struct batch_request *r, uint32_t tenant, int32_t priority,
                 uint32_t n_tokens, uint64_t now_ns)
{
    struct fair_item item;

    assert(n_tokens > 0);
    *r = (struct batch_request){.state = BATCH_GONE};
    if (fair_join(b->fair, &item, tenant, priority) < 0)
        return -ENOMEM;
    *r = (struct batch_request){.item = item,
                                .state = BATCH_WAITING,
                                .n_tokens = n_tokens,
                                .n_submitted = n_tokens,
                                .submitted_ns = now_ns,
                                .next_new = b->first_new};
    if (b->first_new)
        b->first_new->prev_new = r;
    b->first_new = r;
    b->n_new++;
    b->n_requests++;
    note_return(r->item.tenant, now_ns);
    fair_wait(b->fair, &r->item);
    return 0;
}

void batch_remove(struct batch *b, struct batch_request *r, uint64_t now_ns)
{
    if (r->state == BATCH_GONE)
        return;
    if (r->state == BATCH_ACTIVE)
        out_of_actives(b, r);
    else if (is_keeper(r))
        out_of_keepers(b, r);
    set_pages(b, r, 0);
    if (r->started) {
        if (r->n_more_max > 0)
            b->more_fraction = average(b->more_fraction, (double)(r->n_tokens - r->n_submitted) / r->n_more_max);
    } else {
        b->n_new--;
        if (r->prev_new)
            r->prev_new->next_new = r->next_new;
        else
            b->first_new = r->next_new;
        if (r->next_new)
            r->next_new->prev_new = r->prev_new;
    }
    r->item.tenant->gone_ns = now_ns;
    r->item.tenant->stay_ns = r->started ? now_ns - r->started_ns : 0;
    fair_leave(b->fair, &r->item);
    b->n_requests--;
    r->state = BATCH_GONE;
}

void batch_pause(struct batch *b, struct batch_request *r)
{
    if (r->paused || r->state == BATCH_GONE)
        return;
    r->paused = true;
    /* One that is active leaves its place in the next plan, where others can make room for its pages. */
    if (r->state == BATCH_ACTIVE)
        return;
    r->state = BATCH_PAUSED;
    fair_set_aside(b->fair, &r->item);
}

void batch_resume(struct batch *b, struct batch_request *r)
{
    if (!r->paused)
        return;
    r->paused = false;
    if (r->state != BATCH_PAUSED)
        return;
    r->state = r->n_pages > 0 ? BATCH_PARKED : BATCH_WAITING;
    fair_wait(b->fair, &r->item);
}

void batch_append(struct batch_request *r)
{
    r->n_tokens++;
    r->n_draft = 0;
}

void batch_refuse(struct batch *b, struct batch_request *r, uint32_t n_tokens)
{
    r->n_fed -= n_tokens;
    set_pages(b, r, pages_for(b, r->n_fed));
}

/* ---- planning ---- */

static uint32_t pages_free(const struct batch *b)
{
    return b->config.pages_total - b->pages_used;
}

/* Pages for all that is known of @r and one more token, beyond those that it has. */
static uint64_t pages_to_go(const struct batch *b, const struct batch_request *r)
{
    return (uint64_t)pages_for(b, r->n_tokens + 1) - r->n_pages;
}

/* Whether @r could run to its next token with what nobody has and what the keepers could give. */
static bool fits(const struct batch *b, const struct batch_request *r)
{
    uint64_t n = pages_free(b), promised = 0;

    for (uint32_t i = 0; i < b->n_keepers; i++)
        if (b->keepers[i] != r)
            n += b->keepers[i]->n_pages;
    for (uint32_t i = 0; i < b->n_actives; i++)
        promised += pages_to_go(b, b->actives[i]);
    return promised + pages_to_go(b, r) <= n;
}

/* Whether its own tenant's limit keeps @r from running as long as the tenant's other requests hold what they
 * hold. */
static bool over_own_limit(const struct batch *b, const struct batch_request *r)
{
    const struct fair_tenant *t = r->item.tenant;

    return t->n_pages > r->n_pages && t->n_pages + pages_to_go(b, r) > t->pages_max;
}

static struct batch_request *worst_active_of(const struct batch *b, const struct fair_tenant *t)
{
    struct batch_request *worst = NULL;

    for (uint32_t i = 0; i < b->n_actives; i++)
        if (b->actives[i]->item.tenant == t && (!worst || before(worst, b->actives[i])))
            worst = b->actives[i];
    return worst;
}

/* The tenant, furthest ahead, that has more than one place and has to leave one to @t, which has none; NULL: none. */
static const struct fair_tenant *with_several(const struct batch *b, const struct fair_tenant *t)
{
    const struct fair_tenant *far = NULL;

    for (uint32_t i = 0; i < b->n_actives; i++) {
        const struct fair_tenant *u = b->actives[i]->item.tenant;

        if (u != t && u->n_active >= 2 && (!far || u->virtual_time > far->virtual_time))
            far = u;
    }
    /* No further ahead than what has it preempted in turn: else they would take the place from each other for ever. */
    if (far && t->virtual_time > far->virtual_time &&
        (t->virtual_time - far->virtual_time > FAIR_HEAD_START ||
         fair_lead_ns(t, far) > (int64_t)b->config.quantum_ns))
        return NULL;
    return far;
}

/* Who has to give its place to @r, which is first of those that wait; NULL: nobody. */
static struct batch_request *to_preempt(const struct batch *b, const struct batch_request *r)
{
    const struct fair_tenant *t = r->item.tenant, *far = t->n_active == 0 ? with_several(b, t) : NULL;
    struct batch_request *victim;
    double threshold_ns = (double)b->config.quantum_ns;
    int64_t lead_ns;

    if (far)
        return worst_active_of(b, far);
    far = fair_furthest(b->fair);
    if (!far || far == t)
        return NULL;
    lead_ns = fair_lead_ns(far, t);
    victim = worst_active_of(b, far);
    if (batch_is_urgent(victim) && t->n_active > 0)
        return NULL;
    if (b->n_keepers == b->config.parked_max || pages_to_go(b, r) > pages_free(b))
        threshold_ns += 4.0 * victim->n_fed * b->ns_per_prompt_token;
    return (double)lead_ns > threshold_ns ? victim : NULL;
}

/* Whether @r can't start for want of a place or of pages. */
static bool lacks_room(const struct batch *b, const struct batch_request *r)
{
    return b->n_actives == b->config.sequences_max || (b->n_actives > 0 && !fits(b, r));
}

/* @r has to wait for its tenant's other requests, or for the pages of those that do not run. */
static void make_own_room(struct batch *b, const struct batch_request *r, size_t *n_blocked)
{
    struct fair_tenant *t = r->item.tenant;
    struct batch_request *worst = NULL;

    for (uint32_t i = 0; i < b->n_keepers; i++)
        if (b->keepers[i] != r && b->keepers[i]->item.tenant == t && (!worst || before(worst, b->keepers[i])))
            worst = b->keepers[i];
    if (worst) {
        drop_in_plan(b, worst);
        return;
    }
    fair_block(b->fair, t);
    b->blocked[(*n_blocked)++] = t;
}

static void choose_actives(struct batch *b, uint64_t now_ns)
{
    struct fair_item *item;
    size_t n_blocked = 0;

    for (uint32_t i = b->n_actives; i-- > 0;)
        if (b->actives[i]->paused) {
            struct batch_request *r = b->actives[i], *loser = give_up_place(b, r, BATCH_PAUSED);

            fair_set_aside(b->fair, &r->item);
            if (loser)
                drop_in_plan(b, loser);
        }

    while ((item = fair_next(b->fair))) {
        struct batch_request *r = of_item(item), *victim;

        if (over_own_limit(b, r)) {
            make_own_room(b, r, &n_blocked);
            continue;
        }
        while ((victim = lacks_room(b, r) ? to_preempt(b, r) : NULL))
            park(b, victim);
        /* Whoever starts at another's cost is behind it, so that one can't come back at its cost: this ends.
         */
        if (lacks_room(b, r))
            break;
        start(b, r, now_ns);
    }
    while (n_blocked > 0)
        fair_unblock(b->fair, b->blocked[--n_blocked]);
}

static void sort_actives(struct batch *b)
{
    /* Nearly sorted from the last step, and few. */
    for (uint32_t i = 1; i < b->n_actives; i++) {
        struct batch_request *r = b->actives[i];
        uint32_t j = i;

        for (; j > 0 && before(r, b->actives[j - 1]); j--)
            b->actives[j] = b->actives[j - 1];
        b->actives[j] = r;
    }
    for (uint32_t i = 0; i < b->n_actives; i++)
        b->actives[i]->i_place = i;
}

/* Whether only tenants with several requests wait for the end of this step, or nobody. */
static bool in_peace(const struct batch *b)
{
    const struct fair_item *next = fair_next(b->fair);

    if (b->n_actives == 1)
        return !next;
    if (!batch_is_urgent(b->actives[0]) || (next && next->tenant->n_active == 0))
        return false;
    for (uint32_t i = 1; i < b->n_actives; i++)
        if (b->actives[i]->item.tenant->n_active < 2)
            return false;
    return true;
}

/* Those who decode beside a prompt of many slices make each of them longer: with so many times as many tokens in each,
 * and fewer of them, it takes no longer than alone. */
static double longer_beside(const struct batch *b, uint32_t n_decoding)
{
    double q = b->plain_ns[1] > 0 && b->decode_step_ns > 0 ? b->decode_step_ns / b->plain_ns[1]
                                                           : 1 + COMPANY_COST_FIRST * n_decoding;

    return q < 1 ? 1 : q > COMPANY_MAX ? COMPANY_MAX : q;
}

/* Prompt tokens that this step may take beside @n_decoding others. */
static uint32_t slice_tokens(const struct batch *b, uint32_t n_decoding)
{
    uint32_t n_max = b->config.step_tokens_max - n_decoding, n_more;
    bool alone = in_peace(b);
    double target_ns = (double)(alone ? b->config.step_alone_ns_max : b->config.step_ns_max), n;

    if (b->ns_per_prompt_token <= 0) {
        n = SLICE_TOKENS_FIRST;
    } else {
        if (n_decoding > 0)
            target_ns -= b->decode_step_ns;
        n = target_ns / b->ns_per_prompt_token;
        if (alone && n_decoding > 0)
            n *= longer_beside(b, n_decoding);
    }
    if (n < SLICE_TOKENS_MIN)
        n = SLICE_TOKENS_MIN;
    if (n >= n_max)
        return n_max;
    /* Kernels and pages like multiples. The next one: rounding down would often make two steps of a short prompt. */
    n_more = alone && n_decoding > 0 ? SLICE_TOKENS_MIN - 1 : SLICE_TOKENS_MIN / 2;
    return ((uint32_t)n + n_more) / SLICE_TOKENS_MIN * SLICE_TOKENS_MIN;
}

/* Somebody whose pages the i-th active may have: a keeper, else one behind it. Of the same tenant, if @t is
 * given. */
static struct batch_request *page_victim(const struct batch *b, uint32_t i, const struct fair_tenant *t)
{
    struct batch_request *worst = NULL;

    if (!t) {
        worst = worst_keeper(b);
    } else {
        for (uint32_t k = 0; k < b->n_keepers; k++)
            if (b->keepers[k]->item.tenant == t && (!worst || before(worst, b->keepers[k])))
                worst = b->keepers[k];
    }
    for (uint32_t k = b->n_actives; !worst && k-- > i + 1;)
        if (b->actives[k]->n_pages > 0 && (!t || b->actives[k]->item.tenant == t))
            worst = b->actives[k];
    return worst;
}

/* Gives the i-th active up to @n_pages more, at the cost of those behind it. Returns how many it got. */
static uint32_t find_pages(struct batch *b, uint32_t i, uint32_t n_pages)
{
    struct batch_request *r = b->actives[i];
    const struct fair_tenant *t = r->item.tenant;

    for (;;) {
        uint64_t own_left = t->pages_max > t->n_pages ? t->pages_max - t->n_pages : 0;
        struct batch_request *victim;

        if (n_pages <= pages_free(b) && n_pages <= own_left)
            return n_pages;
        victim = page_victim(b, i, n_pages > own_left ? t : NULL);
        if (!victim) {
            n_pages = n_pages < pages_free(b) ? n_pages : pages_free(b);
            return n_pages < own_left ? n_pages : (uint32_t)own_left;
        }
        if (victim->state == BATCH_ACTIVE) {
            out_of_actives(b, victim);
            victim->state = BATCH_WAITING;
            fair_wait(b->fair, &victim->item);
            set_pages(b, victim, 0);
            victim->n_fed = victim->n_found = 0;
            b->dropped[b->plan.n_dropped++] = victim;
        } else {
            drop_in_plan(b, victim);
        }
    }
}

/* Whoever begins may find that its first tokens were computed before. */
static void look_up(struct batch *b)
{
    for (uint32_t i = 0; b->config.found && i < b->n_actives; i++) {
        struct batch_request *r = b->actives[i];

        r->n_found = r->n_fed == 0 ? b->config.found(r, b->config.userdata) : 0;
        assert(batch_to_go(r) > 0);
    }
}

/* How many of its tokens the request may have in this step, where @prompt_left are left for prompts. */
static uint32_t slice_of(const struct batch *b, const struct batch_request *r, uint32_t prompt_left)
{
    uint32_t n = batch_to_go(r);

    if (b->config.whole_prompts) {
        bool first = b->plan.n_tokens == 0; /* it takes as long as it takes */

        return (n == 1 || n <= prompt_left || first) && n <= b->config.step_tokens_max - b->plan.n_tokens ? n : 0;
    }
    return n == 1 || n <= prompt_left ? n : prompt_left;
}

/* How many tokens fit behind those that it has when it gets no more than @n_pages. */
static uint32_t n_within(const struct batch *b, const struct batch_request *r, uint32_t n_pages)
{
    uint64_t room = (uint64_t)n_pages * b->config.page_tokens, n_have = (uint64_t)r->n_fed + r->n_found;

    return b->config.whole_prompts || room <= n_have ? 0 : (uint32_t)(room - n_have);
}

static void cut_slices(struct batch *b)
{
    uint32_t n_decoding = 0, prompt_left;
    bool in_hurry = false; /* somebody's only request comes to its first token: who has several can wait for a step */

    for (uint32_t i = 0; i < b->n_actives; i++)
        n_decoding += batch_to_go(b->actives[i]) == 1;
    prompt_left = n_decoding < b->n_actives ? slice_tokens(b, n_decoding) : 0;

    for (uint32_t i = 0; i < b->n_actives; i++) {
        struct batch_request *r = b->actives[i];
        uint32_t n_to_go = batch_to_go(r), n = slice_of(b, r, prompt_left), n_pages, n_have = r->n_fed + r->n_found;
        bool decoding = n_to_go == 1;

        if (n == 0 || (in_hurry && !decoding && r->item.tenant->n_active >= 2)) {
            r->n_found = 0;
            continue;
        }
        n_pages = pages_for(b, n_have + n) - r->n_pages;
        n_pages = find_pages(b, i, n_pages);
        if ((uint64_t)(r->n_pages + n_pages) * b->config.page_tokens < (uint64_t)n_have + n)
            n = n_within(b, r, r->n_pages + n_pages);
        if (n == 0) {
            /* The first in order takes from all others; if that is not enough, nothing ever will be. */
            if (i == 0)
                b->plan.stuck = r;
            r->n_found = 0;
            continue;
        }
        set_pages(b, r, r->n_pages + n_pages);
        if (!decoding) {
            prompt_left -= n < prompt_left ? n : prompt_left;
            in_hurry |= n == n_to_go && r->item.tenant->n_active < 2;
        }
        b->slices[b->plan.n_slices++] =
            (struct batch_slice){.request = r, .n_found = r->n_found, .n_tokens = n, .wants_logits = n == n_to_go};
        b->plan.n_tokens += n;
    }
}

double batch_step_ns(const struct batch *b)
{
    return b->n_actives <= DRAFT_SEQUENCES_MAX ? b->plain_ns[b->n_actives] : 0;
}

bool batch_shrink(struct batch *b)
{
    uint32_t n = b->config.step_tokens_max / 2;

    if (b->config.whole_prompts || n < b->config.sequences_max)
        return false;
    b->config.step_tokens_max = n;
    return true;
}

uint32_t batch_drafts_max(const struct batch *b)
{
    struct fair_tenant *const *waiting;
    size_t n_waiting;

    waiting = fair_waiting(b->fair, &n_waiting);
    if (b->config.whole_prompts || batch_step_ns(b) <= 0 || b->n_with_drafts == DRAFTS_IN_A_ROW)
        return 0;
    for (uint32_t i = 0; i < b->n_actives; i++)
        if (b->actives[i]->item.tenant != b->actives[0]->item.tenant ||
            batch_to_go(b->actives[i]) != 1)
            return 0;
    if (n_waiting > 1 || (n_waiting == 1 && waiting[0] != b->actives[0]->item.tenant))
        return 0;
    return b->config.drafts_max < b->config.step_tokens_max - b->n_actives
               ? b->config.drafts_max
               : b->config.step_tokens_max - b->n_actives;
}

double batch_draft_cost(const struct batch *b)
{
    double step_ns = batch_step_ns(b);

    return b->draft_token_ns > 0 && step_ns > 0 ? b->draft_token_ns / step_ns : DRAFT_COST_FIRST;
}

static void add_drafts(struct batch *b)
{
    uint32_t left = batch_drafts_max(b);

    for (size_t i = 0; i < b->plan.n_slices; i++) {
        struct batch_slice *s = &b->slices[i];
        struct batch_request *r = s->request;
        const struct fair_tenant *t = r->item.tenant;
        uint64_t own_left = t->pages_max > t->n_pages ? t->pages_max - t->n_pages : 0;
        uint64_t n_pages = r->n_pages + (own_left < pages_free(b) ? own_left : pages_free(b));
        uint64_t room = n_pages * b->config.page_tokens - r->n_fed - r->n_found - s->n_tokens;
        uint32_t n = r->n_draft < left ? r->n_draft : left;

        s->n_draft = room < n ? (uint32_t)room : n;
        s->n_tokens += s->n_draft;
        b->plan.n_tokens += s->n_draft;
        left -= s->n_draft;
        r->n_draft = 0;
        set_pages(b, r, pages_for(b, r->n_fed + r->n_found + s->n_tokens));
    }
}

const struct batch_plan *batch_plan(struct batch *b, uint64_t now_ns)
{
    b->plan = (struct batch_plan){.slices = b->slices, .dropped = b->dropped};
    choose_actives(b, now_ns);
    sort_actives(b);
    look_up(b);
    cut_slices(b);
    add_drafts(b);
    return &b->plan;
}

void batch_step_done(struct batch *b, uint64_t duration_ns)
{
    uint32_t n_prompt = 0, n_decode = 0, n_draft = 0, n_seen = 0, n_gained = 0;
    double prompt_ns = (double)duration_ns;

    for (size_t i = 0; i < b->plan.n_slices; i++) {
        struct batch_request *r = b->slices[i].request;
        uint64_t cost_ns = (uint64_t)((double)duration_ns * b->slices[i].n_tokens / b->plan.n_tokens);

        if (batch_to_go(r) == 1) {
            n_decode++;
            n_seen += r->n_seen > 0;
            n_gained += r->n_seen > 0 ? r->n_tokens - r->n_seen : 0;
            r->n_seen = r->n_tokens;
        } else {
            n_prompt += b->slices[i].n_tokens;
        }
        n_draft += b->slices[i].n_draft;
        r->n_fed += r->n_found + b->slices[i].n_tokens;
        r->n_found = 0;
        r->cost_ns += cost_ns;
        fair_charge(b->fair, r->item.tenant, cost_ns);
    }
    if (n_decode > 0) {
        /* The first ones are no better than the later ones: a mean, until it is long enough. */
        b->n_company_steps += b->n_company_steps < COMPANY_STEPS;
        b->company_step_ns += ((double)duration_ns - b->company_step_ns) / b->n_company_steps;
        if (n_seen > 0)
            b->tokens_per_step += ((double)n_gained / n_seen - b->tokens_per_step) / b->n_company_steps;
    }
    b->n_with_drafts = n_draft > 0 ? b->n_with_drafts + 1 : 0;
    if (n_draft > 0) {
        double ns = ((double)duration_ns - b->plain_ns[b->plan.n_slices]) / n_draft;

        /* Never 0, which says that it is unknown. */
        b->draft_token_ns = average(b->draft_token_ns, ns > 1 ? ns : 1);
    } else if (n_prompt == 0 && n_decode > 0) {
        b->decode_step_ns = average(b->decode_step_ns, (double)duration_ns);
        if (n_decode <= DRAFT_SEQUENCES_MAX)
            b->plain_ns[n_decode] = average(b->plain_ns[n_decode], (double)duration_ns);
        /* A cost at which nobody drafts would stay for ever. */
        if (b->draft_token_ns > 0)
            b->draft_token_ns += (DRAFT_COST_FIRST * (double)duration_ns - b->draft_token_ns) / DRAFT_COST_FORGOTTEN;
    }
    if (n_decode > 0)
        prompt_ns -= b->decode_step_ns;
    if (n_prompt >= SLICE_TOKENS_MEASURED && prompt_ns > 0)
        b->ns_per_prompt_token = average(b->ns_per_prompt_token, prompt_ns / n_prompt);
    if (n_draft == 0)
        batch_foretell_learn(b, (double)duration_ns, n_prompt >= SLICE_TOKENS_MEASURED ? prompt_ns : 0, n_prompt,
                             n_decode);
    b->plan.n_slices = 0;
}

static void undo(struct batch *b, struct batch_request *r)
{
    r->n_found = 0;
    set_pages(b, r, pages_for(b, r->n_fed));
}

void batch_step_failed(struct batch *b)
{
    for (size_t i = 0; i < b->plan.n_slices; i++)
        undo(b, b->slices[i].request);
    b->plan.n_slices = 0;
}

struct batch_request *batch_drop_one(struct batch *b)
{
    struct batch_request *r = worst_keeper(b);

    if (r) {
        drop_keeper(b, r);
        return r;
    }
    for (uint32_t i = b->n_actives; i-- > 1;)
        if (b->actives[i]->n_pages > 0) {
            r = b->actives[i];
            out_of_actives(b, r);
            r->state = BATCH_WAITING;
            fair_wait(b->fair, &r->item);
            set_pages(b, r, 0);
            r->n_fed = 0;
            return r;
        }
    return NULL;
}

struct batch_request *batch_trim(struct batch *b, uint32_t n_pages)
{
    struct batch_request *r = pages_free(b) < n_pages ? worst_keeper(b) : NULL;

    if (r)
        drop_keeper(b, r);
    return r;
}

size_t batch_n_new(const struct batch *b)
{
    return b->n_new;
}

uint32_t batch_n_active(const struct batch *b)
{
    return b->n_actives;
}

size_t batch_n_idle(const struct batch *b)
{
    return b->n_requests - b->n_actives;
}

uint32_t batch_pages_used(const struct batch *b)
{
    return b->pages_used;
}
