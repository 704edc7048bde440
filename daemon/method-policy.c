/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Models.Reload and Models.Unpin: an administrator changes what holds, without waiting for what follows from
 * it.
 */
#include <errno.h>

#include "base/json.h"
#include "daemon/build.h"
#include "daemon/method-table.h"

int method_reload(struct call *call, struct fault *reterr_fault)
{
    _cleanup_json_ json_object *reply = json_object_new_object();
    json_object *changed = NULL;
    int r;

    if (!reply)
        return -ENOMEM;
    r = manager_reload(call_manager(call), &changed, reterr_fault);
    if (r != 0)
        return r < 0 ? r : CALL_REFUSED;
    if (!add_take(reply, "changed", changed))
        return -ENOMEM;
    call_reply_take(call, TAKE_PTR(reply));
    return 0;
}

int method_unpin(struct call *call, struct fault *reterr_fault)
{
    const char *model = call_string(call, "model");
    int r;

    call_note(call, model, 0);
    r = manager_unpin(call_manager(call), call_subject(call), model, reterr_fault);
    if (r != 0)
        return r < 0 ? r : CALL_REFUSED;
    call_reply_take(call, json_object_new_object());
    return 0;
}
