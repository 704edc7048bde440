/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sequences: numbers, lengths and page tables. Nothing here computes or touches a key or value, but for the copy of a
 * partly used page by a fork.
 */

#include <errno.h>

#include "engine/engine-internal.h"

static struct engine_sequence *sequence_find(const struct engine *e, uint32_t sequence)
{
    if (sequence >= e->sequences_max || !e->sequences[sequence].open)
        return NULL;
    return &e->sequences[sequence];
}

int engine_sequence_open(struct engine *e, uint32_t *ret)
{
    for (uint32_t i = 0; i < e->sequences_max; i++) {
        struct engine_sequence *s = &e->sequences[i];

        if (s->open)
            continue;
        s->open = true;
        s->length = 0;
        *ret = i;
        return 0;
    }
    return ENGINE_FULL;
}

int engine_sequence_truncate(struct engine *e, uint32_t sequence, uint32_t n_tokens)
{
    struct engine_sequence *s = sequence_find(e, sequence);

    if (!s || n_tokens > s->length)
        return -EINVAL;
    for (uint32_t i = 0; i < e->graph.n_groups; i++)
        page_table_truncate(&s->tables[i], e->pages[i], n_tokens);
    s->length = n_tokens;
    return 0;
}

int engine_sequence_close(struct engine *e, uint32_t sequence)
{
    int r = engine_sequence_truncate(e, sequence, 0);

    if (r == 0)
        e->sequences[sequence].open = false;
    return r;
}

int engine_sequence_fork(struct engine *e, uint32_t from, uint32_t n_tokens, uint32_t *ret)
{
    const struct engine_sequence *source = sequence_find(e, from);
    uint32_t number;
    int r;

    if (!source || n_tokens > source->length)
        return -EINVAL;
    for (uint32_t i = 0; i < e->graph.n_groups; i++)
        if (n_tokens % KV_PAGE_TOKENS && pages_left(e->pages[i]) == 0)
            return ENGINE_KV_FULL;
    r = engine_sequence_open(e, &number);
    if (r != 0)
        return r;
    for (uint32_t i = 0; i < e->graph.n_groups; i++)
        page_table_fork(&e->sequences[number].tables[i], e->pages[i], &source->tables[i], n_tokens);
    e->sequences[number].length = n_tokens;
    *ret = number;
    return 0;
}

uint32_t engine_sequence_length(const struct engine *e, uint32_t sequence)
{
    const struct engine_sequence *s = sequence_find(e, sequence);

    return s ? s->length : 0;
}

uint32_t engine_sequence_pages(const struct engine *e, uint32_t sequence)
{
    const struct engine_sequence *s = sequence_find(e, sequence);

    return s ? s->tables[0].n : 0;
}

uint32_t engine_pages_free(const struct engine *e)
{
    return pages_left(e->pages[0]);
}
