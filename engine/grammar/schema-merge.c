/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * $ref with other keywords beside it, and allOf: both mean that several schemas hold at once. They are made
 * one schema, in which each keyword is the narrower of the two. What can't be made one is an error.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/grammar/decimal.h"
#include "engine/grammar/limits.h"
#include "engine/grammar/schema-internal.h"

void schema_add(struct schema *s, json_object *to, const char *name, json_object *value_take)
{
    if ((!value_take && strcmp(name, "const") != 0) || json_object_object_add(to, name, value_take) < 0) {
        json_object_put(value_take);
        if (!s->ir->error)
            s->ir->error = -ENOMEM;
    }
}

void schema_append(struct schema *s, json_object *to, json_object *value_take)
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
    schema_append(s, list, json_object_get(a));
    schema_append(s, list, json_object_get(b));
    schema_add(s, o, "allOf", list);
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
    schema_add(s, to, "properties", all);
    for (int i = 0; i < 2; i++) {
        if (!from[i] || !json_object_is_type(from[i], json_type_object) || s->ir->error)
            continue;
        json_object_object_foreach(from[i], name, property)
        {
            if (schema_step(s) && !json_object_object_get_ex(all, name, NULL))
                schema_add(s, all, name, alone(s, property, i == 0 ? b : a, name));
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
    schema_add(s, to, name, all);
    for (int i = 0; i < 2 && !s->ir->error; i++) {
        if (lists[i] && !json_object_is_type(lists[i], json_type_array))
            schema_fail(s, "%s: expected a list", name);
        for (size_t k = 0; lists[i] && !s->ir->error && k < json_object_array_length(lists[i]); k++)
            if (schema_step(s))
                schema_append(s, all, json_object_get(json_object_array_get_idx(lists[i], k)));
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
            if (schema_equal(json_object_array_get_idx(a, i), json_object_array_get_idx(b, k))) {
                schema_append(s, all, json_object_get(json_object_array_get_idx(a, i)));
                break;
            }
    return all;
}

/* Every alternative of one with every one of the other, but those that nothing can satisfy. */
static json_object *pairs(struct schema *s, json_object *a, json_object *b)
{
    json_object *all = json_object_new_array();

    if (!all || !json_object_is_type(a, json_type_array) || !json_object_is_type(b, json_type_array) ||
        json_object_array_length(a) * json_object_array_length(b) > SCHEMA_PAIRS_MAX) {
        schema_fail(s, "these alternatives can't be combined: at most %u pairs", SCHEMA_PAIRS_MAX);
        return all;
    }
    for (size_t i = 0; i < json_object_array_length(a); i++)
        for (size_t k = 0; k < json_object_array_length(b) && schema_step(s); k++) {
            json_object *pair = both(s, json_object_array_get_idx(a, i), json_object_array_get_idx(b, k));

            if (pair && !schema_is_never(s, pair))
                schema_append(s, all, json_object_get(pair));
            json_object_put(pair);
        }
    if (json_object_array_length(all) == 0)
        schema_append(s, all, json_object_new_boolean(false));
    return all;
}

/* {"enum": [...]} of both: schema-conditions.c leaves nothing else behind `not`. */
static json_object *excluded_strings(struct schema *s, json_object *a, json_object *b)
{
    json_object *to = json_object_new_object();

    if (to)
        merge_lists(s, a, b, to, "enum");
    return to;
}

/* The least number that both divide. */
static json_object *common_multiple(struct schema *s, json_object *a, json_object *b)
{
    struct decimal x, y;
    uint64_t n, m, rest, product;
    unsigned n_fraction;
    char text[64];

    if (decimal_of(a, &x) && decimal_of(b, &y)) {
        n_fraction =
            (unsigned)(strlen(x.fraction) > strlen(y.fraction) ? strlen(x.fraction) : strlen(y.fraction));
        if (decimal_scaled(&x, n_fraction, &n) && decimal_scaled(&y, n_fraction, &m) && n > 0 && m > 0) {
            uint64_t divisor = n;

            for (rest = m; rest > 0;) {
                uint64_t next = divisor % rest;

                divisor = rest;
                rest = next;
            }
            if (!__builtin_mul_overflow(n / divisor, m, &product)) {
                snprintf(text, sizeof(text), "%" PRIu64 "e-%u", product, n_fraction);
                return json_object_new_double_s(strtod(text, NULL), text);
            }
        }
    }
    schema_fail(s, "multipleOf: these two can't be combined; write their least common multiple");
    return json_object_new_int(1);
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
        schema_add(s, to, name, json_object_get(smaller(a, b, false)));
    else if (is_any(name, high))
        schema_add(s, to, name, json_object_get(smaller(a, b, true)));
    else if (is_any(name, schemas))
        schema_add(s, to, name, is_false(a) || is_false(b) ? json_object_new_boolean(false) : both(s, a, b));
    else if (strcmp(name, "enum") == 0)
        schema_add(s, to, name, common_values(s, a, b));
    else if (strcmp(name, "anyOf") == 0)
        schema_add(s, to, name, pairs(s, a, b));
    else if (strcmp(name, "not") == 0)
        schema_add(s, to, name, excluded_strings(s, a, b));
    else if (strcmp(name, "multipleOf") == 0)
        schema_add(s, to, name, common_multiple(s, a, b));
    else if (strcmp(name, "uniqueItems") == 0)
        schema_add(s, to, name,
                   json_object_new_boolean(json_object_get_boolean(a) || json_object_get_boolean(b)));
    else if (schema_equal(a, b))
        schema_add(s, to, name, json_object_get(a));
    else if (strcmp(name, "const") == 0)
        schema_add(s, to, "enum", json_object_new_array());
    else
        schema_fail(s, "%.64s is there twice with different values, which can't be combined", name);
}

/* The names of types, onto a list of them. */
static void append_types(struct schema *s, json_object *list, unsigned types)
{
    static const struct {
        const char *name;
        unsigned type;
    } names[] = {{"null", SCHEMA_NULL},     {"boolean", SCHEMA_BOOLEAN}, {"integer", SCHEMA_INTEGER},
                 {"number", SCHEMA_NUMBER}, {"string", SCHEMA_STRING},   {"array", SCHEMA_ARRAY},
                 {"object", SCHEMA_OBJECT}};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && !s->ir->error; i++)
        if (types & names[i].type)
            schema_append(s, list, json_object_new_string(names[i].name));
}

static void merge_types(struct schema *s, json_object *a, json_object *b, json_object *to)
{
    bool has_a = schema_get(a, "type") || schema_get(a, "nullable"),
         has_b = schema_get(b, "type") || schema_get(b, "nullable");
    unsigned types = (has_a ? schema_types(s, a) : SCHEMA_ANY) & (has_b ? schema_types(s, b) : SCHEMA_ANY);
    json_object *list;

    if (!has_a && !has_b)
        return;
    list = json_object_new_array();
    schema_add(s, to, "type", list);
    append_types(s, list, types);
}

static const struct {
    const char *low, *high;
    unsigned type;
} sizes[] = {{"minLength", "maxLength", SCHEMA_STRING},
             {"minItems", "maxItems", SCHEMA_ARRAY},
             {"minProperties", "maxProperties", SCHEMA_OBJECT}};

static bool contradicts(json_object *schema, size_t i)
{
    json_object *low = schema_get(schema, sizes[i].low), *high = schema_get(schema, sizes[i].high);

    return low && high && json_object_get_double(low) > json_object_get_double(high);
}

/* Two schemas that leave no size to a type together leave out the type; in one alone it is a mistake to tell.
 */
static void drop_contradictions(struct schema *s, json_object *a, json_object *b, json_object *to)
{
    json_object *list;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]) && !s->ir->error; i++) {
        unsigned types;

        if (!contradicts(to, i) || contradicts(a, i) || contradicts(b, i))
            continue;
        types = (schema_get(to, "type") ? schema_types(s, to) : SCHEMA_ANY) & ~sizes[i].type;
        json_object_object_del(to, sizes[i].low);
        json_object_object_del(to, sizes[i].high);
        list = json_object_new_array();
        schema_add(s, to, "type", list);
        if (!s->ir->error)
            append_types(s, list, types);
    }
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
    /* The items of one are those behind the first ones of the other, and these ones, too. */
    if ((schema_get(a, "prefixItems") && schema_get(b, "items") && !schema_get(b, "prefixItems")) ||
        (schema_get(b, "prefixItems") && schema_get(a, "items") && !schema_get(a, "prefixItems"))) {
        schema_fail(
            s, "prefixItems and items of schemas that hold together can't be combined: write them in one");
        return NULL;
    }
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
            schema_add(s, to, name, json_object_get(value));
    }
    json_object_object_foreach(b, theirs, their_value)
    {
        if (!s->ir->error && !is_any(theirs, done) && !schema_is_annotation(theirs) &&
            !json_object_object_get_ex(a, theirs, NULL))
            schema_add(s, to, theirs, json_object_get(their_value));
    }
    drop_contradictions(s, a, b, to);
    return s->ir->error ? NULL : to;
}

