/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * `not`, `if` with `then` and `else`, and `dependentRequired` say something about values that are not wanted.
 * A grammar can only say which are. So a schema is turned into one that exactly the other values satisfy, as
 * far as that can be written with other keywords: the negation of each keyword is an alternative, and one of
 * them has to hold (De Morgan).
 *
 * Strings other than some given ones are left as they are, {"type": "string", "not": {"enum": [...]}}, which
 * schema-string.c writes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/grammar/decimal.h"
#include "engine/grammar/limits.h"
#include "engine/grammar/schema-internal.h"

/* ---- making schemas ---- */

static json_object *new_object(struct schema *s)
{
    return schema_own(s, json_object_new_object());
}

/* A schema that @o and others may hold. */
static void add_schema(struct schema *s, json_object *list, json_object *o)
{
    if (o)
        schema_append(s, list, json_object_get(o));
}

/* {"type": type, name: value}, value consumed */
static json_object *typed(struct schema *s, const char *type, const char *name, json_object *value_take)
{
    json_object *o = new_object(s);

    if (!o) {
        json_object_put(value_take);
        return NULL;
    }
    schema_add(s, o, "type", json_object_new_string(type));
    schema_add(s, o, name, value_take);
    return o;
}

static json_object *combined(struct schema *s, const char *name, json_object *a, json_object *b)
{
    json_object *o = new_object(s), *list = json_object_new_array();

    if (!o || !list) {
        json_object_put(list);
        return NULL;
    }
    schema_append(s, list, json_object_get(a));
    schema_append(s, list, json_object_get(b));
    schema_add(s, o, name, list);
    return o;
}

static json_object *truth(struct schema *s, bool value)
{
    return schema_own(s, json_object_new_boolean(value));
}

/* The schema of one list of alternatives. */
static json_object *any_of(struct schema *s, json_object *list)
{
    json_object *o;

    if (json_object_array_length(list) == 0)
        return truth(s, false);
    if (json_object_array_length(list) == 1)
        return json_object_array_get_idx(list, 0);
    o = new_object(s);
    if (o)
        schema_add(s, o, "anyOf", json_object_get(list));
    return o;
}

/* ---- values that are not wanted ---- */

static int by_order(const void *a, const void *b)
{
    struct decimal x, y;
    bool has_x = decimal_of(*(json_object *const *)a, &x), has_y = decimal_of(*(json_object *const *)b, &y);

    return has_x && has_y ? decimal_order(&x, &y) : 0;
}

/* The gaps between them. */
static void negate_numbers(struct schema *s, json_object *numbers, json_object *list)
{
    size_t n = json_object_array_length(numbers);

    json_object_array_sort(numbers, by_order);
    for (size_t i = 0; i <= n; i++) {
        json_object *low = i > 0 ? json_object_array_get_idx(numbers, i - 1) : NULL,
                    *high = i < n ? json_object_array_get_idx(numbers, i) : NULL, *o;

        if (low && high && schema_equal(low, high))
            continue;
        o = high ? typed(s, "number", "exclusiveMaximum", json_object_get(high))
                 : typed(s, "number", "exclusiveMinimum", json_object_get(low));
        if (o && low && high)
            schema_add(s, o, "exclusiveMinimum", json_object_get(low));
        add_schema(s, list, o);
    }
}

static void negate_strings(struct schema *s, json_object *strings, json_object *list)
{
    json_object *excluded = new_object(s);

    if (!excluded)
        return;
    schema_add(s, excluded, "enum", json_object_get(strings));
    add_schema(s, list, typed(s, "string", "not", json_object_get(excluded)));
}

static void add_type(struct schema *s, json_object *types, const char *name)
{
    schema_append(s, types, json_object_new_string(name));
}

