/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Experts of a model that is larger than the memory it may have. Which of them a token needs is known when it has been
 * routed, not before; so as many stay in memory as there is room for, those that were needed most often lately, and the
 * others are read when they are asked for: all that one layer's tokens need at the same time. Private to ahead*.c.
 *
 * One thread, the one that leads a step.
 */

#include <stdint.h>

#include "base/cleanup.h"
#include "engine/cpu/ahead-memory.h"

struct experts;

/**
 * experts_bytes() - of all experts' matrices
 * @ret_at_least: what the experts of one token take in the layer where that is most
 */
uint64_t experts_bytes(const struct graph *g, uint64_t *ret_at_least);

/**
 * experts_new() - fill memory with as many as there is room for, of all layers alike
 * @files:     borrowed for the life
 * @bytes_max: of experts in memory
 * Returns 0 or -ENOMEM.
 */
int experts_new(const struct ahead_config *config, const struct ahead_files *files, uint64_t bytes_max,
                struct experts **ret);

/**
 * experts_free() - takes NULL, returns NULL
 */
struct experts *experts_free(struct experts *e);

DEFINE_CLEANUP(struct experts *, experts_free)

/**
 * experts_need() - have experts @active [@n] of operation @i_op in memory, and begin to read those of the next one
 * Of those that there is no room for, reading begins; they are let go of with the next call.
 */
void experts_need(struct experts *e, size_t i_op, const uint32_t *active, uint32_t n);

/**
 * experts_bytes_locked(), experts_bytes_read() - locked now; read since they were made
 */
uint64_t experts_bytes_locked(const struct experts *e);
uint64_t experts_bytes_read(const struct experts *e);
