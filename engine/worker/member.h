/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Members of JSON objects as typed, checked C values: for the MODEL packet's configuration and for calls.
 * null is absent. Each returns 0, -ENOENT (absent: *ret untouched), or -EINVAL with an InvalidParameter that
 * names the member.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"

struct fault;

/**
 * member_get() - the member, NULL when it is absent or null; borrowed
 */
json_object *member_get(json_object *object, const char *name);

/**
 * member_int() - a whole number from @min to @max
 */
int member_int(json_object *object, const char *name, int64_t min, int64_t max, int64_t *ret,
               struct fault *reterr);

/**
 * member_u32() - the same in 32 bits without a sign
 */
int member_u32(json_object *object, const char *name, uint32_t min, uint32_t max, uint32_t *ret,
               struct fault *reterr);

/**
 * member_float() - any finite number that a float holds
 */
int member_float(json_object *object, const char *name, float *ret, struct fault *reterr);

/**
 * member_bool() - true or false
 */
int member_bool(json_object *object, const char *name, bool *ret, struct fault *reterr);

/**
 * member_string() - text of *ret_n bytes; borrowed from @object
 */
int member_string(json_object *object, const char *name, const char **ret, size_t *ret_n,
                  struct fault *reterr);

/**
 * member_array() - an array; borrowed
 */
int member_array(json_object *object, const char *name, json_object **ret, struct fault *reterr);

/**
 * member_object() - an object; borrowed
 */
int member_object(json_object *object, const char *name, json_object **ret, struct fault *reterr);
