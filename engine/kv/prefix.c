/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Nodes live in one array and are found through a hash table by (parent, owner, adapter, tokens of the page). Each
 * owner has a list of its nodes, those used last first; using a prefix moves its nodes to the front, the last of them
 * first, so that ancestors stand before their descendants.
 */
#include "engine/kv/prefix.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NONE PREFIX_NONE

struct node {
    int32_t tokens[PAGES_TOKENS];
    uint32_t pages[PREFIX_GROUPS_MAX]; /* NONE: not there */
    uint32_t parent, owner, adapter;   /* owner: its place in the table of owners */
    uint32_t n_children, n_pins;       /* pins: sequences that have got as far as this */
    uint32_t next_in_bucket;           /* of free ones: the next free one */
    uint32_t newer, older;             /* in the owner's list */
};

struct owner {
    uint64_t id;
    uint32_t n_nodes; /* 0: a free place */
    uint32_t newest, oldest;
    uint32_t next_in_bucket; /* of free ones: the next free one */
    bool tried;              /* in the present prefix_evict() */
};

struct prefix {
    struct prefix_config config;
    struct node *nodes;   /* [n_nodes_max] */
    struct owner *owners; /* [n_nodes_max]; those in use are below n_owners_high */
    uint32_t *node_buckets, *owner_buckets; /* [n_buckets], a power of two */
    uint32_t n_buckets, n_owners_high;
    uint32_t free_node, free_owner;
};

int prefix_new(const struct prefix_config *config, struct prefix **ret)
{
    _cleanup_(prefix_freep) struct prefix *x = NULL;
    uint32_t n = config->n_nodes_max;

    if (config->n_groups == 0 || config->n_groups > PREFIX_GROUPS_MAX || n == 0 || n > UINT32_MAX / 4)
        return -EINVAL;
    x = calloc(1, sizeof(*x));
    if (!x)
        return -ENOMEM;
    x->config = *config;
    for (x->n_buckets = 64; x->n_buckets < n; x->n_buckets *= 2)
        ;
    x->nodes = calloc(n, sizeof(*x->nodes));
    x->owners = calloc(n, sizeof(*x->owners));
    x->node_buckets = calloc(x->n_buckets, sizeof(*x->node_buckets));
    x->owner_buckets = calloc(x->n_buckets, sizeof(*x->owner_buckets));
    if (!x->nodes || !x->owners || !x->node_buckets || !x->owner_buckets)
        return -ENOMEM;
    for (uint32_t i = 0; i < x->n_buckets; i++)
        x->node_buckets[i] = x->owner_buckets[i] = NONE;
    for (uint32_t i = 0; i < n; i++)
        x->nodes[i].next_in_bucket = x->owners[i].next_in_bucket = i + 1 < n ? i + 1 : NONE;
    *ret = TAKE_PTR(x);
    return 0;
}

struct prefix *prefix_free(struct prefix *x)
{
    if (!x)
        return NULL;
    for (uint32_t o = 0; x->owners && o < x->n_owners_high; o++)
        for (uint32_t i = x->owners[o].n_nodes > 0 ? x->owners[o].newest : NONE; i != NONE; i = x->nodes[i].older)
            for (uint32_t g = 0; g < x->config.n_groups; g++)
                if (x->nodes[i].pages[g] != NONE)
                    pages_release(x->config.pools[g], x->nodes[i].pages[g]);
    free(x->nodes);
    free(x->owners);
    free(x->node_buckets);
    free(x->owner_buckets);
    free(x);
    return NULL;
}

/* ---- owners ---- */