/* Of the types in @types all values. */
static void add_types(struct schema *s, unsigned types, json_object *list)
{
    static const struct {
        const char *name;
        unsigned types;
    } names[] = {{"null", SCHEMA_NULL},     {"boolean", SCHEMA_BOOLEAN}, {"number", SCHEMA_NUMBER},
                 {"string", SCHEMA_STRING}, {"array", SCHEMA_ARRAY},     {"object", SCHEMA_OBJECT}};
    json_object *o = types ? new_object(s) : NULL, *all = o ? json_object_new_array() : NULL;

    if (!all)
        return;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (types & names[i].types)
            add_type(s, all, names[i].name);
    if ((types & (SCHEMA_INTEGER | SCHEMA_NUMBER)) == SCHEMA_INTEGER)
        add_type(s, all, "integer");
    schema_add(s, o, "type", all);
    add_schema(s, list, o);
}

/* A list or an object that is empty is all that can be told from others. */
static bool negate_empty(struct schema *s, json_object *value, json_object *list)
{
    bool is_list = json_object_is_type(value, json_type_array);

    if (is_list ? json_object_array_length(value) > 0 : json_object_object_length(value) > 0)
        return false;
    add_schema(s, list,
               is_list ? typed(s, "array", "minItems", json_object_new_int(1))
                       : typed(s, "object", "minProperties", json_object_new_int(1)));
    return true;
}

static bool negate_values(struct schema *s, json_object *values, json_object *list)
{
    json_object *numbers = schema_own(s, json_object_new_array()),
                *strings = schema_own(s, json_object_new_array());
    unsigned types = 0;
    bool booleans[2] = {false, false};

    for (size_t i = 0; numbers && strings && i < json_object_array_length(values) && !s->ir->error; i++) {
        json_object *value = json_object_array_get_idx(values, i);
        unsigned type = schema_type_of(value);

        types |= type & (SCHEMA_INTEGER | SCHEMA_NUMBER) ? SCHEMA_INTEGER | SCHEMA_NUMBER : type;
        if (type & (SCHEMA_INTEGER | SCHEMA_NUMBER))
            schema_append(s, numbers, json_object_get(value));
        else if (type == SCHEMA_STRING)
            schema_append(s, strings, json_object_get(value));
        else if (type == SCHEMA_BOOLEAN)
            booleans[json_object_get_boolean(value)] = true;
        else if ((type == SCHEMA_ARRAY || type == SCHEMA_OBJECT) && !negate_empty(s, value, list))
            return false;
    }
    if (s->ir->error)
        return false;
    add_types(s, SCHEMA_ANY & ~types, list);
    if (booleans[0] != booleans[1])
        add_schema(s, list, typed(s, "boolean", "const", json_object_new_boolean(booleans[0])));
    if (json_object_array_length(numbers) > 0)
        negate_numbers(s, numbers, list);
    if (json_object_array_length(strings) > 0)
        negate_strings(s, strings, list);
    return true;
}

static bool negate_list(struct schema *s, json_object *schema, const char *name, json_object *what,
                        json_object *list)
{
    json_object *values = what;
    bool is_nullable =
        schema_get(schema, "nullable") && json_object_get_boolean(schema_get(schema, "nullable"));

    if (strcmp(name, "const") == 0 || is_nullable) {
        values = schema_own(s, json_object_new_array());
        if (!values)
            return false;
        for (size_t i = 0; strcmp(name, "const") != 0 && i < json_object_array_length(what); i++)
            schema_append(s, values, json_object_get(json_object_array_get_idx(what, i)));
        if (strcmp(name, "const") == 0)
            schema_append(s, values, json_object_get(what));
        if (is_nullable)
            schema_append(s, values, NULL);
    }
    return json_object_is_type(values, json_type_array) && negate_values(s, values, list);
}

/* ---- keywords ---- */

static bool negate_type(struct schema *s, json_object *schema, json_object *list)
{
    unsigned others = SCHEMA_ANY & ~schema_types(s, schema);

    /* Numbers that are no integers can't be asked for; the other types can. */
    if ((others & (SCHEMA_INTEGER | SCHEMA_NUMBER)) == SCHEMA_NUMBER) {
        others &= ~(unsigned)SCHEMA_NUMBER;
        s->drops_fractions = true;
    }
    add_types(s, others, list);
    return others != 0 || schema_types(s, schema) == SCHEMA_ANY;
}

