/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Adapters of low rank (LoRA) in GGUF: general.type "adapter", adapter.type "lora", adapter.lora.alpha, and for each
 * matrix NAME that they change NAME.lora_a, [rank, n_cols], and NAME.lora_b, [n_rows, rank]. They are applied to
 * tokens, not to weights, so that sequences with different adapters and without any run in one step.
 *
 * The file is untrusted, as a model is: every tensor of it has to belong to a matrix of the model that can be adapted
 * and to have the shape that this asks for.
 */

#include <stddef.h>

#include "engine/arch/arch.h"

/* Above any published one; a product of such a rank would cost more than the matrix. */
#define ADAPT_RANK_MAX 1024u

/**
 * arch_adapt() - make room in a model's graph for adapters
 * @graph:    of arch_build(), not planned yet
 * @model:    what the graph was made of
 * @adapters: [@n_adapters] the directories of their files; borrowed like @model for the graph's life
 * @ret_i:    on -EINVAL: which one is wrong
 * @reterr:   FAULT_MODEL_INVALID on -EINVAL; may be NULL
 * Returns 0, -EINVAL, -ENOMEM.
 */
int arch_adapt(struct graph *graph, const struct gguf *model, const struct gguf *const *adapters, size_t n_adapters,
               const struct arch_target *target, size_t *ret_i, struct fault *reterr);
