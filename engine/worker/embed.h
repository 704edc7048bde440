/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Embeddings: the texts of one call as vectors. Texts are tokenised by the helper thread; the compute thread runs them
 * one after the other as a request without an answer, and pools the hidden states of each text's tokens as the steps
 * bring them, in whatever slices.
 *
 * Which states count is the model's own setting (ARCH.pooling_type). Without one, a decoder's vector is that of its
 * last token, the only one that has seen the whole text. (llama.cpp hands out one vector a token there; this interface
 * has one a text.) Vectors have length 1.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"

struct fault;
struct gguf;
struct job;
struct model;
struct work;

/* As the file format numbers them. */
enum embed_pooling {
    EMBED_NONE = 0,
    EMBED_MEAN = 1,
    EMBED_CLS = 2,
    EMBED_LAST = 3,
    EMBED_RANK = 4, /* a score for pairs of texts, no vector: refused */
    EMBED_POOLING_MAX,
};

/* More texts in a call than anybody sends at once; the reply's size bounds them further for most models. */
#define EMBED_INPUTS_MAX 2048u

struct embedding {
    enum embed_pooling pooling;
    uint32_t n_inputs, i_input; /* i_input: the one that is being computed */
    uint32_t n_dims;
    uint32_t *ends;       /* [n_inputs] where each text ends in the work's tokens */
    float *vectors;       /* [n_inputs, n_dims] */
    uint64_t started_ns;  /* when the first text was begun, 0: not yet */
};

/**
 * embed_pooling_read() - how the model pools
 * @is_encoder: all its tokens see the whole text; without a setting, their mean is its vector
 * Returns 0; -EINVAL with a fault for a number that is no pooling.
 */
int embed_pooling_read(const struct gguf *g, bool is_encoder, enum embed_pooling *ret, struct fault *reterr);

/**
 * embedding_free() - takes NULL, returns NULL
 */
struct embedding *embedding_free(struct embedding *e);

/**
 * embed_prepare() - a work from a call's `input`; helper thread
 * Returns 0; -EINVAL with a fault (InvalidParameter, or ContextTooLong for a text that does not fit); -ENOMEM.
 */
int embed_prepare(const struct model *m, const struct job *job, json_object *call, struct work **ret,
                  struct fault *reterr);

/**
 * embed_begin() - the first token of the present text in the work's tokens, and how many it has
 */
void embed_begin(const struct embedding *e, uint32_t *ret_first, uint32_t *ret_n);

/**
 * embed_add() - hidden states of tokens of the present text
 * @rows:     [n_tokens, n_dims]
 * @position: of the first of them in the text; 0 begins the text anew (a preempted one is computed again)
 * Sums have one order, so that slices change no bit.
 */
void embed_add(struct embedding *e, const float *rows, uint32_t position, uint32_t n_tokens);

/**
 * embed_end() - the present text is whole: its vector gets the length 1, and the next text is the present one
 * Returns whether the vector has a length (a broken model's states may be no numbers).
 */
bool embed_end(struct embedding *e);

/**
 * embed_reply() - {"embeddings": [{"values": […]}, …]} as text, owned by the caller; NULL without memory
 */
char *embed_reply(const struct embedding *e, size_t *ret_n);
