/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/member.h"

#include <errno.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>

#include "base/fault.h"

json_object *member_get(json_object *object, const char *name)
{
    json_object *value = NULL;

    return json_object_object_get_ex(object, name, &value) ? value : NULL;
}

int member_int(json_object *object, const char *name, int64_t min, int64_t max, int64_t *ret,
               struct fault *reterr)
{
    json_object *value = member_get(object, name);
    int64_t n;

    if (!value)
        return -ENOENT;
    /* json-c holds numbers above INT64_MAX, too, and clamps them when asked for an int64. */
    if (json_object_is_type(value, json_type_int)) {
        n = json_object_get_int64(value);
        if (n >= min && n <= max && !(n == INT64_MAX && json_object_get_uint64(value) != INT64_MAX)) {
            *ret = n;
            return 0;
        }
    }
    fault_set(reterr, FAULT_INVALID_PARAMETER, name, "expected a whole number from %" PRId64 " to %" PRId64,
              min, max);
    return -EINVAL;
}

int member_u32(json_object *object, const char *name, uint32_t min, uint32_t max, uint32_t *ret,
               struct fault *reterr)
{
    int64_t n;
    int r = member_int(object, name, min, max, &n, reterr);

    if (r == 0)
        *ret = (uint32_t)n;
    return r;
}

int member_float(json_object *object, const char *name, float *ret, struct fault *reterr)
{
    json_object *value = member_get(object, name);
    double d;

    if (!value)
        return -ENOENT;
    if (json_object_is_type(value, json_type_double) || json_object_is_type(value, json_type_int)) {
        d = json_object_get_double(value);
        if (isfinite(d) && fabs(d) <= (double)FLT_MAX) {
            *ret = (float)d;
            return 0;
        }
    }
    fault_set(reterr, FAULT_INVALID_PARAMETER, name, "expected a number");
    return -EINVAL;
}

int member_bool(json_object *object, const char *name, bool *ret, struct fault *reterr)
{
    json_object *value = member_get(object, name);

    if (!value)
        return -ENOENT;
    if (!json_object_is_type(value, json_type_boolean)) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, name, "expected true or false");
        return -EINVAL;
    }
    *ret = json_object_get_boolean(value);
    return 0;
}

int member_string(json_object *object, const char *name, const char **ret, size_t *ret_n,
                  struct fault *reterr)
{
    json_object *value = member_get(object, name);

    if (!value)
        return -ENOENT;
    if (!json_object_is_type(value, json_type_string)) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, name, "expected text");
        return -EINVAL;
    }
    *ret = json_object_get_string(value);
    *ret_n = (size_t)json_object_get_string_len(value);
    return 0;
}

static int typed(json_object *object, const char *name, enum json_type type, const char *expected,
                 json_object **ret, struct fault *reterr)
{
    json_object *value = member_get(object, name);

    if (!value)
        return -ENOENT;
    if (!json_object_is_type(value, type)) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, name, "expected %s", expected);
        return -EINVAL;
    }
    *ret = value;
    return 0;
}

int member_array(json_object *object, const char *name, json_object **ret, struct fault *reterr)
{
    return typed(object, name, json_type_array, "an array", ret, reterr);
}

int member_object(json_object *object, const char *name, json_object **ret, struct fault *reterr)
{
    return typed(object, name, json_type_object, "an object", ret, reterr);
}
