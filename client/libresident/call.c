/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Calls and their answers. The list's first call is the one that frames from the service belong to.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "client/libresident/internal.h"

enum { REPLY_DEPTH_MAX = 64, REPLY_VALUES_MAX = 4 * 1024 * 1024, PARAMETERS_VALUES_MAX = 1024 * 1024 };

static void call_free(struct resident_call *call)
{
    if (!call)
        return;
    if (call->frame)
        explicit_bzero(call->frame, call->n_frame);
    for (size_t i = 0; i < call->n_fds; i++)
        close(call->fds[i]);
    free(call->frame);
    free(call);
}

DEFINE_CLEANUP(struct resident_call *, call_free)

static int parse_parameters(const char *text, json_object **ret)
{
    static const struct json_limits limits = {
        .bytes_max = FRAME_BYTES_MAX, .depth_max = REPLY_DEPTH_MAX, .values_max = PARAMETERS_VALUES_MAX};
    _cleanup_json_ json_object *value = NULL;
    int k;

    if (!text) {
        *ret = json_object_new_object();
        return *ret ? 0 : -ENOMEM;
    }
    k = json_parse(text, strlen(text), &limits, &value, NULL, NULL);
    if (k < 0)
        return k == -E2BIG ? -EMSGSIZE : k;
    if (!json_object_is_type(value, json_type_object))
        return -EINVAL;
    *ret = TAKE_PTR(value);
    return 0;
}

static bool add(json_object *object, const char *name, json_object *value)
{
    if (!value)
        return false;
    if (json_object_object_add(object, name, value) == 0)
        return true;
    json_object_put(value);
    return false;
}

static int make_frame(struct resident_call *call, const char *method, const char *parameters)
{
    _cleanup_json_ json_object *message = json_object_new_object(), *value = NULL;
    const char *text;
    int k;

    k = parse_parameters(parameters, &value);
    if (k < 0)
        return k;
    if (!message || !add(message, "method", json_object_new_string(method)) ||
        !add(message, "parameters", TAKE_PTR(value)))
        return -ENOMEM;
    if ((call->flags & RESIDENT_MORE) && !add(message, "more", json_object_new_boolean(true)))
        return -ENOMEM;
    if ((call->flags & RESIDENT_ONEWAY) && !add(message, "oneway", json_object_new_boolean(true)))
        return -ENOMEM;
    text = json_text(message);
    if (!text)
        return -ENOMEM;
    call->n_frame = strlen(text);
    if (call->n_frame > FRAME_BYTES_MAX)
        return -EMSGSIZE;
    call->frame = strdup(text);
    return call->frame ? 0 : -ENOMEM;
}

int resident_attach_fd(struct resident *r, int fd)
{
    int copy;

    if (r->n_fds == FRAME_FDS_MAX)
        return -EMFILE;
    copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0)
        return -errno;
    r->fds[r->n_fds] = copy;
    return (int)r->n_fds++;
}

static void take_fds(struct resident *r, struct resident_call *call)
{
    memcpy(call->fds, r->fds, sizeof(r->fds));
    call->n_fds = r->n_fds;
    r->n_fds = 0;
}

int resident_start(struct resident *r, const char *method, const char *parameters, unsigned flags,
                   resident_callback_t callback, void *userdata, struct resident_call **ret)
{
    _cleanup_(call_freep) struct resident_call *call = NULL;
    int k;

    if (!method || flags & ~(unsigned)(RESIDENT_MORE | RESIDENT_ONEWAY) ||
        (!callback && !(flags & RESIDENT_ONEWAY)) || flags == (RESIDENT_MORE | RESIDENT_ONEWAY))
        return -EINVAL;
    if (r->lost < 0)
        return r->lost;
    k = connection_renew(r);
    if (k < 0)
        return k;
    call = calloc(1, sizeof(*call));
    if (!call)
        return -ENOMEM;
    *call =
        (struct resident_call){.connection = r, .flags = flags, .callback = callback, .userdata = userdata};
    take_fds(r, call);
    k = make_frame(call, method, parameters);
    if (k < 0)
        return k;
    if (r->last)
        r->last->next = call;
    else
        r->first = call;
    r->last = call;
    if (ret)
        *ret = call;
    call = NULL;
    connection_send(r);
    return 0;
}

