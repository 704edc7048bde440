/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Token ids to text as they come. A character may be spread over several tokens: what is handed out is always whole
 * UTF-8, the rest is held back until it is whole or can no longer become so; then it is U+FFFD.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tokenizer;

struct detokenizer {
    const struct tokenizer *tokenizer; /* borrowed for the detokenizer's life */
    unsigned flags;
    bool began;   /* a piece with text has been seen */
    char *text;   /* what the last call handed out, and behind it what is held back */
    size_t n_text, n_held, n_allocated;
};

enum detokenizer_flags {
    DETOKENIZE_SPECIAL = 1 << 0,     /* control tokens give their spelling, else nothing */
    DETOKENIZE_STRIP_SPACE = 1 << 1, /* drop the space that SentencePiece puts before the first word of a text */
};

/**
 * detokenizer_init() - begin a text; nothing is allocated yet
 * @flags: enum detokenizer_flags. STRIP_SPACE is for whole texts from their beginning, not for a continuation
 */
void detokenizer_init(struct detokenizer *d, const struct tokenizer *t_borrow, unsigned flags);

/**
 * detokenizer_done() - release what is embedded in @d
 */
void detokenizer_done(struct detokenizer *d);

/**
 * detokenizer_push() - add a token
 * @ret, @ret_n: the text that is whole now, often "" or one word; valid UTF-8, not terminated; valid until the
 * next call
 * Returns 0 or -ENOMEM.
 */
int detokenizer_push(struct detokenizer *d, int32_t id, const char **ret, size_t *ret_n);

/**
 * detokenizer_flush() - the end of the text: a character that never became whole comes out as U+FFFD
 * Returns 0 or -ENOMEM; *ret as in detokenizer_push().
 */
int detokenizer_flush(struct detokenizer *d, const char **ret, size_t *ret_n);
