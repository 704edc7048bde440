/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether a given value satisfies a schema, for values that stand in a schema themselves: those of enum and
 * const beside other keywords, and those that two alternatives may have in common. Where that can't be told
 * (patterns, formats, unknown keywords) the answer is that it can't.
 */
#include <string.h>

#include "base/utf8.h"
#include "engine/grammar/decimal.h"
#include "engine/grammar/limits.h"
#include "engine/grammar/schema-internal.h"

static enum schema_answer answer(bool yes)
{
    return yes ? SCHEMA_YES : SCHEMA_NO;
}

static enum schema_answer both(enum schema_answer a, enum schema_answer b)
{
    return a < b ? a : b;
}

static enum schema_answer either(enum schema_answer a, enum schema_answer b)
{
    return a > b ? a : b;
}

static enum schema_answer invert(enum schema_answer a)
{
    return a == SCHEMA_YES ? SCHEMA_NO : a == SCHEMA_NO ? SCHEMA_YES : a;
}

static bool is_number(json_object *value)
{
    return json_object_is_type(value, json_type_int) || json_object_is_type(value, json_type_double);
}

/* ---- values ---- */

static bool lists_equal(json_object *a, json_object *b)
{
    if (json_object_array_length(a) != json_object_array_length(b))
        return false;
    for (size_t i = 0; i < json_object_array_length(a); i++)
        if (!schema_equal(json_object_array_get_idx(a, i), json_object_array_get_idx(b, i)))
            return false;
    return true;
}

static bool objects_equal(json_object *a, json_object *b)
{
    json_object *theirs;

    if (json_object_object_length(a) != json_object_object_length(b))
        return false;
    json_object_object_foreach(a, name, value)
    {
        if (!json_object_object_get_ex(b, name, &theirs) || !schema_equal(value, theirs))
            return false;
    }
    return true;
}

bool schema_equal(json_object *a, json_object *b)
{
    struct decimal x, y;

    if (is_number(a) && is_number(b) && decimal_of(a, &x) && decimal_of(b, &y))
        return decimal_order(&x, &y) == 0;
    if (json_object_get_type(a) != json_object_get_type(b))
        return false;
    if (json_object_is_type(a, json_type_array))
        return lists_equal(a, b);
    if (json_object_is_type(a, json_type_object))
        return objects_equal(a, b);
    return json_object_equal(a, b);
}

unsigned schema_type_of(json_object *value)
{
    struct decimal d;

    switch (json_object_get_type(value)) {
    case json_type_null:
        return SCHEMA_NULL;
    case json_type_boolean:
        return SCHEMA_BOOLEAN;
    case json_type_double:
        return decimal_of(value, &d) && !*d.fraction ? SCHEMA_INTEGER : SCHEMA_NUMBER;
    case json_type_int:
        return SCHEMA_INTEGER;
    case json_type_object:
        return SCHEMA_OBJECT;
    case json_type_array:
        return SCHEMA_ARRAY;
    case json_type_string:
        return SCHEMA_STRING;
    }
    return 0;
}

static size_t n_characters(json_object *value)
{
    const char *text = json_object_get_string(value);
    size_t left = (size_t)json_object_get_string_len(value), n = 0;
    uint32_t code;
    int taken;

    for (; left > 0 && (taken = utf8_decode(text, left, &code)) > 0; n++) {
        text += taken;
        left -= (size_t)taken;
    }
    return n;
}

static bool is_unique(json_object *list)
{
    for (size_t i = 0; i < json_object_array_length(list); i++)
        for (size_t k = 0; k < i; k++)
            if (schema_equal(json_object_array_get_idx(list, i), json_object_array_get_idx(list, k)))
                return false;
    return true;
}

/* ---- one keyword ---- */

/* A size or a number beside what the keyword says; @side -1: not less than that, 1: not more. */
static enum schema_answer bounded(const struct decimal *value, json_object *bound, int side, bool exclusive)
{
    struct decimal b;
    int order;

    if (!decimal_of(bound, &b))
        return SCHEMA_UNKNOWN;
    order = decimal_order(value, &b) * side;
    return answer(order < 0 || (order == 0 && !exclusive));
}

static enum schema_answer sized(size_t n, json_object *bound, int side)
{
    json_object *size = json_object_new_int64((int64_t)n);
    struct decimal d;
    enum schema_answer a = size && decimal_of(size, &d) ? bounded(&d, bound, side, false) : SCHEMA_UNKNOWN;

    json_object_put(size);
    return a;
}

static enum schema_answer is_multiple(const struct decimal *value, json_object *of)
{
    struct decimal d;
    uint64_t x, y;
    unsigned n;

