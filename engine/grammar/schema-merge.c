/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * $ref with other keywords beside it, and allOf: both mean that several schemas hold at once. They are made
 * one schema, in which each keyword is the narrower of the two. What can't be made one is an error.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/grammar/limits.h"
#include "engine/grammar/schema-internal.h"

static void add(struct schema *s, json_object *to, const char *name, json_object *value_take)
{
    if ((!value_take && strcmp(name, "const") != 0) || json_object_object_add(to, name, value_take) < 0) {
        json_object_put(value_take);
        if (!s->ir->error)
            s->ir->error = -ENOMEM;
    }
}

static void append(struct schema *s, json_object *to, json_object *value_take)
{
    if (json_object_array_add(to, value_take) < 0) {
        json_object_put(value_take);
        if (!s->ir->error)
            s->ir->error = -ENOMEM;
    }
}

/* ---- references ---- */

/* One step of a JSON pointer (RFC 6901), with the percent-encoding that it has in a URI. */
static bool take_step(const char **at, char *to, size_t size)
{
    size_t n = 0;

    for (; **at && **at != '/'; (*at)++) {
        unsigned char c = (unsigned char)**at;
        unsigned code;

        if (n + 1 >= size)
            return false;
        if (c == '%' && sscanf(*at + 1, "%2x", &code) == 1 && strlen(*at) > 2) {
            c = (unsigned char)code;
            *at += 2;
        }
        if (c == '~' && ((*at)[1] == '0' || (*at)[1] == '1')) {
            c = (*at)[1] == '0' ? '~' : '/';
            (*at)++;
        }
        to[n++] = (char)c;
    }
    to[n] = 0;
    return true;
}

static json_object *step_into(json_object *at, const char *name)
{
    json_object *value = NULL;
    size_t index = 0;

    if (json_object_is_type(at, json_type_object))
        return json_object_object_get_ex(at, name, &value) ? value : NULL;
    if (!json_object_is_type(at, json_type_array) || !*name || strlen(name) > 9)
        return NULL;
    for (; *name; name++) {
        if (*name < '0' || *name > '9')
            return NULL;
        index = 10 * index + (size_t)(*name - '0');
    }
    return index < json_object_array_length(at) ? json_object_array_get_idx(at, index) : NULL;
}

json_object *schema_resolve(struct schema *s, json_object *ref)
{
    json_object *target = s->root;
    char name[SCHEMA_PATH_MAX];
    const char *at;

    if (!json_object_is_type(ref, json_type_string)) {
        schema_fail(s, "$ref: expected text");
        return NULL;
    }
    at = json_object_get_string(ref);
    if (*at != '#' || (at[1] != 0 && at[1] != '/')) {
        schema_fail(
            s, "$ref: %.100s: only references into the schema itself are supported (\"#/$defs/name\")", at);
        return NULL;
    }
    for (at++; *at == '/' && target;) {
        at++;
        target = take_step(&at, name, sizeof(name)) ? step_into(target, name) : NULL;
    }
    if (!target)
        schema_fail(s, "$ref: %.100s: there is no such schema", json_object_get_string(ref));
    return target;
}

/* ---- merging ---- */

static json_object *both(struct schema *s, json_object *a, json_object *b)
{
    json_object *o = json_object_new_object(), *list = json_object_new_array();

    if (!o || !list) {
        json_object_put(o);
        json_object_put(list);
        s->ir->error = -ENOMEM;
        return NULL;
    }
    append(s, list, json_object_get(a));
    append(s, list, json_object_get(b));
    add(s, o, "allOf", list);
    return o;
}

/* A property of one schema only: the other one's additionalProperties is about it, too. */
static json_object *alone(struct schema *s, json_object *property, json_object *other, const char *name)
{
    json_object *others = schema_get(other, "properties"), *more = schema_get(other, "additionalProperties"),
                *theirs;

    if (others && json_object_object_get_ex(others, name, &theirs))
        return both(s, property, theirs);
    return more ? both(s, property, more) : json_object_get(property);
}

static void merge_properties(struct schema *s, json_object *a, json_object *b, json_object *to)
{
    json_object *from[] = {schema_get(a, "properties"), schema_get(b, "properties")}, *all;

    if (!from[0] && !from[1])
        return;
    all = json_object_new_object();
    add(s, to, "properties", all);
    for (int i = 0; i < 2; i++) {
        if (!from[i] || !json_object_is_type(from[i], json_type_object) || s->ir->error)
            continue;
        json_object_object_foreach(from[i], name, property)
        {
            if (schema_step(s) && !json_object_object_get_ex(all, name, NULL))
                add(s, all, name, alone(s, property, i == 0 ? b : a, name));
        }
    }
}

