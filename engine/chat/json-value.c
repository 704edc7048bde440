/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Values from JSON (the variables of a rendering) and to JSON (the tojson filter, as Python's json.dumps()
 * writes it).
 */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "engine/chat/value.h"

enum { NESTING_MAX = 64 };

static int text_from_json(struct arena *a, const char *data, size_t n, struct value *ret)
{
    char *copy = arena_alloc(a, n ? n : 1);

    if (!copy)
        return -ENOMEM;
    memcpy(copy, data, n);
    *ret = value_text(copy, n);
    return 0;
}

static int list_from_json(struct arena *a, struct json_object *json, uint32_t depth_max, struct value *ret)
{
    struct value list = value_list_new(a, false);
    size_t n = json_object_array_length(json);

    if (list.kind != VALUE_LIST)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        struct value item;
        int r = value_from_json(a, json_object_array_get_idx(json, i), depth_max - 1, &item);

        if (r < 0)
            return r;
        if (list_add(a, list.list, item) < 0)
            return -ENOMEM;
    }
    *ret = list;
    return 0;
}

/* Keys of a JSON object are unique, so they are appended without dict_set()'s search. */
static int dict_from_json(struct arena *a, struct json_object *json, uint32_t depth_max, struct value *ret)
{
    struct value dict = value_dict_new(a);
    size_t n = (size_t)json_object_object_length(json);

    if (dict.kind != VALUE_DICT)
        return -ENOMEM;
    dict.dict->entries = arena_alloc(a, (n ? n : 1) * sizeof(*dict.dict->entries));
    if (!dict.dict->entries)
        return -ENOMEM;
    dict.dict->allocated = n ? n : 1;
    json_object_object_foreach(json, key, value)
    {
        struct entry *entry = &dict.dict->entries[dict.dict->n++];
        int r = text_from_json(a, key, strlen(key), &entry->key);

        if (r >= 0)
            r = value_from_json(a, value, depth_max - 1, &entry->value);
        if (r < 0)
            return r;
    }
    *ret = dict;
    return 0;
}

int value_from_json(struct arena *a, struct json_object *json, uint32_t depth_max, struct value *ret)
{
    if (depth_max == 0)
        return -E2BIG;
    switch (json_object_get_type(json)) {
    case json_type_null:
        *ret = value_none();
        return 0;
    case json_type_boolean:
        *ret = value_bool(json_object_get_boolean(json));
        return 0;
    case json_type_int:
        *ret = value_int(json_object_get_int64(json));
        return 0;
    case json_type_double:
        *ret = value_float(json_object_get_double(json));
        return 0;
    case json_type_string:
        return text_from_json(a, json_object_get_string(json), (size_t)json_object_get_string_len(json), ret);
    case json_type_array:
        return list_from_json(a, json, depth_max, ret);
    case json_type_object:
        return dict_from_json(a, json, depth_max, ret);
    }
    return -EINVAL;
}

static int add_string(struct builder *b, const char *constant)
{
    return builder_add(b, constant, strlen(constant));
}

static int dump_escape(struct builder *b, uint32_t code)
{
    char escaped[16];

    if (code >= 0x10000)
        snprintf(escaped, sizeof(escaped), "\\u%04x\\u%04x", 0xD800 + ((code - 0x10000) >> 10),
                 0xDC00 + ((code - 0x10000) & 0x3FF));
    else
        snprintf(escaped, sizeof(escaped), "\\u%04x", code);
    return add_string(b, escaped);
}

static int dump_text(struct builder *b, struct text t, bool ascii)
{
    static const char from[] = "\"\\\b\f\n\r\t", into[] = "\"\\bfnrt";
    size_t at = 0;
    int r = add_string(b, "\"");

    while (at < t.n && r >= 0) {
        const char *special = t.data[at] ? strchr(from, t.data[at]) : NULL;
        uint32_t code;
        int length = utf8_decode(t.data + at, t.n - at, &code);

        if (length <= 0) {
            code = 0xFFFD;
            length = 1;
        }
        if (special) {
            const char pair[2] = {'\\', into[special - from]};

            r = builder_add(b, pair, 2);
        } else if (code < 0x20 || (ascii && code > 0x7E)) {
            r = dump_escape(b, code);
        } else {
            r = builder_add(b, t.data + at, (size_t)length);
        }
        at += (size_t)length;
    }
    return r < 0 ? r : add_string(b, "\"");
}

