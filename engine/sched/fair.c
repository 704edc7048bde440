/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/sched/fair.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* As much cost as a tenant may catch up on that was hardly away. Between two requests of somebody who sends one after
 * the other lies at least the step that began without it, which would add up to a part of its share. */
#define CREDIT_NS UINT64_C(500000000)

struct fair_class {
    uint32_t id;
    uint32_t weight;
    uint64_t weights_present; /* sum over its tenants that are in fair.present */
    struct fair_class *next;
};

struct fair {
    struct heap waiting, active, present;
    struct fair_tenant **buckets; /* [n_buckets], a power of two */
    size_t n_buckets, n_tenants;
    struct fair_tenant *parted; /* without a number, the last ones first; not in n_tenants */
    struct fair_class *classes;
    uint64_t n_arrivals;
    uint64_t floor; /* where newcomers start: the smallest virtual time of those present, never falling */
};

static bool behind(const void *a, const void *b)
{
    const struct fair_tenant *x = a, *y = b;

    if (x->virtual_time != y->virtual_time)
        return x->virtual_time < y->virtual_time;
    /* One that comes back is lifted level with another: the one that has nothing running goes first. */
    if (x->n_active != y->n_active)
        return x->n_active < y->n_active;
    return x->id < y->id;
}

/* Who is served next. */
static bool first_in_line(const void *a, const void *b)
{
    const struct fair_tenant *x = a, *y = b;
    __int128 u = x->virtual_time, v = y->virtual_time;

    u -= x->n_active == 0 ? FAIR_HEAD_START : 0;
    v -= y->n_active == 0 ? FAIR_HEAD_START : 0;
    return u != v ? u < v : behind(x, y);
}

static bool ahead(const void *a, const void *b)
{
    return behind(b, a);
}

bool fair_item_before(const struct fair_item *a, const struct fair_item *b)
{
    return a->priority != b->priority ? a->priority > b->priority : a->arrival < b->arrival;
}

static bool item_before(const void *a, const void *b)
{
    return fair_item_before(a, b);
}

int fair_new(struct fair **ret)
{
    struct fair *f = calloc(1, sizeof(*f));

    if (!f)
        return -ENOMEM;
    f->n_buckets = 64;
    f->buckets = calloc(f->n_buckets, sizeof(*f->buckets));
    if (!f->buckets) {
        free(f);
        return -ENOMEM;
    }
    heap_init(&f->waiting, first_in_line, offsetof(struct fair_tenant, i_waiting));
    heap_init(&f->active, ahead, offsetof(struct fair_tenant, i_active));
    heap_init(&f->present, behind, offsetof(struct fair_tenant, i_present));
    *ret = f;
    return 0;
}

static void drop_parted(struct fair_tenant **first)
{
    for (struct fair_tenant *t = *first, *next; t; t = next) {
        next = t->next;
        heap_done(&t->waiting);
        free(t);
    }
    *first = NULL;
}

