/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a worker says of its model, into the model's own members. A worker is trusted with its model and
 * nothing else: names of capabilities are looked up in a table, numbers below 0 are nothing.
 */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/internal.h"
#include "daemon/messages.h"

static const char *const capability_names[MODEL_CAPABILITIES_MAX] = {"complete", "chat",      "embed",
                                                                 "tools",    "reasoning", "tokenize"};

static uint64_t get_number(json_object *facts, const char *key)
{
    json_object *value;
    int64_t n;

    if (!json_object_object_get_ex(facts, key, &value) || !json_object_is_type(value, json_type_int))
        return 0;
    n = json_object_get_int64(value);
    return n > 0 ? (uint64_t)n : 0;
}

static int get_text(json_object *facts, const char *key, char **ret)
{
    json_object *value;
    char *copy;

    if (!json_object_object_get_ex(facts, key, &value) || !json_object_is_type(value, json_type_string))
        return 0;
    copy = strdup(json_object_get_string(value));
    if (!copy)
        return -ENOMEM;
    free(*ret);
    *ret = copy;
    return 0;
}

static void get_capabilities(struct model *model, json_object *facts)
{
    json_object *array;

    if (!json_object_object_get_ex(facts, "capabilities", &array) ||
        !json_object_is_type(array, json_type_array))
        return;
    model->n_capabilities = 0;
    for (size_t i = 0; i < MODEL_CAPABILITIES_MAX; i++) {
        for (size_t j = 0; j < json_object_array_length(array); j++) {
            const char *name = json_object_get_string(json_object_array_get_idx(array, j));

            if (name && strcmp(name, capability_names[i]) == 0) {
                model->capabilities[model->n_capabilities++] = capability_names[i];
                break;
            }
        }
    }
}

/* A worker that took more than was planned is a fault of the planner's; the budget has to know all the same. */
static void check_plan(struct model *model)
{
    uint64_t used = residency_needs_bytes(model->residency) + model->kv_bytes + model->scratch_bytes;

    if (used <= grant_bytes(model->grant))
        return;
    log_line(model->manager->log, LOG_WARNING,
             &(struct log_fields){.model = model->rules->name, .message_id = MESSAGE_MODEL_UNPLANNED},
             "model %s takes %" PRIu64 " bytes, %" PRIu64 " were planned", model->rules->name, used,
             grant_bytes(model->grant));
    /* Without memory for a list the plan stays. */
    (void)model_wish_memory(model, model->kv_bytes + model->scratch_bytes);
}

void model_take_facts(struct model *model, json_object *facts)
{
    json_object *bytes;

    if (get_text(facts, "architecture", &model->architecture) < 0 ||
        get_text(facts, "quantization", &model->quantization) < 0)
        log_line(model->manager->log, LOG_WARNING,
                 &(struct log_fields){.model = model->rules->name, .message_id = MESSAGE_OUT_OF_MEMORY},
                 "out of memory for what the worker of %s says of it", model->rules->name);
    model->n_parameters = get_number(facts, "parameters");
    model->context_tokens = get_number(facts, "context_tokens");
    model->page_tokens = get_number(facts, "page_tokens");
    if (json_object_object_get_ex(facts, "bytes", &bytes)) {
        model->kv_bytes = get_number(bytes, "kv");
        model->scratch_bytes = get_number(bytes, "scratch");
        model->kv_page_bytes = get_number(bytes, "kv_page");
        model->worker_locked_bytes = get_number(bytes, "locked");
        check_plan(model);
    }
    get_capabilities(model, facts);
    model_gpu_take_facts(model, facts);
    model_release_take_facts(model, facts);
}
