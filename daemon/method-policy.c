/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Models.Reload and Models.Unpin: an administrator changes what holds, and waits until it holds, not for what follows
 * from it.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/json-build.h"
#include "base/json.h"
#include "daemon/method-table.h"

struct reloading {
    struct call *call;
    struct reload_wait *wait;
};

static void on_reloaded(int result, json_object *changed, const struct fault *fault, void *userdata)
{
    _cleanup_free_ struct reloading *reloading = userdata;
    struct call *call = reloading->call;
    _cleanup_json_ json_object *reply = NULL;

    if (result > 0) {
        call_fail(call, fault);
        return;
    }
    if (result == 0) {
        reply = json_object_new_object();
        if (reply && !add_take(reply, "changed", json_object_get(changed)))
            json_object_put(TAKE_PTR(reply));
    }
    /* Without memory a reply can't be made: the connection ends. */
    call_reply_take(call, TAKE_PTR(reply));
}

static void cancel(void *data)
{
    _cleanup_free_ struct reloading *reloading = data;

    reload_wait_cancel(reloading->wait);
}

int method_reload(struct call *call, struct fault *reterr_fault)
{
    static const struct call_ops ops = {.cancel = cancel};
    _cleanup_free_ struct reloading *reloading = calloc(1, sizeof(*reloading));
    int r;

    if (!reloading)
        return -ENOMEM;
    reloading->call = call;
    r = manager_reload(call_manager(call), on_reloaded, reloading, &reloading->wait);
    if (r < 0)
        return r;
    call_begin(call, &ops, TAKE_PTR(reloading));
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
