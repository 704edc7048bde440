/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A binary heap of borrowed pointers whose elements know their own place, so that one of them can be moved or
 * removed in O(log n). Room is reserved when something joins, so that nothing that happens during a step can
 * fail.
 */

#include <stdbool.h>
#include <stddef.h>

#define HEAP_NOWHERE ((size_t)-1)

struct heap {
    void **items; /* [n] of [n_reserved]; owned */
    size_t n, n_reserved;
    bool (*before)(const void *a, const void *b);
    size_t
        index_offset; /* of the element's size_t that holds its index here, HEAP_NOWHERE while it is not in */
};

/**
 * heap_init() - an empty heap; @before says which of two elements is nearer to the top
 */
void heap_init(struct heap *h, bool (*before)(const void *a, const void *b), size_t index_offset);

/**
 * heap_done() - release the heap's own memory; the elements are not touched
 */
void heap_done(struct heap *h);

/**
 * heap_reserve() - make room for @n elements in all; returns 0 or -ENOMEM
 */
int heap_reserve(struct heap *h, size_t n);

/**
 * heap_push() - put in an element that is in no place of this kind yet; room was reserved
 */
void heap_push(struct heap *h, void *item);

/**
 * heap_remove() - take out an element, wherever it is; nothing happens when it is not in
 */
void heap_remove(struct heap *h, void *item);

/**
 * heap_update() - after a change of what @before compares; nothing happens when it is not in
 */
void heap_update(struct heap *h, void *item);

/**
 * heap_top() - the first element, NULL when the heap is empty
 */
static inline void *heap_top(const struct heap *h)
{
    return h->n > 0 ? h->items[0] : NULL;
}
