/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A worker's "shape" (engine/worker/shape.c) into struct plan_shape. The worker has read a file that anybody
 * may have made, so its numbers are checked here like any other input: ranges, and sums that have to fit into
 * the file.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "policy/plan.h"

/* Above any machine, low enough that sums over all layers can't leave uint64_t. */
#define BYTES_MAX (UINT64_C(1) << 50)

static bool get_number(json_object *o, const char *key, uint64_t max, uint64_t *ret)
{
    json_object *value;
    int64_t n;

    if (!json_object_object_get_ex(o, key, &value) || !json_object_is_type(value, json_type_int))
        return false;
    n = json_object_get_int64(value);
    if (n < 0 || (uint64_t)n > max)
        return false;
    *ret = (uint64_t)n;
    return true;
}

static bool get_u32(json_object *o, const char *key, uint32_t max, uint32_t *ret)
{
    uint64_t n;

    if (!get_number(o, key, max, &n))
        return false;
    *ret = (uint32_t)n;
    return true;
}

static bool get_item(json_object *array, size_t i, uint64_t max, uint64_t *ret)
{
    json_object *value = json_object_array_get_idx(array, i);
    int64_t n = json_object_is_type(value, json_type_int) ? json_object_get_int64(value) : -1;

    if (n < 0 || (uint64_t)n > max)
        return false;
    *ret = (uint64_t)n;
    return true;
}

static bool get_pair(json_object *o, const char *key, uint64_t *a, uint64_t *b)
{
    json_object *pair;

    return json_object_object_get_ex(o, key, &pair) && json_object_is_type(pair, json_type_array) &&
           get_item(pair, 0, INT32_MAX, a) && get_item(pair, 1, INT32_MAX, b);
}

/* "kv": {"f16": [bytes of K, of V, 1: on a GPU, too], …}, of one page of one layer. */
static int get_types(json_object *o, struct plan_group *group)
{
    json_object *types;

    if (!json_object_object_get_ex(o, "kv", &types) || !json_object_is_type(types, json_type_object))
        return -EINVAL;
    json_object_object_foreach(types, name, pair)
    {
        struct plan_kv_type *t = &group->types[group->n_types];
        uint64_t on_gpu;

        if (group->n_types == PLAN_KV_TYPES_MAX || strlen(name) >= sizeof(t->name) ||
            !json_object_is_type(pair, json_type_array) || !get_item(pair, 0, 1 << 30, &t->k_bytes) ||
            !get_item(pair, 1, 1 << 30, &t->v_bytes) || !get_item(pair, 2, 1, &on_gpu))
            return -EINVAL;
        t->on_gpu = on_gpu == 1;
        snprintf(t->name, sizeof(t->name), "%s", name);
        group->n_types++;
    }
    return group->n_types > 0 ? 0 : -EINVAL;
}

static int get_groups(json_object *o, struct plan_shape *s)
{
    json_object *groups;
    size_t n;

    if (!json_object_object_get_ex(o, "groups", &groups) || !json_object_is_type(groups, json_type_array))
        return -EINVAL;
    n = json_object_array_length(groups);
    if (n > PLAN_GROUPS_MAX)
        return -EINVAL;
    for (size_t i = 0; i < n; i++) {
        json_object *group = json_object_array_get_idx(groups, i);

        if (!json_object_is_type(group, json_type_object) ||
            !get_u32(group, "window", INT32_MAX, &s->groups[i].window) ||
            !get_pair(group, "window_pages", &s->groups[i].pages_per_sequence,
                      &s->groups[i].pages_per_step) ||
            get_types(group, &s->groups[i]) < 0)
            return -EINVAL;
    }
    s->n_groups = (uint32_t)n;
    return 0;
}

static int get_layers(json_object *o, struct plan_shape *s, uint64_t *sum)
{
    json_object *layers;
    size_t n;

    if (!json_object_object_get_ex(o, "layers", &layers) || !json_object_is_type(layers, json_type_array))
        return -EINVAL;
    n = json_object_array_length(layers);
    if (n > PLAN_LAYERS_MAX)
        return -EINVAL;
    s->layers = calloc(n ? n : 1, sizeof(*s->layers));
    if (!s->layers)
        return -ENOMEM;
    s->n_layers = (uint32_t)n;
    for (size_t i = 0; i < n; i++) {
        json_object *layer = json_object_array_get_idx(layers, i);
        uint64_t group, can_offload;

        if (!json_object_is_type(layer, json_type_array) ||
            !get_item(layer, 0, BYTES_MAX, &s->layers[i].dense_bytes) ||
            !get_item(layer, 1, BYTES_MAX, &s->layers[i].expert_bytes) ||
            !get_item(layer, 2, s->n_groups > 0 ? s->n_groups - 1 : 0, &group) ||
            !get_item(layer, 3, 1, &can_offload) || !get_item(layer, 4, BYTES_MAX, &s->layers[i].adapter_bytes) ||
            !get_item(layer, 5, BYTES_MAX, &s->layers[i].adapter_expert_bytes))
            return -EINVAL;
        s->layers[i].group = (uint32_t)group;
        s->layers[i].can_offload = can_offload;
        *sum += s->layers[i].dense_bytes + s->layers[i].expert_bytes + s->layers[i].adapter_bytes +
                s->layers[i].adapter_expert_bytes;
    }
    return 0;
}

