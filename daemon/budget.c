/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/budget.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

static bool leaves_before(const struct budget_holder *a, const struct budget_holder *b)
{
    if (a->priority != b->priority)
        return a->priority < b->priority;
    return a->used_us < b->used_us;
}

struct budget_holder *budget_first_to_leave(struct budget_holder *holders, size_t n_holders)
{
    struct budget_holder *first = NULL;

    for (size_t i = 0; i < n_holders; i++) {
        struct budget_holder *h = &holders[i];

        if (h->may_leave && !h->is_leaving && !h->leaves && h->bytes > 0 && (!first || leaves_before(h, first)))
            first = h;
    }
    return first;
}

int budget_make_room(uint64_t budget, uint64_t needed, struct budget_holder *holders, size_t n_holders,
                     uint64_t *ret_available)
{
    uint64_t held = 0, leaving = 0, stays = 0;

    for (size_t i = 0; i < n_holders; i++) {
        holders[i].leaves = false;
        held += holders[i].bytes;
        if (holders[i].is_leaving)
            leaving += holders[i].bytes;
        else if (!holders[i].may_leave)
            stays += holders[i].bytes;
    }
    if (stays > budget || needed > budget - stays) {
        *ret_available = stays > budget ? 0 : budget - stays;
        return BUDGET_TOO_SMALL;
    }
    if (held <= budget && needed <= budget - held)
        return 0;
    /* All who may leave together are enough, so there is always one more. */
    while (held - leaving > budget || needed > budget - (held - leaving)) {
        struct budget_holder *first = budget_first_to_leave(holders, n_holders);

        first->leaves = true;
        leaving += first->bytes;
    }
    return BUDGET_LATER;
}

/* memory.max of this process' cgroup and of those above it; UINT64_MAX: no limit. */
static uint64_t cgroup_limit(void)
{
    char line[PATH_MAX], path[PATH_MAX + 64];
    uint64_t least = UINT64_MAX, bytes;
    _cleanup_fclose_ FILE *f = fopen("/proc/self/cgroup", "re");
    char *slash;

    while (f && fgets(line, sizeof(line), f)) {
        if (strncmp(line, "0::/", 4) != 0)
            continue;
        line[strcspn(line, "\n")] = 0;
        for (;;) {
            _cleanup_fclose_ FILE *limit = NULL;

            snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.max", line + 3);
            limit = fopen(path, "re");
            if (limit && fscanf(limit, "%" SCNu64, &bytes) == 1 && bytes < least)
                least = bytes;
            slash = strrchr(line + 3, '/');
            if (!slash)
                return least;
            *slash = 0;
        }
    }
    return least;
}

uint64_t budget_total_ram(void)
{
    uint64_t ram = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE), limit = cgroup_limit();

    return limit < ram ? limit : ram;
}
