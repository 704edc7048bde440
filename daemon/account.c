/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Accounts in an array sorted by uid; found by bisection, made with the first charge, gone with the last. Thousands of
 * users are tens of kilobytes to move on insertion, which happens once per user's arrival.
 */
#include "daemon/account.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct account {
    struct accounts *owner;
    uid_t uid;
    size_t n_charges; /* that point here; the account goes with the last */
    uint64_t used[ACCOUNT_SLOT_MAX];
};

struct accounts {
    struct account **entries; /* [n_entries] sorted by uid; pointers, since charges point at accounts */
    size_t n_entries, allocated;
};

int accounts_new(struct accounts **ret)
{
    struct accounts *a = calloc(1, sizeof(*a));

    if (!a)
        return -ENOMEM;
    *ret = a;
    return 0;
}

struct accounts *accounts_free(struct accounts *a)
{
    if (!a)
        return NULL;
    assert(a->n_entries == 0);
    free(a->entries);
    free(a);
    return NULL;
}

/* Index of the first account with at least @uid. */
static size_t position(const struct accounts *a, uid_t uid)
{
    size_t low = 0, high = a->n_entries;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (a->entries[middle]->uid < uid)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct account *find(const struct accounts *a, uid_t uid)
{
    size_t i = position(a, uid);

    return i < a->n_entries && a->entries[i]->uid == uid ? a->entries[i] : NULL;
}

static int get(struct accounts *a, uid_t uid, struct account **ret)
{
    size_t i = position(a, uid);
    struct account *account;

    if (i < a->n_entries && a->entries[i]->uid == uid) {
        *ret = a->entries[i];
        return 0;
    }
    if (a->n_entries == a->allocated) {
        size_t want = a->allocated * 2 + 16;
        struct account **grown = reallocarray(a->entries, want, sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        a->entries = grown;
        a->allocated = want;
    }
    account = calloc(1, sizeof(*account));
    if (!account)
        return -ENOMEM;
    account->owner = a;
    account->uid = uid;
    memmove(a->entries + i + 1, a->entries + i, (a->n_entries - i) * sizeof(*a->entries));
    a->entries[i] = account;
    a->n_entries++;
    *ret = account;
    return 0;
}

static void drop(struct account *account)
{
    struct accounts *a = account->owner;
    size_t i = position(a, account->uid);

    for (size_t slot = 0; slot < ACCOUNT_SLOT_MAX; slot++)
        assert(account->used[slot] == 0);
    memmove(a->entries + i, a->entries + i + 1, (a->n_entries - i - 1) * sizeof(*a->entries));
    a->n_entries--;
    free(account);
}

static bool fits(uint64_t used, uint64_t amount, uint64_t limit)
{
    uint64_t sum;

    return !__builtin_add_overflow(used, amount, &sum) && sum <= limit;
}

int account_charge(struct accounts *a, uid_t uid, enum account_slot slot, uint64_t amount, uint64_t limit,
                   struct account_charge *charge)
{
    struct account *account;
    int r;

    assert(!charge->account);
    if (!fits(account_used(a, uid, slot), amount, limit))
        return ACCOUNT_FULL;
    r = get(a, uid, &account);
    if (r < 0)
        return r;
    account->used[slot] += amount;
    account->n_charges++;
    *charge = (struct account_charge){.account = account, .slot = slot, .amount = amount};
    return 0;
}

int account_resize(struct account_charge *charge, uint64_t amount, uint64_t limit)
{
    uint64_t others;

    assert(charge->account && charge->account->used[charge->slot] >= charge->amount);
    others = charge->account->used[charge->slot] - charge->amount;
    if (amount > charge->amount && !fits(others, amount, limit))
        return ACCOUNT_FULL;
    charge->account->used[charge->slot] = others + amount;
    charge->amount = amount;
    return 0;
}

int account_move(struct account_charge *charge, enum account_slot slot, uint64_t limit)
{
    struct account *account = charge->account;

    assert(account && account->used[charge->slot] >= charge->amount);
    if (slot == charge->slot)
        return 0;
    if (!fits(account->used[slot], charge->amount, limit))
        return ACCOUNT_FULL;
    account->used[charge->slot] -= charge->amount;
    account->used[slot] += charge->amount;
    charge->slot = slot;
    return 0;
}

int account_rehome(struct account_charge *charge, uid_t uid, uint64_t limit)
{
    struct account_charge moved = ACCOUNT_CHARGE_NULL;
    int r;

    assert(charge->account);
    if (charge->account->uid == uid)
        return 0;
    r = account_charge(charge->account->owner, uid, charge->slot, charge->amount, limit, &moved);
    if (r != 0)
        return r;
    account_discharge(charge);
    *charge = moved;
    return 0;
}

void account_discharge(struct account_charge *charge)
{
    struct account *account = charge->account;

    if (!account)
        return;
    assert(account->used[charge->slot] >= charge->amount);
    account->used[charge->slot] -= charge->amount;
    *charge = ACCOUNT_CHARGE_NULL;
    if (--account->n_charges == 0)
        drop(account);
}

uint64_t account_used(const struct accounts *a, uid_t uid, enum account_slot slot)
{
    const struct account *account = find(a, uid);

    return account ? account->used[slot] : 0;
}

uint64_t account_share(const struct accounts *a, uid_t uid, enum account_slot slot, uint64_t pool)
{
    uint64_t used = 0, n = 2, left;

    for (size_t i = 0; i < a->n_entries; i++) {
        const struct account *other = a->entries[i];

        if (other->uid == uid || other->used[slot] == 0)
            continue;
        used += other->used[slot];
        n++;
    }
    if (used >= pool)
        return 0;
    left = pool - used;
    return left / n > 0 ? left / n : 1;
}

int accounts_list(const struct accounts *a, struct account_status **ret, size_t *ret_n)
{
    struct account_status *list = calloc(a->n_entries ? a->n_entries : 1, sizeof(*list));
    size_t n = 0;

    if (!list)
        return -ENOMEM;
    for (size_t i = 0; i < a->n_entries; i++) {
        if (a->entries[i]->uid == ACCOUNT_UNKNOWN)
            continue;
        list[n].uid = a->entries[i]->uid;
        memcpy(list[n++].used, a->entries[i]->used, sizeof(list->used));
    }
    *ret = list;
    *ret_n = n;
    return 0;
}