/* By file and offset, and none in another. */
static bool get_run(json_object *o, const struct plan_shape *s, struct plan_run *ret)
{
    const struct plan_run *before = s->n_runs > 0 ? &s->runs[s->n_runs - 1] : NULL;
    uint64_t file, layer, with, is_end;

    if (!json_object_is_type(o, json_type_array) || !get_item(o, 0, PLAN_LAYERS_MAX, &file) ||
        !get_item(o, 1, s->file_bytes, &ret->from) || !get_item(o, 2, s->file_bytes - ret->from, &ret->n_bytes) ||
        !get_item(o, 3, s->n_layers, &layer) || !get_item(o, 4, UINT8_MAX, &with) || !get_item(o, 5, 1, &is_end))
        return false;
    ret->file = (uint32_t)file;
    ret->layer = (uint32_t)layer;
    ret->with = (uint8_t)with;
    ret->is_end = is_end;
    return !before || before->file < file || (before->file == file && before->from + before->n_bytes <= ret->from);
}

static int get_runs(json_object *gpu, struct plan_shape *s)
{
    uint64_t sum = 0;
    json_object *runs;
    size_t n;

    if (!json_object_object_get_ex(gpu, "runs", &runs) || !json_object_is_type(runs, json_type_array))
        return -EINVAL;
    n = json_object_array_length(runs);
    if (n > PLAN_RANGES_MAX)
        return -EINVAL;
    s->runs = calloc(n ? n : 1, sizeof(*s->runs));
    if (!s->runs)
        return -ENOMEM;
    for (; s->n_runs < n; s->n_runs++) {
        struct plan_run *run = &s->runs[s->n_runs];

        if (!get_run(json_object_array_get_idx(runs, s->n_runs), s, run))
            return -EINVAL;
        sum += run->n_bytes;
        if (sum > s->file_bytes)
            return -EINVAL;
    }
    return 0;
}

static bool get_scratch(json_object *gpu, const char *name, uint64_t ret[8])
{
    json_object *scratch;
    bool ok = json_object_object_get_ex(gpu, name, &scratch) && json_object_is_type(scratch, json_type_array);

    for (size_t i = 0; ok && i < 8; i++)
        ok = get_item(scratch, i, BYTES_MAX, &ret[i]);
    return ok;
}

static bool get_gpu(json_object *o, struct plan_shape *s)
{
    json_object *gpu;

    return json_object_object_get_ex(o, "gpu", &gpu) && json_object_is_type(gpu, json_type_object) &&
           get_number(gpu, "padding", 1 << 30, &s->gpu_padding_bytes) &&
           get_scratch(gpu, "scratch", s->gpu_scratch_bytes) &&
           get_scratch(gpu, "small_scratch", s->gpu_small_scratch_bytes) &&
           get_u32(gpu, "small_tokens", 1 << 20, &s->gpu_small_tokens);
}

static int parse(json_object *o, struct plan_shape *s)
{
    json_object *tied, *gbps, *others;
    uint64_t sum = 0;
    int r;

    if (!json_object_is_type(o, json_type_object) || !get_number(o, "file", BYTES_MAX, &s->file_bytes) ||
        !get_number(o, "embedding", BYTES_MAX, &s->embedding_bytes) ||
        !get_number(o, "head", BYTES_MAX, &s->head_bytes) ||
        !get_number(o, "head_adapters", BYTES_MAX, &s->head_adapter_bytes) ||
        !get_number(o, "rest", BYTES_MAX, &s->rest_bytes) ||
        !get_number(o, "parameters", BYTES_MAX, &s->n_parameters) ||
        !get_u32(o, "experts", 65536, &s->n_experts) ||
        !get_u32(o, "experts_used", 65536, &s->n_experts_used) ||
        !get_u32(o, "context_trained", INT32_MAX, &s->context_trained_tokens) ||
        !get_u32(o, "page_tokens", 65536, &s->page_tokens) ||
        !get_u32(o, "batch_tokens", 1 << 20, &s->batch_tokens) ||
        !get_number(o, "scratch", BYTES_MAX, &s->scratch_bytes) ||
        !get_number(o, "thread_scratch", BYTES_MAX >> 10, &s->thread_scratch_bytes) ||
        !json_object_object_get_ex(o, "tied", &tied) || !json_object_is_type(tied, json_type_boolean))
        return -EINVAL;
    if (!get_pair(o, "open", &s->open[0], &s->open[1]) || !get_gpu(o, s))
        return -EINVAL;
    if (json_object_object_get_ex(o, "others", &others) &&
        (!json_object_is_type(others, json_type_array) || !get_item(others, 0, BYTES_MAX, &s->other_bytes) ||
         !get_item(others, 1, BYTES_MAX >> 10, &s->other_thread_bytes)))
        return -EINVAL;
    s->head_is_tied = json_object_get_boolean(tied);
    if (json_object_object_get_ex(o, "read_gbps", &gbps))
        s->read_gbps = json_object_get_double(gbps);
    if (s->page_tokens == 0 || s->context_trained_tokens == 0 || s->n_experts_used > s->n_experts ||
        !(s->read_gbps >= 0 && s->read_gbps < 1e6))
        return -EINVAL;
    r = get_groups(o, s);
    if (r == 0)
        r = get_layers(o, s, &sum);
    if (r == 0)
        r = get_runs(json_object_object_get(o, "gpu"), s);
    if (r < 0)
        return r;
    sum += s->embedding_bytes + s->rest_bytes + s->head_adapter_bytes + (s->head_is_tied ? 0 : s->head_bytes);
    return sum <= s->file_bytes && (!s->head_is_tied || s->head_bytes <= s->embedding_bytes) ? 0 : -EINVAL;
}

int plan_shape_parse(json_object *shape, struct plan_shape *ret)
{
    struct plan_shape s = {.layers = NULL};
    int r = parse(shape, &s);

    if (r < 0) {
        plan_shape_done(&s);
        return r;
    }
    *ret = s;
    return 0;
}

void plan_shape_done(struct plan_shape *shape)
{
    free(shape->layers);
    free(shape->runs);
    *shape = (struct plan_shape){.layers = NULL};
}
