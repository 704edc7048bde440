/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Cutting a text into the words inside which byte-level BPE merges: each model family has its own patterns, named by
 * tokenizer.ggml.pre. Private to engine/token.
 */

#include <stdbool.h>
#include <stddef.h>

/* pcre2.h wants its code unit width first; everybody who includes this gets the 8-bit library. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

struct family;

#define PATTERNS_MAX 6

struct pretokenizer {
    pcre2_code *codes[PATTERNS_MAX]; /* one after the other: each cuts what the ones before left in one piece */
    size_t n_codes;
    pcre2_match_context *context;
    const struct family *family;
};

/* Called for each word in order; anything but 0 ends the splitting and is returned. */
typedef int (*pretokenizer_word_fn)(void *context, const char *word, size_t n_bytes);

/**
 * pretokenizer_init() - compile the patterns of @family, a row of the table; @p is all zero
 * pretokenizer_done() has to be called even on failure. Returns 0, -ENOMEM.
 */
int pretokenizer_init(struct pretokenizer *p, const struct family *family);

/**
 * pretokenizer_done() - release the compiled patterns
 */
void pretokenizer_done(struct pretokenizer *p);

/**
 * pretokenizer_split() - hand all bytes of a text to @fn, word by word
 * Bytes that are no UTF-8 make words of their own.
 * Returns 0, what @fn returned, -ERANGE (a pattern took too many steps), -ENOMEM.
 */
int pretokenizer_split(const struct pretokenizer *p, const char *text, size_t n_bytes, pretokenizer_word_fn fn,
                       void *context);
