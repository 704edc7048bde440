/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Numbers of JSON texts, exactly: as their digits. Bounds, divisors and values of schemas are compared by
 * them, because a double is not what was written. Private to engine/grammar.
 */

#include <stdbool.h>
#include <stdint.h>

struct json_object;

#define DECIMAL_DIGITS 40 /* before and behind the point */

struct decimal {
    bool exists, negative;
    bool exclusive;                    /* as a bound: the number itself is outside */
    char whole[DECIMAL_DIGITS + 1];    /* "0" or without zeros in front */
    char fraction[DECIMAL_DIGITS + 1]; /* without zeros at the end */
};

/**
 * decimal_read() - "-12.50e1" → 125; false: no number, or of too many digits
 */
bool decimal_read(const char *text, struct decimal *ret);

/**
 * decimal_of() - of a JSON value; false: it is no number, or has too many digits
 */
bool decimal_of(struct json_object *value, struct decimal *ret);

/**
 * decimal_compare() - of magnitudes: below 0, 0, above 0
 */
int decimal_compare(const struct decimal *a, const struct decimal *b);

/**
 * decimal_order() - the same with signs
 */
int decimal_order(const struct decimal *a, const struct decimal *b);

/**
 * decimal_scaled() - the magnitude times 10 to the power of @n_fraction; false: that is no whole number below
 * 10^18
 */
bool decimal_scaled(const struct decimal *d, unsigned n_fraction, uint64_t *ret);
