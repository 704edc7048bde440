/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sizes and durations in text. Decimal fractions are taken apart by hand ("1.5G"), so that neither the locale nor
 * binary floating point can change what an administrator wrote.
 */
#include "base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit size_units[] = {
    {"", 1},           {"B", 1},           {"K", 1ull << 10}, {"KiB", 1ull << 10}, {"KB", 1ull << 10},
    {"M", 1ull << 20}, {"MiB", 1ull << 20}, {"MB", 1ull << 20}, {"G", 1ull << 30},   {"GiB", 1ull << 30},
    {"GB", 1ull << 30}, {"T", 1ull << 40}, {"TiB", 1ull << 40}, {"TB", 1ull << 40},  {NULL, 0},
};

static const struct unit count_units[] = {
    {"", 1}, {"k", 1000}, {"K", 1000}, {"M", 1000000}, {"G", 1000000000}, {NULL, 0},
};

static const struct unit time_units[] = {
    {"us", 1},
    {"ms", 1000},
    {"s", 1000000},
    {"sec", 1000000},
    {"", 1000000},
    {"min", 60000000},
    {"m", 60000000},
    {"h", 3600000000},
    {"hr", 3600000000},
    {"d", 86400000000},
    {"day", 86400000000},
    {"w", 604800000000},
    {"week", 604800000000},
    {NULL, 0},
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* One "number unit" at *text, which moves behind it. The fraction counts in units of 10^-9. */
static int parse_term(const char **text, const struct unit *units, uint64_t *ret)
{
    const char *p = *text;
    uint64_t whole = 0, fraction = 0, scale = 1000000000, value, part;
    size_t n = 0;

    if (!is_digit(*p))
        return -EINVAL;
    for (; is_digit(*p); p++) {
        if (!checked_mul(whole, 10, &whole) || !checked_add(whole, (uint64_t)(*p - '0'), &whole))
            return -ERANGE;
    }
    if (*p == '.') {
        p++;
        if (!is_digit(*p))
            return -EINVAL;
        for (; is_digit(*p); p++) {
            if (scale > 1) {
                scale /= 10;
                fraction += (uint64_t)(*p - '0') * scale;
            }
        }
    }
    while ((p[n] >= 'a' && p[n] <= 'z') || (p[n] >= 'A' && p[n] <= 'Z'))
        n++;
    for (; units->name; units++) {
        if (strlen(units->name) == n && strncmp(units->name, p, n) == 0)
            break;
    }
    if (!units->name)
        return -EINVAL;
    if (!checked_mul(whole, units->factor, &value))
        return -ERANGE;
    part = (uint64_t)((unsigned __int128)fraction * units->factor / 1000000000u);
    if (!checked_add(value, part, &value) || value > INT64_MAX)
        return -ERANGE;
    *text = p + n;
    *ret = value;
    return 0;
}

static int parse_whole(const char *text, const struct unit *units, uint64_t *ret)
{
    uint64_t value;
    int r = parse_term(&text, units, &value);

    if (r < 0)
        return r;
    if (*text)
        return -EINVAL;
    *ret = value;
    return 0;
}

int units_parse_size(const char *text, uint64_t *ret_bytes)
{
    return parse_whole(text, size_units, ret_bytes);
}

int units_parse_size_of(const char *text, uint64_t whole, uint64_t *ret_bytes)
{
    static const struct unit percent[] = {{"", 1000000}, {NULL, 0}};
    const char *p = text;
    uint64_t millionths;
    int r;

    if (!*text || text[strlen(text) - 1] != '%')
        return units_parse_size(text, ret_bytes);
    r = parse_term(&p, percent, &millionths);
    if (r < 0)
        return r;
    if (strcmp(p, "%") != 0)
        return -EINVAL;
    if (millionths > 100000000)
        return -ERANGE;
    *ret_bytes = (uint64_t)((unsigned __int128)whole * millionths / 100000000u);
    return 0;
}

int units_parse_count(const char *text, uint64_t *ret)
{
    return parse_whole(text, count_units, ret);
}

int units_parse_duration(const char *text, uint64_t *ret_us)
{
    uint64_t sum = 0;

    if (strcmp(text, "infinity") == 0) {
        *ret_us = UINT64_MAX;
        return 0;
    }
    do {
        uint64_t term;
        int r = parse_term(&text, time_units, &term);

        if (r < 0)
            return r;
        if (!checked_add(sum, term, &sum) || sum > INT64_MAX)
            return -ERANGE;
        while (*text == ' ')
            text++;
    } while (*text);
    *ret_us = sum;
    return 0;
}

const char *units_format_size(uint64_t bytes, char *buffer)
{
    static const char names[] = "BKMGTPE";
    unsigned i = 0;
    uint64_t unit = 1, tenths;

    while (i + 2 < sizeof(names) && bytes / unit >= 1000) {
        unit <<= 10;
        i++;
    }
    tenths = (uint64_t)(((unsigned __int128)bytes * 10 + unit / 2) / unit);
    if (i == 0)
        snprintf(buffer, UNITS_TEXT_MAX, "%" PRIu64 "B", bytes);
    else if (tenths < 1000)
        snprintf(buffer, UNITS_TEXT_MAX, "%" PRIu64 ".%" PRIu64 "%c", tenths / 10, tenths % 10, names[i]);
    else
        snprintf(buffer, UNITS_TEXT_MAX, "%" PRIu64 "%c", (tenths + 5) / 10, names[i]);
    return buffer;
}

const char *units_format_duration(uint64_t us, char *buffer)
{
    uint64_t s = us / 1000000;

    if (us == UINT64_MAX)
        snprintf(buffer, UNITS_TEXT_MAX, "infinity");
    else if (us < 1000)
        snprintf(buffer, UNITS_TEXT_MAX, "%" PRIu64 "us", us);
    else if (us < 1000000)
        snprintf(buffer, UNITS_TEXT_MAX, "%" PRIu64 "ms", us / 1000);
    else if (s < 60)
        snprintf(buffer, UNITS_TEXT_MAX, "%" PRIu64 "s", s);
    else if (s < 3600)
        snprintf(buffer, UNITS_TEXT_MAX, s % 60 ? "%" PRIu64 "min %" PRIu64 "s" : "%" PRIu64 "min", s / 60, s % 60);
    else if (s < 86400)
        snprintf(buffer, UNITS_TEXT_MAX, s / 60 % 60 ? "%" PRIu64 "h %" PRIu64 "min" : "%" PRIu64 "h", s / 3600,
                 s / 60 % 60);
    else
        snprintf(buffer, UNITS_TEXT_MAX, s / 3600 % 24 ? "%" PRIu64 "d %" PRIu64 "h" : "%" PRIu64 "d", s / 86400,
                 s / 3600 % 24);
    return buffer;
}
