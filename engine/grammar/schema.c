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

#include "base/cleanup.h"
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

static void add_to_path(struct schema *s, char c)
{
    if (s->n_path + 1 < sizeof(s->path))
        s->path[s->n_path++] = c;
    s->path[s->n_path] = 0;
}

size_t schema_enter(struct schema *s, const char *name)
{
    size_t before = s->n_path;

    add_to_path(s, '/');
    /* A JSON pointer (RFC 6901): tildes and slashes of a name are spelled. */
    for (; *name; name++) {
        add_to_path(s, *name == '/' || *name == '~' ? '~' : *name);
        if (*name == '/' || *name == '~')
            add_to_path(s, *name == '/' ? '1' : '0');
    }
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
                                        "multipleOf",
                                        "uniqueItems",
                                        "contains",
                                        "minContains",
                                        "maxContains",
                                        "not",
                                        "if",
                                        "then",
                                        "else",
                                        "dependentRequired",
                                        NULL};

    return is_in(known, keyword);
}

/* What to write instead of what is not supported. */
static const char *advice(const char *keyword)
{
    static const struct {
        const char *keyword, *advice;
    } advices[] = {
        {"dependentSchemas", "write the cases as anyOf"},
        {"dependencies", "use dependentRequired, or write the cases as anyOf"},
        {"unevaluatedProperties", "use additionalProperties"},
        {"unevaluatedItems", "use items"},
        {"additionalItems", "use prefixItems and items"},
        {"$anchor", "use $defs and \"#/$defs/name\""},
        {"$dynamicRef", "use $defs and \"#/$defs/name\""},
        {"$recursiveRef", "use \"#\""},
    };

    for (size_t i = 0; i < sizeof(advices) / sizeof(advices[0]); i++)
        if (strcmp(advices[i].keyword, keyword) == 0)
            return advices[i].advice;
    return "leave it out and check the answer; docs/structured-output.md lists what is supported";
}

void schema_check_keywords(struct schema *s, json_object *schema)
{
    json_object_object_foreach(schema, keyword, value)
    {
        if (!schema_is_annotation(keyword) && !schema_is_known(keyword))
            schema_fail(s, "the keyword %.64s is not supported: %s", keyword, advice(keyword));
        (void)value;
    }
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
unsigned schema_types_about(json_object *schema)
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
        {"multipleOf", SCHEMA_NUMBER | SCHEMA_INTEGER},
        {"uniqueItems", SCHEMA_ARRAY},
        {"contains", SCHEMA_ARRAY},
        {"dependentRequired", SCHEMA_OBJECT},
    };
    unsigned types = 0;

    for (size_t i = 0; i < sizeof(hints) / sizeof(hints[0]); i++)
        if (schema_get(schema, hints[i].keyword))
            types |= hints[i].types;
    return types;
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
        types = schema_types_about(schema);
    if (!type && types == 0)
        types = SCHEMA_ANY;
    if (nullable && !json_object_is_type(nullable, json_type_boolean))
        schema_fail(s, "nullable: expected true or false");
    else if (nullable && json_object_get_boolean(nullable))
        types |= SCHEMA_NULL;
    return types;
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

/* Whether one of the listed values satisfies what stands beside them. */
static bool is_admitted(struct schema *s, json_object *schema, json_object *value)
{
    enum schema_answer a = schema_admits(s, schema, value);

    if (a == SCHEMA_UNKNOWN)
        schema_fail(
            s, "pattern, format and keywords about names are not supported beside enum or const: list the "
               "values that satisfy them");
    return a == SCHEMA_YES;
}

static bool is_among(json_object *value, json_object *list)
{
    for (size_t i = 0; i < json_object_array_length(list); i++)
        if (schema_equal(value, json_object_array_get_idx(list, i)))
            return true;
    return false;
}

