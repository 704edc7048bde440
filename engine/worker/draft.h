/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A second, smaller model with the same vocabulary that says what the model may go on with (speculate.h). It follows
 * each sequence with one of its own, which holds nothing but tokens that are certain; what it makes up it computes in
 * a fork of that, so nothing ever has to be taken back and models with windows need no care. What one sequence of an
 * owner has read, later ones that begin alike need not read again (engine/engine-prefix.h).
 *
 * Compute thread. Whatever fails here costs drafts and nothing else.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "engine/engine-shape.h"
#include "engine/engine.h"

struct config;
struct drafter;
struct fault;
struct tokenizer;

/* A sequence that wants a draft. */
struct drafter_item {
    uint64_t id;
    uint64_t owner;    /* whose prefixes it may begin with (engine-prefix.h); not ENGINE_PREFIX_PUBLIC */
    uint32_t n_public; /* so many of the first tokens are no secret of the owner's */
    int32_t *tokens; /* [n_tokens + n_max]: the draft is written behind the first n_tokens */
    uint32_t n_tokens, n_max;
    uint32_t n;       /* how long the draft became; 0 as long as the model has not read all of the prompt */
    uint64_t cost_ns; /* its part of the time */
};

/**
 * drafter_new() - open the draft model
 * @fds:       [n_fds] its files, borrowed
 * @of:        the model that it drafts for
 * @tokenizer: that model's; NULL: prompts come as tokens, nothing is compared
 * Returns 0; -EINVAL with a fault (no model, no decoder, another vocabulary), -ENOMEM or as engine_open().
 */
int drafter_new(const int *fds, size_t n_fds, const struct config *c, const struct engine_facts *of,
                const struct tokenizer *tokenizer, struct drafter **ret, struct fault *reterr);

/**
 * drafter_free() - takes NULL, returns NULL
 */
struct drafter *drafter_free(struct drafter *d);

DEFINE_CLEANUP(struct drafter *, drafter_free)

/**
 * drafter_measure() - what drafter_new() would take, added to the shape of the model that it drafts for
 * Returns as drafter_new(), but nothing is compared.
 */
int drafter_measure(const int *fds, size_t n_fds, const struct config *c, struct engine_shape *into,
                    struct fault *reterr);

/**
 * drafter_facts() - what it is and takes
 */
void drafter_facts(const struct drafter *d, struct engine_facts *ret);

/**
 * drafter_threads_set() - as engine_threads_set()
 */
int drafter_threads_set(struct drafter *d, uint32_t n);

/**
 * drafter_run() - drafts for up to config.sequences sequences together
 * @n_items: may be 0: nobody wants one, since it would not pay
 * Allocates nothing. Reads a bounded part of prompts that it does not know yet, so the first calls may bring nothing.
 */
void drafter_run(struct drafter *d, struct drafter_item *items, uint32_t n_items);

/**
 * drafter_token_ns() - what a drafted token took lately; 0: nothing was drafted yet
 */
double drafter_token_ns(const struct drafter *d);

/**
 * drafter_limit() - keep at most @n_pages pages of what sequences of @owner have read, for its later ones
 */
void drafter_limit(struct drafter *d, uint64_t owner, uint32_t n_pages);

/**
 * drafter_trim() - keep nothing of what ended sequences have read
 */
void drafter_trim(struct drafter *d);

/**
 * drafter_found_public() - how many of these tokens of a public prefix the draft model need not read
 */
uint32_t drafter_found_public(const struct drafter *d, const int32_t *tokens, uint32_t n_tokens);

/**
 * drafter_read_public() - read some more of a public prefix, of which the first @n_have tokens were read, for everybody
 * @n: of tokens behind those; at most 256 of them are read
 * Whether any were.
 */
bool drafter_read_public(struct drafter *d, const int32_t *tokens, uint32_t n_have, uint32_t n);

/**
 * drafter_wipe() - zero what its steps left in memory
 */
void drafter_wipe(struct drafter *d);

/**
 * drafter_forget() - the sequence @id has ended
 */
void drafter_forget(struct drafter *d, uint64_t id);
