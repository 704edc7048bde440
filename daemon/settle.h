/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What requests of an earlier daemon have used that it may not have written into the ledger, because it was killed:
 * their workers went on, and say so to the daemon that takes them over. It goes into the ledger under the number that
 * the request had, so what is there already does not count twice; and what is new, against the quotas of the day of the
 * user and of the groups as a whole that the user database says it is in (what the connection's own groups were beyond
 * those, only the daemon knew that had it). What waits for an answer when the daemon ends the next one hears again.
 */

#include <sys/types.h>

#include "engine/proto/worker-proto.h"

struct manager;
struct model;

/**
 * settle_used() - a worker of @model says what a request of @uid has used
 */
void settle_used(struct model *model, uid_t uid, const struct packet_used *used);

/**
 * settle_done() - the ledger's answers are not waited for any more
 */
void settle_done(struct manager *m);
