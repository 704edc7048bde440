/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The families of byte-pair vocabularies, named by tokenizer.ggml.pre: how each cuts a text into the words inside which
 * it merges. A table; pretokenise.c uses it. Private to engine/token.
 */

#include <stddef.h>

enum family_flags {
    FAMILY_WHOLE_WORDS = 1 << 0, /* a word that is a token as it stands is not put together by merges */
    FAMILY_ADDS_BOS = 1 << 1,    /* when the metadata do not say */
    FAMILY_RAW = 1 << 2,         /* spellings are text with U+2581 for spaces, not one character per byte */
    FAMILY_WHOLE_LINE_FEEDS = 1 << 3, /* as WHOLE_WORDS, for words of line feeds only */
};

struct family {
    const char *name;            /* as tokenizer.ggml.pre spells it */
    const char *const *patterns; /* up to NULL; one after the other: each cuts what the ones before left in one piece */
    unsigned flags;              /* enum family_flags */
};

/*
 * A pattern known by its address: the digits it finds are cut into threes from the right, 1|234|567. Published as
 * "\\d{1,3}(?=(?:\\d{3})*\\b)", which looks at the whole rest of the number for each group: quadratic in its length.
 */
extern const char families_threes[];

/**
 * family_find() - the family with this name, NULL when there is none
 */
const struct family *family_find(const char *name, size_t n_name);

/**
 * family_at() - family @i of the table, NULL behind its end
 */
const struct family *family_at(size_t i);
