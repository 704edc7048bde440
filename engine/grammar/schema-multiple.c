/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A number is written as a whole one: 10^n_fraction times itself, its zeros at the end left out. Behind some
 * digits with remainder r, k more can make a multiple of M exactly when (-r · 10^k mod M) is below 10^k, and
 * this is then the least that they can be. So what may follow is a row of these values, one for each k that
 * is still possible, up to the k from which on it is always possible. Remainders with the same row are one
 * state: for M = 1000 there are four of them and not a thousand, for M = 7 there are seven.
 *
 * Each state is a rule whose alternatives are a digit and the next state. Their number is bounded here;
 * divisors with large factors other than 2 and 5 get fewer digits, or are refused.
 */
#include "engine/grammar/schema-multiple.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/grammar/decimal.h"
#include "engine/grammar/nodes.h"

#define STATES_MAX      4096u
#define WHOLE_MAX       18u /* fit into 64 bits */
#define FRACTION_MAX    15u
#define SIGNIFICANT_MAX 18u
#define NOTHING         UINT64_MAX

enum place { WHOLE, FRACTION };

static uint64_t power(unsigned n)
{
    uint64_t p = 1;

    while (n-- > 0)
        p *= 10;
    return p;
}

/* The least that @k digits behind @remainder can be. */
static uint64_t fill(const struct multiple *m, uint64_t remainder, unsigned k)
{
    uint64_t least = remainder;

    for (unsigned i = 0; i < k; i++)
        least = multiple_take(m, least, 0);
    least = least == 0 ? 0 : m->divisor - least;
    return k >= m->n_significant || least < power(k) ? least : NOTHING;
}

/* ---- reading ---- */

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b > 0) {
        uint64_t rest = a % b;

        a = b;
        b = rest;
    }
    return a;
}

static unsigned n_digits(uint64_t n)
{
    unsigned k = 1;

    for (; n >= 10; n /= 10)
        k++;
    return k;
}

/* Remainders that are told apart over and over: not those by powers of 2 and 5, which the last digits settle.
 */
static uint64_t odd_part(uint64_t n)
{
    while (n % 2 == 0)
        n /= 2;
    while (n % 5 == 0)
        n /= 5;
    return n;
}

bool multiple_init(struct multiple *m, struct schema *s, json_object *schema, bool is_integer)
{
    json_object *value = schema ? schema_get(schema, "multipleOf") : NULL;
    struct decimal d;
    uint64_t by_digits;

    *m = (struct multiple){.s = s};
    if (!value)
        return false;
    if (!decimal_of(value, &d) || d.negative || (strcmp(d.whole, "0") == 0 && !*d.fraction)) {
        schema_fail(s, "multipleOf: expected a number above 0");
        return false;
    }
    m->n_fraction = (unsigned)strlen(d.fraction);
    if (m->n_fraction > FRACTION_MAX || !decimal_scaled(&d, m->n_fraction, &m->divisor)) {
        schema_fail(s, "multipleOf: at most %u digits behind the point and %u in all are supported",
                    FRACTION_MAX, SIGNIFICANT_MAX);
        return false;
    }
    if (is_integer) {
        m->divisor /= common_divisor(m->divisor, power(m->n_fraction));
        m->n_fraction = 0;
    }
    m->n_significant = n_digits(m->divisor - 1);
    by_digits = STATES_MAX / (odd_part(m->divisor) + m->n_significant);
    m->n_whole = n_digits(m->divisor) + 1;
    if (by_digits > m->n_whole)
        m->n_whole = by_digits < WHOLE_MAX ? (unsigned)by_digits : WHOLE_MAX;
    if (m->n_whole + m->n_fraction > WHOLE_MAX)
        m->n_whole = m->n_fraction < WHOLE_MAX ? WHOLE_MAX - m->n_fraction : 1;
    return true;
}

void multiple_done(struct multiple *m)
{
    intern_done(&m->states);
    free(m->rules);
    *m = (struct multiple){0};
}

/* ---- states ---- */

uint64_t multiple_take(const struct multiple *m, uint64_t remainder, unsigned digit)
{
    return (uint64_t)(((unsigned __int128)remainder * 10 + digit) % m->divisor);
}

bool multiple_ends(const struct multiple *m, uint64_t remainder, unsigned n_behind)
{
    return n_behind <= m->n_fraction && fill(m, remainder, m->n_fraction - n_behind) == 0;
}

static uint32_t digit_to(struct multiple *m, unsigned from, unsigned to)
{
    struct ir_range range = {'0' + from, '0' + to};

    return ir_class(m->s->ir, &range, 1, false);
}

/* Digits with their next states, neighbours that lead to the same together. */
static void add_digits(struct multiple *m, struct nodes *list, const uint32_t *next)
{
    struct ir *ir = m->s->ir;

    for (unsigned digit = 0, end; digit < 10; digit = end) {
        for (end = digit + 1; end < 10 && next[end] == next[digit]; end++)
            ;
        if (next[digit] != IR_NO_RULE)
            nodes_add(ir, list,
                      ir_cat_of(ir, digit_to(m, digit, end - 1), next[digit] ? ir_call(ir, next[digit]) : 0));
    }
}

