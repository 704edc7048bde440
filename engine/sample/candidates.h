/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The few tokens that matter out of a vocabulary: the n with the largest keys, sorted, without sorting the
 * rest.
 */

#include <stdint.h>

struct candidate {
    float key; /* what it was chosen by */
    float p;   /* for the caller */
    int32_t id;
};

/**
 * candidates_top() - the @n largest of keys[0 ... n_keys), largest first, of equal keys the lower id first
 * Keys that are -infinity or NaN are no candidates. Returns how many there are: n, or fewer.
 * @ret: [n]. Time O(n_keys + n log n) on keys in random order.
 */
uint32_t candidates_top(const float *keys, uint32_t n_keys, uint32_t n, struct candidate *ret);

/**
 * candidates_sort() - by key, largest first, of equal keys the lower id first
 */
void candidates_sort(struct candidate *c, uint32_t n);

/**
 * candidates_best() - id of the largest key, the lowest such id; -1 when all are -infinity or NaN
 */
int32_t candidates_best(const float *keys, uint32_t n_keys);
