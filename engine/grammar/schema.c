/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A schema says what is forbidden, a grammar what is written: so where a schema leaves something open
 * (further properties, a missing `type`), the narrower reading is taken. Whatever is written satisfies the
 * schema; not everything that satisfies it is written. A keyword that is not supported is an error: an answer
 * that quietly ignores it would be a wrong one.
 */
#include "engine/grammar/schema.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/grammar/limits.h"
#include "engine/grammar/nodes.h"
#include "engine/grammar/schema-internal.h"

/* ---- places and errors ---- */

void schema_fail(struct schema *s, const char *format, ...)
{
    char reason[300];
    va_list args;

    if (s->ir->error)
        return;
    va_start(args, format);
    vsnprintf(reason, sizeof(reason), format, args);
    va_end(args);
    ir_fail(s->ir, ir_path(s->ir, s->path), "%s", reason);
}

size_t schema_enter(struct schema *s, const char *name)
{
    size_t before = s->n_path;
    int n = snprintf(s->path + s->n_path, sizeof(s->path) - s->n_path, "/%s", name);

    if (n > 0)
        s->n_path += (size_t)n < sizeof(s->path) - s->n_path ? (size_t)n : sizeof(s->path) - s->n_path - 1;
    return before;
}

size_t schema_enter_index(struct schema *s, size_t index)
{
    char text[24];

    snprintf(text, sizeof(text), "%zu", index);
    return schema_enter(s, text);
}

void schema_leave(struct schema *s, size_t n_path)
{
    s->n_path = n_path;
    s->path[n_path] = 0;
}

bool schema_step(struct schema *s)
{
    if (s->ir->error)
        return false;
    if (++s->n_steps <= SCHEMA_STEPS_MAX)
        return true;
    schema_fail(s, "the schema is too large, or its references multiply");
    return false;
}

json_object *schema_own(struct schema *s, json_object *object_take)
{
    if (!object_take || json_object_array_add(s->owned, object_take) < 0) {
        json_object_put(object_take);
        if (!s->ir->error)
            s->ir->error = -ENOMEM;
        return NULL;
    }
    return object_take;
}

/* ---- keywords ---- */

static bool is_in(const char *const *list, const char *name)
{
    for (; *list; list++)
        if (strcmp(*list, name) == 0)
            return true;
    return false;
}

bool schema_is_annotation(const char *keyword)
{
    static const char *const annotations[] = {
        "$schema",      "$id",         "$comment",         "$defs",           "definitions",
        "title",        "description", "default",          "example",         "examples",
        "deprecated",   "readOnly",    "writeOnly",        "discriminator",   "xml",
        "externalDocs", "$vocabulary", "contentMediaType", "contentEncoding", NULL};

    return strncmp(keyword, "x-", 2) == 0 || is_in(annotations, keyword);
}

bool schema_is_known(const char *keyword)
{
    static const char *const known[] = {"type",
                                        "nullable",
                                        "enum",
                                        "const",
                                        "$ref",
                                        "anyOf",
                                        "oneOf",
                                        "allOf",
                                        "properties",
                                        "required",
                                        "additionalProperties",
                                        "patternProperties",
                                        "propertyNames",
                                        "minProperties",
                                        "maxProperties",
                                        "items",
                                        "prefixItems",
                                        "minItems",
                                        "maxItems",
                                        "minLength",
                                        "maxLength",
                                        "pattern",
                                        "format",
                                        "minimum",
                                        "maximum",
                                        "exclusiveMinimum",
                                        "exclusiveMaximum",
                                        NULL};

    return is_in(known, keyword);
}

json_object *schema_get(json_object *schema, const char *name)
{
    json_object *value = NULL;

    return json_object_object_get_ex(schema, name, &value) ? value : NULL;
}

