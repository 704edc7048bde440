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

static bool is_nothing(const struct budget_memory *m)
{
    return m->own_bytes == 0 && m->n_files == 0;
}

struct budget_holder *budget_first_to_leave(struct budget_holder *holders, size_t n_holders)
{
    struct budget_holder *first = NULL;

    for (size_t i = 0; i < n_holders; i++) {
        struct budget_holder *h = &holders[i];

        if (h->may_leave && !h->is_leaving && !h->leaves && !is_nothing(&h->memory) &&
            (!first || leaves_before(h, first)))
            first = h;
    }
    return first;
}

/* Sums saturate: what is too much stays too much. */
static uint64_t plus(uint64_t a, uint64_t b)
{
    return b < UINT64_MAX - a ? a + b : UINT64_MAX;
}

static uint64_t held_of(const struct budget_memory *m, size_t n_files, const struct budget_file *file)
{
    uint64_t n_bytes = 0;

    for (size_t i = 0; i < n_files; i++) {
        if (m->files[i].device == file->device && m->files[i].inode == file->inode)
            n_bytes = plus(n_bytes, m->files[i].held_bytes);
    }
    return n_bytes;
}

/* Those that count, in order; each file with the first that has it. */
typedef bool (*counts_t)(const struct budget_holder *h);

static uint64_t held_by(const struct budget_holder *holders, size_t n, counts_t counts, const struct budget_file *file)
{
    uint64_t n_bytes = 0;

    for (size_t i = 0; i < n; i++) {
        if (counts(&holders[i]))
            n_bytes = plus(n_bytes, held_of(&holders[i].memory, holders[i].memory.n_files, file));
    }
    return n_bytes;
}

static uint64_t at_most(uint64_t n_bytes, uint64_t max)
{
    return n_bytes < max ? n_bytes : max;
}

static uint64_t adds(const struct budget_memory *m, const struct budget_holder *before, size_t n_before,
                     counts_t counts)
{
    uint64_t n_bytes = m->own_bytes;

    for (size_t i = 0; i < m->n_files; i++) {
        const struct budget_file *f = &m->files[i];
        uint64_t held = plus(held_by(before, n_before, counts, f), held_of(m, i, f));

        n_bytes = plus(n_bytes, at_most(plus(held, f->held_bytes), f->n_bytes) - at_most(held, f->n_bytes));
    }
    return n_bytes;
}

static uint64_t sum(const struct budget_holder *holders, size_t n, counts_t counts)
{
    uint64_t n_bytes = 0;

    for (size_t i = 0; i < n; i++) {
        if (counts(&holders[i]))
            n_bytes = plus(n_bytes, adds(&holders[i].memory, holders, i, counts));
    }
    return n_bytes;
}

static bool everybody(const struct budget_holder *h)
{
    return true;
}

static bool has_to_stay(const struct budget_holder *h)
{
    return !h->is_leaving && !h->may_leave;
}

static bool remains(const struct budget_holder *h)
{
    return !h->is_leaving && !h->leaves;
}

uint64_t budget_used(const struct budget_holder *holders, size_t n_holders)
{
    return sum(holders, n_holders, everybody);
}

uint64_t budget_stays(const struct budget_holder *holders, size_t n_holders)
{
    return sum(holders, n_holders, has_to_stay);
}

uint64_t budget_kept_bytes(const struct budget_holder *holders, size_t n_holders, const struct budget_file *files,
                           size_t n_files)
{
    uint64_t n_bytes = 0;

    for (size_t i = 0; i < n_files; i++)
        n_bytes += at_most(held_by(holders, n_holders, has_to_stay, &files[i]), files[i].n_bytes);
    return n_bytes;
}

static bool fits(uint64_t budget, const struct budget_memory *needed, const struct budget_holder *holders, size_t n,
                 counts_t counts)
{
    return plus(sum(holders, n, counts), adds(needed, holders, n, counts)) <= budget;
}

int budget_make_room(uint64_t budget, const struct budget_memory *needed, struct budget_holder *holders,
                     size_t n_holders, uint64_t *ret_needed, uint64_t *ret_available)
{
    for (size_t i = 0; i < n_holders; i++)
        holders[i].leaves = false;
    if (!fits(budget, needed, holders, n_holders, has_to_stay)) {
        uint64_t stays = sum(holders, n_holders, has_to_stay);

        *ret_needed = adds(needed, holders, n_holders, has_to_stay);
        *ret_available = stays > budget ? 0 : budget - stays;
        return BUDGET_TOO_SMALL;
    }
    if (fits(budget, needed, holders, n_holders, everybody))
        return 0;
    /* All who may leave together are enough, so there is always one more. */
    while (!fits(budget, needed, holders, n_holders, remains))
        budget_first_to_leave(holders, n_holders)->leaves = true;
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
