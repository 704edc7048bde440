/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Buckets store what is used, not what is left, so that another policy's limit holds at once for what was used before.
 * They count in parts of 1/60,000,000 of a request or token: a limit of L a minute makes L parts run off in each
 * microsecond, without rounding.
 */
#include "daemon/quota.h"
#include "policy/quota.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PARTS UINT64_C(60000000)
/* Larger buckets, 77 thousand million tokens, would not fit into 64 bits with room for sums; nobody empties them. */
#define BUCKET_MAX (UINT64_MAX / 4 / PARTS)

struct bucket {
    uint64_t used; /* in parts; may be above the limit */
    uint64_t at_us; /* when that was so */
};

struct entry {
    uint64_t id;
    struct bucket requests, tokens;
    int64_t day_s;                    /* the day that the next two are of */
    uint64_t day_used, day_reserved; /* tokens */
};

struct quotas {
    struct entry *entries; /* [n_entries] sorted by id */
    size_t n_entries, allocated;
};

int quotas_new(struct quotas **ret)
{
    struct quotas *q = calloc(1, sizeof(*q));

    if (!q)
        return -ENOMEM;
    *ret = q;
    return 0;
}

struct quotas *quotas_free(struct quotas *q)
{
    if (!q)
        return NULL;
    free(q->entries);
    free(q);
    return NULL;
}

