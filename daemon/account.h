/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What each user holds of the service at this moment: one account per uid, one number per slot, and a charge object
 * for everything held, so that giving back can't be forgotten or done twice. Limits come from the policy at the time
 * of charging. An account exists while somebody holds something of it (or a reference); the end of the accounts
 * asserts that everything was given back.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

struct account;
struct accounts;

enum account_slot {
    ACCOUNT_CONNECTIONS,
    ACCOUNT_REQUESTS, /* handed to a worker */
    ACCOUNT_QUEUED,   /* admitted, waiting in the daemon; pipelined calls too */
    ACCOUNT_KV,       /* bytes that requests which run may take at most */
    ACCOUNT_FDS,      /* that came with frames and wait to be taken */
    ACCOUNT_BYTES,    /* of frames and replies that are buffered */
    ACCOUNT_SLOT_MAX,
};

/* Embedded in whatever holds the resource; starts as ACCOUNT_CHARGE_NULL. */
struct account_charge {
    struct account *account; /* NULL: nothing is charged */
    enum account_slot slot;
    uint64_t amount;
};

#define ACCOUNT_CHARGE_NULL ((struct account_charge){.account = NULL})

enum { ACCOUNT_FULL = 1 };

/**
 * accounts_new() - no account yet
 */
int accounts_new(struct accounts **ret);

/**
 * accounts_free() - asserts that every charge was given back; takes NULL, returns NULL
 */
struct accounts *accounts_free(struct accounts *a);

DEFINE_CLEANUP(struct accounts *, accounts_free)

/**
 * account_charge() - @uid takes @amount of @slot, if it then holds at most @limit (UINT64_MAX: no limit)
 * @charge: must be empty; filled on success and given back by account_discharge()
 * Returns 0, ACCOUNT_FULL (nothing was charged), -ENOMEM.
 */
int account_charge(struct accounts *a, uid_t uid, enum account_slot slot, uint64_t amount, uint64_t limit,
                   struct account_charge *charge);

/**
 * account_resize() - change what a charge holds, within @limit; shrinking always works
 * @charge must not be empty. Returns 0 or ACCOUNT_FULL.
 */
int account_resize(struct account_charge *charge, uint64_t amount, uint64_t limit);

/**
 * account_move() - the same thing now counts in another slot, if that one has room up to @limit
 * Returns 0 or ACCOUNT_FULL (nothing changed).
 */
int account_move(struct account_charge *charge, enum account_slot slot, uint64_t limit);

/**
 * account_rehome() - the same thing is @uid's from now on, if it then holds at most @limit
 * Returns 0; ACCOUNT_FULL or -ENOMEM (nothing changed).
 */
int account_rehome(struct account_charge *charge, uid_t uid, uint64_t limit);

/**
 * account_discharge() - give back; an empty charge is left alone
 */
void account_discharge(struct account_charge *charge);

/**
 * account_used() - what @uid holds of @slot; 0 for a uid without an account
 */
uint64_t account_used(const struct accounts *a, uid_t uid, enum account_slot slot);

/**
 * account_share() - how much of @pool @uid may hold of @slot, by what others hold
 * What others have left is divided among all who hold some and one who may come: whoever is alone gets half, and the
 * more there are the less each may add; a newcomer finds at least 1 as long as there is any.
 */
uint64_t account_share(const struct accounts *a, uid_t uid, enum account_slot slot, uint64_t pool);

/* Whoever is not known: what its connections hold while they are told so. */
#define ACCOUNT_UNKNOWN ((uid_t)-1)

/* One line of Status' users. */
struct account_status {
    uid_t uid;
    uint64_t used[ACCOUNT_SLOT_MAX];
};

/**
 * accounts_list() - everybody who holds something, in order of uid, but ACCOUNT_UNKNOWN
 * @ret: [*ret_n], owned by the caller (free()). Returns 0 or -ENOMEM.
 */
int accounts_list(const struct accounts *a, struct account_status **ret, size_t *ret_n);
