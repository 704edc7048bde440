/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Merging policy documents in the manner of RFC 7386 (JSON Merge Patch): objects merge key by key, anything else
 * replaces, null removes. The result holds no null. And the way back: which file a merged value came from.
 *
 * A value at some path of the result always comes from the last file that has a value at that path: whatever a later
 * file says about the path or about one above it would have replaced or removed it.
 */
#include <errno.h>
#include <string.h>

#include "policy/internal.h"

int policy_merge(json_object *into, json_object *from)
{
    json_object_object_foreach(from, key, value)
    {
        json_object *there = NULL, *fresh = NULL;
        int r;

        if (!value) {
            json_object_object_del(into, key);
            continue;
        }
        if (json_object_is_type(value, json_type_object)) {
            if (json_object_object_get_ex(into, key, &there) && json_object_is_type(there, json_type_object)) {
                r = policy_merge(there, value);
                if (r < 0)
                    return r;
                continue;
            }
            fresh = json_object_new_object();
            if (!fresh)
                return -ENOMEM;
            r = policy_merge(fresh, value);
            if (r < 0) {
                json_object_put(fresh);
                return r;
            }
        } else if (json_object_deep_copy(value, &fresh, NULL) < 0) {
            return -ENOMEM;
        }
        if (json_object_object_add(into, key, fresh) < 0) {
            json_object_put(fresh);
            return -ENOMEM;
        }
    }
    return 0;
}

bool policy_sources_find(const struct policy_sources *sources, const char *path, const char **ret_file,
                         uint32_t *ret_line, uint32_t *ret_column)
{
    char at[1024];
    size_t n = strlen(path);

    if (n >= sizeof(at))
        n = sizeof(at) - 1;
    memcpy(at, path, n);
    at[n] = 0;
    for (;;) {
        for (size_t i = sources->n_files; i-- > 0;) {
            if (json_index_find(sources->files[i].index, at, ret_line, ret_column)) {
                *ret_file = sources->files[i].file;
                return true;
            }
        }
        if (n == 0)
            return false;
        while (n > 0 && at[n - 1] != '/')
            n--;
        if (n > 0)
            n--;
        at[n] = 0;
    }
}

bool policy_origin(const struct policy *p, const char *path, const char **ret_file, uint32_t *ret_line,
                   uint32_t *ret_column)
{
    for (size_t i = p->sources->n_files; i-- > 0;) {
        if (json_index_find(p->sources->files[i].index, path, ret_line, ret_column)) {
            *ret_file = p->sources->files[i].file;
            return true;
        }
    }
    return false;
}