    if (!decimal_of(of, &d))
        return SCHEMA_UNKNOWN;
    n = (unsigned)(strlen(d.fraction) > strlen(value->fraction) ? strlen(d.fraction)
                                                                : strlen(value->fraction));
    if (!decimal_scaled(value, n, &x) || !decimal_scaled(&d, n, &y) || y == 0)
        return SCHEMA_UNKNOWN;
    return answer(x % y == 0);
}

static enum schema_answer number_keyword(const char *name, json_object *value, json_object *what)
{
    struct decimal d;

    if (!decimal_of(value, &d))
        return SCHEMA_UNKNOWN;
    if (strcmp(name, "minimum") == 0)
        return bounded(&d, what, -1, false);
    if (strcmp(name, "exclusiveMinimum") == 0)
        return bounded(&d, what, -1, true);
    if (strcmp(name, "maximum") == 0)
        return bounded(&d, what, 1, false);
    if (strcmp(name, "exclusiveMaximum") == 0)
        return bounded(&d, what, 1, true);
    return is_multiple(&d, what);
}

static enum schema_answer all_items(struct schema *s, json_object *value, json_object *schema, size_t from)
{
    enum schema_answer a = SCHEMA_YES;

    for (size_t i = from; i < json_object_array_length(value) && a != SCHEMA_NO; i++)
        a = both(a, schema_admits(s, schema, json_object_array_get_idx(value, i)));
    return a;
}

static enum schema_answer contains(struct schema *s, json_object *schema, json_object *value,
                                   json_object *what)
{
    enum schema_answer a = SCHEMA_NO;

    if (schema_get(schema, "minContains") || schema_get(schema, "maxContains"))
        return SCHEMA_UNKNOWN;
    for (size_t i = 0; i < json_object_array_length(value) && a != SCHEMA_YES; i++)
        a = either(a, schema_admits(s, what, json_object_array_get_idx(value, i)));
    return a;
}

static enum schema_answer array_keyword(struct schema *s, json_object *schema, const char *name,
                                        json_object *value, json_object *what)
{
    size_t n = json_object_array_length(value), n_first;
    json_object *first = schema_get(schema, "prefixItems");
    enum schema_answer a = SCHEMA_YES;

    if (strcmp(name, "minItems") == 0)
        return sized(n, what, -1);
    if (strcmp(name, "maxItems") == 0)
        return sized(n, what, 1);
    if (strcmp(name, "uniqueItems") == 0)
        return answer(!json_object_get_boolean(what) || is_unique(value));
    if (strcmp(name, "contains") == 0)
        return contains(s, schema, value, what);
    if (first && !json_object_is_type(first, json_type_array))
        return SCHEMA_UNKNOWN;
    n_first = first ? json_object_array_length(first) : 0;
    if (strcmp(name, "items") == 0)
        return all_items(s, value, what, n_first);
    for (size_t i = 0; i < n && i < n_first; i++)
        a = both(a,
                 schema_admits(s, json_object_array_get_idx(first, i), json_object_array_get_idx(value, i)));
    return a;
}

static enum schema_answer required(json_object *value, json_object *names)
{
    if (!json_object_is_type(names, json_type_array))
        return SCHEMA_UNKNOWN;
    for (size_t i = 0; i < json_object_array_length(names); i++) {
        const char *name = json_object_get_string(json_object_array_get_idx(names, i));

        if (name && !json_object_object_get_ex(value, name, NULL))
            return SCHEMA_NO;
    }
    return SCHEMA_YES;
}

/* additionalProperties is about the names that properties does not have, properties about those that it has.
 */
static enum schema_answer properties(struct schema *s, json_object *schema, const char *keyword,
                                     json_object *value, json_object *what)
{
    bool about_named = strcmp(keyword, "properties") == 0;
    json_object *named = schema_get(schema, "properties"), *own;
    enum schema_answer a = SCHEMA_YES;

    if (!about_named && schema_get(schema, "patternProperties"))
        return SCHEMA_UNKNOWN;
    if (named && !json_object_is_type(named, json_type_object))
        return SCHEMA_UNKNOWN;
    json_object_object_foreach(value, name, member)
    {
        bool is_named = named && json_object_object_get_ex(named, name, &own);

        if (is_named == about_named)
            a = both(a, schema_admits(s, about_named ? own : what, member));
    }
    return a;
}

static enum schema_answer dependent(json_object *value, json_object *what)
{
    enum schema_answer a = SCHEMA_YES;

    if (!json_object_is_type(what, json_type_object))
        return SCHEMA_UNKNOWN;
    json_object_object_foreach(what, name, names)
    {
        if (json_object_object_get_ex(value, name, NULL))
            a = both(a, required(value, names));
    }
    return a;
}