/* ---- flattening ---- */

/* The keywords that stay when those that add schemas are looked at. */
static json_object *own_keywords(struct schema *s, json_object *schema, bool has_conditions)
{
    static const char *const adding[] = {"$ref", "allOf", "if", "then", "else", "dependentRequired", NULL};
    json_object *own = schema_own(s, json_object_new_object());

    if (!own)
        return NULL;
    json_object_object_foreach(schema, name, value)
    {
        bool is_not = has_conditions && strcmp(name, "not") == 0 && !schema_excludes_strings(s, schema);

        if (!is_any(name, adding) && !is_not && !schema_is_annotation(name))
            schema_add(s, own, name, json_object_get(value));
    }
    return s->ir->error ? NULL : own;
}

/* Of alternatives those whose types @flat does not rule out; one that is left is no alternative. */
static json_object *narrowed(struct schema *s, json_object *flat, json_object *more)
{
    json_object *choices = json_object_is_type(more, json_type_object) ? schema_get(more, "anyOf") : NULL,
                *left, *o;

    if (!choices || json_object_object_length(more) != 1 || !json_object_is_type(choices, json_type_array))
        return more;
    left = schema_own(s, json_object_new_array());
    for (size_t i = 0; left && i < json_object_array_length(choices); i++) {
        json_object *pair = schema_own(s, both(s, flat, json_object_array_get_idx(choices, i)));

        if (pair && !schema_is_never(s, pair))
            schema_append(s, left, json_object_get(json_object_array_get_idx(choices, i)));
    }
    if (!left || s->ir->error)
        return NULL;
    if (json_object_array_length(left) == 0)
        return schema_own(s, json_object_new_boolean(false));
    if (json_object_array_length(left) == 1)
        return json_object_array_get_idx(left, 0);
    o = schema_own(s, json_object_new_object());
    if (o)
        schema_add(s, o, "anyOf", json_object_get(left));
    return o;
}

