/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The one way in which JSON from outside becomes json-c objects. A pass over the bytes comes first and refuses what
 * json-c lets through: duplicate keys, NaN and Infinity, numbers that no int64, uint64 or finite double holds, bytes
 * that are no UTF-8, NUL characters in keys, nesting and sizes beyond the caller's limits. It can also say where
 * a value stands (policy files) and, where the caller allows them, skips comments. Source: RFC 8259.
 */

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct json_limits {
    size_t bytes_max;  /* of the text */
    uint32_t depth_max; /* arrays and objects inside each other; 1: a flat object */
    size_t values_max; /* scalars, arrays, objects and keys together */
    bool comments;     /* allow C and C++ style comments, as in policy files */
};

struct json_error {
    uint32_t line, column; /* from 1; the column counts bytes */
    size_t offset;
    const char *reason; /* what was expected or is wrong; static */
    char key[128];      /* the key that is doubled or whose value is wrong, "" if there is none */
};

/* Where each value of a text stands. Owned by the caller, freed by json_index_free(). */
struct json_index;

/**
 * json_parse() - check @n bytes and turn them into objects
 * @text:      need not be terminated
 * @ret:       the value, owned by the caller (json_object_put()); NULL for the JSON text `null`
 * @ret_index: may be NULL; otherwise the positions of all values, owned by the caller
 * @reterr:    may be NULL; what is wrong and where, on -EINVAL and -E2BIG
 * Returns 0, -EINVAL (no JSON, or refused), -E2BIG (a limit), -ENOMEM.
 */
int json_parse(const char *text, size_t n, const struct json_limits *limits, json_object **ret,
               struct json_index **ret_index, struct json_error *reterr);

/**
 * json_index_find() - where the value at @path stands: keys and array indexes, each after a '/' ("/models/a/path")
 * A '/' inside a key is written "~1" and '~' as "~0" (RFC 6901). Returns false when there is no such value.
 */
bool json_index_find(const struct json_index *index, const char *path, uint32_t *ret_line, uint32_t *ret_column);

/**
 * json_index_free() - release; takes NULL, returns NULL
 */
struct json_index *json_index_free(struct json_index *index);

/**
 * json_text() - the value as one line of JSON text; slashes are not escaped
 * The text belongs to @value and lives until its next change. NULL when memory is short.
 */
const char *json_text(json_object *value);

/**
 * json_free() - json_object_put() for _cleanup_(json_freep)
 */
static inline void json_free(json_object *value)
{
    json_object_put(value);
}

DEFINE_CLEANUP(json_object *, json_free)
DEFINE_CLEANUP(struct json_index *, json_index_free)

#define _cleanup_json_ _cleanup_(json_freep)
