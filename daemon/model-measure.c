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

/* What the policy wishes for @model. Devices come with the GPU's own planner inputs; there are none on this
 * path. */
static struct plan_wish wish_of(const struct model *model, uint64_t ram_bytes)
{
    const struct policy_model *rules = model->loaded;

    return (struct plan_wish){
        .context_tokens = rules->context.tokens,
        .sequences = rules->context.sequences,
        .k = rules->context.k,
        .v = rules->context.v,
        .gpu_layers = PLAN_AUTO,
        .is_mapped_only = rules->residency.ram == POLICY_RAM_MAP,
        .ram_bytes = ram_bytes,
        .n_threads = model->manager->n_cores,
    };
}

void model_suggest(const struct model *model, uint64_t available, struct fault *fault)
{
    struct plan_alternative alternatives[PLAN_ALTERNATIVES_MAX];
    struct plan_wish wish = wish_of(model, available);
    _cleanup_json_ json_object *array = NULL;
    struct plan_result made;
    const char *text;
    size_t n;

    if (!model->shape.layers || plan_make(&model->shape, &wish, &made) < 0)
        return;
    n = plan_alternatives(&model->shape, &wish, &made, alternatives);
    if (plan_suggestions(alternatives, n, &array) < 0)
        return;
    text = json_text(array);
    if (text && strlen(text) < sizeof(fault->suggestions))
        snprintf(fault->suggestions, sizeof(fault->suggestions), "%s", text);
}

bool model_has_limit(const struct policy_model *rules)
{
    return rules->residency.limit.bytes > 0 || rules->residency.limit.is_share;
}

/* Files that are locked in place may be another model's as well; what it has of its own is counted with it alone. */
int model_wish_memory(struct model *model, uint64_t n_bytes)
{
    struct residency_identity files[RESIDENCY_FILES_MAX];
    size_t n_files = 0;

    if (model->loaded->residency.ram == POLICY_RAM_LOCK && !model_has_limit(model->loaded)) {
        for (; n_files < residency_n_parts(model->residency); n_files++)
            residency_identity(model->residency, n_files, &files[n_files]);
    }
    return grant_set(model->grant, n_bytes, files, n_files);
}

/* From on_measured() and, when it had to wait, whenever somebody's memory is gone. */
void model_ask_for_room(struct model *model)
{
    struct fault fault;
    int r;

    r = model_wish_memory(model, residency_needs_bytes(model->residency) + model->kv_bytes + model->scratch_bytes);
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
    r = residency_load(model->residency);
    if (r < 0)
        model_fail_errno(model, "can't load the model", r);
}

static void on_measured(struct measure *measure, struct plan_shape *shape, void *userdata)
{
    struct model *model = userdata;
    struct plan_wish wish = wish_of(model, UINT64_MAX);
    struct plan_result made;
    struct fault fault;

    model->measure = measure_free(model->measure);
    plan_shape_done(&model->shape);
    model->shape = *shape;
    *shape = (struct plan_shape){.layers = NULL};
    if (plan_make(&model->shape, &wish, &made) < 0) {
        fault_set(&fault, FAULT_MODEL_UNAVAILABLE, NULL,
                  "the KV cache of this model can't have keys of type %s and values of type %s", wish.k,
                  wish.v);
        model_fail(model, &fault);
        return;
    }
    model->kv_bytes = made.ram.kv;
    model->scratch_bytes = made.ram.scratch;
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

void model_measure(struct model *model)
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
    };
    int r;

    r = residency_open_fds(model->residency, &options.fds, &options.n_fds);
    if (r >= 0)
        r = measure_new(model->manager->event, model->manager->workers, &options, &callbacks, model,
                        &model->measure);
    if (r < 0)
        model_fail_errno(model, "can't measure the model", r);
}
