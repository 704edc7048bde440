/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inference.Complete.
 */
#include "daemon/infer.h"
#include "daemon/method-table.h"

int method_complete(struct call *call, struct fault *reterr_fault)
{
    json_object *parameters = call_parameters(call), *ids = NULL;
    bool has_text = json_object_object_get_ex(parameters, "prompt", NULL);
    int r;

    if (json_object_object_get_ex(parameters, "prompt_tokens", &ids) == has_text) {
        fault_set(reterr_fault, FAULT_INVALID_PARAMETER, "prompt",
                  "exactly one of prompt and prompt_tokens is expected");
        return CALL_REFUSED;
    }
    r = infer_check_ids("prompt_tokens", ids, reterr_fault);
    return r != 0 ? r : infer_start(call, REQUEST_COMPLETE, reterr_fault);
}
