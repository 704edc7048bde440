/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The blocking functions: an ordinary call whose callback notes what came, and a loop of wait and process.
 */
#include <errno.h>

#include "base/cleanup.h"
#include "client/libresident/internal.h"

struct waiting {
    struct resident_call *call; /* NULL: it has ended */
    resident_piece_t piece;
    void *userdata;
    struct resident_reply *reply; /* the one reply of resident_call() */
    struct resident_error *error;
    int result;
};

static void note_error(struct waiting *w, const struct resident_error *error)
{
    if (resident_error_errno(error) < 0) {
        w->result = resident_error_errno(error);
        return;
    }
    w->result = error_new_take(error->name, json_object_get(error->parameters), &w->error);
    if (w->result == 0)
        w->result = RESIDENT_REFUSED;
}

static void on_answer(struct resident_call *call, const struct resident_reply *reply,
                      const struct resident_error *error, void *userdata)
{
    struct waiting *w = userdata;

    if (!reply) {
        w->call = NULL;
        note_error(w, error);
        return;
    }
    if (reply->last)
        w->call = NULL;
    if (!w->piece) {
        w->result = reply_dup(reply, &w->reply);
    } else if (w->piece(reply, w->userdata) != 0) {
        w->result = RESIDENT_STOPPED;
        w->call = resident_cancel(w->call);
    }
}

static int run(struct resident *r, struct waiting *w)
{
    while (w->call) {
        int k = resident_process(r);

        if (k == -EINVAL) {
            resident_cancel(w->call);
            return k; /* called from a callback of this connection */
        }
        if (!w->call)
            break;
        if (r->interrupted) {
            w->call = resident_cancel(w->call);
            w->result = RESIDENT_STOPPED;
            break;
        }
        if (k == 0)
            k = resident_wait(r, -1);
        if (k < 0 && w->call) {
            w->result = k;
            w->call = resident_cancel(w->call);
        }
    }
    r->interrupted = false;
    return w->result;
}

/* What was refused, or that the connection is lost, and what to do. */
static int end(const struct resident *r, struct waiting *w, int result, struct resident_error **reterr)
{
    if (result < 0 && result == r->lost && error_new_of_errno(result, &w->error) < 0)
        result = -ENOMEM;
    if (reterr && w->error)
        *reterr = TAKE_PTR(w->error);
    resident_reply_free(w->reply);
    resident_error_free(w->error);
    return result;
}

int resident_call(struct resident *r, const char *method, const char *parameters, struct resident_reply **ret,
                  struct resident_error **reterr)
{
    struct waiting w = {0};
    int k;

    k = resident_start(r, method, parameters, 0, on_answer, &w, &w.call);
    if (k < 0)
        return end(r, &w, k, reterr);
    k = run(r, &w);
    if (k == 0 && ret)
        *ret = TAKE_PTR(w.reply);
    return end(r, &w, k, reterr);
}

int resident_stream(struct resident *r, const char *method, const char *parameters, resident_piece_t piece,
                    void *userdata, struct resident_error **reterr)
{
    struct waiting w = {.piece = piece, .userdata = userdata};
    int k;

    if (!piece)
        return -EINVAL;
    k = resident_start(r, method, parameters, RESIDENT_MORE, on_answer, &w, &w.call);
    if (k == 0)
        k = run(r, &w);
    return end(r, &w, k, reterr);
}

const char *resident_version(void)
{
    return RESIDENTD_VERSION;
}
