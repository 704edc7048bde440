/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Prefixes that one owner's sequences computed, for that owner's later ones (engine/kv/prefix.h): a sequence that
 * begins like an earlier one shares its pages. By the rule of sums it comes to the same bits as if it had computed
 * them.
 *
 * What is kept takes pages that nobody else wants: engine_step() takes them back when it needs some.
 * ENGINE_PREFIX_PUBLIC is what may be shared by all owners; who says so, and what, is the caller's business.
 *
 * An encoder keeps nothing. Same thread as engine_step().
 */

#include <stdbool.h>
#include <stdint.h>

struct engine;

/* No owner of a sequence: whatever is not a prefix of something public has to be somebody's. */
#define ENGINE_PREFIX_PUBLIC UINT64_C(0)

/**
 * engine_prefix_find() - how many of these tokens a new sequence of @owner would not have to compute
 * @adapter: as engine_sequence_adapt()
 * @tokens:  [@n_tokens]
 * Returns a multiple of ENGINE_PAGE_TOKENS. O(n_tokens). Nothing changes.
 */
uint32_t engine_prefix_find(const struct engine *e, uint64_t owner, uint32_t adapter, const int32_t *tokens,
                            uint32_t n_tokens);

/**
 * engine_prefix_begin() - an empty sequence belongs to @owner from now on, and begins with what is kept of @tokens
 * @tokens: [@n_tokens]
 * @ret:    the length of the sequence then, as engine_prefix_find() says
 * Returns 0; -EINVAL for a sequence that is not open or not empty, and for ENGINE_PREFIX_PUBLIC.
 */
int engine_prefix_begin(struct engine *e, uint32_t sequence, uint64_t owner, const int32_t *tokens, uint32_t n_tokens,
                        uint32_t *ret);

/**
 * engine_prefix_keep() - the full pages of a sequence become findable
 * Between two steps, when no token of it will be taken back any more. O(new pages).
 * @tokens:   [engine_sequence_length()] all of its tokens, from the first one on
 * @n_public: so many of them, from the first one on, are no secret of the owner's: whole pages of them are for
 *            everybody
 * Returns 0; -EINVAL for a sequence that is not open or did not begin with engine_prefix_begin().
 */
int engine_prefix_keep(struct engine *e, uint32_t sequence, const int32_t *tokens, uint32_t n_public);

/**
 * engine_prefix_limit() - keep at most @n_pages pages of @owner, those used last; those of open sequences stay
 */
void engine_prefix_limit(struct engine *e, uint64_t owner, uint32_t n_pages);

/**
 * engine_prefix_trim() - forget prefixes until @n_pages pages are free, and give the memory of all free pages back
 */
void engine_prefix_trim(struct engine *e, uint32_t n_pages);

/**
 * engine_prefix_pages() - pages that are kept and that no sequence has; O(pages)
 */
uint32_t engine_prefix_pages(const struct engine *e);

/**
 * engine_prefix_owned() - pages of @owner that can be found, those of its open sequences included
 */
uint32_t engine_prefix_owned(const struct engine *e, uint64_t owner);