static json_object *flatten_all(struct schema *s, json_object *flat, json_object *all)
{
    if (!json_object_is_type(all, json_type_array)) {
        schema_fail(s, "allOf: expected a list of schemas");
        return NULL;
    }
    for (size_t i = 0; flat && i < json_object_array_length(all); i++) {
        size_t n_path = schema_enter(s, "allOf"), n_inner = schema_enter_index(s, i);

        (void)n_inner;
        flat = schema_merge(s, flat, schema_flatten(s, json_object_array_get_idx(all, i)));
        schema_leave(s, n_path);
    }
    return flat;
}

static json_object *flatten_parts(struct schema *s, json_object *schema, json_object *ref, json_object *all,
                                  bool has_conditions)
{
    json_object *flat = own_keywords(s, schema, has_conditions), *target, *more;

    if (flat && ref) {
        target = schema_resolve(s, ref);
        flat = target ? schema_merge(s, flat, schema_flatten(s, target)) : NULL;
    }
    if (flat && all)
        flat = flatten_all(s, flat, all);
    more = flat && has_conditions ? schema_conditions(s, schema) : NULL;
    for (size_t i = 0; flat && more && i < json_object_array_length(more); i++) {
        json_object *one = schema_flatten(s, narrowed(s, flat, json_object_array_get_idx(more, i)));

        flat = schema_merge(s, flat, one);
    }
    return flat;
}

json_object *schema_flatten(struct schema *s, json_object *schema)
{
    json_object *ref, *all, *flat;
    bool has_conditions;

    if (s->ir->error || !schema_step(s))
        return NULL;
    if (json_object_is_type(schema, json_type_boolean))
        return schema;
    if (!json_object_is_type(schema, json_type_object)) {
        schema_fail(s, "a schema is an object, true or false");
        return NULL;
    }
    ref = schema_get(schema, "$ref");
    all = schema_get(schema, "allOf");
    schema_check_keywords(s, schema);
    has_conditions = schema_has_conditions(s, schema);
    if (s->ir->error || (!ref && !all && !has_conditions))
        return s->ir->error ? NULL : schema;
    if (++s->depth > GRAMMAR_DEPTH_MAX) {
        schema_fail(s, "references are nested too deeply, or lead in a circle");
        return NULL;
    }
    flat = flatten_parts(s, schema, ref, all, has_conditions);
    s->depth--;
    return flat;
}
