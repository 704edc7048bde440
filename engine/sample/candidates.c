/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A heap of the best n so far, the worst of them on top. The scan compares blocks of 16 keys with that one
 * and looks closer only where one is larger, which soon becomes rare: for 40 of 128k keys in random order
 * about 330 times.
 */
#include "engine/sample/candidates.h"

#include <stdbool.h>
#include <string.h>

enum { BLOCK = 16 };

/* Whether a comes after b in the order of the result. */
static inline bool is_worse(const struct candidate *a, const struct candidate *b)
{
    return a->key < b->key || (a->key == b->key && a->id > b->id);
}

/* Restores the heap below @at after its element was replaced by @c. */
static void sift(struct candidate *heap, uint32_t n, uint32_t at, struct candidate c)
{
    for (;;) {
        uint32_t child = 2 * at + 1;

        if (child >= n)
            break;
        if (child + 1 < n && is_worse(&heap[child + 1], &heap[child]))
            child++;
        if (!is_worse(&heap[child], &c))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = c;
}

static void heap_make(struct candidate *heap, uint32_t n)
{
    for (uint32_t i = n / 2; i-- > 0;)
        sift(heap, n, i, heap[i]);
}

/* The worst goes to the end again and again: what remains is sorted, best first. */
static void heap_sort(struct candidate *heap, uint32_t n)
{
    for (uint32_t i = n; i-- > 1;) {
        struct candidate worst = heap[0];

        sift(heap, i, 0, heap[i]);
        heap[i] = worst;
    }
}

void candidates_sort(struct candidate *c, uint32_t n)
{
    heap_make(c, n);
    heap_sort(c, n);
}

typedef float floats __attribute__((vector_size(16)));
typedef int64_t masks __attribute__((vector_size(16)));

/*
 * Whether one of 16 keys is above @limit; the compiler's own vectors, since it makes none of a loop that ends
 * in a bool.
 */
static inline bool any_above(const float *keys, float limit)
{
    const floats limits = {limit, limit, limit, limit};
    masks any = {0, 0};

    for (uint32_t j = 0; j < BLOCK; j += 4) {
        floats x;

        memcpy(&x, keys + j, sizeof(x));
        any |= (masks)(x > limits);
    }
    return (any[0] | any[1]) != 0;
}

uint32_t candidates_top(const float *keys, uint32_t n_keys, uint32_t n, struct candidate *ret)
{
    uint32_t n_have = 0, i = 0;

    if (n == 0)
        return 0;
    for (; i < n_keys && n_have < n; i++) {
        if (keys[i] > -__builtin_inff())
            ret[n_have++] = (struct candidate){.key = keys[i], .id = (int32_t)i};
    }
    heap_make(ret, n_have);
    while (i < n_keys) {
        if (i + BLOCK <= n_keys && !any_above(keys + i, ret[0].key)) {
            i += BLOCK;
            continue;
        }
        for (uint32_t end = i + BLOCK < n_keys ? i + BLOCK : n_keys; i < end; i++) {
            /* Later ids lose against equal keys, so only a larger key gets in. */
            if (keys[i] > ret[0].key)
                sift(ret, n_have, 0, (struct candidate){.key = keys[i], .id = (int32_t)i});
        }
    }
    heap_sort(ret, n_have);
    return n_have;
}

int32_t candidates_best(const float *keys, uint32_t n_keys)
{
    float most = -__builtin_inff();
    int32_t best = -1;

    for (uint32_t i = 0; i < n_keys;) {
        if (i + BLOCK <= n_keys && !any_above(keys + i, most)) {
            i += BLOCK;
            continue;
        }
        for (uint32_t end = i + BLOCK < n_keys ? i + BLOCK : n_keys; i < end; i++) {
            if (keys[i] > most) {
                most = keys[i];
                best = (int32_t)i;
            }
        }
    }
    return best;
}
