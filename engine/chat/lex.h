/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A template's source as tokens. Whitespace control is done here (trim_blocks, lstrip_blocks, the signs '-'
 * and '+' of tags), comments and `raw` blocks are resolved, so the parser sees text that is to be written as
 * it is.
 */

#include <stddef.h>
#include <stdint.h>

#include "engine/chat/value.h"

struct fault;

enum token_kind {
    TOKEN_TEXT,
    TOKEN_OUTPUT_BEGIN, /* {{ */
    TOKEN_OUTPUT_END,
    TOKEN_BLOCK_BEGIN, /* {% */
    TOKEN_BLOCK_END,
    TOKEN_NAME,
    TOKEN_STRING, /* text: escapes resolved */
    TOKEN_INT,
    TOKEN_FLOAT,
    TOKEN_OPERATOR, /* text: "+", "==", "//", "(", … */
    TOKEN_END,
};

struct token {
    enum token_kind kind;
    uint32_t line; /* from 1 */
    struct text text;
    int64_t integer;
    double real;
};

/**
 * lex_template() - cut @source into tokens
 * @arena:  holds the tokens and their texts; must outlive them
 * @source: @n bytes of UTF-8 that outlive the tokens
 * @ret:    array that ends with TOKEN_END
 * Returns 0, -ENOMEM, -EINVAL with @reterr set (line and what is wrong).
 */
int lex_template(struct arena *arena, const char *source, size_t n, struct token **ret, struct fault *reterr);
