/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The automata that a grammar becomes: one instruction a state, over bytes, with calls. Rules that are
 * recursive, or large and used several times, are nets of their own that are called and return; everything
 * else is written out in place. Constant after it is made. Private to engine/grammar.
 *
 * What holds of a finished one: from every state that can be entered the end can be reached (others are never
 * entered); no net calls itself before it has read something.
 */

#include <stdbool.h>
#include <stdint.h>

struct ir;

enum nfa_op {
    NFA_ACCEPT, /* the net is through: return. State 0 is the only one */
    NFA_FAIL,   /* never matches */
    NFA_BYTE,   /* a byte from low to high, then state x */
    NFA_TOKEN,  /* special token number y, then state x */
    NFA_SPLIT,  /* go on with both x and y */
    NFA_CALL,   /* net y, then state x */
};

struct nfa_state {
    uint8_t op, low, high;
    bool live; /* the end can be reached */
    uint32_t x, y;
};

struct nfa_net {
    uint32_t start, rule; /* rule: for messages; UINT32_MAX: part of one */
    uint32_t rank;        /* nets that this one calls before it reads anything have higher ranks */
    bool nullable;
};

struct nfa {
    struct nfa_state *states;
    struct nfa_net *nets; /* 0 is the whole */
    uint32_t n_states, n_nets;
    uint32_t states_allocated, nets_allocated;
    int32_t *tokens; /* [n_tokens] special tokens by number */
    uint32_t n_tokens;
    uint16_t class_of[256]; /* bytes that no state tells apart have the same class */
    uint16_t n_classes;     /* of bytes; special token number i has class n_classes + i */
    uint8_t byte_of[256];   /* some byte of a class */
};

/**
 * nfa_build() - compile @ir, which has no error yet; what is wrong with it is in ir->error afterwards
 * @nfa: all zero; nfa_done() has to be called even on failure
 */
void nfa_build(struct nfa *nfa, struct ir *ir);
void nfa_done(struct nfa *nfa);
