/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Answers of a given form: which tokens may come next, so that what has been said so far can still become a
 * text of the grammar, whose every beginning can. docs/structured-output.md says what is understood.
 *
 *      gbnf.c, schema*.c, regex.c   notations → ir.c   a tree over characters
 *      nfa.c, nfa-check.c           → automata over bytes that call each other
 *      machine.c, intern.c          those run, every configuration once
 *      vocabulary.c, runs.c         the tokens of a model as tries, and as runs of ordinary text
 *      matcher.c                    → masks
 *
 * Grammars are hostile: text, states, steps and memory are bounded (limits.h). A grammar does not change once
 * it is made; a matcher belongs to one sequence and is used by one thread at a time.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct fault;
struct grammar;
struct grammar_vocabulary;
struct json_object;
struct matcher;

/**
 * grammar_from_gbnf() - compile a grammar in GBNF, with the rule `root`
 * Returns 0; -EINVAL with an InvalidParameter about "grammar" that says the line and column; -ENOMEM.
 */
int grammar_from_gbnf(const char *text, size_t n, struct grammar **ret, struct fault *reterr);

/**
 * grammar_from_schema() - JSON texts that satisfy a JSON Schema
 * @schema: borrowed for the call
 * Returns 0; -EINVAL with an InvalidParameter about "json_schema" that says where in it; -ENOMEM.
 */
int grammar_from_schema(struct json_object *schema, struct grammar **ret, struct fault *reterr);

/* One of: text, a special token (-1: none), values of a schema. */
struct grammar_part {
    const char *text;
    int32_t token;
    struct json_object *schema;
    const char *path; /* of the schema, for errors ("/0/function/parameters") */
};

/**
 * grammar_from_parts() - one of several sequences of texts, special tokens and values, for calls of tools
 * @parts:   [n_alternatives] rows of parts; borrowed for the call
 * @n_parts: [n_alternatives] how many
 * Returns 0; -EINVAL with an InvalidParameter about "json_schema" that says where in which schema; -ENOMEM.
 */
int grammar_from_parts(const struct grammar_part *const *parts, const size_t *n_parts, size_t n_alternatives,
                       struct grammar **ret, struct fault *reterr);

/**
 * grammar_free() - takes NULL, returns NULL
 */
struct grammar *grammar_free(struct grammar *g);

DEFINE_CLEANUP(struct grammar *, grammar_free)

/**
 * grammar_n_states() - how large it became
 */
uint32_t grammar_n_states(const struct grammar *g);

enum matcher_flags {
    MATCHER_STRIP_SPACE =
        1 << 0, /* a space that the answer begins with is not part of the text (SentencePiece) */
};

/**
 * matcher_new() - stand before the first token
 * @grammar_take: consumed, on failure too
 * @vocabulary:   borrowed for the matcher's life
 * Returns 0; -E2BIG (the grammar is too ambiguous); -ENOMEM.
 */
int matcher_new(struct grammar *grammar_take, const struct grammar_vocabulary *vocabulary_borrow,
                unsigned flags, struct matcher **ret);

/**
 * matcher_free() - takes NULL, returns NULL
 */
struct matcher *matcher_free(struct matcher *m);

DEFINE_CLEANUP(struct matcher *, matcher_free)

/**
 * matcher_mask() - the tokens that may come next
 * @ret_mask: bit t % 64 of word t / 64; as many bits as the vocabulary was made for; valid until the
 * matcher's next call. Tokens that end the answer are in it exactly where the text may end
 * @ret_only: the token, if there is only one; -1: there are several, or none (no token spells what has to
 * come) Returns 0; -E2BIG (too ambiguous: the request has to end); -ENOMEM.
 */
int matcher_mask(struct matcher *m, const uint64_t **ret_mask, int32_t *ret_only);

/**
 * matcher_guess() - tokens that the text may well go on with, as long as the grammar leaves no choice of bytes
 * @ret: [@n_max]
 * Returns how many; 0 where there is a choice. Changes nothing that masks and matcher_accept() would say, and never
 * fails: where a grammar is so ambiguous that going on could be refused, nothing is guessed. Bounded in time.
 */
uint32_t matcher_guess(struct matcher *m, int32_t *ret, uint32_t n_max);

/**
 * matcher_accept() - the token that the text goes on with
 * Returns 0; -EINVAL (it was not in the mask; nothing has changed); -E2BIG; -ENOMEM.
 */
int matcher_accept(struct matcher *m, int32_t token);

/**
 * matcher_is_complete() - whether the text is whole and nothing can follow: no token has to be asked for
 */
bool matcher_is_complete(const struct matcher *m);

/**
 * matcher_may_end() - whether the text is whole, though more may follow
 */
bool matcher_may_end(const struct matcher *m);

/**
 * matcher_n_made() - masks that had to be made so far; the others were kept from before
 */
uint64_t matcher_n_made(const struct matcher *m);
