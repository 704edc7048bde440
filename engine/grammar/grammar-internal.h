/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Inside of a grammar. Private to engine/grammar.
 */

#include "engine/grammar/grammar.h"
#include "engine/grammar/nfa.h"

struct ir;

struct grammar {
    struct nfa nfa;
};

/**
 * grammar_from_ir() - the end of every compilation; @ir stays its owner's. Returns 0 or ir->error
 */
int grammar_from_ir(struct ir *ir, struct grammar **ret);
