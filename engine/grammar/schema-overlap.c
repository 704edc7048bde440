/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether nothing that is written for a schema can satisfy another one. It need not see every case: what is
 * not seen costs an alternative that nothing satisfies, or a message that asks for a clearer schema.
 */
#include <string.h>

#include "engine/grammar/decimal.h"
#include "engine/grammar/limits.h"
#include "engine/grammar/schema-internal.h"

/* How deep properties are followed. */
#define LEVELS_MAX 8u

/* What is known of a schema together with what its $ref and allOf add. */
struct facts {
    unsigned types;           /* that all of them allow */
    unsigned about;           /* that their keywords are about */
    bool has_type;            /* some of them says which types */
    bool has_choices;         /* so does each alternative for itself */
    bool is_open;             /* further names of properties may be written */
    bool names_some;          /* properties, or says that there are none */
    json_object *list;        /* borrowed: of the first enum, or a list with the first const; NULL: none */
    struct decimal low, high; /* of numbers */
};

typedef void (*visit_fn)(struct schema *s, json_object *part, void *data);

/* The schema itself, what it refers to, and what it adds by allOf. */
static void visit(struct schema *s, json_object *schema, visit_fn fn, void *data)
{
    json_object *ref, *all, *target;

    if (s->depth >= GRAMMAR_DEPTH_MAX || !schema_step(s))
        return;
    s->depth++;
    fn(s, schema, data);
    if (json_object_is_type(schema, json_type_object)) {
        ref = schema_get(schema, "$ref");
        all = schema_get(schema, "allOf");
        target = ref ? schema_resolve(s, ref) : NULL;
        if (target)
            visit(s, target, fn, data);
        for (size_t i = 0;
             all && json_object_is_type(all, json_type_array) && i < json_object_array_length(all); i++)
            visit(s, json_object_array_get_idx(all, i), fn, data);
    }
    s->depth--;
}

static unsigned types_of_list(json_object *list)
{
    unsigned types = 0;

    for (size_t i = 0; i < json_object_array_length(list); i++)
        types |= schema_type_of(json_object_array_get_idx(list, i));
    return types;
}

static unsigned types_of(struct schema *s, json_object *schema);

static unsigned types_of_choices(struct schema *s, json_object *choices)
{
    unsigned types = 0;

    if (!json_object_is_type(choices, json_type_array))
        return SCHEMA_ANY;
    for (size_t i = 0; i < json_object_array_length(choices); i++)
        types |= types_of(s, json_object_array_get_idx(choices, i));
    return types;
}

static void add_values(struct schema *s, json_object *part, struct facts *f)
{
    json_object *list = schema_get(part, "enum"), *constant = NULL;
    bool is_nullable = schema_get(part, "nullable") && json_object_get_boolean(schema_get(part, "nullable"));

    if (json_object_object_get_ex(part, "const", &constant)) {
        list = schema_own(s, json_object_new_array());
        if (list)
            schema_append(s, list, json_object_get(constant));
    }
    if (!list || !json_object_is_type(list, json_type_array))
        return;
    f->types &= types_of_list(list) | (is_nullable ? SCHEMA_NULL : 0u);
    f->has_type = true;
    if (!f->list && !is_nullable)
        f->list = list;
}

/* @side 1: @to is a lower bound, -1: an upper one. */
static void add_bound(json_object *part, const char *name, bool exclusive, int side, struct decimal *to)
{
    json_object *value = schema_get(part, name);
    struct decimal d;
    int order;

    if (!value || !decimal_of(value, &d))
        return;
    d.exclusive = exclusive;
    order = to->exists ? decimal_order(&d, to) * side : 1;
    if (order > 0 || (order == 0 && exclusive))
        *to = d;
}

static void add_facts(struct schema *s, json_object *part, void *data)
{
    static const char *const lists[] = {"anyOf", "oneOf"};
    struct facts *f = data;
    json_object *more;

    if (json_object_is_type(part, json_type_boolean) && !json_object_get_boolean(part))
        f->types = 0;
    if (!json_object_is_type(part, json_type_object))
        return;
    if (schema_get(part, "type")) {
        f->types &= schema_types(s, part);
        f->has_type = true;
    } else {
        f->about |= schema_types_about(part);
    }
    add_values(s, part, f);
    add_bound(part, "minimum", false, 1, &f->low);
    add_bound(part, "exclusiveMinimum", true, 1, &f->low);
    add_bound(part, "maximum", false, -1, &f->high);
    add_bound(part, "exclusiveMaximum", true, -1, &f->high);
    for (size_t i = 0; i < 2; i++)
        if (schema_get(part, lists[i]))
            f->types &= types_of_choices(s, schema_get(part, lists[i]));
    more = schema_get(part, "additionalProperties");
    f->has_choices |=
        schema_get(part, "anyOf") || schema_get(part, "oneOf") || schema_has_conditions(s, part);
    f->names_some |= more || schema_get(part, "properties") || schema_get(part, "required");
    f->is_open |=
        (more && !(json_object_is_type(more, json_type_boolean) && !json_object_get_boolean(more))) ||
        schema_get(part, "patternProperties") || schema_get(part, "propertyNames") ||
        schema_get(part, "anyOf") || schema_get(part, "oneOf") || schema_get(part, "if") ||
        schema_get(part, "not");
}

/* @is_written: the schema is the one that is written for, which without `type` is what its keywords are
 * about. */
