/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Whom a worker knows by which number. A uid gets a number with its first request, counted up and never used twice
 * while the worker lives, so nothing that the worker still holds of one user can come to another. Users that have had
 * nothing with the worker for long are forgotten on both sides: at most TENANTS_IDLE_MAX of them are kept.
 *
 * One thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

/* A forgotten user begins anew: no prefix is kept, and its share is level with the others. */
#define TENANTS_IDLE_MAX 1024

/* Less than this is told together with what comes next: a packet for each step would be one for each few tokens. */
#define TENANTS_SPENT_NS UINT64_C(20000000)

struct tenants;

/* What the policy says of a user, as the scheduler in the worker uses it. */
struct tenant_rules {
    uint32_t weight;
    uint64_t kv_max_bytes; /* 0: no limit */
    uint32_t tenant_class; /* 0: none; else with class_weight > 0 */
    uint32_t class_weight;
};

/**
 * tenants_new() - nobody is known. Returns 0 or -ENOMEM
 */
int tenants_new(struct tenants **ret);

/**
 * tenants_free() - takes NULL, returns NULL
 */
struct tenants *tenants_free(struct tenants *t);

DEFINE_CLEANUP(struct tenants *, tenants_free)

/**
 * tenants_begin() - @uid hands in a request
 * @request:     not known yet
 * @ret_number:  from 1
 * @ret_changed: whether the worker has to be told @rules first
 * Returns 0 or -ENOMEM.
 */
int tenants_begin(struct tenants *t, uid_t uid, uint64_t request, const struct tenant_rules *rules,
                  uint32_t *ret_number, bool *ret_changed);

/**
 * tenants_end() - the worker is through with a request; nothing happens if it is not known
 */
void tenants_end(struct tenants *t, uint64_t request);

/**
 * tenants_excess() - somebody whom the worker should forget, too: forgotten here with this call; 0: nobody
 */
uint32_t tenants_excess(struct tenants *t);

/**
 * tenants_uid() - whom a number stands for; false for one that was never given, or is forgotten
 */
bool tenants_uid(const struct tenants *t, uint32_t number, uid_t *ret);

/**
 * tenants_set_pages() - what a user holds of the KV cache now; 0 when its last request is over
 */
void tenants_set_pages(struct tenants *t, uint32_t number, uint32_t n_pages);

/**
 * tenants_pages() - as it was said last; 0 for one who is not known
 */
uint32_t tenants_pages(const struct tenants *t, uid_t uid);

/**
 * tenants_spend() - @uid was computed something elsewhere, which took @cost_ns
 * @ret_ns: all that its worker was not told yet
 * Returns the number of the user; 0: it has no request here, or it is too little to be told now.
 */
uint32_t tenants_spend(struct tenants *t, uid_t uid, uint64_t cost_ns, uint64_t *ret_ns);

/**
 * tenants_count() - users that are known
 */
size_t tenants_count(const struct tenants *t);
