/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What only GPUs read of a model is not held in RAM: not while it is loaded, so that a model that fits into RAM and
 * VRAM only together can be, nor later. At first it is what was planned; the worker says what it has come to, and the
 * daemon follows it. Before another worker is started there is another plan, and what is on GPUs no more is held again
 * (model_ask_for_room()).
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <syslog.h>

#include "base/units.h"
#include "daemon/internal.h"
#include "policy/plan.h"

/* Above any file. */
#define BYTES_MAX (INT64_C(1) << 50)

bool model_release_is_off(const struct policy_model *rules)
{
    return rules->residency.offloaded == POLICY_OFFLOADED_KEEP || rules->residency.ram == POLICY_RAM_COPY ||
           model_has_limit(rules);
}

static bool get_item(json_object *range, size_t i, uint64_t *ret)
{
    json_object *value = json_object_array_get_idx(range, i);
    int64_t n = json_object_is_type(value, json_type_int) ? json_object_get_int64(value) : -1;

    *ret = (uint64_t)n;
    return n >= 0 && n <= BYTES_MAX;
}

/* Behind those before. */
static bool get_range(json_object *o, const struct plan_range *before, struct plan_range *ret)
{
    uint64_t i_file, from, n_bytes;

    if (!json_object_is_type(o, json_type_array) || !get_item(o, 0, &i_file) || !get_item(o, 1, &from) ||
        !get_item(o, 2, &n_bytes) || i_file >= RESIDENCY_FILES_MAX || n_bytes == 0)
        return false;
    *ret = (struct plan_range){.file = (uint32_t)i_file, .from = from, .n_bytes = n_bytes};
    return !before || before->file < i_file || (before->file == i_file && before->from + before->n_bytes <= from);
}

bool model_release_are_of_files(const struct residency *residency, const struct plan_range *ranges, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct plan_range *range = &ranges[i];
        uint64_t to = range->from + range->n_bytes;
        struct residency_identity file;

        if (range->file >= residency_n_files(residency, 0))
            return false;
        residency_identity(residency, range->file, &file);
        if (range->from % PLAN_PAGE_BYTES != 0 || to > file.n_bytes ||
            (to % PLAN_PAGE_BYTES != 0 && to != file.n_bytes))
            return false;
    }
    return true;
}

static void set_released(struct model *model, struct plan_range *ranges_take, size_t n)
{
    free(model->gpu.released);
    model->gpu.released = ranges_take;
    model->gpu.n_released = n;
}

void model_release_take_facts(struct model *model, json_object *facts)
{
    struct plan_range *ranges;
    json_object *array;
    size_t n;

    if (!json_object_object_get_ex(facts, "released", &array) || !json_object_is_type(array, json_type_array))
        return;
    n = json_object_array_length(array);
    ranges = n <= PLAN_RANGES_MAX ? calloc(n + 1, sizeof(*ranges)) : NULL;
    /* What was planned stays, then. */
    if (!ranges)
        return;
    for (size_t i = 0; i < n; i++) {
        if (!get_range(json_object_array_get_idx(array, i), i > 0 ? &ranges[i - 1] : NULL, &ranges[i])) {
            free(ranges);
            return;
        }
    }
    set_released(model, ranges, n);
    model->leaves_anew = true;
}

void model_release_plan(struct model *model, const struct plan_result *made)
{
    struct plan_range *ranges = calloc(model->shape.n_runs + 1, sizeof(*ranges));
    size_t n = 0;

    if (ranges && !model_release_is_off(model->loaded))
        (void)plan_left_out(&model->shape, made, ranges, &n);
    set_released(model, ranges, n);
}

int model_release_leave_out(struct model *model)
{
    bool any = model->gpu.n_released > 0 && model->loaded->residency.ram == POLICY_RAM_LOCK &&
               model_release_are_of_files(model->residency, model->gpu.released, model->gpu.n_released);
    int r = residency_leave_out(model->residency, any ? model->gpu.released : NULL, any ? model->gpu.n_released : 0);

    if (r >= 0) {
        model->leaves_out = any;
        model->leaves_anew = false;
    }
    return r;
}

void model_release(struct model *model)
{
    if (model->state != MODEL_READY || model->is_kept || !model->leaves_anew || residency_is_busy(model->residency))
        return;
    /* Without memory or a thread now, the next time. */
    if (model_release_leave_out(model) == 0 && residency_load(model->residency) < 0)
        model->leaves_anew = residency_leave_out(model->residency, NULL, 0) >= 0;
}

void model_released(struct model *model)
{
    uint64_t n_bytes = residency_needs_bytes(model->residency);
    char held[UNITS_TEXT_MAX];

    /* Without memory for a list what was granted stays. */
    (void)model_wish_memory(model, model->kv_bytes + model->scratch_bytes);
    manager_room_came(model->manager);
    log_line(model->manager->log, LOG_INFO, &(struct log_fields){.model = model->rules->name},
             "model %s: what GPUs have of it is not held in RAM, %s are", model->rules->name,
             units_format_size(n_bytes, held));
}
