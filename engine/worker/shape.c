/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/shape.h"

#include <errno.h>

#include "engine/engine-shape.h"

/* Takes @value, NULL too: memory was short then. */
static bool add(json_object *to, const char *name, json_object *value)
{
    if (!value)
        return false;
    if (json_object_object_add(to, name, value) < 0) {
        json_object_put(value);
        return false;
    }
    return true;
}

static bool append(json_object *to, json_object *value)
{
    if (!value)
        return false;
    if (json_object_array_add(to, value) < 0) {
        json_object_put(value);
        return false;
    }
    return true;
}

static bool add_number(json_object *to, const char *name, uint64_t n)
{
    return add(to, name, json_object_new_uint64(n));
}

static json_object *numbers(const uint64_t *n, size_t count)
{
    _cleanup_json_ json_object *array = json_object_new_array();

    for (size_t i = 0; array && i < count; i++)
        if (!append(array, json_object_new_uint64(n[i])))
            return NULL;
    return TAKE_PTR(array);
}

static json_object *group_to_json(const struct engine_shape_group *g)
{
    _cleanup_json_ json_object *o = json_object_new_object();
    const uint64_t pages[] = {g->pages_per_sequence, g->pages_per_step};
    json_object *kv = json_object_new_object();

    if (!o || !add(o, "kv", kv) || !add_number(o, "window", g->window) ||
        !add(o, "window_pages", numbers(pages, 2)))
        return NULL;
    for (uint32_t type = 0; type < TENSOR_TYPE_MAX; type++) {
        const uint64_t pair[] = {g->k_bytes[type], g->v_bytes[type]};

        if (pair[0] > 0 && !add(kv, tensor_traits(type)->name, numbers(pair, 2)))
            return NULL;
    }
    return TAKE_PTR(o);
}

static bool add_lists(json_object *o, const struct engine_shape *s)
{
    json_object *layers = json_object_new_array(), *groups = json_object_new_array();
    bool ok = add(o, "layers", layers);

    ok = add(o, "groups", groups) && ok;
    for (uint32_t i = 0; ok && i < s->n_layers; i++) {
        const uint64_t layer[] = {s->layers[i].dense_bytes, s->layers[i].expert_bytes, s->layers[i].group};

        ok = append(layers, numbers(layer, 3));
    }
    for (uint32_t i = 0; ok && i < s->n_groups; i++)
        ok = append(groups, group_to_json(&s->groups[i]));
    return ok;
}

int shape_to_json(const struct engine_shape *s, const uint64_t open[2], double read_gbps, json_object **ret)
{
    _cleanup_json_ json_object *all = json_object_new_object();
    const uint64_t others[] = {s->other_bytes, s->other_thread_bytes};
    json_object *o = json_object_new_object();

    if (!all || !add(all, "shape", o) || !add_lists(o, s) || !add_number(o, "file", s->file_bytes) ||
        !add_number(o, "embedding", s->embedding_bytes) || !add_number(o, "head", s->head_bytes) ||
        !add_number(o, "rest", s->rest_bytes) || !add(o, "tied", json_object_new_boolean(s->head_is_tied)) ||
        !add_number(o, "parameters", s->n_parameters) || !add_number(o, "experts", s->n_experts) ||
        !add_number(o, "experts_used", s->n_experts_used) ||
        !add_number(o, "context_trained", s->context_trained_tokens) ||
        !add_number(o, "page_tokens", ENGINE_PAGE_TOKENS) ||
        !add_number(o, "batch_tokens", s->batch_tokens) || !add_number(o, "scratch", s->scratch_bytes) ||
        !add_number(o, "thread_scratch", s->thread_scratch_bytes) || !add(o, "open", numbers(open, 2)) ||
        !add(o, "others", numbers(others, 2)))
        return -ENOMEM;
    if (read_gbps > 0 && !add(o, "read_gbps", json_object_new_double(read_gbps)))
        return -ENOMEM;
    *ret = TAKE_PTR(all);
    return 0;
}
