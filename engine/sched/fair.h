/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Who is next: weighted fair queueing over tenants by virtual time (virtual token counters with lift, VTC,
 * arXiv 2401.00588, counted in measured time instead of tokens).
 *
 * A tenant's virtual time is the cost that it has caused, divided by its weight. The tenant with the smallest
 * one among those that wait is served next. A tenant that comes back after a pause is lifted to the smallest
 * virtual time of those that are there: what it did not use is not saved up, so nobody can hoard, and a
 * newcomer starts level with the others. Only one that was away for no more than half a second's worth of its share
 * keeps its place: it would lose a part of it with each request otherwise.
 *
 * Tenants of a class (a group that the policy gives a total weight) count with at most the class's weight
 * together: the effective weight of each shrinks when the sum of those who are there exceeds it.
 *
 * Used twice: by batch.h for the model's time, and by the worker for the helper thread that renders and
 * tokenises. Pure: no clock, no I/O. Every decision is O(log tenants) or O(log requests of one tenant). One
 * thread.
 *
 * Invariants: waiting holds exactly the tenants with a waiting item, active those with an active one, present
 * the union; nothing fails but fair_new(), fair_tenant_set() and fair_join().
 */

#include <stdint.h>

#include "base/cleanup.h"
#include "engine/sched/heap.h"

#define FAIR_WEIGHT_DEFAULT 100

/* By so much virtual time a tenant with nothing running goes before those who have something: half a second at the
 * default weight. A user who always has one request would else wait, one time of two, until one with many has caught
 * up. It is a constant, so it shifts when somebody is served, not how much anybody gets. */
#define FAIR_HEAD_START (UINT64_C(500000000) * FAIR_VIRTUAL_SCALE / FAIR_WEIGHT_DEFAULT)
/* Virtual time is kept in units of 1/FAIR_VIRTUAL_SCALE ns per unit of weight: fine enough for weights of a million,
 * and at weight 1 the counter lasts for nine years of computing. */
#define FAIR_VIRTUAL_SCALE 64

#define FAIR_PARTED_MAX 2048

struct fair_class;

struct fair_tenant {
    uint32_t id;
    uint64_t mark; /* set by its owner: who it is when numbers are given anew (fair_part_all()); 0: nobody said */
    uint32_t weight;
    struct fair_class *tenant_class; /* NULL: none */
    uint64_t virtual_time;
    uint64_t cost_ns;    /* all that was charged, for accounts */
    struct heap waiting; /* of fair_item, best first */
    uint32_t n_items;    /* that joined and have not left */
    uint32_t n_active;
    uint64_t pages_max; /* of the KV cache; UINT64_MAX: no limit */
    uint64_t n_pages;   /* held, kept by batch.h */
    bool blocked;       /* fair_block() */
    bool forgotten;     /* fair_forget(): gone with its last item */
    uint64_t gone_ns, stay_ns; /* when its last request ended, and how long that one stayed; kept by batch.h */
    double returns;            /* how often it was back soon after that, lately: 0 … 1 */
    double work_ns;            /* scratch of foretell.c: what its requests still cost */
    size_t i_waiting, i_active, i_present;
    struct fair_tenant *next; /* in its hash chain */
};

/* Embedded in what is scheduled. */
struct fair_item {
    struct fair_tenant *tenant; /* NULL before fair_join() */
    int32_t priority;           /* within the tenant, higher first */
    uint64_t arrival;           /* order among equals; set by fair_join() */
    bool active;
    size_t i_waiting;
};

struct fair;

/**
 * fair_new() - no tenants, nothing waits. Returns 0 or -ENOMEM
 */
int fair_new(struct fair **ret);

/**
 * fair_free() - all items must have left; takes NULL, returns NULL
 */
struct fair *fair_free(struct fair *f);

DEFINE_CLEANUP(struct fair *, fair_free)

/**
 * fair_tenant_set() - what the policy says of a tenant, at any time
 * @weight:       >= 1
 * @class_id:     0: none
 * @class_weight: >= 1 with a class
 * @ret:          may be NULL; the tenant, which lives until it is forgotten
 * Returns 0 or -ENOMEM.
 */
