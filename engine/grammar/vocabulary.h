/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A vocabulary as grammars look at it: the bytes of every token in flat tries, in pre-order, so that whatever
 * begins with bytes that are not allowed is skipped in one step; and, for long runs of ordinary text, which
 * tokens consist of nothing but it. Made once per model, constant afterwards, shared by all threads.
 *
 * Runs: characters are put into classes that contain each other (lower case ⊂ letters ⊂ … ⊂ all that may
 * stand inside a JSON string as it is). A token belongs to the smallest class that all its characters are in.
 * Where a grammar allows any text of a class, up to some length, all its tokens of that length are allowed,
 * without a look at each of them.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct grammar_vocabulary;

/**
 * grammar_vocabulary_piece - the bytes of a token in a text; 0 for those that stand for none, and for control
 * tokens, which text must never match
 */
typedef size_t (*grammar_vocabulary_piece)(const void *userdata, int32_t token, const char **ret);

/**
 * grammar_vocabulary_is_end - whether a token ends an answer
 */
typedef bool (*grammar_vocabulary_is_end)(const void *userdata, int32_t token);

/**
 * grammar_vocabulary_new() - read the tokens 0 ... n_tokens - 1 by the two functions; nothing is borrowed
 * @n_mask_tokens: bits of the masks, n_tokens or more: a model may have more logits than its tokenizer has
 * tokens Returns 0 or -ENOMEM. Takes about 0.1 s and 12 MB for 128k tokens.
 */
int grammar_vocabulary_new(uint32_t n_tokens, uint32_t n_mask_tokens, grammar_vocabulary_piece piece,
                           grammar_vocabulary_is_end is_end, const void *userdata,
                           struct grammar_vocabulary **ret);

/**
 * grammar_vocabulary_free() - takes NULL, returns NULL
 */
struct grammar_vocabulary *grammar_vocabulary_free(struct grammar_vocabulary *v);

DEFINE_CLEANUP(struct grammar_vocabulary *, grammar_vocabulary_free)
