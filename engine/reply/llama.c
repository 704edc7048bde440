/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Llama 3: the whole answer is one call, {"name": …, "parameters": …}, perhaps behind <|python_tag|>; several
 * are separated by semicolons. Behind <|python_tag|> there may also be code, for an interpreter: a call of
 * `python`. Whether an answer that begins with a brace is a call is known at its end only, so such answers
 * come at once.
 */
#include <errno.h>
#include <string.h>

#include "engine/reply/reply-internal.h"

enum { AT_BEGINNING, IN_TEXT, IN_JSON, IN_CODE };

static const char tag[] = "<|python_tag|>";
static const char *const markers[] = {tag, NULL};

static size_t white(const char *text, size_t n)
{
    size_t i = 0;

    while (i < n && (text[i] == ' ' || text[i] == '\n' || text[i] == '\r' || text[i] == '\t'))
        i++;
    return i;
}

/* Where the first object of a text ends: at the brace that closes it. */
static size_t object_end(const char *text, size_t n)
{
    int depth = 0;
    bool in_string = false;

    for (size_t i = 0; i < n; i++) {
        if (in_string && text[i] == '\\')
            i++;
        else if (text[i] == '"')
            in_string = !in_string;
        else if (!in_string && text[i] == '{')
            depth++;
        else if (!in_string && text[i] == '}' && --depth == 0)
            return i + 1;
    }
    return 0;
}

/* Returns 1 when all of the text was calls, 0 (and nothing was added) otherwise. */
static int take_objects(struct reply *r, const char *text, size_t n)
{
    for (int pass = 0; pass < 2; pass++)
        for (size_t at = white(text, n); at < n;) {
            size_t n_object = object_end(text + at, n - at);
            json_object *before = r->calls;
            uint32_t n_before = r->n_calls;
            int e;

            if (text[at] != '{' || n_object == 0)
                return 0;
            e = reply_call_json(r, text + at, n_object);
            if (e <= 0)
                return e;
            /* The first pass only looks. */
            if (pass == 0) {
                json_object_array_del_idx(r->calls, json_object_array_length(r->calls) - 1, 1);
                if (!before) {
                    json_object_put(r->calls);
                    r->calls = NULL;
                }
                r->n_calls = n_before;
            }
            at += n_object;
            at += white(text + at, n - at);
            if (at < n && text[at] == ';')
                at += 1 + white(text + at + 1, n - at - 1);
        }
    return 1;
}

static int take_code(struct reply *r, const char *text, size_t n)
{
    _cleanup_json_ json_object *arguments = json_object_new_object();
    json_object *code = json_object_new_string_len(text, (int)n);
    const char *written;

    if (!arguments || !code || json_object_object_add(arguments, "code", code) < 0)
        return -ENOMEM;
    written = json_text(arguments);
    return written ? reply_call(r, "python", written, strlen(written)) : -ENOMEM;
}

static int finish(struct reply *r)
{
    size_t n;
    const char *text = reply_rest(r, &n);
    int e = n > white(text, n) ? take_objects(r, text, n) : 0;

    if (e == 0 && r->state == IN_CODE && n > white(text, n))
        e = take_code(r, text, n) < 0 ? -ENOMEM : 1;
    if (e < 0)
        return e;
    if (e == 0)
        return reply_pass(r, &r->text, n);
    reply_skip(r, n);
    return 0;
}

static int step(struct reply *r, bool end)
{
    size_t n, n_white;
    const char *text = reply_rest(r, &n);
    int which;

    if (r->state == AT_BEGINNING) {
        n_white = white(text, n);
        if (n_white == n && !end)
            return 0;
        r->state = n_white < n && text[n_white] == '{' ? IN_JSON : IN_TEXT;
    }
    if (r->state == IN_TEXT) {
        n = reply_until(r, markers, end, &which);
        if (reply_pass(r, &r->text, n) < 0)
            return -ENOMEM;
        if (which < 0)
            return 0;
        reply_skip(r, strlen(tag));
        r->state = IN_CODE;
    }
    return end ? finish(r) : 0;
}

const struct reply_ops reply_llama = {step, NULL, markers};
