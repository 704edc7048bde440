/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/grant.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"

int grant_new(struct grants *owner, struct grant **ret)
{
    struct grant *g = calloc(1, sizeof(*g));

    if (!g)
        return -ENOMEM;
    g->owner = owner;
    g->n_refs = 1;
    list_append(&owner->all, &g->entry);
    *ret = g;
    return 0;
}

struct grant *grant_ref(struct grant *g)
{
    g->n_refs++;
    return g;
}

void grant_unref(void *grant)
{
    struct grant *g = grant;

    if (!g || --g->n_refs > 0)
        return;
    list_remove(&g->entry);
    g->owner->came_back(g->owner->userdata);
    free((void *)(uintptr_t)g->memory.files);
    free(g);
}

struct grant *grant_leave(struct grant *g)
{
    if (g)
        g->is_leaving = true;
    grant_unref(g);
    return NULL;
}

int grant_set(struct grant *g, uint64_t own_bytes, const struct budget_file *files, size_t n_files)
{
    _cleanup_free_ struct budget_file *list = calloc(n_files + 1, sizeof(*list));

    if (!list)
        return -ENOMEM;
    for (size_t i = 0; i < n_files; i++)
        list[i] = files[i];
    free((void *)(uintptr_t)g->memory.files);
    g->memory = (struct budget_memory){.own_bytes = own_bytes, .files = TAKE_PTR(list), .n_files = n_files};
    return 0;
}

uint64_t grant_bytes(const struct grant *g)
{
    uint64_t n_bytes = 0;

    if (!g || !g->is_given)
        return 0;
    n_bytes = g->memory.own_bytes;
    for (size_t i = 0; i < g->memory.n_files; i++)
        n_bytes += g->memory.files[i].held_bytes;
    return n_bytes;
}
