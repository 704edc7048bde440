/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Look-ups in the tables by bisection. ASCII, which is most of all text, is decided before.
 */
#include "engine/token/unicode.h"

#include "engine/token/unicode-tables.h"

#define N_ELEMENTS(array) (sizeof(array) / sizeof(*(array)))

static bool is_in(const struct unicode_range *ranges, size_t n, uint32_t code)
{
    size_t low = 0, high = n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (ranges[middle].last < code)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && ranges[low].first <= code;
}

bool unicode_is_space(uint32_t code)
{
    return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 || code == 0x1680 ||
           (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F ||
           code == 0x3000;
}

bool unicode_is_other(uint32_t code)
{
    if (code < 0x80)
        return code < 0x20 || code == 0x7F;
    return is_in(unicode_other, UNICODE_N_OTHER, code);
}

bool unicode_is_punctuation(uint32_t code)
{
    return is_in(unicode_punctuation, UNICODE_N_PUNCTUATION, code);
}

bool unicode_is_mark(uint32_t code)
{
    return code >= 0x300 && is_in(unicode_marks, UNICODE_N_MARKS, code);
}

bool unicode_is_ideograph(uint32_t code)
{
    static const struct unicode_range blocks[] = {
        {0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},   {0x20000, 0x2A6DF},
        {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F},
    };

    return code >= 0x3400 && is_in(blocks, N_ELEMENTS(blocks), code);
}

uint32_t unicode_to_lower(uint32_t code)
{
    size_t low = 0, high = UNICODE_N_LOWER;

    if (code < 0x80)
        return code >= 'A' && code <= 'Z' ? code + ('a' - 'A') : code;
    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (unicode_lower[middle].from < code)
            low = middle + 1;
        else
            high = middle;
    }
    return low < UNICODE_N_LOWER && unicode_lower[low].from == code ? unicode_lower[low].to : code;
}

/* The letters of a Hangul syllable, by the rule of the Unicode standard (chapter 3.12). */
static size_t hangul_letters(uint32_t code, uint32_t to[UNICODE_BASES_MAX])
{
    uint32_t i = code - 0xAC00, last = i % 28;

    to[0] = 0x1100 + i / (21 * 28);
    to[1] = 0x1161 + i % (21 * 28) / 28;
    to[2] = 0x11A7 + last;
    return last ? 3 : 2;
}

size_t unicode_to_bases(uint32_t code, uint32_t to[UNICODE_BASES_MAX])
{
    size_t low = 0, high = UNICODE_N_BASES, n = 0;

    to[0] = code;
    if (code < 0xC0)
        return 1;
    if (code >= 0xAC00 && code <= 0xD7A3)
        return hangul_letters(code, to);
    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (unicode_bases[middle].from < code)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == UNICODE_N_BASES || unicode_bases[low].from != code)
        return 1;
    while (n < UNICODE_BASES_MAX && unicode_bases[low].to[n]) {
        to[n] = unicode_bases[low].to[n];
        n++;
    }
    return n;
}
