/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One model's layers on GPUs: from the policy's placement to the planner's wish, from its plan to the worker's
 * configuration, and what the worker says came of it.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json-build.h"
#include "base/utf8.h"
#include "daemon/internal.h"
#include "daemon/worker-start.h"

/* Above any device. */
#define BYTES_MAX (INT64_C(1) << 50)

/* How long it is believed that there are no GPUs. */
#define LOOKED_US (UINT64_C(60) * 1000000)

/* In the order in which they are filled: as the policy names them, else by number. */
static const struct gpu_known *device_at(const struct gpus *g, const struct policy_placement *p, size_t i)
{
    if (p->n_devices > 0)
        return i < p->n_devices ? gpus_find(g, p->devices[i]) : NULL;
    return i < g->n ? &g->list[i] : NULL;
}

/* placement.vram bounds the sum over devices. */
static uint64_t limit_of(const struct gpus *g, const struct policy_placement *p)
{
    uint64_t total = 0;

    for (size_t i = 0; i < g->n; i++)
        total += g->list[i].total_bytes;
    return p->vram_given ? policy_size_of(&p->vram, total) : UINT64_MAX;
}

size_t model_gpu_devices(const struct manager *m, const struct policy_model *rules, const struct model *model,
                         bool evict, const bool *gone, struct plan_device *devices)
{
    const struct policy_placement *p = &rules->placement;
    uint64_t limit = limit_of(&m->gpus, p);
    size_t n = 0, n_max = p->n_devices > 0 ? p->n_devices : m->gpus.n;

    for (size_t i = 0; i < n_max && n < GPUS_MAX; i++) {
        const struct gpu_known *gpu = device_at(&m->gpus, p, i);
        uint64_t left;

        if (!gpu)
            continue;
        left = manager_vram_left(m, gpu, model, evict, gone);
        left = left < limit ? left : limit;
        limit -= left;
        devices[n++] = (struct plan_device){
            .index = gpu->number, .budget_bytes = left, .overhead_bytes = gpu->driver_bytes};
    }
    return n;
}

void model_gpu_wish(const struct policy_model *rules, struct plan_wish *wish)
{
    const struct policy_placement *p = &rules->placement;

    wish->gpu_layers = p->gpu_layers == POLICY_AUTO  ? PLAN_AUTO
                       : p->gpu_layers == POLICY_ALL ? PLAN_ALL
                                                     : p->gpu_layers;
    wish->experts = p->experts == POLICY_EXPERTS_RAM    ? PLAN_EXPERTS_RAM
                    : p->experts == POLICY_EXPERTS_VRAM ? PLAN_EXPERTS_VRAM
                                                        : PLAN_EXPERTS_AUTO;
    wish->keeps_offloaded = model_release_is_off(rules);
}

bool model_gpu_is_wanted(const struct model *model)
{
    const struct manager *m = model->manager;

    /* Before anybody has looked, the one that measures looks; and where there was none, again after a while. */
    return model->loaded->placement.gpu_layers != 0 && worker_start_has_gpu(m->worker_path) &&
           (m->gpus.n > 0 || !m->gpus.reason[0] || manager_now_us(m) - m->gpus.looked_us > LOOKED_US);
}

static const char *reason_of(const struct model *model, const struct plan_result *made)
{
    if (model->loaded->placement.gpu_layers == 0 ||
        (made->gpu_layers >= model->shape.n_layers && !made->small_steps))
        return "";
    if (model->manager->gpus.n == 0)
        return model->manager->gpus.reason;
    if (model_has_limit(model->loaded))
        return "models with a limit of the memory for their weights are computed on the processor";
    if (model->gpu_layers_refused == 1)
        return "the memory of the GPUs was refused";
    if (made->n_devices == 0 && model->gpu.returns)
        return "the GPU is there again, but has too little memory free";
    if (made->n_devices == 0)
        return "none of the GPUs that the policy names is there";
    for (size_t i = 0; i < made->n_reasons; i++)
        if (strstr(made->reasons[i], "VRAM") || strstr(made->reasons[i], "GPU"))
            return made->reasons[i];
    return "";
}

