/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gpt-oss: messages with headers, <|start|>assistant<|channel|>NAME to=WHOM
 * <|constrain|>json<|message|>BODY<|end|>. The first header's beginning is the end of the prompt. Channel
 * analysis is reasoning, final is text; commentary is the arguments of a call if it is to functions.NAME,
 * else text. A call ends with <|call|>, the answer with <|return|>: both end the generation. Source: OpenAI's
 * "harmony response format".
 */
#include <errno.h>
#include <string.h>

#include "engine/reply/reply-internal.h"

enum { AT_BEGINNING, IN_HEADER, IN_REASONING, IN_TEXT, IN_CALL };

static const char *const header_ends[] = {"<|message|>", NULL};
static const char *const body_ends[] = {"<|end|>",   "<|call|>",    "<|return|>",
                                        "<|start|>", "<|channel|>", NULL};
static const char *const markers[] = {"<|message|>", "<|end|>",     "<|call|>",      "<|return|>",
                                      "<|start|>",   "<|channel|>", "<|constrain|>", NULL};

/* "…<|channel|>commentary to=functions.f …", the recipient before the channel or behind it. */
static void read_header(struct reply *r, const char *header, size_t n)
{
    const char *channel = memmem(header, n, "<|channel|>", 11), *to = memmem(header, n, "to=", 3),
               *end = header + n;
    size_t n_name = 0;

    r->name[0] = 0;
    if (to) {
        to += 3;
        if (end - to > 10 && memcmp(to, "functions.", 10) == 0)
            to += 10;
        while (to + n_name < end && to[n_name] != ' ' && to[n_name] != '<' && n_name + 1 < sizeof(r->name))
            n_name++;
        memcpy(r->name, to, n_name);
        r->name[n_name] = 0;
    }
    channel = channel ? channel + 11 : NULL;
    if (channel && end - channel >= 8 && memcmp(channel, "analysis", 8) == 0 && !r->name[0])
        r->state = IN_REASONING;
    else
        r->state = r->name[0] ? IN_CALL : IN_TEXT;
}

/* Without tools nobody can be called: it is thoughts about it. */
static struct reply_buffer *sink(struct reply *r)
{
    return r->state == IN_REASONING ? &r->reasoning : r->state == IN_TEXT ? &r->text : &r->collected;
}

static int end_body(struct reply *r)
{
    int e = 0;

    if (r->state == IN_CALL)
        e = reply_call(r, r->name, r->collected.data ? r->collected.data : "", r->collected.n);
    r->collected.n = 0;
    r->state = IN_HEADER;
    return e;
}

static int header(struct reply *r, bool end, bool *ret_more)
{
    int which;
    size_t n = reply_until(r, header_ends, end, &which), n_all;
    const char *text = reply_rest(r, &n_all);

    *ret_more = which >= 0;
    if (which >= 0) {
        read_header(r, text, n);
        reply_skip(r, n + strlen(header_ends[0]));
    } else if (end) {
        reply_skip(r, n_all); /* a header without a body says nothing */
    }
    return 0;
}

static int body(struct reply *r, bool end, bool *ret_more)
{
    int which;
    size_t n = reply_until(r, body_ends, end, &which);

    *ret_more = false;
    if (reply_pass(r, sink(r), n) < 0)
        return -ENOMEM;
    if (which < 0)
        return end ? end_body(r) : 0;
    /* A header may follow without an end before it; its beginning is part of it. */
    if (which < 3)
        reply_skip(r, strlen(body_ends[which]));
    *ret_more = true;
    return end_body(r);
}

static int step(struct reply *r, bool end)
{
    bool more = true;
    int e = 0;

    if (r->state == AT_BEGINNING) {
        size_t n;
        const char *text = reply_rest(r, &n);

        if (n == 0)
            return 0;
        /* An answer that begins without a header is text; "to=" and a channel are headers. */
        if (n < 3 && !end && (memcmp(text, " to=", n) == 0 || memcmp(text, "<|channel|>", n) == 0))
            return 0;
        r->state = *text == '<' || (n > 1 && memcmp(text, " t", 2) == 0) ? IN_HEADER : IN_TEXT;
    }
    while (e == 0 && more)
        e = r->state == IN_HEADER ? header(r, end, &more) : body(r, end, &more);
    return e;
}

static bool in_text(const struct reply *r)
{
    return r->state == IN_TEXT;
}

const struct reply_ops reply_harmony = {step, in_text, markers};
