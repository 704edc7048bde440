/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who may be in memory: the budget over all models, who leaves for another, those that wait for room, and what follows
 * from the kernel's memory pressure. The choices themselves are budget.c's.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/budget.h"
#include "daemon/internal.h"
#include "daemon/limits.h"
#include "daemon/messages.h"
#include "daemon/pressure.h"
#include "daemon/shared.h"

uint64_t manager_ram_budget(const struct manager *m)
{
    uint64_t reserve = policy_size_of(&m->policy->ram_reserve, m->ram_total_bytes);
    uint64_t budget = policy_size_of(&m->policy->ram_budget, m->ram_total_bytes);
    uint64_t left = m->ram_total_bytes > reserve ? m->ram_total_bytes - reserve : 0;

    return budget < left ? budget : left;
}

void manager_take_bandwidth(struct manager *m, struct plan_shape *shape)
{
    if (shape->read_gbps > m->read_gbps)
        m->read_gbps = shape->read_gbps;
    shape->read_gbps = m->read_gbps;
}

/* What a grant is of: RAM, or with @gpu >= 0 memory of that one, which counts as soon as it is planned. */
static struct budget_memory memory_of(const struct grant *g, int gpu)
{
    if (gpu >= 0)
        return (struct budget_memory){.own_bytes = g->vram_bytes[gpu]};
    return g->is_given ? g->memory : (struct budget_memory){.own_bytes = 0};
}

/* What every model holds, in the order of m->models, then the memory that belongs to none any more. @model: the one
 * that asks, or NULL. @gone: in that order, who is thought to have left; NULL: nobody. */
static int list_holders(struct manager *m, const struct model *model, int gpu, const bool *gone,
                        struct budget_holder **ret, size_t *ret_n)
{
    static const struct budget_memory nothing = {.own_bytes = 0};
    struct budget_holder *holders;
    struct list *at, *after;
    size_t n = 0;

    list_foreach (at, after, &m->models)
        n++;
    list_foreach (at, after, &m->grants.all)
        n++;
    holders = calloc(n + 1, sizeof(*holders));
    if (!holders)
        return -ENOMEM;
    n = 0;
    list_foreach (at, after, &m->models) {
        const struct model *other = list_entry(at, struct model, entry);

        if (gone && gone[n]) {
            holders[n++] = (struct budget_holder){.is_leaving = true};
            continue;
        }
        holders[n++] = (struct budget_holder){
            .memory = other != model && other->grant ? memory_of(other->grant, gpu) : nothing,
            .is_leaving = other->state == MODEL_DRAINING,
            .may_leave = other != model && (!model || other != model->predecessor) && !model_is_pinned(other) &&
                         other->state == MODEL_READY && other->n_submitted == 0 && other->n_held == 0,
            .priority = other->rules->priority,
            .used_us = other->used_us,
        };
    }
    list_foreach (at, after, &m->grants.all) {
        const struct grant *g = list_entry(at, struct grant, entry);

        if (g->is_leaving)
            holders[n++] = (struct budget_holder){.memory = memory_of(g, gpu), .is_leaving = !g->is_stuck};
    }
    /* What other programs have of models that left: nobody can make them go. */
    holders[n++] = (struct budget_holder){.memory = {.own_bytes = gpu < 0 ? shared_bytes(&m->shared) : 0}};
    *ret = holders;
    *ret_n = n;
    return 0;
}

/* Those that were chosen go. */
static void let_leave(struct manager *m, const struct budget_holder *holders, const char *why)
{
    struct list *at, *after;

    list_foreach (at, after, &m->models) {
        struct model *other = list_entry(at, struct model, entry);

        if (!(holders++)->leaves)
            continue;
        log_line(m->log, LOG_INFO, &(struct log_fields){.model = other->rules->name}, "model %s leaves: %s",
                 other->rules->name, why);
        model_unload(other);
    }
}

int manager_ram_used(struct manager *m, const struct model *model, uint64_t *ret)
{
    _cleanup_free_ struct budget_holder *holders = NULL;
    size_t n = 0;
    int r = list_holders(m, model, /* gpu= */ -1, NULL, &holders, &n);

    if (r == 0)
        *ret = budget_used(holders, n);
    return r;
}

int manager_ram_for(struct manager *m, const struct model *model, const struct residency *residency,
                    const struct policy_model *rules, struct manager_ram *ret)
{
    struct budget_file files[RESIDENCY_FILES_MAX];
    size_t n_files = residency ? model_files_in_place(residency, rules, files) : 0, n = 0;
    size_t n_own = residency ? residency_n_files(residency, 0) : 0;
    _cleanup_free_ struct budget_holder *holders = NULL;
    uint64_t budget = manager_ram_budget(m), stays;
    int r = list_holders(m, model, /* gpu= */ -1, NULL, &holders, &n);

    if (r < 0)
        return r;
    n_own = n_own < n_files ? n_own : n_files;
    stays = budget_stays(holders, n);
    *ret = (struct manager_ram){
        .bytes = stays < budget ? budget - stays : 0,
        .shared_bytes = budget_kept_bytes(holders, n, files, n_own),
        .shared_others_bytes = budget_kept_bytes(holders, n, files + n_own, n_files - n_own),
    };
    return 0;
}

int manager_evict(struct manager *m, const struct model *model, uint64_t budget, const struct budget_memory *needed,
                  int gpu, uint64_t *ret_needed, uint64_t *ret_available)
{
    _cleanup_free_ struct budget_holder *holders = NULL;
    size_t n = 0;
    int r;

    r = list_holders(m, model, gpu, NULL, &holders, &n);
    if (r < 0)
        return r;
    r = budget_make_room(budget, needed, holders, n, ret_needed, ret_available);
    let_leave(m, holders, "another one needs its room");
    return r;
}

