/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a tenant's requests computed is used again by its later ones (engine/engine-prefix.h): whose prefixes are
 * whose, and what is public. An owner is a user's mark, by which the next daemon knows it too, or a tenant of this
 * epoch where nobody said who that is; a request's own words never decide about it.
 *
 * Embeddings take no part: they need the states of all tokens. Compute thread.
 */

#include <stdbool.h>
#include <stdint.h>

#include "engine/sched/fair.h"

struct batch_slice;
struct engine;
struct model;
struct work;

/**
 * reuse_found() - how many of the first tokens of a request without pages need not be computed, less than it has
 */
uint32_t reuse_found(const struct engine *e, const struct work *w);

/**
 * reuse_begin() - the empty sequence of @w takes what was found for its slice
 */
void reuse_begin(struct engine *e, struct work *w, const struct batch_slice *s);

/**
 * reuse_keep() - a step is over, nothing of @w will be taken back any more: its full pages can be found from now on
 */
void reuse_keep(struct engine *e, const struct work *w);

/**
 * reuse_owner() - whose prefixes those of @tenant are: never the public's
 */
uint64_t reuse_owner(const struct fair_tenant *tenant);

/**
 * reuse_limit() - what is kept of @tenant is within its own limit again, in the draft model, too
 */
void reuse_limit(struct model *m, const struct fair_tenant *tenant);

/**
 * reuse_forget() - nothing of @tenant is kept any more; it has no sequence
 */
void reuse_forget(struct model *m, const struct fair_tenant *tenant);

/**
 * reuse_trim() - forget prefixes until @n_pages pages are free, and all that the draft model keeps
 */
void reuse_trim(struct model *m, uint32_t n_pages);

/**
 * reuse_found_public() - how many of these tokens of a public prefix are kept for everybody who uses @adapter (0: none)
 */
uint32_t reuse_found_public(const struct engine *e, uint32_t adapter, const int32_t *tokens, uint32_t n_tokens);

/**
 * reuse_begin_public() - an empty sequence begins with those; whether they are still there
 */
bool reuse_begin_public(struct engine *e, uint32_t sequence, uint32_t adapter, const int32_t *tokens,
                        uint32_t n_tokens);

/**
 * reuse_keep_public() - all full pages of the sequence are for everybody from now on
 */
void reuse_keep_public(struct engine *e, uint32_t sequence, const int32_t *tokens, uint32_t n_tokens);
