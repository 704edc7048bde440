/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/shape.h"

#include <errno.h>

#include "base/json-build.h"
#include "engine/engine-shape.h"

static json_object *numbers(const uint64_t *n, size_t count)
{
    _cleanup_json_ json_object *array = json_object_new_array();

    for (size_t i = 0; array && i < count; i++)
        if (!append_take(array, json_object_new_uint64(n[i])))
            return NULL;
    return TAKE_PTR(array);
}

static json_object *group_to_json(const struct engine_shape_group *g)
{
    _cleanup_json_ json_object *o = json_object_new_object();
    const uint64_t pages[] = {g->pages_per_sequence, g->pages_per_step};
    json_object *kv = json_object_new_object();

    if (!o || !add_take(o, "kv", kv) || !add_count(o, "window", g->window) ||
        !add_take(o, "window_pages", numbers(pages, 2)))
        return NULL;
    for (uint32_t type = 0; type < TENSOR_TYPE_MAX; type++) {
        const uint64_t of_type[] = {g->k_bytes[type], g->v_bytes[type], g->on_gpu[type]};

        if (of_type[0] > 0 && !add_take(kv, tensor_traits(type)->name, numbers(of_type, 3)))
            return NULL;
    }
    return TAKE_PTR(o);
}

static bool add_lists(json_object *o, const struct engine_shape *s)
{
    json_object *layers = json_object_new_array(), *groups = json_object_new_array();
    bool ok = add_take(o, "layers", layers);

    ok = add_take(o, "groups", groups) && ok;
    for (uint32_t i = 0; ok && i < s->n_layers; i++) {
        const uint64_t layer[] = {s->layers[i].dense_bytes, s->layers[i].expert_bytes, s->layers[i].group,
                                  s->layers[i].can_offload, s->layers[i].adapter_bytes,
                                  s->layers[i].adapter_expert_bytes};

        ok = append_take(layers, numbers(layer, 6));
    }
    for (uint32_t i = 0; ok && i < s->n_groups; i++)
        ok = append_take(groups, group_to_json(&s->groups[i]));
    return ok;
}

static bool add_runs(json_object *o, const struct engine_shape *s)
{
    json_object *runs = json_object_new_array();
    bool ok = add_take(o, "runs", runs);

    for (size_t i = 0; ok && i < s->n_runs; i++) {
        const struct engine_shape_run *run = &s->runs[i];
        const uint64_t items[] = {run->file, run->from, run->n_bytes, run->layer, run->with, run->is_end};

        ok = append_take(runs, numbers(items, 6));
    }
    return ok;
}

static bool add_gpu(json_object *o, const struct engine_shape *s)
{
    json_object *gpu = json_object_new_object();

    return add_take(o, "gpu", gpu) && add_take(gpu, "scratch", numbers(s->gpu_scratch_bytes, 8)) &&
           add_take(gpu, "small_scratch", numbers(s->gpu_small_scratch_bytes, 8)) &&
           add_count(gpu, "small_tokens", s->gpu_small_tokens) &&
           add_count(gpu, "padding", s->gpu_padding_bytes) && add_runs(gpu, s);
}

int shape_to_json(const struct engine_shape *s, const uint64_t open[2], double read_gbps, json_object **ret)
{
    _cleanup_json_ json_object *all = json_object_new_object();
    const uint64_t others[] = {s->other_bytes, s->other_thread_bytes};
    json_object *o = json_object_new_object();

    if (!all || !add_take(all, "shape", o) || !add_lists(o, s) || !add_count(o, "file", s->file_bytes) ||
        !add_count(o, "embedding", s->embedding_bytes) || !add_count(o, "head", s->head_bytes) ||
        !add_count(o, "head_adapters", s->head_adapter_bytes) ||
        !add_count(o, "rest", s->rest_bytes) || !add_take(o, "tied", json_object_new_boolean(s->head_is_tied)) ||
        !add_count(o, "parameters", s->n_parameters) || !add_count(o, "experts", s->n_experts) ||
        !add_count(o, "experts_used", s->n_experts_used) ||
        !add_count(o, "context_trained", s->context_trained_tokens) ||
        !add_count(o, "page_tokens", ENGINE_PAGE_TOKENS) ||
        !add_count(o, "batch_tokens", s->batch_tokens) || !add_count(o, "scratch", s->scratch_bytes) ||
        !add_count(o, "thread_scratch", s->thread_scratch_bytes) || !add_take(o, "open", numbers(open, 2)) ||
        !add_take(o, "others", numbers(others, 2)) || !add_gpu(o, s))
        return -ENOMEM;
    if (read_gbps > 0 && !add_take(o, "read_gbps", json_object_new_double(read_gbps)))
        return -ENOMEM;
    *ret = TAKE_PTR(all);
    return 0;
}
