/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Merging with a binary heap. Called by spm.c and bpe.c for each word.
 *
 * An entry of the heap is a rank and the index of a left symbol. It is stale when that symbol has another rank by now:
 * each change of a pair gives its left symbol the new rank and pushes a new entry, so a stale entry is recognised by
 * comparing, and nothing has to be taken out of the middle of the heap. (Should a pair change to another one
 * of the same
 * rank, the old entry says exactly what the new one says.)
 *
 * Each symbol can enter with a rank once at the start and twice for every merge, of which there are fewer than symbols:
 * so 3 n entries are enough.
 */
#include "engine/token/merge.h"

#include <errno.h>
#include <stdlib.h>

void merger_done(struct merger *m)
{
    free(m->symbols);
    free(m->heap);
    *m = (struct merger){0};
}

int merger_begin(struct merger *m, size_t n_max)
{
    m->n_symbols = 0;
    m->n_heap = 0;
    if (n_max <= m->n_allocated)
        return 0;
    n_max = n_max < 64 ? 64 : n_max + n_max / 2;
    merger_done(m);
    m->symbols = reallocarray(NULL, n_max, sizeof(*m->symbols));
    m->heap = reallocarray(NULL, n_max, 3 * sizeof(*m->heap));
    if (!m->symbols || !m->heap) {
        merger_done(m);
        return -ENOMEM;
    }
    m->n_allocated = n_max;
    return 0;
}

void merger_add(struct merger *m, uint32_t n_bytes, int32_t id)
{
    size_t i = m->n_symbols++;
    struct symbol *s = &m->symbols[i];

    *s = (struct symbol){.n_bytes = n_bytes, .id = id, .prev = (int32_t)i - 1, .next = -1, .rank = MERGE_NONE};
    if (i > 0) {
        s->start = s[-1].start + s[-1].n_bytes;
        s[-1].next = (int32_t)i;
    }
}

static void heap_push(struct merger *m, uint64_t entry)
{
    size_t i = m->n_heap++;

    while (i > 0 && m->heap[(i - 1) / 2] > entry) {
        m->heap[i] = m->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    m->heap[i] = entry;
}

static uint64_t heap_pop(struct merger *m)
{
    uint64_t first = m->heap[0], last = m->heap[--m->n_heap];
    size_t i = 0;

    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= m->n_heap)
            break;
        if (child + 1 < m->n_heap && m->heap[child + 1] < m->heap[child])
            child++;
        if (m->heap[child] >= last)
            break;
        m->heap[i] = m->heap[child];
        i = child;
    }
    m->heap[i] = last;
    return first;
}

/* Finds out whether symbol @i merges with the one behind it. */
static void consider(struct merger *m, int32_t i, const char *word, merge_rank_fn rank, const void *context)
{
    struct symbol *left;

    if (i < 0)
        return;
    left = &m->symbols[i];
    left->rank = MERGE_NONE;
    if (left->next < 0)
        return;
    left->rank = rank(context, word, left, &m->symbols[left->next], &left->merged);
    if (left->rank != MERGE_NONE)
        heap_push(m, (uint64_t)left->rank << 32 | (uint32_t)i);
}

void merger_run(struct merger *m, const char *word, merge_rank_fn rank, const void *context)
{
    for (size_t i = 0; i + 1 < m->n_symbols; i++)
        consider(m, (int32_t)i, word, rank, context);
    while (m->n_heap > 0) {
        uint64_t entry = heap_pop(m);
        struct symbol *left = &m->symbols[(uint32_t)entry], *right;

        if (left->rank != entry >> 32)
            continue;
        right = &m->symbols[left->next];
        left->n_bytes += right->n_bytes;
        left->id = left->merged;
        left->next = right->next;
        right->rank = MERGE_NONE;
        if (right->next >= 0)
            m->symbols[right->next].prev = (int32_t)(left - m->symbols);
        consider(m, left->prev, word, rank, context);
        consider(m, (int32_t)(left - m->symbols), word, rank, context);
    }
}
