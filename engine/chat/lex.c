/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The lexer follows Jinja2's (lexer.py): what surrounds a tag is trimmed when the tag is found, before
 * anything inside is looked at. line_starting says whether the text that begins now begins a line, which
 * lstrip_blocks needs to know.
 */
#include "engine/chat/lex.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/utf8.h"

struct lexer {
    struct arena *arena;
    const char *source;
    size_t n, at;
    uint32_t line;
    bool line_starting;
    struct token *tokens;
    size_t n_tokens, allocated;
    struct fault *fault;
};

static int refuse(struct lexer *l, const char *what)
{
    fault_model_invalid(l->fault, FAULT_NO_OFFSET, "chat template, line %u: %s", l->line, what);
    return -EINVAL;
}

static int add(struct lexer *l, struct token token)
{
    token.line = l->line;
    if (l->n_tokens == l->allocated) {
        size_t want = l->allocated * 2 + 256;
        struct token *grown = arena_alloc(l->arena, want * sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        if (l->n_tokens > 0)
            memcpy(grown, l->tokens, l->n_tokens * sizeof(*grown));
        l->tokens = grown;
        l->allocated = want;
    }
    l->tokens[l->n_tokens++] = token;
    return 0;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c);
}

static void advance(struct lexer *l, size_t n)
{
    for (size_t i = 0; i < n; i++)
        l->line += l->source[l->at + i] == '\n';
    l->at += n;
}

static bool starts_with(const struct lexer *l, size_t at, const char *what)
{
    size_t n = strlen(what);

    return l->n - at >= n && memcmp(l->source + at, what, n) == 0;
}

/* Text before a tag at l->at + n: trimmed as the tag's sign and lstrip_blocks ask for. */
static int add_text(struct lexer *l, size_t n, char sign, bool is_block)
{
    const char *text = l->source + l->at;
    size_t keep = n, line_start = n;

    if (sign == '-') {
        while (keep > 0 && is_space(text[keep - 1]))
            keep--;
    } else if (sign != '+' && is_block) {
        while (line_start > 0 && text[line_start - 1] != '\n')
            line_start--;
        if (line_start > 0 || l->line_starting) {
            size_t i = line_start;

            while (i < n && is_space(text[i]))
                i++;
            if (i == n)
                keep = line_start;
        }
    }
    if (keep > 0) {
        int r = add(l, (struct token){.kind = TOKEN_TEXT, .text = {text, keep}});

        if (r < 0)
            return r;
    }
    advance(l, n);
    return 0;
}

/* Behind the end of a tag: '-' takes all white space, a block or a comment takes one newline unless it has a
 * '+'. */
static void trim_after(struct lexer *l, char sign, bool is_block)
{
    if (sign == '-') {
        while (l->at < l->n && is_space(l->source[l->at]))
            advance(l, 1);
    } else if (sign != '+' && is_block && l->at < l->n && l->source[l->at] == '\n') {
        advance(l, 1);
    }
    l->line_starting = l->at > 0 && l->source[l->at - 1] == '\n';
}

static int skip_comment(struct lexer *l)
{
    const char *end = memmem(l->source + l->at + 2, l->n - l->at - 2, "#}", 2);
    size_t n;
    char sign;

    if (!end)
        return refuse(l, "the comment that begins here does not end");
    n = (size_t)(end - (l->source + l->at));
    sign = n > 2 && (end[-1] == '-' || end[-1] == '+') ? end[-1] : 0;
    advance(l, n + 2);
    trim_after(l, sign, true);
    return 0;
}

