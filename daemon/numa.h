/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * On which memory nodes of the machine a model's pages are put, by libnuma.
 */

#include <stdint.h>

#include "policy/policy.h"

struct bitmask; /* libnuma's set of nodes */

/* libnuma's functions of these names, and in tests others. */
struct numa_calls {
    int (*available)(void);
    int (*num_configured_nodes)(void);
    struct bitmask *(*all_nodes)(void); /* the ones that this process may use */
    struct bitmask *(*allocate_nodemask)(void);
    struct bitmask *(*bitmask_setbit)(struct bitmask *mask, unsigned node);
    int (*bitmask_isbitset)(const struct bitmask *mask, unsigned node);
    void (*free_nodemask)(struct bitmask *mask);
    void (*set_interleave_mask)(struct bitmask *mask);
    void (*set_membind)(struct bitmask *mask);
};

/**
 * numa_calls_real() - libnuma
 */
const struct numa_calls *numa_calls_real(void);

/**
 * numa_place() - where pages come from that the calling thread makes from now on, until it ends
 * Page cache and memfd pages follow their reader's policy, so this is called by the thread that reads a model in.
 * @numa: AUTO: spread over all nodes where there are several, since every core reads all weights; INTERLEAVE the same,
 *        asked for; BIND: node @node only; OFF: as the kernel does, near the thread
 * Returns 0; -ENODEV: BIND to a node that there is not, or that the process may not use, and nothing was changed.
 */
int numa_place(const struct numa_calls *calls, enum policy_numa numa, uint32_t node);
