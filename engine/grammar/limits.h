/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a grammar may cost. It comes from a client and is compiled in the worker's helper thread, so every
 * bound is on memory or time that somebody else would wait for. Published schemas of applications have below
 * 100 KB, 2,000 nodes and 20,000 states.
 */

/* Of the text of a grammar, and of a schema written as JSON. */
#define GRAMMAR_TEXT_MAX (512u << 10)

/* Nodes of the intermediate form, 24 bytes each, and rules. */
#define GRAMMAR_NODES_MAX (1u << 18)
#define GRAMMAR_RULES_MAX (1u << 16)

/* Nesting of parentheses and of schemas: the compilers recurse. */
#define GRAMMAR_DEPTH_MAX 128u

/* States of the automata, 12 bytes each, after repetitions are written out. "x{1000000000}" ends here. */
#define GRAMMAR_STATES_MAX (1u << 18)

/* A repetition count that could never be written out is an error where it stands. */
#define GRAMMAR_REPEAT_MAX 100000u

/* Something that is used several times and has more states is compiled once and called. */
#define GRAMMAR_INLINE_MAX 12u

/* Alternatives that may be open at the same byte, and callers of one frame: beyond, a grammar is ambiguous in
 * a way that would make every token slow. */
#define GRAMMAR_THREADS_MAX 512u
#define GRAMMAR_LINKS_MAX   2048u

/* States, frames and configurations that were found while masks were made, for one grammar in use. Above the
 * first bound all but what is needed is forgotten before the next mask; above the second one the request
 * ends. */
#define GRAMMAR_MACHINE_BYTES_SOFT (16u << 20)
#define GRAMMAR_MACHINE_BYTES_MAX  (64u << 20)

/* Threads, calls and states looked at for one mask: some 50 ms. A grammar that needs more is ambiguous
 * without bound. */
#define GRAMMAR_WORK_MAX 10000000u

/* Cached masks of one grammar in use: 512 of a vocabulary of 128k tokens. */
#define GRAMMAR_MASK_BYTES_MAX (8u << 20)

/* Special tokens (tool call markers and the like) that one grammar may name. */
#define GRAMMAR_TOKENS_MAX 32u
