/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VRAM over all models: looking for GPUs, and what of each may still be used. What is free there comes
 * from a worker's look at the device, in which models that are loaded count as everything else; those that are being
 * loaded have not taken theirs yet.
 */
#include <errno.h>

#include "daemon/internal.h"
#include "daemon/messages.h"
#include "daemon/worker-start.h"

/* A GPU that was lost comes back with its driver, or never; a look costs a process, and while it lasts some of each
 * GPU's memory. */
#define LOOK_FIRST_US (UINT64_C(4) * 1000000)
#define LOOK_MAX_US (UINT64_C(600) * 1000000)
/* One that is there for so long and is lost then is looked for as often as at first. */
#define LOOK_WELL_US (UINT64_C(600) * 1000000)

static void on_looked(struct look *look, void *userdata)
{
    struct manager *m = userdata;

    m->has_looked = true;
    for (size_t i = 0; i < m->gpus.n; i++)
        log_line(m->log, LOG_INFO, NULL, "GPU %u: %s", m->gpus.list[i].number, m->gpus.list[i].name);
    if (m->gpus.reason[0])
        log_line(m->log, LOG_INFO, NULL, "GPUs: %s", m->gpus.reason);
    handover_changed(m);
}

static void on_look_ended(struct look *look, const struct fault *fault, void *userdata)
{
    struct manager *m = userdata;
    bool has_looked = m->has_looked;

    m->look = look_free(m->look);
    if (!fault)
        return;
    if (!has_looked)
        gpus_none(&m->gpus, fault->reason, manager_now_us(m));
    log_line(m->log, LOG_WARNING, &(struct log_fields){.message_id = MESSAGE_GPUS_UNKNOWN},
             has_looked ? "Can't watch GPUs: %s" : "Can't look for GPUs: %s", fault->reason);
}

static const struct look_callbacks look_callbacks = {.looked = on_looked, .ended = on_look_ended};

int manager_look_for_gpus(struct manager *m)
{
    const struct look_options options = {
        .worker_path = m->worker_path, .gpus = &m->gpus, .callbacks = &look_callbacks, .userdata = m};

    m->look_at_us = 0;
    if (m->look && !m->has_looked)
        return 0;
    m->look = look_free(m->look);
    m->has_looked = false;
    if (!worker_start_has_gpu(m->worker_path)) {
        gpus_none(&m->gpus, "no workers for GPUs are installed (package residentd-cuda)", manager_now_us(m));
        return 0;
    }
    return look_new(m->event, m->workers, &options, &m->look);
}

void manager_look_at_gpus(struct manager *m)
{
    uint64_t now_us = manager_now_us(m);

    if (m->stopping || (m->look && !m->has_looked))
        return;
    if (!(m->gpus.seen & ~gpus_there(&m->gpus))) {
        m->look_at_us = 0;
        if (m->look_well_us == 0)
            m->look_well_us = now_us;
        if (now_us - m->look_well_us > LOOK_WELL_US)
            m->look_interval_us = 0;
        return;
    }
    m->look_well_us = 0;
    if (m->look_at_us == 0) {
        m->look_interval_us = m->look_interval_us == 0 ? LOOK_FIRST_US : 2 * m->look_interval_us;
        if (m->look_interval_us > LOOK_MAX_US)
            m->look_interval_us = LOOK_MAX_US;
        m->look_at_us = now_us + m->look_interval_us;
    } else if (now_us >= m->look_at_us && manager_look_for_gpus(m) < 0) {
        m->look_at_us = now_us + m->look_interval_us;
    }
}

/* Whose worker has taken what was planned for it, so that it is no more free. */
static bool is_allocated(const struct model *model)
{
    return model->state == MODEL_READY || model->state == MODEL_DRAINING;
}

static bool may_leave(const struct model *model)
{
    return !model_is_pinned(model) && model->state == MODEL_READY && model->n_submitted == 0 && model->n_held == 0;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

uint64_t manager_vram_left(const struct manager *m, const struct gpu_known *gpu, const struct model *model, bool evict,
                           const bool *gone)
{
    uint64_t budget = gpus_budget(gpu, m->policy), left = less(gpu->free_bytes + gpu->driver_bytes, GPUS_MARGIN_BYTES);
    struct list *at, *after;
    size_t i = 0;

    list_foreach(at, after, &((struct manager *)m)->models)
    {
        const struct model *other = list_entry(at, struct model, entry);
        uint64_t held = other->grant ? other->grant->vram_bytes[gpu->number] : 0;
        bool is_gone = gone && gone[i];

        i++;
        if (other == model)
            continue;
        if (is_gone || (evict && (may_leave(other) || other->state == MODEL_DRAINING))) {
            left += held;
            continue;
        }
        budget = less(budget, held);
        if (!is_allocated(other))
            left = less(left, held);
    }
    /* Of workers that are on their way out. */
    list_foreach(at, after, &((struct manager *)m)->grants.all)
    {
        const struct grant *g = list_entry(at, struct grant, entry);

        if (g->is_leaving && !g->is_stuck && evict)
            left += g->vram_bytes[gpu->number];
        else if (g->is_leaving)
            budget = less(budget, g->vram_bytes[gpu->number]);
    }
    return budget < left ? budget : left;
}

uint64_t manager_vram_used(const struct manager *m, uint32_t number)
{
    struct list *at, *after;
    uint64_t used = 0;

    list_foreach(at, after, &((struct manager *)m)->grants.all)
        used += list_entry(at, struct grant, entry)->vram_bytes[number];
    return used;
}

uint64_t manager_vram_budget(const struct manager *m, const struct gpu_known *gpu, const struct model *model)
{
    uint64_t budget = gpus_budget(gpu, m->policy), left = manager_vram_left(m, gpu, model, /* evict= */ false, NULL);
    uint64_t used = manager_vram_used(m, gpu->number);

    return left + used < budget ? left + used : budget;
}

int manager_make_vram_room(struct manager *m, const struct model *model, const struct gpu_known *gpu, uint64_t needed)
{
    const struct budget_memory memory = {.own_bytes = needed};
    uint64_t ignored;

    return manager_evict(m, model, manager_vram_budget(m, gpu, model), &memory, (int)gpu->number, &ignored, &ignored);
}
