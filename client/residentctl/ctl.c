/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What verbs have in common.
 */
#include "client/residentctl/ctl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "client/residentctl/print.h"

enum { READ_BYTES_MAX = 16 * 1024 * 1024 /* a call can't be larger */ };

static const char *socket_of(const struct ctl *ctl)
{
    const char *from_environment = secure_getenv("RESIDENTD_SOCKET");

    if (ctl->socket)
        return ctl->socket;
    return from_environment && *from_environment ? from_environment : RESIDENT_SOCKET;
}

int ctl_connect(struct ctl *ctl)
{
    int r;

    if (ctl->connection)
        return STATUS_DONE;
    r = resident_connect(ctl->socket, &ctl->connection);
    if (r == 0)
        return STATUS_DONE;
    fprintf(stderr, "residentctl: can't connect to %s: %s%s\n", socket_of(ctl), strerror(-r),
            r == -ENOENT || r == -ECONNREFUSED ? " (is residentd running?)" : "");
    return STATUS_FAILED;
}

int ctl_usage(const struct verb *verb, const char *format, ...)
{
    va_list ap;

    if (format) {
        va_start(ap, format);
        fprintf(stderr, "residentctl %s: ", verb->name);
        vfprintf(stderr, format, ap);
        fputc('\n', stderr);
        va_end(ap);
    }
    fprintf(stderr, "usage: residentctl %s %s\n", verb->name, verb->arguments);
    return STATUS_USAGE;
}

int ctl_no_memory(void)
{
    fputs("residentctl: out of memory\n", stderr);
    return STATUS_FAILED;
}

int ctl_report(const struct ctl *ctl, int result, const struct resident_error *error)
{
    if (result == 0)
        return STATUS_DONE;
    if (result == RESIDENT_STOPPED)
        return STATUS_INTERRUPTED;
    if (result == RESIDENT_REFUSED && error) {
        const char *name = resident_error_name(error), *description = resident_error_description(error);

        fputs("residentctl: ", stderr);
        print_text(stderr, name, strlen(name), /* harmless= */ true);
        fputs(": ", stderr);
        print_text(stderr, description, strlen(description), /* harmless= */ true);
        fputc('\n', stderr);
        return STATUS_FAILED;
    }
    fprintf(stderr, "residentctl: %s: %s\n", socket_of(ctl),
            error ? resident_error_description(error) : strerror(-result));
    return STATUS_FAILED;
}

static int parse_reply(const struct resident_reply *reply, json_object **ret)
{
    static const struct json_limits limits = {
        .bytes_max = READ_BYTES_MAX, .depth_max = 64, .values_max = 4 * 1024 * 1024};
    const char *text = resident_reply_json(reply);

    return json_parse(text, strlen(text), &limits, ret, NULL, NULL);
}

int ctl_call(struct ctl *ctl, const char *method, json_object *parameters_take, json_object **ret)
{
    _cleanup_json_ json_object *parameters = parameters_take;
    struct resident_reply *reply = NULL;
    struct resident_error *error = NULL;
    const char *text = parameters ? json_text(parameters) : "{}";
    int r, status;

    if (ret)
        *ret = NULL;
    if (!text)
        return ctl_no_memory();
    status = ctl_connect(ctl);
    if (status != STATUS_DONE)
        return status;
    r = resident_call(ctl->connection, method, text, &reply, &error);
    status = ctl_report(ctl, r, error);
    if (status == STATUS_DONE && ctl->json)
        print_json(stdout, resident_reply_json(reply), ctl->is_terminal);
    else if (status == STATUS_DONE && ret && parse_reply(reply, ret) < 0)
        status = ctl_no_memory();
    resident_error_free(error);
    resident_reply_free(reply);
    return status;
}

int ctl_simple(struct ctl *ctl, const struct verb *verb, int argc, char **argv, const char *method,
               const char *name)
{
    json_object *parameters;

    if (argc != 2 || argv[1][0] == '-')
        return ctl_usage(verb, "exactly one argument is expected");
    parameters = json_object_new_object();
    if (!parameters || !put(parameters, name, json_object_new_string(argv[1]))) {
        json_object_put(parameters);
        return ctl_no_memory();
    }
    return ctl_call(ctl, method, parameters, NULL);
}

int ctl_read_all(const char *path, char **ret, size_t *ret_n)
{
    _cleanup_fclose_ FILE *opened = strcmp(path, "-") == 0 ? NULL : fopen(path, "re");
    FILE *f = strcmp(path, "-") == 0 ? stdin : opened;
    _cleanup_free_ char *text = NULL;
    size_t n = 0, n_room = 0;

    if (!f) {
        fprintf(stderr, "residentctl: %s: %s\n", path, strerror(errno));
        return STATUS_FAILED;
    }
    do {
        if (n_room - n < 2) {
            char *larger = realloc(text, 2 * n_room + 4096);

            if (!larger)
                return ctl_no_memory();
            text = larger;
            n_room = 2 * n_room + 4096;
        }
        n += fread(text + n, 1, n_room - n - 1, f);
    } while (!feof(f) && !ferror(f) && n <= READ_BYTES_MAX);
    if (ferror(f) || n > READ_BYTES_MAX) {
        fprintf(stderr, "residentctl: %s: %s\n", path, ferror(f) ? "can't be read" : "more than 16 MiB");
        return STATUS_FAILED;
    }
    text[n] = 0;
    *ret = TAKE_PTR(text);
    *ret_n = n;
    return STATUS_DONE;
}

bool parse_int(const char *text, int64_t min, int64_t max, int64_t *ret)
{
    char *end = NULL;
    long long value;

    if (!(*text == '-' || (*text >= '0' && *text <= '9')))
        return false;
    errno = 0;
    value = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != 0 || value < min || value > max)
        return false;
    *ret = value;
    return true;
}

bool parse_double(const char *text, double *ret)
{
    char *end = NULL;
    double value;

    if (!(*text == '-' || *text == '.' || (*text >= '0' && *text <= '9')))
        return false;
    value = strtod(text, &end);
    if (end == text || *end != 0 || !__builtin_isfinite(value))
        return false;
    *ret = value;
    return true;
}

const char *get_text(json_object *object, const char *name)
{
    json_object *value = NULL;

    if (!json_object_object_get_ex(object, name, &value) || !json_object_is_type(value, json_type_string))
        return NULL;
    return json_object_get_string(value);
}

int64_t get_int(json_object *object, const char *name)
{
    json_object *value = NULL;

    if (!json_object_object_get_ex(object, name, &value) || !json_object_is_type(value, json_type_int))
        return -1;
    return json_object_get_int64(value);
}

json_object *get_array(json_object *object, const char *name)
{
    json_object *value = NULL;

    if (!json_object_object_get_ex(object, name, &value) || !json_object_is_type(value, json_type_array))
        return NULL;
    return value;
}

size_t length_of(json_object *array)
{
    return array ? json_object_array_length(array) : 0;
}

bool put(json_object *object, const char *name, json_object *value)
{
    if (!value)
        return false;
    if (json_object_object_add(object, name, value) == 0)
        return true;
    json_object_put(value);
    return false;
}
