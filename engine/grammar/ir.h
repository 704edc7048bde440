/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The form that all notations are turned into: a tree of nodes over characters, with rules that may call each
 * other. gbnf.c, regex.c and schema*.c write it, nfa.c reads it. Private to engine/grammar.
 *
 * Errors stick: after the first one every function returns node 0 and does nothing, so that only the end of a
 * compilation has to look. Nodes are numbers; node 0 is the empty text.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fault;

enum ir_kind {
    IR_EMPTY,
    IR_BYTES, /* bytes[at ... at + n) */
    IR_CLASS, /* one character of ranges[at ... at + n), sorted and disjoint; n 0: never matches */
    IR_TOKEN, /* the special token tokens[at] */
    IR_CAT,   /* children[at ... at + n) one after the other */
    IR_ALT,   /* one of them; n 0: never matches */
    IR_LIST, /* children[at + 1 ... at + n) in this order with children[at] between; those not in `needed` may
                be absent */
    IR_REPEAT, /* node `at`, min to max times */
    IR_RULE,   /* rule `at` */
};

#define IR_FOREVER UINT32_MAX
#define IR_NO_RULE UINT32_MAX

struct ir_range {
    uint32_t low, high; /* code points, both in it */
};

struct ir_node {
    enum ir_kind kind;
    uint32_t at, n;
    uint32_t min, max; /* REPEAT */
    uint32_t place;
};

struct ir_rule {
    uint32_t name; /* into bytes, terminated */
    uint32_t body;
    uint32_t place;
    bool defined;
};

struct ir {
    bool is_schema; /* places are paths in a JSON Schema, else lines and columns */
    struct ir_node *nodes;
    struct ir_range *ranges;
    struct ir_rule *rules;
    uint32_t *children;
    uint8_t *needed; /* per child of a LIST */
    char *bytes;
    int32_t *tokens;
    uint32_t n_nodes, n_ranges, n_rules, n_children, n_bytes, n_tokens;
    uint32_t nodes_allocated, ranges_allocated, rules_allocated, children_allocated, bytes_allocated;
    uint32_t root;  /* rule */
    uint32_t place; /* of nodes that are made now */
    int error;      /* 0, -EINVAL (told in *reterr), -ENOMEM */
    struct fault *reterr;
};

/**
 * ir_init() - empty; *reterr is filled in by whoever finds the first error; ir_done() has to be called
 */
int ir_init(struct ir *ir, bool is_schema, struct fault *reterr);
void ir_done(struct ir *ir);

/**
 * ir_fail() - the first error: about the parameter that the notation belongs to, with the place before the
 * reason
 */
void ir_fail(struct ir *ir, uint32_t place, const char *format, ...) __attribute__((format(printf, 3, 4)));

/**
 * ir_place() - of a line and a column; ir_path(): of a text that is copied
 */
uint32_t ir_place(uint32_t line, uint32_t column);
uint32_t ir_path(struct ir *ir, const char *path);

uint32_t ir_bytes(struct ir *ir, const char *bytes, size_t n);
uint32_t ir_text(struct ir *ir, const char *text);
uint32_t ir_token(struct ir *ir, int32_t token);

/**
 * ir_class() - one character out of @ranges, which need be neither sorted nor disjoint (they are made so in
 * place) Surrogates are no characters and never match.
 */
uint32_t ir_class(struct ir *ir, struct ir_range *ranges, size_t n, bool negate);

/**
 * ir_json_class() - the same as it is spelled inside a JSON string: quotes, backslashes and controls by
 * escapes
 */
uint32_t ir_json_class(struct ir *ir, struct ir_range *ranges, size_t n, bool negate);

uint32_t ir_cat(struct ir *ir, const uint32_t *nodes, size_t n);
uint32_t ir_alt(struct ir *ir, const uint32_t *nodes, size_t n);
uint32_t ir_list(struct ir *ir, uint32_t separator, const uint32_t *nodes, const bool *needed, size_t n);
uint32_t ir_repeat(struct ir *ir, uint32_t node, uint32_t min, uint32_t max);
uint32_t ir_call(struct ir *ir, uint32_t rule);

#define ir_cat_of(ir, ...) \
    ir_cat(ir, (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))
#define ir_alt_of(ir, ...) \
    ir_alt(ir, (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

/**
 * ir_rule_new() - a rule without a body yet; @name is copied
 */
uint32_t ir_rule_new(struct ir *ir, const char *name, size_t n);
void ir_rule_set(struct ir *ir, uint32_t rule, uint32_t body);

/**
 * ir_rule_name() - terminated; valid until the next change of the IR
 */
const char *ir_rule_name(const struct ir *ir, uint32_t rule);

/**
 * ir_normalise() - sort ranges and join those that touch; returns how many are left
 */
size_t ir_normalise(struct ir_range *ranges, size_t n);
