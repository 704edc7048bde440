/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/engine-prefix.h"

#include <errno.h>
#include <sys/random.h>

#include "engine/engine-internal.h"

_Static_assert(ENGINE_PREFIX_PUBLIC == PREFIX_PUBLIC, "the same for both");
_Static_assert(PREFIX_GROUPS_MAX == GRAPH_GROUPS_MAX, "a page of a prefix for each group of layers");

int engine_prefix_init(struct engine *e)
{
    struct prefix_config config = {.n_groups = e->graph.n_groups};

    if (e->graph.is_encoder)
        return 0;
    /* Without randomness at this moment of a machine's life the table is only easier to make slow. */
    if (getrandom(&config.seed, sizeof(config.seed), GRND_NONBLOCK) < 0)
        config.seed = 0;
    for (uint32_t g = 0; g < e->graph.n_groups; g++) {
        config.pools[g] = e->pages[g];
        config.windows[g] = e->graph.groups[g].window;
        if (pages_total(e->pages[g]) > config.n_nodes_max)
            config.n_nodes_max = pages_total(e->pages[g]);
    }
    return prefix_new(&config, &e->prefix);
}

uint32_t engine_prefix_find(const struct engine *e, uint64_t owner, uint32_t adapter, const int32_t *tokens,
                            uint32_t n_tokens)
{
    const struct prefix_scope scope = {.owner = owner, .adapter = adapter};

    if (!e->prefix)
        return 0;
    if (n_tokens > e->context_tokens)
        n_tokens = e->context_tokens;
    return prefix_find(e->prefix, scope, tokens, n_tokens).n_pages * KV_PAGE_TOKENS;
}

int engine_prefix_begin(struct engine *e, uint32_t sequence, uint64_t owner, const int32_t *tokens, uint32_t n_tokens,
                        uint32_t *ret)
{
    struct engine_sequence *s = engine_sequence_find(e, sequence);
    struct prefix_hit hit;

    if (!s || s->length > 0 || owner == ENGINE_PREFIX_PUBLIC)
        return -EINVAL;
    *ret = 0;
    if (!e->prefix)
        return 0;
    if (n_tokens > e->context_tokens)
        n_tokens = e->context_tokens;
    s->owner = owner;
    hit = prefix_find(e->prefix, (struct prefix_scope){.owner = owner, .adapter = s->adapter}, tokens, n_tokens);
    if (hit.n_pages == 0)
        return 0;
    prefix_share(e->prefix, hit, s->tables);
    s->node = hit.node;
    s->n_kept_pages = hit.n_pages;
    s->length = hit.n_pages * KV_PAGE_TOKENS;
    *ret = s->length;
    return 0;
}

int engine_prefix_keep(struct engine *e, uint32_t sequence, const int32_t *tokens, uint32_t n_public)
{
    struct engine_sequence *s = engine_sequence_find(e, sequence);

    if (!s || (e->prefix && s->owner == ENGINE_PREFIX_PUBLIC))
        return -EINVAL;
    while (e->prefix && (s->n_kept_pages + 1) * KV_PAGE_TOKENS <= s->length) {
        uint32_t i = s->n_kept_pages;
        const struct prefix_scope scope = {
            .owner = (i + 1) * KV_PAGE_TOKENS <= n_public ? ENGINE_PREFIX_PUBLIC : s->owner, .adapter = s->adapter};
        uint32_t node = prefix_put(e->prefix, scope, s->node, tokens + (size_t)i * KV_PAGE_TOKENS, i, s->tables);

        /* No room: others' sequences have it all. There may be some later on. */
        if (node == PREFIX_NONE)
            break;
        s->node = node;
        s->n_kept_pages++;
    }
    return 0;
}

void engine_prefix_cut(struct engine *e, struct engine_sequence *s, uint32_t n_tokens)
{
    uint32_t n_pages = n_tokens / KV_PAGE_TOKENS;

    if (!e->prefix || s->n_kept_pages <= n_pages)
        return;
    s->node = prefix_retreat(e->prefix, s->node, n_pages);
    s->n_kept_pages = n_pages;
}

void engine_prefix_limit(struct engine *e, uint64_t owner, uint32_t n_pages)
{
    if (e->prefix)
        prefix_limit(e->prefix, owner, n_pages);
}

void engine_prefix_trim(struct engine *e, uint32_t n_pages)
{
    for (uint32_t g = 0; g < e->graph.n_groups; g++) {
        if (e->prefix)
            prefix_evict(e->prefix, g, n_pages);
        pages_return(e->pages[g]);
    }
}

uint32_t engine_prefix_pages(const struct engine *e)
{
    return e->prefix ? prefix_n_kept(e->prefix) : 0;
}

uint32_t engine_prefix_owned(const struct engine *e, uint64_t owner)
{
    return e->prefix ? prefix_n_owned(e->prefix, owner) : 0;
}
