/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A model that is larger than the memory it may have: part of its matrices stays there, the rest is read from the file
 * ahead of the operation that needs it, in the order in which operations run, and let go behind it.
 *
 * All matrices are needed once a step, so it does not matter for the time which of them stay, only how many bytes; an
 * even mixture keeps the device busy while what stays is computed with. Plain mapping lets the kernel choose, and it
 * chooses badly: what was used last is what will be needed last again, so going round a file that is larger than
 * memory, each page has just been thrown out when it is needed.
 *
 * Matrices of experts are read when a token has been routed to them, and kept while there is room (ahead-experts.h).
 * Rows of the embedding are read when they are touched.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "engine/graph/ops.h"

struct ahead;

/* One matrix of one operation. */
struct ahead_piece {
    size_t i_op;
    const uint8_t *data; /* in the mapping of the file */
    uint64_t n_bytes;
    bool stays;
};

/* A mapped file. */
struct ahead_file {
    const uint8_t *data;
    uint64_t n_bytes;
    int fd; /* borrowed for ahead_new() */
};

struct ahead_config {
    const struct graph *graph;      /* borrowed for the life, as the mappings are */
    const struct ahead_file *files; /* [n_files] where its matrices lie */
    size_t n_files;
    uint64_t bytes_max; /* of matrices in memory, at any time */
    bool lock;          /* mlock what stays */
};

/**
 * ahead_plan() - which matrices stay in memory
 * @ret_window: how many bytes of the others may be there at the same time
 * @ret:        [*ret_n] in the order of operations, the caller frees it
 * Returns 0; -ENOSPC: @bytes_max is less than twice what the largest operation needs, *ret_window is that; -ENOMEM.
 */
int ahead_plan(const struct graph *g, uint64_t bytes_max, struct ahead_piece **ret, size_t *ret_n,
               uint64_t *ret_window);

/**
 * ahead_new() - read in what stays, and begin to read what the first operations need
 * Dense matrices come first; what is left, and at least one token's experts of one layer, is for experts.
 * @ret_needed: with -ENOSPC, what bytes_max would have to be
 * Returns 0; -ENOSPC, -ENOMEM, -EAGAIN (no thread), or what mlock(2) says.
 */
int ahead_new(const struct ahead_config *config, struct ahead **ret, uint64_t *ret_needed);

/**
 * ahead_free() - end its thread; takes NULL, returns NULL. What stayed is unlocked with its mapping
 */
struct ahead *ahead_free(struct ahead *a);

DEFINE_CLEANUP(struct ahead *, ahead_free)

/**
 * ahead_wait() - until all that operation @i_op needs is in memory; by the thread that leads a step
 */
void ahead_wait(struct ahead *a, size_t i_op);

/**
 * ahead_need_experts() - after ahead_wait(), of an operation with experts: until @active [@n] of them are in memory
 */
void ahead_need_experts(struct ahead *a, size_t i_op, const uint32_t *active, uint32_t n);

/**
 * ahead_done() - operation @i_op, and all before it, need nothing any more
 */
void ahead_done(struct ahead *a, size_t i_op);

/**
 * ahead_step_end() - the step is over, whether it came to its end or not: the next begins with the first operation
 */
void ahead_step_end(struct ahead *a);

/**
 * ahead_bytes_locked() - of what stays, and of experts those that are in memory now
 */
uint64_t ahead_bytes_locked(const struct ahead *a);

/**
 * ahead_bytes_read() - of what does not stay, since it was made; each step reads them once, and experts that it misses
 */
uint64_t ahead_bytes_read(struct ahead *a);
