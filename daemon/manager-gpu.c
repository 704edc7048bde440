/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VRAM over all models: looking for GPUs after the start, and what of each may still be used. What is free there comes
 * from a worker's look at the device, in which models that are loaded count as everything else; those that are being
 * loaded have not taken theirs yet.
 */
#include <errno.h>

#include "daemon/internal.h"
#include "daemon/messages.h"
#include "daemon/worker-start.h"

static void on_looked(struct measure *measure, struct plan_shape *shape, void *userdata)
{
    struct manager *m = userdata;

    m->look = measure_free(m->look);
    for (size_t i = 0; i < m->gpus.n; i++)
        log_line(m->log, LOG_INFO, NULL, "GPU %u: %s", m->gpus.list[i].number, m->gpus.list[i].name);
    if (m->gpus.reason[0])
        log_line(m->log, LOG_INFO, NULL, "GPUs: %s", m->gpus.reason);
}

static void on_look_failed(struct measure *measure, const struct fault *fault, void *userdata)
{
    struct manager *m = userdata;

    m->look = measure_free(m->look);
    gpus_none(&m->gpus, fault->reason);
    log_line(m->log, LOG_WARNING, &(struct log_fields){.message_id = MESSAGE_GPUS_UNKNOWN}, "Can't look for GPUs: %s",
             fault->reason);
}

static const struct measure_callbacks look_callbacks = {.done = on_looked, .failed = on_look_failed};

int manager_look_for_gpus(struct manager *m)
{
    const struct measure_options options = {
        .worker_path = m->worker_path, .n_threads = 1, .gpus = &m->gpus, .look = true};

    if (!worker_start_has_gpu(m->worker_path)) {
        gpus_none(&m->gpus, "no workers for GPUs are installed (package residentd-cuda)");
        return 0;
    }
    return measure_new(m->event, m->workers, &options, &look_callbacks, m, &m->look);
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

uint64_t manager_vram_left(const struct manager *m, const struct gpu_known *gpu, const struct model *model, bool evict)
{
    uint64_t budget = gpus_budget(gpu, m->policy), left = less(gpu->free_bytes + gpu->driver_bytes, GPUS_MARGIN_BYTES);
    struct list *at, *after;

    list_foreach(at, after, &((struct manager *)m)->models)
    {
        const struct model *other = list_entry(at, struct model, entry);
        uint64_t held = other->grant ? other->grant->vram_bytes[gpu->number] : 0;

        if (other == model)
            continue;
        if (evict && (may_leave(other) || other->state == MODEL_DRAINING)) {
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

int manager_make_vram_room(struct manager *m, const struct model *model, const struct gpu_known *gpu, uint64_t needed)
{
    const struct budget_memory memory = {.own_bytes = needed};
    uint64_t budget = gpus_budget(gpu, m->policy), left = manager_vram_left(m, gpu, model, /* evict= */ false);
    uint64_t used = manager_vram_used(m, gpu->number), ignored;

    /* What others than models hold makes the budget smaller. */
    if (left + used < budget)
        budget = left + used;
    return manager_evict(m, model, budget, &memory, (int)gpu->number, &ignored, &ignored);
}
