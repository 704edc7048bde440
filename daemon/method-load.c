/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Models.Load, Pin and Unload: an administrator waits for a model to come or to go. The waiting ends with the
 * connection, the loading does not.
 */
#include <errno.h>

#include "base/json-build.h"
#include "base/json.h"
#include "daemon/method-table.h"

struct load {
    struct call *call;
    struct model_wait *wait;
    enum model_state state;
    uint64_t bytes_done, bytes_total;
    bool has_reply; /* Load says what became of it, the others nothing */
};

static json_object *load_to_json(enum model_state state, uint64_t done, uint64_t total)
{
    _cleanup_json_ json_object *o = json_object_new_object();

    if (!o || !add_text(o, "state", model_state_to_string(state)) || !add_count(o, "bytes_done", done) ||
        !add_count(o, "bytes_total", total))
        return NULL;
    return TAKE_PTR(o);
}

static void say_progress(void *data)
{
    struct load *load = data;

    if (!call_is_slow(load->call))
        call_continue_take(load->call, load_to_json(load->state, load->bytes_done, load->bytes_total));
}

static void on_progress(struct model_wait *w, enum model_state state, uint64_t done, uint64_t total,
                        void *userdata)
{
    struct load *load = userdata;

    load->state = state;
    load->bytes_done = done;
    load->bytes_total = total;
    if (call_more(load->call))
        say_progress(load);
}

static void on_done(struct model_wait *w, enum model_state state, uint64_t total, void *userdata)
{
    struct load *load = userdata;

    call_reply_take(load->call,
                    load->has_reply ? load_to_json(state, total, total) : json_object_new_object());
    free(load);
}

static void on_failed(struct model_wait *w, const struct fault *fault, void *userdata)
{
    struct load *load = userdata;

    call_fail(load->call, fault);
    free(load);
}

static void cancel(void *data)
{
    struct load *load = data;

    model_wait_cancel(load->wait);
    free(load);
}

static const struct model_wait_callbacks callbacks = {
    .progress = on_progress, .done = on_done, .failed = on_failed};
static const struct call_ops ops = {.cancel = cancel, .heartbeat = say_progress};

typedef int (*start_t)(struct manager *m, const struct policy_subject *s, const char *model,
                       const struct model_wait_callbacks *callbacks, void *userdata, struct model_wait **ret,
                       struct fault *reterr_fault);

static int start(struct call *call, start_t begin, enum model_state state, bool has_reply, struct fault *reterr_fault)
{
    const char *model = call_string(call, "model");
    _cleanup_free_ struct load *load = calloc(1, sizeof(*load));
    int r;

    if (!load)
        return -ENOMEM;
    *load = (struct load){.call = call, .state = state, .has_reply = has_reply};
    call_note(call, model, 0);
    r = begin(call_manager(call), call_subject(call), model, &callbacks, load, &load->wait, reterr_fault);
    if (r != 0)
        return r < 0 ? r : CALL_REFUSED;
    call_begin(call, &ops, TAKE_PTR(load));
    return 0;
}

int method_load(struct call *call, struct fault *reterr_fault)
{
    return start(call, manager_load, MODEL_LOADING, /* has_reply= */ true, reterr_fault);
}

int method_unload(struct call *call, struct fault *reterr_fault)
{
    return start(call, manager_unload, MODEL_DRAINING, /* has_reply= */ false, reterr_fault);
}

int method_pin(struct call *call, struct fault *reterr_fault)
{
    return start(call, manager_pin, MODEL_LOADING, /* has_reply= */ false, reterr_fault);
}
