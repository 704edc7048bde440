/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Choosing the next token from logits.
 *
 * The order of things, each working on what the one before left over:
 *   1. the mask (a grammar's): tokens that are not allowed are out. NaN logits are out, +infinity is the
 *      largest float
 *   2. logit bias: added; -infinity bans a token
 *   3. penalties for tokens among the last penalty_last_n: positive logits are divided by repeat_penalty,
 *      others multiplied; then frequency_penalty * count and presence_penalty are subtracted
 *   4. temperature 0: the largest logit wins, and nothing below applies
 *   5. mirostat 2, if on: logits / temperature, tokens of more than mu bits of surprise are out (the
 *      likeliest never is), one is drawn; 6 to 10 do not apply
 *   6. top_k: the k largest logits
 *   7. typical_p: those whose surprise is closest to the entropy, until their probability reaches typical_p
 *   8. top_p: the likeliest, until their probability reaches top_p (among what 6 and 7 left)
 *   9. min_p: those at least min_p times as likely as the likeliest
 *  10. logits / temperature, one is drawn
 * Each step leaves at least one token. Of equal logits the lower token id comes first, everywhere.
 *
 * The random number of a draw is a hash of the seed and of the number of tokens accepted before (SplitMix64,
 * 53 bits), so it depends on nothing else, and a pick can be repeated. exp is our own, so the same logits and
 * the same seed give the same token on every machine.
 *
 * One thread per sampler at a time. Nothing here allocates but the functions called *_new.
 */

#include <stddef.h>
#include <stdint.h>

struct fault;
struct sampler;
struct sampler_workspace;

#define SAMPLER_NONE       (-1)  /* no token is possible: all are masked, banned or NaN */
#define SAMPLER_LAST_N_MAX 65536 /* bounds the memory and time that a request can cost through penalties */
#define SAMPLER_BIASES_MAX 4096

struct sampler_bias {
    int32_t token;
    float bias; /* finite, or -INFINITY: never this token */
};

struct sampler_params {
    float temperature;       /* 0 ... 1000; 0: greedy */
    uint32_t top_k;          /* 0: all */
    float top_p;             /* 0 ... 1; 1: all */
    float min_p;             /* 0 ... 1; 0: all */
    float typical_p;         /* 0 ... 1; 1: all */
    float repeat_penalty;    /* 0.01 ... 100; 1: none */
    float frequency_penalty; /* -100 ... 100; 0: none */
    float presence_penalty;  /* the same */
    uint32_t penalty_last_n; /* how many tokens back penalties look; 0: none */
    int mirostat;            /* 0 or 2 */
    float mirostat_tau;      /* 0 ... 100: bits of surprise to aim at */
    float mirostat_eta;      /* 0 ... 1: how fast */
    uint64_t seed;
    const struct sampler_bias *biases; /* several for one token add up */
    size_t n_biases;
};

/**
 * sampler_params_default() - temperature 0.8, top_k 40, top_p 0.95, min_p 0.05, nothing else; 64 tokens back,
 * seed 0
 */
struct sampler_params sampler_params_default(void);

/**
 * sampler_params_check() - whether all values are in range
 * Returns 0, or -EINVAL with an InvalidParameter that names the first bad one ("top_p", "logit_bias" …).
 */
int sampler_params_check(const struct sampler_params *params, uint32_t n_vocab, struct fault *reterr);

/**
 * sampler_new() - what one sequence's sampling has to remember
 * @params: checked as by sampler_params_check(); copied, the biases too
 * @n_vocab: at least 1
 * Returns 0; -EINVAL with a fault as from sampler_params_check(); -ENOMEM.
 */
int sampler_new(const struct sampler_params *params, uint32_t n_vocab, struct sampler **ret,
                struct fault *reterr);

/**
 * sampler_free() - takes NULL, returns NULL
 */
struct sampler *sampler_free(struct sampler *s);

/**
 * sampler_workspace_new() - memory for the picks of one thread: 28 bytes per token of the vocabulary
 * It keeps nothing between calls: all samplers of the thread share it. Returns 0, -EINVAL (no tokens), -ENOMEM.
 */
int sampler_workspace_new(uint32_t n_vocab, struct sampler_workspace **ret);

/**
 * sampler_workspace_free() - takes NULL, returns NULL
 */
struct sampler_workspace *sampler_workspace_free(struct sampler_workspace *w);

/**
 * sampler_workspace_wipe() - zero what picks left in it: probabilities of what was said
 */
void sampler_workspace_wipe(struct sampler_workspace *w);

/**
 * sampler_prompt() - make tokens count for the penalties without having been picked
 */
void sampler_prompt(struct sampler *s, const int32_t *tokens, size_t n_tokens);

/**
 * sampler_pick() - choose a token
 * @w:       a workspace for at least the sampler's n_vocab
 * @logits:  [n_vocab]; not changed
 * @allowed: NULL, or a bitset of n_vocab bits (bit t % 64 of word t / 64): only these
 * Returns a token, or SAMPLER_NONE. Picking again without sampler_accept() between gives the same token.
 */
int32_t sampler_pick(struct sampler *s, struct sampler_workspace *w, const float *logits,
                     const uint64_t *allowed);

/**
 * sampler_n_top() - how many of the largest logits sampler_pick() without a mask looks at; 0: all may matter
 */
uint32_t sampler_n_top(const struct sampler *s);

/**
 * sampler_pick_top() - sampler_pick() without a mask, from the largest logits alone
 * @ids, @logits: [n_top] of the model's logits the largest, largest first, of equal ones the lower id first; NaN where
 *                there are no more. At least sampler_n_top() of them, which is not 0
 * Returns the token that sampler_pick() would have picked from all of them.
 */
int32_t sampler_pick_top(struct sampler *s, struct sampler_workspace *w, const uint32_t *ids, const float *logits,
                         uint32_t n_top);

/**
 * sampler_accept() - the token that the sequence goes on with; usually, but not necessarily, the one picked
 * last
 */
void sampler_accept(struct sampler *s, int32_t token);

struct sampler_logprob {
    int32_t token;
    float logprob; /* natural logarithm; -INFINITY for a probability of 0 */
};

/**
 * sampler_logprobs() - the model's own log-probabilities, before any of the steps above
 * @token:     whose log-probability *ret_logprob is to be
 * @n_top:     how many of the likeliest go to @ret_top, best first; at most n_vocab
 * Returns how many entries of @ret_top were filled: n_top, less when fewer logits are numbers.
 */
uint32_t sampler_logprobs(struct sampler_workspace *w, const float *logits, uint32_t n_vocab, int32_t token,
                          uint32_t n_top, float *ret_logprob, struct sampler_logprob *ret_top);