void model_gpu_place(struct model *model, const struct plan_wish *wish, const struct plan_result *made)
{
    struct model_gpu *g = &model->gpu;
    const struct model_gpu kept = {.known = gpus_there(&model->manager->gpus), .returns = g->returns};
    const char *reason = reason_of(model, made);

    model_gpu_forget(model);
    *g = kept;
    snprintf(g->reason, sizeof(g->reason), "%s", reason);
    if (made->gpu_layers == 0)
        return;
    g->layers = made->gpu_layers;
    g->expert_layers = model->shape.n_experts > 0 ? made->expert_layers : made->gpu_layers;
    g->kv = made->kv_on_gpu;
    g->head = made->head_on_gpu;
    g->small_steps = made->small_steps;
    g->exact = model->loaded->placement.gpu_layers != POLICY_AUTO;
    for (size_t i = 0; i < made->n_devices; i++) {
        const struct plan_bytes *b = &made->devices[i];

        if (made->device_layers[i] == 0)
            continue;
        g->devices[g->n_devices] = wish->devices[i].index;
        g->device_layers[g->n_devices++] = made->device_layers[i];
        model->grant->vram_bytes[wish->devices[i].index] = b->weights + b->kv + b->scratch + b->driver;
    }
}

bool model_gpu_plans_anew(struct model *model, const struct fault *fault)
{
    if (model->state != MODEL_LOADING || model->gpu.layers == 0 || model->gpu.exact ||
        fault->kind != FAULT_INSUFFICIENT_MEMORY || strcmp(fault->subject, "ram") != 0)
        return false;
    model->gpu_layers_refused = model->gpu.layers;
    log_line(model->manager->log, LOG_NOTICE, &(struct log_fields){.model = model->rules->name},
             "model %s: %" PRIu32 " layers do not fit on GPUs as planned, and RAM has no room for what is left; fewer "
             "are planned",
             model->rules->name, model->gpu.layers);
    snprintf(model->note, sizeof(model->note), "fewer layers fit on GPUs than planned; it is planned anew");
    return true;
}

void model_look_at_gpus(struct model *model)
{
    const struct manager *m = model->manager;
    uint64_t now_us = manager_now_us(m);
    struct model_gpu *g = &model->gpu;
    bool can_wait = model->n_submitted > 0 || model->n_held > 0;

    if (model->state != MODEL_READY || model->is_kept || model->successor || model->predecessor)
        return;
    g->returns = false; /* that is over, whatever came of it */
    if (model->loaded->placement.gpu_layers == 0 || g->all_there || !(gpus_there(&m->gpus) & ~g->known))
        return;
    if (g->stayed_us > 0 && now_us - g->stayed_us > m->policy->upgrade_deadline_us)
        can_wait = false;
    if (g->stayed_us > 0 ? can_wait : g->tried_us == m->gpus.looked_us)
        return;
    g->tried_us = m->gpus.looked_us;
    if (!model->shape.layers)
        model_measure_kept(model);
    if (!model_would_gain(model))
        return;
    g->returns = true;
    if (can_wait && model_begin_successor(model, "it is being loaded onto a GPU that is there again") == 0)
        return;
    snprintf(model->note, sizeof(model->note), "it goes back to a GPU that is there again");
    log_line(m->log, LOG_NOTICE, &(struct log_fields){.model = model->rules->name}, "model %s: %s", model->rules->name,
             model->note);
    model->renews = true;
    model_handle(model, MODEL_RENEW);
}

void model_gpu_forget(struct model *model)
{
    free(model->gpu.released);
    model->gpu = (struct model_gpu){.layers = 0};
    if (model->grant)
        memset(model->grant->vram_bytes, 0, sizeof(model->grant->vram_bytes));
}

/* By their places: which numbers the worker's driver gives them is not known. */
static bool add_bus_ids(json_object *to, const struct model *model)
{
    json_object *array = json_object_new_array();
    bool ok = add_take(to, "bus_ids", array);

    for (size_t i = 0; ok && i < model->gpu.n_devices; i++)
        ok = append_take(array, json_object_new_string(model->manager->gpus.bus_ids[model->gpu.devices[i]]));
    return ok;
}

