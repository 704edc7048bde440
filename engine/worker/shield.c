/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/shield.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/token/tokenizer.h"

static int shield(const struct tokenizer *t, json_object *from, json_object **ret);

static int shield_text(const struct tokenizer *t, json_object *from, json_object **ret)
{
    _cleanup_free_ char *text = NULL;
    size_t n = 0;
    int r = tokenizer_shield(t, json_object_get_string(from), (size_t)json_object_get_string_len(from), &text, &n);

    if (r < 0)
        return r;
    *ret = r == 0 ? json_object_get(from) : json_object_new_string_len(text, (int)n);
    return *ret ? 0 : -ENOMEM;
}

static int shield_array(const struct tokenizer *t, json_object *from, json_object **ret)
{
    _cleanup_json_ json_object *to = json_object_new_array();

    if (!to)
        return -ENOMEM;
    for (size_t i = 0; i < json_object_array_length(from); i++) {
        json_object *item = NULL;
        int r = shield(t, json_object_array_get_idx(from, i), &item);

        if (r < 0)
            return r;
        if (json_object_array_add(to, item) < 0) {
            json_object_put(item);
            return -ENOMEM;
        }
    }
    *ret = TAKE_PTR(to);
    return 0;
}

/* A member; names are texts of the caller's too, and templates write them out. */
static int shield_member(const struct tokenizer *t, json_object *to, const char *name, json_object *value)
{
    _cleanup_free_ char *shielded = NULL;
    json_object *item = NULL;
    size_t n;
    int r;

    r = tokenizer_shield(t, name, strlen(name), &shielded, &n);
    if (r < 0)
        return r;
    r = shield(t, value, &item);
    if (r < 0)
        return r;
    if (json_object_object_add(to, shielded ? shielded : name, item) < 0) {
        json_object_put(item);
        return -ENOMEM;
    }
    return 0;
}

static int shield_object(const struct tokenizer *t, json_object *from, json_object **ret)
{
    _cleanup_json_ json_object *to = json_object_new_object();

    if (!to)
        return -ENOMEM;
    json_object_object_foreach(from, name, value)
    {
        int r = shield_member(t, to, name, value);

        if (r < 0)
            return r;
    }
    *ret = TAKE_PTR(to);
    return 0;
}

/* As deep as the call's JSON, whose depth was bounded when it was parsed. */
static int shield(const struct tokenizer *t, json_object *from, json_object **ret)
{
    switch (json_object_get_type(from)) {
    case json_type_string:
        return shield_text(t, from, ret);
    case json_type_array:
        return shield_array(t, from, ret);
    case json_type_object:
        return shield_object(t, from, ret);
    case json_type_null:
    case json_type_boolean:
    case json_type_double:
    case json_type_int:
        break;
    }
    *ret = json_object_get(from);
    return 0;
}

int shield_variables(const struct tokenizer *t, json_object *variables, json_object **ret)
{
    static const char *const own[] = {"bos_token", "eos_token"};
    _cleanup_json_ json_object *to = NULL;
    int r;

    r = shield_object(t, variables, &to);
    if (r < 0)
        return r;
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++) {
        json_object *value = NULL;

        if (json_object_object_get_ex(variables, own[i], &value) &&
            json_object_object_add(to, own[i], json_object_get(value)) < 0) {
            json_object_put(value);
            return -ENOMEM;
        }
    }
    *ret = TAKE_PTR(to);
    return 0;
}
