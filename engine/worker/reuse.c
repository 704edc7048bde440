/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/reuse.h"

#include <assert.h>

#include "engine/engine-prefix.h"
#include "engine/worker/draft.h"
#include "engine/worker/model.h"
#include "engine/worker/work.h"

/* Whoever computes public prefixes in advance: no tenant has this number, and nothing is kept under it. */
#define OWNER_WARMING UINT64_MAX

/* Numbers of tenants may be 0; that of what is public is no tenant's. A mark is 64 bits of a cipher: that it is such a
 * small number, or that of what is warmed, does not happen. */
uint64_t reuse_owner(const struct fair_tenant *tenant)
{
    return tenant->mark != 0 ? tenant->mark : (uint64_t)tenant->id + 1;
}

uint32_t reuse_found(const struct engine *e, const struct work *w)
{
    /* The last token is computed in any case: what comes next is wanted. */
    return w->embedding ? 0
                        : engine_prefix_find(e, reuse_owner(w->batch.item.tenant), w->adapter, w->tokens,
                                             w->batch.n_tokens - 1);
}

void reuse_begin(struct engine *e, struct work *w, const struct batch_slice *s)
{
    uint32_t n;
    int r;

    if (w->embedding)
        return;
    r = engine_prefix_begin(e, w->sequence, reuse_owner(w->batch.item.tenant), w->tokens, s->n_found, &n);
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

void reuse_limit(struct model *m, const struct fair_tenant *tenant)
{
    if (tenant->pages_max >= UINT32_MAX)
        return;
    engine_prefix_limit(m->engine, reuse_owner(tenant), (uint32_t)tenant->pages_max);
    if (m->drafter)
        drafter_limit(m->drafter, reuse_owner(tenant), (uint32_t)tenant->pages_max);
}

void reuse_forget(struct model *m, const struct fair_tenant *tenant)
{
    engine_prefix_limit(m->engine, reuse_owner(tenant), 0);
    if (m->drafter)
        drafter_limit(m->drafter, reuse_owner(tenant), 0);
}

void reuse_trim(struct model *m, uint32_t n_pages)
{
    engine_prefix_trim(m->engine, n_pages);
    if (m->drafter)
        drafter_trim(m->drafter);
}

uint32_t reuse_found_public(const struct engine *e, uint32_t adapter, const int32_t *tokens, uint32_t n_tokens)
{
    return engine_prefix_find(e, OWNER_WARMING, adapter, tokens, n_tokens);
}

bool reuse_begin_public(struct engine *e, uint32_t sequence, uint32_t adapter, const int32_t *tokens,
                        uint32_t n_tokens)
{
    uint32_t n = 0;

    return engine_sequence_adapt(e, sequence, adapter) == 0 &&
           engine_prefix_begin(e, sequence, OWNER_WARMING, tokens, n_tokens, &n) == 0 && n == n_tokens;
}

void reuse_keep_public(struct engine *e, uint32_t sequence, const int32_t *tokens, uint32_t n_tokens)
{
    int r = engine_prefix_keep(e, sequence, tokens, n_tokens);

    assert(r == 0);
}
