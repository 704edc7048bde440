/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two hash tables over the users (by uid and by number), one over requests that are with the worker, and a list of
 * users that have none there, the longest idle first.
 */
#include "daemon/tenants.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"

#define BUCKETS 1024 /* of each table: users and requests of one model are some thousands at most */

struct tenant {
    struct list by_uid, by_number, by_idle;
    uid_t uid;
    uint32_t number;
    uint32_t n_requests;
    uint32_t n_pages; /* tenants_set_pages() */
    uint64_t spent_ns; /* elsewhere, and not told yet; 0 without requests */
    struct tenant_rules rules;
};

struct begun {
    struct list entry;
    uint64_t request;
    struct tenant *tenant;
};

struct tenants {
    struct list by_uid[BUCKETS], by_number[BUCKETS], begun[BUCKETS];
    struct list idle;
    size_t n_tenants, n_idle;
    uint32_t last_number;
};

int tenants_new(struct tenants **ret)
{
    struct tenants *t = calloc(1, sizeof(*t));

    if (!t)
        return -ENOMEM;
    for (size_t i = 0; i < BUCKETS; i++) {
        list_init(&t->by_uid[i]);
        list_init(&t->by_number[i]);
        list_init(&t->begun[i]);
    }
    list_init(&t->idle);
    *ret = t;
    return 0;
}

static void forget(struct tenants *t, struct tenant *tenant)
{
    list_remove(&tenant->by_uid);
    list_remove(&tenant->by_number);
    list_remove(&tenant->by_idle);
    t->n_tenants--;
    free(tenant);
}

struct tenants *tenants_free(struct tenants *t)
{
    if (!t)
        return NULL;
    for (size_t i = 0; i < BUCKETS; i++) {
        while (!list_is_empty(&t->begun[i])) {
            struct begun *b = list_entry(t->begun[i].next, struct begun, entry);

            list_remove(&b->entry);
            free(b);
        }
        while (!list_is_empty(&t->by_uid[i]))
            forget(t, list_entry(t->by_uid[i].next, struct tenant, by_uid));
    }
    free(t);
    return NULL;
}

static struct tenant *find_uid(const struct tenants *t, uid_t uid)
{
    const struct list *bucket = &t->by_uid[uid % BUCKETS];

    for (struct list *l = bucket->next; l != bucket; l = l->next) {
        struct tenant *tenant = list_entry(l, struct tenant, by_uid);

        if (tenant->uid == uid)
            return tenant;
    }
    return NULL;
}

static struct tenant *tenant_new(struct tenants *t, uid_t uid)
{
    struct tenant *tenant = calloc(1, sizeof(*tenant));

    if (!tenant)
        return NULL;
    tenant->uid = uid;
    tenant->number = ++t->last_number;
    list_init(&tenant->by_idle);
    list_append(&t->by_uid[uid % BUCKETS], &tenant->by_uid);
    list_append(&t->by_number[tenant->number % BUCKETS], &tenant->by_number);
    t->n_tenants++;
    return tenant;
}

static bool same(const struct tenant_rules *a, const struct tenant_rules *b)
{
    return a->weight == b->weight && a->kv_max_bytes == b->kv_max_bytes && a->tenant_class == b->tenant_class &&
           a->class_weight == b->class_weight;
}

int tenants_begin(struct tenants *t, uid_t uid, uint64_t request, const struct tenant_rules *rules,
                  uint32_t *ret_number, bool *ret_changed)
{
    struct begun *b = malloc(sizeof(*b));
    struct tenant *tenant = b ? find_uid(t, uid) : NULL;

    assert(rules->weight > 0); /* a new one has 0, so that its rules have changed */
    if (b && !tenant)
        tenant = tenant_new(t, uid);
    if (!tenant) {
        free(b);
        return -ENOMEM;
    }
    if (!list_is_empty(&tenant->by_idle)) {
        list_remove(&tenant->by_idle);
        t->n_idle--;
    }
    *b = (struct begun){.request = request, .tenant = tenant};
    list_append(&t->begun[request % BUCKETS], &b->entry);
    tenant->n_requests++;
    *ret_changed = !same(&tenant->rules, rules);
    tenant->rules = *rules;
    *ret_number = tenant->number;
    return 0;
}

void tenants_end(struct tenants *t, uint64_t request)
{
    const struct list *bucket = &t->begun[request % BUCKETS];

    for (struct list *l = bucket->next; l != bucket; l = l->next) {
        struct begun *b = list_entry(l, struct begun, entry);
        struct tenant *tenant = b->tenant;

        if (b->request != request)
            continue;
        list_remove(&b->entry);
        free(b);
        if (--tenant->n_requests == 0) {
            tenant->n_pages = 0;
            tenant->spent_ns = 0;
            list_append(&t->idle, &tenant->by_idle);
            t->n_idle++;
        }
        return;
    }
}

uint32_t tenants_excess(struct tenants *t)
{
    struct tenant *tenant;
    uint32_t number;

    if (t->n_idle <= TENANTS_IDLE_MAX)
        return 0;
    tenant = list_entry(t->idle.next, struct tenant, by_idle);
    number = tenant->number;
    t->n_idle--;
    forget(t, tenant);
    return number;
}

static struct tenant *find_number(const struct tenants *t, uint32_t number)
{
    const struct list *bucket = &t->by_number[number % BUCKETS];

    for (struct list *l = bucket->next; l != bucket; l = l->next) {
        struct tenant *tenant = list_entry(l, struct tenant, by_number);

        if (tenant->number == number)
            return tenant;
    }
    return NULL;
}

bool tenants_uid(const struct tenants *t, uint32_t number, uid_t *ret)
{
    const struct tenant *tenant = find_number(t, number);

    if (!tenant)
        return false;
    *ret = tenant->uid;
    return true;
}

void tenants_set_pages(struct tenants *t, uint32_t number, uint32_t n_pages)
{
    struct tenant *tenant = find_number(t, number);

    /* What a worker says of somebody who has nothing with it any more is late. */
    if (tenant && tenant->n_requests > 0)
        tenant->n_pages = n_pages;
}

uint32_t tenants_pages(const struct tenants *t, uid_t uid)
{
    const struct tenant *tenant = find_uid(t, uid);

    return tenant ? tenant->n_pages : 0;
}

uint32_t tenants_spend(struct tenants *t, uid_t uid, uint64_t cost_ns, uint64_t *ret_ns)
{
    struct tenant *tenant = find_uid(t, uid);

    if (!tenant || tenant->n_requests == 0)
        return 0;
    if (__builtin_add_overflow(tenant->spent_ns, cost_ns, &tenant->spent_ns))
        tenant->spent_ns = UINT64_MAX;
    if (tenant->spent_ns < TENANTS_SPENT_NS)
        return 0;
    *ret_ns = tenant->spent_ns;
    tenant->spent_ns = 0;
    return tenant->number;
}

size_t tenants_count(const struct tenants *t)
{
    return t->n_tenants;
}
