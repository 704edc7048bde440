/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One table maps each kind of fault to its varlink error and to the parameters that this error carries; conversion to
 * and from JSON walks the table, so a new kind is one row (and a line in describe()).
 */
#include "base/fault.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/utf8.h"

enum field_type { FIELD_NONE, FIELD_TEXT, FIELD_I64, FIELD_U64, FIELD_U32, FIELD_JSON };

/* A nullable field is left out when it is "" or negative, as the interface's `?` allows. */
struct field {
    const char *name;
    enum field_type type;
    size_t at, size;
    bool nullable;
};

#define TEXT(n, m) {n, FIELD_TEXT, offsetof(struct fault, m), sizeof(((struct fault *)0)->m), false}
#define TEXT_OR_NULL(n, m) {n, FIELD_TEXT, offsetof(struct fault, m), sizeof(((struct fault *)0)->m), true}
#define I64(n, m) {n, FIELD_I64, offsetof(struct fault, m), 8, false}
#define I64_OR_NULL(n, m) {n, FIELD_I64, offsetof(struct fault, m), 8, true}
#define U64(n, m) {n, FIELD_U64, offsetof(struct fault, m), 8, false}
#define U32(n, m) {n, FIELD_U32, offsetof(struct fault, m), 4, false}
#define JSON(n, m) {n, FIELD_JSON, offsetof(struct fault, m), sizeof(((struct fault *)0)->m), false}

enum { FIELDS_MAX = 5 };

static const struct {
    const char *error;
    struct field fields[FIELDS_MAX];
} rows[FAULT_KIND_MAX] = {
    [FAULT_NO_SUCH_MODEL] = {"io.residentd.NoSuchModel", {TEXT("model", subject)}},
    [FAULT_NOT_ALLOWED] = {"io.residentd.NotAllowed", {TEXT_OR_NULL("model", subject), TEXT("reason", reason)}},
    [FAULT_QUOTA_EXCEEDED] = {"io.residentd.QuotaExceeded",
                              {TEXT("quota", subject), I64("limit", limit), I64("used", used),
                               I64_OR_NULL("retry_after_ms", retry_after_ms)}},
    [FAULT_QUEUE_FULL] = {"io.residentd.QueueFull",
                          {I64("limit", limit), I64_OR_NULL("retry_after_ms", retry_after_ms)}},
    [FAULT_CONTEXT_TOO_LONG] = {"io.residentd.ContextTooLong", {I64("limit", limit), I64("given", used)}},
    [FAULT_INSUFFICIENT_MEMORY] = {"io.residentd.InsufficientMemory",
                                   {TEXT("kind", subject), I64("needed", used), I64("available", limit),
                                    JSON("suggestions", suggestions)}},
    [FAULT_MODEL_INVALID] = {"io.residentd.ModelInvalid",
                             {TEXT("model", subject), TEXT("reason", reason), I64_OR_NULL("offset", offset)}},
    [FAULT_MODEL_UNAVAILABLE] = {"io.residentd.ModelUnavailable",
                                 {TEXT("model", subject), TEXT("reason", reason),
                                  I64_OR_NULL("retry_after_ms", retry_after_ms)}},
    [FAULT_POLICY_INVALID] = {"io.residentd.PolicyInvalid",
                              {TEXT("file", file), U32("line", line), U32("column", column),
                               TEXT_OR_NULL("key", subject), TEXT("expected", reason)}},
    [FAULT_NO_SUCH_REQUEST] = {"io.residentd.NoSuchRequest", {U64("request", request)}},
    [FAULT_CANCELLED] = {"io.residentd.Cancelled", {TEXT("reason", reason)}},
    [FAULT_SHUTTING_DOWN] = {"io.residentd.ShuttingDown", {I64_OR_NULL("retry_after_ms", retry_after_ms)}},
    [FAULT_INVALID_PARAMETER] = {"org.varlink.service.InvalidParameter",
                                 {TEXT("parameter", subject), TEXT_OR_NULL("reason", reason)}},
    [FAULT_METHOD_NOT_FOUND] = {"org.varlink.service.MethodNotFound", {TEXT("method", subject)}},
    [FAULT_METHOD_NOT_IMPLEMENTED] = {"org.varlink.service.MethodNotImplemented", {TEXT("method", subject)}},
    [FAULT_INTERFACE_NOT_FOUND] = {"org.varlink.service.InterfaceNotFound", {TEXT("interface", subject)}},
    [FAULT_EXPECTED_MORE] = {"org.varlink.service.ExpectedMore", {{NULL, FIELD_NONE, 0, 0, false}}},
};

