/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/grammar/regex.h"

#include <string.h>

#include "base/utf8.h"
#include "engine/grammar/ir.h"
#include "engine/grammar/limits.h"
#include "engine/grammar/nodes.h"

#define CLASS_RANGES_MAX 512
#define CODE_MAX         0x10FFFFu

struct parser {
    struct ir *ir;
    const char *text;
    size_t n, at;
    unsigned depth;
};

/* A part of the expression, and how many characters it may have. */
struct piece {
    uint32_t node, min, max;
    bool is_character; /* exactly one */
};

struct set {
    struct ir_range ranges[CLASS_RANGES_MAX];
    size_t n;
};

static struct piece alternatives(struct parser *p, bool top, struct regex *ret_run);

static void fail(struct parser *p, const char *reason)
{
    ir_fail(p->ir, p->ir->place, "pattern, character %zu: %s", p->at + 1, reason);
}

static int peek(const struct parser *p)
{
    return p->at < p->n && p->ir->error == 0 ? (unsigned char)p->text[p->at] : -1;
}

static bool take(struct parser *p, const char *what)
{
    size_t n = strlen(what);

    if (p->ir->error || p->n - p->at < n || memcmp(p->text + p->at, what, n) != 0)
        return false;
    p->at += n;
    return true;
}

static uint32_t add_lengths(uint32_t a, uint32_t b)
{
    return a > IR_FOREVER - b ? IR_FOREVER : a + b;
}

static uint32_t multiply_lengths(uint32_t a, uint32_t b)
{
    uint64_t product = (uint64_t)a * b;

    return a == 0 || b == 0                                              ? 0
           : a == IR_FOREVER || b == IR_FOREVER || product >= IR_FOREVER ? IR_FOREVER
                                                                         : (uint32_t)product;
}

/* ---- characters ---- */

static void set_add(struct parser *p, struct set *s, uint32_t low, uint32_t high)
{
    if (s->n == CLASS_RANGES_MAX) {
        fail(p, "the class is too long");
        return;
    }
    s->ranges[s->n++] = (struct ir_range){low, high};
}

