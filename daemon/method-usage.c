/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Usage.Requests and Usage.Cancel: what runs, one's own; for administrators anybody's.
 */
#include <errno.h>

#include "base/json-build.h"
#include "base/json.h"
#include "daemon/method-table.h"

json_object *request_to_json(const struct request_status *q)
{
    _cleanup_json_ json_object *o = json_object_new_object();

    if (!o || !add_count(o, "request", q->request) || !add_count(o, "uid", q->uid) ||
        !add_text_if(o, "app", q->app) || !add_text_if(o, "unit", q->unit) || !add_text(o, "model", q->model) ||
        !add_text(o, "state", request_state_to_string(q->state)) ||
        !add_count(o, "prompt_tokens", q->prompt_tokens) ||
        !add_count(o, "output_tokens", q->output_tokens) ||
        (q->decode_tps > 0 && !add_take(o, "decode_tps", json_object_new_double(q->decode_tps))) ||
        !add_count_if(o, q->queue_position >= 0, "queue_position", (uint64_t)q->queue_position) ||
        !add_count_if(o, q->eta_ms >= 0, "eta_ms", (uint64_t)q->eta_ms))
        return NULL;
    return TAKE_PTR(o);
}

int usage_whose(struct call *call, bool *ret_all, uid_t *ret_uid, struct fault *reterr_fault)
{
    json_object *given = NULL;
    int64_t uid;

    *ret_all = false;
    *ret_uid = call_subject(call)->uid;
    if (!json_object_object_get_ex(call_parameters(call), "uid", &given))
        return 0;
    uid = json_object_get_int64(given);
    if (uid == (int64_t)*ret_uid)
        return 0;
    if (!call_is_admin(call)) {
        fault_set(reterr_fault, FAULT_NOT_ALLOWED, NULL, "admins_only");
        return CALL_REFUSED;
    }
    if (uid < -1 || uid > UINT32_MAX) {
        fault_set(reterr_fault, FAULT_INVALID_PARAMETER, "uid", "a uid, or -1 for everybody, is expected");
        return CALL_REFUSED;
    }
    *ret_all = uid == -1;
    *ret_uid = (uid_t)uid;
    return 0;
}

int method_usage_requests(struct call *call, struct fault *reterr_fault)
{
    _cleanup_json_ json_object *reply = json_object_new_object(), *array = json_object_new_array();
    _cleanup_free_ struct request_status *list = NULL;
    size_t n = 0;
    uid_t uid;
    bool all;
    int r;

    r = usage_whose(call, &all, &uid, reterr_fault);
    if (r != 0)
        return r;
    r = manager_requests(call_manager(call), all, uid, &list, &n);
    if (r < 0)
        return r;
    if (!reply || !array)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        if (!append_take(array, request_to_json(&list[i])))
            return -ENOMEM;
    if (!add_take(reply, "requests", TAKE_PTR(array)))
        return -ENOMEM;
    call_reply_take(call, TAKE_PTR(reply));
    return 0;
}

int method_usage_cancel(struct call *call, struct fault *reterr_fault)
{
    int64_t id = json_object_get_int64(json_object_object_get(call_parameters(call), "request"));
    json_object *reply;
    int r;

    if (id <= 0) {
        fault_init(reterr_fault, FAULT_NO_SUCH_REQUEST, NULL);
        return CALL_REFUSED;
    }
    r = manager_cancel(call_manager(call), call_subject(call), (uint64_t)id, reterr_fault);
    if (r != 0)
        return r < 0 ? r : CALL_REFUSED;
    reply = json_object_new_object();
    if (!reply)
        return -ENOMEM;
    call_reply_take(call, reply);
    return 0;
}