uint32_t schema_count(struct schema *s, json_object *schema, const char *name, uint32_t otherwise)
{
    json_object *value = schema_get(schema, name);
    int64_t number;

    if (!value)
        return otherwise;
    number = json_object_is_type(value, json_type_int) ? json_object_get_int64(value) : -1;
    /* 3.0 is a whole number, too. */
    if (json_object_is_type(value, json_type_double) && json_object_get_double(value) >= 0 &&
        json_object_get_double(value) <= INT32_MAX &&
        (double)(int32_t)json_object_get_double(value) == json_object_get_double(value))
        number = (int32_t)json_object_get_double(value);
    if (number < 0 || number > INT32_MAX) {
        schema_fail(s, "%s: expected a whole number from 0 to %d", name, INT32_MAX);
        return otherwise;
    }
    return (uint32_t)number;
}

/* ---- types ---- */

static const struct {
    const char *name;
    unsigned types;
} type_names[] = {
    {"null", SCHEMA_NULL},       {"boolean", SCHEMA_BOOLEAN},
    {"integer", SCHEMA_INTEGER}, {"number", SCHEMA_NUMBER | SCHEMA_INTEGER},
    {"string", SCHEMA_STRING},   {"array", SCHEMA_ARRAY},
    {"object", SCHEMA_OBJECT},
};

static unsigned type_of_name(struct schema *s, json_object *name)
{
    for (size_t i = 0;
         i < sizeof(type_names) / sizeof(type_names[0]) && json_object_is_type(name, json_type_string); i++)
        if (strcmp(json_object_get_string(name), type_names[i].name) == 0)
            return type_names[i].types;
    schema_fail(s,
                "type: expected null, boolean, integer, number, string, array or object, or a list of them");
    return 0;
}

/* Which types a schema without `type` is about. */
static unsigned types_of_keywords(json_object *schema)
{
    static const struct {
        const char *keyword;
        unsigned types;
    } hints[] = {
        {"properties", SCHEMA_OBJECT},
        {"required", SCHEMA_OBJECT},
        {"additionalProperties", SCHEMA_OBJECT},
        {"patternProperties", SCHEMA_OBJECT},
        {"propertyNames", SCHEMA_OBJECT},
        {"minProperties", SCHEMA_OBJECT},
        {"maxProperties", SCHEMA_OBJECT},
        {"items", SCHEMA_ARRAY},
        {"prefixItems", SCHEMA_ARRAY},
        {"minItems", SCHEMA_ARRAY},
        {"maxItems", SCHEMA_ARRAY},
        {"minLength", SCHEMA_STRING},
        {"maxLength", SCHEMA_STRING},
        {"pattern", SCHEMA_STRING},
        {"format", SCHEMA_STRING},
        {"minimum", SCHEMA_NUMBER | SCHEMA_INTEGER},
        {"maximum", SCHEMA_NUMBER | SCHEMA_INTEGER},
        {"exclusiveMinimum", SCHEMA_NUMBER | SCHEMA_INTEGER},
        {"exclusiveMaximum", SCHEMA_NUMBER | SCHEMA_INTEGER},
    };
    unsigned types = 0;

    for (size_t i = 0; i < sizeof(hints) / sizeof(hints[0]); i++)
        if (schema_get(schema, hints[i].keyword))
            types |= hints[i].types;
    return types ? types : SCHEMA_ANY;
}

unsigned schema_types(struct schema *s, json_object *schema)
{
    json_object *type = schema_get(schema, "type"), *nullable = schema_get(schema, "nullable");
    unsigned types = 0;

    if (type && json_object_is_type(type, json_type_array))
        for (size_t i = 0; i < json_object_array_length(type); i++)
            types |= type_of_name(s, json_object_array_get_idx(type, i));
    else if (type)
        types = type_of_name(s, type);
    else
        types = types_of_keywords(schema);
    if (nullable && !json_object_is_type(nullable, json_type_boolean))
        schema_fail(s, "nullable: expected true or false");
    else if (nullable && json_object_get_boolean(nullable))
        types |= SCHEMA_NULL;
    return types;
}

