/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Copies of models that other programs hold: a descriptor that Share gave away keeps its memory after the model has
 * left. Such a copy counts in the budget until its last holder is gone.
 */

#include <stddef.h>
#include <stdint.h>

#include "base/list.h"

struct residency;

/* One file's copy that somebody else has. */
struct shared {
    struct list entry;
    uint64_t n_bytes;
    uint64_t id; /* under which a restart finds it again (handover.h); 0: it would not */
    int fd;      /* the service's own */
};

/**
 * shared_keep() - what of a loaded copy others have, in case they do; called before it is released
 * @list: of struct shared, gets what is left
 * Returns the bytes that stay in memory, 0: nobody else has any; without memory to keep books nothing is kept, either.
 */
uint64_t shared_keep(struct list *list, const struct residency *r);

/**
 * shared_take() - a copy that an earlier daemon left, in case others have it
 * @fd_take: consumed; the earlier daemon's own
 * @id:      under which it was found, 0: it is not to be found there again
 * Returns its bytes, 0: it is no sealed copy, or nobody else has it.
 */
uint64_t shared_take(struct list *list, int fd_take, uint64_t id);

/* @id of one that is forgotten; never 0. */
typedef void (*shared_gone_t)(uint64_t id, void *userdata);

/**
 * shared_look() - forget those that nobody has any more
 * Returns the bytes of memory that came back.
 */
uint64_t shared_look(struct list *list, shared_gone_t gone, void *userdata);

/**
 * shared_bytes() - of all on the list
 */
uint64_t shared_bytes(const struct list *list);

/**
 * shared_done() - close and forget all of them
 */
void shared_done(struct list *list);
