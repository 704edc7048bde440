/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A step cut into pieces that are computed one behind the other, so that a GPU works on one while the processor, or
 * another GPU, works on the next. Private to the engine's own files.
 */

#include <stdint.h>

#include "base/cleanup.h"
#include "engine/cpu/exec.h"

#define ENGINE_PIECES_MAX 4

/* Fewer tokens make products of matrices slower than what is gained. */
#define ENGINE_PIECE_TOKENS 128

struct engine_pieces;

/**
 * engine_pieces_new() - room for pieces of batches of at most @tokens_max tokens and @outputs_max outputs
 * @piece_tokens: none is shorter, but for the last one; at least 1
 * Returns 0 or -ENOMEM.
 */
int engine_pieces_new(uint32_t tokens_max, uint32_t outputs_max, uint32_t piece_tokens, struct engine_pieces **ret);

/**
 * engine_pieces_free() - takes NULL, returns NULL
 */
struct engine_pieces *engine_pieces_free(struct engine_pieces *p);

DEFINE_CLEANUP(struct engine_pieces *, engine_pieces_free)

/**
 * engine_pieces_cut() - cut @batch, or leave it as it is where nothing would be gained
 * @ret: [ENGINE_PIECES_MAX] batches that have to run in this order; valid until the next call, and as long as @batch
 * The last piece has all the outputs, in their order: tokens before a sequence's first output come before it. So the
 * logits of the last piece are those of the batch. Every token sees what it would have seen.
 * Returns how many there are.
 */
uint32_t engine_pieces_cut(struct engine_pieces *p, const struct exec_batch *batch, const struct exec_batch **ret);

/**
 * engine_pieces_forget() - zero what the pieces of the last cut held of users' tokens; they can't be run any more
 */
void engine_pieces_forget(struct engine_pieces *p);
