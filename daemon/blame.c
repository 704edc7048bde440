/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/blame.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "policy/policy.h"

struct entry {
    char model[POLICY_NAME_MAX + 1];
    uid_t uid;
    unsigned n_crashes;
    uint64_t last_us, until_us;
};

struct blame {
    size_t n;
    struct entry entries[BLAME_ENTRIES_MAX]; /* [n] in no order */
};

int blame_new(struct blame **ret)
{
    struct blame *b = calloc(1, sizeof(*b));

    if (!b)
        return -ENOMEM;
    *ret = b;
    return 0;
}

struct blame *blame_free(struct blame *b)
{
    free(b);
    return NULL;
}

static const struct entry *find(const struct blame *b, const char *model, uid_t uid)
{
    for (size_t i = 0; i < b->n; i++) {
        if (b->entries[i].uid == uid && strcmp(b->entries[i].model, model) == 0)
            return &b->entries[i];
    }
    return NULL;
}

static struct entry *make(struct blame *b)
{
    struct entry *oldest = &b->entries[0];

    if (b->n < BLAME_ENTRIES_MAX)
        return &b->entries[b->n++];
    for (size_t i = 1; i < b->n; i++) {
        if (b->entries[i].last_us < oldest->last_us)
            oldest = &b->entries[i];
    }
    return oldest;
}

static uint64_t delay_us(unsigned n_crashes)
{
    uint64_t us = BLAME_DELAY_FIRST_US;

    if (n_crashes < 2)
        return 0;
    for (unsigned i = 2; i < n_crashes && us < BLAME_DELAY_MAX_US; i++)
        us *= 2;
    return us < BLAME_DELAY_MAX_US ? us : BLAME_DELAY_MAX_US;
}

static void suspect(struct blame *b, const char *model, uid_t uid, uint64_t now_us)
{
    struct entry *e = (struct entry *)find(b, model, uid);

    if (!e) {
        e = make(b);
        *e = (struct entry){.uid = uid};
        memccpy(e->model, model, 0, sizeof(e->model) - 1);
    }
    if (e->n_crashes > 0 && now_us - e->last_us > BLAME_FORGET_US)
        e->n_crashes = 0;
    e->n_crashes++;
    e->last_us = now_us;
    e->until_us = now_us + delay_us(e->n_crashes);
}

static bool is_first(const uid_t *uids, size_t i)
{
    for (size_t k = 0; k < i; k++) {
        if (uids[k] == uids[i])
            return false;
    }
    return true;
}

void blame_crash(struct blame *b, const char *model, const uid_t *uids, size_t n, uint64_t now_us)
{
    for (size_t i = 0; i < n; i++) {
        if (is_first(uids, i))
            suspect(b, model, uids[i], now_us);
    }
}

uint64_t blame_delay_us(const struct blame *b, const char *model, uid_t uid, uint64_t now_us)
{
    const struct entry *e = find(b, model, uid);

    return e && e->until_us > now_us ? e->until_us - now_us : 0;
}
