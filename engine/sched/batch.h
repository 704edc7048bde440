/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the next step computes: continuous batching with chunked prefill. Requests join and leave between any
 * two steps; each step takes one token of every request that is decoding and, as far as the step may take, a
 * slice of the prompts of those that are not there yet. fair.h says who goes first.
 *
 * A request is a row of known tokens (prompt, then what was sampled) of which the first n_fed are in the KV cache.
 * One that begins, or begins again, may find some of them computed already (batch_config.found): they count as fed
 * with its first slice, and their pages as its own, as if it shared them with nobody: so what a tenant gets does not
 * depend on what others keep, and no page is promised twice. Whoever has exactly one to go is decoding, whoever has
 * more is prefilling; so a request that had to give up its pages simply has everything to go again, and comes to the
 * same result (the engine's logits do not depend on the slices).
 *
 *   WAITING --plan--> ACTIVE --plan--> PARKED (pages kept) --plan--> ACTIVE
 *                                      PARKED --plan--> WAITING (pages dropped)
 *   any --batch_pause--> PAUSED (pages kept, may be dropped) --batch_resume--> WAITING or PARKED
 *
 * Pure: time is handed in, nothing is executed. Memory is taken when a request comes, never for a plan. One
 * thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/sched/fair.h"

struct batch_request;

struct batch_config {
    uint32_t sequences_max;     /* requests in one step, >= 1 */
    uint32_t parked_max;        /* requests beside them that may keep pages */
    uint32_t step_tokens_max;   /* of one step, >= sequences_max */
    uint32_t drafts_max;        /* tokens of drafts in one step, 0: none */
    uint32_t page_tokens;       /* tokens per KV page */
    uint32_t pages_total;       /* at least one request's worth of the longest context */
    bool whole_prompts;         /* a prompt is never cut: encoders; none is longer than step_tokens_max */
    uint64_t step_ns_max;       /* a slice of prompts is cut so that a step takes about this … */
    uint64_t step_alone_ns_max; /* … or this when nobody waits for it but tenants with several requests, or nobody */
    uint64_t
        quantum_ns; /* by how much cost a tenant may run ahead of one that waits before it is preempted */
    /* How many of the first tokens of @r, which has no pages, need not be computed; less than n_tokens. The answer has
     * to hold until the plan is carried out. NULL: none ever. */
    uint32_t (*found)(const struct batch_request *r, void *userdata);
    void *userdata;
};

enum batch_state { BATCH_WAITING, BATCH_ACTIVE, BATCH_PARKED, BATCH_PAUSED, BATCH_GONE };

/* Embedded in the worker's request. Written by batch.c only. */
struct batch_request {
    struct fair_item item;
    enum batch_state state;
    uint32_t n_tokens; /* known */
    uint32_t n_fed;    /* of them in the KV cache */
    uint32_t n_found;  /* between batch_plan() and batch_step_done(): need not be computed; else 0 */
    uint32_t n_pages;
    uint32_t n_submitted; /* of n_tokens, known when it came */
    uint32_t n_more_max;  /* set by its owner: so many more tokens there may be in all; 0: who knows */
    uint32_t n_seen;      /* of n_tokens, when it last decoded; 0: it has not */
    uint32_t n_draft; /* set by its owner: so many tokens behind n_tokens may be right; batch_append() forgets them */
    bool started; /* was active at some time */
    bool urgent;  /* began as the only one of a tenant within its share, and has not come to its first token */
    bool paused;  /* asked to take no part; one that is active leaves its place in the next plan */
    uint64_t submitted_ns, started_ns;
    uint64_t cost_ns;
    size_t i_place; /* in the array of the active, or of those that keep pages without being active */
    struct batch_request *next_new, *prev_new; /* the list of those that have not started, for positions */
};

struct batch_slice {
    struct batch_request *request;
    uint32_t n_found;  /* its first tokens that are to be taken from where they were found; 0 unless n_fed is */
    uint32_t n_tokens; /* the next ones after n_fed and n_found */
    uint32_t n_draft;  /* so many of them, the last, are a draft: logits of each and of the one before are wanted */
    bool wants_logits; /* it reaches the last known token, so the next one is to be sampled */
};

struct batch_plan {
    const struct batch_slice *slices; /* [n_slices] */
    size_t n_slices;
    struct batch_request *const *dropped; /* [n_dropped] their pages are to be given back before the step */
    size_t n_dropped;
    uint32_t n_tokens;
    struct batch_request *stuck; /* needs more pages than there are: to be failed; NULL: none */
};

struct batch_position {
    struct batch_request *request;
    uint32_t position; /* from 1 */
    int64_t eta_ms;    /* until its first token; -1: unknown, nothing was measured yet */
    uint64_t virtual_start;
};

struct batch;

/**
 * batch_new() - nothing waits. Returns 0, -EINVAL (numbers that contradict each other) or -ENOMEM
 */
int batch_new(const struct batch_config *config, struct batch **ret);

/**
 * batch_free() - all requests must have been removed; takes NULL, returns NULL
 */
struct batch *batch_free(struct batch *b);

DEFINE_CLEANUP(struct batch *, batch_free)

/**
 * batch_fair() - the tenants, to set weights and to charge what was spent elsewhere
 */
struct fair *batch_fair(struct batch *b);

/**
 * batch_submit() - a request of @n_tokens >= 1 known tokens waits from now on
 * @r: overwritten; borrowed until batch_remove()
 * Returns 0 or -ENOMEM.
 */
int batch_submit(struct batch *b, struct batch_request *r, uint32_t tenant, int32_t priority,
                 uint32_t n_tokens, uint64_t now_ns);

/**
 * batch_remove() - the request is done, failed or cancelled, in whatever state; its pages count as free from
 * now on Not between batch_plan() and batch_step_done(). Nothing happens when it is not in.
 */
void batch_remove(struct batch *b, struct batch_request *r, uint64_t now_ns);

/**
 * batch_pause() - take no part in steps until batch_resume(); pages are kept as long as nobody needs them
 */
void batch_pause(struct batch *b, struct batch_request *r);

/**
 * batch_resume() - the reverse; nothing happens to one that is not paused
 */
void batch_resume(struct batch *b, struct batch_request *r);

/**
 * batch_append() - one more token of @r is known: it was sampled
 */
void batch_append(struct batch_request *r);

/**
 * batch_drafts_max() - how many tokens of drafts the next plan would take for all requests together
 * None while somebody waits or runs who is of another tenant: a draft makes the step longer for all that are in it,
 * and only its own sequence has something of it. None beside prompts, with which a step is bound by arithmetic.
 */
uint32_t batch_drafts_max(const struct batch *b);

/**
 * batch_draft_cost() - what a token of a draft costs, in steps; as measured, or a guess
 */
double batch_draft_cost(const struct batch *b);

/**
 * batch_step_ns() - what a step of as many sequences as are active takes without prompts and drafts, 0: unknown
 */
double batch_step_ns(const struct batch *b);

/**
 * batch_refuse() - the last @n_tokens that were fed for @r were a draft and wrong: they count as not fed
 * Between batch_step_done() and batch_plan(); to be cut off the engine's sequence, too.
 */
void batch_refuse(struct batch *b, struct batch_request *r, uint32_t n_tokens);

/**
 * batch_plan() - choose what the next step computes
 * The plan belongs to @b and is valid until the next call. n_slices 0: nothing can run.
 */
const struct batch_plan *batch_plan(struct batch *b, uint64_t now_ns);

/**
 * batch_step_done() - the last plan was computed and took @duration_ns: tokens count as fed, tenants are
 * charged
 */
void batch_step_done(struct batch *b, uint64_t duration_ns);

/**
 * batch_step_failed() - the last plan was not computed: nothing was fed
 */
void batch_step_failed(struct batch *b);

/**
 * batch_shrink() - steps take half as many tokens from now on: the engine has no memory for larger ones
 * Returns false when they can't be smaller, since texts are whole in a step, or each running sequence has one token.
 */
bool batch_shrink(struct batch *b);

/**
 * batch_drop_one() - the engine has fewer pages than was thought: of the request that is the last in order
 * Returns the request that lost its pages (close its sequence), NULL when only one holds any.
 */
struct batch_request *batch_drop_one(struct batch *b);

/**
 * batch_trim() - drop the pages of those that keep some without running, worst first, until @n_pages are free
 * or none is left. Returns the next one that lost its pages (call again), NULL at the end.
 */
struct batch_request *batch_trim(struct batch *b, uint32_t n_pages);

/**
 * batch_positions() - where those stand that have not started, in the order in which they are likely to start, and
 * when their first tokens may be expected if nobody else comes
 * @ret: room for batch_n_new() entries
 * Returns the number of entries. O(n * (log n + sequences_max)): for a report every few seconds.
 */
size_t batch_positions(struct batch *b, struct batch_position *ret);

/**
 * batch_n_new() - requests that have not started
 */
size_t batch_n_new(const struct batch *b);

/**
 * batch_n_active(), batch_n_idle() - requests in the next step as of now; requests that wait, are parked or
 * paused
 */
uint32_t batch_n_active(const struct batch *b);
size_t batch_n_idle(const struct batch *b);

/**
 * batch_pages_used() - KV pages held by all requests
 */
uint32_t batch_pages_used(const struct batch *b);
