/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/sched/heap.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

void heap_init(struct heap *h, bool (*before)(const void *a, const void *b), size_t index_offset)
{
    *h = (struct heap){.before = before, .index_offset = index_offset};
}

void heap_done(struct heap *h)
{
    free(h->items);
    h->items = NULL;
    h->n = h->n_reserved = 0;
}

int heap_reserve(struct heap *h, size_t n)
{
    size_t n_new = h->n_reserved > 0 ? h->n_reserved : 4;
    void **items;

    if (n <= h->n_reserved)
        return 0;
    while (n_new < n)
        n_new *= 2;
    items = reallocarray(h->items, n_new, sizeof(*items));
    if (!items)
        return -ENOMEM;
    h->items = items;
    h->n_reserved = n_new;
    return 0;
}

static size_t *index_of(const struct heap *h, void *item)
{
    return (size_t *)(void *)((char *)item + h->index_offset);
}

static void put(struct heap *h, size_t i, void *item)
{
    h->items[i] = item;
    *index_of(h, item) = i;
}

static void sift(struct heap *h, size_t i)
{
    void *item = h->items[i];

    while (i > 0 && h->before(item, h->items[(i - 1) / 2])) {
        put(h, i, h->items[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= h->n)
            break;
        if (child + 1 < h->n && h->before(h->items[child + 1], h->items[child]))
            child++;
        if (!h->before(h->items[child], item))
            break;
        put(h, i, h->items[child]);
        i = child;
    }
    put(h, i, item);
}

void heap_push(struct heap *h, void *item)
{
    assert(h->n < h->n_reserved);
    assert(*index_of(h, item) == HEAP_NOWHERE);
    put(h, h->n++, item);
    sift(h, h->n - 1);
}

void heap_remove(struct heap *h, void *item)
{
    size_t i = *index_of(h, item);

    if (i == HEAP_NOWHERE)
        return;
    assert(i < h->n && h->items[i] == item);
    *index_of(h, item) = HEAP_NOWHERE;
    h->n--;
    if (i == h->n)
        return;
    put(h, i, h->items[h->n]);
    sift(h, i);
}

void heap_update(struct heap *h, void *item)
{
    size_t i = *index_of(h, item);

    if (i == HEAP_NOWHERE)
        return;
    sift(h, i);
}
