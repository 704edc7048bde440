/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Which sequences get a draft before the next step, from where, and how long it is (engine/sched/speculate.h says
 * why). First comes what the answer's form (a grammar, a schema) leaves no choice about, then what a sequence's own
 * text offers, which both cost nothing; then the draft model, if there is one. Compute thread.
 */

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct batch;
struct drafts;
struct model;
struct work;

/**
 * drafts_new() - room for the drafts of all sequences of @model_borrow, which outlives it
 * Returns 0 or -ENOMEM.
 */
int drafts_new(const struct model *model_borrow, struct drafts **ret);

/**
 * drafts_free() - takes NULL, returns NULL
 */
struct drafts *drafts_free(struct drafts *d);

DEFINE_CLEANUP(struct drafts *, drafts_free)

/**
 * drafts_make() - write drafts behind the tokens of those that have just got one, and set their batch.n_draft
 * @sampled: [n_sampled] those that go on; at most config.sequences
 * What the draft model's time costs is charged to their tenants.
 */
void drafts_make(struct drafts *d, struct batch *b, struct work *const *sampled, size_t n_sampled);

/**
 * drafts_learn() - of the draft of @n_drafted tokens with which @w was computed, the first @n_right were right
 */
void drafts_learn(struct work *w, uint32_t n_drafted, uint32_t n_right);
