/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Values against types. The path of the member that is looked at grows and shrinks with the walk in a fixed buffer;
 * one that does not fit is cut, which costs a deep member its exact name and nothing else. The depth of the walk is
 * that of the value, which base/json.c bounded, and once more the limit here, so that a recursive type is harmless.
 */
#include "client/varlink/idl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"

enum {
    DEPTH_MAX = 64,
    PATH_BYTES_MAX = 192,
};

struct check {
    unsigned flags;
    struct fault *reterr;
    char path[PATH_BYTES_MAX];
    size_t path_n;
};

static int check_value(struct check *c, const struct idl_type *type, json_object *value, unsigned depth);

/* What snprintf() left in the buffer, without the half of a character that a cut may have left at its end. */
static void path_end(struct check *c)
{
    c->path_n = utf8_whole(c->path, strlen(c->path));
    c->path[c->path_n] = 0;
}

/* Both return the length before, for path_pop(). */
static size_t path_push_member(struct check *c, const char *name)
{
    size_t before = c->path_n;

    snprintf(c->path + before, sizeof(c->path) - before, "%s%s", before > 0 ? "." : "", name);
    path_end(c);
    return before;
}

static size_t path_push_index(struct check *c, size_t i)
{
    size_t before = c->path_n;

    snprintf(c->path + before, sizeof(c->path) - before, "[%zu]", i);
    path_end(c);
    return before;
}

static void path_pop(struct check *c, size_t before)
{
    c->path_n = before;
    c->path[before] = 0;
}

static int refuse(const struct check *c, const char *reason)
{
    fault_set(c->reterr, FAULT_INVALID_PARAMETER, c->path, "%s", reason);
    return -EINVAL;
}

static int check_int(const struct check *c, json_object *value)
{
    if (!json_object_is_type(value, json_type_int))
        return refuse(c, "an integer is expected");
    if (json_object_get_uint64(value) > (uint64_t)INT64_MAX)
        return refuse(c, "an integer of at most 64 bits with a sign is expected");
    return 0;
}

static int check_float(const struct check *c, json_object *value)
{
    double number;

    if (json_object_is_type(value, json_type_int))
        return 0;
    if (!json_object_is_type(value, json_type_double))
        return refuse(c, "a number is expected");
    number = json_object_get_double(value);
    if (!__builtin_isfinite(number))
        return refuse(c, "a finite number is expected");
    return 0;
}

static int check_enum(struct check *c, const struct idl_type *type, json_object *value)
{
    char reason[256] = "one of these is expected:";
    size_t n = strlen(reason);
    const char *text;

    if (!json_object_is_type(value, json_type_string))
        return refuse(c, "a string is expected");
    text = json_object_get_string(value);
    for (size_t i = 0; i < type->n_members; i++) {
        if (strcmp(type->members[i].name, text) == 0 &&
            strlen(text) == (size_t)json_object_get_string_len(value))
            return 0;
        if (n < sizeof(reason))
            n += (size_t)snprintf(reason + n, sizeof(reason) - n, " %s", type->members[i].name);
    }
    return refuse(c, reason);
}

static const struct idl_type *member_type(const struct idl_type *type, const char *name)
{
    for (size_t i = 0; i < type->n_members; i++)
        if (strcmp(type->members[i].name, name) == 0)
            return type->members[i].type;
    return NULL;
}

static int check_unknown(struct check *c, const struct idl_type *type, json_object *value)
{
    if (c->flags & IDL_ALLOW_UNKNOWN)
        return 0;
    json_object_object_foreach (value, key, member) {
        (void)member;
        if (!member_type(type, key)) {
            (void)path_push_member(c, key);
            return refuse(c, "unknown parameter");
        }
    }
    return 0;
}

static int check_struct(struct check *c, const struct idl_type *type, json_object *value, unsigned depth)
{
    int r;

    if (!json_object_is_type(value, json_type_object))
        return refuse(c, "an object is expected");
    r = check_unknown(c, type, value);
    if (r < 0)
        return r;
    for (size_t i = 0; i < type->n_members; i++) {
        const struct idl_member *member = &type->members[i];
        json_object *inner = NULL;
        bool is_there = json_object_object_get_ex(value, member->name, &inner);
        size_t before = path_push_member(c, member->name);

        if (inner) {
            r = check_value(c, member->type, inner, depth + 1);
            if (r < 0)
                return r;
        } else if (!member->type->nullable) {
            return refuse(c, "missing");
        } else if (is_there && (c->flags & IDL_DROP_NULLS)) {
            json_object_object_del(value, member->name);
        }
        path_pop(c, before);
    }
    return 0;
}

static int check_array(struct check *c, const struct idl_type *element, json_object *value, unsigned depth)
{
    size_t n;

    if (!json_object_is_type(value, json_type_array))
        return refuse(c, "an array is expected");
    n = json_object_array_length(value);
    for (size_t i = 0; i < n; i++) {
        size_t before = path_push_index(c, i);
        int r = check_value(c, element, json_object_array_get_idx(value, i), depth + 1);

        if (r < 0)
            return r;
        path_pop(c, before);
    }
    return 0;
}

static int check_map(struct check *c, const struct idl_type *element, json_object *value, unsigned depth)
{
    if (!json_object_is_type(value, json_type_object))
        return refuse(c, "an object is expected");
    json_object_object_foreach (value, key, inner) {
        size_t before = path_push_member(c, key);
        int r = check_value(c, element, inner, depth + 1);

        if (r < 0)
            return r;
        path_pop(c, before);
    }
    return 0;
}

static int check_value(struct check *c, const struct idl_type *type, json_object *value, unsigned depth)
{
    if (depth > DEPTH_MAX)
        return refuse(c, "less depth is expected");
    if (!value) /* JSON null, inside an array or a map */
        return type->nullable ? 0 : refuse(c, "null is not expected");
    switch (type->kind) {
    case IDL_BOOL:
        return json_object_is_type(value, json_type_boolean) ? 0 : refuse(c, "true or false is expected");
    case IDL_INT:
        return check_int(c, value);
    case IDL_FLOAT:
        return check_float(c, value);
    case IDL_STRING:
        return json_object_is_type(value, json_type_string) ? 0 : refuse(c, "a string is expected");
    case IDL_OBJECT:
        return json_object_is_type(value, json_type_object) ? 0 : refuse(c, "an object is expected");
    case IDL_ENUM:
        return check_enum(c, type, value);
    case IDL_STRUCT:
        return check_struct(c, type, value, depth);
    case IDL_NAMED:
        return check_value(c, type->target, value, depth);
    case IDL_ARRAY:
        return check_array(c, type->target, value, depth);
    case IDL_MAP:
        return check_map(c, type->target, value, depth);
    }
    return -EINVAL;
}

int idl_check(const struct idl_type *type, json_object *value, unsigned flags, struct fault *reterr)
{
    struct check c = {.flags = flags, .reterr = reterr};
    _cleanup_json_ json_object *empty = NULL;

    if (!value) {
        empty = json_object_new_object();
        if (!empty)
            return -ENOMEM;
        value = empty;
    }
    return check_struct(&c, type, value, 0);
}