static uint32_t values(struct schema *s, json_object *schema)
{
    _cleanup_nodes_ struct nodes list = {0};
    json_object *constant = NULL, *choices = schema_get(schema, "enum");
    bool has_constant = json_object_object_get_ex(schema, "const", &constant);

    if (choices && !json_object_is_type(choices, json_type_array)) {
        schema_fail(s, "enum: expected a list of values");
        return 0;
    }
    for (size_t i = 0; choices && i < json_object_array_length(choices) && !s->ir->error; i++) {
        json_object *value = json_object_array_get_idx(choices, i);

        if (is_admitted(s, schema, value))
            nodes_add(s->ir, &list, schema_literal(s, value));
    }
    if (!choices && is_admitted(s, schema, constant))
        nodes_add(s->ir, &list, schema_literal(s, constant));
    /* The narrow reading of OpenAPI: nullable adds null to the values. */
    if (schema_get(schema, "nullable") && (schema_types(s, schema) & SCHEMA_NULL) && !has_constant &&
        !(choices && is_among(NULL, choices)))
        nodes_add(s->ir, &list, ir_text(s->ir, "null"));
    return ir_alt(s->ir, list.nodes, list.n);
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
        nodes_add(s->ir, &list, schema_array(s, schema));
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

/*
 * One of oneOf's alternatives without what the others allow, too: as it is where nothing that is written for
 * it can satisfy them, else with their negations beside it.
 */
static json_object *alone(struct schema *s, json_object *rest, json_object *choices, size_t i)
{
    json_object *choice = json_object_array_get_idx(choices, i), *other,
                *list = schema_own(s, json_object_new_array()),
                *all = schema_own(s, json_object_new_object());
    _cleanup_free_ bool *negated = calloc(json_object_array_length(choices), sizeof(*negated));
    bool again = true;

    if (!list || !all || !negated) {
        s->ir->error = s->ir->error ? s->ir->error : -ENOMEM;
        return NULL;
    }
    schema_append(s, list, json_object_get(rest));
    schema_append(s, list, json_object_get(choice));
    schema_add(s, all, "allOf", json_object_get(list));
    /* What is added may make more types be written, which others allow: so until nothing is. */
    while (again && !s->ir->error) {
        again = false;
        for (size_t k = 0; k < json_object_array_length(choices) && !s->ir->error; k++) {
            if (k == i || negated[k] || schema_excludes(s, all, json_object_array_get_idx(choices, k)))
                continue;
            s->refused = NULL;
            other = schema_negate(s, json_object_array_get_idx(choices, k));
            if (!other)
                schema_fail(
                    s,
                    "alternative %zu may hold as well, and that %.64s does not hold can't be written; use "
                    "anyOf if both may hold, or tell them apart by a const property",
                    k, s->refused ? s->refused : "it");
            else
                schema_append(s, list, json_object_get(other));
            again = negated[k] = true;
        }
    }
    if (s->ir->error)
        return NULL;
    json_object_array_del_idx(list, 0, 1);
    return json_object_array_length(list) == 1 ? choice : all;
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

        if (strcmp(name, "oneOf") == 0)
            choice = alone(s, rest, choices, i);
        if (!empty && !s->ir->error) {
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

    schema_check_keywords(s, schema);
    if (s->ir->error)
        return 0;
    /* First: what stands beside values is only asked whether it holds of them. */
    if (json_object_object_get_ex(schema, "enum", NULL) || json_object_object_get_ex(schema, "const", NULL))
        return values(s, schema);
    if (ref && is_only(schema, "$ref"))
        return reference(s, ref);
    if (all && is_only(schema, "allOf") && json_object_is_type(all, json_type_array) &&
        json_object_array_length(all) == 1)
        return schema_node(s, json_object_array_get_idx(all, 0));
    if (ref || all || schema_has_conditions(s, schema)) {
        schema = schema_flatten(s, schema);
        return schema ? schema_node(s, schema) : 0;
    }
    choices = schema_get(schema, "anyOf");
    if (choices)
        return alternatives(s, schema, "anyOf", choices);
    choices = schema_get(schema, "oneOf");
    if (choices)
        return alternatives(s, schema, "oneOf", choices);
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

uint32_t schema_separated(struct schema *s, uint32_t rule, uint32_t separator, uint32_t min, uint32_t max)
{
    uint32_t more = ir_cat_of(s->ir, separator, ir_call(s->ir, rule));

    return ir_cat_of(s->ir, ir_call(s->ir, rule),
                     ir_repeat(s->ir, more, min > 1 ? min - 1 : 0, max == IR_FOREVER ? IR_FOREVER : max - 1));
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
