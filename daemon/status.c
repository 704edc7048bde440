/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is reported: models to those who may use them, live figures of others to administrators only.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/budget.h"
#include "daemon/internal.h"
#include "daemon/usage.h"

static size_t count_models(const struct manager *m)
{
    struct list *at, *after;
    size_t n = 0;

    list_foreach (at, after, &m->models)
        n++;
    return n;
}

int manager_list_models(struct manager *m, const struct policy_subject *s, struct model_info **ret, size_t *ret_n)
{
    struct model_info *list = calloc(count_models(m) + 1, sizeof(*list));
    struct list *at, *after;
    size_t n = 0;

    if (!list)
        return -ENOMEM;
    list_foreach (at, after, &m->models) {
        const struct model *model = list_entry(at, struct model, entry);

        if (model->removed || model->predecessor || !policy_may_use(m->policy, model->rules, s))
            continue;
        list[n++] = (struct model_info){
            .name = model->rules->name,
            .aliases = model->aliases,
            .n_aliases = model->n_aliases,
            .architecture = model->architecture,
            .n_parameters = model->n_parameters,
            .quantization = model->quantization,
            .size_bytes = model->bytes_total,
            .context_tokens = model->context_tokens ? model->context_tokens : model->rules->context.tokens,
            .state = model->state,
            .capabilities = model->capabilities,
            .n_capabilities = model->n_capabilities,
        };
    }
    *ret = list;
    *ret_n = n;
    return 0;
}

static int add_users(struct manager *m, struct manager_status *status)
{
    if (accounts_list(m->accounts, &status->users, &status->n_users) < 0)
        return -ENOMEM;
    status->user_kv_bytes = calloc(status->n_users + 1, sizeof(*status->user_kv_bytes));
    if (!status->user_kv_bytes)
        return -ENOMEM;
    for (size_t i = 0; i < status->n_users; i++)
        status->user_kv_bytes[i] = manager_kv_bytes(m, status->users[i].uid);
    return 0;
}

_Static_assert(VRAM_STATUS_MAX == GPUS_MAX, "one for each GPU");

static void add_vram(struct manager *m, struct manager_status *status)
{
    for (size_t i = 0; i < m->gpus.n; i++) {
        const struct gpu_known *gpu = &m->gpus.list[i];
        struct vram_status *v = &status->vram[status->n_vram++];
        uint64_t all = gpu->sample.free_bytes < gpu->total_bytes ? gpu->total_bytes - gpu->sample.free_bytes : 0;

        *v = (struct vram_status){.number = gpu->number,
                                  .name = gpu->name,
                                  .budget_bytes = gpus_budget(gpu, m->policy),
                                  .used_bytes = manager_vram_used(m, gpu->number),
                                  .total_bytes = gpu->total_bytes,
                                  .others_bytes = -1,
                                  .temperature_celsius = -1};
        if (gpu->sample.at_us == 0 || manager_now_us(m) - gpu->sample.at_us > GPUS_SAMPLE_US)
            continue;
        v->others_bytes = all > v->used_bytes ? (int64_t)(all - v->used_bytes) : 0;
        v->temperature_celsius = gpu->sample.temperature_celsius;
        v->throttled = gpu->sample.throttled[0] ? gpu->sample.throttled : NULL;
    }
    status->gpu_reason = m->gpus.reason[0] ? m->gpus.reason : NULL;
}