int manager_would_evict(struct manager *m, const struct model *model, uint64_t budget,
                        const struct budget_memory *needed, int gpu, bool *gone)
{
    _cleanup_free_ struct budget_holder *holders = NULL;
    uint64_t ignored;
    struct list *at, *after;
    size_t n = 0;
    int r;

    r = list_holders(m, model, gpu, gone, &holders, &n);
    if (r < 0)
        return r;
    r = budget_make_room(budget, needed, holders, n, &ignored, &ignored);
    n = 0;
    list_foreach (at, after, &m->models) {
        gone[n] = gone[n] || holders[n].leaves;
        n++;
    }
    return r;
}

int manager_make_room(struct manager *m, const struct model *model, const struct budget_memory *needed,
                      struct fault *reterr)
{
    uint64_t bytes = 0, available = 0;
    int r = manager_evict(m, model, manager_ram_budget(m), needed, /* gpu= */ -1, &bytes, &available);

    if (r < 0)
        fault_set(reterr, FAULT_MODEL_UNAVAILABLE, model->rules->name, "out of memory");
    if (r == BUDGET_TOO_SMALL) {
        fault_set(reterr, FAULT_INSUFFICIENT_MEMORY, "ram",
                  "the model needs %" PRIu64 " bytes, the budget has %" PRIu64, bytes, available);
        reterr->used = (int64_t)bytes;
        reterr->limit = (int64_t)available;
        model_suggest(model, reterr);
    }
    return r;
}

/* Those in memory take more than the budget of a new policy: who may leave does, and the others as soon as they may. */
void manager_look_at_budget(struct manager *m)
{
    static const struct budget_memory nothing = {.own_bytes = 0};
    _cleanup_free_ struct budget_holder *holders = NULL;
    uint64_t needed, available;
    size_t n = 0;
    int r;

    if (!m->may_exceed_budget || list_holders(m, NULL, /* gpu= */ -1, NULL, &holders, &n) < 0)
        return;
    r = budget_make_room(manager_ram_budget(m), &nothing, holders, n, &needed, &available);
    for (size_t i = 0; r == BUDGET_TOO_SMALL && i < n; i++)
        holders[i].leaves = holders[i].may_leave;
    m->may_exceed_budget = r != 0;
    let_leave(m, holders, "the budget became smaller");
}

/* ---- memory pressure ---- */

int manager_find_pressure(struct manager *m, const char *path)
{
    int r;

    if (path) {
        m->pressure_path = strdup(path);
        return m->pressure_path ? 0 : -ENOMEM;
    }
    r = pressure_path(&m->pressure_path);
    return r == -ENOENT ? 0 : r;
}

static void trim_caches(struct manager *m, double percent)
{
    struct list *at, *after;

    log_line(m->log, LOG_NOTICE, &(struct log_fields){.message_id = MESSAGE_MEMORY_PRESSURE},
             "memory pressure is at %.0f%%: caches are given back", percent);
    list_foreach (at, after, &m->models) {
        const struct model *model = list_entry(at, struct model, entry);

        if (model->worker && model->state == MODEL_READY)
            worker_trim(model->worker, UINT64_MAX);
    }
}

static void unload_one(struct manager *m)
{
    _cleanup_free_ struct budget_holder *holders = NULL;
    struct budget_holder *first;
    size_t n = 0;

    if (list_holders(m, NULL, /* gpu= */ -1, NULL, &holders, &n) < 0)
        return;
    first = budget_first_to_leave(holders, n);
    if (!first)
        return;
    first->leaves = true;
    let_leave(m, holders, "memory is short on this machine");
}

/* Caches first; idle models only where that did not help, one a tick. */
void manager_look_at_pressure(struct manager *m)
{
    bool was = m->under_pressure;
    double percent;

    if (!m->pressure_path || m->stopping || pressure_read(m->pressure_path, &percent) < 0)
        return;
    m->under_pressure = percent >= PRESSURE_TRIM;
    if (m->under_pressure && !was)
        trim_caches(m, percent);
    else if (was && percent >= PRESSURE_UNLOAD)
        unload_one(m);
}

/* ---- those that wait for room ---- */

void manager_look_at_stuck(struct manager *m)
{
    struct list *at, *after;

    list_foreach (at, after, &m->grants.all) {
        struct grant *g = list_entry(at, struct grant, entry);

        if (!g->is_leaving || g->is_stuck || manager_now_us(m) - g->left_us < LIMIT_LINGER_US)
            continue;
        g->is_stuck = true;
        log_line(m->log, LOG_NOTICE, NULL, "a worker has not ended: %" PRIu64 " bytes of memory are not waited for",
                 grant_bytes(g));
        manager_room_came(m);
    }
}

static int on_room(sd_event_source *s, void *userdata)
{
    struct manager *m = userdata;
    struct list *at, *after;

    list_foreach (at, after, &m->models) {
        struct model *model = list_entry(at, struct model, entry);

        if (model->waits_for_room)
            model_room_came(model);
    }
    return 0;
}

void manager_room_came(struct manager *m)
{
    sd_event_source_set_enabled(m->room, SD_EVENT_ONESHOT);
}

int manager_watch_room(struct manager *m)
{
    return sd_event_add_defer(m->event, &m->room, on_room, m);
}
