/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inference.ListModels: what the caller may use. What the policy keeps from them does not exist for them.
 */
#include <errno.h>

#include "base/json-build.h"
#include "base/json.h"
#include "daemon/method-table.h"

static json_object *texts(const char *const *list, size_t n)
{
    _cleanup_json_ json_object *array = json_object_new_array();

    for (size_t i = 0; array && i < n; i++)
        if (!append_take(array, json_object_new_string(list[i])))
            return NULL;
    return TAKE_PTR(array);
}

static json_object *model_to_json(const struct model_info *m)
{
    _cleanup_json_ json_object *o = json_object_new_object();

    if (!o || !add_text(o, "name", m->name) || !add_take(o, "aliases", texts(m->aliases, m->n_aliases)) ||
        !add_text_if(o, "architecture", m->architecture) ||
        !add_count_if(o, m->n_parameters > 0, "parameters", m->n_parameters) ||
        !add_text_if(o, "quantization", m->quantization) || !add_count(o, "size_bytes", m->size_bytes) ||
        !add_count(o, "context_tokens", m->context_tokens) ||
        !add_text(o, "state", model_state_to_string(m->state)) ||
        !add_take(o, "capabilities", texts(m->capabilities, m->n_capabilities)))
        return NULL;
    return TAKE_PTR(o);
}

int method_list_models(struct call *call, struct fault *reterr_fault)
{
    _cleanup_json_ json_object *reply = json_object_new_object(), *models = json_object_new_array();
    _cleanup_free_ struct model_info *list = NULL;
    size_t n = 0;
    int r;

    r = manager_list_models(call_manager(call), call_subject(call), &list, &n);
    if (r < 0)
        return r;
    if (!reply || !models)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        if (!append_take(models, model_to_json(&list[i])))
            return -ENOMEM;
    if (!add_take(reply, "models", TAKE_PTR(models)))
        return -ENOMEM;
    call_reply_take(call, TAKE_PTR(reply));
    return 0;
}
