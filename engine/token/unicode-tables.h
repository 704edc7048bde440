/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What make-unicode.py extracts from the Unicode data, each sorted by code point. Private to engine/token/unicode.c.
 */

#include <stdint.h>

#define UNICODE_N_OTHER 701
#define UNICODE_N_PUNCTUATION 189
#define UNICODE_N_MARKS 336
#define UNICODE_N_LOWER 1432
#define UNICODE_N_BASES 2043

struct unicode_range {
    uint32_t first, last;
};

struct unicode_pair {
    uint32_t from, to;
};

struct unicode_base {
    uint32_t from, to[3]; /* 0 behind the last */
};

extern const struct unicode_range unicode_other[UNICODE_N_OTHER];             /* C*: control, format, unassigned … */
extern const struct unicode_range unicode_punctuation[UNICODE_N_PUNCTUATION]; /* P* */
extern const struct unicode_range unicode_marks[UNICODE_N_MARKS];             /* Mn */
extern const struct unicode_pair unicode_lower[UNICODE_N_LOWER];              /* where one character becomes one */
extern const struct unicode_base unicode_bases[UNICODE_N_BASES];              /* NFD without marks; no Hangul */
