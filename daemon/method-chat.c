/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inference.Chat.
 */
#include "daemon/infer.h"
#include "daemon/method-table.h"

int method_chat(struct call *call, struct fault *reterr_fault)
{
    json_object *messages = json_object_object_get(call_parameters(call), "messages");

    if (json_object_array_length(messages) == 0) {
        fault_set(reterr_fault, FAULT_INVALID_PARAMETER, "messages", "at least one message is expected");
        return CALL_REFUSED;
    }
    return infer_start(call, REQUEST_CHAT, reterr_fault);
}
