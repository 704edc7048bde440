/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inference.Embed: one question, one reply. The worker writes the vectors under the interface's names; what they took
 * is added here.
 */
#include <errno.h>

#include "base/json-build.h"
#include "base/json.h"
#include "daemon/infer.h"
#include "daemon/method-table.h"

struct embed {
    struct call *call;
    struct request *request;
};

static void on_done(struct request *r, const struct request_result *result, void *userdata)
{
    struct embed *e = userdata;
    json_object *reply = NULL;

    if (!result->extra) {
        struct fault fault;

        /* Cut off by the end of its time before all vectors were there. */
        fault_set(&fault, FAULT_MODEL_UNAVAILABLE, request_model(r), "no result (%s)",
                  result->finish ? result->finish : "?");
        call_fail(e->call, &fault);
    } else {
        /* A copy: the reply is overwritten after it was sent, and the result is not ours. */
        if (json_object_deep_copy(result->extra, &reply, NULL) < 0 ||
            !add_take(reply, "usage", infer_usage(&result->usage))) {
            json_object_put(reply);
            reply = NULL;
        }
        call_reply_take(e->call, reply);
    }
    free(e);
}

static void on_failed(struct request *r, const struct fault *fault, void *userdata)
{
    struct embed *e = userdata;

    call_fail(e->call, fault);
    free(e);
}

static void cancel(void *data)
{
    struct embed *e = data;

    request_cancel(e->request);
    free(e);
}

static const struct request_callbacks callbacks = {.done = on_done, .failed = on_failed};
static const struct call_ops ops = {.cancel = cancel};

int method_embed(struct call *call, struct fault *reterr_fault)
{
    _cleanup_free_ struct embed *e = NULL;
    struct request_params params;
    int r;

    if (json_object_array_length(json_object_object_get(call_parameters(call), "input")) == 0) {
        fault_set(reterr_fault, FAULT_INVALID_PARAMETER, "input", "at least one text is expected");
        return CALL_REFUSED;
    }
    r = infer_check(call_parameters(call), reterr_fault);
    if (r != 0)
        return r;
    e = calloc(1, sizeof(*e));
    if (!e)
        return -ENOMEM;
    infer_request(call, REQUEST_EMBED, &params);
    call_note(call, params.model, 0);
    e->call = call;
    r = request_start(call_manager(call), &params, &callbacks, e, &e->request, reterr_fault);
    if (r != 0)
        return r < 0 ? r : CALL_REFUSED;
    call_note(call, params.model, request_id(e->request));
    call_begin(call, &ops, TAKE_PTR(e));
    return 0;
}
