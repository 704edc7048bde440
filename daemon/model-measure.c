/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Between opening a model's files and taking memory for them: a worker says what the model takes
 * (daemon/measure.h), the planner what that comes to under the policy, and the budget whether there is room.
 * Only then is a byte read or locked, so the sum over all models stays within the budget at every moment,
 * also while several load at once: what a model was granted counts from the moment it is granted to the
 * moment its memory is gone.
 *
 * Where others have to leave first, or are on their way out, the model waits in MAPPING until they are gone.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/units.h"
#include "daemon/internal.h"
#include "policy/plan.h"

/* What the policy wishes for @model. @ram: what there is for it; @devices: [GPUS_MAX], borrowed by the wish; @evict: of
 * GPUs, as if idle models had left. */
static struct plan_wish wish_of(const struct model *model, const struct manager_ram *ram, bool evict,
                                struct plan_device *devices)
{
    const struct policy_model *rules = model->loaded;
    uint32_t refused = model->gpu_layers_refused;
    struct plan_wish wish = {
        .context_tokens = rules->context.tokens,
        .sequences = rules->context.sequences,
        .k = rules->context.k,
        .v = rules->context.v,
        .is_mapped_only = rules->residency.ram == POLICY_RAM_MAP,
        .weights_bytes_max = residency_is_partial(model->residency, NULL) ? residency_needs_bytes(model->residency) : 0,
        .ram_bytes = ram->bytes + ram->shared_others_bytes,
        .ram_shared_bytes = ram->shared_bytes,
        .n_threads = model->manager->n_cores,
        .devices = devices,
    };

    model_gpu_wish(rules, &wish);
    if (refused > 0)
        wish.gpu_layers_max = refused - (refused > 8 ? refused / 8 : 1);
    if (refused == 1)
        wish.gpu_layers = 0;
    if (model_gpu_is_wanted(model))
        wish.n_devices = model_gpu_devices(model->manager, rules, model, evict, NULL, devices);
    return wish;
}

void model_suggest(const struct model *model, struct fault *fault)
{
    struct plan_alternative alternatives[PLAN_ALTERNATIVES_MAX];
    struct plan_device devices[GPUS_MAX];
    _cleanup_json_ json_object *array = NULL;
    struct plan_result made;
    struct manager_ram ram;
    struct plan_wish wish;
    const char *text;
    size_t n;

    if (!model->shape.layers || manager_ram_for(model->manager, model, model->residency, model->loaded, &ram) < 0)
        return;
    wish = wish_of(model, &ram, /* evict= */ true, devices);
    if (plan_make(&model->shape, &wish, &made) < 0)
        return;
    n = plan_alternatives(&model->shape, &wish, &made, alternatives);
    if (plan_suggestions(alternatives, n, &array) < 0)
        return;
    text = json_text(array);
    if (text && strlen(text) < sizeof(fault->suggestions))
        snprintf(fault->suggestions, sizeof(fault->suggestions), "%s", text);
}

bool model_would_gain(const struct model *model)
{
    struct plan_device devices[GPUS_MAX];
    struct plan_result made;
    struct manager_ram ram;
    struct plan_wish wish;

    if (!model->shape.layers || manager_ram_for(model->manager, model, model->residency, model->loaded, &ram) < 0)
        return false;
    wish = wish_of(model, &ram, /* evict= */ false, devices);
    return plan_make(&model->shape, &wish, &made) == 0 && made.devices_fit && made.gpu_layers > model->gpu.layers_there;
}

bool model_has_limit(const struct policy_model *rules)
{
    return rules->residency.limit.bytes > 0 || rules->residency.limit.is_share;
}

size_t model_files_in_place(const struct residency *residency, const struct policy_model *rules,
                            struct budget_file *ret)
{
    size_t n = residency_n_parts(residency);

    if (rules->residency.ram != POLICY_RAM_LOCK || model_has_limit(rules))
        return 0;
    for (size_t i = 0; i < n; i++) {
        struct residency_identity file;

        residency_identity(residency, i, &file);
        ret[i] = (struct budget_file){file.device, file.inode, file.n_bytes, residency_file_needs_bytes(residency, i)};
    }
    return n;
}

