/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Answers of a given form in the worker: json_schema and grammar of a call become a matcher. Helper thread.
 */

#include "base/json.h"

struct fault;
struct grammar_vocabulary;
struct matcher;
struct tokenizer;

/**
 * structure_vocabulary() - the tokens of a model as grammars look at them
 * @n_vocab: of the model's logits
 * Returns 0 or -ENOMEM.
 */
int structure_vocabulary(const struct tokenizer *t, uint32_t n_vocab, struct grammar_vocabulary **ret);

/**
 * structure_matcher() - what a call asks its answer to look like
 * @vocabulary: NULL: the model has no tokenizer; borrowed for the matcher's life
 * @strips:     a first space of the answer does not count
 * @ret:        NULL when the call asks for nothing
 * Returns 0; -EINVAL with an InvalidParameter that says where in the schema or grammar; -ENOMEM.
 */
int structure_matcher(json_object *call, const struct grammar_vocabulary *vocabulary, bool strips,
                      struct matcher **ret, struct fault *reterr);
