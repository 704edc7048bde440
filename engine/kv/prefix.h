/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Prefixes that were computed before: a radix tree whose edges are full pages of tokens. A node is a page of 32 tokens
 * behind those of its parent, with the page of keys and values in each group of layers. Whoever begins with the same
 * tokens shares the pages instead of computing them.
 *
 * Nothing is shared between owners: a node belongs to one, and is found by that one only. What is public
 * (PREFIX_PUBLIC) is found by everybody, and an owner's nodes may hang from public ones. The key of a node is its
 * owner, its adapter and all tokens up to its end, compared themselves, never a hash of them. What else decides about
 * keys and values (the model, types of the cache, rope settings) is the same for all of one pool of pages.
 *
 * Layers with a window need a prefix's last pages only, and a sequence gives the others back; the tree keeps them as
 * long as there is room. So a node may lack its page in some group, and a prefix can be used up to where all pages are
 * there that its next token sees.
 *
 * The tree takes no page from anybody: it holds pages that sequences computed, and gives back, of the owner who has
 * most, what was used least lately as soon as somebody needs a page (prefix_evict()).
 *
 * Invariants
 * 1. A node's ancestors are there as long as it is.
 * 2. A page in the tree is full and never written again: it has more than one holder as soon as a sequence has it.
 * 3. In an owner's list a node stands behind its ancestors: the last one has no child of the same owner.
 * 4. A sequence's pages, as far as it was put in, are those of its nodes (but for what windows gave back). So all
 *    pages that no sequence holds can be evicted.
 *
 * Not thread-safe: the thread that runs steps.
 */

#include <stdint.h>

#include "base/cleanup.h"
#include "engine/kv/pages.h"

#define PREFIX_GROUPS_MAX 2
#define PREFIX_PUBLIC     UINT64_C(0)
#define PREFIX_NONE       UINT32_MAX /* no node: the empty prefix */

struct prefix;

struct prefix_config {
    uint32_t n_groups;
    struct pages *pools[PREFIX_GROUPS_MAX];  /* borrowed until prefix_free() */
    uint32_t windows[PREFIX_GROUPS_MAX];     /* tokens that a token sees, itself included; 0: all */
    uint32_t n_nodes_max;
    uint64_t seed; /* random: nobody can choose tokens that share a bucket of the hash table */
};

/* Whose prefixes, and computed with which adapter. */
struct prefix_scope {
    uint64_t owner;
    uint32_t adapter;
};

struct prefix_hit {
    uint32_t node; /* PREFIX_NONE: nothing was found */
    uint32_t n_pages;
};

/**
 * prefix_new() - an empty tree. Returns 0, -EINVAL or -ENOMEM
 */
int prefix_new(const struct prefix_config *config, struct prefix **ret);

/**
 * prefix_free() - gives all pages back; takes NULL, returns NULL
 */
struct prefix *prefix_free(struct prefix *x);

DEFINE_CLEANUP(struct prefix *, prefix_free)

/**
 * prefix_find() - the longest prefix of tokens that can be used as it is
 * @tokens: [@n_tokens]
 * O(n_tokens). Nothing changes.
 */
struct prefix_hit prefix_find(const struct prefix *x, struct prefix_scope scope, const int32_t *tokens,
                              uint32_t n_tokens);

/**
 * prefix_share() - what was found becomes the beginning of a sequence
 * @hit:    of prefix_find(), with nothing evicted in between; not PREFIX_NONE
 * @tables: [n_groups], empty
 * The node is pinned: prefix_unpin() when the sequence ends.
 */
void prefix_share(struct prefix *x, struct prefix_hit hit, struct page_table *tables);

/**
 * prefix_put() - remember one more page of a sequence
 * @scope:   of the new node; PREFIX_PUBLIC only below public ones, and for the same tokens always or never
 * @parent:  pinned: the node of the pages before, PREFIX_NONE for the first
 * @tokens:  [PAGES_TOKENS] of the page, whose keys and values are computed
 * @i_page:  which one it is
 * @tables:  [n_groups] of the sequence. Where the same page is there already, the sequence gets that in place of its
 *           own
 * Returns the node, pinned in place of @parent; or PREFIX_NONE and nothing changed when there is no room for one.
 */
uint32_t prefix_put(struct prefix *x, struct prefix_scope scope, uint32_t parent, const int32_t *tokens,
                    uint32_t i_page, struct page_table *tables);

/**
 * prefix_retreat() - the sequence was cut: pin the ancestor of @node at @n_pages <= those up to @node instead
 * Returns that, PREFIX_NONE with 0 pages.
 */
uint32_t prefix_retreat(struct prefix *x, uint32_t node, uint32_t n_pages);

/**
 * prefix_unpin() - the sequence that had put in or shared @node ends; its whole prefix counts as used now
 * @node: PREFIX_NONE: nothing happens
 */
void prefix_unpin(struct prefix *x, uint32_t node);

/**
 * prefix_evict() - give back pages of @group that only the tree holds, until @n_pages of the pool are free
 * Returns whether they are.
 */
bool prefix_evict(struct prefix *x, uint32_t group, uint32_t n_pages);

/**
 * prefix_limit() - keep at most @n_pages nodes of @owner: the least lately used ones that no sequence has go
 */
void prefix_limit(struct prefix *x, uint64_t owner, uint32_t n_pages);

/**
 * prefix_n_owned() - nodes of @owner
 */
uint32_t prefix_n_owned(const struct prefix *x, uint64_t owner);

/**
 * prefix_n_kept() - pages of group 0 that only the tree holds; O(nodes)
 */
uint32_t prefix_n_kept(const struct prefix *x);