/* Files that are locked in place may be another model's as well; what it has of its own is counted with it alone. */
int model_wish_memory(struct model *model, uint64_t own_bytes)
{
    struct budget_file files[RESIDENCY_FILES_MAX];
    size_t n = model_files_in_place(model->residency, model->loaded, files);

    return grant_set(model->grant, own_bytes + (n > 0 ? 0 : residency_needs_bytes(model->residency)), files, n);
}

/* From on_measured() and, when it had to wait, whenever somebody's memory is gone. */
void model_ask_for_room(struct model *model)
{
    bool was_loaded = model->state == MODEL_LOADING;
    int left_out = model_release_leave_out(model), r;
    struct fault fault;

    r = left_out < 0 ? left_out : model_wish_memory(model, model->kv_bytes + model->scratch_bytes);
    if (r < 0) {
        model_fail_errno(model, "can't load the model", r);
        return;
    }
    r = manager_make_room(model->manager, model, &model->grant->memory, &fault);
    if (r == BUDGET_LATER) {
        model->waits_for_room = true;
        snprintf(model->note, sizeof(model->note), "waits until others have left memory");
        return;
    }
    model->waits_for_room = false;
    model->note[0] = 0;
    if (r != 0) {
        model_fail(model, &fault);
        return;
    }
    model->grant->is_given = true;
    /* One whose worker has ended is in memory already, and the next may have the same on GPUs. */
    model->holds_again |= was_loaded && left_out != RESIDENCY_AS_BEFORE;
    if (was_loaded && !model->holds_again) {
        model_start_worker(model);
        return;
    }
    r = residency_load(model->residency);
    if (r < 0)
        model_fail_errno(model, "can't load the model", r);
}

void model_room_came(struct model *model)
{
    if (!model->measures_again) {
        model_ask_for_room(model);
        return;
    }
    model->waits_for_room = model->measures_again = false;
    model->note[0] = 0;
    model_measure(model);
}

/* If there were room once idle models have left the GPUs, those leave, and the model waits for that. */
static bool waits_for_vram(struct model *model, const struct manager_ram *ram)
{
    struct plan_device devices[GPUS_MAX];
    const struct plan_wish wish = wish_of(model, ram, /* evict= */ true, devices);
    struct plan_result made;
    bool waits = false;

    if (plan_make(&model->shape, &wish, &made) < 0 || !made.fits)
        return false;
    for (size_t i = 0; i < made.n_devices; i++) {
        const struct plan_bytes *b = &made.devices[i];

        waits |= made.device_layers[i] > 0 &&
                 manager_make_vram_room(model->manager, model, gpus_find(&model->manager->gpus, devices[i].index),
                                        b->weights + b->kv + b->scratch + b->driver) == BUDGET_LATER;
    }
    if (waits) {
        model->waits_for_room = model->measures_again = true;
        snprintf(model->note, sizeof(model->note), "waits until others have left the GPU");
    }
    return waits;
}

static void refuse_vram(struct model *model, const struct manager_ram *ram, const struct plan_result *refused)
{
    struct plan_device devices[GPUS_MAX];
    const struct plan_wish wish = wish_of(model, ram, /* evict= */ true, devices);
    char needed[UNITS_TEXT_MAX], left[UNITS_TEXT_MAX];
    uint64_t available = 0;
    struct fault fault;

    for (size_t i = 0; i < wish.n_devices; i++)
        available += devices[i].budget_bytes;
    fault_set(&fault, FAULT_INSUFFICIENT_MEMORY, "vram", "%u layers need %s of VRAM, %s may be used",
              refused->gpu_layers, units_format_size(refused->vram_needed_bytes, needed),
              units_format_size(available, left));
    fault.used = (int64_t)refused->vram_needed_bytes;
    fault.limit = (int64_t)available;
    model_suggest(model, &fault);
    model_fail(model, &fault);
}

