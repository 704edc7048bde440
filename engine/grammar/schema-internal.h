/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The parts of the compiler of schemas: schema.c dispatches, schema-merge.c brings $ref and allOf down to
 * plain schemas, with schema-conditions.c for `not` and `if`; schema-value.c and schema-overlap.c say what
 * satisfies which; schema-object.c, schema-array.c, schema-string.c, schema-number.c and schema-multiple.c
 * write the values. Private to engine/grammar.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "engine/grammar/ir.h"

#define SCHEMA_PATH_MAX 512

/* Subschemas looked at, merged ones included: allOf and $ref could make exponentially many. */
#define SCHEMA_STEPS_MAX 200000u

/* Alternatives that come of two anyOf which hold both. */
#define SCHEMA_PAIRS_MAX 256u

enum schema_type {
    SCHEMA_NULL = 1 << 0,
    SCHEMA_BOOLEAN = 1 << 1,
    SCHEMA_INTEGER = 1 << 2,
    SCHEMA_NUMBER = 1 << 3,
    SCHEMA_STRING = 1 << 4,
    SCHEMA_ARRAY = 1 << 5,
    SCHEMA_OBJECT = 1 << 6,
    SCHEMA_ANY = (1 << 7) - 1,
};

/* Rules that many values share; IR_NO_RULE until they are needed. */
struct schema_rules {
    uint32_t space, value, string, character, key_character, integer, number;
};

struct schema_target {
    json_object *schema; /* of the document */
    uint32_t rule;
};

struct schema {
    struct ir *ir;
    json_object *root;
    char path[SCHEMA_PATH_MAX];
    size_t n_path;
    unsigned depth;
    uint32_t n_steps;
    struct schema_rules rules;
    struct schema_target *targets; /* of $ref, so that each is compiled once */
    size_t n_targets, targets_allocated;
    json_object *owned; /* an array: schemas that were made by merging */
    bool
        drops_fractions; /* schema_negate() left out numbers that are no integers, which can't be asked for */
    const char *refused; /* the keyword that schema_negate() failed at; NULL: none */
};

/**
 * schema_node() - the values that a schema allows
 */
uint32_t schema_node(struct schema *s, json_object *schema);

/**
 * schema_fail() - about the schema at the present path
 */
