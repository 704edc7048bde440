/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/numa.h"

#include <errno.h>
#include <numa.h>
#include <stdbool.h>

static struct bitmask *all_nodes(void)
{
    return numa_all_nodes_ptr;
}

/* numa_bitmask_isbitset() has had two forms in libnuma's headers. */
static int is_set(const struct bitmask *mask, unsigned node)
{
    return numa_bitmask_isbitset(mask, node);
}

const struct numa_calls *numa_calls_real(void)
{
    static const struct numa_calls real = {
        .available = numa_available,
        .num_configured_nodes = numa_num_configured_nodes,
        .all_nodes = all_nodes,
        .allocate_nodemask = numa_allocate_nodemask,
        .bitmask_setbit = numa_bitmask_setbit,
        .bitmask_isbitset = is_set,
        .free_nodemask = numa_free_nodemask,
        .set_interleave_mask = numa_set_interleave_mask,
        .set_membind = numa_set_membind,
    };

    return &real;
}

static int bind_to(const struct numa_calls *calls, uint32_t node)
{
    struct bitmask *mask;

    if (!calls->bitmask_isbitset(calls->all_nodes(), node))
        return -ENODEV;
    mask = calls->allocate_nodemask();
    calls->bitmask_setbit(mask, node);
    calls->set_membind(mask);
    calls->free_nodemask(mask);
    return 0;
}

int numa_place(const struct numa_calls *calls, enum policy_numa numa, uint32_t node)
{
    bool has_numa = numa != POLICY_NUMA_OFF && calls->available() >= 0;

    if (numa == POLICY_NUMA_BIND && !has_numa)
        return node == 0 ? 0 : -ENODEV;
    if (numa == POLICY_NUMA_BIND)
        return bind_to(calls, node);
    if (has_numa && calls->num_configured_nodes() > 1)
        calls->set_interleave_mask(calls->all_nodes());
    return 0;
}