static uint64_t mix(uint64_t h, uint64_t value)
{
    h = (h ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return h ^ h >> 29;
}

static uint32_t *owner_bucket(const struct prefix *x, uint64_t id)
{
    return &x->owner_buckets[mix(x->config.seed, id) & (x->n_buckets - 1)];
}

static uint32_t owner_find(const struct prefix *x, uint64_t id)
{
    uint32_t o = *owner_bucket(x, id);

    while (o != NONE && x->owners[o].id != id)
        o = x->owners[o].next_in_bucket;
    return o;
}

/* There is a place for as many owners as there are nodes. */
static uint32_t owner_get(struct prefix *x, uint64_t id)
{
    uint32_t o = owner_find(x, id), *bucket = owner_bucket(x, id);

    if (o != NONE)
        return o;
    o = x->free_owner;
    x->free_owner = x->owners[o].next_in_bucket;
    x->owners[o] = (struct owner){.id = id, .newest = NONE, .oldest = NONE, .next_in_bucket = *bucket};
    *bucket = o;
    if (o >= x->n_owners_high)
        x->n_owners_high = o + 1;
    return o;
}

static void owner_drop(struct prefix *x, uint32_t o)
{
    uint32_t *at = owner_bucket(x, x->owners[o].id);

    while (*at != o)
        at = &x->owners[*at].next_in_bucket;
    *at = x->owners[o].next_in_bucket;
    x->owners[o].next_in_bucket = x->free_owner;
    x->free_owner = o;
}

static void list_out(struct prefix *x, uint32_t i)
{
    struct node *n = &x->nodes[i];
    struct owner *o = &x->owners[n->owner];

    *(n->newer != NONE ? &x->nodes[n->newer].older : &o->newest) = n->older;
    *(n->older != NONE ? &x->nodes[n->older].newer : &o->oldest) = n->newer;
}

/* Behind @newer, or first of all where that is NONE. */
static void list_in(struct prefix *x, uint32_t i, uint32_t newer)
{
    struct node *n = &x->nodes[i];
    struct owner *o = &x->owners[n->owner];

    n->newer = newer;
    n->older = newer != NONE ? x->nodes[newer].older : o->newest;
    *(n->newer != NONE ? &x->nodes[n->newer].older : &o->newest) = i;
    *(n->older != NONE ? &x->nodes[n->older].newer : &o->oldest) = i;
}

static void use(struct prefix *x, uint32_t node)
{
    for (uint32_t i = node; i != NONE; i = x->nodes[i].parent) {
        list_out(x, i);
        list_in(x, i, NONE);
    }
}

/* ---- nodes ---- */

static uint32_t *node_bucket(const struct prefix *x, uint32_t parent, struct prefix_scope scope, const int32_t *tokens)
{
    uint64_t h = mix(mix(mix(x->config.seed, parent), scope.owner), scope.adapter);

    for (uint32_t i = 0; i < PAGES_TOKENS; i++)
        h = mix(h, (uint32_t)tokens[i]);
    return &x->node_buckets[h & (x->n_buckets - 1)];
}

static struct prefix_scope scope_of(const struct prefix *x, const struct node *n)
{
    return (struct prefix_scope){.owner = x->owners[n->owner].id, .adapter = n->adapter};
}

static uint32_t child_find(const struct prefix *x, uint32_t parent, struct prefix_scope scope, const int32_t *tokens)
{
    uint32_t i = *node_bucket(x, parent, scope, tokens);

    for (; i != NONE; i = x->nodes[i].next_in_bucket) {
        const struct node *n = &x->nodes[i];

        if (n->parent == parent && n->adapter == scope.adapter && x->owners[n->owner].id == scope.owner &&
            memcmp(n->tokens, tokens, sizeof(n->tokens)) == 0)
            break;
    }
    return i;
}

static bool is_free_to_go(const struct node *n)
{
    return n->n_children == 0 && n->n_pins == 0;
}

static void node_drop(struct prefix *x, uint32_t i)
{
    struct node *n = &x->nodes[i];
    uint32_t *at = node_bucket(x, n->parent, scope_of(x, n), n->tokens);

    assert(is_free_to_go(n));
    while (*at != i)
        at = &x->nodes[*at].next_in_bucket;
    *at = n->next_in_bucket;
    for (uint32_t g = 0; g < x->config.n_groups; g++)
        if (n->pages[g] != NONE)
            pages_release(x->config.pools[g], n->pages[g]);
    if (n->parent != NONE)
        x->nodes[n->parent].n_children--;
    list_out(x, i);
    if (--x->owners[n->owner].n_nodes == 0)
        owner_drop(x, n->owner);
    /* What somebody wrote does not stay behind. */
    *n = (struct node){.next_in_bucket = x->free_node};
    x->free_node = i;
}

/* The owner that has most; what is public only when there is no other. NONE: all were tried. */
static uint32_t owner_of_most(const struct prefix *x)
{
    uint32_t best = NONE;

    for (uint32_t o = 0; o < x->n_owners_high; o++) {
        const struct owner *a = &x->owners[o], *b = best != NONE ? &x->owners[best] : NULL;

        if (a->n_nodes == 0 || a->tried)
            continue;
        if (!b || (b->id == PREFIX_PUBLIC && a->id != PREFIX_PUBLIC) ||
            ((b->id == PREFIX_PUBLIC) == (a->id == PREFIX_PUBLIC) && a->n_nodes > b->n_nodes))
            best = o;
    }
    return best;
}

static void try_all(struct prefix *x)
{
    for (uint32_t o = 0; o < x->n_owners_high; o++)
        x->owners[o].tried = false;
}

static bool has_no_pages(const struct prefix *x, const struct node *n)
{
    for (uint32_t g = 0; g < x->config.n_groups; g++)
        if (n->pages[g] != NONE)
            return false;
    return true;
}

/* Makes a page of @group free that only the tree holds in this node. Layers without a window need all of a prefix, so
 * there only whole ends of prefixes go. */
static void evict_node(struct prefix *x, uint32_t i, uint32_t group)
{
    struct node *n = &x->nodes[i];
    struct pages *pool = x->config.pools[group];

    if (n->pages[group] == NONE || pages_holders(pool, n->pages[group]) > 1)
        return;
    if (x->config.windows[group] > 0) {
        pages_release(pool, n->pages[group]);
        n->pages[group] = NONE;
        if (!has_no_pages(x, n))
            return;
    }
    if (is_free_to_go(n))
        node_drop(x, i);
}

bool prefix_evict(struct prefix *x, uint32_t group, uint32_t n_pages)
{
    uint32_t o;

    try_all(x);
    while (pages_left(x->config.pools[group]) < n_pages && (o = owner_of_most(x)) != NONE) {
        x->owners[o].tried = true;
        for (uint32_t i = x->owners[o].oldest, newer; i != NONE; i = newer) {
            newer = x->nodes[i].newer;
            evict_node(x, i, group);
            if (pages_left(x->config.pools[group]) >= n_pages)
                break;
        }
    }
    return pages_left(x->config.pools[group]) >= n_pages;
}

/* Drops nodes of @o that nobody uses until it has at most @n_max. */
static void shrink(struct prefix *x, uint32_t o, uint32_t n_max)
{
    for (uint32_t i = x->owners[o].oldest, newer; i != NONE && x->owners[o].n_nodes > n_max; i = newer) {
        newer = x->nodes[i].newer;
        if (is_free_to_go(&x->nodes[i]))
            node_drop(x, i);
    }
}

static bool make_free_node(struct prefix *x)
{
    uint32_t o;

    try_all(x);
    while (x->free_node == NONE && (o = owner_of_most(x)) != NONE) {
        x->owners[o].tried = true;
        shrink(x, o, x->owners[o].n_nodes - 1);
    }
    return x->free_node != NONE;
}

void prefix_limit(struct prefix *x, uint64_t owner, uint32_t n_pages)
{
    uint32_t o = owner_find(x, owner);

    if (o != NONE)
        shrink(x, o, n_pages);
}

uint32_t prefix_n_owned(const struct prefix *x, uint64_t owner)
{
    uint32_t o = owner_find(x, owner);

    return o != NONE ? x->owners[o].n_nodes : 0;
}

uint32_t prefix_n_kept(const struct prefix *x)
{
    uint32_t n_kept = 0;

    for (uint32_t o = 0; o < x->n_owners_high; o++)
        for (uint32_t i = x->owners[o].n_nodes > 0 ? x->owners[o].newest : NONE; i != NONE; i = x->nodes[i].older)
            n_kept += x->nodes[i].pages[0] != NONE && pages_holders(x->config.pools[0], x->nodes[i].pages[0]) == 1;
    return n_kept;
}

/* ---- sequences ---- */

/* The first page that a token at the end of @n_pages pages sees. */
static uint32_t first_seen(const struct prefix *x, uint32_t group, uint32_t n_pages)
{
    uint64_t position = (uint64_t)n_pages * PAGES_TOKENS, window = x->config.windows[group];

    return window > 0 && position >= window ? (uint32_t)((position - window + 1) / PAGES_TOKENS) : 0;
}

struct prefix_hit prefix_find(const struct prefix *x, struct prefix_scope scope, const int32_t *tokens,
                              uint32_t n_tokens)
{
    const struct prefix_scope public = {.owner = PREFIX_PUBLIC, .adapter = scope.adapter};
    struct prefix_hit best = {.node = NONE};
    uint32_t n_there[PREFIX_GROUPS_MAX] = {0}; /* pages side by side up to here */
    uint32_t node = NONE;
    bool all_public = true;

    for (uint32_t n = 1; n <= n_tokens / PAGES_TOKENS; n++) {
        const int32_t *page = tokens + (size_t)(n - 1) * PAGES_TOKENS;
        uint32_t child = all_public ? child_find(x, node, public, page) : NONE;
        bool usable = true;

        if (child == NONE) {
            all_public = false;
            child = child_find(x, node, scope, page);
        }
        if (child == NONE)
            break;
        node = child;
        for (uint32_t g = 0; g < x->config.n_groups; g++) {
            n_there[g] = x->nodes[node].pages[g] != NONE ? n_there[g] + 1 : 0;
            usable = usable && n_there[g] >= n - first_seen(x, g, n);
        }
        if (usable)
            best = (struct prefix_hit){.node = node, .n_pages = n};
    }
    return best;
}

void prefix_share(struct prefix *x, struct prefix_hit hit, struct page_table *tables)
{
    for (uint32_t g = 0; g < x->config.n_groups; g++) {
        struct page_table *t = &tables[g];
        uint32_t node = hit.node;

        assert(t->n == 0 && hit.n_pages <= t->n_max);
        t->n = hit.n_pages;
        t->n_gone = first_seen(x, g, hit.n_pages);
        for (uint32_t i = hit.n_pages; i-- > t->n_gone; node = x->nodes[node].parent) {
            t->ids[i] = x->nodes[node].pages[g];
            pages_hold(x->config.pools[g], t->ids[i]);
        }
    }
    x->nodes[hit.node].n_pins++;
    use(x, hit.node);
}

static uint32_t node_new(struct prefix *x, struct prefix_scope scope, uint32_t parent, const int32_t *tokens)
{
    uint32_t i, *bucket = node_bucket(x, parent, scope, tokens);
    struct node *n;

    if (x->free_node == NONE && !make_free_node(x))
        return NONE;
    i = x->free_node;
    n = &x->nodes[i];
    x->free_node = n->next_in_bucket;
    *n = (struct node){.parent = parent, .adapter = scope.adapter, .next_in_bucket = *bucket};
    *bucket = i;
    memcpy(n->tokens, tokens, sizeof(n->tokens));
    for (uint32_t g = 0; g < PREFIX_GROUPS_MAX; g++)
        n->pages[g] = NONE;
    n->owner = owner_get(x, scope.owner);
    x->owners[n->owner].n_nodes++;
    if (parent != NONE)
        x->nodes[parent].n_children++;
    list_in(x, i, parent != NONE && x->nodes[parent].owner == n->owner ? parent : NONE);
    return i;
}

uint32_t prefix_put(struct prefix *x, struct prefix_scope scope, uint32_t parent, const int32_t *tokens,
                    uint32_t i_page, struct page_table *tables)
{
    uint32_t i = child_find(x, parent, scope, tokens);

    if (i == NONE)
        i = node_new(x, scope, parent, tokens);
    if (i == NONE)
        return NONE;
    for (uint32_t g = 0; g < x->config.n_groups; g++) {
        struct page_table *t = &tables[g];
        uint32_t *page = &x->nodes[i].pages[g];

        if (i_page < t->n_gone || i_page >= t->n || *page == t->ids[i_page])
            continue;
        if (*page == NONE) {
            *page = t->ids[i_page];
            pages_hold(x->config.pools[g], *page);
        } else {
            /* The same bits: what a page holds depends on its tokens alone. */
            pages_hold(x->config.pools[g], *page);
            pages_release(x->config.pools[g], t->ids[i_page]);
            t->ids[i_page] = *page;
        }
    }
    x->nodes[i].n_pins++;
    if (parent != NONE)
        x->nodes[parent].n_pins--;
    return i;
}

uint32_t prefix_retreat(struct prefix *x, uint32_t node, uint32_t n_pages)
{
    uint32_t depth = 0, to = node;

    for (uint32_t i = node; i != NONE; i = x->nodes[i].parent)
        depth++;
    assert(n_pages <= depth);
    for (; depth > n_pages; depth--)
        to = x->nodes[to].parent;
    if (to != NONE)
        x->nodes[to].n_pins++;
    prefix_unpin(x, node);
    return to;
}

void prefix_unpin(struct prefix *x, uint32_t node)
{
    if (node == NONE)
        return;
    assert(x->nodes[node].n_pins > 0);
    x->nodes[node].n_pins--;
    use(x, node);
}
