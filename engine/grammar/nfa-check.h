/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

struct ir;
struct nfa;

/**
 * nfa_check() - find out which states lead to the end and which nets can be empty, order the nets, and refuse
 * grammars that match nothing or call themselves before they have read anything (ir->error). Private to
 * engine/grammar.
 */
void nfa_check(struct nfa *nfa, struct ir *ir);
