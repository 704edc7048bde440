/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Spellings byte by byte, for finding all tokens that a text begins with in one walk. Private to engine/token.
 */

#include <stddef.h>
#include <stdint.h>

struct fault;
struct vocabulary;

/* Nodes are numbers from 0 (nothing read yet) on; an edge is one word: parent, byte and child. */
#define TRIE_NODE_BITS 28

struct trie {
    uint64_t *edges; /* [mask + 1] parent << 36 | byte << 28 | child; 0: empty (no edge leads to node 0) */
    uint64_t mask, seed;
    int32_t *tokens; /* [n_nodes] the token that ends at the node, -1: none */
    uint32_t n_nodes, n_allocated;
};

/**
 * trie_init() - the spellings of all tokens but control, unknown and byte tokens; @t is all zero
 * Of equal spellings the first token is found. Returns 0; -EINVAL (with *reterr: too many different beginnings);
 * -ENOMEM. trie_done() has to be called even then.
 */
int trie_init(struct trie *t, const struct vocabulary *v, struct fault *reterr);

/**
 * trie_done() - release the arrays
 */
void trie_done(struct trie *t);

/**
 * trie_step() - the node behind @byte from @node, 0 when no spelling goes on like this
 */
uint32_t trie_step(const struct trie *t, uint32_t node, uint8_t byte);
