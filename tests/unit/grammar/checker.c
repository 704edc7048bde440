/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/grammar/checker.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

/* ---- the recogniser ---- */

struct checker {
    const struct ir *ir;
    const char *text;
    size_t n;
    uint64_t *memo; /* [n_nodes][n + 1] ends; known only if its byte says so */
    uint8_t *known;
    bool viable;
};

static uint64_t ends_of(struct checker *c, uint32_t node, size_t at);

/* From each of a set of places. */
static uint64_t ends_from(struct checker *c, uint32_t node, uint64_t from)
{
    uint64_t ends = 0;

    for (; from; from &= from - 1)
        ends |= ends_of(c, node, (size_t)__builtin_ctzll(from));
    return ends;
}

static uint64_t ends_of_bytes(struct checker *c, const char *bytes, size_t n, size_t at)
{
    for (size_t i = 0; i < n; i++) {
        if (at + i == c->n) {
            c->viable = true;
            return 0;
        }
        if (c->text[at + i] != bytes[i])
            return 0;
    }
    return UINT64_C(1) << (at + n);
}

/* Whether some character of the class begins with the bytes that are left: tried out, one by one. */
static bool may_begin(const struct ir *ir, const struct ir_node *n, const char *bytes, size_t n_bytes)
{
    if (n_bytes == 0)
        return n->n > 0;
    for (uint32_t i = 0; i < n->n; i++)
        for (uint32_t code = ir->ranges[n->at + i].low; code <= ir->ranges[n->at + i].high;) {
            char spelled[UTF8_BYTES_MAX];
            size_t length = utf8_encode(code, spelled), same = 0;
            uint32_t step = 1;

            while (same < length && same < n_bytes && spelled[same] == bytes[same])
                same++;
            if (same == n_bytes && same < length)
                return true;
            /* Characters with the same first bytes lie together. */
            if (length > 1 && same == 0)
                step = UINT32_C(1) << 6 * (length - 1);
            code = (code / step + 1) * step;
        }
    return false;
}

static uint64_t ends_of_class(struct checker *c, const struct ir_node *n, size_t at)
{
    uint32_t code;
    int length = utf8_decode(c->text + at, c->n - at, &code);

    if (length == 0) {
        c->viable |= may_begin(c->ir, n, c->text + at, c->n - at);
        return 0;
    }
    for (uint32_t i = 0; i < n->n && length > 0; i++)
        if (c->ir->ranges[n->at + i].low <= code && code <= c->ir->ranges[n->at + i].high)
            return UINT64_C(1) << (at + (size_t)length);
    return 0;
}

static uint64_t ends_of_repeat(struct checker *c, const struct ir_node *n, size_t at)
{
    uint64_t from = UINT64_C(1) << at, ends = n->min == 0 ? from : 0, seen = 0;

    for (uint32_t i = 1; i <= n->max && from; i++) {
        from = ends_from(c, n->at, from);
        if (i >= n->min) {
            from &= n->max == IR_FOREVER ? ~seen : ~UINT64_C(0);
            seen |= from;
            ends |= from;
        }
    }
    return ends;
}

static uint64_t ends_of_list(struct checker *c, const struct ir_node *n, size_t at)
{
    const uint32_t *children = c->ir->children + n->at;
    uint64_t first = UINT64_C(1) << at, later = 0;

    for (uint32_t i = 1; i < n->n; i++) {
        uint64_t with = ends_from(c, children[i], first | ends_from(c, children[0], later));

        if (c->ir->needed[n->at + i])
            first = later = 0;
        later |= with;
    }
    return first | later;
}

static uint64_t ends_of(struct checker *c, uint32_t node, size_t at)
{
    const struct ir_node *n = &c->ir->nodes[node];
    const uint32_t *children = c->ir->children + n->at;
    uint64_t ends = 0;
    size_t i_memo = node * (c->n + 1) + at;

    if (c->known[i_memo])
        return c->memo[i_memo];
    switch (n->kind) {
    case IR_EMPTY:
        ends = UINT64_C(1) << at;
        break;
    case IR_BYTES:
        ends = ends_of_bytes(c, c->ir->bytes + n->at, n->n, at);
        break;
    case IR_CLASS:
        ends = ends_of_class(c, n, at);
        break;
    case IR_CAT:
        ends = UINT64_C(1) << at;
        for (uint32_t i = 0; i < n->n; i++)
            ends = ends_from(c, children[i], ends);
        break;
    case IR_ALT:
        for (uint32_t i = 0; i < n->n; i++)
            ends |= ends_of(c, children[i], at);
        break;
    case IR_LIST:
        ends = ends_of_list(c, n, at);
        break;
    case IR_REPEAT:
        ends = ends_of_repeat(c, n, at);
        break;
    case IR_RULE:
        ends = ends_of(c, c->ir->rules[n->at].body, at);
        break;
    case IR_TOKEN:
        assert(!"texts have no special tokens");
    }
    c->known[i_memo] = 1;
    c->memo[i_memo] = ends;
    return ends;
}

