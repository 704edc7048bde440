/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Whether a model fits into what the administrator gave to all of them, and who has to leave for it. Pure: figures in,
 * a decision out.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A file that is locked in place: in memory once, however many models have it (one's draft may be another's own). Those
 * that hold part of it may hold the same part or another: what they hold together is at most all of it. */
struct budget_file {
    uint64_t device, inode, n_bytes, held_bytes;
};

struct budget_memory {
    uint64_t own_bytes; /* that nobody else has */
    const struct budget_file *files; /* [n_files] */
    size_t n_files;
};

/* A model that holds memory now. */
struct budget_holder {
    struct budget_memory memory;
    bool may_leave; /* on-demand, and nobody is using it */
    bool is_leaving; /* its memory is on the way out already */
    int32_t priority;
    uint64_t used_us; /* when it was last used, on any one clock */
    bool leaves;      /* result */
};

enum { BUDGET_TOO_SMALL = 1, BUDGET_LATER };

/**
 * budget_make_room() - choose which holders leave so that @needed fits beside the rest
 * Lowest priority first, then least recently used; nobody leaves if that would not be enough.
 * @ret_needed, @ret_available: on BUDGET_TOO_SMALL, the bytes that would be needed with everybody gone who may, and
 *                              those that there would be
 * Returns 0 (there is room now); BUDGET_LATER (once those that leave are gone); BUDGET_TOO_SMALL.
 */
int budget_make_room(uint64_t budget, const struct budget_memory *needed, struct budget_holder *holders,
                     size_t n_holders, uint64_t *ret_needed, uint64_t *ret_available);

/**
 * budget_used() - by all of them
 */
uint64_t budget_used(const struct budget_holder *holders, size_t n_holders);

/**
 * budget_stays() - what those hold who can't leave
 */
uint64_t budget_stays(const struct budget_holder *holders, size_t n_holders);

/**
 * budget_kept_bytes() - how much of @files is in memory by those who can't leave: it costs nobody else anything
 */
uint64_t budget_kept_bytes(const struct budget_holder *holders, size_t n_holders, const struct budget_file *files,
                           size_t n_files);

/**
 * budget_first_to_leave() - who would be chosen next; NULL: nobody may leave
 */
struct budget_holder *budget_first_to_leave(struct budget_holder *holders, size_t n_holders);

/**
 * budget_total_ram() - the machine's memory, or the limit of this process' memory cgroup where that is less
 */
uint64_t budget_total_ram(void);
