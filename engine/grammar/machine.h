/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Runs an nfa over bytes, one configuration after the other. A configuration is everything that the past
 * means for the future: a few threads, each a set of states inside a frame; a frame is the set of places to
 * return to, each inside a frame of its own (the graph-structured stack of generalised parsing: Tomita 1986;
 * Scott and Johnstone 2010). All three are kept once each, so that configurations are numbers, and steps
 * between them a table that is filled in as they are taken: a grammar without recursion soon is a plain DFA.
 * Private to engine/grammar; one thread at a time.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/grammar/intern.h"
#include "engine/grammar/nfa.h"

#define MACHINE_DEAD    0u         /* the configuration that nothing leads on from */
#define MACHINE_UNKNOWN UINT32_MAX /* in the table: not taken yet */

struct machine_thread {
    uint32_t frame, set;
};

#define MACHINE_MEMOS 1024u

struct machine_memo {
    uint32_t frame, set, config; /* config 0: empty */
};

struct machine_call {
    uint32_t net, back, frame; /* returns to state `back` in `frame` */
};

struct machine {
    const struct nfa *nfa; /* borrowed */
    uint32_t n_symbols;    /* classes of bytes, then special tokens */
    struct intern sets;    /* sorted states; those that wait for a byte or token, calls, and the end */
    struct intern frames;  /* pairs of return state and frame; 0: of the whole, without any */
    struct intern configs; /* pairs of frame and set, by falling frame, then whether it may end here */
    uint32_t *closures;    /* [n_states] set that is entered with a state, UNKNOWN */
    uint32_t *set_next;    /* [sets][n_symbols] */
    uint32_t *next;        /* [configs][n_symbols] */
    uint32_t sets_allocated, configs_allocated;
    uint32_t only_end; /* the set of state 0 alone */
    size_t bytes;      /* all of it */
    uint64_t work;     /* done since whoever uses this set it to 0 */
    int error;         /* 0, -E2BIG (too ambiguous), -ENOMEM: of any step since the start */

    /* Scratch of one step. */
    uint32_t *marks; /* [n_states] */
    uint32_t mark;
    uint32_t *list, *stack; /* [n_states + 1] */
    struct machine_thread *threads;
    struct machine_call *calls;
    uint32_t *links;
    uint32_t n_threads, n_calls, calls_allocated, n_links;
    struct machine_memo *memo; /* [MACHINE_MEMOS] what a single thread became, by frame and set */
};

/**
 * machine_init() - @m is all zero; machine_done() even on failure. Returns 0 or -ENOMEM
 */
int machine_init(struct machine *m, const struct nfa *nfa_borrow);
void machine_done(struct machine *m);

/**
 * machine_start() - the configuration before any byte; MACHINE_DEAD with m->error
 */
uint32_t machine_start(struct machine *m);

/**
 * machine_take() - take a step that is not in the table
 */
uint32_t machine_take(struct machine *m, uint32_t config, uint32_t symbol);

/**
 * machine_step() - the configuration after a symbol (nfa->class_of[byte], or n_classes + number of a special
 * token) MACHINE_DEAD: it can't come here, or m->error is set.
 */
static inline uint32_t machine_step(struct machine *m, uint32_t config, uint32_t symbol)
{
    uint32_t next = m->next[(size_t)config * m->n_symbols + symbol];

    return next != MACHINE_UNKNOWN ? next : machine_take(m, config, symbol);
}

/**
 * machine_accepts() - whether the text may end here; machine_ends(): whether it has to
 */
bool machine_accepts(const struct machine *m, uint32_t config);
bool machine_ends(const struct machine *m, uint32_t config);

/**
 * machine_forget() - drop all but @config, which gets another number: the result. MACHINE_DEAD with m->error
 */
uint32_t machine_forget(struct machine *m, uint32_t config);
