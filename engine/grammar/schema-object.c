/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Objects: the properties that the schema names, in its order, then others where it asks for them
 * (additionalProperties, patternProperties, propertyNames, or no properties named at all). A further property
 * never has the name of a named one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/grammar/limits.h"
#include "engine/grammar/nodes.h"
#include "engine/grammar/schema-internal.h"

/* Names of an object are compared pair by pair, by their first bytes; so many are not. */
#define PROPERTIES_MAX 4096u

/* Of counting them: the rules that it takes, and how deep they are made. */
#define COUNTED_MAX       256u
#define COUNTED_RULES_MAX 8192u

struct object {
    struct schema *s;
    json_object *properties, *required, *more; /* more: additionalProperties */
    json_object *pattern_of_names;             /* a schema for the names of further properties, NULL: any */
    struct nodes list;
    uint32_t n_named, n_needed;
    const char *names[PROPERTIES_MAX]; /* of the document or of merged schemas */
};

static uint32_t colon(struct schema *s)
{
    return ir_cat_of(s->ir, ir_text(s->ir, ":"), ir_repeat(s->ir, ir_text(s->ir, " "), 0, 1));
}

static bool is_required(const struct object *o, const char *name)
{
    for (size_t i = 0; o->required && i < json_object_array_length(o->required); i++) {
        json_object *item = json_object_array_get_idx(o->required, i);

        if (json_object_is_type(item, json_type_string) && strcmp(json_object_get_string(item), name) == 0)
            return true;
    }
    return false;
}

/* required and lists of names may say a name twice. */
static bool is_named(const struct object *o, const char *name)
{
    for (uint32_t i = 0; i < o->n_named; i++)
        if (strcmp(o->names[i], name) == 0)
            return true;
    return false;
}

static void add_named(struct object *o, const char *name, json_object *value_schema)
{
    struct schema *s = o->s;
    json_object *text = schema_own(s, json_object_new_string(name));
    bool needed = is_required(o, name);
    size_t n_path;

    if (!text || !schema_step(s) || is_named(o, name))
        return;
    if (o->n_named == PROPERTIES_MAX) {
        schema_fail(s, "at most %u properties are supported", PROPERTIES_MAX);
        return;
    }
    n_path = schema_enter(s, name);
    nodes_add_optional(s->ir, &o->list,
                       ir_cat_of(s->ir, schema_literal(s, text), colon(s),
                                 value_schema ? schema_node(s, value_schema) : schema_any(s)),
                       needed);
    schema_leave(s, n_path);
    o->names[o->n_named++] = name;
    o->n_needed += needed;
}

/* ---- names of further properties ---- */

static uint32_t further_name(struct object *o)
{
    struct schema *s = o->s;
    uint32_t text;

    if (o->pattern_of_names) {
        size_t n_path = schema_enter(s, "propertyNames");

        text = schema_text(s, o->pattern_of_names);
        schema_leave(s, n_path);
    } else {
        text = schema_other_text(s, o->names, o->n_named, 0, IR_FOREVER);
    }
    return ir_cat_of(s->ir, ir_text(s->ir, "\""), text, ir_text(s->ir, "\""));
}

/* ---- which further properties there may be ---- */

/* propertyNames with a list of names is as good as optional properties with these names. */
static void add_listed_names(struct object *o, json_object *names)
{
    for (size_t i = 0; i < json_object_array_length(names) && !o->s->ir->error; i++) {
        json_object *name = json_object_array_get_idx(names, i);

        if (json_object_is_type(name, json_type_string))
            add_named(o, json_object_get_string(name), o->more);
    }
}

/* Names are strings: with that said, what a `not` leaves of them is strings, too. */
static json_object *strings_of(struct schema *s, json_object *names)
{
    json_object *o;

    if (!json_object_is_type(names, json_type_object) || schema_get(names, "type"))
        return names;
    o = schema_own(s, json_object_new_object());
    if (!o)
        return NULL;
    json_object_object_foreach(names, keyword, value)
    {
        schema_add(s, o, keyword, json_object_get(value));
    }
    schema_add(s, o, "type", json_object_new_string("string"));
    return o;
}

/* schema_text() reads these; what else may be said of names would be ignored. */
static bool are_text_keywords(struct schema *s, json_object *names)
{
    static const char *const known[] = {"type", "minLength", "maxLength", "pattern", "format", "not"};

    if (!(schema_types(s, names) & SCHEMA_STRING))
        schema_fail(s, "propertyNames: names are strings");
    json_object_object_foreach(names, keyword, value)
    {
        bool is_known = schema_is_annotation(keyword);

        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
            is_known |= strcmp(known[i], keyword) == 0;
        if (!is_known)
            schema_fail(s, "propertyNames: %.64s is not supported in it; use pattern, lengths or enum",
                        keyword);
        (void)value;
    }
    return !s->ir->error;
}

