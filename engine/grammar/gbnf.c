/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/grammar/gbnf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "engine/grammar/ir.h"
#include "engine/grammar/limits.h"
#include "engine/grammar/nodes.h"

struct gbnf {
    struct ir *ir;
    const char *text;
    size_t n, at;
    uint32_t line;
    size_t line_at;  /* where the line begins */
    uint32_t *slots; /* [n_slots] rule + 1 by the hash of its name, 0: empty */
    uint32_t n_slots;
    unsigned depth;
};

static uint32_t alternatives(struct gbnf *g, bool nested);

static uint32_t here(const struct gbnf *g)
{
    return ir_place(g->line, (uint32_t)(g->at - g->line_at) + 1);
}

static bool fail(struct gbnf *g, const char *reason)
{
    ir_fail(g->ir, here(g), "%s", reason);
    return false;
}

static int peek(const struct gbnf *g)
{
    return g->at < g->n && g->ir->error == 0 ? (unsigned char)g->text[g->at] : -1;
}

static bool take(struct gbnf *g, char c)
{
    if (peek(g) != (unsigned char)c)
        return false;
    g->at++;
    return true;
}

static void skip_space(struct gbnf *g, bool lines)
{
    for (;;) {
        int c = peek(g);

        if (c == '#') {
            while (peek(g) >= 0 && peek(g) != '\n')
                g->at++;
        } else if (c == ' ' || c == '\t' || (lines && c == '\r')) {
            g->at++;
        } else if (lines && c == '\n') {
            g->at++;
            g->line++;
            g->line_at = g->at;
        } else {
            return;
        }
    }
}

/* ---- names ---- */

