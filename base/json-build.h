/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Building JSON objects. Each helper adds one member and says whether that worked, so that an object is one chain of
 * && and a lack of memory anywhere makes the whole of it fail. A member that is not known is left out with add_*_if().
 */

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

/* @value is taken; NULL (it could not be made) fails. */
static inline bool add_take(json_object *object, const char *name, json_object *value)
{
    if (!value)
        return false;
    if (json_object_object_add(object, name, value) < 0) {
        json_object_put(value);
        return false;
    }
    return true;
}

static inline bool append_take(json_object *array, json_object *value)
{
    if (!value)
        return false;
    if (json_object_array_add(array, value) < 0) {
        json_object_put(value);
        return false;
    }
    return true;
}

static inline bool add_int(json_object *object, const char *name, int64_t value)
{
    return add_take(object, name, json_object_new_int64(value));
}

/* Counters that grow without a sign; varlink's int has one. */
static inline bool add_count(json_object *object, const char *name, uint64_t value)
{
    return add_int(object, name, value > INT64_MAX ? INT64_MAX : (int64_t)value);
}

static inline bool add_count_if(json_object *object, bool is_known, const char *name, uint64_t value)
{
    return !is_known || add_count(object, name, value);
}

static inline bool add_bool(json_object *object, const char *name, bool value)
{
    return add_take(object, name, json_object_new_boolean(value));
}

static inline bool add_text(json_object *object, const char *name, const char *value)
{
    return add_take(object, name, json_object_new_string(value));
}

/* NULL: left out. */
static inline bool add_text_if(json_object *object, const char *name, const char *value)
{
    return !value || add_text(object, name, value);
}