/* Whether the required properties may have their names. */
static bool are_admitted(struct object *o, json_object *names)
{
    for (uint32_t i = 0; i < o->n_named && !o->s->ir->error; i++) {
        json_object *name = schema_own(o->s, json_object_new_string(o->names[i]));

        if (name && schema_admits(o->s, names, name) != SCHEMA_YES)
            schema_fail(o->s,
                        "propertyNames has to allow the required name %.64s; beside a pattern name it in "
                        "properties instead",
                        o->names[i]);
    }
    return !o->s->ir->error;
}

static bool read_names(struct object *o, json_object *schema)
{
    json_object *names = schema_get(schema, "propertyNames"),
                *patterns = schema_get(schema, "patternProperties");
    struct schema *s = o->s;

    if ((names || patterns) && o->properties && json_object_object_length(o->properties) > 0) {
        schema_fail(s, "%s is not supported beside properties",
                    names ? "propertyNames" : "patternProperties");
        return false;
    }
    if (patterns && o->n_named > 0) {
        schema_fail(s, "patternProperties is not supported beside required: name these properties");
        return false;
    }
    if (patterns) {
        json_object *made;

        if (names || !json_object_is_type(patterns, json_type_object) ||
            json_object_object_length(patterns) != 1) {
            schema_fail(s, "patternProperties: exactly one pattern, without propertyNames, is supported");
            return false;
        }
        json_object_object_foreach(patterns, pattern, value)
        {
            made = schema_own(s, json_object_new_object());
            if (!made || json_object_object_add(made, "pattern", json_object_new_string(pattern)) < 0)
                return false;
            o->pattern_of_names = made;
            o->more = value;
        }
        return true;
    }
    if (!names)
        return true;
    if (!are_admitted(o, names))
        return false;
    names = schema_flatten(s, strings_of(s, names));
    if (!names)
        return false;
    if (!json_object_is_type(names, json_type_object)) {
        if (!json_object_get_boolean(names))
            o->more = names;
        return true;
    }
    if (schema_get(names, "enum") && json_object_is_type(schema_get(names, "enum"), json_type_array)) {
        add_listed_names(o, schema_get(names, "enum"));
        o->more = schema_own(s, json_object_new_boolean(false));
        return true;
    }
    o->pattern_of_names = names;
    return are_text_keywords(s, names);
}

static bool may_have_more(const struct object *o, json_object *schema)
{
    if (o->more)
        return !json_object_is_type(o->more, json_type_boolean) || json_object_get_boolean(o->more);
    /* Not named and not asked for: only where nothing at all is named. */
    return o->n_named == 0 && (!o->properties || o->pattern_of_names || schema_get(schema, "propertyNames"));
}

/* A rule for one further property. */
static uint32_t further_pair(struct object *o)
{
    struct schema *s = o->s;
    size_t n_path = schema_enter(s, "additionalProperties");
    uint32_t value = o->more ? schema_node(s, o->more) : schema_any(s);

    schema_leave(s, n_path);
    return schema_shared(s, ir_cat_of(s->ir, further_name(o), colon(s), value));
}

static void add_more(struct object *o, uint32_t comma, uint32_t min, uint32_t max)
{
    nodes_add_optional(o->s->ir, &o->list, schema_separated(o->s, further_pair(o), comma, min, max), min > 0);
}

static void check_parts(struct object *o, json_object *schema)
{
    o->properties = schema_get(schema, "properties");
    o->required = schema_get(schema, "required");
    o->more = schema_get(schema, "additionalProperties");
    if (o->properties && !json_object_is_type(o->properties, json_type_object))
        schema_fail(o->s, "properties: expected an object of schemas");
    if (o->required && !json_object_is_type(o->required, json_type_array))
        schema_fail(o->s, "required: expected a list of names");
}

static void add_all_named(struct object *o)
{
    struct schema *s = o->s;
    size_t n_path = schema_enter(s, "properties");

    if (o->properties) {
        json_object_object_foreach(o->properties, property, value)
        {
            if (!s->ir->error)
                add_named(o, property, value);
        }
    }
    schema_leave(s, n_path);
    /* Required without a schema of its own: additionalProperties' holds. */
    for (size_t i = 0; o->required && i < json_object_array_length(o->required) && !s->ir->error; i++) {
        json_object *name = json_object_array_get_idx(o->required, i);

        if (!json_object_is_type(name, json_type_string))
            schema_fail(s, "required: expected a list of names");
        else if (!o->properties ||
                 !json_object_object_get_ex(o->properties, json_object_get_string(name), NULL))
            add_named(o, json_object_get_string(name), o->more);
    }
}

/* ---- how many properties ---- */

/* A place among the named properties, and how many of those before are written. */
struct counted {
    struct object *o;
    uint32_t comma, min, max;
    uint32_t pair;    /* rule of one further property; IR_NO_RULE: there are none */
    uint32_t n_most;  /* counts from there on are the same */
    uint32_t *bodies; /* [n_named] rules */
    uint32_t *rules;  /* [n_named + 1][n_most + 1] */
};

static uint32_t counted_rest(struct counted *c, uint32_t i, uint32_t n);