static bool is_false(json_object *schema)
{
    return json_object_is_type(schema, json_type_boolean) && !json_object_get_boolean(schema);
}

static void merge_lists(struct schema *s, json_object *a, json_object *b, json_object *to, const char *name)
{
    json_object *lists[] = {schema_get(a, name), schema_get(b, name)}, *all;

    if (!lists[0] && !lists[1])
        return;
    all = json_object_new_array();
    add(s, to, name, all);
    for (int i = 0; i < 2 && !s->ir->error; i++) {
        if (lists[i] && !json_object_is_type(lists[i], json_type_array))
            schema_fail(s, "%s: expected a list", name);
        for (size_t k = 0; lists[i] && !s->ir->error && k < json_object_array_length(lists[i]); k++)
            if (schema_step(s))
                append(s, all, json_object_get(json_object_array_get_idx(lists[i], k)));
    }
}

/* Values that are in both. */
static json_object *common_values(struct schema *s, json_object *a, json_object *b)
{
    json_object *all = json_object_new_array();

    if (!all || !json_object_is_type(a, json_type_array) || !json_object_is_type(b, json_type_array)) {
        schema_fail(s, "enum: expected a list of values");
        return all;
    }
    for (size_t i = 0; i < json_object_array_length(a); i++)
        for (size_t k = 0; schema_step(s) && k < json_object_array_length(b); k++)
            if (json_object_equal(json_object_array_get_idx(a, i), json_object_array_get_idx(b, k))) {
                append(s, all, json_object_get(json_object_array_get_idx(a, i)));
                break;
            }
    return all;
}

/* Every alternative of one with every one of the other. */
static json_object *pairs(struct schema *s, json_object *a, json_object *b)
{
    json_object *all = json_object_new_array();

    if (!all || !json_object_is_type(a, json_type_array) || !json_object_is_type(b, json_type_array) ||
        json_object_array_length(a) * json_object_array_length(b) > SCHEMA_PAIRS_MAX) {
        schema_fail(s, "these alternatives can't be combined: at most %u pairs", SCHEMA_PAIRS_MAX);
        return all;
    }
    for (size_t i = 0; i < json_object_array_length(a); i++)
        for (size_t k = 0; k < json_object_array_length(b) && schema_step(s); k++)
            append(s, all, both(s, json_object_array_get_idx(a, i), json_object_array_get_idx(b, k)));
    return all;
}

static json_object *smaller(json_object *a, json_object *b, bool want_smaller)
{
    return (json_object_get_double(a) < json_object_get_double(b)) == want_smaller ? a : b;
}

static bool is_any(const char *name, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(name, *list) == 0)
            return true;
    return false;
}

static void merge_keyword(struct schema *s, const char *name, json_object *a, json_object *b, json_object *to)
{
    static const char *const low[] = {"minLength", "minItems",         "minProperties",
                                      "minimum",   "exclusiveMinimum", NULL};
    static const char *const high[] = {"maxLength", "maxItems",         "maxProperties",
                                       "maximum",   "exclusiveMaximum", NULL};
    static const char *const schemas[] = {"items", "additionalProperties", "propertyNames", NULL};

    if (is_any(name, low))
        add(s, to, name, json_object_get(smaller(a, b, false)));
    else if (is_any(name, high))
        add(s, to, name, json_object_get(smaller(a, b, true)));
    else if (is_any(name, schemas))
        add(s, to, name, is_false(a) || is_false(b) ? json_object_new_boolean(false) : both(s, a, b));
    else if (strcmp(name, "enum") == 0)
        add(s, to, name, common_values(s, a, b));
    else if (strcmp(name, "anyOf") == 0 || strcmp(name, "oneOf") == 0)
        add(s, to, name, pairs(s, a, b));
    else if (json_object_equal(a, b))
        add(s, to, name, json_object_get(a));
    else if (strcmp(name, "const") == 0)
        add(s, to, "enum", json_object_new_array());
    else
        schema_fail(s, "%.64s is there twice with different values, which can't be combined", name);
}

