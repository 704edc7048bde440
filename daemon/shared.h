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

struct shared {
    struct list entry;
    uint64_t n_bytes;
    int *fds; /* [n_fds] descriptors of the service's own, one a file that somebody else still has */
    size_t n_fds;
    char model[];
};

/**
 * shared_keep() - what of a loaded copy others have, in case they do; called before it is released
 * @list: of struct shared, gets what is left
 * @model: its name, for the log; copied
 * Returns the bytes that stay in memory, 0: nobody else has any; without memory to keep books nothing is kept, either.
 */
uint64_t shared_keep(struct list *list, const struct residency *r, const char *model);

/**
 * shared_look() - forget those that nobody has any more
 * Returns the bytes of memory that came back.
 */
uint64_t shared_look(struct list *list);

/**
 * shared_bytes() - of all on the list
 */
uint64_t shared_bytes(const struct list *list);

/**
 * shared_done() - close and forget all of them
 */
void shared_done(struct list *list);
