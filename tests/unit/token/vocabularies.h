/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Small vocabularies for the tests of this folder, written token by token.
 */

#include <stddef.h>
#include <stdint.h>

#include "tests/model-writer/model_writer.h"

struct fault;
struct tokenizer;

struct test_token {
    const char *text;
    int32_t type; /* enum token_type; 0 in a test's table means normal */
    float score;
};

/**
 * vocabulary_writer() - keys of a tokenizer of @kind with these tokens: "llama" and "t5" get their scores
 * Merges, ids and flags are for the caller to add.
 */
struct model_writer *vocabulary_writer(const char *kind, const struct test_token *tokens, size_t n);

/**
 * vocabulary_tokenizer_try() - the tokenizer of a model that is only metadata; what tokenizer_new() returned
 */
int vocabulary_tokenizer_try(struct model_writer *w_take, struct tokenizer **ret, struct fault *fault);

/**
 * vocabulary_tokenizer() - the same, for a model that is right
 */
struct tokenizer *vocabulary_tokenizer(struct model_writer *w_take);

/**
 * expect_ids() - check that a text becomes these ids; the row ends with -1
 */
void expect_ids(const struct tokenizer *t, const char *text, unsigned flags, const int32_t *expected);

#define IDS(...) ((const int32_t[]){__VA_ARGS__, -1})