static struct resident_call *unlink_first(struct resident *r)
{
    struct resident_call *call = r->first;

    r->first = call->next;
    if (!r->first)
        r->last = NULL;
    return call;
}

void call_end_oneway(struct resident *r)
{
    call_free(unlink_first(r));
}

void call_lose_first(struct resident *r, int error)
{
    struct resident_call *call = unlink_first(r);
    struct resident_error lost;

    error_of_errno(error, &lost);
    if (call->callback && !(call->flags & RESIDENT_ONEWAY))
        call->callback(call, NULL, &lost, call->userdata);
    call_free(call);
}

struct resident_call *resident_cancel(struct resident_call *call)
{
    struct resident_call **at, *before = NULL;
    bool is_on_wire;
    struct resident *r;

    if (!call)
        return NULL;
    r = call->connection;
    for (at = &r->first; *at && *at != call; at = &(*at)->next)
        before = *at;
    if (!*at) {
        /* The call whose last callback runs right now: it is out of the list already and ends with the callback. */
        return NULL;
    }
    is_on_wire = call == r->first && !call->frame;
    *at = call->next;
    if (r->last == call)
        r->last = before;
    call_free(call);
    if (is_on_wire && r->lost == 0) {
        int k = connection_open(r);

        if (k < 0)
            connection_mark_lost(r, k);
        else
            connection_send(r);
    }
    return NULL;
}

/* An answer: out of the list first, so that the callback may start and cancel what it likes. */
static void answer(struct resident *r, const struct resident_reply *reply, const struct resident_error *error)
{
    struct resident_call *call = r->first;

    if (reply && !reply->last) {
        call->callback(call, reply, NULL, call->userdata);
        return; /* the callback may have cancelled the call */
    }
    (void)unlink_first(r);
    call->callback(call, reply, error, call->userdata);
    call_free(call);
}

int call_handle_frame(struct resident *r, const char *text, size_t n)
{
    static const struct json_limits limits = {
        .bytes_max = FRAME_BYTES_MAX, .depth_max = REPLY_DEPTH_MAX, .values_max = REPLY_VALUES_MAX};
    _cleanup_json_ json_object *message = NULL;
    json_object *name = NULL, *parameters = NULL, *continues = NULL;
    struct resident_reply *reply = NULL;
    struct resident_error *error = NULL;
    int k;

    k = json_parse(text, n, &limits, &message, NULL, NULL);
    if (k < 0)
        return k == -ENOMEM ? k : -EBADMSG;
    if (!r->first || r->first->frame || (r->first->flags & RESIDENT_ONEWAY) ||
        !json_object_is_type(message, json_type_object))
        return -EBADMSG; /* an answer that nobody asked for */
    (void)json_object_object_get_ex(message, "parameters", &parameters);
    if (parameters && !json_object_is_type(parameters, json_type_object))
        return -EBADMSG;
    if (json_object_object_get_ex(message, "error", &name)) {
        if (!json_object_is_type(name, json_type_string))
            return -EBADMSG;
        k = error_new_take(json_object_get_string(name), json_object_get(parameters), &error);
    } else {
        bool last = !json_object_object_get_ex(message, "continues", &continues) ||
                    !json_object_get_boolean(continues);

        if (!last && !(r->first->flags & RESIDENT_MORE))
            return -EBADMSG;
        k = reply_new_take(json_object_get(parameters), last, &reply);
        /* Descriptors go with the last answer to a call, and may be here before the ones in front of it are read. */
        if (k == 0 && last)
            reply->n_fds = frame_reader_take_fds(&r->in, &reply->fds);
    }
    if (k < 0)
        return k;
    answer(r, reply, error);
    resident_reply_free(reply);
    resident_error_free(error);
    return 0;
}