static json_object *without(struct schema *s, const char *name)
{
    json_object *properties = json_object_new_object();

    if (!properties) {
        s->ir->error = -ENOMEM;
        return NULL;
    }
    schema_add(s, properties, name, json_object_new_boolean(false));
    return typed(s, "object", "properties", properties);
}

static bool negate_required(struct schema *s, json_object *names, json_object *list)
{
    if (!json_object_is_type(names, json_type_array))
        return false;
    for (size_t i = 0; i < json_object_array_length(names) && !s->ir->error; i++) {
        json_object *name = json_object_array_get_idx(names, i);

        if (json_object_is_type(name, json_type_string))
            add_schema(s, list, without(s, json_object_get_string(name)));
    }
    return true;
}

static void require(struct schema *s, json_object *schema, const char *name)
{
    json_object *names = json_object_new_array();

    if (!schema || !names) {
        json_object_put(names);
        return;
    }
    schema_append(s, names, json_object_new_string(name));
    schema_add(s, schema, "required", names);
}

static bool negate_properties(struct schema *s, json_object *properties, json_object *list)
{
    if (!json_object_is_type(properties, json_type_object))
        return false;
    json_object_object_foreach(properties, name, schema)
    {
        json_object *other = schema_negate(s, schema), *one;

        if (!other)
            return false;
        if (json_object_is_type(other, json_type_boolean) && !json_object_get_boolean(other))
            continue;
        one = json_object_new_object();
        if (!one)
            return false;
        schema_add(s, one, name, json_object_get(other));
        one = typed(s, "object", "properties", one);
        require(s, one, name);
        add_schema(s, list, one);
    }
    return true;
}

static bool negate_dependent(struct schema *s, json_object *dependent, json_object *list)
{
    if (!json_object_is_type(dependent, json_type_object))
        return false;
    json_object_object_foreach(dependent, name, names)
    {
        for (size_t i = 0; json_object_is_type(names, json_type_array) && i < json_object_array_length(names);
             i++) {
            json_object *one = without(s, json_object_get_string(json_object_array_get_idx(names, i)));

            require(s, one, name);
            add_schema(s, list, one);
        }
    }
    return true;
}

static bool negate_each(struct schema *s, json_object *schemas, const char *name, json_object *list)
{
    json_object *others = schema_own(s, json_object_new_array()), *o;

    if (!others || !json_object_is_type(schemas, json_type_array))
        return false;
    for (size_t i = 0; i < json_object_array_length(schemas); i++) {
        json_object *other = schema_negate(s, json_object_array_get_idx(schemas, i));

        if (!other)
            return false;
        add_schema(s, strcmp(name, "allOf") == 0 ? list : others, other);
    }
    o = strcmp(name, "allOf") == 0 ? NULL : new_object(s);
    if (o)
        schema_add(s, o, "allOf", json_object_get(others));
    add_schema(s, list, o);
    return true;
}

static bool negate_condition(struct schema *s, json_object *schema, json_object *list)
{
    static const char *const names[] = {"then", "else"};
    json_object *condition = schema_get(schema, "if"), *branch = NULL, *holds, *fails;

    for (size_t i = 0; i < 2; i++) {
        if (!json_object_object_get_ex(schema, names[i], &branch))
            continue;
        holds = i == 0 ? condition : schema_negate(s, condition);
        fails = holds ? schema_negate(s, branch) : NULL;
        if (!fails)
            return false;
        add_schema(s, list, combined(s, "allOf", holds, fails));
    }
    return true;
}

/* Not all items are such: one is not. None is such: all are not. */
static bool negate_items(struct schema *s, json_object *schema, const char *name, json_object *what,
                         json_object *list)
{
    bool is_items = strcmp(name, "items") == 0;
    json_object *other;

    if (schema_get(schema, is_items ? "prefixItems" : "minContains") || schema_get(schema, "maxContains"))
        return false;
    other = schema_negate(s, what);
    if (!other)
        return false;
    /* All are such. */
    if (is_items && json_object_is_type(other, json_type_boolean) && !json_object_get_boolean(other))
        return true;
    add_schema(s, list, typed(s, "array", is_items ? "contains" : "items", json_object_get(other)));
    return true;
}

