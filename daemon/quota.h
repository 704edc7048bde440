/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Quotas over time: requests_per_minute, tokens_per_minute and tokens_per_day, of users and of groups as a whole. What
 * is held at one moment (connections, requests, memory) is account.h's.
 *
 * A request counts against several parties: its user, and each group of the user's that has a total. It
 * begins when there is room for it with all of them, takes what it may need at most, and gives back at its
 * end what it did not. Where the need is not known exactly (a prompt's tokens are counted by the worker
 * only) it is estimated, and what was used beyond it is owed: it has to run off before the next request
 * begins.
 *
 * A minute is a bucket that empties steadily: whoever used all of it waits for as much to run off as is
 * asked for, not for the next full minute. What is reserved runs off like what is used, so a wait that was
 * said is true whatever the user's other requests do; and what has run off is not given back a second time.
 * A day ends at local midnight; what was reserved before does not count in the next.
 *
 * Pure: the time is handed in. One thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "policy/policy.h"

struct quotas;

/* What is not limited is POLICY_UNLIMITED. */
struct quota_limits {
    uint64_t requests_per_minute, tokens_per_minute, tokens_per_day;
};

struct quota_party {
    uint64_t id;      /* uid, or LEDGER_GROUP | gid */
    const char *name; /* NULL for a user; for a group "groups.NAME.total.": what stands before the key in an error */
    struct quota_limits limits;
};

struct quota_time {
    uint64_t now_us;  /* CLOCK_MONOTONIC */
    int64_t wall_ms;  /* since 1970 */
    int64_t day_s;    /* when the present day began, since 1970, and when it ends (calendar.h) */
    int64_t next_day_s;
};

/* What a request has taken: embedded in it. */
struct quota_hold {
    struct quota_taken {
        uint64_t id;
        uint64_t tokens_per_minute; /* its limit */
        int64_t day_s;
    } *parties; /* [n_parties] */
    size_t n_parties;
    uint64_t tokens; /* reserved with each */
    uint64_t at_us;
};

#define QUOTA_HOLD_NULL ((struct quota_hold){.parties = NULL})

enum { QUOTA_FULL = 1 };

/**
 * quotas_new() - nothing is used yet
 */
int quotas_new(struct quotas **ret);

/**
 * quotas_free() - takes NULL, returns NULL
 */
struct quotas *quotas_free(struct quotas *q);

DEFINE_CLEANUP(struct quotas *, quotas_free)

/**
 * quotas_tokens_max() - how large a request may be at all: a larger one fits into no bucket, however long it waits
 * Returns tokens, POLICY_UNLIMITED: any number.
 */
uint64_t quotas_tokens_max(const struct quota_party *parties, size_t n);

/**
 * quotas_take() - a request begins that may need @tokens with each of @parties
 * More than fits into a bucket counts as all of it (see quotas_tokens_max()).
 * @may_fit: whether it is known to fit into the buckets; only then is a time said after which it does
 * @hold:    QUOTA_HOLD_NULL before; filled on success, to be ended with quotas_settle() or quotas_give_back()
 * @reterr:  QuotaExceeded, of the quota that takes longest: a client that waits retry_after_ms fits with all of them
 * Returns 0; QUOTA_FULL (nothing was taken); -ENOMEM.
 */
int quotas_take(struct quotas *q, const struct quota_time *t, const struct quota_party *parties, size_t n,
                uint64_t tokens, bool may_fit, struct quota_hold *hold, struct fault *reterr);

/**
 * quotas_settle() - the request is over and has used @tokens of the day in which it began; empties @hold
 */
void quotas_settle(struct quotas *q, const struct quota_time *t, uint64_t tokens, struct quota_hold *hold);

/**
 * quotas_give_back() - it did not begin after all: as if it had not been asked; empties @hold
 */
void quotas_give_back(struct quotas *q, const struct quota_time *t, struct quota_hold *hold);

/**
 * quotas_add_day() - @id used so much of the present day before the service was started. Returns 0 or -ENOMEM.
 */
int quotas_add_day(struct quotas *q, const struct quota_time *t, uint64_t id, uint64_t tokens);

struct quota_used {
    uint64_t requests_per_minute, tokens_per_minute, tokens_per_day;      /* reserved included */
    uint64_t requests_renew_ms, tokens_renew_ms, day_renew_ms; /* until all of it is there again */
};

/**
 * quotas_used() - how it stands with @party
 */
void quotas_used(struct quotas *q, const struct quota_time *t, const struct quota_party *party, struct quota_used *ret);

/**
 * quotas_ids() - everybody who used something since the start or today, in order
 * @ret: [*ret_n], the caller's. Returns 0 or -ENOMEM.
 */
int quotas_ids(const struct quotas *q, uint64_t **ret, size_t *ret_n);
