/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Text, then [TOOL_CALLS] and a list of calls; or, newer, [TOOL_CALLS]name[ARGS]{…} for each of them, some
 * with an id between ([CALL_ID]…). Calls end with the answer.
 */
#include <errno.h>
#include <string.h>

#include "engine/reply/reply-internal.h"

enum { IN_TEXT, IN_CALLS };

static const char *const begins[] = {"[TOOL_CALLS]", NULL};
static const char *const markers[] = {"[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", NULL};

/* One "name[ARGS]{…}". Returns 1, 0 when it is none, -ENOMEM. */
static int take_named(struct reply *r, const char *text, size_t n)
{
    const char *arguments, *json, *id, *name_end;
    char name[128];
    size_t n_name;

    if (n == 0 || !text)
        return 0;
    arguments = memmem(text, n, "[ARGS]", 6);
    json = memchr(text, '{', n);
    id = memmem(text, n, "[CALL_ID]", 9);
    name_end = id ? id : arguments ? arguments : json;
    if (!name_end || !(arguments || json))
        return 0;
    while (text < name_end && (*text == ' ' || *text == '\n'))
        text++, n--;
    while (name_end > text && name_end[-1] == ' ')
        name_end--;
    n_name = (size_t)(name_end - text);
    if (n_name == 0 || n_name >= sizeof(name))
        return 0;
    memcpy(name, text, n_name);
    name[n_name] = 0;
    json = arguments ? arguments + 6 : json;
    return reply_call(r, name, json, (size_t)(text + n - json)) < 0 ? -ENOMEM : 1;
}

static int finish(struct reply *r)
{
    size_t n, at = 0, n_begin = strlen(begins[0]);
    const char *text = reply_rest(r, &n);
    int e = reply_call_json(r, text, n);

    while (e == 0 && at < n) {
        const char *next = memmem(text + at, n - at, begins[0], n_begin);
        size_t end = next ? (size_t)(next - text) : n;

        e = take_named(r, text + at, end - at);
        if (e <= 0)
            break;
        at = next ? end + n_begin : n;
        e = at < n ? 0 : 1;
    }
    if (e < 0)
        return e;
    /* What is no call is text, marker and all. */
    if (e == 0 &&
        (reply_append(&r->text, begins[0], n_begin) < 0 || reply_append(&r->text, text + at, n - at) < 0))
        return -ENOMEM;
    reply_skip(r, n);
    return 0;
}

static int step(struct reply *r, bool end)
{
    int which;

    if (r->state == IN_TEXT) {
        size_t n = reply_until(r, begins, end, &which);

        if (reply_pass(r, &r->text, n) < 0)
            return -ENOMEM;
        if (which < 0)
            return 0;
        reply_skip(r, strlen(begins[0]));
        r->state = IN_CALLS;
    }
    return end ? finish(r) : 0;
}

const struct reply_ops reply_mistral = {step, NULL, markers};
