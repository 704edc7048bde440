/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a model's worker has copied to GPUs and nobody reads in RAM any more is let go of there: first by the worker,
 * which says what it is, then by the daemon. Before another worker is started all of it is held again
 * (model_ask_for_room()), since nobody knows yet what that one will have on GPUs, or whether there still are any.
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

/* Whole pages of the model's own files, which are open. */
static bool are_of_files(const struct model *model)
{
    for (size_t i = 0; i < model->gpu.n_released; i++) {
        const struct plan_range *range = &model->gpu.released[i];
        uint64_t to = range->from + range->n_bytes;
        struct residency_identity file;

        if (range->file >= residency_n_files(model->residency, 0))
            return false;
        residency_identity(model->residency, range->file, &file);
        if (range->from % PLAN_PAGE_BYTES != 0 || to > file.n_bytes ||
            (to % PLAN_PAGE_BYTES != 0 && to != file.n_bytes))
            return false;
    }
    return true;
}

void model_release_take_facts(struct model *model, json_object *facts)
{
    struct plan_range *ranges;
    json_object *array;
    size_t n;

    free(model->gpu.released);
    model->gpu.released = NULL;
    model->gpu.n_released = 0;
    if (!json_object_object_get_ex(facts, "released", &array) || !json_object_is_type(array, json_type_array))
        return;
    n = json_object_array_length(array);
    ranges = n <= PLAN_RANGES_MAX ? calloc(n + 1, sizeof(*ranges)) : NULL;
    /* All of it stays held, then. */
    if (!ranges)
        return;
    for (size_t i = 0; i < n; i++) {
        if (!get_range(json_object_array_get_idx(array, i), i > 0 ? &ranges[i - 1] : NULL, &ranges[i])) {
            free(ranges);
            return;
        }
    }
    model->gpu.released = ranges;
    model->gpu.n_released = n;
}

int model_release_leave_out(struct model *model)
{
    int r;

    if (model->gpu.n_released == 0 || model->loaded->residency.ram != POLICY_RAM_LOCK || !are_of_files(model))
        return 0;
    r = residency_leave_out(model->residency, model->gpu.released, model->gpu.n_released);
    model->leaves_out = r == 0;
    return r;
}

void model_release(struct model *model)
{
    if (model->state != MODEL_READY || model->is_kept || model->leaves_out || residency_is_busy(model->residency))
        return;
    /* Without memory or a thread now, the next time. */
    if (model_release_leave_out(model) == 0 && model->leaves_out && residency_load(model->residency) < 0)
        model->leaves_out = false;
}

void model_released(struct model *model)
{
    uint64_t n_bytes = residency_needs_bytes(model->residency);
    char held[UNITS_TEXT_MAX];

    /* Without memory for a list what was granted stays. */
    (void)model_wish_memory(model, n_bytes + model->kv_bytes + model->scratch_bytes);
    manager_room_came(model->manager);
    log_line(model->manager->log, LOG_INFO, &(struct log_fields){.model = model->rules->name},
             "model %s: what GPUs have of it is not held in RAM any more, %s are", model->rules->name,
             units_format_size(n_bytes, held));
}
