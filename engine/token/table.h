/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Memory for the hash tables of large vocabularies. Private to engine/token.
 */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/**
 * table_new() - @n_bytes of @fill, for the caller to free(); NULL without memory
 * Look-ups go all over such a table, and with small pages nearly each of them would miss the translation cache too: a
 * large one asks for 2 MiB pages.
 */
static inline void *table_new(size_t n_bytes, int fill)
{
    const size_t huge = 2u << 20;
    void *table;

    if (n_bytes < huge) {
        table = malloc(n_bytes);
    } else {
        n_bytes = (n_bytes + huge - 1) / huge * huge;
        table = aligned_alloc(huge, n_bytes);
        if (table)
            madvise(table, n_bytes, MADV_HUGEPAGE);
    }
    return table ? memset(table, fill, n_bytes) : NULL;
}