/* \d \w \s and their opposites, which are capital letters. */
static bool set_add_named(struct parser *p, struct set *s, int name)
{
    static const struct ir_range digits[] = {{'0', '9'}};
    static const struct ir_range letters[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
    static const struct ir_range spaces[] = {
        {9, 13},          {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
        {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
    const struct ir_range *ranges;
    uint32_t from = 0;
    size_t n;

    switch (name | 0x20) {
    case 'd':
        ranges = digits;
        n = sizeof(digits) / sizeof(*digits);
        break;
    case 'w':
        ranges = letters;
        n = sizeof(letters) / sizeof(*letters);
        break;
    case 's':
        ranges = spaces;
        n = sizeof(spaces) / sizeof(*spaces);
        break;
    default:
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (name & 0x20)
            set_add(p, s, ranges[i].low, ranges[i].high);
        else if (ranges[i].low > from)
            set_add(p, s, from, ranges[i].low - 1);
        from = ranges[i].high + 1;
    }
    if (!(name & 0x20))
        set_add(p, s, from, CODE_MAX);
    return true;
}

static int hex_digit(int c)
{
    return c >= '0' && c <= '9'                     ? c - '0'
           : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                    : -1;
}

static uint32_t take_hex(struct parser *p, unsigned n_digits)
{
    uint32_t code = 0;

    for (unsigned i = 0; i < n_digits; i++, p->at++) {
        int digit = hex_digit(peek(p));

        if (digit < 0) {
            fail(p, "expected a hexadecimal digit");
            return 0;
        }
        code = code << 4 | (uint32_t)digit;
    }
    return code;
}

static uint32_t take_unicode(struct parser *p)
{
    uint32_t code = 0, low;
    unsigned n = 0;

    if (take(p, "{")) {
        for (; hex_digit(peek(p)) >= 0 && n < 6; n++, p->at++)
            code = code << 4 | (uint32_t)hex_digit(peek(p));
        if (!take(p, "}"))
            fail(p, "expected } after a code point");
    } else {
        code = take_hex(p, 4);
        if (code >= 0xD800 && code < 0xDC00 && take(p, "\\u")) {
            low = take_hex(p, 4);
            code = low >= 0xDC00 && low < 0xE000 ? 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
                                                 : CODE_MAX + 1;
        }
    }
    if (code > CODE_MAX)
        fail(p, "that is no character");
    return code;
}

/* After a backslash, where it stands for one character. */
static uint32_t take_escape(struct parser *p)
{
    static const char names[] = "nrtfv0", codes[] = "\n\r\t\f\v\0";
    int c = peek(p);
    const char *name;

    if (c < 0) {
        fail(p, "it ends in an escape");
        return 0;
    }
    p->at++;
    if (c == 'x')
        return take_hex(p, 2);
    if (c == 'u')
        return take_unicode(p);
    if (c == 'c' && ((peek(p) | 0x20) >= 'a' && (peek(p) | 0x20) <= 'z'))
        return (uint32_t)(p->text[p->at++] & 0x1F);
    name = strchr(names, c);
    if (name)
        return (uint8_t)codes[name - names];
    if (strchr("^$\\.*+?()[]{}|/-\"'#&,:;<=>@_`~!% ", c))
        return (uint32_t)c;
    p->at--;
    fail(p, (c >= '1' && c <= '9') || c == 'k' ? "back references are not supported"
            : c == 'b' || c == 'B'             ? "word boundaries are not supported"
            : c == 'p' || c == 'P'             ? "properties of characters are not supported"
                                               : "no such escape");
    return 0;
}

static uint32_t take_code(struct parser *p)
{
    uint32_t code = 0;
    int n = utf8_decode(p->text + p->at, p->n - p->at, &code);

    if (n <= 0)
        fail(p, "it is no UTF-8");
    else
        p->at += (size_t)n;
    return code;
}

static struct piece character(struct parser *p, struct set *s, bool negate)
{
    return (struct piece){
        .node = ir_json_class(p->ir, s->ranges, s->n, negate), .min = 1, .max = 1, .is_character = true};
}

static struct piece class(struct parser *p)
{
    bool negate = take(p, "^");
    struct set s;

    s.n = 0;
    while (peek(p) >= 0 && peek(p) != ']') {
        uint32_t low, high;

        if (peek(p) == '\\' && p->at + 1 < p->n) {
            p->at++;
            if (set_add_named(p, &s, (unsigned char)p->text[p->at])) {
                p->at++;
                continue;
            }
            low = peek(p) == 'b' ? (p->at++, 8) : take_escape(p);
        } else {
            low = take_code(p);
        }
        high = low;
        if (peek(p) == '-' && p->at + 1 < p->n && p->text[p->at + 1] != ']') {
            p->at++;
            high = take(p, "\\") ? take_escape(p) : take_code(p);
            if (high < low)
                fail(p, "the range is upside down");
        }
        set_add(p, &s, low, high);
    }
    if (!take(p, "]"))
        fail(p, "expected ]");
    return character(p, &s, negate);
}

static struct piece any_character(struct parser *p)
{
    struct set s;

    s.n = 3;
    s.ranges[0] = (struct ir_range){'\n', '\n'};
    s.ranges[1] = (struct ir_range){'\r', '\r'};
    s.ranges[2] = (struct ir_range){0x2028, 0x2029};
    return character(p, &s, true);
}

/* ---- expressions ---- */

static struct piece group(struct parser *p)
{
    struct piece piece;
    struct regex run;

    if (take(p, "?")) {
        if (take(p, "<") && peek(p) != '=' && peek(p) != '!') {
            while (peek(p) >= 0 && peek(p) != '>')
                p->at++;
            p->at++;
        } else if (!take(p, ":")) {
            fail(p, "looking ahead or behind is not supported");
        }
    }
    if (++p->depth > GRAMMAR_DEPTH_MAX)
        fail(p, "too many parentheses inside each other");
    piece = alternatives(p, /* top= */ false, &run);
    p->depth--;
    if (!take(p, ")"))
        fail(p, "expected )");
    piece.is_character = false;
    return piece;
}

static struct piece atom(struct parser *p)
{
    struct set s;
    int c = peek(p);

    s.n = 0;
    if (take(p, "("))
        return group(p);
    if (take(p, "["))
        return class(p);
    if (take(p, "."))
        return any_character(p);
    if (c == '^' || c == '$') {
        fail(p, "^ and $ are supported at the beginning and the end only");
        return (struct piece){0};
    }
    if (strchr("*+?{", c)) {
        fail(p, "nothing to repeat");
        return (struct piece){0};
    }
    if (!take(p, "\\"))
        c = (int)take_code(p), set_add(p, &s, (uint32_t)c, (uint32_t)c);
    else if (p->at < p->n && set_add_named(p, &s, (unsigned char)p->text[p->at]))
        p->at++;
    else
        c = (int)take_escape(p), set_add(p, &s, (uint32_t)c, (uint32_t)c);
    return character(p, &s, false);
}

static uint32_t take_number(struct parser *p)
{
    uint32_t number = 0;

    if (!(peek(p) >= '0' && peek(p) <= '9'))
        fail(p, "expected a number");
    for (; peek(p) >= '0' && peek(p) <= '9'; p->at++)
        if (number <= GRAMMAR_REPEAT_MAX)
            number = number * 10 + (uint32_t)(peek(p) - '0');
    return number;
}

/* Returns false, and leaves both as they are, when nothing is repeated here. */
static bool take_counts(struct parser *p, uint32_t *ret_min, uint32_t *ret_max)
{
    uint32_t min = 0, max = IR_FOREVER;

    if (take(p, "+")) {
        min = 1;
    } else if (take(p, "?")) {
        max = 1;
    } else if (take(p, "{")) {
        min = max = take_number(p);
        if (take(p, ","))
            max = peek(p) == '}' ? IR_FOREVER : take_number(p);
        if (!take(p, "}"))
            fail(p, "expected } after the number of repetitions");
        if (max < min)
            fail(p, "the repetitions are upside down");
    } else if (!take(p, "*")) {
        return false;
    }
    take(p, "?"); /* as few as possible: the same texts */
    *ret_min = min;
    *ret_max = max;
    return true;
}

static struct piece any_text(struct parser *p)
{
    struct set s;

    s.n = 0;
    return (struct piece){.node = ir_repeat(p->ir, ir_json_class(p->ir, s.ranges, 0, true), 0, IR_FOREVER),
                          .max = IR_FOREVER};
}

static struct piece sequence(struct parser *p, bool top, struct regex *ret_run)
{
    _cleanup_nodes_ struct nodes list = {0};
    struct piece all = {0}, part;
    bool begins, ends = !top, run = true;
    unsigned n_parts = 0;

    begins = !top || take(p, "^");
    if (!begins) {
        nodes_add(p->ir, &list, any_text(p).node);
        all.max = IR_FOREVER;
    }
    while (peek(p) >= 0 && peek(p) != '|' && peek(p) != ')') {
        uint32_t min = 1, max = 1;

        if (top && peek(p) == '$' && (p->at + 1 == p->n || p->text[p->at + 1] == '|')) {
            p->at++;
            ends = true;
            break;
        }
        part = atom(p);
        if (take_counts(p, &min, &max)) {
            run = run && part.is_character;
            *ret_run = (struct regex){.unit = part.node, .min = min, .max = max};
            part.node = ir_repeat(p->ir, part.node, min, max);
        } else {
            run = false;
        }
        nodes_add(p->ir, &list, part.node);
        all.min = add_lengths(all.min, multiply_lengths(part.min, min));
        all.max = add_lengths(all.max, multiply_lengths(part.max, max));
        all.is_character = part.is_character && min == 1 && max == 1 && n_parts == 0;
        n_parts++;
    }
    if (!ends) {
        nodes_add(p->ir, &list, any_text(p).node);
        all.max = IR_FOREVER;
    }
    ret_run->is_run = top && begins && ends && run && n_parts == 1;
    all.node = ir_cat(p->ir, list.nodes, list.n);
    return all;
}

static struct piece alternatives(struct parser *p, bool top, struct regex *ret_run)
{
    _cleanup_nodes_ struct nodes list = {0};
    struct piece all = {.min = IR_FOREVER};

    do {
        struct piece one = sequence(p, top, ret_run);

        nodes_add(p->ir, &list, one.node);
        all.min = one.min < all.min ? one.min : all.min;
        all.max = one.max > all.max ? one.max : all.max;
    } while (take(p, "|"));
    ret_run->is_run = ret_run->is_run && list.n == 1;
    all.node = ir_alt(p->ir, list.nodes, list.n);
    return all;
}

void regex_parse(struct ir *ir, const char *text, size_t n, struct regex *ret)
{
    struct parser p = {.ir = ir, .text = text, .n = n};
    struct regex run = {0};
    struct piece all = alternatives(&p, /* top= */ true, &run);

    if (peek(&p) >= 0)
        fail(&p, peek(&p) == ')' ? "a parenthesis too many"
                                 : "^ and $ are supported at the beginning and the end only");
    *ret = run.is_run ? run : (struct regex){.min = all.min, .max = all.max};
    ret->node = all.node;
}
