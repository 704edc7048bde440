/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the service said, and looking into it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/json.h"
#include "client/libresident/internal.h"

int reply_new_take(json_object *parameters, bool last, struct resident_reply **ret)
{
    struct resident_reply *reply = calloc(1, sizeof(*reply));

    if (!parameters)
        parameters = json_object_new_object();
    if (!reply || !parameters) {
        free(reply);
        json_object_put(parameters);
        return -ENOMEM;
    }
    reply->parameters = parameters;
    reply->last = last;
    *ret = reply;
    return 0;
}

int reply_dup(const struct resident_reply *reply, struct resident_reply **ret)
{
    struct resident_reply *copy = NULL;
    int k = reply_new_take(json_object_get(reply->parameters), reply->last, &copy);

    if (k < 0)
        return k;
    copy->fds = calloc(reply->n_fds ? reply->n_fds : 1, sizeof(*copy->fds));
    if (!copy->fds)
        k = -ENOMEM;
    for (size_t i = 0; k >= 0 && i < reply->n_fds; i++) {
        k = resident_reply_fd(reply, (unsigned)i);
        if (k >= 0)
            copy->fds[copy->n_fds++] = k;
    }
    if (k < 0) {
        resident_reply_free(copy);
        return k;
    }
    *ret = copy;
    return 0;
}

struct resident_reply *resident_reply_free(struct resident_reply *reply)
{
    if (!reply)
        return NULL;
    for (size_t i = 0; i < reply->n_fds; i++)
        close(reply->fds[i]);
    free(reply->fds);
    json_object_put(reply->parameters);
    free(reply);
    return NULL;
}

const char *resident_reply_json(const struct resident_reply *reply)
{
    const char *text = json_text(reply->parameters);

    return text ? text : "{}";
}

int resident_reply_fd(const struct resident_reply *reply, unsigned i)
{
    int fd;

    if (i >= reply->n_fds)
        return -ENOENT;
    fd = fcntl(reply->fds[i], F_DUPFD_CLOEXEC, 0);
    return fd < 0 ? -errno : fd;
}

int resident_reply_is_last(const struct resident_reply *reply)
{
    return reply->last;
}

/* An index without sign, spaces or needless zeros; -1 for anything else. */
static int64_t index_of(const char *text, size_t n)
{
    int64_t index = 0;

    if (n == 0 || n > 9)
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        index = 10 * index + (text[i] - '0');
    }
    return index;
}

static json_object *member_of(json_object *value, const char *name, size_t n)
{
    json_object_object_foreach (value, key, inner) {
        if (strlen(key) == n && memcmp(key, name, n) == 0)
            return inner;
    }
    return NULL;
}

static json_object *find(json_object *value, const char *path)
{
    while (value && path && *path) {
        size_t n = strcspn(path, "/");

        if (json_object_is_type(value, json_type_object)) {
            value = member_of(value, path, n);
        } else if (json_object_is_type(value, json_type_array)) {
            int64_t index = index_of(path, n);

            value = index < 0 ? NULL : json_object_array_get_idx(value, (size_t)index);
        } else {
            return NULL;
        }
        path += n + (path[n] == '/');
    }
    return value;
}

const char *resident_reply_text(const struct resident_reply *reply, const char *path, size_t *ret_n)
{
    json_object *value = find(reply->parameters, path);

    if (!json_object_is_type(value, json_type_string))
        return NULL;
    if (ret_n)
        *ret_n = (size_t)json_object_get_string_len(value);
    return json_object_get_string(value);
}

int resident_reply_int(const struct resident_reply *reply, const char *path, int64_t *ret)
{
    json_object *value = find(reply->parameters, path);

    if (!json_object_is_type(value, json_type_int))
        return -ENOENT;
    *ret = json_object_get_int64(value);
    return 0;
}

int resident_reply_double(const struct resident_reply *reply, const char *path, double *ret)
{
    json_object *value = find(reply->parameters, path);

    if (!json_object_is_type(value, json_type_double) && !json_object_is_type(value, json_type_int))
        return -ENOENT;
    *ret = json_object_get_double(value);
    return 0;
}

int resident_reply_bool(const struct resident_reply *reply, const char *path, int *ret)
{
    json_object *value = find(reply->parameters, path);

    if (!json_object_is_type(value, json_type_boolean))
        return -ENOENT;
    *ret = json_object_get_boolean(value);
    return 0;
}

int resident_reply_length(const struct resident_reply *reply, const char *path)
{
    json_object *value = find(reply->parameters, path);

    return json_object_is_type(value, json_type_array) ? (int)json_object_array_length(value) : -ENOENT;
}

/* ---- errors ---- */

/* Errors of residentd and of varlink have a sentence; one of a later version has at least its name and parameters. */
static void describe(struct resident_error *error)
{
    struct fault fault;

    if (fault_from_json(error->name, error->parameters, &fault) == 0)
        fault_describe(&fault, error->description, sizeof(error->description));
    else
        snprintf(error->description, sizeof(error->description), "the service answered %s %s", error->name,
                 resident_error_parameters(error));
}

int error_new_take(const char *name, json_object *parameters, struct resident_error **ret)
{
    struct resident_error *error = calloc(1, sizeof(*error));

    if (error)
        error->name = strdup(name);
    if (!error || !error->name) {
        free(error);
        json_object_put(parameters);
        return -ENOMEM;
    }
    error->parameters = parameters;
    describe(error);
    *ret = error;
    return 0;
}

void error_of_errno(int error, struct resident_error *ret)
{
    *ret = (struct resident_error){.error = error};
    if (error == -ECONNRESET)
        snprintf(ret->description, sizeof(ret->description),
                 "the service went away before it had answered (it was stopped or has crashed): ask again in a moment");
    else if (error == -EBADMSG)
        snprintf(ret->description, sizeof(ret->description), "the service does not speak varlink");
    else
        snprintf(ret->description, sizeof(ret->description), "the connection is lost (%s)",
                 strerrorname_np(-error) ? strerrorname_np(-error) : "no known error");
}

int error_new_of_errno(int error, struct resident_error **ret)
{
    struct resident_error *e = calloc(1, sizeof(*e));

    if (!e)
        return -ENOMEM;
    error_of_errno(error, e);
    *ret = e;
    return 0;
}

const char *resident_error_name(const struct resident_error *error)
{
    return error->name ? error->name : "";
}

int resident_error_errno(const struct resident_error *error)
{
    return error->error;
}

const char *resident_error_parameters(const struct resident_error *error)
{
    const char *text = error->parameters ? json_text(error->parameters) : NULL;

    return text ? text : "{}";
}

const char *resident_error_text(const struct resident_error *error, const char *name)
{
    json_object *value = find(error->parameters, name);

    return json_object_is_type(value, json_type_string) ? json_object_get_string(value) : NULL;
}

int resident_error_int(const struct resident_error *error, const char *name, int64_t *ret)
{
    json_object *value = find(error->parameters, name);

    if (!json_object_is_type(value, json_type_int))
        return -ENOENT;
    *ret = json_object_get_int64(value);
    return 0;
}

const char *resident_error_description(const struct resident_error *error)
{
    return error->description;
}

struct resident_error *resident_error_free(struct resident_error *error)
{
    if (!error)
        return NULL;
    free(error->name);
    json_object_put(error->parameters);
    free(error);
    return NULL;
}
