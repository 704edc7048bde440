/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the suites over the reference folder share: its files, and TAP with reasons. The folder is $RESIDENTD_REFERENCE;
 * models that it does not store are looked for in the folder that the program is given as its argument.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

/* Cases so far; tap_end() prints the plan, so their number need not be known before. */
struct tap {
    unsigned n, n_failed;
};

void tap_ok(struct tap *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/**
 * tap_not_ok() - a failed case; @why, of one or more lines, goes behind it
 */
void tap_not_ok(struct tap *t, const char *why, const char *format, ...) __attribute__((format(printf, 3, 4)));

void tap_skip(struct tap *t, const char *why, const char *format, ...) __attribute__((format(printf, 3, 4)));

/**
 * tap_end() - print the plan; returns the program's exit status
 */
int tap_end(const struct tap *t);

/**
 * reference_path() - FOLDER/@folder/@name; the caller frees it
 */
char *reference_path(const char *folder, const char *name);

/**
 * reference_present() - whether there is a reference folder at all
 */
bool reference_present(void);

/**
 * reference_json() - the object or array in FOLDER/@folder/@name; NULL when there is no such file
 */
struct json_object *reference_json(const char *folder, const char *name);

/**
 * reference_floats() - FOLDER/logits/@name, which has to hold @n floats; ends the program otherwise
 */
float *reference_floats(const char *name, size_t n);

/**
 * reference_ids() - member @key of @o, an array of integers; *ret_n of them, NULL when there is none
 */
int32_t *reference_ids(struct json_object *o, const char *key, uint32_t *ret_n);

/**
 * reference_number() - element @i of the array @key of @o, or with a negative @i the number @key itself
 */
double reference_number(struct json_object *o, const char *key, int i);

/**
 * reference_text() - member @key of @o, NULL when it is absent or no string
 */
const char *reference_text(struct json_object *o, const char *key);

/**
 * reference_true() - whether member @key of @o is true
 */
bool reference_true(struct json_object *o, const char *key);
