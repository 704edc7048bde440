/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Prefixes that the policy declares public: texts, turned into the tokens with which prompts begin that use them.
 * Each is used in two ways, as the beginning of a text to complete and as the system message of a conversation, so it
 * has two rows of tokens. Whatever a prompt shares with one of those from its first token on is no secret, and its
 * keys and values may be shared by all tenants (engine/engine-prefix.h); what a caller sends never makes anything
 * public.
 */

#include <stddef.h>
#include <stdint.h>

struct log;
struct model;

struct public_prefix {
    int32_t *tokens; /* [n_tokens], owned */
    uint32_t n_tokens;
};

/**
 * public_make() - the tokens of the configuration's texts, into the model
 * What a model can't use (no template, longer than its context) is left out, and said in the log.
 * Returns 0 or -ENOMEM. Before the model is used by others.
 */
int public_make(struct model *m, const struct log *log);

/**
 * public_done() - release the model's rows
 */
void public_done(struct model *m);

/**
 * public_tokens() - how many of the first tokens are those of a public prefix
 * @tokens: [@n_tokens]
 */
uint32_t public_tokens(const struct model *m, const int32_t *tokens, uint32_t n_tokens);