static int hex_value(char c)
{
    if (is_digit(c))
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int add_code_escape(struct lexer *l, struct builder *b, unsigned n_digits)
{
    uint32_t code = 0;
    char bytes[UTF8_BYTES_MAX];
    size_t n;

    for (unsigned i = 0; i < n_digits; i++) {
        int digit = l->at + i < l->n ? hex_value(l->source[l->at + i]) : -1;

        if (digit < 0)
            return refuse(l, "this escape has too few hexadecimal digits");
        code = code << 4 | (uint32_t)digit;
    }
    l->at += n_digits;
    n = utf8_encode(code, bytes);
    return n > 0 ? builder_add(b, bytes, n) : refuse(l, "this escape is no character");
}

static int add_escape(struct lexer *l, struct builder *b)
{
    static const char from[] = "\\'\"abfnrtv", into[] = "\\'\"\a\b\f\n\r\t\v";
    char c = l->source[l->at++];
    const char *plain = c ? strchr(from, c) : NULL;

    if (plain)
        return builder_add(b, &into[plain - from], 1);
    if (c == 'x')
        return add_code_escape(l, b, 2);
    if (c == 'u')
        return add_code_escape(l, b, 4);
    if (c == 'U')
        return add_code_escape(l, b, 8);
    if (c == '\n') {
        l->line++;
        return 0;
    }
    return builder_add(b, (const char[2]){'\\', c}, 2); /* as Python: an unknown escape stays */
}

static int add_string(struct lexer *l)
{
    struct builder b = {.arena = l->arena};
    char quote = l->source[l->at++];

    while (l->at < l->n && l->source[l->at] != quote) {
        int r;

        if (l->source[l->at] == '\\' && l->at + 1 < l->n) {
            l->at++;
            r = add_escape(l, &b);
        } else {
            r = builder_add(&b, l->source + l->at, 1);
            advance(l, 1);
        }
        if (r < 0)
            return r;
    }
    if (l->at == l->n)
        return refuse(l, "a string does not end");
    l->at++;
    return add(l, (struct token){.kind = TOKEN_STRING, .text = builder_value(&b).string});
}

static int add_number(struct lexer *l)
{
    char copy[64];
    size_t start = l->at, n;
    bool is_float = false;
    struct token token = {.kind = TOKEN_INT};

    while (l->at < l->n && is_digit(l->source[l->at]))
        l->at++;
    if (l->at + 1 < l->n && l->source[l->at] == '.' && is_digit(l->source[l->at + 1])) {
        is_float = true;
        for (l->at++; l->at < l->n && is_digit(l->source[l->at]);)
            l->at++;
    }
    if (l->at < l->n && (l->source[l->at] | 0x20) == 'e') {
        size_t e = l->at + 1;

        e += e < l->n && (l->source[e] == '+' || l->source[e] == '-');
        if (e < l->n && is_digit(l->source[e])) {
            is_float = true;
            for (l->at = e; l->at < l->n && is_digit(l->source[l->at]);)
                l->at++;
        }
    }
    n = l->at - start;
    if (n >= sizeof(copy))
        return refuse(l, "a number has too many digits");
    memcpy(copy, l->source + start, n);
    copy[n] = 0;
    errno = 0;
    if (is_float) {
        token.kind = TOKEN_FLOAT;
        token.real = strtod(copy, NULL);
    } else {
        token.integer = strtoll(copy, NULL, 10);
        if (errno == ERANGE)
            return refuse(l, "a number is out of range");
    }
    return add(l, token);
}

static int add_operator(struct lexer *l)
{
    static const char *const two[] = {"==", "!=", "<=", ">=", "//", "**"};

    for (size_t i = 0; i < sizeof(two) / sizeof(*two); i++) {
        if (starts_with(l, l->at, two[i])) {
            l->at += 2;
            return add(l, (struct token){.kind = TOKEN_OPERATOR, .text = {two[i], 2}});
        }
    }
    if (!l->source[l->at] || !strchr("+-*/%~<>=()[]{},.:|;", l->source[l->at]))
        return refuse(l, "this character can't stand in an expression");
    l->at++;
    return add(l, (struct token){.kind = TOKEN_OPERATOR, .text = {l->source + l->at - 1, 1}});
}

/* Whether a tag's end stands at l->at; brackets must be closed before, so that {{ {'a': {}} }} ends where it
 * should. */
static bool at_end(const struct lexer *l, const char *end, char *ret_sign)
{
    char c = l->source[l->at];

    *ret_sign = 0;
    if (starts_with(l, l->at, end))
        return true;
    if ((c == '-' || (c == '+' && *end == '%')) && starts_with(l, l->at + 1, end)) {
        *ret_sign = c;
        return true;
    }
    return false;
}

static int lex_inside(struct lexer *l, const char *end, enum token_kind end_kind)
{
    unsigned depth = 0;

    for (;;) {
        char sign, c;
        int r;

        while (l->at < l->n && is_space(l->source[l->at]))
            advance(l, 1);
        if (l->at == l->n)
            return refuse(l, "a tag does not end");
        c = l->source[l->at];
        if (depth == 0 && at_end(l, end, &sign)) {
            r = add(l, (struct token){.kind = end_kind});
            l->at += sign ? 3 : 2;
            trim_after(l, sign, *end == '%');
            return r;
        }
        depth += c == '(' || c == '[' || c == '{';
        depth -= depth > 0 && (c == ')' || c == ']' || c == '}');
        if (c == '"' || c == '\'') {
            r = add_string(l);
        } else if (is_digit(c)) {
            r = add_number(l);
        } else if (is_name_char(c)) {
            size_t start = l->at;

            while (l->at < l->n && is_name_char(l->source[l->at]))
                l->at++;
            r = add(l, (struct token){.kind = TOKEN_NAME, .text = {l->source + start, l->at - start}});
        } else {
            r = add_operator(l);
        }
        if (r < 0)
            return r;
    }
}

/* Behind "{%" (and its sign): whether the tag is just @word; then *ret_end is behind it and *ret_sign its
 * sign. */
static bool tag_is(const struct lexer *l, size_t at, const char *word, size_t *ret_end, char *ret_sign)
{
    at += at < l->n && (l->source[at] == '-' || l->source[at] == '+');
    while (at < l->n && is_space(l->source[at]))
        at++;
    if (!starts_with(l, at, word))
        return false;
    at += strlen(word);
    while (at < l->n && is_space(l->source[at]))
        at++;
    *ret_sign = at < l->n && (l->source[at] == '-' || l->source[at] == '+') ? l->source[at] : 0;
    at += *ret_sign != 0;
    *ret_end = at + 2;
    return starts_with(l, at, "%}");
}

/* {% raw %} … {% endraw %}; l->at is on the opening tag, which ends at @body. */
static int lex_raw(struct lexer *l, size_t body, char sign)
{
    advance(l, body - l->at);
    trim_after(l, sign, true);
    for (size_t at = l->at;; at++) {
        const char *tag = memmem(l->source + at, l->n - at, "{%", 2);
        size_t end;
        char opening;

        if (!tag)
            return refuse(l, "a raw block does not end");
        at = (size_t)(tag - l->source);
        if (!tag_is(l, at + 2, "endraw", &end, &sign))
            continue;
        opening = l->source[at + 2];
        if (add_text(l, at - l->at, opening == '-' || opening == '+' ? opening : 0, true) < 0)
            return -ENOMEM;
        advance(l, end - l->at);
        trim_after(l, sign, true);
        return 0;
    }
}

static int lex_tag(struct lexer *l, char kind)
{
    size_t body;
    char sign;

    if (kind == '#')
        return skip_comment(l);
    if (kind == '%' && tag_is(l, l->at + 2, "raw", &body, &sign))
        return lex_raw(l, body, sign);
    if (add(l, (struct token){.kind = kind == '%' ? TOKEN_BLOCK_BEGIN : TOKEN_OUTPUT_BEGIN}) < 0)
        return -ENOMEM;
    l->at += 2;
    l->at += l->at < l->n && (l->source[l->at] == '-' || (l->source[l->at] == '+' && kind == '%'));
    return kind == '%' ? lex_inside(l, "%}", TOKEN_BLOCK_END) : lex_inside(l, "}}", TOKEN_OUTPUT_END);
}

static size_t find_tag(const struct lexer *l)
{
    for (size_t i = l->at; i + 1 < l->n; i++) {
        if (l->source[i] == '{' && strchr("{%#", l->source[i + 1]) && l->source[i + 1])
            return i;
    }
    return l->n;
}

static int lex_all(struct lexer *l)
{
    while (l->at < l->n) {
        size_t tag = find_tag(l);
        char kind = tag < l->n ? l->source[tag + 1] : 0;
        char sign = tag + 2 < l->n ? l->source[tag + 2] : 0;
        int r;

        if (sign != '-' && sign != '+')
            sign = 0;
        r = add_text(l, tag - l->at, sign, kind == '%' || kind == '#');
        if (r >= 0 && kind)
            r = lex_tag(l, kind);
        if (r < 0)
            return r;
    }
    return add(l, (struct token){.kind = TOKEN_END});
}

int lex_template(struct arena *arena, const char *source, size_t n, struct token **ret, struct fault *reterr)
{
    struct lexer l = {
        .arena = arena, .source = source, .n = n, .line = 1, .line_starting = true, .fault = reterr};
    int r;

    if (l.n > 0 && source[l.n - 1] == '\n')
        l.n--; /* keep_trailing_newline is off */
    r = lex_all(&l);
    if (r < 0)
        return r;
    *ret = l.tokens;
    return 0;
}
