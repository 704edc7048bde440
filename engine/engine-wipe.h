/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Leaving no traces: pages of keys and values are zeroed by themselves, what steps computed on the way is not.
 */

struct engine;

/**
 * engine_wipe() - zero what steps since the last call left in memory: activations, logits, states
 * For a caller whose sequence has ended. Between two steps; what engine_step(), engine_top() and engine_embeddings()
 * gave is gone. A GPU's memory is zeroed before its next step. Allocates nothing.
 */
void engine_wipe(struct engine *e);