static bool add_numbers(json_object *to, const char *name, const uint32_t *numbers, size_t n)
{
    json_object *array = json_object_new_array();
    bool ok = add_take(to, name, array);

    for (size_t i = 0; ok && i < n; i++)
        ok = append_take(array, json_object_new_int64(numbers[i]));
    return ok;
}

/* What was granted for what its worker locks of the model's own files, and for the KV cache there. */
static uint64_t ram_bytes_max(const struct model *model)
{
    uint64_t n_bytes = model->kv_bytes;

    for (size_t i = 0; i < residency_n_files(model->residency, 0); i++)
        n_bytes += residency_file_needs_bytes(model->residency, i);
    return n_bytes;
}

bool model_gpu_add(json_object *config, const struct model *model)
{
    const struct model_gpu *g = &model->gpu;
    json_object *o;

    if (g->layers == 0)
        return true;
    o = json_object_new_object();
    return add_take(config, "gpu", o) && add_count(o, "layers", g->layers) &&
           add_count(o, "expert_layers", g->expert_layers) && add_bool(o, "kv_in_ram", !g->kv) &&
           add_bool(o, "head", g->head) && add_bool(o, "exact", g->exact) &&
           add_bool(o, "small_steps", g->small_steps) &&
           add_bool(o, "keep_locked", model_release_is_off(model->loaded)) &&
           add_count_if(o, model->loaded->residency.ram == POLICY_RAM_LOCK, "ram_bytes_max", ram_bytes_max(model)) &&
           add_numbers(o, "devices", g->devices, g->n_devices) && add_bus_ids(o, model) &&
           add_numbers(o, "device_layers", g->device_layers, g->n_devices);
}

static uint64_t get_number(json_object *o, const char *key, int64_t max)
{
    json_object *value;
    int64_t n;

    if (!json_object_object_get_ex(o, key, &value) || !json_object_is_type(value, json_type_int))
        return 0;
    n = json_object_get_int64(value);
    return n > 0 && n <= max ? (uint64_t)n : 0;
}

/* What it has of each, in place of what was planned. A driver whose share the worker can't see has what was planned. */
static void take_bytes(struct model *model, json_object *array)
{
    const struct gpus *known = &model->manager->gpus;
    uint64_t granted[GPUS_MAX] = {0};

    model->gpu.kv_bytes = 0;
    for (size_t i = 0; i < json_object_array_length(array) && i < GPUS_MAX; i++) {
        json_object *o = json_object_array_get_idx(array, i);
        uint64_t driver = get_number(o, "driver", BYTES_MAX);
        const struct gpu_known *gpu;
        uint32_t number;

        if (!gpus_number(known, o, &number))
            continue;
        gpu = gpus_find(known, number);
        if (driver == 0 && gpu)
            driver = gpu->driver_bytes;
        granted[number] = get_number(o, "weights", BYTES_MAX) + get_number(o, "kv", BYTES_MAX) +
                          get_number(o, "scratch", BYTES_MAX) + driver;
        model->gpu.kv_bytes += get_number(o, "kv", BYTES_MAX);
    }
    memcpy(model->grant->vram_bytes, granted, sizeof(granted));
}

void model_gpu_take_facts(struct model *model, json_object *facts)
{
    struct model_gpu *g = &model->gpu;
    json_object *array, *reason;
    const char *text;

    if (!json_object_object_get_ex(facts, "gpus", &array) || !json_object_is_type(array, json_type_array))
        return;
    if (model->grant)
        take_bytes(model, array);
    g->layers_there = (uint32_t)get_number(facts, "gpu_layers", UINT16_MAX);
    g->all_there = g->layers_there > 0 && g->layers_there == get_number(facts, "layers", UINT16_MAX);
    if (!json_object_object_get_ex(facts, "gpu_reason", &reason) || !json_object_is_type(reason, json_type_string))
        return;
    text = json_object_get_string(reason);
    if (text[0] && strlen(text) < sizeof(g->reason) && utf8_is_valid(text, strlen(text), NULL))
        snprintf(g->reason, sizeof(g->reason), "%s", text);
}

uint64_t model_vram_bytes(const struct model *model)
{
    uint64_t n = 0;

    for (size_t i = 0; model->grant && i < GPUS_MAX; i++)
        n += model->grant->vram_bytes[i];
    return n;
}