/* A bound's other side. */
static bool negate_bound(struct schema *s, json_object *schema, const char *name, json_object *what,
                         json_object *list, bool *ret_ok)
{
    static const struct {
        const char *name, *type, *other;
        int step; /* sizes: what is added */
    } bounds[] = {{"minimum", "number", "exclusiveMaximum", 0},
                  {"maximum", "number", "exclusiveMinimum", 0},
                  {"exclusiveMinimum", "number", "maximum", 0},
                  {"exclusiveMaximum", "number", "minimum", 0},
                  {"minLength", "string", "maxLength", -1},
                  {"maxLength", "string", "minLength", 1},
                  {"minItems", "array", "maxItems", -1},
                  {"maxItems", "array", "minItems", 1},
                  {"minProperties", "object", "maxProperties", -1},
                  {"maxProperties", "object", "minProperties", 1}};

    for (size_t i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++) {
        int64_t n;

        if (strcmp(name, bounds[i].name) != 0)
            continue;
        *ret_ok = true;
        if (bounds[i].step == 0) {
            add_schema(s, list, typed(s, bounds[i].type, bounds[i].other, json_object_get(what)));
            return true;
        }
        n = (int64_t)schema_count(s, schema, name, 0) + bounds[i].step;
        if (n >= 0)
            add_schema(s, list, typed(s, bounds[i].type, bounds[i].other, json_object_new_int64(n)));
        return true;
    }
    return false;
}

static bool is_true(json_object *schema)
{
    return json_object_is_type(schema, json_type_boolean) && json_object_get_boolean(schema);
}

static bool negate_keyword(struct schema *s, json_object *schema, const char *name, json_object *what,
                           json_object *list)
{
    static const char *const others[] = {"then", "else", "nullable", "minContains",
                                         "maxContains"}; /* belong to others */
    json_object *target;
    bool ok = false;

    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        if (strcmp(name, others[i]) == 0)
            return true;
    if (negate_bound(s, schema, name, what, list, &ok))
        return ok;
    if (strcmp(name, "type") == 0)
        return negate_type(s, schema, list);
    if (strcmp(name, "const") == 0 || strcmp(name, "enum") == 0)
        return negate_list(s, schema, name, what, list);
    if (strcmp(name, "required") == 0)
        return negate_required(s, what, list);
    if (strcmp(name, "properties") == 0)
        return negate_properties(s, what, list);
    if (strcmp(name, "dependentRequired") == 0)
        return negate_dependent(s, what, list);
    if (strcmp(name, "anyOf") == 0 || strcmp(name, "allOf") == 0)
        return negate_each(s, what, name, list);
    if (strcmp(name, "if") == 0)
        return negate_condition(s, schema, list);
    if (strcmp(name, "items") == 0 || strcmp(name, "contains") == 0)
        return negate_items(s, schema, name, what, list);
    if (strcmp(name, "not") == 0) {
        add_schema(s, list, what);
        return true;
    }
    if (strcmp(name, "$ref") == 0) {
        target = schema_resolve(s, what);
        target = target ? schema_negate(s, target) : NULL;
        add_schema(s, list, target);
        return target;
    }
    return strcmp(name, "additionalProperties") == 0 && is_true(what);
}

json_object *schema_negate(struct schema *s, json_object *schema)
{
    json_object *list = schema_own(s, json_object_new_array());
    bool ok = true;

    if (json_object_is_type(schema, json_type_boolean))
        return truth(s, !json_object_get_boolean(schema));
    if (!list || !json_object_is_type(schema, json_type_object) || !schema_step(s) ||
        s->depth >= GRAMMAR_DEPTH_MAX)
        return NULL;
    s->depth++;
    json_object_object_foreach(schema, name, what)
    {
        if (!ok || schema_is_annotation(name))
            continue;
        ok = negate_keyword(s, schema, name, what, list) && !s->ir->error;
        if (!ok && !s->refused)
            s->refused = name;
    }
    s->depth--;
    return ok ? any_of(s, list) : NULL;
}

/* ---- what a schema with conditions means ---- */

