/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Numbers that are multiples of something (`multipleOf`), digit by digit: what may follow depends on the
 * remainder of the digits before. Private to engine/grammar; schema-number.c writes the numbers.
 */

#include <stdbool.h>
#include <stdint.h>

#include "engine/grammar/intern.h"
#include "engine/grammar/schema-internal.h"

struct multiple {
    struct schema *s;
    uint64_t divisor;       /* of numbers times 10 to the power of n_fraction */
    unsigned n_fraction;    /* digits behind the point that a multiple can have */
    unsigned n_whole;       /* digits before it that are written where no bound says */
    unsigned n_significant; /* digits from which on each remainder can be filled up to a multiple */
    struct intern states;   /* what has to follow, as words */
    uint32_t *rules;        /* [states] */
    uint32_t n_rules, rules_allocated;
};

/**
 * multiple_init() - read `multipleOf` of @schema; multiple_done() has to be called where it returned true
 * Returns false when there is none, or with an error.
 */
bool multiple_init(struct multiple *m, struct schema *s, json_object *schema, bool is_integer);
void multiple_done(struct multiple *m);

/**
 * multiple_take() - the remainder of the digits so far behind one more
 */
uint64_t multiple_take(const struct multiple *m, uint64_t remainder, unsigned digit);

/**
 * multiple_ends() - whether the number may end here, with @n_behind digits behind the point
 */
bool multiple_ends(const struct multiple *m, uint64_t remainder, unsigned n_behind);

/**
 * multiple_whole() - from @least to @most digits and what may stand behind the point, as a node
 */
uint32_t multiple_whole(struct multiple *m, unsigned least, unsigned most, uint64_t remainder);

/**
 * multiple_fraction() - at least one digit, with @n_behind already behind the point
 */
uint32_t multiple_fraction(struct multiple *m, unsigned n_behind, uint64_t remainder);
