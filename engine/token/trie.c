/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A trie as one hash table of edges: a vocabulary of 250,000 tokens has some 700,000 nodes, and most of them have one
 * child, so that arrays of children would be empty space. Doubled when half full; a step is one look-up.
 */
#include "engine/token/trie.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/fault.h"
#include "engine/token/table.h"
#include "engine/token/vocabulary.h"

#define NODES_MAX (1u << TRIE_NODE_BITS)
#define NODE_MASK (NODES_MAX - 1)

void trie_done(struct trie *t)
{
    free(t->edges);
    free(t->tokens);
    *t = (struct trie){0};
}

/* The slot of an edge (parent << 8 | byte), or the empty one where it belongs. */
static uint64_t *slot_of(const struct trie *t, uint64_t edge)
{
    unsigned __int128 product = (unsigned __int128)(edge ^ t->seed) * (t->seed | 1);
    uint64_t i = (uint64_t)product ^ (uint64_t)(product >> 64);

    for (;; i++) {
        uint64_t *slot = &t->edges[i & t->mask];

        if (*slot == 0 || *slot >> TRIE_NODE_BITS == edge)
            return slot;
    }
}

uint32_t trie_step(const struct trie *t, uint32_t node, uint8_t byte)
{
    return *slot_of(t, (uint64_t)node << 8 | byte) & NODE_MASK;
}

static int grow_edges(struct trie *t)
{
    struct trie old = *t;
    uint64_t n_slots = old.edges ? 2 * (old.mask + 1) : 1024;

    t->edges = table_new(n_slots * sizeof(*t->edges), 0);
    if (!t->edges) {
        t->edges = old.edges;
        return -ENOMEM;
    }
    t->mask = n_slots - 1;
    for (uint64_t i = 0; old.edges && i <= old.mask; i++) {
        if (old.edges[i])
            *slot_of(t, old.edges[i] >> TRIE_NODE_BITS) = old.edges[i];
    }
    free(old.edges);
    return 0;
}

static int add_node(struct trie *t)
{
    if (t->n_nodes == t->n_allocated) {
        uint32_t n = t->n_allocated ? 2 * t->n_allocated : 1024;
        int32_t *more = reallocarray(t->tokens, n, sizeof(*more));

        if (!more)
            return -ENOMEM;
        t->tokens = more;
        t->n_allocated = n;
    }
    t->tokens[t->n_nodes++] = -1;
    return 0;
}

/* Returns -E2BIG when there is no number left for a node. */
static int add(struct trie *t, const char *text, size_t n, int32_t id)
{
    uint32_t node = 0;

    for (size_t i = 0; i < n; i++) {
        uint64_t edge = (uint64_t)node << 8 | (uint8_t)text[i], *slot = slot_of(t, edge);
        int r;

        if (*slot == 0) {
            if (t->n_nodes == NODES_MAX)
                return -E2BIG;
            *slot = edge << TRIE_NODE_BITS | t->n_nodes;
            node = t->n_nodes;
            r = add_node(t);
            if (r == 0 && t->n_nodes > t->mask / 2)
                r = grow_edges(t);
            if (r < 0)
                return r;
        } else {
            node = *slot & NODE_MASK;
        }
    }
    if (t->tokens[node] < 0)
        t->tokens[node] = id;
    return 0;
}

int trie_init(struct trie *t, const struct vocabulary *v, struct fault *reterr)
{
    int r;

    t->seed = v->seed;
    r = grow_edges(t);
    if (r == 0)
        r = add_node(t);
    for (uint32_t id = 0; id < v->n && r == 0; id++) {
        size_t n;
        const char *text = vocabulary_text(v, id, &n);

        if (n == 0 || vocabulary_is_special(v, id) || v->types[id] == TOKEN_BYTE)
            continue;
        r = add(t, text, n, (int32_t)id);
        if (r == -E2BIG) {
            fault_model_invalid(reterr, FAULT_NO_OFFSET, "the spellings of the tokens have more than %u different "
                                "beginnings (at token %" PRIu32 ")", NODES_MAX, id);
            return -EINVAL;
        }
    }
    return r;
}