bool schema_excludes_strings(struct schema *s, json_object *schema)
{
    json_object *excluded = schema_get(schema, "not"), *values;

    if (!schema_get(schema, "type") || (schema_types(s, schema) & ~(unsigned)SCHEMA_STRING) != 0 ||
        !json_object_is_type(excluded, json_type_object) || json_object_object_length(excluded) != 1)
        return false;
    values = schema_get(excluded, "enum");
    if (!values || !json_object_is_type(values, json_type_array))
        return false;
    for (size_t i = 0; i < json_object_array_length(values); i++)
        if (!json_object_is_type(json_object_array_get_idx(values, i), json_type_string))
            return false;
    return true;
}

bool schema_has_conditions(struct schema *s, json_object *schema)
{
    return schema_get(schema, "if") || schema_get(schema, "dependentRequired") ||
           (json_object_object_get_ex(schema, "not", NULL) && !schema_excludes_strings(s, schema));
}

/* Where nothing but numbers is left, those that schema_negate() left out are missed. */
static void check_fractions(struct schema *s, json_object *schema, const char *name)
{
    if (s->drops_fractions && schema_get(schema, "type") &&
        !(schema_types(s, schema) & ~(unsigned)(SCHEMA_INTEGER | SCHEMA_NUMBER)))
        schema_fail(s, "%s: numbers that are no integers can't be asked for", name);
}

static void add_not(struct schema *s, json_object *schema, json_object *list)
{
    json_object *what = NULL, *other;

    if (!json_object_object_get_ex(schema, "not", &what) || schema_excludes_strings(s, schema))
        return;
    s->refused = NULL;
    s->drops_fractions = false;
    other = schema_negate(s, what);
    check_fractions(s, schema, "not");
    if (!other)
        schema_fail(
            s,
            "not: %.64s inside it can't be turned into what may be written; say what is allowed instead "
            "(type, enum, bounds, anyOf)",
            s->refused ? s->refused : "a schema");
    add_schema(s, list, other);
}

static void add_if(struct schema *s, json_object *schema, json_object *list)
{
    json_object *condition = schema_get(schema, "if"), *branch[2] = {NULL, NULL}, *other, *o;
    bool has_then = json_object_object_get_ex(schema, "then", &branch[0]),
         has_else = json_object_object_get_ex(schema, "else", &branch[1]);

    if (!condition || (!has_then && !has_else))
        return;
    s->refused = NULL;
    s->drops_fractions = false;
    other = schema_negate(s, condition);
    check_fractions(s, schema, "if");
    if (!other) {
        schema_fail(
            s,
            "if: that %.64s does not hold can't be turned into what may be written; write the cases as "
            "anyOf",
            s->refused ? s->refused : "a schema");
        return;
    }
    o = combined(s, "anyOf", has_then ? combined(s, "allOf", condition, branch[0]) : condition,
                 has_else ? combined(s, "allOf", other, branch[1]) : other);
    add_schema(s, list, o);
}

static void add_dependent(struct schema *s, json_object *schema, json_object *list)
{
    json_object *dependent = schema_get(schema, "dependentRequired");

    if (!dependent)
        return;
    if (!json_object_is_type(dependent, json_type_object)) {
        schema_fail(s, "dependentRequired: expected an object of lists of names");
        return;
    }
    json_object_object_foreach(dependent, name, names)
    {
        json_object *all = new_object(s), *own;

        if (!all || !json_object_is_type(names, json_type_array)) {
            schema_fail(s, "dependentRequired: expected an object of lists of names");
            return;
        }
        require(s, all, name);
        own = schema_get(all, "required");
        for (size_t i = 0; own && i < json_object_array_length(names); i++)
            schema_append(s, own, json_object_get(json_object_array_get_idx(names, i)));
        add_schema(s, list, combined(s, "anyOf", without(s, name), all));
    }
}

json_object *schema_conditions(struct schema *s, json_object *schema)
{
    json_object *list = schema_own(s, json_object_new_array());

    if (!list)
        return NULL;
    add_not(s, schema, list);
    if (!s->ir->error)
        add_if(s, schema, list);
    if (!s->ir->error)
        add_dependent(s, schema, list);
    return s->ir->error ? NULL : list;
}