static enum schema_answer object_keyword(struct schema *s, json_object *schema, const char *name,
                                         json_object *value, json_object *what)
{
    if (strcmp(name, "minProperties") == 0)
        return sized((size_t)json_object_object_length(value), what, -1);
    if (strcmp(name, "maxProperties") == 0)
        return sized((size_t)json_object_object_length(value), what, 1);
    if (strcmp(name, "required") == 0)
        return required(value, what);
    if (strcmp(name, "dependentRequired") == 0)
        return dependent(value, what);
    if (strcmp(name, "properties") == 0 || strcmp(name, "additionalProperties") == 0)
        return properties(s, schema, name, value, what);
    return SCHEMA_UNKNOWN; /* patternProperties, propertyNames */
}

static enum schema_answer string_keyword(const char *name, json_object *value, json_object *what)
{
    if (strcmp(name, "minLength") == 0)
        return sized(n_characters(value), what, -1);
    if (strcmp(name, "maxLength") == 0)
        return sized(n_characters(value), what, 1);
    return SCHEMA_UNKNOWN; /* pattern, format */
}

/* ---- keywords of schemas ---- */

static enum schema_answer among(json_object *value, json_object *list)
{
    if (!json_object_is_type(list, json_type_array))
        return SCHEMA_UNKNOWN;
    for (size_t i = 0; i < json_object_array_length(list); i++)
        if (schema_equal(value, json_object_array_get_idx(list, i)))
            return SCHEMA_YES;
    return SCHEMA_NO;
}

static enum schema_answer some_of(struct schema *s, const char *name, json_object *value, json_object *list)
{
    unsigned n_yes = 0, n_unknown = 0, n = 0;

    if (!json_object_is_type(list, json_type_array))
        return SCHEMA_UNKNOWN;
    for (; n < json_object_array_length(list); n++) {
        enum schema_answer a = schema_admits(s, json_object_array_get_idx(list, n), value);

        n_yes += a == SCHEMA_YES;
        n_unknown += a == SCHEMA_UNKNOWN;
    }
    if (strcmp(name, "allOf") == 0)
        return n_yes == n ? SCHEMA_YES : n_yes + n_unknown < n ? SCHEMA_NO : SCHEMA_UNKNOWN;
    if (strcmp(name, "oneOf") == 0 && n_yes > 1)
        return SCHEMA_NO;
    if (strcmp(name, "oneOf") == 0 && n_unknown > 0)
        return SCHEMA_UNKNOWN;
    return n_yes > 0 ? SCHEMA_YES : n_unknown > 0 ? SCHEMA_UNKNOWN : SCHEMA_NO;
}

static enum schema_answer condition(struct schema *s, json_object *schema, json_object *value)
{
    json_object *then = NULL, *otherwise = NULL;
    enum schema_answer a = schema_admits(s, schema_get(schema, "if"), value), yes = SCHEMA_YES,
                       no = SCHEMA_YES;

    if (json_object_object_get_ex(schema, "then", &then))
        yes = schema_admits(s, then, value);
    if (json_object_object_get_ex(schema, "else", &otherwise))
        no = schema_admits(s, otherwise, value);
    return either(both(a, yes), both(invert(a), no));
}

static bool is_one_of(const char *name, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(name, *list) == 0)
            return true;
    return false;
}

static enum schema_answer keyword(struct schema *s, json_object *schema, const char *name, json_object *what,
                                  json_object *value)
{
    static const char *const lists[] = {"anyOf", "oneOf", "allOf", NULL};
    static const char *const numbers[] = {"minimum",          "exclusiveMinimum", "maximum",
                                          "exclusiveMaximum", "multipleOf",       NULL};
    static const char *const arrays[] = {"items",       "prefixItems", "minItems", "maxItems",
                                         "uniqueItems", "contains",    NULL};
    static const char *const strings[] = {"minLength", "maxLength", "pattern", NULL};
    json_object *target;

    if (strcmp(name, "type") == 0)
        return answer(schema_type_of(value) & schema_types(s, schema));
    if (strcmp(name, "enum") == 0)
        return among(value, what);
    if (strcmp(name, "const") == 0)
        return answer(schema_equal(value, what));
    if (strcmp(name, "not") == 0)
        return invert(schema_admits(s, what, value));
    if (strcmp(name, "if") == 0)
        return condition(s, schema, value);
    if (strcmp(name, "nullable") == 0 || strcmp(name, "then") == 0 || strcmp(name, "else") == 0 ||
        strcmp(name, "minContains") == 0 || strcmp(name, "maxContains") == 0)
        return SCHEMA_YES; /* looked at with `type`, `if` and `contains` */
    if (strcmp(name, "$ref") == 0)
        return (target = schema_resolve(s, what)) ? schema_admits(s, target, value) : SCHEMA_UNKNOWN;
    if (is_one_of(name, lists))
        return some_of(s, name, value, what);
    if (is_one_of(name, numbers))
        return is_number(value) ? number_keyword(name, value, what) : SCHEMA_YES;
    if (is_one_of(name, arrays))
        return json_object_is_type(value, json_type_array) ? array_keyword(s, schema, name, value, what)
                                                           : SCHEMA_YES;
    if (is_one_of(name, strings))
        return json_object_is_type(value, json_type_string) ? string_keyword(name, value, what) : SCHEMA_YES;
    if (strcmp(name, "format") == 0 || !schema_is_known(name))
        return SCHEMA_UNKNOWN;
    return json_object_is_type(value, json_type_object) ? object_keyword(s, schema, name, value, what)
                                                        : SCHEMA_YES;
}

