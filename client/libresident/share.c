/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inference.Share as one call: the reply names descriptors by their numbers, in the order of the model's parts.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/json.h"
#include "client/libresident/internal.h"

static int make_parameters(const char *model, json_object **ret)
{
    _cleanup_json_ json_object *o = json_object_new_object();
    json_object *name = json_object_new_string(model);

    if (!o || !name || json_object_object_add(o, "model", name) < 0) {
        json_object_put(name);
        return -ENOMEM;
    }
    *ret = TAKE_PTR(o);
    return 0;
}

static int take_files(const struct resident_reply *reply, int **ret_fds, size_t *ret_n)
{
    int n = resident_reply_length(reply, "files"), i, k = 0;
    int *fds;

    if (n <= 0 || n > FRAME_FDS_SENT_MAX)
        return -EBADMSG;
    fds = calloc((size_t)n, sizeof(*fds));
    if (!fds)
        return -ENOMEM;
    for (i = 0; k >= 0 && i < n; i++) {
        char path[32];
        int64_t number;

        snprintf(path, sizeof(path), "files/%d", i);
        if (resident_reply_int(reply, path, &number) < 0 || number < 0 || number >= FRAME_FDS_SENT_MAX)
            k = -EBADMSG;
        else
            k = resident_reply_fd(reply, (unsigned)number);
        fds[i] = k;
    }
    if (k >= 0) {
        *ret_fds = fds;
        *ret_n = (size_t)n;
        return 0;
    }
    while (i-- > 0) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
    free(fds);
    return k == -ENOENT ? -EBADMSG : k;
}

int resident_share(struct resident *r, const char *model, int **ret_fds, size_t *ret_n,
                   struct resident_error **reterr)
{
    _cleanup_json_ json_object *parameters = NULL;
    struct resident_reply *reply = NULL;
    const char *text;
    int k;

    if (!model || !ret_fds || !ret_n)
        return -EINVAL;
    k = make_parameters(model, &parameters);
    if (k < 0)
        return k;
    text = json_text(parameters);
    if (!text)
        return -ENOMEM;
    k = resident_call(r, RESIDENT_INFERENCE "Share", text, &reply, reterr);
    if (k == 0)
        k = take_files(reply, ret_fds, ret_n);
    resident_reply_free(reply);
    return k;
}