/* Behind the named ones. Further names may repeat, so that only one of them is sure to count. */
static void add_end(struct counted *c, uint32_t n, struct nodes *list)
{
    struct ir *ir = c->o->s->ir;
    uint32_t most = c->max == IR_FOREVER ? IR_FOREVER : c->max - n;

    if (n >= c->min)
        nodes_add(ir, list, 0);
    if (c->pair != IR_NO_RULE && n < c->max && n + 1 >= c->min)
        nodes_add(ir, list,
                  ir_cat_of(ir, n > 0 ? c->comma : 0, schema_separated(c->o->s, c->pair, c->comma, 1, most)));
}

static uint32_t counted_body(struct counted *c, uint32_t i, uint32_t n)
{
    struct ir *ir = c->o->s->ir;
    _cleanup_nodes_ struct nodes list = {0};

    if (i == c->o->n_named) {
        add_end(c, n, &list);
        return ir_alt(ir, list.nodes, list.n);
    }
    if (n < c->max)
        nodes_add(
            ir, &list,
            ir_cat_of(ir, n > 0 ? c->comma : 0, ir_call(ir, c->bodies[i]), counted_rest(c, i + 1, n + 1)));
    if (!c->o->list.needed[i])
        nodes_add(ir, &list, counted_rest(c, i + 1, n));
    return ir_alt(ir, list.nodes, list.n);
}

static uint32_t counted_rest(struct counted *c, uint32_t i, uint32_t n)
{
    uint32_t count = n < c->n_most ? n : c->n_most, *rule = &c->rules[i * (c->n_most + 1) + count];

    if (c->o->s->ir->error)
        return 0;
    if (*rule == IR_NO_RULE) {
        *rule = ir_rule_new(c->o->s->ir, "", 0);
        ir_rule_set(c->o->s->ir, *rule, counted_body(c, i, count));
    }
    return ir_call(c->o->s->ir, *rule);
}

static uint32_t counted_properties(struct object *o, uint32_t comma, uint32_t min, uint32_t max, bool more)
{
    struct ir *ir = o->s->ir;
    uint32_t n_most = max != IR_FOREVER ? max : min;
    size_t n_rules = ((size_t)o->n_named + 1) * ((size_t)n_most + 1);
    _cleanup_free_ uint32_t *bodies = calloc((size_t)o->n_named + 1, sizeof(*bodies)), *rules = NULL;
    struct counted c = {.o = o, .comma = comma, .min = min, .max = max, .n_most = n_most, .bodies = bodies};

    if (o->n_named > COUNTED_MAX || n_rules > COUNTED_RULES_MAX) {
        schema_fail(
            o->s,
            "minProperties and maxProperties: at most %u named properties can be counted, times the larger "
            "of the two at most %u",
            COUNTED_MAX, COUNTED_RULES_MAX);
        return 0;
    }
    c.rules = rules = malloc(n_rules * sizeof(*rules));
    if (!bodies || !rules) {
        ir->error = -ENOMEM;
        return 0;
    }
    memset(rules, 0xFF, n_rules * sizeof(*rules));
    for (uint32_t i = 0; i < o->n_named; i++)
        bodies[i] = schema_shared(o->s, o->list.nodes[i]);
    c.pair = more ? further_pair(o) : IR_NO_RULE;
    return counted_rest(&c, 0, 0);
}

/* What stands between the braces. */
static uint32_t members(struct object *o, json_object *schema, uint32_t comma)
{
    struct schema *s = o->s;
    uint32_t min = schema_count(s, schema, "minProperties", 0),
             max = schema_count(s, schema, "maxProperties", IR_FOREVER);
    bool more = may_have_more(o, schema);

    if (max < min) {
        schema_fail(s, "maxProperties is smaller than minProperties");
        return 0;
    }
    if (!more && min > o->n_named) {
        schema_fail(s,
                    "minProperties is %u, but only %u properties are named; name more, or allow others by "
                    "additionalProperties",
                    min, o->n_named);
        return 0;
    }
    if (more && min > o->n_named + 1) {
        schema_fail(
            s, "minProperties: beside named properties one more can be asked for, since nothing remembers "
               "which further names were written; name them in properties");
        return 0;
    }
    if (o->n_named > 0 && (min > o->n_needed || (max != IR_FOREVER && (more || max < o->n_named))))
        return counted_properties(o, comma, min, max, more);
    if (more && max > 0)
        add_more(o, comma, o->n_named == 0 ? min : 0, max);
    return ir_list(s->ir, comma, o->list.nodes, o->list.needed, o->list.n);
}

uint32_t schema_object(struct schema *s, json_object *schema)
{
    _cleanup_free_ struct object *o = calloc(1, sizeof(*o));
    uint32_t space, comma, node = 0;

    if (!o) {
        s->ir->error = -ENOMEM;
        return 0;
    }
    o->s = s;
    space = schema_space(s);
    comma = ir_cat_of(s->ir, ir_text(s->ir, ","), space);
    check_parts(o, schema);
    if (!s->ir->error)
        add_all_named(o);
    if (!s->ir->error && read_names(o, schema))
        node = members(o, schema, comma);
    node = s->ir->error ? 0 : ir_cat_of(s->ir, ir_text(s->ir, "{"), space, node, space, ir_text(s->ir, "}"));
    nodes_done(&o->list);
    return node;
}
