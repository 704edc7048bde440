/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A restart that reloads nothing. Under systemd, where workers are units of their own, each ready worker's link, the
 * copies of its files and a snapshot of what they are lie in the file descriptor store, all the time: a daemon that is
 * killed needs no last words. The next one takes them back before it serves anybody.
 *
 * Whatever does not fit (the policy has changed, a file, the process, the snapshot) is thrown away and loaded as usual.
 * So is everything at the third start in a minute without an orderly end in between: what was left might be the cause.
 *
 * Requests are not handed over. After SIGTERM they finish or end with ShuttingDown; those of a daemon that was killed
 * ended with their connections. The worker forgets them with RESET, and with them its tenants and what they are due:
 * all users start level, as they do whenever nobody waits.
 */

#include <stdint.h>

#include "daemon/snapshot.h"

struct handover;
struct manager;
struct model;

/**
 * handover_new() - see what an earlier daemon left
 * Before any worker or model is made. Without systemd, or where workers are children, nothing was left and nothing is.
 * Returns 0 or a negative errno.
 */
int handover_new(struct manager *m, struct handover **ret);

/**
 * handover_free() - takes NULL, returns NULL; what lies in the store stays there
 */
struct handover *handover_free(struct handover *h);

/**
 * handover_mark_key() - the key of users' marks: that of the daemon before, if it left one; borrowed
 */
const struct mark_key *handover_mark_key(const struct handover *h);

/**
 * handover_epoch() - an epoch above that of the daemon before
 */
uint64_t handover_epoch(const struct handover *h, uint64_t now_us);

/**
 * handover_take_back() - once the models of the policy are there: go on with those that were left, drop the rest
 */
void handover_take_back(struct handover *h);

/**
 * handover_changed() - a model became ready, or was let go: the store is brought up to date from the loop
 */
void handover_changed(struct manager *m);

/**
 * handover_forget_link(), handover_forget_copies() - the model's worker or its files go: out of the store with them
 */
void handover_forget_link(struct model *model);
void handover_forget_copies(struct model *model);

/**
 * handover_keep_shared() - put those of the manager's shared copies into the store that are not there yet
 * handover_forget_shared() - out with one that nobody has any more
 */
void handover_keep_shared(struct handover *h);
void handover_forget_shared(struct handover *h, uint64_t id);

/**
 * handover_stopping() - this daemon ends in order: its start counts no more
 */
void handover_stopping(struct handover *h);

/**
 * handover_leave() - before models are freed: workers whose links are in the store are let go of, running
 */
void handover_leave(struct handover *h);
