/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sequences: numbers, lengths and page tables. Nothing here computes or touches a key or value, but for the copy of a
 * partly used page by a fork.
 */

#include <errno.h>

#include "engine/engine-internal.h"

struct engine_sequence *engine_sequence_find(const struct engine *e, uint32_t sequence)
{
    if (sequence >= e->sequences_max || !e->sequences[sequence].open)
        return NULL;
    return &e->sequences[sequence];
}

uint32_t engine_window_begin(const struct engine *e, uint32_t group, uint32_t position)
{
    uint32_t window = e->graph.groups[group].window;

    return window > 0 && position >= window ? position - window + 1 : 0;
}

/* Whether everything is still there that a token behind the first @n_tokens would see. */
static bool reaches_back(const struct engine *e, const struct engine_sequence *s, uint32_t n_tokens)
{
    for (uint32_t i = 0; n_tokens > 0 && i < e->graph.n_groups; i++)
        if (s->tables[i].n_gone > engine_window_begin(e, i, n_tokens) / KV_PAGE_TOKENS)
            return false;
    return true;
}

int engine_sequence_open(struct engine *e, uint32_t *ret)
{
    for (uint32_t i = 0; i < e->sequences_max; i++) {
        struct engine_sequence *s = &e->sequences[i];

        if (s->open)
            continue;
        s->open = true;
        s->length = 0;
        s->adapter = 0;
        s->owner = 0;
        s->node = PREFIX_NONE;
        s->n_kept_pages = 0;
        *ret = i;
        return 0;
    }
    return ENGINE_FULL;
}

int engine_sequence_adapt(struct engine *e, uint32_t sequence, uint32_t adapter)
{
    struct engine_sequence *s = engine_sequence_find(e, sequence);

    if (!s || s->length > 0 || adapter > e->n_adapters)
        return -EINVAL;
    s->adapter = adapter;
    return 0;
}

int engine_sequence_truncate(struct engine *e, uint32_t sequence, uint32_t n_tokens)
{
    struct engine_sequence *s = engine_sequence_find(e, sequence);

    if (!s || n_tokens > s->length)
        return -EINVAL;
    if (!reaches_back(e, s, n_tokens))
        return ENGINE_WINDOW_GONE;
    engine_prefix_cut(e, s, n_tokens);
    for (uint32_t i = 0; i < e->graph.n_groups; i++)
        page_table_truncate(&s->tables[i], e->pages[i], n_tokens);
    s->length = n_tokens;
    return 0;
}

int engine_sequence_close(struct engine *e, uint32_t sequence)
{
    int r = engine_sequence_truncate(e, sequence, 0);

    if (r != 0)
        return r;
    e->sequences[sequence].open = false;
    engine_gpus_wipe(&e->gpus);
    return 0;
}

int engine_sequence_fork(struct engine *e, uint32_t from, uint32_t n_tokens, uint32_t *ret)
{
    const struct engine_sequence *source = engine_sequence_find(e, from);
    uint32_t number;
    int r;

    if (!source || n_tokens > source->length)
        return -EINVAL;
    if (!reaches_back(e, source, n_tokens))
        return ENGINE_WINDOW_GONE;
    for (uint32_t i = 0; i < e->graph.n_groups; i++)
        if (n_tokens % KV_PAGE_TOKENS && !engine_pages_find(e, i, 1))
            return ENGINE_KV_FULL;
    r = engine_sequence_open(e, &number);
    if (r != 0)
        return r;
    for (uint32_t i = 0; i < e->graph.n_groups; i++) {
        struct page_table *t = &e->sequences[number].tables[i];

        page_table_fork(t, e->pages[i], &source->tables[i], n_tokens);
        /* Held by two, the pages before the window would outlive the source's interest in them. */
        page_table_release_before(t, e->pages[i], engine_window_begin(e, i, n_tokens));
    }
    e->sequences[number].length = n_tokens;
    e->sequences[number].adapter = source->adapter;
    *ret = number;
    return 0;
}

uint32_t engine_sequence_length(const struct engine *e, uint32_t sequence)
{
    const struct engine_sequence *s = engine_sequence_find(e, sequence);

    return s ? s->length : 0;
}

uint32_t engine_sequence_reach(const struct engine *e, uint32_t sequence)
{
    const struct engine_sequence *s = engine_sequence_find(e, sequence);
    uint32_t reach = 0;

    for (uint32_t i = 0; s && i < e->graph.n_groups; i++) {
        uint32_t n = s->tables[i].n_gone ? s->tables[i].n_gone * KV_PAGE_TOKENS + e->graph.groups[i].window - 1 : 0;

        reach = n > reach ? n : reach;
    }
    return reach;
}

uint32_t engine_sequence_pages(const struct engine *e, uint32_t sequence)
{
    const struct engine_sequence *s = engine_sequence_find(e, sequence);

    return s ? s->tables[0].n - s->tables[0].n_gone : 0;
}

bool engine_pages_find(struct engine *e, uint32_t group, uint32_t n_pages)
{
    return pages_left(e->pages[group]) >= n_pages || (e->prefix && prefix_evict(e->prefix, group, n_pages));
}

uint32_t engine_pages_free(const struct engine *e)
{
    return pages_left(e->pages[0]);
}