struct fair *fair_free(struct fair *f)
{
    if (!f)
        return NULL;
    assert(f->present.n == 0);
    for (size_t i = 0; i < f->n_buckets; i++)
        for (struct fair_tenant *t = f->buckets[i], *next; t; t = next) {
            next = t->next;
            assert(t->n_items == 0);
            heap_done(&t->waiting);
            free(t);
        }
    drop_parted(&f->parted);
    for (struct fair_class *c = f->classes, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    heap_done(&f->waiting);
    heap_done(&f->active);
    heap_done(&f->present);
    free(f->buckets);
    free(f);
    return NULL;
}

static size_t bucket_of(const struct fair *f, uint32_t id)
{
    /* Ids are numbers that the daemon counts up, or uids: Fibonacci hashing spreads both. */
    return (size_t)((id * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (f->n_buckets - 1);
}

struct fair_tenant *fair_tenant_find(struct fair *f, uint32_t id)
{
    struct fair_tenant *t = f->buckets[bucket_of(f, id)];

    while (t && t->id != id)
        t = t->next;
    return t;
}

/* More buckets when chains grow long; without memory for them it stays as it is, only slower. */
static void grow_buckets(struct fair *f)
{
    struct fair_tenant **old = f->buckets, **buckets;
    size_t n_old = f->n_buckets;

    if (f->n_tenants < n_old)
        return;
    buckets = calloc(2 * n_old, sizeof(*buckets));
    if (!buckets)
        return;
    f->buckets = buckets;
    f->n_buckets = 2 * n_old;
    for (size_t i = 0; i < n_old; i++)
        for (struct fair_tenant *t = old[i], *next; t; t = next) {
            size_t b = bucket_of(f, t->id);

            next = t->next;
            t->next = f->buckets[b];
            f->buckets[b] = t;
        }
    free(old);
}

/* Room for one more. */
static int reserve(struct fair *f)
{
    return heap_reserve(&f->waiting, f->n_tenants + 1) < 0 || heap_reserve(&f->active, f->n_tenants + 1) < 0 ||
                   heap_reserve(&f->present, f->n_tenants + 1) < 0
               ? -ENOMEM
               : 0;
}

static void put_in_bucket(struct fair *f, struct fair_tenant *t)
{
    size_t b = bucket_of(f, t->id);

    t->next = f->buckets[b];
    f->buckets[b] = t;
    f->n_tenants++;
    grow_buckets(f);
}

static int tenant_new(struct fair *f, uint32_t id, struct fair_tenant **ret)
{
    struct fair_tenant *t;

    if (reserve(f) < 0)
        return -ENOMEM;
    t = calloc(1, sizeof(*t));
    if (!t)
        return -ENOMEM;
    t->id = id;
    t->weight = FAIR_WEIGHT_DEFAULT;
    t->virtual_time = f->floor;
    t->pages_max = UINT64_MAX;
    t->i_waiting = t->i_active = t->i_present = HEAP_NOWHERE;
    heap_init(&t->waiting, item_before, offsetof(struct fair_item, i_waiting));
    put_in_bucket(f, t);
    *ret = t;
    return 0;
}

static void tenant_free(struct fair *f, struct fair_tenant *t)
{
    struct fair_tenant **at = &f->buckets[bucket_of(f, t->id)];

    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    f->n_tenants--;
    heap_done(&t->waiting);
    free(t);
}

void fair_forget(struct fair *f, uint32_t id)
{
    struct fair_tenant *t = fair_tenant_find(f, id);

    if (!t)
        return;
    t->forgotten = true;
    if (t->n_items == 0)
        tenant_free(f, t);
}

void fair_forget_all(struct fair *f)
{
    for (size_t i = 0; i < f->n_buckets; i++)
        for (struct fair_tenant *t = f->buckets[i], *next; t; t = next) {
            next = t->next;
            fair_forget(f, t->id);
        }
}

void fair_part_all(struct fair *f)
{
    struct fair_tenant **end = &f->parted;
    size_t n = 0;

    for (size_t i = 0; i < f->n_buckets; i++)
        for (struct fair_tenant *t = f->buckets[i], *next; t; t = next) {
            next = t->next;
            assert(t->n_items == 0);
            if (t->mark == 0 || t->forgotten) {
                tenant_free(f, t);
                continue;
            }
            f->buckets[i] = next;
            f->n_tenants--;
            t->next = f->parted;
            f->parted = t;
        }
    while (*end && n++ < FAIR_PARTED_MAX)
        end = &(*end)->next;
    drop_parted(end);
}

void fair_rejoin(struct fair *f, uint32_t id, uint64_t mark)
{
    struct fair_tenant **at = &f->parted, *t;

    while (*at && (*at)->mark != mark)
        at = &(*at)->next;
    t = *at;
    if (!t || fair_tenant_find(f, id) || reserve(f) < 0)
        return;
    *at = t->next;
    t->id = id;
    put_in_bucket(f, t);
}

size_t fair_n_tenants(const struct fair *f)
{
    return f->n_tenants;
}

static int class_get(struct fair *f, uint32_t id, struct fair_class **ret)
{
    struct fair_class *c = f->classes;

    /* A handful: the groups of a policy. */
    while (c && c->id != id)
        c = c->next;
    if (!c) {
        c = calloc(1, sizeof(*c));
        if (!c)
            return -ENOMEM;
        c->id = id;
        c->next = f->classes;
        f->classes = c;
    }
    *ret = c;
    return 0;
}

int fair_tenant_set(struct fair *f, uint32_t id, uint32_t weight, uint32_t class_id, uint32_t class_weight,
                    struct fair_tenant **ret)
{
    struct fair_tenant *t = fair_tenant_find(f, id);
    struct fair_class *c = NULL;
    bool is_present;
    int r;

    assert(weight > 0 && (class_id == 0 || class_weight > 0));
    if (class_id != 0) {
        r = class_get(f, class_id, &c);
        if (r < 0)
            return r;
        c->weight = class_weight;
    }
    if (!t) {
        r = tenant_new(f, id, &t);
        if (r < 0)
            return r;
    }
    t->forgotten = false;
    is_present = t->i_present != HEAP_NOWHERE;
    if (is_present && t->tenant_class)
        t->tenant_class->weights_present -= t->weight;
    t->weight = weight;
    t->tenant_class = c;
    if (is_present && c)
        c->weights_present += weight;
    if (ret)
        *ret = t;
    return 0;
}

int fair_join(struct fair *f, struct fair_item *item, uint32_t tenant_id, int32_t priority)
{
    struct fair_tenant *t = fair_tenant_find(f, tenant_id);

    if (!t && tenant_new(f, tenant_id, &t) < 0)
        return -ENOMEM;
    if (heap_reserve(&t->waiting, (size_t)t->n_items + 1) < 0)
        return -ENOMEM;
    *item = (struct fair_item){
        .tenant = t, .priority = priority, .arrival = f->n_arrivals++, .i_waiting = HEAP_NOWHERE};
    t->n_items++;
    t->forgotten = false;
    return 0;
}

static void raise_floor(struct fair *f)
{
    const struct fair_tenant *t = heap_top(&f->present);

    if (t && t->virtual_time > f->floor)
        f->floor = t->virtual_time;
}

/* Puts the tenant in the heaps in which it belongs now. Its virtual time must not have changed since it was
 * put in. */
static void place(struct fair *f, struct fair_tenant *t)
{
    bool waits = t->waiting.n > 0, is_active = t->n_active > 0;
    bool was_present = t->i_present != HEAP_NOWHERE;

    if (!was_present && (waits || is_active)) {
        if (t->virtual_time < f->floor && f->floor - t->virtual_time > fair_cost_to_virtual(t, CREDIT_NS))
            t->virtual_time = f->floor;
        heap_push(&f->present, t);
        if (t->tenant_class)
            t->tenant_class->weights_present += t->weight;
    }
    heap_update(&f->present, t);
    heap_update(&f->waiting, t);
    heap_update(&f->active, t);
    if (waits && !t->blocked && t->i_waiting == HEAP_NOWHERE)
        heap_push(&f->waiting, t);
    if (!waits || t->blocked)
        heap_remove(&f->waiting, t);
    if (is_active && t->i_active == HEAP_NOWHERE)
        heap_push(&f->active, t);
    if (!is_active)
        heap_remove(&f->active, t);
    if (was_present && !waits && !is_active) {
        heap_remove(&f->present, t);
        if (t->tenant_class)
            t->tenant_class->weights_present -= t->weight;
        /* The last to leave takes no advantage with it: newcomers start where it stood. */
        if (f->present.n == 0 && t->virtual_time > f->floor)
            f->floor = t->virtual_time;
        raise_floor(f);
    }
}

static void take_out(struct fair_item *item)
{
    heap_remove(&item->tenant->waiting, item);
    if (item->active)
        item->tenant->n_active--;
    item->active = false;
}

void fair_leave(struct fair *f, struct fair_item *item)
{
    struct fair_tenant *t = item->tenant;

    if (!t)
        return;
    take_out(item);
    t->n_items--;
    item->tenant = NULL;
    place(f, t);
    if (t->forgotten && t->n_items == 0)
        tenant_free(f, t);
}

void fair_wait(struct fair *f, struct fair_item *item)
{
    take_out(item);
    heap_push(&item->tenant->waiting, item);
    place(f, item->tenant);
}

void fair_activate(struct fair *f, struct fair_item *item)
{
    take_out(item);
    item->active = true;
    item->tenant->n_active++;
    place(f, item->tenant);
}

void fair_set_aside(struct fair *f, struct fair_item *item)
{
    take_out(item);
    place(f, item->tenant);
}

void fair_block(struct fair *f, struct fair_tenant *t)
{
    t->blocked = true;
    place(f, t);
}

void fair_unblock(struct fair *f, struct fair_tenant *t)
{
    t->blocked = false;
    place(f, t);
}

struct fair_item *fair_next(const struct fair *f)
{
    const struct fair_tenant *t = heap_top(&f->waiting);

    return t ? heap_top(&t->waiting) : NULL;
}

struct fair_tenant *fair_furthest(const struct fair *f)
{
    return heap_top(&f->active);
}

uint64_t fair_cost_to_virtual(const struct fair_tenant *t, uint64_t cost_ns)
{
    const struct fair_class *c = t->tenant_class;
    unsigned __int128 v = (unsigned __int128)cost_ns * FAIR_VIRTUAL_SCALE;

    if (c && c->weights_present > c->weight)
        return (uint64_t)(v * c->weights_present / ((unsigned __int128)t->weight * c->weight));
    return (uint64_t)(v / t->weight);
}

bool fair_is_due(const struct fair *f, const struct fair_tenant *t)
{
    return t->virtual_time <= f->floor + FAIR_HEAD_START;
}

void fair_charge(struct fair *f, struct fair_tenant *t, uint64_t cost_ns)
{
    t->cost_ns += cost_ns;
    t->virtual_time += fair_cost_to_virtual(t, cost_ns);
    heap_update(&f->waiting, t);
    heap_update(&f->active, t);
    heap_update(&f->present, t);
    raise_floor(f);
}

int64_t fair_lead_ns(const struct fair_tenant *a, const struct fair_tenant *b)
{
    int64_t lead = (int64_t)(a->virtual_time - b->virtual_time);

    /* In terms of @a's own weight: how long it would have to rest for @b to come level. */
    return (int64_t)((__int128)lead * a->weight / FAIR_VIRTUAL_SCALE);
}

struct fair_tenant *const *fair_waiting(const struct fair *f, size_t *ret_n)
{
    *ret_n = f->waiting.n;
    return (struct fair_tenant *const *)(void *)f->waiting.items;
}

struct fair_tenant *const *fair_present(const struct fair *f, size_t *ret_n)
{
    *ret_n = f->present.n;
    return (struct fair_tenant *const *)(void *)f->present.items;
}
