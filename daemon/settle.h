/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What requests of an earlier daemon have used that it may not have written into the ledger, because it was killed:
 * their workers went on, and say so to the daemon that takes them over. It goes into the ledger under the number that
 * the request had, so what is there already does not count twice; and what is new, against the user's quota of the day.
 * Totals of groups are not charged: which groups a request counted against, only the daemon knew that had it.
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