static bool is_word(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static size_t take_name(struct gbnf *g, const char **ret)
{
    size_t from = g->at;

    while (is_word(peek(g)))
        g->at++;
    *ret = g->text + from;
    return g->at - from;
}

static bool grow_slots(struct gbnf *g)
{
    uint32_t n = g->n_slots ? 2 * g->n_slots : 256;
    uint32_t *slots = calloc(n, sizeof(*slots));

    if (!slots) {
        g->ir->error = -ENOMEM;
        return false;
    }
    free(g->slots);
    g->slots = slots;
    g->n_slots = n;
    for (uint32_t i = 0; i < g->ir->n_rules; i++) {
        const char *name = ir_rule_name(g->ir, i);
        uint32_t at = nodes_hash(name, strlen(name)) & (n - 1);

        while (slots[at])
            at = (at + 1) & (n - 1);
        slots[at] = i + 1;
    }
    return true;
}

static uint32_t rule_of(struct gbnf *g, const char *name, size_t n)
{
    uint32_t at, rule;

    if (2 * (g->ir->n_rules + 1) > g->n_slots && !grow_slots(g))
        return 0;
    for (at = nodes_hash(name, n) & (g->n_slots - 1); g->slots[at]; at = (at + 1) & (g->n_slots - 1)) {
        const char *other = ir_rule_name(g->ir, g->slots[at] - 1);

        if (strlen(other) == n && memcmp(other, name, n) == 0)
            return g->slots[at] - 1;
    }
    rule = ir_rule_new(g->ir, name, n);
    g->slots[at] = rule + 1;
    return rule;
}

/* ---- characters ---- */

static int hex_digit(int c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static bool take_hex(struct gbnf *g, unsigned n_digits, uint32_t *ret)
{
    *ret = 0;
    for (unsigned i = 0; i < n_digits; i++, g->at++) {
        int digit = hex_digit(peek(g));

        if (digit < 0)
            return fail(g, "expected a hexadecimal digit");
        *ret = *ret << 4 | (uint32_t)digit;
    }
    return true;
}

static bool take_escape(struct gbnf *g, uint32_t *ret)
{
    static const char plain[] = "\"\\[]^-";
    int c = peek(g);

    if (c < 0)
        return fail(g, "the grammar ends in an escape");
    g->at++;
    switch (c) {
    case 'n':
        *ret = '\n';
        return true;
    case 'r':
        *ret = '\r';
        return true;
    case 't':
        *ret = '\t';
        return true;
    case 'x':
        return take_hex(g, 2, ret);
    case 'u':
        return take_hex(g, 4, ret);
    case 'U':
        return take_hex(g, 8, ret);
    default:
        if (strchr(plain, c)) {
            *ret = (uint32_t)c;
            return true;
        }
        g->at--;
        return fail(
            g, "no such escape; known are \\n \\r \\t \\xHH \\uHHHH \\UHHHHHHHH \\\" \\\\ \\[ \\] \\^ \\-");
    }
}

static bool take_character(struct gbnf *g, uint32_t *ret)
{
    int n;

    if (peek(g) == '\n' || peek(g) < 0)
        return fail(g, "the line ends inside a text or class");
    if (take(g, '\\')) {
        if (!take_escape(g, ret))
            return false;
        if (*ret > 0x10FFFF || (*ret >= 0xD800 && *ret <= 0xDFFF))
            return fail(g, "that is no character");
        return true;
    }
    n = utf8_decode(g->text + g->at, g->n - g->at, ret);
    if (n <= 0)
        return fail(g, "the grammar is no UTF-8");
    g->at += (size_t)n;
    return true;
}

static uint32_t literal(struct gbnf *g)
{
    uint32_t node = 0, code;
    size_t n = 0;
    char *bytes = malloc(g->n - g->at + UTF8_BYTES_MAX);

    if (!bytes) {
        g->ir->error = -ENOMEM;
        return 0;
    }
    g->at++;
    while (peek(g) != '"' && take_character(g, &code))
        n += utf8_encode(code, bytes + n);
    take(g, '"');
    node = ir_bytes(g->ir, bytes, n);
    free(bytes);
    return node;
}

static uint32_t character_class(struct gbnf *g)
{
    struct ir_range *ranges = malloc((g->n - g->at) * sizeof(*ranges));
    uint32_t node = 0;
    size_t n = 0;
    bool negate;

    if (!ranges) {
        g->ir->error = -ENOMEM;
        return 0;
    }
    g->at++;
    negate = take(g, '^');
    while (peek(g) != ']' && take_character(g, &ranges[n].low)) {
        ranges[n].high = ranges[n].low;
        if (peek(g) == '-' && g->at + 1 < g->n && g->text[g->at + 1] != ']') {
            g->at++;
            if (!take_character(g, &ranges[n].high))
                break;
            if (ranges[n].high < ranges[n].low) {
                fail(g, "the range is upside down");
                break;
            }
        }
        n++;
    }
    if (take(g, ']'))
        node = ir_class(g->ir, ranges, n, negate);
    free(ranges);
    return node;
}

/* ---- expressions ---- */

static bool take_number(struct gbnf *g, uint32_t *ret)
{
    uint32_t place = here(g);
    uint64_t number = 0;

    if (!(peek(g) >= '0' && peek(g) <= '9'))
        return fail(g, "expected a number");
    while (peek(g) >= '0' && peek(g) <= '9') {
        number = number * 10 + (uint64_t)(peek(g) - '0');
        if (number > GRAMMAR_REPEAT_MAX) {
            ir_fail(g->ir, place, "at most %u repetitions can be asked for", GRAMMAR_REPEAT_MAX);
            return false;
        }
        g->at++;
    }
    *ret = (uint32_t)number;
    return true;
}

/* {n}, {n,}, {n,m}, {,m} */
static bool take_counts(struct gbnf *g, uint32_t *ret_min, uint32_t *ret_max)
{
    *ret_min = 0;
    skip_space(g, false);
    if (peek(g) != ',' && !take_number(g, ret_min))
        return false;
    *ret_max = *ret_min;
    skip_space(g, false);
    if (take(g, ',')) {
        skip_space(g, false);
        *ret_max = IR_FOREVER;
        if (peek(g) != '}' && !take_number(g, ret_max))
            return false;
        skip_space(g, false);
    }
    if (!take(g, '}'))
        return fail(g, "expected } after the number of repetitions");
    if (*ret_max < *ret_min)
        return fail(g, "the repetitions are upside down");
    return true;
}

static uint32_t repeats(struct gbnf *g, uint32_t node)
{
    for (;;) {
        uint32_t min = 0, max = IR_FOREVER;

        g->ir->place = here(g);
        if (take(g, '*')) {
        } else if (take(g, '+')) {
            min = 1;
        } else if (take(g, '?')) {
            max = 1;
        } else if (take(g, '{')) {
            if (!take_counts(g, &min, &max))
                return 0;
        } else {
            return node;
        }
        node = ir_repeat(g->ir, node, min, max);
    }
}

static uint32_t group(struct gbnf *g)
{
    uint32_t node;

    if (++g->depth > GRAMMAR_DEPTH_MAX) {
        fail(g, "too many parentheses inside each other");
        return 0;
    }
    g->at++;
    node = alternatives(g, /* nested= */ true);
    g->depth--;
    if (g->ir->error == 0 && !take(g, ')'))
        fail(g, "expected )");
    return node;
}

/* Returns false when no element begins here. */
static bool element(struct gbnf *g, uint32_t *ret)
{
    static const struct ir_range everything = {0, 0x10FFFF};
    struct ir_range any = everything;
    const char *name;
    size_t n;
    int c = peek(g);

    g->ir->place = here(g);
    if (c == '"') {
        *ret = literal(g);
    } else if (c == '[') {
        *ret = character_class(g);
    } else if (c == '(') {
        *ret = group(g);
    } else if (c == '.') {
        g->at++;
        *ret = ir_class(g->ir, &any, 1, false);
    } else if (is_word(c)) {
        n = take_name(g, &name);
        *ret = ir_call(g->ir, rule_of(g, name, n));
    } else {
        return false;
    }
    *ret = repeats(g, *ret);
    return true;
}

static uint32_t sequence(struct gbnf *g, bool nested)
{
    _cleanup_nodes_ struct nodes list = {0};
    uint32_t node;

    skip_space(g, nested);
    while (element(g, &node)) {
        nodes_add(g->ir, &list, node);
        skip_space(g, nested);
    }
    return ir_cat(g->ir, list.nodes, list.n);
}

/* A line that begins with | goes on with the rule above it. */
static bool take_bar(struct gbnf *g)
{
    struct gbnf before = *g;

    skip_space(g, /* lines= */ true);
    if (take(g, '|')) {
        skip_space(g, true);
        return true;
    }
    *g = before;
    return false;
}

static uint32_t alternatives(struct gbnf *g, bool nested)
{
    _cleanup_nodes_ struct nodes list = {0};

    do
        nodes_add(g->ir, &list, sequence(g, nested));
    while (g->ir->error == 0 && take_bar(g));
    return ir_alt(g->ir, list.nodes, list.n);
}

static void rule(struct gbnf *g)
{
    uint32_t place = here(g), number, body;
    const char *name;
    size_t n = take_name(g, &name);

    if (n == 0) {
        fail(g, "expected the name of a rule");
        return;
    }
    g->ir->place = place;
    number = rule_of(g, name, n);
    skip_space(g, false);
    if (g->n - g->at < 3 || memcmp(g->text + g->at, "::=", 3) != 0) {
        fail(g, "expected ::= after the name of a rule");
        return;
    }
    g->at += 3;
    if (g->ir->error == 0 && g->ir->rules[number].defined) {
        ir_fail(g->ir, place, "the rule %.*s is there twice", (int)(n < 64 ? n : 64), name);
        return;
    }
    skip_space(g, true);
    body = alternatives(g, false);
    if (g->ir->error)
        return;
    g->ir->rules[number].place = place;
    ir_rule_set(g->ir, number, body);
    skip_space(g, false);
    if (peek(g) == '\r')
        g->at++;
    if (peek(g) >= 0 && peek(g) != '\n')
        fail(g, "expected a text, a class, a rule, a group or the end of the line");
}

void gbnf_parse(struct ir *ir, const char *text, size_t n)
{
    struct gbnf g = {.ir = ir, .text = text, .n = n, .line = 1};

    if (n > GRAMMAR_TEXT_MAX) {
        ir_fail(ir, 0, "expected at most %u bytes", GRAMMAR_TEXT_MAX);
        return;
    }
    ir->place = ir_place(1, 1);
    ir->root = rule_of(&g, "root", 4);
    skip_space(&g, true);
    while (peek(&g) >= 0) {
        rule(&g);
        skip_space(&g, true);
    }
    for (uint32_t i = 0; i < ir->n_rules && ir->error == 0; i++)
        if (!ir->rules[i].defined)
            ir_fail(ir, i == ir->root ? 0 : ir->rules[i].place, "the rule %.64s is not defined",
                    ir_rule_name(ir, i));
    free(g.slots);
}
