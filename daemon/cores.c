/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/cores.h"

#include <stdbool.h>

static bool comes_before(const struct cores_claim *a, const struct cores_claim *b)
{
    return a->priority != b->priority ? a->priority > b->priority : a->n_requests > b->n_requests;
}

/* How many come before @claim; of equals, those that stand before it. */
static size_t rank_of(const struct cores_claim *claims, size_t n, const struct cores_claim *claim)
{
    size_t rank = 0;

    for (size_t i = 0; i < n; i++) {
        if (comes_before(&claims[i], claim) || (!comes_before(claim, &claims[i]) && &claims[i] < claim))
            rank++;
    }
    return rank;
}

void cores_share(uint32_t n_cores, struct cores_claim *claims, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t each = (uint32_t)(n_cores / n), more = (uint32_t)(n_cores % n);

        claims[i].n_threads = each + (rank_of(claims, n, &claims[i]) < more);
        if (claims[i].n_threads == 0)
            claims[i].n_threads = 1;
    }
}