static void copy_text(char *to, size_t size, const char *from)
{
    size_t n = strlen(from);

    if (n >= size)
        n = utf8_cut(from, size - 1);
    memcpy(to, from, n);
    to[n] = 0;
}

void fault_init(struct fault *f, enum fault_kind kind, const char *subject)
{
    if (!f)
        return;
    *f = (struct fault){.kind = kind, .offset = FAULT_NO_OFFSET, .retry_after_ms = FAULT_NO_RETRY};
    if (subject)
        copy_text(f->subject, sizeof(f->subject), subject);
}

__attribute__((format(printf, 2, 0))) static void set_reason(struct fault *f, const char *format, va_list ap)
{
    char text[2 * sizeof(f->reason)];

    vsnprintf(text, sizeof(text), format, ap);
    copy_text(f->reason, sizeof(f->reason), text);
}

void fault_set(struct fault *f, enum fault_kind kind, const char *subject, const char *format, ...)
{
    va_list ap;

    if (!f)
        return;
    fault_init(f, kind, subject);
    va_start(ap, format);
    set_reason(f, format, ap);
    va_end(ap);
}

void fault_model_invalid(struct fault *f, int64_t offset, const char *format, ...)
{
    va_list ap;

    if (!f)
        return;
    fault_init(f, FAULT_MODEL_INVALID, NULL);
    f->offset = offset;
    va_start(ap, format);
    set_reason(f, format, ap);
    va_end(ap);
}

void fault_subject(struct fault *f, const char *subject)
{
    if (f)
        copy_text(f->subject, sizeof(f->subject), subject);
}

const char *fault_error_name(enum fault_kind kind)
{
    return kind < FAULT_KIND_MAX ? rows[kind].error : NULL;
}

static json_object *field_to_json(const struct fault *f, const struct field *field)
{
    const char *at = (const char *)f + field->at;
    int64_t i64;
    uint64_t u64;
    uint32_t u32;

    switch (field->type) {
    case FIELD_TEXT:
        return json_object_new_string(at);
    case FIELD_I64:
        memcpy(&i64, at, sizeof(i64));
        return json_object_new_int64(i64);
    case FIELD_U64:
        memcpy(&u64, at, sizeof(u64));
        return json_object_new_uint64(u64);
    case FIELD_U32:
        memcpy(&u32, at, sizeof(u32));
        return json_object_new_int64(u32);
    case FIELD_JSON:
        return *at ? json_tokener_parse(at) : json_object_new_array();
    case FIELD_NONE:
        break;
    }
    return NULL;
}

static bool field_is_absent(const struct fault *f, const struct field *field)
{
    const char *at = (const char *)f + field->at;
    int64_t i64;

    if (!field->nullable)
        return false;
    if (field->type == FIELD_TEXT)
        return *at == 0;
    memcpy(&i64, at, sizeof(i64));
    return i64 < 0;
}

static void json_putp(json_object **o)
{
    json_object_put(*o);
}

int fault_to_json(const struct fault *f, struct json_object **ret)
{
    _cleanup_(json_putp) json_object *object = json_object_new_object();

    if (!object)
        return -ENOMEM;
    for (size_t i = 0; i < FIELDS_MAX && rows[f->kind].fields[i].name; i++) {
        const struct field *field = &rows[f->kind].fields[i];
        json_object *value;

        if (field_is_absent(f, field))
            continue;
        value = field_to_json(f, field);
        if (!value)
            return -ENOMEM;
        if (json_object_object_add(object, field->name, value) < 0) {
            json_object_put(value);
            return -ENOMEM;
        }
    }
    *ret = TAKE_PTR(object);
    return 0;
}

static void field_from_json(struct fault *f, const struct field *field, json_object *value)
{
    char *at = (char *)f + field->at;
    int64_t i64 = json_object_get_int64(value);
    uint32_t u32 = (uint32_t)i64;

    switch (field->type) {
    case FIELD_TEXT:
        copy_text(at, field->size, json_object_get_string(value));
        break;
    case FIELD_JSON:
        copy_text(at, field->size, json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN));
        break;
    case FIELD_I64:
    case FIELD_U64:
        memcpy(at, &i64, sizeof(i64));
        break;
    case FIELD_U32:
        memcpy(at, &u32, sizeof(u32));
        break;
    case FIELD_NONE:
        break;
    }
}