enum schema_answer schema_admits(struct schema *s, json_object *schema, json_object *value)
{
    enum schema_answer a = SCHEMA_YES;

    if (json_object_is_type(schema, json_type_boolean))
        return answer(json_object_get_boolean(schema));
    if (!json_object_is_type(schema, json_type_object) || s->depth >= GRAMMAR_DEPTH_MAX || !schema_step(s))
        return SCHEMA_UNKNOWN;
    s->depth++;
    json_object_object_foreach(schema, name, what)
    {
        if (a != SCHEMA_NO && !schema_is_annotation(name))
            a = both(a, keyword(s, schema, name, what, value));
    }
    s->depth--;
    return s->ir->error ? SCHEMA_UNKNOWN : a;
}

/* ---- all values ---- */

/* More integers between two bounds are not listed. */
#define INTEGERS_MAX 256

static bool add_value(struct schema *s, json_object *schema, json_object *value_take, json_object *list)
{
    enum schema_answer a = schema_admits(s, schema, value_take);

    if (a == SCHEMA_YES && among(value_take, list) == SCHEMA_NO)
        schema_append(s, list, value_take);
    else
        json_object_put(value_take);
    return a != SCHEMA_UNKNOWN;
}

static bool add_integers(struct schema *s, json_object *schema, json_object *list)
{
    json_object *low = schema_get(schema, "minimum"), *high = schema_get(schema, "maximum");
    int64_t from, to;

    if (!json_object_is_type(low, json_type_int) || !json_object_is_type(high, json_type_int))
        return false;
    from = json_object_get_int64(low);
    to = json_object_get_int64(high);
    if (from > to || from < -INT32_MAX || to > INT32_MAX || to - from >= INTEGERS_MAX)
        return false;
    for (; from <= to; from++)
        if (!add_value(s, schema, json_object_new_int64(from), list))
            return false;
    return true;
}

/* Adds the values of @schema that satisfy @outer; false: they can't be listed. */
static bool add_values(struct schema *s, json_object *schema, json_object *outer, json_object *list)
{
    json_object *constant = NULL, *values, *choices;
    unsigned types;

    schema = schema_flatten(s, schema);
    if (!schema || json_object_is_type(schema, json_type_boolean))
        return schema && !json_object_get_boolean(schema);
    values = schema_get(schema, "enum");
    if (json_object_object_get_ex(schema, "const", &constant))
        return add_value(s, outer, json_object_get(constant), list);
    if (values && json_object_is_type(values, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(values); i++)
            if (!add_value(s, outer, json_object_get(json_object_array_get_idx(values, i)), list))
                return false;
        return true;
    }
    choices = schema_get(schema, "anyOf") ? schema_get(schema, "anyOf") : schema_get(schema, "oneOf");
    if (choices && json_object_is_type(choices, json_type_array) && s->depth < GRAMMAR_DEPTH_MAX) {
        bool ok = true;

        s->depth++;
        for (size_t i = 0; i < json_object_array_length(choices) && ok; i++)
            ok = add_values(s, json_object_array_get_idx(choices, i), outer, list);
        s->depth--;
        return ok;
    }
    types = schema_types(s, schema);
    if (types & ~(unsigned)(SCHEMA_NULL | SCHEMA_BOOLEAN | SCHEMA_INTEGER))
        return false;
    if ((types & SCHEMA_NULL) && !add_value(s, outer, NULL, list))
        return false;
    if ((types & SCHEMA_BOOLEAN) && (!add_value(s, outer, json_object_new_boolean(false), list) ||
                                     !add_value(s, outer, json_object_new_boolean(true), list)))
        return false;
    return !(types & SCHEMA_INTEGER) || add_integers(s, schema, list);
}

json_object *schema_values(struct schema *s, json_object *schema)
{
    json_object *list = schema_own(s, json_object_new_array());

    return list && add_values(s, schema, schema, list) && !s->ir->error ? list : NULL;
}
