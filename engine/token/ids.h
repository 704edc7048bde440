/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A growing row of token ids. Private to engine/token.
 */

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

struct ids {
    int32_t *ids;
    size_t n, n_allocated;
};

/**
 * ids_add() - append one; 0 or -ENOMEM
 */
static inline int ids_add(struct ids *to, int32_t id)
{
    if (to->n == to->n_allocated) {
        size_t n = to->n_allocated ? 2 * to->n_allocated : 64;
        int32_t *more = reallocarray(to->ids, n, sizeof(*more));

        if (!more)
            return -ENOMEM;
        to->ids = more;
        to->n_allocated = n;
    }
    to->ids[to->n++] = id;
    return 0;
}
