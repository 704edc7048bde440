/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The use of the splitting patterns of families.c. Each pattern is applied to the pieces that the one
 * before left: matches become pieces, and so does what lies between them. A piece is a subject of its own,
 * so that anchors and look-aheads see its ends and nothing beyond.
 *
 * PCRE2 checks a subject's UTF-8 before each match, which would make a long text quadratic: so it is checked
 * here, once,
 * and PCRE2 is told not to.
 */
#include "engine/token/pretokenise.h"

#include <errno.h>
#include <string.h>

#include "base/utf8.h"
#include "engine/token/families.h"
#include "engine/token/limits.h"

/* What one call of pretokenizer_split() carries along. */
struct split {
    const struct pretokenizer *p;
    pcre2_match_data *match;
    pretokenizer_word_fn fn;
    void *context;
};

int pretokenizer_init(struct pretokenizer *p, const struct family *family)
{
    p->family = family;
    p->context = pcre2_match_context_create(NULL);
    if (!p->context)
        return -ENOMEM;
    pcre2_set_match_limit(p->context, MATCH_STEPS_MAX);
    pcre2_set_heap_limit(p->context, MATCH_HEAP_KIB_MAX);
    for (const char *const *pattern = family->patterns; *pattern; pattern++) {
        PCRE2_SIZE offset;
        int error;
        pcre2_code *code = pcre2_compile((PCRE2_SPTR)*pattern, PCRE2_ZERO_TERMINATED,
                                         PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &error, &offset, NULL);

        /* The patterns are ours and right (a test compiles them all), so only memory can be missing. */
        if (!code)
            return -ENOMEM;
        p->codes[p->n_codes++] = code;
        /* Without the right to make code executable (a sandbox) this fails, and matching is interpreted. */
        pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    }
    return 0;
}

void pretokenizer_done(struct pretokenizer *p)
{
    for (size_t i = 0; i < p->n_codes; i++)
        pcre2_code_free(p->codes[i]);
    pcre2_match_context_free(p->context);
    *p = (struct pretokenizer){0};
}

/* Returns 1 and the bounds of the first match from @from on, 0 when there is none. */
static int find(const struct split *s, size_t level, const char *text, size_t n, size_t from, size_t *ret_start,
                size_t *ret_end)
{
    uint32_t options = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
    int r;

    do {
        r = pcre2_match(s->p->codes[level], (PCRE2_SPTR)text, n, from, options, s->match, s->p->context);
        /* The stack of compiled code is small; the interpreter's grows. */
        options |= PCRE2_NO_JIT;
    } while (r == PCRE2_ERROR_JIT_STACKLIMIT);
    if (r == PCRE2_ERROR_NOMATCH)
        return 0;
    if (r == PCRE2_ERROR_NOMEMORY)
        return -ENOMEM;
    if (r < 0)
        return -ERANGE;
    *ret_start = pcre2_get_ovector_pointer(s->match)[0];
    *ret_end = pcre2_get_ovector_pointer(s->match)[1];
    return 1;
}

static int split_piece(const struct split *s, size_t level, const char *text, size_t n);

/* Whether a byte of valid UTF-8 begins a character. */
static bool is_lead(char byte)
{
    return ((uint8_t)byte & 0xC0) != 0x80;
}

/* A number, cut so that all groups but the first have three digits. (A digit may have up to four bytes.) */
static int split_threes(const struct split *s, size_t level, const char *text, size_t n)
{
    size_t n_digits = 0, begin = 0;

    for (size_t i = 0; i < n; i++)
        n_digits += is_lead(text[i]);
    for (size_t end = 0; end < n;) {
        int r;

        do {
            end++;
            while (end < n && !is_lead(text[end]))
                end++;
        } while (--n_digits % 3 != 0);
        r = split_piece(s, level, text + begin, end - begin);
        if (r != 0)
            return r;
        begin = end;
    }
    return 0;
}

/* Recursion is as deep as there are patterns. */
static int split_piece(const struct split *s, size_t level, const char *text, size_t n)
{
    size_t done = 0;

    if (n == 0)
        return 0;
    if (level == s->p->n_codes)
        return s->fn(s->context, text, n);
    while (done < n) {
        size_t start = n, end = n;
        int r = find(s, level, text, n, done, &start, &end);

        if (r < 0)
            return r;
        r = split_piece(s, level + 1, text + done, start - done);
        if (r != 0)
            return r;
        r = s->p->family->patterns[level] == families_threes ? split_threes(s, level + 1, text + start, end - start) :
                                                              split_piece(s, level + 1, text + start, end - start);
        if (r != 0)
            return r;
        done = end;
    }
    return 0;
}

int pretokenizer_split(const struct pretokenizer *p, const char *text, size_t n_bytes, pretokenizer_word_fn fn,
                       void *context)
{
    struct split s = {.p = p, .fn = fn, .context = context};
    int r = 0;

    s.match = pcre2_match_data_create(1, NULL);
    if (!s.match)
        return -ENOMEM;
    for (size_t at = 0; at < n_bytes && r == 0;) {
        size_t n_valid = n_bytes - at, n_bad = 0;
        uint32_t character;

        utf8_is_valid(text + at, n_bytes - at, &n_valid);
        r = split_piece(&s, 0, text + at, n_valid);
        at += n_valid;
        while (at + n_bad < n_bytes && utf8_decode(text + at + n_bad, n_bytes - at - n_bad, &character) <= 0)
            n_bad++;
        if (r == 0 && n_bad > 0)
            r = fn(context, text + at, n_bad);
        at += n_bad;
    }
    pcre2_match_data_free(s.match);
    return r;
}