static unsigned type_of_value(json_object *value)
{
    switch (json_object_get_type(value)) {
    case json_type_null:
        return SCHEMA_NULL;
    case json_type_boolean:
        return SCHEMA_BOOLEAN;
    case json_type_double:
        return SCHEMA_NUMBER;
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

/* ---- enum, const ---- */

uint32_t schema_literal(struct schema *s, json_object *value)
{
    _cleanup_nodes_ struct nodes list = {0};
    uint32_t space, comma, items;
    const char *text;

    if (!schema_step(s) || ++s->depth > GRAMMAR_DEPTH_MAX)
        return 0;
    space = schema_space(s);
    comma = ir_cat_of(s->ir, ir_text(s->ir, ","), space);
    if (json_object_is_type(value, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(value); i++)
            nodes_add(s->ir, &list, schema_literal(s, json_object_array_get_idx(value, i)));
    } else if (json_object_is_type(value, json_type_object)) {
        json_object_object_foreach(value, key, member)
        {
            json_object *name = schema_own(s, json_object_new_string(key));
            uint32_t colon =
                ir_cat_of(s->ir, ir_text(s->ir, ":"), ir_repeat(s->ir, ir_text(s->ir, " "), 0, 1));

            nodes_add(s->ir, &list,
                      ir_cat_of(s->ir, schema_literal(s, name), colon, schema_literal(s, member)));
        }
    } else {
        text = value ? json_text(value) : "null";
        s->depth--;
        return text ? ir_text(s->ir, text) : 0;
    }
    s->depth--;
    items = ir_list(s->ir, comma, list.nodes, list.needed, list.n);
    return json_object_is_type(value, json_type_array)
               ? ir_cat_of(s->ir, ir_text(s->ir, "["), space, items, space, ir_text(s->ir, "]"))
               : ir_cat_of(s->ir, ir_text(s->ir, "{"), space, items, space, ir_text(s->ir, "}"));
}

/* Beside enum and const only what can be checked here. */
static void check_alone(struct schema *s, json_object *schema)
{
    json_object_object_foreach(schema, keyword, value)
    {
        if (!schema_is_annotation(keyword) && strcmp(keyword, "enum") != 0 && strcmp(keyword, "const") != 0 &&
            strcmp(keyword, "type") != 0 && strcmp(keyword, "nullable") != 0)
            schema_fail(s, "%.64s is not supported beside enum or const", keyword);
        (void)value;
    }
}

static bool is_among(json_object *value, json_object *list)
{
    for (size_t i = 0; i < json_object_array_length(list); i++)
        if (json_object_equal(value, json_object_array_get_idx(list, i)))
            return true;
    return false;
}

static uint32_t values(struct schema *s, json_object *schema)
{
    _cleanup_nodes_ struct nodes list = {0};
    json_object *constant = NULL, *choices = schema_get(schema, "enum");
    unsigned types = schema_get(schema, "type") ? schema_types(s, schema) : SCHEMA_ANY;
    bool has_constant = json_object_object_get_ex(schema, "const", &constant);

    check_alone(s, schema);
    if (choices && !json_object_is_type(choices, json_type_array)) {
        schema_fail(s, "enum: expected a list of values");
        return 0;
    }
    for (size_t i = 0; choices && i < json_object_array_length(choices) && !s->ir->error; i++) {
        json_object *value = json_object_array_get_idx(choices, i);

        if ((type_of_value(value) & types) && (!has_constant || json_object_equal(value, constant)))
            nodes_add(s->ir, &list, schema_literal(s, value));
    }
    if (!choices && (type_of_value(constant) & types))
        nodes_add(s->ir, &list, schema_literal(s, constant));
    /* The narrow reading of OpenAPI: nullable adds null to the values. */
    if (schema_get(schema, "nullable") && (schema_types(s, schema) & SCHEMA_NULL) && !has_constant &&
        !(choices && is_among(NULL, choices)))
        nodes_add(s->ir, &list, ir_text(s->ir, "null"));
    return ir_alt(s->ir, list.nodes, list.n);
}

/* ---- arrays ---- */

static uint32_t array_items(struct schema *s, json_object *schema, json_object *rest, struct nodes *list,
                            uint32_t min, uint32_t max)
{
    json_object *first = schema_get(schema, "prefixItems");
    uint32_t comma = ir_cat_of(s->ir, ir_text(s->ir, ","), schema_space(s)), item, n = 0, least;
    size_t n_path;

    if (first && !json_object_is_type(first, json_type_array)) {
        schema_fail(s, "prefixItems: expected a list of schemas");
        return 0;
    }
    n_path = schema_enter(s, "prefixItems");
    for (size_t i = 0; first && i < json_object_array_length(first) && n < max && !s->ir->error; i++, n++) {
        size_t n_inner = schema_enter_index(s, i);

        nodes_add_optional(s->ir, list, schema_node(s, json_object_array_get_idx(first, i)), n < min);
        schema_leave(s, n_inner);
    }
    schema_leave(s, n_path);
    if (n < max &&
        !(rest && json_object_is_type(rest, json_type_boolean) && !json_object_get_boolean(rest))) {
        n_path = schema_enter(s, "items");
        item = schema_shared(s, rest ? schema_node(s, rest) : schema_any(s));
        schema_leave(s, n_path);
        least = min > n ? min - n : 0;
        nodes_add_optional(s->ir, list,
                           schema_separated(s, item, comma, least, max == IR_FOREVER ? IR_FOREVER : max - n),
                           least > 0);
    } else if (n < min) {
        schema_fail(s, "minItems is %u, but there can be only %u items", min, n);
    }
    return comma;
}

uint32_t schema_separated(struct schema *s, uint32_t rule, uint32_t separator, uint32_t min, uint32_t max)
{
    uint32_t more = ir_cat_of(s->ir, separator, ir_call(s->ir, rule));

    return ir_cat_of(s->ir, ir_call(s->ir, rule),
                     ir_repeat(s->ir, more, min > 1 ? min - 1 : 0, max == IR_FOREVER ? IR_FOREVER : max - 1));
}

/* An item of a list may be absent only if all behind it are: ir_list() alone would leave holes. */
static uint32_t prefix_list(struct schema *s, uint32_t comma, const struct nodes *list)
{
    uint32_t node = 0;

    for (size_t i = list->n; i > 0 && !s->ir->error; i--) {
        uint32_t rest = i == 1 ? ir_cat_of(s->ir, list->nodes[0], node)
                               : ir_cat_of(s->ir, comma, list->nodes[i - 1], node);

        node = list->needed[i - 1] ? rest : ir_repeat(s->ir, rest, 0, 1);
    }
    return node;
}

static uint32_t array(struct schema *s, json_object *schema)
{
    _cleanup_nodes_ struct nodes list = {0};
    uint32_t min = schema_count(s, schema, "minItems", 0),
             max = schema_count(s, schema, "maxItems", IR_FOREVER);
    uint32_t space = schema_space(s), comma;

    if (max < min) {
        schema_fail(s, "maxItems is smaller than minItems");
        return 0;
    }
    if (min > GRAMMAR_REPEAT_MAX || (max != IR_FOREVER && max > GRAMMAR_REPEAT_MAX)) {
        schema_fail(s, "at most %u items can be asked for", GRAMMAR_REPEAT_MAX);
        return 0;
    }
    comma = array_items(s, schema, schema_get(schema, "items"), &list, min, max);
    return ir_cat_of(s->ir, ir_text(s->ir, "["), space, prefix_list(s, comma, &list), space,
                     ir_text(s->ir, "]"));
}

/* ---- any schema ---- */

static uint32_t typed(struct schema *s, json_object *schema)
{
    _cleanup_nodes_ struct nodes list = {0};
    unsigned types = schema_types(s, schema);
    bool free = true;

    json_object_object_foreach(schema, keyword, value)
    {
        free &= schema_is_annotation(keyword);
        (void)value;
    }
    if (free)
        return schema_any(s);
    if (types & SCHEMA_OBJECT)
        nodes_add(s->ir, &list, schema_object(s, schema));
    if (types & SCHEMA_ARRAY)
        nodes_add(s->ir, &list, array(s, schema));
    if (types & SCHEMA_STRING)
        nodes_add(s->ir, &list, schema_string(s, schema));
    if (types & (SCHEMA_NUMBER | SCHEMA_INTEGER))
        nodes_add(s->ir, &list, schema_number(s, schema, !(types & SCHEMA_NUMBER)));
    if (types & SCHEMA_BOOLEAN)
        nodes_add(s->ir, &list, ir_alt_of(s->ir, ir_text(s->ir, "true"), ir_text(s->ir, "false")));
    if (types & SCHEMA_NULL)
        nodes_add(s->ir, &list, ir_text(s->ir, "null"));
    return ir_alt(s->ir, list.nodes, list.n);
}

/* The rest of a schema beside anyOf or oneOf, which every alternative has to satisfy, too. */
static json_object *without(struct schema *s, json_object *schema, const char *name, bool *ret_empty)
{
    json_object *rest = schema_own(s, json_object_new_object());

    *ret_empty = true;
    if (!rest)
        return NULL;
    json_object_object_foreach(schema, keyword, value)
    {
        if (strcmp(keyword, name) == 0 || schema_is_annotation(keyword))
            continue;
        *ret_empty = false;
        if (json_object_object_add(rest, keyword, json_object_get(value)) < 0) {
            json_object_put(value);
            s->ir->error = -ENOMEM;
        }
    }
    return rest;
}

static uint32_t alternatives(struct schema *s, json_object *schema, const char *name, json_object *choices)
{
    _cleanup_nodes_ struct nodes list = {0};
    size_t n_path = schema_enter(s, name);
    bool empty;
    json_object *rest = without(s, schema, name, &empty);

    if (!json_object_is_type(choices, json_type_array) || json_object_array_length(choices) == 0)
        schema_fail(s, "expected a list of schemas");
    for (size_t i = 0; !s->ir->error && i < json_object_array_length(choices); i++) {
        json_object *choice = json_object_array_get_idx(choices, i);
        size_t n_inner = schema_enter_index(s, i);

        if (!empty) {
            choice = schema_flatten(s, choice);
            choice = choice ? schema_merge(s, schema_flatten(s, rest), choice) : NULL;
        }
        if (!s->ir->error)
            nodes_add(s->ir, &list, schema_node(s, choice));
        schema_leave(s, n_inner);
    }
    schema_leave(s, n_path);
    return ir_alt(s->ir, list.nodes, list.n);
}

static void check_keywords(struct schema *s, json_object *schema)
{
    json_object_object_foreach(schema, keyword, value)
    {
        if (!schema_is_annotation(keyword) && !schema_is_known(keyword))
            schema_fail(s, "the keyword %.64s is not supported", keyword);
        (void)value;
    }
}

/* Whether a schema is one keyword and annotations. */
static bool is_only(json_object *schema, const char *name)
{
    json_object_object_foreach(schema, keyword, value)
    {
        if (strcmp(keyword, name) != 0 && !schema_is_annotation(keyword))
            return false;
        (void)value;
    }
    return true;
}

/* What a $ref points to is a rule, so that it may refer to itself. */
static uint32_t reference(struct schema *s, json_object *ref)
{
    json_object *target = schema_resolve(s, ref);
    struct schema_target *grown;
    uint32_t rule;

    if (!target)
        return 0;
    for (size_t i = 0; i < s->n_targets; i++)
        if (s->targets[i].schema == target)
            return ir_call(s->ir, s->targets[i].rule);
    if (s->n_targets == s->targets_allocated) {
        size_t n = s->targets_allocated ? 2 * s->targets_allocated : 16;

        grown = reallocarray(s->targets, n, sizeof(*grown));
        if (!grown) {
            s->ir->error = -ENOMEM;
            return 0;
        }
        s->targets = grown;
        s->targets_allocated = n;
    }
    s->ir->place = ir_path(s->ir, s->path);
    rule = ir_rule_new(s->ir, "", 0);
    s->targets[s->n_targets++] = (struct schema_target){target, rule};
    ir_rule_set(s->ir, rule, schema_node(s, target));
    return ir_call(s->ir, rule);
}

static uint32_t object_node(struct schema *s, json_object *schema)
{
    json_object *ref = schema_get(schema, "$ref"), *all = schema_get(schema, "allOf"), *choices;

    check_keywords(s, schema);
    if (s->ir->error)
        return 0;
    if (ref && is_only(schema, "$ref"))
        return reference(s, ref);
    if (all && is_only(schema, "allOf") && json_object_is_type(all, json_type_array) &&
        json_object_array_length(all) == 1)
        return schema_node(s, json_object_array_get_idx(all, 0));
    if (ref || all) {
        schema = schema_flatten(s, schema);
        return schema ? schema_node(s, schema) : 0;
    }
    choices = schema_get(schema, "anyOf");
    if (choices)
        return alternatives(s, schema, "anyOf", choices);
    choices = schema_get(schema, "oneOf");
    if (choices)
        return alternatives(s, schema, "oneOf", choices);
    if (json_object_object_get_ex(schema, "enum", NULL) || json_object_object_get_ex(schema, "const", NULL))
        return values(s, schema);
    return typed(s, schema);
}

uint32_t schema_node(struct schema *s, json_object *schema)
{
    uint32_t node = 0, place = s->ir->place;

    if (!schema_step(s))
        return 0;
    if (++s->depth > GRAMMAR_DEPTH_MAX) {
        schema_fail(s, "schemas are nested too deeply");
        return 0;
    }
    s->ir->place = ir_path(s->ir, s->path);
    if (json_object_is_type(schema, json_type_boolean))
        node = json_object_get_boolean(schema) ? schema_any(s) : ir_alt(s->ir, NULL, 0);
    else if (json_object_is_type(schema, json_type_object))
        node = object_node(s, schema);
    else
        schema_fail(s, "a schema is an object, true or false");
    s->ir->place = place;
    s->depth--;
    return node;
}

uint32_t schema_shared(struct schema *s, uint32_t node)
{
    uint32_t rule = ir_rule_new(s->ir, "", 0);

    ir_rule_set(s->ir, rule, node);
    return rule;
}

uint32_t schema_rule(struct schema *s, uint32_t *rule, const char *name, uint32_t (*make)(struct schema *))
{
    if (*rule == IR_NO_RULE) {
        *rule = ir_rule_new(s->ir, name, strlen(name));
        ir_rule_set(s->ir, *rule, make(s));
    }
    return ir_call(s->ir, *rule);
}

uint32_t schema_compile_node(struct ir *ir, struct json_object *schema, const char *path)
{
    struct schema s = {.ir = ir, .root = schema, .owned = json_object_new_array()};
    uint32_t node;

    memset(&s.rules, 0xFF, sizeof(s.rules));
    if (!s.owned) {
        ir->error = -ENOMEM;
        return 0;
    }
    snprintf(s.path, sizeof(s.path), "%s", path);
    s.n_path = strlen(s.path);
    node = schema_node(&s, schema);
    free(s.targets);
    json_object_put(s.owned);
    return node;
}

void schema_compile(struct ir *ir, struct json_object *schema)
{
    ir->root = ir_rule_new(ir, "", 0);
    ir_rule_set(ir, ir->root, schema_compile_node(ir, schema, ""));
}
