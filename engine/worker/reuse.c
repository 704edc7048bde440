/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/reuse.h"

#include <assert.h>

#include "engine/engine-prefix.h"
#include "engine/worker/work.h"

/* Numbers of tenants may be 0; that of what is public is no tenant's. */
static uint64_t owner_of(uint32_t tenant)
{
    return (uint64_t)tenant + 1;
}

uint32_t reuse_found(const struct engine *e, const struct work *w)
{
    /* The last token is computed in any case: what comes next is wanted. */
    return w->embedding ? 0 : engine_prefix_find(e, owner_of(w->tenant), w->adapter, w->tokens, w->batch.n_tokens - 1);
}

void reuse_begin(struct engine *e, struct work *w, const struct batch_slice *s)
{
    uint32_t n;
    int r;

    if (w->embedding)
        return;
    r = engine_prefix_begin(e, w->sequence, owner_of(w->tenant), w->tokens, s->n_found, &n);
    assert(r == 0 && n == s->n_found);
    if (!w->began)
        w->n_cached = n;
    w->began = true;
}

void reuse_keep(struct engine *e, const struct work *w)
{
    int r;

    if (w->embedding)
        return;
    r = engine_prefix_keep(e, w->sequence, w->tokens, w->n_public);
    assert(r == 0);
}

void reuse_limit(struct engine *e, const struct fair_tenant *tenant)
{
    if (tenant->pages_max < UINT32_MAX)
        engine_prefix_limit(e, owner_of(tenant->id), (uint32_t)tenant->pages_max);
}

void reuse_forget(struct engine *e, uint32_t tenant)
{
    engine_prefix_limit(e, owner_of(tenant), 0);
}
