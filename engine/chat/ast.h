/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The tree of a template. One node type for all kinds; what a node's members mean stands beside its kind.
 * Lists (statements, arguments, items) are linked by `next`. Nodes live in the template's arena and never
 * change.
 */

#include <stdint.h>

#include "engine/chat/value.h"

struct fault;
struct token;

enum node_kind {
    /* expressions */
    NODE_LITERAL,   /* value */
    NODE_NAME,      /* text */
    NODE_LIST,      /* a: items */
    NODE_TUPLE,     /* a: items */
    NODE_DICT,      /* a: NODE_PAIR… */
    NODE_PAIR,      /* a: key, b: value */
    NODE_ATTRIBUTE, /* a: object, text */
    NODE_ITEM,      /* a: object, b: index or NODE_SLICE */
    NODE_SLICE,     /* a: start, b: stop, c: step; each may be NULL */
    NODE_CALL,      /* a: what is called, b: NODE_ARGUMENT… */
    NODE_ARGUMENT,  /* a: expression, text: keyword or "" */
    NODE_FILTER,    /* a: operand (NULL in a filter block), text, b: NODE_ARGUMENT… */
    NODE_TEST,      /* a: operand, text, b: NODE_ARGUMENT… */
    NODE_NOT,       /* a */
    NODE_NEGATE,    /* a */
    NODE_PLUS,      /* a */
    NODE_BINARY,    /* op: + - * / % ~ or 'f' for //, 'p' for **; a, b */
    NODE_AND,       /* a, b */
    NODE_OR,        /* a, b */
    NODE_COMPARE,   /* a, b: NODE_OPERAND… */
    NODE_OPERAND,   /* op: = ! < > l (<=) g (>=) i (in) n (not in); a */
    NODE_CONDITION, /* a if b else c; c may be NULL */
    NODE_PARAMETER, /* of a macro: text, a: default or NULL */
    /* statements */
    NODE_TEXT,         /* text */
    NODE_OUTPUT,       /* a: expression */
    NODE_IF,           /* a: condition, b: body, c: else body (an elif is a nested NODE_IF) */
    NODE_FOR,          /* a: target, b: iterable, c: condition or NULL, d: body, e: else body */
    NODE_SET,          /* a: target, b: expression */
    NODE_SET_BLOCK,    /* a: target, b: body, c: filters or NULL */
    NODE_MACRO,        /* text, a: NODE_PARAMETER…, b: body */
    NODE_CALL_BLOCK,   /* a: NODE_CALL, b: body, c: NODE_PARAMETER… */
    NODE_FILTER_BLOCK, /* a: NODE_FILTER whose innermost operand is NULL, b: body */
    NODE_WITH,         /* a: NODE_SET…, b: body */
    NODE_GENERATION,   /* b: body */
    NODE_BREAK,
    NODE_CONTINUE,
};

struct chat_node {
    enum node_kind kind;
    uint32_t line;
    char op;
    struct text text;
    struct value value;
    struct chat_node *a, *b, *c, *d, *e;
    struct chat_node *next;
};

/**
 * parse_template() - tokens to a list of statements
 * @arena: holds the nodes
 * @ret:   the first statement, NULL for an empty template
 * Returns 0, -ENOMEM, -EINVAL with @reterr set.
 */
int parse_template(struct arena *arena, const struct token *tokens, struct chat_node **ret,
                   struct fault *reterr);
