/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inference.Tokenize and Inference.Detokenize: one question, one reply, which the worker writes under the names of the
 * interface.
 */
#include <errno.h>

#include "base/json.h"
#include "daemon/infer.h"
#include "daemon/method-table.h"

struct ask {
    struct call *call;
    struct request *request;
};

static void on_done(struct request *r, const struct request_result *result, void *userdata)
{
    struct ask *ask = userdata;
    json_object *reply = NULL;

    if (!result->extra) {
        struct fault fault;

        /* Cut off before it had an answer: by a deadline, or by a worker that does not know the question. */
        fault_set(&fault, FAULT_MODEL_UNAVAILABLE, request_model(r), "no result (%s)",
                  result->finish ? result->finish : "?");
        call_fail(ask->call, &fault);
    } else {
        /* A copy: the reply is overwritten after it was sent, and the result is not ours. */
        if (json_object_deep_copy(result->extra, &reply, NULL) < 0)
            reply = NULL;
        call_reply_take(ask->call, reply);
    }
    free(ask);
}

static void on_failed(struct request *r, const struct fault *fault, void *userdata)
{
    struct ask *ask = userdata;

    call_fail(ask->call, fault);
    free(ask);
}

static void cancel(void *data)
{
    struct ask *ask = data;

    request_cancel(ask->request);
    free(ask);
}

static const struct request_callbacks callbacks = {.done = on_done, .failed = on_failed};
static const struct call_ops ops = {.cancel = cancel};

static int start(struct call *call, enum request_kind kind, struct fault *reterr_fault)
{
    _cleanup_free_ struct ask *ask = calloc(1, sizeof(*ask));
    struct request_params params;
    int r;

    if (!ask)
        return -ENOMEM;
    infer_request(call, kind, &params);
    call_note(call, params.model, 0);
    ask->call = call;
    r = request_start(call_manager(call), &params, &callbacks, ask, &ask->request, reterr_fault);
    if (r != 0)
        return r < 0 ? r : CALL_REFUSED;
    call_note(call, params.model, request_id(ask->request));
    call_begin(call, &ops, TAKE_PTR(ask));
    return 0;
}

int method_tokenize(struct call *call, struct fault *reterr_fault)
{
    return start(call, REQUEST_TOKENIZE, reterr_fault);
}

int method_detokenize(struct call *call, struct fault *reterr_fault)
{
    int r = infer_check_ids("tokens", json_object_object_get(call_parameters(call), "tokens"), reterr_fault);

    return r != 0 ? r : start(call, REQUEST_DETOKENIZE, reterr_fault);
}
