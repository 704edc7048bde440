/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Text, and any number of <tool_call>{"name": …, "arguments": …}</tool_call>. White space round them is
 * layout.
 */
#include <errno.h>
#include <string.h>

#include "engine/reply/reply-internal.h"

enum { IN_TEXT, IN_CALL };

static const char *const begins[] = {"<tool_call>", NULL}, *const ends[] = {"</tool_call>", NULL};
static const char *const markers[] = {"<tool_call>", "</tool_call>", NULL};

static bool is_white(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* The text before a call, or all that can be no call; white space at its end waits for what follows. */
static int pass_text(struct reply *r, size_t n, bool end, bool before_call)
{
    const char *text = r->input.data + r->at;
    size_t n_text = n;

    while (n_text > 0 && is_white(text[n_text - 1]) && (before_call || !end))
        n_text--;
    if (r->n_calls > 0) {
        size_t i = 0;

        while (i < n && is_white(text[i]))
            i++;
        /* Between calls and behind the last one only layout is written. */
        if (i == n && (before_call || end)) {
            reply_skip(r, n);
            return 0;
        }
    }
    if (reply_pass(r, &r->text, n_text) < 0)
        return -ENOMEM;
    if (before_call)
        reply_skip(r, n - n_text);
    return 0;
}

static int take_call(struct reply *r, size_t n, bool whole)
{
    const char *text = r->input.data + r->at;
    int e = reply_call_json(r, text, n);

    if (e < 0)
        return e;
    if (e == 0 &&
        (reply_append(&r->text, begins[0], strlen(begins[0])) < 0 || reply_append(&r->text, text, n) < 0 ||
         (whole && reply_append(&r->text, ends[0], strlen(ends[0])) < 0)))
        return -ENOMEM;
    reply_skip(r, n + (whole ? strlen(ends[0]) : 0));
    r->state = IN_TEXT;
    return 0;
}

static int step(struct reply *r, bool end)
{
    for (;;) {
        int which, e;
        size_t n = reply_until(r, r->state == IN_TEXT ? begins : ends, end, &which);

        if (r->state == IN_TEXT) {
            e = n > 0 ? pass_text(r, n, end && which < 0, which >= 0) : 0;
            if (e < 0 || which < 0)
                return e;
            reply_skip(r, strlen(begins[0]));
            r->state = IN_CALL;
        } else {
            if (which < 0 && !end)
                return 0;
            /* Some models forget the end. */
            e = take_call(r, n, which >= 0);
            if (e < 0 || which < 0)
                return e;
        }
    }
}

const struct reply_ops reply_hermes = {step, NULL, markers};
