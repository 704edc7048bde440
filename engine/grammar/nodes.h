/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A growing row of IR nodes, for the parts of a sequence or of alternatives, and the hash that the tables
 * here use. Private to engine/grammar.
 */

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "engine/grammar/ir.h"

struct nodes {
    uint32_t *nodes;
    bool *needed;
    size_t n, n_allocated;
};

static inline void nodes_done(struct nodes *l)
{
    free(l->nodes);
    free(l->needed);
}

#define _cleanup_nodes_ _cleanup_(nodes_done)

/**
 * nodes_add_optional() - append a node for ir_list(); nodes_add(): for anything else
 */
static inline void nodes_add_optional(struct ir *ir, struct nodes *l, uint32_t node, bool needed)
{
    if (l->n == l->n_allocated && ir->error == 0) {
        size_t n = l->n_allocated ? 2 * l->n_allocated : 16;
        uint32_t *nodes = reallocarray(l->nodes, n, sizeof(*nodes));
        bool *flags;

        if (nodes)
            l->nodes = nodes;
        flags = nodes ? reallocarray(l->needed, n, sizeof(*flags)) : NULL;
        if (!flags) {
            ir->error = -ENOMEM;
            return;
        }
        l->needed = flags;
        l->n_allocated = n;
    }
    if (ir->error)
        return;
    l->nodes[l->n] = node;
    l->needed[l->n++] = needed;
}

static inline void nodes_add(struct ir *ir, struct nodes *l, uint32_t node)
{
    nodes_add_optional(ir, l, node, true);
}

/**
 * nodes_hash() - of a few bytes (FNV-1a with a final mix)
 */
static inline uint32_t nodes_hash(const void *data, size_t n)
{
    const uint8_t *bytes = data;
    uint64_t h = 0xCBF29CE484222325u;

    for (size_t i = 0; i < n; i++)
        h = (h ^ bytes[i]) * 0x100000001B3u;
    h ^= h >> 32;
    return (uint32_t)(h * 0x9E3779B97F4A7C15u >> 32);
}
