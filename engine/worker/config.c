/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/config.h"

#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "engine/engine.h"
#include "engine/proto/worker-proto.h"
#include "engine/worker/member.h"

#define CONFIG_BYTES_MAX   (4u << 20)
#define CONTEXT_TOKENS_MAX (1u << 28)
#define BATCH_TOKENS_MAX   (1u << 16)
#define THREADS_MAX        4096

#define PUBLIC_PREFIXES_MAX 64

/* Texts beyond this would keep the helper thread for seconds. */
#define PROMPT_BYTES_DEFAULT (UINT64_C(4) << 20)
#define PROMPT_BYTES_MAX     (UINT64_C(16) << 20)

static int get_type(json_object *o, const char *name, enum tensor_type *ret, struct fault *reterr)
{
    const char *text;
    size_t n;
    int r = member_string(o, name, &text, &n, reterr);

    if (r < 0)
        return r;
    if (tensor_type_from_name(text, ret) < 0) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, name, "expected the name of a type, such as f16");
        return -EINVAL;
    }
    return 0;
}

static int get_drafts(json_object *o, struct config *c, struct fault *reterr)
{
    static const char *const names[] = {"auto", "off", "always"};
    const char *text;
    size_t n;
    int r = member_string(o, "drafts", &text, &n, reterr);

    if (r < 0)
        return r;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(text, names[i]) == 0) {
            c->drafts = (enum config_drafts)i;
            return 0;
        }
    fault_set(reterr, FAULT_INVALID_PARAMETER, "drafts", "expected auto, off or always");
    return -EINVAL;
}

static int get_strings(json_object *o, const char *name, size_t n_max, json_object **ret, struct fault *reterr)
{
    json_object *array;
    int r = member_array(o, name, &array, reterr);

    if (r < 0)
        return r;
    if (json_object_array_length(array) > n_max) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, name, "expected at most %zu", n_max);
        return -EINVAL;
    }
    for (size_t i = 0; i < json_object_array_length(array); i++)
        if (!json_object_is_type(json_object_array_get_idx(array, i), json_type_string)) {
            fault_set(reterr, FAULT_INVALID_PARAMETER, name, "expected strings");
            return -EINVAL;
        }
    *ret = json_object_get(array);
    return 0;
}

uint32_t config_adapter(const struct config *c, const char *name)
{
    for (uint32_t i = 0; i < c->n_adapters; i++)
        if (strcmp(json_object_get_string(json_object_array_get_idx(c->adapters, i)), name) == 0)
            return i + 1;
    return 0;
}

static int get_limits(json_object *o, struct config *c, struct fault *reterr)
{
    json_object *limits;
    int64_t bytes;
    int r = member_object(o, "limits", &limits, reterr);

    if (r < 0)
        return r;
    r = member_u32(limits, "max_tokens", 1, UINT32_MAX, &c->max_tokens, reterr);
    if (r == -EINVAL)
        return r;
    r = member_int(limits, "prompt_bytes", 1, PROMPT_BYTES_MAX, &bytes, reterr);
    if (r == 0)
        c->prompt_bytes_max = (uint64_t)bytes;
    return r;
}

static int get_numbers(json_object *o, const char *name, uint32_t *ret, size_t *ret_n, struct fault *reterr)
{
    json_object *array;
    int r = member_array(o, name, &array, reterr);

    *ret_n = 0;
    if (r < 0)
        return r;
    for (size_t i = 0; i < json_object_array_length(array); i++) {
        json_object *value = json_object_array_get_idx(array, i);
        int64_t n = json_object_is_type(value, json_type_int) ? json_object_get_int64(value) : -1;

        if (i == ENGINE_DEVICES_MAX || n < 0 || n > UINT16_MAX) {
            fault_set(reterr, FAULT_INVALID_PARAMETER, name, "expected at most %d numbers", ENGINE_DEVICES_MAX);
            return -EINVAL;
        }
        ret[(*ret_n)++] = (uint32_t)n;
    }
    return 0;
}

static int get_bus_ids(json_object *gpu, struct config_gpu *c, struct fault *reterr)
{
    json_object *array;
    int r = member_array(gpu, "bus_ids", &array, reterr);

    if (r < 0)
        return r;
    for (size_t i = 0; i < json_object_array_length(array); i++) {
        json_object *value = json_object_array_get_idx(array, i);
        const char *text = json_object_is_type(value, json_type_string) ? json_object_get_string(value) : NULL;

        if (i == ENGINE_DEVICES_MAX || !text || strlen(text) >= sizeof(c->bus_ids[i])) {
            fault_set(reterr, FAULT_INVALID_PARAMETER, "bus_ids", "expected at most %d short texts",
                      ENGINE_DEVICES_MAX);
            return -EINVAL;
        }
        snprintf(c->bus_ids[i], sizeof(c->bus_ids[i]), "%s", text);
    }
    return 0;
}