static uint32_t rule_of(struct multiple *m, enum place place, unsigned least, unsigned most,
                        uint64_t remainder);

static uint32_t behind_point(struct multiple *m, unsigned n_behind, uint64_t remainder)
{
    return rule_of(m, FRACTION, n_behind, n_behind, remainder);
}

static uint32_t make_state(struct multiple *m, enum place place, unsigned least, unsigned most,
                           uint64_t remainder)
{
    struct ir *ir = m->s->ir;
    _cleanup_nodes_ struct nodes list = {0};
    uint32_t next[10], point;
    unsigned left = place == WHOLE ? most : m->n_fraction - most;

    if (place == WHOLE && least == 0 && m->n_fraction > 0 && !ir->error) {
        point = behind_point(m, 0, remainder);
        if (point != IR_NO_RULE)
            nodes_add(ir, &list, ir_cat_of(ir, ir_text(ir, "."), ir_call(ir, point)));
    }
    /* Behind the point there is a digit first, so its first place is no end. */
    if (place == WHOLE ? least == 0 && multiple_ends(m, remainder, 0)
                       : most > 0 && multiple_ends(m, remainder, most))
        nodes_add(ir, &list, 0);
    for (unsigned digit = 0; digit < 10 && left > 0; digit++) {
        uint64_t to = multiple_take(m, remainder, digit);

        next[digit] = place == WHOLE ? rule_of(m, WHOLE, least > 0 ? least - 1 : 0, most - 1, to)
                                     : rule_of(m, FRACTION, least + 1, most + 1, to);
    }
    if (left > 0)
        add_digits(m, &list, next);
    return ir_alt(ir, list.nodes, list.n);
}

static bool reserve(struct multiple *m)
{
    uint32_t n = m->rules_allocated ? 2 * m->rules_allocated : 64, *grown;

    if (m->n_rules < m->rules_allocated)
        return true;
    grown = reallocarray(m->rules, n, sizeof(*grown));
    if (!grown) {
        m->s->ir->error = -ENOMEM;
        return false;
    }
    m->rules = grown;
    m->rules_allocated = n;
    return true;
}

/* What has to follow, as words; returns how many, 0: nothing makes a multiple any more. */
static uint32_t describe(const struct multiple *m, enum place place, unsigned least, unsigned most,
                         uint64_t remainder, uint32_t words[3 + 2 * (SIGNIFICANT_MAX + 1)])
{
    unsigned from = place == WHOLE ? least + m->n_fraction : m->n_fraction - most,
             to = place == WHOLE ? most + m->n_fraction : from;
    uint32_t n = 0;
    bool any = false;

    words[n++] = place;
    words[n++] = least;
    words[n++] = most;
    for (unsigned k = from; k <= to; k++) {
        uint64_t least_fill;

        /* From here on every number of digits has a filling, and each follows from the one before. */
        if (k > m->n_significant && k > from)
            break;
        least_fill = fill(m, remainder, k);
        any |= least_fill != NOTHING;
        words[n++] = (uint32_t)least_fill;
        words[n++] = (uint32_t)(least_fill >> 32);
    }
    return any ? n : 0;
}

static uint32_t rule_of(struct multiple *m, enum place place, unsigned least, unsigned most,
                        uint64_t remainder)
{
    uint32_t words[3 + 2 * (SIGNIFICANT_MAX + 1)], n, state;
    size_t bytes = 0;
    uint32_t rule;

    if (m->s->ir->error)
        return IR_NO_RULE;
    n = describe(m, place, least, most, remainder, words);
    if (n == 0)
        return IR_NO_RULE;
    state = intern_put(&m->states, words, n, &bytes);
    if (state == INTERN_NONE) {
        m->s->ir->error = -ENOMEM;
        return IR_NO_RULE;
    }
    if (state < m->n_rules)
        return m->rules[state];
    if (state >= STATES_MAX) {
        schema_fail(
            m->s, "multipleOf: telling apart the remainders of so large a number is not supported; ask for a "
                  "divisor of it, or for fewer digits by minimum and maximum");
        return IR_NO_RULE;
    }
    if (!reserve(m))
        return IR_NO_RULE;
    rule = m->rules[m->n_rules++] = ir_rule_new(m->s->ir, "", 0);
    ir_rule_set(m->s->ir, rule, make_state(m, place, least, most, remainder));
    return rule;
}

static uint32_t node_of(struct multiple *m, uint32_t rule)
{
    return rule == IR_NO_RULE ? ir_alt(m->s->ir, NULL, 0) : ir_call(m->s->ir, rule);
}

uint32_t multiple_whole(struct multiple *m, unsigned least, unsigned most, uint64_t remainder)
{
    return node_of(m, rule_of(m, WHOLE, least, most, remainder));
}

uint32_t multiple_fraction(struct multiple *m, unsigned n_behind, uint64_t remainder)
{
    return node_of(m, rule_of(m, FRACTION, n_behind, n_behind, remainder));
}
