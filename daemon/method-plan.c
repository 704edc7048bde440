/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Models.Plan: the wish out of the call's parameters, the plan into the reply.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json-build.h"
#include "base/json.h"
#include "daemon/method-table.h"
#include "daemon/plan-job.h"

struct plan {
    struct call *call;
    struct plan_job *job;
};

static json_object *placement_to_json(const struct plan_shape *shape, const struct plan_result *r)
{
    _cleanup_json_ json_object *o = json_object_new_object();
    json_object *reasons = json_object_new_array();
    struct plan_bytes vram = {.weights = 0};

    for (size_t i = 0; i < r->n_devices; i++) {
        vram.weights += r->devices[i].weights;
        vram.kv += r->devices[i].kv;
        vram.scratch += r->devices[i].scratch;
        vram.driver += r->devices[i].driver;
    }
    if (!o || !add_take(o, "reasons", reasons) || !add_take(o, "fits", json_object_new_boolean(r->fits)) ||
        !add_count(o, "gpu_layers", r->gpu_layers) || !add_count(o, "layers", shape->n_layers) ||
        !add_count(o, "weights_ram_bytes", r->ram.weights) ||
        !add_count(o, "weights_vram_bytes", vram.weights) || !add_count(o, "kv_ram_bytes", r->ram.kv) ||
        !add_count(o, "kv_vram_bytes", vram.kv) || !add_count(o, "scratch_ram_bytes", r->ram.scratch) ||
        !add_count(o, "scratch_vram_bytes", vram.scratch) ||
        !add_count(o, "driver_vram_bytes", vram.driver) ||
        !add_take(o, "predicted_decode_tps", json_object_new_double(r->decode_tps)))
        return NULL;
    for (size_t i = 0; i < r->n_reasons; i++)
        if (!append_take(reasons, json_object_new_string(r->reasons[i])))
            return NULL;
    return TAKE_PTR(o);
}

static json_object *alternative_to_json(const struct plan_alternative *a)
{
    _cleanup_json_ json_object *o = json_object_new_object();

    if (!o || !add_text(o, "change", a->change) || !add_take(o, "fits", json_object_new_boolean(a->fits)) ||
        !add_count(o, "gpu_layers", a->gpu_layers) ||
        !add_take(o, "predicted_decode_tps", json_object_new_double(a->decode_tps)))
        return NULL;
    return TAKE_PTR(o);
}

/* Those that the asker may see by their names, the others by their number. */
static bool add_leave(json_object *o, json_object *plan, struct call *call, const struct plan_job_result *result)
{
    const struct policy *policy = manager_policy(call_manager(call));
    const struct policy_subject *subject = call_subject(call);
    json_object *array = json_object_new_array(), *reasons = NULL;
    bool ok = add_take(o, "leave", array);
    size_t n_hidden = 0;
    char text[96];

    for (size_t i = 0; ok && i < result->n_leave; i++) {
        const struct policy_model *rules = policy_find_model(policy, result->leave[i]);

        if (policy_is_admin(policy, subject) || (rules && policy_may_use(policy, rules, subject)))
            ok = append_take(array, json_object_new_string(result->leave[i]));
        else
            n_hidden++;
    }
    if (!ok || n_hidden == 0)
        return ok;
    snprintf(text, sizeof(text), "models that this user may not use would leave memory for it: %zu", n_hidden);
    return json_object_object_get_ex(plan, "reasons", &reasons) && append_take(reasons, json_object_new_string(text));
}

static json_object *reply_to_json(struct call *call, const struct plan_job_result *result)
{
    _cleanup_json_ json_object *o = json_object_new_object();
    json_object *array = json_object_new_array(), *plan = placement_to_json(result->shape, result->plan);

    if (!o || !add_take(o, "alternatives", array)) {
        json_object_put(plan);
        return NULL;
    }
    if (!add_take(o, "plan", plan) || !add_leave(o, plan, call, result))
        return NULL;
    for (size_t i = 0; i < result->n_alternatives; i++)
        if (!append_take(array, alternative_to_json(&result->alternatives[i])))
            return NULL;
    return TAKE_PTR(o);
}

