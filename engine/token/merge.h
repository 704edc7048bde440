/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The merging that both kinds of tokenizer share: a word is a row of symbols, and again and again the neighbours with
 * the lowest rank become one, the leftmost of equals first, until no pair has a rank. A heap of candidates makes this
 * O(n log n). Private to engine/token.
 */

#include <stddef.h>
#include <stdint.h>

#define MERGE_NONE UINT32_MAX

struct symbol {
    uint32_t start, n_bytes; /* in the word */
    int32_t id;              /* -1: no token */
    int32_t prev, next;      /* neighbours, -1 at the ends */
    uint32_t rank;           /* of merging with the next one; MERGE_NONE: they do not merge, or this one is gone */
    int32_t merged;          /* the token that this merge makes */
};

/*
 * The rank of merging two neighbours and the token that comes out; MERGE_NONE when they do not merge. The two lie next
 * to each other in @word. A merge's token has to be a function of its rank and the left symbol's place.
 */
typedef uint32_t (*merge_rank_fn)(const void *context, const char *word, const struct symbol *left,
                                  const struct symbol *right, int32_t *ret_id);

/* Working memory, kept from word to word. */
struct merger {
    struct symbol *symbols;
    uint64_t *heap; /* rank << 32 | index of the left symbol: the order of merging is the order of numbers */
    size_t n_symbols, n_heap, n_allocated;
};

/**
 * merger_done() - release the working memory; a zeroed merger is ready for use
 */
void merger_done(struct merger *m);

/**
 * merger_begin() - forget the last word and make room for one of @n_max symbols; 0 or -ENOMEM
 */
int merger_begin(struct merger *m, size_t n_max);

/**
 * merger_add() - append a symbol that begins where the last one ended
 */
void merger_add(struct merger *m, uint32_t n_bytes, int32_t id);

/**
 * merger_run() - merge all that can be merged; the symbols that are left are linked by next, from symbols[0] on
 */
void merger_run(struct merger *m, const char *word, merge_rank_fn rank, const void *context);