int fault_from_json(const char *error_name, struct json_object *parameters, struct fault *ret)
{
    for (enum fault_kind kind = 1; kind < FAULT_KIND_MAX; kind++) {
        if (strcmp(rows[kind].error, error_name) != 0)
            continue;
        fault_init(ret, kind, NULL);
        for (size_t i = 0; i < FIELDS_MAX && rows[kind].fields[i].name; i++) {
            json_object *value = NULL;

            if (json_object_object_get_ex(parameters, rows[kind].fields[i].name, &value) && value)
                field_from_json(ret, &rows[kind].fields[i], value);
        }
        return 0;
    }
    return -ENOENT;
}

const char *fault_describe(const struct fault *f, char *buffer, size_t size)
{
    const char *sep = f->subject[0] ? ": " : "";

    switch (f->kind) {
    case FAULT_NO_SUCH_MODEL:
        snprintf(buffer, size, "no model named \"%s\"", f->subject);
        break;
    case FAULT_NOT_ALLOWED:
        snprintf(buffer, size, "not allowed%s%s (%s)", f->subject[0] ? " to use model " : "", f->subject, f->reason);
        break;
    case FAULT_QUOTA_EXCEEDED:
        snprintf(buffer, size, "quota %s exceeded: %" PRId64 " of %" PRId64 " used", f->subject, f->used, f->limit);
        break;
    case FAULT_QUEUE_FULL:
        snprintf(buffer, size, "queue full: %" PRId64 " requests are waiting already", f->limit);
        break;
    case FAULT_CONTEXT_TOO_LONG:
        snprintf(buffer, size, "too long: %" PRId64 " tokens asked for, the limit is %" PRId64, f->used, f->limit);
        break;
    case FAULT_INSUFFICIENT_MEMORY:
        snprintf(buffer, size, "not enough %s memory: %" PRId64 " bytes needed, %" PRId64 " available", f->subject,
                 f->used, f->limit);
        break;
    case FAULT_MODEL_INVALID:
        if (f->offset >= 0)
            snprintf(buffer, size, "model %s is invalid at offset %" PRId64 ": %s", f->subject, f->offset, f->reason);
        else
            snprintf(buffer, size, "model %s is invalid: %s", f->subject, f->reason);
        break;
    case FAULT_MODEL_UNAVAILABLE:
        snprintf(buffer, size, "model %s is unavailable: %s", f->subject, f->reason);
        break;
    case FAULT_POLICY_INVALID:
        snprintf(buffer, size, "%s:%" PRIu32 ":%" PRIu32 ": %s%sexpected %s", f->file, f->line, f->column, f->subject,
                 sep, f->reason);
        break;
    case FAULT_NO_SUCH_REQUEST:
        snprintf(buffer, size, "no request %" PRIu64, f->request);
        break;
    case FAULT_CANCELLED:
        snprintf(buffer, size, "cancelled: %s", f->reason);
        break;
    case FAULT_SHUTTING_DOWN:
        snprintf(buffer, size, "the service is stopping or being restarted; what you asked for was not "
                 "finished: ask again in a moment");
        break;
    case FAULT_INVALID_PARAMETER:
        snprintf(buffer, size, "invalid parameter \"%s\"%s%s", f->subject, f->reason[0] ? ": " : "", f->reason);
        break;
    case FAULT_METHOD_NOT_FOUND:
        snprintf(buffer, size, "no method %s", f->subject);
        break;
    case FAULT_METHOD_NOT_IMPLEMENTED:
        snprintf(buffer, size, "method %s is not implemented", f->subject);
        break;
    case FAULT_INTERFACE_NOT_FOUND:
        snprintf(buffer, size, "no interface %s", f->subject);
        break;
    case FAULT_EXPECTED_MORE:
        snprintf(buffer, size, "the method has to be called with \"more\"");
        break;
    case FAULT_NONE:
    case FAULT_KIND_MAX:
        snprintf(buffer, size, "no error");
        break;
    }
    return buffer;
}