static int get_gpu(json_object *o, struct config_gpu *c, struct fault *reterr)
{
    json_object *gpu;
    int64_t bytes = 0;
    size_t n = 0;
    int r = member_object(o, "gpu", &gpu, reterr);

    if (r < 0)
        return r;
    if (member_u32(gpu, "layers", 0, UINT16_MAX, &c->layers, reterr) == -EINVAL ||
        member_u32(gpu, "expert_layers", 0, UINT16_MAX, &c->expert_layers, reterr) == -EINVAL ||
        member_bool(gpu, "kv_in_ram", &c->kv_in_ram, reterr) == -EINVAL ||
        member_bool(gpu, "head", &c->head, reterr) == -EINVAL ||
        member_bool(gpu, "exact", &c->exact, reterr) == -EINVAL ||
        member_bool(gpu, "small_steps", &c->small_steps, reterr) == -EINVAL ||
        member_bool(gpu, "keep_locked", &c->keep_locked, reterr) == -EINVAL ||
        member_int(gpu, "ram_bytes_max", 0, INT64_MAX, &bytes, reterr) == -EINVAL ||
        get_numbers(gpu, "devices", c->devices, &c->n_devices, reterr) == -EINVAL ||
        get_bus_ids(gpu, c, reterr) == -EINVAL ||
        get_numbers(gpu, "device_layers", c->device_layers, &n, reterr) == -EINVAL)
        return -EINVAL;
    c->ram_bytes_max = (uint64_t)bytes;
    if (n == c->n_devices)
        return 0;
    fault_set(reterr, FAULT_INVALID_PARAMETER, "device_layers", "expected as many numbers as devices");
    return -EINVAL;
}

static int get_all(json_object *o, struct config *c, struct fault *reterr)
{
    json_object *defaults = NULL;
    const char *name;
    int64_t kv_tokens, bytes;
    size_t n;
    int r;

    r = member_string(o, "model", &name, &n, reterr);
    if (r == 0 && n > CONFIG_NAME_MAX) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, "model", "expected at most %d bytes", CONFIG_NAME_MAX);
        r = -EINVAL;
    }
    if (r == -EINVAL)
        return r;
    if (r == 0)
        memcpy(c->model, name, n);
    if (member_u32(o, "context_tokens", 0, CONTEXT_TOKENS_MAX, &c->context_tokens, reterr) == -EINVAL ||
        member_u32(o, "sequences", 1, CONFIG_SEQUENCES_MAX, &c->sequences, reterr) == -EINVAL ||
        member_u32(o, "batch_tokens", 1, BATCH_TOKENS_MAX, &c->batch_tokens, reterr) == -EINVAL ||
        member_u32(o, "threads", 0, THREADS_MAX, &c->n_threads, reterr) == -EINVAL ||
        get_type(o, "k", &c->k_type, reterr) == -EINVAL || get_type(o, "v", &c->v_type, reterr) == -EINVAL ||
        member_bool(o, "lock", &c->lock, reterr) == -EINVAL ||
        member_bool(o, "small_pages", &c->small_pages, reterr) == -EINVAL ||
        member_bool(o, "measure", &c->measure, reterr) == -EINVAL ||
        member_bool(o, "look", &c->look, reterr) == -EINVAL || get_gpu(o, &c->gpu, reterr) == -EINVAL ||
        member_bool(o, "bandwidth", &c->bandwidth, reterr) == -EINVAL ||
        member_bool(o, "populate", &c->populate, reterr) == -EINVAL ||
        member_bool(o, "touch", &c->touch, reterr) == -EINVAL || get_limits(o, c, reterr) == -EINVAL ||
        get_drafts(o, c, reterr) == -EINVAL ||
        member_u32(o, "files", 1, PROTO_FDS_MAX, &c->n_files, reterr) == -EINVAL ||
        member_u32(o, "draft_files", 0, PROTO_FDS_MAX, &c->n_draft_files, reterr) == -EINVAL ||
        get_strings(o, "adapters", ENGINE_ADAPTERS_MAX, &c->adapters, reterr) == -EINVAL ||
        get_strings(o, "public_prefixes", PUBLIC_PREFIXES_MAX, &c->public_prefixes, reterr) == -EINVAL)
        return -EINVAL;
    if (c->adapters)
        c->n_adapters = (uint32_t)json_object_array_length(c->adapters);
    r = member_int(o, "kv_tokens", 0, (int64_t)CONTEXT_TOKENS_MAX * CONFIG_SEQUENCES_MAX, &kv_tokens, reterr);
    if (r == -EINVAL)
        return r;
    if (r == 0)
        c->kv_tokens = (uint64_t)kv_tokens;
    r = member_int(o, "weights_bytes_max", 0, INT64_MAX, &bytes, reterr);
    if (r == -EINVAL)
        return r;
    if (r == 0)
        c->weights_bytes_max = (uint64_t)bytes;
    r = member_object(o, "defaults", &defaults, reterr);
    if (r == -EINVAL)
        return r;
    if (r == 0)
        c->defaults = json_object_get(defaults);
    /* A step has room for one token of every sequence. */
    if (c->batch_tokens < c->sequences)
        c->batch_tokens = c->sequences;
    return 0;
}

int config_parse(const char *text, size_t n_bytes, struct config *ret, struct fault *reterr)
{
    const struct json_limits limits = {.bytes_max = CONFIG_BYTES_MAX, .depth_max = 16, .values_max = 100000};
    struct config c = {
        .sequences = 4,
        .batch_tokens = 512,
        .k_type = TENSOR_F16,
        .v_type = TENSOR_F16,
        .populate = true,
        .touch = true,
        .max_tokens = UINT32_MAX,
        .prompt_bytes_max = PROMPT_BYTES_DEFAULT,
    };
    _cleanup_json_ json_object *o = NULL;
    struct json_error error;
    int r;

    r = json_parse(text, n_bytes, &limits, &o, NULL, &error);
    if (r == -ENOMEM)
        return r;
    if (r < 0 || !json_object_is_type(o, json_type_object)) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, "config", "%s",
                  r < 0 ? error.reason : "expected an object");
        return -EINVAL;
    }
    r = get_all(o, &c, reterr);
    if (r < 0) {
        config_done(&c);
        return r;
    }
    *ret = c;
    return 0;
}

void config_done(struct config *c)
{
    json_object_put(c->defaults);
    json_object_put(c->adapters);
    json_object_put(c->public_prefixes);
    c->defaults = c->adapters = c->public_prefixes = NULL;
}
