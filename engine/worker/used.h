/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What requests have used that ended lately, or ended because another daemon took over: it may not be in the ledger,
 * since the daemon that had them may not have lived to write it there. So the next one hears of all of them (USED);
 * what the ledger has already it does not take a second time. Compute thread.
 */

#include <stdint.h>

#include "engine/proto/worker-proto.h"

struct link;
struct work;

/* A daemon that is killed is back within a second or two; in that time more requests hardly end. */
#define USED_MAX 1024
/* Far less than the ledger remembers whom it has (two days). */
#define USED_AGE_NS UINT64_C(3600000000000)

struct used {
    struct used_entry {
        struct packet_used what; /* but for age_ns */
        uint64_t received_ns, ended_ns;
    } entries[USED_MAX]; /* the first n_noted, until it is full; then the oldest one is overwritten */
    uint64_t n_noted;
};

/**
 * used_note() - @w is over, with what @done says. Whoever has not begun has used nothing
 */
void used_note(struct used *u, const struct work *w, const struct packet_done *done, uint64_t now_ns);

/**
 * used_tell() - send all that is not too old to the daemon of @epoch
 */
void used_tell(const struct used *u, struct link *l, uint64_t epoch, uint64_t now_ns);