static int dump_at(struct builder *b, struct value v, const struct dumps_style *style, unsigned depth);

static int dump_break(struct builder *b, const struct dumps_style *style, unsigned depth)
{
    int r;

    if (style->indent < 0)
        return 0;
    r = add_string(b, "\n");
    for (unsigned i = 0; i < depth * (unsigned)style->indent && r >= 0; i++)
        r = add_string(b, " ");
    return r;
}

static int dump_list(struct builder *b, const struct list *l, const struct dumps_style *style, unsigned depth)
{
    int r = add_string(b, "[");

    for (size_t i = 0; i < l->n && r >= 0; i++) {
        r = i > 0 ? builder_add(b, style->item_separator.data, style->item_separator.n) : 0;
        if (r >= 0)
            r = dump_break(b, style, depth + 1);
        if (r >= 0)
            r = dump_at(b, l->items[i], style, depth + 1);
    }
    if (r >= 0 && l->n > 0)
        r = dump_break(b, style, depth);
    return r < 0 ? r : add_string(b, "]");
}

static int compare_entries(const void *a, const void *b)
{
    int order = 0;

    value_compare(((const struct entry *)a)->key, ((const struct entry *)b)->key, &order);
    return order;
}

static int dump_dict(struct builder *b, const struct dict *d, const struct dumps_style *style, unsigned depth)
{
    const struct entry *entries = d->entries;
    int r = add_string(b, "{");

    if (style->sort_keys && d->n > 0) {
        struct entry *sorted = arena_alloc(b->arena, d->n * sizeof(*sorted));

        if (!sorted)
            return -ENOMEM;
        memcpy(sorted, entries, d->n * sizeof(*sorted));
        qsort(sorted, d->n, sizeof(*sorted), compare_entries);
        entries = sorted;
    }
    for (size_t i = 0; i < d->n && r >= 0; i++) {
        if (entries[i].key.kind != VALUE_STRING)
            return -EINVAL;
        r = i > 0 ? builder_add(b, style->item_separator.data, style->item_separator.n) : 0;
        if (r >= 0)
            r = dump_break(b, style, depth + 1);
        if (r >= 0)
            r = dump_text(b, entries[i].key.string, style->ascii);
        if (r >= 0)
            r = builder_add(b, style->key_separator.data, style->key_separator.n);
        if (r >= 0)
            r = dump_at(b, entries[i].value, style, depth + 1);
    }
    if (r >= 0 && d->n > 0)
        r = dump_break(b, style, depth);
    return r < 0 ? r : add_string(b, "}");
}

static int dump_at(struct builder *b, struct value v, const struct dumps_style *style, unsigned depth)
{
    if (depth > NESTING_MAX)
        return -E2BIG;
    switch (v.kind) {
    case VALUE_NONE:
        return add_string(b, "null");
    case VALUE_BOOL:
        return add_string(b, v.boolean ? "true" : "false");
    case VALUE_FLOAT:
        if (isnan(v.real) || isinf(v.real))
            return add_string(b, isnan(v.real) ? "NaN" : v.real < 0 ? "-Infinity" : "Infinity");
        return value_write(b, v, true);
    case VALUE_INT:
        return value_write(b, v, true);
    case VALUE_STRING:
        return dump_text(b, v.string, style->ascii);
    case VALUE_LIST:
        return dump_list(b, v.list, style, depth);
    case VALUE_DICT:
        return dump_dict(b, v.dict, style, depth);
    default:
        return -EINVAL;
    }
}

int value_dumps(struct builder *b, struct value v, const struct dumps_style *style)
{
    return dump_at(b, v, style, 0);
}