static void on_done(struct plan_job *job, const struct plan_job_result *result, void *userdata)
{
    struct plan *plan = userdata;

    call_reply_take(plan->call, reply_to_json(plan->call, result));
    free(plan);
}

static void on_failed(struct plan_job *job, const struct fault *fault, void *userdata)
{
    struct plan *plan = userdata;

    call_fail(plan->call, fault);
    free(plan);
}

static void cancel(void *data)
{
    struct plan *plan = data;

    plan_job_cancel(plan->job);
    free(plan);
}

static const struct plan_job_callbacks callbacks = {.done = on_done, .failed = on_failed};
static const struct call_ops ops = {.cancel = cancel};

static int wrong(const char *parameter, const char *expected, struct fault *reterr)
{
    fault_set(reterr, FAULT_INVALID_PARAMETER, parameter, "%s", expected);
    return CALL_REFUSED;
}

/* An absent number leaves *ret as it is. */
static int get_number(json_object *o, const char *name, int64_t min, int64_t max, uint64_t *ret,
                      struct fault *reterr)
{
    json_object *value;
    int64_t n;

    if (!json_object_object_get_ex(o, name, &value))
        return 0;
    n = json_object_get_int64(value);
    if (n < min || n > max) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, name,
                  "a number from %" PRId64 " to %" PRId64 " is expected", min, max);
        return CALL_REFUSED;
    }
    *ret = (uint64_t)n;
    return 0;
}

static int get_devices(json_object *o, struct plan_job_wish *wish, struct fault *reterr)
{
    json_object *array;
    size_t n;

    if (!json_object_object_get_ex(o, "vram_bytes", &array))
        return 0;
    n = json_object_array_length(array);
    if (n > PLAN_DEVICES_MAX)
        return wrong("vram_bytes", "at most 64 devices are expected", reterr);
    for (size_t i = 0; i < n; i++) {
        int64_t bytes = json_object_get_int64(json_object_array_get_idx(array, i));

        if (bytes < 0)
            return wrong("vram_bytes", "numbers of bytes are expected", reterr);
        wish->vram_bytes[i] = (uint64_t)bytes;
    }
    wish->n_devices = n;
    return 0;
}

static int get_wish(struct call *call, struct plan_job_wish *wish, struct fault *reterr)
{
    json_object *o = call_parameters(call), *fd = NULL;
    uint64_t context = 0, sequences = 0;
    int r;

    *wish = (struct plan_job_wish){
        .fd = -EBADF, .model = call_string(call, "model"), .kv_type = call_string(call, "kv_type")};
    wish->has_ram = json_object_object_get_ex(o, "ram_bytes", NULL);
    r = get_number(o, "ram_bytes", 0, INT64_MAX, &wish->ram_bytes, reterr);
    if (r == 0)
        r = get_number(o, "context_tokens", 1, 1 << 28, &context, reterr);
    if (r == 0)
        r = get_number(o, "sequences", 1, 1024, &sequences, reterr);
    if (r == 0)
        r = get_devices(o, wish, reterr);
    if (r != 0)
        return r;
    wish->context_tokens = (uint32_t)context;
    wish->sequences = (uint32_t)sequences;
    if (json_object_object_get_ex(o, "fd", &fd) == (wish->model != NULL))
        return wrong("model", "either a model or fd is expected", reterr);
    if (fd)
        wish->fd = call_take_fd(call, json_object_get_int64(fd));
    return 0;
}

int method_plan(struct call *call, struct fault *reterr_fault)
{
    _cleanup_free_ struct plan *plan = calloc(1, sizeof(*plan));
    struct plan_job_wish wish;
    int r;

    if (!plan)
        return -ENOMEM;
    plan->call = call;
    r = get_wish(call, &wish, reterr_fault);
    if (r != 0)
        return r;
    call_note(call, wish.model, 0);
    r = manager_plan(call_manager(call), call_subject(call), &wish, &callbacks, plan, &plan->job,
                     reterr_fault);
    if (r != 0)
        return r < 0 ? r : CALL_REFUSED;
    call_begin(call, &ops, TAKE_PTR(plan));
    return 0;
}