void schema_fail(struct schema *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

/**
 * schema_enter() - go down to a member of the path; schema_leave() with what it returned goes back
 */
size_t schema_enter(struct schema *s, const char *name);
size_t schema_enter_index(struct schema *s, size_t index);
void schema_leave(struct schema *s, size_t n_path);

/**
 * schema_step() - count a subschema; false, and an error, when there were too many
 */
bool schema_step(struct schema *s);

/**
 * schema_get() - a member that is there and not null, NULL otherwise; borrowed
 */
json_object *schema_get(json_object *schema, const char *name);

/**
 * schema_count() - a member that is a whole number from 0 to INT32_MAX, or @otherwise when it is absent
 */
uint32_t schema_count(struct schema *s, json_object *schema, const char *name, uint32_t otherwise);

/**
 * schema_types() - the types that a schema names, nullable included; without `type` those that its keywords
 * are about, all if there are none
 */
unsigned schema_types(struct schema *s, json_object *schema);

/**
 * schema_types_about() - the types that a schema's keywords are about; 0: it has none of any type
 */
unsigned schema_types_about(json_object *schema);

/**
 * schema_type_of() - of a value; numbers without a fraction are integers, however they are written
 */
unsigned schema_type_of(json_object *value);

/**
 * schema_equal() - whether two values are the same: numbers by what they are, objects in any order
 */
bool schema_equal(json_object *a, json_object *b);

enum schema_answer {
    SCHEMA_NO,
    SCHEMA_UNKNOWN, /* it can't be told */
    SCHEMA_YES,
};

/**
 * schema_admits() - whether a value satisfies a schema, all of it
 */
enum schema_answer schema_admits(struct schema *s, json_object *schema, json_object *value);

/**
 * schema_values() - all values that satisfy a schema, each once, as a list that @s owns; NULL: they can't be
 * listed
 */
json_object *schema_values(struct schema *s, json_object *schema);

/**
 * schema_is_never() - whether nothing would be written for a schema; false also when it can't be seen
 */
bool schema_is_never(struct schema *s, json_object *schema);

/**
 * schema_excludes() - whether nothing that is written for @a satisfies @b; false also when it can't be seen
 */
bool schema_excludes(struct schema *s, json_object *a, json_object *b);

/**
 * schema_negate() - a schema that those values satisfy that do not satisfy @schema, or some of them; owned by
 * @s or the document. NULL: it can't be written (s->refused says because of which keyword), or an error
 */
json_object *schema_negate(struct schema *s, json_object *schema);

/**
 * schema_has_conditions() - whether a schema has keywords that schema_conditions() is about
 */
bool schema_has_conditions(struct schema *s, json_object *schema);

/**
 * schema_excludes_strings() - whether its `not` is a list of strings and its type string: this stays
 */
bool schema_excludes_strings(struct schema *s, json_object *schema);

/**
 * schema_conditions() - what `not`, `if` and `dependentRequired` mean: a list of schemas that have to hold,
 * too; NULL with an error
 */
json_object *schema_conditions(struct schema *s, json_object *schema);

/**
 * schema_check_keywords() - an error about the first one that is not supported
 */
void schema_check_keywords(struct schema *s, json_object *schema);

/**
 * schema_add() - a member of a schema that is made; schema_append(): of a list. The value is consumed
 */
void schema_add(struct schema *s, json_object *to, const char *name, json_object *value_take);
void schema_append(struct schema *s, json_object *to, json_object *value_take);

/**
 * schema_own() - keep a new object until the end; NULL when memory is short (an error is set)
 */
json_object *schema_own(struct schema *s, json_object *object_take);

/**
 * schema_is_annotation() - whether a keyword says nothing about which values are allowed
 */
bool schema_is_annotation(const char *keyword);

/**
 * schema_is_known() - whether it is supported
 */
bool schema_is_known(const char *keyword);

/**
 * schema_resolve() - what a $ref points to; NULL and an error when there is nothing
 */
json_object *schema_resolve(struct schema *s, json_object *ref);

/**
 * schema_flatten() - the same schema without $ref and allOf; NULL with an error. The result is owned by @s or
 * the document
 */
json_object *schema_flatten(struct schema *s, json_object *schema);

/**
 * schema_merge() - the schema of what satisfies both, which are flat
 */
json_object *schema_merge(struct schema *s, json_object *a, json_object *b);

uint32_t schema_object(struct schema *s, json_object *schema);
uint32_t schema_array(struct schema *s, json_object *schema);
uint32_t schema_string(struct schema *s, json_object *schema);
uint32_t schema_number(struct schema *s, json_object *schema, bool is_integer);

/**
 * schema_text() - a string's characters between quotes, as minLength, maxLength, pattern and format say
 */
uint32_t schema_text(struct schema *s, json_object *schema);

/**
 * schema_other_text() - characters between quotes that are none of @names, which are sorted in place, and
 * @min to @max of them; each spelled in one way
 */
uint32_t schema_other_text(struct schema *s, const char **names, uint32_t n, uint32_t min, uint32_t max);

/**
 * schema_literal() - one given value, its white space free
 */
uint32_t schema_literal(struct schema *s, json_object *value);

/* Rules that are made when they are first asked for, as nodes: calls of them. */
uint32_t schema_space(struct schema *s);         /* a space or a line feed with an indentation, or nothing */
uint32_t schema_any(struct schema *s);           /* any value */
uint32_t schema_any_string(struct schema *s);    /* any string, with its quotes */
uint32_t schema_key_character(struct schema *s); /* any character, spelled in one way only */

/**
 * schema_rule() - give a rule a body if it has none; returns a call of it
 */
uint32_t schema_rule(struct schema *s, uint32_t *rule, const char *name, uint32_t (*make)(struct schema *));

/**
 * schema_shared() - a rule with @node for its body, for what is used several times: written out once if it is
 * large
 */
uint32_t schema_shared(struct schema *s, uint32_t node);

/**
 * schema_separated() - calls of @rule with @separator between: at least one, at least @min, at most @max
 */
uint32_t schema_separated(struct schema *s, uint32_t rule, uint32_t separator, uint32_t min, uint32_t max);
