/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Models.Watch: what Status and Requests say, at once and again whenever it is something else. What the caller may see
 * is decided anew each time, since the policy may have changed.
 */
#include <errno.h>
#include <string.h>

#include "base/json-build.h"
#include "base/json.h"
#include "daemon/method-table.h"
#include "daemon/watch.h"

struct watching {
    struct call *call;
    struct watch *watch;
    char *last;     /* what was sent */
    bool is_behind; /* something changed while the client did not read */
};

static void watching_free(struct watching *w)
{
    watch_free(w->watch);
    free(w->last);
    free(w);
}

static json_object *models_to_json(struct manager *m, const struct policy_subject *s)
{
    struct manager_status status;
    json_object *models;

    if (manager_status(m, s, &status) < 0)
        return NULL;
    models = status_models_to_json(&status);
    manager_status_done(&status);
    return models;
}

static json_object *requests_to_json(const struct call *call, struct manager *m, const struct policy_subject *s)
{
    _cleanup_json_ json_object *array = json_object_new_array();
    _cleanup_free_ struct request_status *list = NULL;
    size_t n = 0;

    if (!array || manager_requests(m, call_is_admin(call), s->uid, &list, &n) < 0)
        return NULL;
    for (size_t i = 0; i < n; i++)
        if (!append_take(array, request_to_json(&list[i])))
            return NULL;
    return TAKE_PTR(array);
}

static json_object *snapshot(struct call *call)
{
    _cleanup_json_ json_object *o = json_object_new_object();
    struct manager *m = call_manager(call);

    if (!o || !add_take(o, "models", models_to_json(m, call_subject(call))) ||
        !add_take(o, "requests", requests_to_json(call, m, call_subject(call))))
        return NULL;
    return TAKE_PTR(o);
}

static void send(struct watching *w, bool always)
{
    json_object *o;
    const char *text;

    /* A client that does not read gets the newest state once it does, not all those in between. */
    w->is_behind = call_is_slow(w->call);
    if (w->is_behind)
        return;
    o = snapshot(w->call);
    text = o ? json_text(o) : NULL;
    if (text && !always && w->last && strcmp(text, w->last) == 0) {
        json_object_put(o);
        return;
    }
    free(w->last);
    w->last = text ? strdup(text) : NULL;
    call_continue_take(w->call, o);
}

static void on_changed(void *userdata)
{
    send(userdata, /* always= */ false);
}

static void heartbeat(void *data)
{
    send(data, /* always= */ true);
}

static void drained(void *data)
{
    struct watching *w = data;

    if (w->is_behind)
        send(w, /* always= */ false);
}

static void cancel(void *data)
{
    watching_free(data);
}

static const struct call_ops ops = {.cancel = cancel, .heartbeat = heartbeat, .drained = drained};

int method_watch(struct call *call, struct fault *reterr_fault)
{
    struct watching *w = calloc(1, sizeof(*w));
    int r;

    if (!w)
        return -ENOMEM;
    w->call = call;
    r = manager_watch(call_manager(call), on_changed, w, &w->watch);
    if (r < 0) {
        watching_free(w);
        return r;
    }
    call_begin(call, &ops, w);
    send(w, /* always= */ true);
    return 0;
}
