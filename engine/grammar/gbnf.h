/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * GBNF, the notation for grammars that llama.cpp made common (its grammars/README.md): rules `name ::= …`
 * with "text", [classes], . (any character), groups, |, * + ? {n} {n,} {n,m} and # comments. The rule `root`
 * is the whole answer. Private to engine/grammar.
 */

#include <stddef.h>

struct ir;

/**
 * gbnf_parse() - @n bytes of UTF-8 into @ir, whose root is set; errors are in ir->error
 */
void gbnf_parse(struct ir *ir, const char *text, size_t n);
