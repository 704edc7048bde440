/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/grant.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "daemon/residency.h"

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

int grant_set(struct grant *g, uint64_t n_bytes, const struct residency_identity *files, size_t n_files)
{
    _cleanup_free_ struct budget_file *list = calloc(n_files + 1, sizeof(*list));
    uint64_t own = n_bytes;
    size_t n = 0;

    if (!list)
        return -ENOMEM;
    for (; n < n_files && files[n].n_bytes <= own; n++) {
        list[n] = (struct budget_file){files[n].device, files[n].inode, files[n].n_bytes};
        own -= files[n].n_bytes;
    }
    free((void *)(uintptr_t)g->memory.files);
    g->memory = (struct budget_memory){.own_bytes = own, .files = TAKE_PTR(list), .n_files = n};
    return 0;
}

uint64_t grant_bytes(const struct grant *g)
{
    uint64_t n_bytes = 0;

    if (!g || !g->is_given)
        return 0;
    n_bytes = g->memory.own_bytes;
    for (size_t i = 0; i < g->memory.n_files; i++)
        n_bytes += g->memory.files[i].n_bytes;
    return n_bytes;
}
