/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A request that is ready to be computed: tokens, and what it takes to go on from logits to text. Made by the
 * helper thread (prepare.h), owned and used by the compute thread alone from then on.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "engine/engine.h"
#include "engine/proto/worker-proto.h"
#include "engine/sched/batch.h"
#include "engine/sched/speculate.h"
#include "engine/token/detokenise.h"

struct embedding;
struct emit;
struct fault;
struct matcher;
struct model;
struct reply;
struct sampler;
struct sampler_workspace;
struct stops;

/* Where a draft comes from; what is tried first comes first. */
enum draft_source { DRAFT_BY_FORM, DRAFT_BY_TEXT, DRAFT_BY_MODEL, DRAFT_SOURCE_MAX /* there is none */ };

struct work {
    struct batch_request batch;
    uint64_t id, epoch;
    uint32_t tenant;
    int32_t priority;
    uint64_t deadline_ns; /* 0: none */
    uint64_t received_ns, first_ns /* when the first token was sampled, 0: not yet */;

    int32_t *tokens; /* [n_prompt + n_output_max], batch.n_tokens of them known */
    uint32_t n_prompt, n_output, n_output_max;
    uint32_t n_public; /* so many of the prompt's first tokens are those of a prefix that the policy declares public */
    uint32_t n_cached; /* of the prompt's tokens, that needed not be computed when it began */
    bool began;
    uint32_t first; /* where what the batch computes begins in tokens: 0, or a later text of an embedding */
    int32_t n_logprobs; /* -1: none */
    uint32_t adapter;   /* from 1; 0: none */
    struct sampler *sampler;
    struct stops *stops;
    struct detokenizer detokenizer;
    struct matcher *matcher;     /* NULL: the answer may be any text */
    bool matcher_waits;          /* only what is text has its form, not thoughts and headers before it */
    struct reply *reply;         /* NULL: the answer is text and nothing else */
    struct embedding *embedding; /* NULL: text is wanted. Else none of the four before */

    /* Of the compute thread: */
    struct work *next_in_bucket;
    struct work *next, *prev; /* all of them */
    size_t i_deadline;
    uint32_t sequence; /* of the engine, if has_sequence */
    bool has_sequence;
    bool said_dropped; /* that it had to give up what was computed of it */
    struct speculation speculation[DRAFT_SOURCE_MAX];
    enum draft_source draft_source; /* of the present draft */
    uint64_t draft_ns;              /* what a draft model took for it; charged, not yet told to the daemon */
    uint64_t told_ns; /* when the daemon last heard of it, 0: never */
    int result;       /* of work_sample() in the present step */
};

/**
 * work_free() - takes NULL, returns NULL
 */
struct work *work_free(struct work *w);

DEFINE_CLEANUP(struct work *, work_free)

/* What a token meant. */
enum work_result { WORK_GOES_ON, WORK_STOPPED, WORK_LENGTH, WORK_NEXT_TEXT /* of an embedding */ };

/* Of one token: all of its logits, or where engine_top() has them the largest. */
struct work_logits {
    const float *all; /* [n_vocab]; NULL: there is top */
    struct engine_top top;
};

/**
 * work_n_top() - how many of the largest logits its next token depends on; 0: all may matter
 */
uint32_t work_n_top(const struct work *w);

/**
 * work_sample() - choose the next token from logits, and write what text it makes as a piece
 * @logits: of the last known token
 * @e:      a piece is added, even if it has no text yet
 * Returns enum work_result; -EINVAL with a fault (no token is allowed, or the grammar became too ambiguous);
 * -ENOMEM.
 */
int work_sample(struct work *w, const struct model *m, struct sampler_workspace *workspace,
                const struct work_logits *logits, struct emit *e, struct fault *reterr);

/**
 * work_guess() - tokens that the answer's form leaves little choice about, behind the known ones; at most @n_max
 * Returns how many.
 */
uint32_t work_guess(struct work *w, uint32_t n_max);

/**
 * work_flush() - the text that was held back, at an end that did not come from a token; adds a piece if there
 * is any Returns 0 or -ENOMEM.
 */
int work_flush(struct work *w, struct emit *e);