static struct facts find_facts(struct schema *s, json_object *schema, bool is_written)
{
    struct facts f = {.types = SCHEMA_ANY};

    visit(s, schema, add_facts, &f);
    if (is_written && !f.has_type && !f.has_choices && f.about != 0)
        f.types &= f.about;
    return f;
}

static unsigned types_of(struct schema *s, json_object *schema)
{
    return s->ir->error ? SCHEMA_ANY : find_facts(s, schema, false).types;
}

/* ---- properties ---- */

struct search {
    const char *name;
    json_object *found; /* a list of the schemas that the property has to satisfy */
    bool is_named;
};

static void find_property(struct schema *s, json_object *part, void *data)
{
    struct search *search = data;
    json_object *named, *own, *more;

    if (!json_object_is_type(part, json_type_object))
        return;
    named = schema_get(part, "properties");
    more = schema_get(part, "additionalProperties");
    if (named && json_object_is_type(named, json_type_object) &&
        json_object_object_get_ex(named, search->name, &own)) {
        search->is_named = true;
        schema_append(s, search->found, json_object_get(own));
    } else if (more && !schema_get(part, "patternProperties")) {
        schema_append(s, search->found, json_object_get(more));
    }
}

static void add_required(struct schema *s, json_object *part, void *data)
{
    json_object *names = data, *own;

    own = json_object_is_type(part, json_type_object) ? schema_get(part, "required") : NULL;
    for (size_t i = 0; own && json_object_is_type(own, json_type_array) && i < json_object_array_length(own);
         i++)
        schema_append(s, names, json_object_get(json_object_array_get_idx(own, i)));
}

static json_object *required_names(struct schema *s, json_object *schema)
{
    json_object *names = schema_own(s, json_object_new_array());

    if (names)
        visit(s, schema, add_required, names);
    return names;
}

static json_object *all_of(struct schema *s, json_object *list)
{
    json_object *o = schema_own(s, json_object_new_object());

    if (o)
        schema_add(s, o, "allOf", json_object_get(list));
    return o;
}

static bool is_never(struct schema *s, json_object *schema, struct facts f, unsigned level);

static bool has_nothing(struct schema *s, json_object *schema, unsigned level)
{
    return schema && is_never(s, schema, find_facts(s, schema, false), level);
}

static bool lacks_a_property(struct schema *s, json_object *schema, unsigned level)
{
    json_object *names = required_names(s, schema);

    for (size_t i = 0; names && i < json_object_array_length(names) && !s->ir->error; i++) {
        struct search search = {.name = json_object_get_string(json_object_array_get_idx(names, i)),
                                .found = schema_own(s, json_object_new_array())};

        if (!search.name || !search.found)
            continue;
        visit(s, schema, find_property, &search);
        if (json_object_array_length(search.found) > 0 && has_nothing(s, all_of(s, search.found), level + 1))
            return true;
    }
    return false;
}

static bool are_apart(const struct facts *f)
{
    int order;

    if ((f->types & ~(unsigned)(SCHEMA_NUMBER | SCHEMA_INTEGER)) || !f->low.exists || !f->high.exists)
        return false;
    order = decimal_order(&f->low, &f->high);
    return order > 0 || (order == 0 && (f->low.exclusive || f->high.exclusive));
}

/* @f: of @schema, its types perhaps narrowed further. */
static bool is_never(struct schema *s, json_object *schema, struct facts f, unsigned level)
{
    bool any = false;

    if (s->ir->error || level > LEVELS_MAX)
        return false;
    if (f.types == 0 || are_apart(&f))
        return true;
    if (f.list) {
        for (size_t i = 0; i < json_object_array_length(f.list) && !any; i++)
            any = schema_admits(s, schema, json_object_array_get_idx(f.list, i)) != SCHEMA_NO;
        return !any;
    }
    return f.types == SCHEMA_OBJECT && lacks_a_property(s, schema, level);
}

static bool is_named(struct schema *s, json_object *schema, const char *name)
{
    struct search search = {.name = name, .found = schema_own(s, json_object_new_array())};
    json_object *names = required_names(s, schema);

    if (!name || !search.found || !names)
        return true;
    visit(s, schema, find_property, &search);
    for (size_t i = 0; i < json_object_array_length(names) && !search.is_named; i++) {
        const char *other = json_object_get_string(json_object_array_get_idx(names, i));

        search.is_named = other && strcmp(other, name) == 0;
    }
    return search.is_named;
}

bool schema_is_never(struct schema *s, json_object *schema)
{
    return is_never(s, schema, find_facts(s, schema, true), 0);
}

bool schema_excludes(struct schema *s, json_object *a, json_object *b)
{
    json_object *list = schema_own(s, json_object_new_array()), *names, *both;
    struct facts f = find_facts(s, a, true), common;

    if (!list)
        return false;
    schema_append(s, list, json_object_get(a));
    schema_append(s, list, json_object_get(b));
    both = all_of(s, list);
    if (!both)
        return false;
    common = find_facts(s, both, false);
    common.types &= f.types;
    if (is_never(s, both, common, 0))
        return true;
    /* Of an object that is not open only named properties are written. */
    if (f.is_open || !f.names_some || f.types != SCHEMA_OBJECT)
        return false;
    names = required_names(s, b);
    for (size_t i = 0; names && i < json_object_array_length(names); i++)
        if (!is_named(s, a, json_object_get_string(json_object_array_get_idx(names, i))))
            return true;
    return false;
}
