/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/grammar/decimal.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"

#define SCALED_MAX UINT64_C(1000000000000000000)

int decimal_compare(const struct decimal *a, const struct decimal *b)
{
    size_t n_a = strlen(a->whole), n_b = strlen(b->whole);
    int order = n_a != n_b ? (n_a < n_b ? -1 : 1) : strcmp(a->whole, b->whole);

    return order != 0 ? order : strcmp(a->fraction, b->fraction);
}

bool decimal_read(const char *text, struct decimal *ret)
{
    char digits[2 * DECIMAL_DIGITS + 1];
    int n = 0, point = -1, exponent = 0, from = 0, to;

    *ret = (struct decimal){.exists = true, .negative = *text == '-'};
    for (text += *text == '-' || *text == '+'; (*text >= '0' && *text <= '9') || *text == '.'; text++) {
        if (*text == '.')
            point = n;
        else if (n == 2 * DECIMAL_DIGITS)
            return false;
        else
            digits[n++] = *text;
    }
    if (point < 0)
        point = n;
    if ((*text == 'e' || *text == 'E') && sscanf(text + 1, "%5d", &exponent) != 1)
        return false;
    point += exponent;
    while (from < n && digits[from] == '0')
        from++;
    to = n;
    while (to > from && digits[to - 1] == '0')
        to--;
    if (n == 0)
        return false;
    if (from == to) {
        ret->whole[0] = '0';
        ret->negative = false;
        return true;
    }
    if (point - from > DECIMAL_DIGITS || to - point > DECIMAL_DIGITS)
        return false;
    n = 0;
    for (int i = from; i < point; i++)
        ret->whole[n++] = i < to ? digits[i] : '0';
    if (n == 0)
        ret->whole[n++] = '0';
    n = 0;
    for (int i = point < from ? point : from > point ? from : point; i < to; i++)
        ret->fraction[n++] = i >= from ? digits[i] : '0';
    return true;
}

bool decimal_of(struct json_object *value, struct decimal *ret)
{
    return (json_object_is_type(value, json_type_int) || json_object_is_type(value, json_type_double)) &&
           decimal_read(json_object_to_json_string(value), ret);
}

int decimal_order(const struct decimal *a, const struct decimal *b)
{
    if (a->negative != b->negative)
        return a->negative ? -1 : 1;
    return a->negative ? -decimal_compare(a, b) : decimal_compare(a, b);
}

bool decimal_scaled(const struct decimal *d, unsigned n_fraction, uint64_t *ret)
{
    size_t n_whole = strlen(d->whole), n = strlen(d->fraction);
    uint64_t value = 0;

    if (n > n_fraction)
        return false;
    for (size_t i = 0; i < n_whole + n_fraction; i++) {
        char digit = i < n_whole ? d->whole[i] : i - n_whole < n ? d->fraction[i - n_whole] : '0';

        value = 10 * value + (uint64_t)(digit - '0');
        if (value >= SCALED_MAX)
            return false;
    }
    *ret = value;
    return true;
}