static void merge_types(struct schema *s, json_object *a, json_object *b, json_object *to)
{
    static const struct {
        const char *name;
        unsigned type;
    } names[] = {{"null", SCHEMA_NULL},     {"boolean", SCHEMA_BOOLEAN}, {"integer", SCHEMA_INTEGER},
                 {"number", SCHEMA_NUMBER}, {"string", SCHEMA_STRING},   {"array", SCHEMA_ARRAY},
                 {"object", SCHEMA_OBJECT}};
    bool has_a = schema_get(a, "type") || schema_get(a, "nullable"),
         has_b = schema_get(b, "type") || schema_get(b, "nullable");
    unsigned types = (has_a ? schema_types(s, a) : SCHEMA_ANY) & (has_b ? schema_types(s, b) : SCHEMA_ANY);
    json_object *list;

    if (!has_a && !has_b)
        return;
    list = json_object_new_array();
    add(s, to, "type", list);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && !s->ir->error; i++)
        if (types & names[i].type)
            append(s, list, json_object_new_string(names[i].name));
}

json_object *schema_merge(struct schema *s, json_object *a, json_object *b)
{
    static const char *const done[] = {"type", "nullable", "properties", "required", NULL};
    json_object *to;

    if (!a || !b || !schema_step(s))
        return NULL;
    if (json_object_is_type(a, json_type_boolean))
        return json_object_get_boolean(a) ? b : a;
    if (json_object_is_type(b, json_type_boolean))
        return json_object_get_boolean(b) ? a : b;
    to = schema_own(s, json_object_new_object());
    if (!to)
        return NULL;
    merge_types(s, a, b, to);
    merge_properties(s, a, b, to);
    merge_lists(s, a, b, to, "required");
    json_object_object_foreach(a, name, value)
    {
        json_object *other = NULL;

        if (s->ir->error || is_any(name, done) || schema_is_annotation(name))
            continue;
        if (json_object_object_get_ex(b, name, &other))
            merge_keyword(s, name, value, other, to);
        else
            add(s, to, name, json_object_get(value));
    }
    json_object_object_foreach(b, theirs, their_value)
    {
        if (!s->ir->error && !is_any(theirs, done) && !schema_is_annotation(theirs) &&
            !json_object_object_get_ex(a, theirs, NULL))
            add(s, to, theirs, json_object_get(their_value));
    }
    return s->ir->error ? NULL : to;
}

/* ---- flattening ---- */

static json_object *check_flat(struct schema *s, json_object *schema)
{
    json_object_object_foreach(schema, keyword, value)
    {
        if (!schema_is_annotation(keyword) && !schema_is_known(keyword))
            schema_fail(s, "the keyword %.64s is not supported", keyword);
        (void)value;
    }
    return s->ir->error ? NULL : schema;
}

/* The keywords beside $ref and allOf. */
static json_object *own_keywords(struct schema *s, json_object *schema)
{
    json_object *own = schema_own(s, json_object_new_object());

    if (!own)
        return NULL;
    json_object_object_foreach(schema, name, value)
    {
        if (strcmp(name, "$ref") != 0 && strcmp(name, "allOf") != 0 && !schema_is_annotation(name))
            add(s, own, name, json_object_get(value));
    }
    return s->ir->error ? NULL : own;
}

static json_object *flatten_parts(struct schema *s, json_object *schema, json_object *ref, json_object *all)
{
    json_object *flat = own_keywords(s, schema), *target;

    if (flat && ref) {
        target = schema_resolve(s, ref);
        flat = target ? schema_merge(s, flat, schema_flatten(s, target)) : NULL;
    }
    if (all && !json_object_is_type(all, json_type_array)) {
        schema_fail(s, "allOf: expected a list of schemas");
        return NULL;
    }
    for (size_t i = 0; flat && all && i < json_object_array_length(all); i++) {
        size_t n_path = schema_enter(s, "allOf"), n_inner = schema_enter_index(s, i);

        (void)n_inner;
        flat = schema_merge(s, flat, schema_flatten(s, json_object_array_get_idx(all, i)));
        schema_leave(s, n_path);
    }
    return flat;
}

json_object *schema_flatten(struct schema *s, json_object *schema)
{
    json_object *ref, *all, *flat;

    if (!schema || !schema_step(s))
        return NULL;
    if (json_object_is_type(schema, json_type_boolean))
        return schema;
    if (!json_object_is_type(schema, json_type_object)) {
        schema_fail(s, "a schema is an object, true or false");
        return NULL;
    }
    ref = schema_get(schema, "$ref");
    all = schema_get(schema, "allOf");
    if (!check_flat(s, schema) || (!ref && !all))
        return s->ir->error ? NULL : schema;
    if (++s->depth > GRAMMAR_DEPTH_MAX) {
        schema_fail(s, "references are nested too deeply, or lead in a circle");
        return NULL;
    }
    flat = flatten_parts(s, schema, ref, all);
    s->depth--;
    return flat;
}