int fair_tenant_set(struct fair *f, uint32_t id, uint32_t weight, uint32_t class_id, uint32_t class_weight,
                    struct fair_tenant **ret);

/**
 * fair_tenant_find() - the tenant, NULL if nobody has heard of it
 */
struct fair_tenant *fair_tenant_find(struct fair *f, uint32_t id);

/**
 * fair_forget() - nothing is kept of a tenant, at once or as soon as its last item has left; nothing happens for an
 * unknown one. One that comes back is new.
 */
void fair_forget(struct fair *f, uint32_t id);

/**
 * fair_forget_all() - the same for all tenants
 */
void fair_forget_all(struct fair *f);

/**
 * fair_part_all() - numbers mean nothing from now on: tenants with a mark are kept without one, the others forgotten
 * No item is left of any. At most FAIR_PARTED_MAX are kept, those of the last call before older ones.
 */
void fair_part_all(struct fair *f);

/**
 * fair_rejoin() - number @id, which nobody has, is whoever has this mark: with what it has used and is due
 * Nothing happens when nobody has it. O(tenants without a number), once for each.
 */
void fair_rejoin(struct fair *f, uint32_t id, uint64_t mark);

/**
 * fair_n_tenants() - tenants that are known
 */
size_t fair_n_tenants(const struct fair *f);

/**
 * fair_join() - a new item of @tenant_id (made with the default weight if it is new); it does not wait yet
 * Returns 0 or -ENOMEM.
 */
int fair_join(struct fair *f, struct fair_item *item, uint32_t tenant_id, int32_t priority);

/**
 * fair_leave() - the item is gone: done, or cancelled, from whatever place
 */
void fair_leave(struct fair *f, struct fair_item *item);

/**
 * fair_wait() - put a joined item in its tenant's queue; one that was active is not any more
 */
void fair_wait(struct fair *f, struct fair_item *item);

/**
 * fair_activate() - take an item from the queue (or from aside) into service
 */
void fair_activate(struct fair *f, struct fair_item *item);

/**
 * fair_set_aside() - neither waiting nor active (paused by its reader)
 */
void fair_set_aside(struct fair *f, struct fair_item *item);

/**
 * fair_next() - the waiting item to serve next, NULL if none waits
 */
struct fair_item *fair_next(const struct fair *f);

/**
 * fair_block() - leave @tenant out of fair_next() until fair_unblock(), whatever it has waiting
 */
void fair_block(struct fair *f, struct fair_tenant *tenant);

/**
 * fair_unblock() - the reverse
 */
void fair_unblock(struct fair *f, struct fair_tenant *tenant);

/**
 * fair_furthest() - the active tenant with the largest virtual time, NULL if none is active
 */
struct fair_tenant *fair_furthest(const struct fair *f);

/**
 * fair_is_due() - whether @tenant is ahead of whoever is furthest behind by no more than a head start
 */
bool fair_is_due(const struct fair *f, const struct fair_tenant *tenant);

/**
 * fair_charge() - @tenant has caused this much
 */
void fair_charge(struct fair *f, struct fair_tenant *tenant, uint64_t cost_ns);

/**
 * fair_lead_ns() - by how much cost of its own @a is ahead of @b; negative: behind
 */
int64_t fair_lead_ns(const struct fair_tenant *a, const struct fair_tenant *b);

/**
 * fair_cost_to_virtual() - the virtual time that a cost is for this tenant, at its present effective weight
 */
uint64_t fair_cost_to_virtual(const struct fair_tenant *tenant, uint64_t cost_ns);

/**
 * fair_item_before() - whether @a is served before @b when both are of one tenant
 */
bool fair_item_before(const struct fair_item *a, const struct fair_item *b);

/**
 * fair_present() - the tenants that have something waiting or active, in no particular order; [*ret_n] borrowed
 */
struct fair_tenant *const *fair_present(const struct fair *f, size_t *ret_n);

/**
 * fair_waiting() - the tenants that have something waiting, in no particular order; [*ret_n] borrowed
 */
struct fair_tenant *const *fair_waiting(const struct fair *f, size_t *ret_n);
