/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inference.Share: read-only descriptors of a model's files, for a program that maps them itself.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/json-build.h"
#include "base/json.h"
#include "daemon/method-table.h"

struct share {
    struct call *call;
    struct model_wait *wait;
};

static json_object *reply_to_json(const struct manager_share *s)
{
    _cleanup_json_ json_object *o = json_object_new_object();
    json_object *files = json_object_new_array();

    if (!o || !add_take(o, "files", files))
        return NULL;
    for (size_t i = 0; i < s->n_fds; i++)
        if (!append_take(files, json_object_new_int64((int64_t)i)))
            return NULL;
    if (!add_count(o, "size_bytes", s->n_bytes) || !add_text_if(o, "sha256", s->sha256))
        return NULL;
    return TAKE_PTR(o);
}

static void on_done(struct model_wait *w, enum model_state state, uint64_t total, void *userdata)
{
    _cleanup_free_ struct share *share = userdata;
    struct call *call = share->call;
    struct manager_share files;
    struct fault fault;
    int r;

    r = manager_shared_files(call_manager(call), call_subject(call), call_string(call, "model"), &files, &fault);
    if (r < 0)
        fault_set(&fault, FAULT_MODEL_UNAVAILABLE, call_string(call, "model"), "no descriptor or no memory for it");
    if (r != 0) {
        call_fail(call, &fault);
        return;
    }
    call_reply_fds_take(call, reply_to_json(&files), files.fds, files.n_fds);
    free(files.fds);
}

static void on_failed(struct model_wait *w, const struct fault *fault, void *userdata)
{
    struct share *share = userdata;

    call_fail(share->call, fault);
    free(share);
}

static void cancel(void *data)
{
    struct share *share = data;

    model_wait_cancel(share->wait);
    free(share);
}

static const struct model_wait_callbacks callbacks = {.done = on_done, .failed = on_failed};
static const struct call_ops ops = {.cancel = cancel};

int method_share(struct call *call, struct fault *reterr_fault)
{
    struct share *share = calloc(1, sizeof(*share));
    int r;

    if (!share)
        return -ENOMEM;
    share->call = call;
    call_note(call, call_string(call, "model"), 0);
    r = manager_share(call_manager(call), call_subject(call), call_string(call, "model"), &callbacks, share,
                      &share->wait, reterr_fault);
    if (r != 0) {
        free(share);
        return r < 0 ? r : CALL_REFUSED;
    }
    call_begin(call, &ops, share);
    return 0;
}