static size_t position(const struct quotas *q, uint64_t id)
{
    size_t low = 0, high = q->n_entries;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (q->entries[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct entry *find(const struct quotas *q, uint64_t id)
{
    size_t i = position(q, id);

    return i < q->n_entries && q->entries[i].id == id ? &q->entries[i] : NULL;
}

static int make(struct quotas *q, uint64_t id)
{
    size_t i = position(q, id);

    if (i < q->n_entries && q->entries[i].id == id)
        return 0;
    if (q->n_entries == q->allocated) {
        size_t want = 2 * q->allocated + 16;
        struct entry *grown = reallocarray(q->entries, want, sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        q->entries = grown;
        q->allocated = want;
    }
    memmove(q->entries + i + 1, q->entries + i, (q->n_entries - i) * sizeof(*q->entries));
    q->entries[i] = (struct entry){.id = id};
    q->n_entries++;
    return 0;
}

/* ---- buckets ---- */

static bool is_limited(uint64_t limit)
{
    return limit <= BUCKET_MAX;
}

/* What has run off until now has. Without a limit all of it does. */
static void run_off(struct bucket *b, uint64_t limit, uint64_t now_us)
{
    uint64_t parts;

    if (now_us < b->at_us)
        return;
    if (!is_limited(limit) || __builtin_mul_overflow(now_us - b->at_us, limit, &parts) || parts >= b->used)
        b->used = 0;
    else
        b->used -= parts;
    b->at_us = now_us;
}

static uint64_t parts_of(uint64_t amount)
{
    return amount > BUCKET_MAX ? BUCKET_MAX * PARTS : amount * PARTS;
}

static uint64_t whole_of(const struct bucket *b)
{
    return (b->used + PARTS - 1) / PARTS;
}

/* How long until @amount more fits, in ms; 0: it does. UINT64_MAX: never. */
static uint64_t wait_ms(const struct bucket *b, uint64_t limit, uint64_t amount)
{
    uint64_t needed = b->used + parts_of(amount), us;

    if (!is_limited(limit))
        return 0;
    if (amount > limit)
        return UINT64_MAX;
    if (needed <= limit * PARTS)
        return 0;
    us = (needed - limit * PARTS + limit - 1) / limit;
    return (us + 999) / 1000;
}

static uint64_t renew_ms(const struct bucket *b, uint64_t limit)
{
    if (!is_limited(limit) || limit == 0 || b->used == 0)
        return 0;
    return ((b->used + limit - 1) / limit + 999) / 1000;
}

static void put(struct bucket *b, uint64_t amount)
{
    uint64_t sum;

    if (__builtin_add_overflow(b->used, parts_of(amount), &sum) || sum > UINT64_MAX / 2)
        sum = UINT64_MAX / 2;
    b->used = sum;
}

static void take_out(struct bucket *b, uint64_t amount)
{
    uint64_t parts = parts_of(amount);

    b->used = parts < b->used ? b->used - parts : 0;
}

/* ---- taking ---- */

/* The day of @e is the present one. A clock that was set back does not make a day begin again. */
static void turn_day(struct entry *e, const struct quota_time *t)
{
    if (t->day_s <= e->day_s)
        return;
    e->day_s = t->day_s;
    e->day_used = e->day_reserved = 0;
}

static void bring_up(struct entry *e, const struct quota_limits *limits, const struct quota_time *t)
{
    run_off(&e->requests, limits->requests_per_minute, t->now_us);
    run_off(&e->tokens, limits->tokens_per_minute, t->now_us);
    turn_day(e, t);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t quotas_tokens_max(const struct quota_party *parties, size_t n)
{
    uint64_t max = POLICY_UNLIMITED;

    for (size_t i = 0; i < n; i++)
        max = least(max, least(parties[i].limits.tokens_per_minute, parties[i].limits.tokens_per_day));
    return max;
}

static uint64_t until_next_day_ms(const struct quota_time *t)
{
    int64_t left = t->next_day_s * 1000 - t->wall_ms;

    return left > 0 ? (uint64_t)left : 1;
}

/* The quota that is waited for longest, so far. */
struct refusal {
    enum policy_quota_key key;
    const struct quota_party *party;
    uint64_t limit, used, wait_ms;
    bool given;
};

static void consider(struct refusal *r, const struct quota_party *party, enum policy_quota_key key, uint64_t limit,
                     uint64_t used, uint64_t wait)
{
    if (wait > 0 && (!r->given || wait > r->wait_ms))
        *r = (struct refusal){
            .key = key, .party = party, .limit = limit, .used = used, .wait_ms = wait, .given = true};
}

static void consider_party(struct refusal *r, struct entry *e, const struct quota_party *party,
                           const struct quota_time *t, uint64_t tokens)
{
    const struct quota_limits *l = &party->limits;
    uint64_t day, day_wait = 0;

    bring_up(e, l, t);
    day = e->day_used + e->day_reserved;
    if (l->tokens_per_day != POLICY_UNLIMITED && (day > l->tokens_per_day || tokens > l->tokens_per_day - day))
        day_wait = tokens > l->tokens_per_day ? UINT64_MAX : until_next_day_ms(t);
    consider(r, party, POLICY_QUOTA_REQUESTS_PER_MINUTE, l->requests_per_minute, whole_of(&e->requests) + 1,
             wait_ms(&e->requests, l->requests_per_minute, 1));
    if (tokens > 0)
        consider(r, party, POLICY_QUOTA_TOKENS_PER_MINUTE, l->tokens_per_minute, whole_of(&e->tokens) + tokens,
                 wait_ms(&e->tokens, l->tokens_per_minute, tokens));
    consider(r, party, POLICY_QUOTA_TOKENS_PER_DAY, l->tokens_per_day, day + tokens, tokens > 0 ? day_wait : 0);
}

static int64_t as_int(uint64_t n)
{
    return n > INT64_MAX ? INT64_MAX : (int64_t)n;
}

static void set_fault(const struct refusal *r, bool may_fit, struct fault *reterr)
{
    char name[192];

    snprintf(name, sizeof(name), "%s%s", r->party->name ? r->party->name : "", policy_quota_key_name(r->key));
    fault_init(reterr, FAULT_QUOTA_EXCEEDED, name);
    if (!reterr)
        return;
    reterr->limit = as_int(r->limit);
    reterr->used = as_int(r->used);
    if (r->wait_ms != UINT64_MAX && (may_fit || r->key == POLICY_QUOTA_REQUESTS_PER_MINUTE))
        reterr->retry_after_ms = as_int(r->wait_ms);
}

int quotas_take(struct quotas *q, const struct quota_time *t, const struct quota_party *parties, size_t n,
                uint64_t tokens, bool may_fit, struct quota_hold *hold, struct fault *reterr)
{
    _cleanup_free_ struct quota_taken *taken = calloc(n ? n : 1, sizeof(*taken));
    struct refusal refusal = {.given = false};

    assert(!hold->parties);
    if (!taken)
        return -ENOMEM;
    tokens = least(tokens, quotas_tokens_max(parties, n));
    for (size_t i = 0; i < n; i++) {
        if (make(q, parties[i].id) < 0)
            return -ENOMEM;
        consider_party(&refusal, find(q, parties[i].id), &parties[i], t, tokens);
    }
    if (refusal.given) {
        set_fault(&refusal, may_fit, reterr);
        return QUOTA_FULL;
    }
    for (size_t i = 0; i < n; i++) {
        struct entry *e = find(q, parties[i].id);

        put(&e->requests, 1);
        put(&e->tokens, tokens);
        e->day_reserved += tokens;
        taken[i] = (struct quota_taken){
            .id = e->id, .tokens_per_minute = parties[i].limits.tokens_per_minute, .day_s = e->day_s};
    }
    *hold = (struct quota_hold){
        .parties = TAKE_PTR(taken), .n_parties = n, .tokens = tokens, .at_us = t->now_us};
    return 0;
}

/*
 * The bucket had all of the reservation at its beginning. What of it was not used comes out again, less what
 * has run off in the meantime: that may have been this very part, and else a user who reserves much and uses
 * little would wash away with it what others of its requests use.
 */
static void correct(struct bucket *b, uint64_t limit, uint64_t reserved, uint64_t used, uint64_t elapsed_us)
{
    uint64_t parts = parts_of(reserved), gone;

    if (used >= reserved) {
        put(b, used - reserved);
        return;
    }
    if (!is_limited(limit) || __builtin_mul_overflow(elapsed_us, limit, &gone) ||
        __builtin_add_overflow(gone, parts_of(used), &gone) || gone >= parts)
        return;
    b->used -= least(parts - gone, b->used);
}

static void end(struct quotas *q, const struct quota_time *t, uint64_t tokens, bool began, struct quota_hold *hold)
{
    for (size_t i = 0; i < hold->n_parties; i++) {
        const struct quota_taken *taken = &hold->parties[i];
        struct entry *e = find(q, taken->id);

        turn_day(e, t);
        run_off(&e->tokens, taken->tokens_per_minute, t->now_us);
        correct(&e->tokens, taken->tokens_per_minute, hold->tokens, tokens, t->now_us - hold->at_us);
        if (e->day_s == taken->day_s) {
            e->day_reserved -= least(hold->tokens, e->day_reserved);
            e->day_used += tokens;
        }
        if (!began)
            take_out(&e->requests, 1);
    }
    free(hold->parties);
    *hold = QUOTA_HOLD_NULL;
}

void quotas_settle(struct quotas *q, const struct quota_time *t, uint64_t tokens, struct quota_hold *hold)
{
    end(q, t, tokens, /* began= */ true, hold);
}

void quotas_give_back(struct quotas *q, const struct quota_time *t, struct quota_hold *hold)
{
    end(q, t, 0, /* began= */ false, hold);
}

int quotas_add_day(struct quotas *q, const struct quota_time *t, uint64_t id, uint64_t tokens)
{
    struct entry *e;

    if (make(q, id) < 0)
        return -ENOMEM;
    e = find(q, id);
    turn_day(e, t);
    e->day_used += tokens;
    return 0;
}

void quotas_used(struct quotas *q, const struct quota_time *t, const struct quota_party *party, struct quota_used *ret)
{
    struct entry *e = find(q, party->id);

    *ret = (struct quota_used){.day_renew_ms = until_next_day_ms(t)};
    if (!e)
        return;
    bring_up(e, &party->limits, t);
    ret->requests_per_minute = whole_of(&e->requests);
    ret->tokens_per_minute = whole_of(&e->tokens);
    ret->tokens_per_day = e->day_used + e->day_reserved;
    ret->requests_renew_ms = renew_ms(&e->requests, party->limits.requests_per_minute);
    ret->tokens_renew_ms = renew_ms(&e->tokens, party->limits.tokens_per_minute);
}

int quotas_ids(const struct quotas *q, uint64_t **ret, size_t *ret_n)
{
    uint64_t *ids = calloc(q->n_entries + 1, sizeof(*ids));

    if (!ids)
        return -ENOMEM;
    for (size_t i = 0; i < q->n_entries; i++)
        ids[i] = q->entries[i].id;
    *ret = ids;
    *ret_n = q->n_entries;
    return 0;
}
