/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Text for people. What a model, another user or a file wrote may hold control characters, and a terminal obeys them;
 * here they become visible instead.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/cleanup.h"

/**
 * print_text() - a model's text. With @harmless, C0 and C1 control characters other than line feed and tab are written
 * as \xNN; otherwise (a file, a pipe) the bytes are written as they are
 */
void print_text(FILE *to, const char *text, size_t n, bool harmless);

/**
 * print_json() - one line of JSON. With @harmless, the control characters that JSON allows (DEL, C1) are escaped
 */
void print_json(FILE *to, const char *json, bool harmless);

/* Rows of texts whose columns line up. */
struct table;

/**
 * table_new() - @headers: [n_columns] printed above, borrowed; NULL when memory is short
 * A header that begins with '>' (not printed) is a column of numbers and is aligned to the right.
 */
struct table *table_new(const char *const *headers, size_t n_columns);

/**
 * table_add() - one cell; cells fill the rows from left to right. NULL is shown as "-". Control characters and line
 * ends are escaped
 */
void table_add(struct table *t, const char *text);

/**
 * table_add_format() - the same, as by printf; cut to 255 bytes
 */
void table_add_format(struct table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/**
 * table_add_int() - a number; -1 is shown as "-"
 */
void table_add_int(struct table *t, int64_t number);

/**
 * table_add_size() - bytes as people write them; -1 is shown as "-"
 */
void table_add_size(struct table *t, int64_t bytes);

/**
 * table_print() - all rows; returns false when memory ran short on the way here
 */
bool table_print(const struct table *t, FILE *to);

/**
 * table_free() - takes NULL, returns NULL
 */
struct table *table_free(struct table *t);

DEFINE_CLEANUP(struct table *, table_free)
