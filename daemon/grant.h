/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Memory that the budget gave to a model. It counts from before it is taken until it is gone: the model, its residency
 * (until that is unmapped) and its workers (until each process has ended) all hold the grant, and whoever is last gives
 * it back.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "daemon/budget.h"
#include "daemon/gpus.h"

/* All that there are; the owner is told when one has been given back. */
struct grants {
    struct list all; /* of struct grant */
    void (*came_back)(void *userdata);
    void *userdata;
};

struct grant {
    struct list entry;
    struct grants *owner;
    unsigned n_refs;
    bool is_given;   /* from here on it counts */
    bool is_leaving; /* its model has let go; what is left is on its way out */
    bool is_stuck;   /* … for so long that nobody waits for it any more */
    uint64_t left_us; /* when the last worker with it was let go of, or its model let go; 0: neither */
    struct budget_memory memory; /* what is asked for, then given; the list of files is its own */
    uint64_t vram_bytes[GPUS_MAX]; /* of GPUs, by number: counts as soon as it is planned */
};

/**
 * grant_new() - of nothing, and not given yet
 * Returns 0 or -ENOMEM.
 */
int grant_new(struct grants *owner, struct grant **ret);

/**
 * grant_ref() - one more who holds it
 */
struct grant *grant_ref(struct grant *g);

/**
 * grant_unref() - takes NULL; a struct grant, untyped so that it can be what is called at the end of something
 */
void grant_unref(void *grant);

/**
 * grant_leave() - the model's own: from here on it is on its way out. Takes NULL, returns NULL
 */
struct grant *grant_leave(struct grant *g);

/**
 * grant_set() - @own_bytes that nobody else has, and what is held of @files [@n_files], which may be others' too
 * Returns 0, or -ENOMEM and nothing has changed.
 */
int grant_set(struct grant *g, uint64_t own_bytes, const struct budget_file *files, size_t n_files);

/**
 * grant_bytes() - that are given, in all; 0 for NULL
 */
uint64_t grant_bytes(const struct grant *g);
