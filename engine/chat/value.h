/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Values of the template language. They live in the arena of one rendering and are freed with it, so nothing
 * is counted and a value is copied by assignment; lists and dicts are shared by reference and never change
 * once they are built (the sandbox is immutable), but for namespaces.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct arena_chunk;
struct chat_node;
struct json_object;
struct loop;

struct arena {
    struct arena_chunk *chunks;
    size_t used; /* bytes handed out */
    size_t used_max;
};

enum value_kind {
    VALUE_UNDEFINED, /* string: what was looked for */
    VALUE_NONE,
    VALUE_BOOL,
    VALUE_INT,
    VALUE_FLOAT,
    VALUE_STRING,
    VALUE_LIST,
    VALUE_DICT,
    VALUE_NAMESPACE,
    VALUE_MACRO,
    VALUE_FUNCTION, /* string: its name */
    VALUE_METHOD,   /* a function with the value that it was taken from */
    VALUE_LOOP,
    VALUE_KIND_MAX,
};

struct text {
    const char *data; /* not terminated */
    size_t n;
};

struct scope;

struct macro {
    const struct chat_node *node;
    struct scope *scope; /* where it was defined */
};

struct value {
    enum value_kind kind;
    bool is_tuple;  /* of a list: shown with parentheses */
    bool is_markup; /* of a string: marked as safe, so that + escapes what is added to it (HTML) */
    union {
        bool boolean;
        int64_t integer;
        double real;
        struct text string;
        struct list *list;
        struct dict *dict;
        const struct macro *macro;
        const struct method *method;
        struct loop *loop;
    };
};

struct list {
    size_t n, allocated;
    struct value *items;
};

struct entry {
    struct value key, value;
};

struct dict {
    size_t n, allocated;
    struct entry *entries; /* in order of insertion, as in Python */
};

struct method {
    struct value receiver;
    struct text name;
};

/* A string that grows in an arena. */
struct builder {
    struct arena *arena;
    char *data;
    size_t n, allocated;
};

/**
 * arena_alloc() - @n bytes that live as long as the arena, or NULL: no memory, or over its limit
 */
void *arena_alloc(struct arena *a, size_t n);

/**
 * arena_done() - free everything
 */
void arena_done(struct arena *a);

/**
 * builder_add() - append @n bytes; returns 0 or -ENOMEM (also over the arena's limit)
 */
int builder_add(struct builder *b, const char *data, size_t n);

/**
 * builder_value() - the string so far, as a value
 */
struct value builder_value(const struct builder *b);

/**
 * value_none() - value_bool(), value_int(), value_float(), value_text(), value_undefined(), value_string()
 * (of a terminated constant): a value without anything behind it
 */
struct value value_none(void);
struct value value_bool(bool b);
struct value value_int(int64_t i);
struct value value_float(double f);
struct value value_text(const char *data, size_t n);
struct value value_string(const char *constant);
struct value value_undefined(struct text name);

/**
 * value_list_new() - an empty list or, with @is_tuple, a tuple; its kind is VALUE_UNDEFINED when memory is
 * short
 */
struct value value_list_new(struct arena *a, bool is_tuple);

/**
 * value_dict_new() - an empty dict; its kind is VALUE_UNDEFINED when memory is short
 */
struct value value_dict_new(struct arena *a);

/**
 * list_add() - append; returns 0 or -ENOMEM
 */
int list_add(struct arena *a, struct list *l, struct value v);

/**
 * dict_set() - add or replace the value of a key; returns 0 or -ENOMEM
 */
int dict_set(struct arena *a, struct dict *d, struct value key, struct value v);

/**
 * dict_get() - the value of a key, or NULL
 */
const struct value *dict_get(const struct dict *d, struct value key);

/**
 * value_is_true() - Python's truth: empty, zero, None and undefined are false
 */
bool value_is_true(struct value v);

/**
 * value_is_equal() - Python's ==; numbers compare across int, float and bool
 */
bool value_is_equal(struct value a, struct value b);

/**
 * value_compare() - order of two numbers, strings or lists: *ret < 0, 0 or > 0; false when they have none
 */
bool value_compare(struct value a, struct value b, int *ret);

/**
 * value_is_number() - int, float or bool; *ret (may be NULL) as a double
 */
bool value_is_number(struct value v, double *ret);

/**
 * value_is_named() - whether a string value is exactly @name
 */
bool value_is_named(struct value v, const char *name);

/**
 * text_is() - whether a text is exactly @name
 */
bool text_is(struct text t, const char *name);

/**
 * value_kind_to_string() - Python's name of the type, for messages: "str", "int", …
 */
const char *value_kind_to_string(enum value_kind kind);

/**
 * value_write() - append str(v), as {{ v }} shows it, or with @repr repr(v); returns 0, -ENOMEM, -E2BIG (too
 * deep)
 */
int value_write(struct builder *b, struct value v, bool repr);

/**
 * value_from_json() - values of a JSON text; returns 0, -ENOMEM, -E2BIG (deeper than @depth_max)
 */
int value_from_json(struct arena *a, struct json_object *json, uint32_t depth_max, struct value *ret);

/* Python's json.dumps(): indent < 0 is one line. */
struct dumps_style {
    int indent;
    bool sort_keys;
    bool ascii;
    struct text item_separator, key_separator;
};

/**
 * value_dumps() - append json.dumps(v); returns 0, -ENOMEM, -E2BIG (too deep), -EINVAL (no JSON type)
 */
int value_dumps(struct builder *b, struct value v, const struct dumps_style *style);
