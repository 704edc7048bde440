/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One rendering: its limits, scopes and output. Everything below chat_render() takes a `struct eval`, returns
 * 0 or a negative errno with eval->fault set, and gives its result through the last parameter.
 */

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "engine/chat/ast.h"
#include "engine/chat/chat.h"
#include "engine/chat/value.h"

/* Nested evaluations: a chain like 1+1+1+… is a tree as deep as it is long. A level takes well under 1 KB of
 * stack. */
#define EVAL_DEPTH_MAX 1000

struct scope {
    struct scope *parent;
    struct dict variables;
};

struct loop {
    struct list *items;
    size_t i, n;
    struct value changed;
    bool has_changed;
};

struct eval {
    struct arena arena;
    const struct chat_limits *limits;
    const struct tm *now;
    struct fault *fault;
    struct scope *scope;
    struct builder *output; /* of the innermost block that collects: a macro, {% set %}…, or the whole */
    uint64_t steps;
    uint32_t depth, calls;
    uint32_t line; /* of the node that is being evaluated */
};

struct argument {
    struct text name; /* "" for a positional one */
    struct value value;
};

struct arguments {
    size_t n;
    struct argument *items;
};

/**
 * eval_expression() - the value of an expression node
 */
int eval_expression(struct eval *e, const struct chat_node *node, struct value *ret);

/**
 * eval_statements() - run a list of statements; output goes to eval->output
 */
int eval_statements(struct eval *e, const struct chat_node *first);

/**
 * eval_arguments() - the values of NODE_ARGUMENTs
 */
int eval_arguments(struct eval *e, const struct chat_node *first, struct arguments *ret);

/**
 * eval_call_macro() - run a macro; @caller is what {{ caller() }} finds in it, or undefined
 */
int eval_call_macro(struct eval *e, const struct macro *macro, const struct arguments *arguments,
                    struct value caller, struct value *ret);

/**
 * eval_call() - call a value
 */
int eval_call(struct eval *e, struct value callee, const struct arguments *arguments, struct value caller,
              struct value *ret);

/**
 * eval_fail() - set the fault to "line N: …" and return -EINVAL
 */
int eval_fail(struct eval *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

/**
 * eval_memory() - set the fault for an arena that is exhausted and return -E2BIG
 */
int eval_memory(struct eval *e);

/**
 * eval_spend() - count steps: one for each 64 bytes looked at; -E2BIG with the fault when there are too many
 */
int eval_spend(struct eval *e, size_t n_bytes);

/**
 * eval_write() - str() of a value as a text in the arena
 */
int eval_write(struct eval *e, struct value v, struct text *ret);

/**
 * eval_items() - what a `for` over @v goes through: list items, keys of a dict, characters of a string
 */
int eval_items(struct eval *e, struct value v, struct list **ret);

/**
 * eval_set() - set a variable in the current scope
 */
int eval_set(struct eval *e, struct text name, struct value v);

/**
 * eval_argument() - the positional argument @position or the keyword @name; @fallback when there is neither
 */
struct value eval_argument(const struct arguments *arguments, size_t position, const char *name,
                           struct value fallback);

/**
 * eval_attribute() - object.name, as a template reads it; undefined when there is none
 */
int eval_attribute(struct eval *e, struct value object, struct text name, struct value *ret);

/**
 * eval_item() - object[index]; undefined when there is none
 */
int eval_item(struct eval *e, struct value object, struct value index, struct value *ret);

/**
 * eval_in() - whether @needle is in @haystack
 */
int eval_in(struct eval *e, struct value needle, struct value haystack, bool *ret);

/**
 * filter_apply() - value | name(arguments)
 */
int filter_apply(struct eval *e, struct text name, struct value v, const struct arguments *arguments,
                 struct value *ret);

/**
 * test_apply() - value is name(arguments)
 */
int test_apply(struct eval *e, struct text name, struct value v, const struct arguments *arguments,
               bool *ret);

/**
 * method_exists() - whether values of this kind have a method called @name
 */
bool method_exists(struct value v, struct text name);

/**
 * method_call() - receiver.name(arguments)
 */
int method_call(struct eval *e, const struct method *method, const struct arguments *arguments,
                struct value *ret);

/**
 * function_find() - a function that every template has: range, namespace, raise_exception, strftime_now, dict
 */
bool function_find(struct text name, struct value *ret);

/**
 * function_call() - call one of them
 */
int function_call(struct eval *e, struct text name, const struct arguments *arguments, struct value *ret);
