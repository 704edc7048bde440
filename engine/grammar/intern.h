/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Rows of 32-bit words that are kept once each: equal rows have equal numbers, so that sets, frames and
 * configurations can be compared and used as indexes. Private to engine/grammar.
 */

#include <stddef.h>
#include <stdint.h>

#define INTERN_NONE UINT32_MAX

struct intern {
    uint32_t *words;
    uint32_t *at;     /* [n + 1] where a row begins */
    uint32_t *hashes; /* [n] */
    uint32_t *slots;  /* [n_slots] row + 1, 0: empty. Open addressing */
    uint32_t n, n_allocated, n_words, words_allocated, n_slots;
};

/**
 * intern_put() - the number of a row; a new one is the next number
 * @ret_bytes: what the arrays grew by is added
 * Returns INTERN_NONE when memory is short.
 */
uint32_t intern_put(struct intern *t, const uint32_t *words, uint32_t n, size_t *ret_bytes);

/**
 * intern_get() - a row; valid until the next intern_put()
 */
static inline const uint32_t *intern_get(const struct intern *t, uint32_t row, uint32_t *ret_n)
{
    *ret_n = t->at[row + 1] - t->at[row];
    return t->words + t->at[row];
}

/**
 * intern_clear() - forget all rows, keep the memory; intern_done(): release it
 */
void intern_clear(struct intern *t);
void intern_done(struct intern *t);
