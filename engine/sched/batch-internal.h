/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What batch.c, which plans, and foretell.c, which says what will come of it, share. Nobody else includes it.
 */

#include "engine/sched/batch.h"

/* With more sequences a step is bound by arithmetic. */
#define DRAFT_SEQUENCES_MAX 16

struct batch_bend;
struct batch_place;

/* How long steps took in the long run, and lately beside that: others want the machine now and then. */
struct batch_pace {
    double prompt_token_ns, decode_step_ns; /* in the long run; 0: unknown */
    double lately;                          /* how many times as long as that steps take lately; 0: unknown */
    uint32_t n_prompt, n_decode, n;         /* steps that those are the means of, as far as they count */
};

struct batch {
    struct batch_config config;
    struct fair *fair;

    struct batch_request **actives; /* [sequences_max] */
    uint32_t n_actives;
    struct batch_request **keepers; /* [parked_max] */
    uint32_t n_keepers;
    uint32_t pages_used;
    size_t n_requests, n_new;
    struct batch_request *first_new;

    struct batch_slice *slices; /* [sequences_max] */
    struct batch_request *
        *dropped; /* [sequences_max + parked_max]: each request loses its pages once in a plan */
    struct fair_tenant **blocked; /* [sequences_max] of choose_actives(): each has something active */
    struct batch_plan plan;

    double ns_per_prompt_token; /* measured, 0: unknown */
    double decode_step_ns;      /* a step without prompts and drafts, 0: unknown */
    double plain_ns[DRAFT_SEQUENCES_MAX + 1]; /* the same by the number of sequences in it */
    double draft_token_ns; /* what a token of a draft adds to it, 0: unknown */
    uint32_t n_with_drafts;     /* steps since the last one without */
    double company_step_ns;     /* a step in which somebody decodes, whatever else is in it; 0: unknown */
    double tokens_per_step;     /* of one that decodes: more than 1 with drafts that were right; 0: unknown */
    uint32_t n_company_steps;   /* that those two are the means of, as far as they count */
    struct batch_pace pace;
    double more_fraction;       /* how much of what they may become requests do become; 0: unknown */
    struct batch_request **started; /* [parked_max] of batch_positions() */
    struct batch_bend *bends;       /* [bends_allocated] of batch_positions() */
    size_t bends_allocated;
    struct batch_place *places;     /* [sequences_max] of batch_positions() */
};

/**
 * batch_to_go() - tokens that are known and have to be computed
 */
static inline uint32_t batch_to_go(const struct batch_request *r)
{
    return r->n_tokens - r->n_fed - r->n_found;
}

/**
 * batch_is_urgent() - whether it keeps the turn that it got until its first token
 */
static inline bool batch_is_urgent(const struct batch_request *r)
{
    return r->urgent && r->n_tokens == r->n_submitted && r->item.tenant->n_items == 1;
}

/**
 * batch_foretell_init() - room for batch_positions(); 0 or -ENOMEM
 */
int batch_foretell_init(struct batch *b);

/**
 * batch_foretell_learn() - a step without drafts is over
 * @prompt_ns: how much of it was its prompts' part, where they were long enough to tell; else 0 or less
 */
void batch_foretell_learn(struct batch *b, double duration_ns, double prompt_ns, uint32_t n_prompt, uint32_t n_decode);