int manager_status(struct manager *m, const struct policy_subject *s, struct manager_status *ret)
{
    struct manager_status status = {.has_users = policy_is_admin(m->policy, s)};
    struct list *at, *after;

    status.ram_budget_bytes = manager_ram_budget(m);
    if (manager_ram_used(m, NULL, &status.ram_used_bytes) < 0)
        return -ENOMEM;
    add_vram(m, &status);
    status.models = calloc(count_models(m) + 1, sizeof(*status.models));
    if (!status.models)
        return -ENOMEM;
    list_foreach (at, after, &m->models) {
        const struct model *model = list_entry(at, struct model, entry);
        uint64_t locked = model->residency ? residency_locked_bytes(model->residency) : 0;

        if (model->residency && residency_is_partial(model->residency, NULL))
            locked = model->worker_locked_bytes;

        status.ram_locked_bytes += locked;
        status.ram_kv_bytes += model->kv_bytes;
        /* One that drains while another of its name answers already is no news to anybody. */
        if (model->predecessor || (model->removed && model_find(m, model->rules->name)))
            continue;
        if (!status.has_users && (model->removed || !policy_may_use(m->policy, model->rules, s)))
            continue;
        status.models[status.n_models++] = (struct model_status){
            .name = model->rules->name,
            .state = model->state,
            .reason = model_reason(model),
            .worker_pid = model->worker ? worker_pid(model->worker) : 0,
            .ram_locked_bytes = locked,
            .ram_mapped_bytes = model->residency ? residency_bytes(model->residency) : 0,
            .ram_huge_bytes = model->residency ? residency_huge_bytes(model->residency) : 0,
            .ram_pages = model_pages(model),
            .ram_lost_bytes = model->bytes_lost,
            .vram_bytes = model_vram_bytes(model),
            .gpu_layers = model->gpu.layers_there,
            .gpu_reason = model->gpu.reason[0] ? model->gpu.reason : NULL,
            .kv_bytes = status.has_users ? (int64_t)(model->kv_bytes + model->gpu.kv_bytes) : -1,
            .sequences_active = status.has_users ? (int64_t)(model->n_submitted > 0 ? model->n_running : 0) : -1,
            .kv_pages_running = status.has_users && model->n_submitted > 0 ? model->pages_used : 0,
            .kv_pages_kept = status.has_users ? model->pages_kept : 0,
            .kv_pages = status.has_users ? model->pages_total : 0,
            .tokens_drafted = status.has_users ? (int64_t)model->n_drafted : -1,
            .tokens_accepted = status.has_users ? (int64_t)model->n_accepted : -1,
            .counters = model->counters,
            .bytes_done = model->bytes_done,
            .bytes_total = model->bytes_total,
        };
    }
    ledger_status(m->ledger, &status.ledger);
    if (status.has_users && add_users(m, &status) < 0) {
        manager_status_done(&status);
        return -ENOMEM;
    }
    *ret = status;
    return 0;
}

void manager_status_done(struct manager_status *status)
{
    free(status->models);
    free(status->users);
    free(status->user_kv_bytes);
    *status = (struct manager_status){.n_models = 0};
}

static int compare_requests(const void *a, const void *b)
{
    uint64_t x = ((const struct request_status *)a)->request, y = ((const struct request_status *)b)->request;

    return (x > y) - (x < y);
}

static double decode_tps(const struct request *r, uint64_t now_us)
{
    return r->output_tokens > r->n_first && now_us > r->first_us
               ? (double)(r->output_tokens - r->n_first) * 1e6 / (double)(now_us - r->first_us)
               : 0;
}

int manager_requests(struct manager *m, bool all, uid_t uid, struct request_status **ret, size_t *ret_n)
{
    struct request_status *list = calloc(m->n_requests + 1, sizeof(*list));
    const uint64_t now_us = manager_now_us(m);
    size_t n = 0;

    if (!list)
        return -ENOMEM;
    for (size_t i = 0; i < REQUEST_BUCKETS; i++) {
        struct list *at, *after;

        list_foreach (at, after, &m->requests[i]) {
            const struct request *r = list_entry(at, struct request, by_id);

            if (!r->callbacks || (!all && r->subject.uid != uid))
                continue;
            list[n++] = (struct request_status){
                .request = r->id,
                .uid = r->subject.uid,
                .app = r->app,
                .unit = r->unit,
                .model = r->model->rules->name,
                .state = r->state,
                .prompt_tokens = r->prompt_tokens,
                .output_tokens = r->output_tokens,
                .decode_tps = decode_tps(r, now_us),
                .queue_position = r->queue_position,
                .eta_ms = r->eta_ms,
            };
        }
    }
    qsort(list, n, sizeof(*list), compare_requests);
    *ret = list;
    *ret_n = n;
    return 0;
}