static void on_measured(struct measure *measure, struct plan_shape *shape, void *userdata)
{
    struct model *model = userdata;
    struct plan_device devices[GPUS_MAX];
    struct plan_result made;
    struct manager_ram ram;
    struct plan_wish wish;
    struct fault fault;
    int r;

    model->measure = measure_free(model->measure);
    plan_shape_done(&model->shape);
    model->shape = *shape;
    manager_take_bandwidth(model->manager, &model->shape);
    *shape = (struct plan_shape){.layers = NULL};
    r = manager_ram_for(model->manager, model, model->residency, model->loaded, &ram);
    if (r < 0) {
        model_fail_errno(model, "can't plan the model", r);
        return;
    }
    wish = wish_of(model, &ram, /* evict= */ false, devices);
    if (plan_make(&model->shape, &wish, &made) < 0) {
        fault_set(&fault, FAULT_MODEL_UNAVAILABLE, NULL,
                  "the KV cache of this model can't have keys of type %s and values of type %s", wish.k,
                  wish.v);
        model_fail(model, &fault);
        return;
    }
    if (!made.devices_fit && model->gpu.returns) {
        /* Others were faster: it is computed as before. */
        wish.n_devices = 0;
        (void)plan_make(&model->shape, &wish, &made);
    }
    if (!made.fits && waits_for_vram(model, &ram))
        return;
    if (!made.devices_fit) {
        refuse_vram(model, &ram, &made);
        return;
    }
    model_gpu_place(model, &wish, &made);
    model->kv_bytes = made.ram.kv;
    model->scratch_bytes = made.ram.scratch;
    model_release_plan(model, &made);
    model_ask_for_room(model);
}

static void on_failed(struct measure *measure, const struct fault *fault, void *userdata)
{
    struct model *model = userdata;
    struct fault copy = *fault;

    model->measure = measure_free(model->measure);
    model_fail(model, &copy);
}

static const struct measure_callbacks callbacks = {.done = on_measured, .failed = on_failed};

/* It can be seen now what it would gain. */
static void on_kept_measured(struct measure *measure, struct plan_shape *shape, void *userdata)
{
    struct model *model = userdata;

    model->measure = measure_free(model->measure);
    model->shape = *shape;
    manager_take_bandwidth(model->manager, &model->shape);
    *shape = (struct plan_shape){.layers = NULL};
    model->gpu.tried_us = 0;
}

/* It is computed as before, and measured again when GPUs are looked at the next time. */
static void on_kept_failed(struct measure *measure, const struct fault *fault, void *userdata)
{
    struct model *model = userdata;

    model->measure = measure_free(model->measure);
}

static const struct measure_callbacks kept_callbacks = {.done = on_kept_measured, .failed = on_kept_failed};

/* Returns 0 or a negative errno. */
static int begin(struct model *model, const struct measure_callbacks *to)
{
    struct measure_options options = {
        .worker_path = model->manager->worker_path,
        .name = model->rules->name,
        .context_tokens = model->loaded->context.tokens,
        .sequences = model->loaded->context.sequences,
        .k = model->loaded->context.k,
        .v = model->loaded->context.v,
        .rules = model->loaded,
        .residency = model->residency,
        .n_threads = model->manager->n_cores,
        .gpus = model_gpu_is_wanted(model) ? &model->manager->gpus : NULL,
        .bandwidth = model_gpu_is_wanted(model) && model->manager->read_gbps <= 0,
    };
    int r;

    r = residency_open_fds(model->residency, &options.fds, &options.n_fds);
    if (r >= 0)
        r = measure_new(model->manager->event, model->manager->workers, &options, to, model, &model->measure);
    return r;
}

void model_measure(struct model *model)
{
    int r = begin(model, &callbacks);

    if (r < 0)
        model_fail_errno(model, "can't measure the model", r);
}

void model_measure_kept(struct model *model)
{
    if (!model->measure)
        (void)begin(model, &kept_callbacks);
}
