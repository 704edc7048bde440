/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The parts of the compiler of schemas: schema.c dispatches, schema-merge.c brings $ref and allOf down to
 * plain schemas, schema-object.c, schema-string.c and schema-number.c write the values. Private to
 * engine/grammar.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "engine/grammar/ir.h"

#define SCHEMA_PATH_MAX 512

/* Subschemas looked at, merged ones included: allOf and $ref could make exponentially many. */
#define SCHEMA_STEPS_MAX 50000u

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
uint32_t schema_string(struct schema *s, json_object *schema);
uint32_t schema_number(struct schema *s, json_object *schema, bool is_integer);

/**
 * schema_text() - a string's characters between quotes, as minLength, maxLength, pattern and format say
 */
uint32_t schema_text(struct schema *s, json_object *schema);

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
