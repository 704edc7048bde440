/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Regular expressions of JSON Schema's `pattern` (ECMA 262, without what is no regular language: back
 * references, looking around, word boundaries) as they are spelled inside a JSON string. A pattern is
 * searched for: without ^ and $ it may stand anywhere. Private to engine/grammar.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ir;

struct regex {
    uint32_t node;
    uint32_t min, max; /* characters; max IR_FOREVER: any number */
    /* "^x{min,max}$" with one character x: then its length can be limited further */
    bool is_run;
    uint32_t unit;
};

/**
 * regex_parse() - @n bytes of UTF-8; what is wrong is in ir->error
 */
void regex_parse(struct ir *ir, const char *text, size_t n, struct regex *ret);
