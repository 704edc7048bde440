/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the compute thread's own files share: compute.c (commands, news, the loop), compute-load.c (the model and the
 * helper thread), compute-step.c (one step), compute-warm.c (what is
 * computed in advance), compute-table.c (which works there are, and their ends). Nobody else
 * includes it.
 *
 * What is true between two steps: 1. each work is in the table, in the list and, if it has a deadline, in the heap;
 *  its batch request is in the batch; 2. a work has an engine sequence exactly as long as its batch request has
 *  pages, or had some before a plan dropped them; the sequence is as long as n_fed; 3. all works are of @epoch: a
 *  RESET ends those of an older one.
 *
 * Memory is taken when a request comes. If it is short later on, in the middle of a step, the process ends: there is
 * no way to go on that would not leave one user's request half done for another's sake.
 */

#include "engine/worker/drafts.h"
#include "engine/worker/emit.h"
#include "engine/worker/intake.h"
#include "engine/worker/link.h"
#include "engine/worker/model.h"
#include "engine/worker/used.h"
#include "engine/worker/work.h"

#define COMPUTE_BUCKETS 4096

struct compute {
    struct link *link;
    struct intake *intake;
    struct engine_devices *devices; /* NULL: everything is computed on the processor */
    const struct log *log;
    struct model *model; /* NULL until it is loaded */
    struct batch *batch;
    struct emit emit;
    struct sampler_workspace *workspace;

    /* One step's batch, [batch_tokens_max] each. */
    int32_t *tokens;
    uint32_t *sequences, *positions;
    uint8_t *wants_logits;
    struct work **sampled; /* [batch_tokens_max] those that go on */
    struct drafts *drafts;

    struct work **buckets; /* [COMPUTE_BUCKETS] by id */
    struct work *works;
    struct heap deadlines;
    struct used used;
    size_t n_works;
    uint64_t epoch;
    uint32_t n_threads; /* of THREADS before the model is there, 0: none came */

    struct batch_position *order; /* room for a report */
    size_t order_allocated;
    uint64_t reported_ns;
    size_t n_new_untold; /* came since then */

    /* Public prefixes: the one that is computed in advance, how much of it should be there by now, and what to add. */
    size_t i_warm;
    uint32_t n_warm, warm_tokens;
    uint32_t pages_kept; /* when it was last counted */
    bool tell_figures;   /* they were told, and have changed since */
    bool has_unmarked;   /* since the last RESET there were requests of somebody whom only this daemon knows */

    unsigned n_gpu_full; /* steps in a row that a GPU had no memory for */

    bool has_traces; /* a sequence has ended: what steps left of it is still there */

    bool draining;
    uint64_t drain_deadline_ns; /* 0: none */
};

static inline struct work *compute_work_of(struct batch_request *r)
{
    return (struct work *)(void *)((char *)r - offsetof(struct work, batch));
}

static inline const struct work *compute_const_work_of(const struct batch_request *r)
{
    return (const struct work *)(const void *)((const char *)r - offsetof(struct work, batch));
}

/**
 * compute_out_of_memory() - the process ends
 */
_Noreturn void compute_out_of_memory(struct compute *c);

/**
 * compute_table_init() - no works; 0 or -ENOMEM
 */
int compute_table_init(struct compute *c);

/**
 * compute_find() - the work with this number, NULL if there is none
 */
struct work *compute_find(struct compute *c, uint64_t id);

/**
 * compute_put_in() - a work that is in the batch is one of @c's from now on
 */
void compute_put_in(struct compute *c, struct work *w);

/**
 * compute_close_sequence() - the work has none any more
 */
void compute_close_sequence(struct compute *c, struct work *w);

/**
 * compute_take_out() - the work is over: its pages are free, it is forgotten and freed; nothing is said about it
 */
void compute_take_out(struct compute *c, struct work *w, uint64_t now_ns);

/**
 * compute_describe() - what the work has come to, if it ends now
 */
struct packet_done compute_describe(const struct work *w, enum done_finish finish, uint64_t now_ns);

/**
 * compute_end_done(), compute_end_failed() - the same, and the daemon hears of it
 */
void compute_end_done(struct compute *c, struct work *w, enum done_finish finish, uint64_t now_ns);
void compute_end_failed(struct compute *c, struct work *w, const struct fault *fault);

/**
 * compute_make_batch() - a scheduler for the model, into @c; 0 or a negative errno
 */
int compute_make_batch(struct compute *c);

/**
 * compute_load() - a MODEL came: load it, or only measure it; ends the process on failure
 */
void compute_load(struct compute *c, struct command *command);

/**
 * compute_figures() - of the whole, for a STEP
 */
struct packet_step compute_figures(struct compute *c);

/**
 * compute_warm() - compute a slice of a public prefix. Returns false when there was nothing to compute
 */
bool compute_warm(struct compute *c);

/**
 * compute_step() - plan, compute, sample, tell. Returns false when there was nothing to compute
 */
bool compute_step(struct compute *c);
