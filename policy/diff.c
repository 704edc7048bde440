/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a reload changed, for the person who asked for it and for the log.
 */
#include <errno.h>
#include <stdio.h>

#include "policy/internal.h"

enum { KEY_BYTES_MAX = 1024 };

struct diff {
    json_object *keys; /* array of texts */
    char key[KEY_BYTES_MAX];
};

static int add_key(struct diff *d)
{
    json_object *text;

    if (json_object_array_length(d->keys) >= POLICY_DIFF_MAX)
        return 0;
    text = json_object_new_string(d->key);
    if (!text)
        return -ENOMEM;
    if (json_object_array_add(d->keys, text) < 0) {
        json_object_put(text);
        return -ENOMEM;
    }
    return 0;
}

static int compare(struct diff *d, size_t n, json_object *before, json_object *after);

/* The members of @object that differ from @other's; with @missing_only those that @other lacks. */
static int compare_members(struct diff *d, size_t n, json_object *object, json_object *other,
                           bool missing_only)
{
    json_object_object_foreach(object, name, value)
    {
        json_object *there = NULL;
        bool found = json_object_object_get_ex(other, name, &there);
        size_t left = KEY_BYTES_MAX - n;
        int r, more;

        if (missing_only && found)
            continue;
        /* A key that is too long is cut: it still says where to look. */
        more = snprintf(d->key + n, left, "%s%s", n > 0 ? "." : "", name);
        r = found ? compare(d, n + ((size_t)more < left ? (size_t)more : left - 1), value, there)
                  : add_key(d);
        d->key[n] = 0;
        if (r < 0)
            return r;
    }
    return 0;
}

/* Depth is bounded by the parser's. */
static int compare(struct diff *d, size_t n, json_object *before, json_object *after)
{
    int r;

    if (!json_object_is_type(before, json_type_object) || !json_object_is_type(after, json_type_object))
        return json_object_equal(before, after) ? 0 : add_key(d);
    r = compare_members(d, n, before, after, /* missing_only= */ false);
    return r < 0 ? r : compare_members(d, n, after, before, /* missing_only= */ true);
}

int policy_diff(const struct policy *before, const struct policy *after, json_object **ret)
{
    struct diff d = {.keys = json_object_new_array()};
    int r = d.keys ? compare(&d, 0, before->document, after->document) : -ENOMEM;

    if (r < 0) {
        json_object_put(d.keys);
        return r;
    }
    *ret = d.keys;
    return 0;
}