unsigned checker_ask(const struct ir *ir, const char *text, size_t n)
{
    struct checker c = {.ir = ir, .text = text, .n = n};
    uint64_t ends;

    assert(n <= CHECKER_BYTES_MAX);
    c.memo = calloc(ir->n_nodes * (n + 1), sizeof(*c.memo));
    c.known = calloc(ir->n_nodes * (n + 1), 1);
    ends = ends_of(&c, ir->rules[ir->root].body, 0);
    free(c.memo);
    free(c.known);
    return (c.viable ? CHECKER_VIABLE : 0) | (ends >> n & 1 ? CHECKER_WHOLE : 0);
}

/* ---- the vocabulary ---- */

/* Across lexemes, runs of each class, longer than 16 characters, parts of characters, tokens that are there
 * twice. */
static const char *const words[] = {
    "he",
    "hello",
    " the",
    "the",
    " world",
    "Hello",
    "HELLO",
    "abc",
    "abcdefghijklmnop",
    "abcdefghijklmnopq",
    "a very long run of ordinary text, indeed",
    "x_1",
    "name",
    "\"name",
    "\"name\"",
    "\":",
    "\": ",
    "\",",
    "\", \"",
    "\"}",
    "{\"",
    "{}",
    "[]",
    "[[",
    "]]",
    "}}",
    "},",
    "],",
    "[{",
    "}]",
    "1",
    "12",
    "123",
    "2024",
    "-1",
    "0.",
    ".5",
    "e1",
    "true",
    "false",
    "null",
    "tru",
    " ",
    "  ",
    "    ",
    "\n",
    "\n  ",
    "\n\n",
    "\t",
    "\\",
    "\\n",
    "\\\"",
    "\\u",
    "\\u00",
    "u00e9",
    "\\\\",
    "\xC3\xA9",
    "\xC3\xA9t\xC3\xA9",
    "\xE2\x82\xAC",
    "\xE2\x82",
    "\xF0\x9F\x98\x80",
    "\xF0\x9F",
    "\x9F\x98",
    "\xA9",
    "\xA9\"",
    "a\xC3",
    "(",
    ")",
    "((",
    "))",
    "+",
    "-",
    "*",
    "a+",
    "+b",
    "b)",
    ",",
    ", ",
    ":",
    ": ",
    "\x7F",
    "'",
    "<",
    ">",
    "id",
    "\"id\":",
    "ab",
    "aab",
    "aaab",
    "bb",
    "ba",
    "a",
    "b",
    "c",
    "zz",
    "yes",
    "no",
    "maybe",
    "Z",
    "A1",
    "_",
    "-a",
};

#define N_WORDS (sizeof(words) / sizeof(words[0]))

uint32_t checker_n_tokens(void)
{
    return 258 + N_WORDS;
}

size_t checker_piece(const void *userdata, int32_t token, const char **ret)
{
    static const char bytes[] =
        "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0A\x0B\x0C\x0D\x0E\x0F\x10\x11\x12\x13\x14\x15\x16\x17\x18"
        "\x19\x1A\x1B\x1C"
        "\x1D\x1E\x1F "
        "!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~\x7F"
        "\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8A\x8B\x8C\x8D\x8E\x8F\x90\x91\x92\x93\x94\x95\x96\x97\x98"
        "\x99\x9A\x9B\x9C"
        "\x9D\x9E\x9F\xA0\xA1\xA2\xA3\xA4\xA5\xA6\xA7\xA8\xA9\xAA\xAB\xAC\xAD\xAE\xAF\xB0\xB1\xB2\xB3\xB4\xB5"
        "\xB6\xB7\xB8\xB9"
        "\xBA\xBB\xBC\xBD\xBE\xBF\xC0\xC1\xC2\xC3\xC4\xC5\xC6\xC7\xC8\xC9\xCA\xCB\xCC\xCD\xCE\xCF\xD0\xD1\xD2"
        "\xD3\xD4\xD5\xD6"
        "\xD7\xD8\xD9\xDA\xDB\xDC\xDD\xDE\xDF\xE0\xE1\xE2\xE3\xE4\xE5\xE6\xE7\xE8\xE9\xEA\xEB\xEC\xED\xEE\xEF"
        "\xF0\xF1\xF2\xF3"
        "\xF4\xF5\xF6\xF7\xF8\xF9\xFA\xFB\xFC\xFD\xFE\xFF";

    _Static_assert(sizeof(bytes) == 257, "each byte once");
    *ret = token < 256 ? bytes + token : "";
    if (token < 256)
        return 1;
    if (token == CHECKER_CONTROL || token == CHECKER_END)
        return 0;
    *ret = words[token - 258];
    return strlen(*ret);
}

bool checker_is_end(const void *userdata, int32_t token)
{
    return token == CHECKER_END;
}

struct grammar_vocabulary *checker_vocabulary(void)
{
    struct grammar_vocabulary *v = NULL;
    int r = grammar_vocabulary_new(checker_n_tokens(), checker_n_tokens() + 70, checker_piece, checker_is_end,
                                   NULL, &v);

    assert(r == 0);
    return v;
}

uint64_t checker_random(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}
