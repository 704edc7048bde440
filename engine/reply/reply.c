/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/reply/reply-internal.h"

/* Thoughts come first: white space, <think>, thoughts, </think>, white space, and then the answer in its
 * form. */
enum thought { THOUGHT_MAY_BEGIN, THOUGHT_IS_ON, THOUGHT_JUST_ENDED, THOUGHT_IS_OVER };

static int plain_step(struct reply *r, bool end)
{
    return reply_pass(r, &r->text, r->input.n - r->at);
}

static const char *const no_markers[] = {NULL};
static const struct reply_ops plain = {plain_step, NULL, no_markers};

static const struct reply_ops *const forms[REPLY_FORM_MAX] = {
    [REPLY_PLAIN] = &plain,           [REPLY_HERMES] = &reply_hermes,   [REPLY_LLAMA] = &reply_llama,
    [REPLY_MISTRAL] = &reply_mistral, [REPLY_HARMONY] = &reply_harmony,
};

static bool has(const char *text, size_t n, const char *what)
{
    return memmem(text, n, what, strlen(what)) != NULL;
}

enum reply_form reply_form_of(const char *t, size_t n, bool *ret_thinks)
{
    bool harmony = has(t, n, "<|channel|>") && has(t, n, "<|message|>");

    *ret_thinks = !harmony && (has(t, n, "<think>") || has(t, n, "</think>"));
    if (harmony)
        return REPLY_HARMONY;
    if (!has(t, n, "tools"))
        return REPLY_PLAIN;
    if (has(t, n, "[TOOL_CALLS]"))
        return REPLY_MISTRAL;
    if (has(t, n, "<tool_call>"))
        return REPLY_HERMES;
    return has(t, n, "<|python_tag|>") || has(t, n, "\"parameters\"") ? REPLY_LLAMA : REPLY_PLAIN;
}

int reply_new(enum reply_form form, unsigned flags, uint64_t id, struct reply **ret)
{
    struct reply *r = calloc(1, sizeof(*r));

    if (!r)
        return -ENOMEM;
    /* Channels are there with tools and without. */
    r->ops = flags & REPLY_HAS_TOOLS || form == REPLY_HARMONY ? forms[form] : &plain;
    r->flags = flags;
    r->id = id;
    r->thought = flags & REPLY_IN_THOUGHT ? THOUGHT_IS_ON
                 : flags & REPLY_THINKS   ? THOUGHT_MAY_BEGIN
                                          : THOUGHT_IS_OVER;
    *ret = r;
    return 0;
}

struct reply *reply_free(struct reply *r)
{
    if (!r)
        return NULL;
    free(r->input.data);
    free(r->text.data);
    free(r->reasoning.data);
    free(r->collected.data);
    json_object_put(r->calls);
    free(r);
    return NULL;
}

bool reply_in_text(const struct reply *r)
{
    /* An answer that may begin with thoughts need not. */
    return r->thought != THOUGHT_IS_ON && (!r->ops->in_text || r->ops->in_text(r));
}

uint32_t reply_n_calls(const struct reply *r)
{
    return r->n_calls;
}

/* ---- what the forms use ---- */

int reply_append(struct reply_buffer *b, const char *data, size_t n)
{
    if (n > b->allocated - b->n) {
        size_t room = 2 * (b->n + n) + 64;
        char *grown = realloc(b->data, room);

        if (!grown)
            return -ENOMEM;
        b->data = grown;
        b->allocated = room;
    }
    if (n > 0)
        memcpy(b->data + b->n, data, n);
    b->n += n;
    return 0;
}

size_t reply_until(const struct reply *r, const char *const *markers, bool end, int *ret_which)
{
    size_t n, held = 0, first;
    const char *text = reply_rest(r, &n);

    first = n;
    *ret_which = -1;
    for (int i = 0; markers[i]; i++) {
        const char *found = memmem(text, n, markers[i], strlen(markers[i]));

        if (found && (*ret_which < 0 || (size_t)(found - text) < first)) {
            first = (size_t)(found - text);
            *ret_which = i;
        }
    }
    if (*ret_which >= 0 || end)
        return first;
    for (int i = 0; markers[i]; i++)
        for (size_t k = strlen(markers[i]) - 1; k > held; k--)
            if (k <= n && memcmp(text + n - k, markers[i], k) == 0)
                held = k;
    return n - held;
}

void reply_skip(struct reply *r, size_t n)
{
    r->at += n;
}

int reply_pass(struct reply *r, struct reply_buffer *to, size_t n)
{
    int e = n > 0 ? reply_append(to, r->input.data + r->at, n) : 0;

    if (e == 0)
        reply_skip(r, n);
    return e;
}

/* ---- calls ---- */

/* Nine letters and digits, which every template accepts (Mistral's insist on it). */
static void make_id(const struct reply *r, char to[10])
{
    static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    uint64_t z = r->id * 0x9E3779B97F4A7C15u + r->n_calls;

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    for (int i = 0; i < 9; i++, z /= 62)
        to[i] = letters[z % 62];
    to[9] = 0;
}

static int add(json_object *to, const char *name, json_object *value_take)
{
    if (!value_take)
        return -ENOMEM;
    if (json_object_object_add(to, name, value_take) < 0) {
        json_object_put(value_take);
        return -ENOMEM;
    }
    return 0;
}

int reply_call(struct reply *r, const char *name, const char *arguments, size_t n)
{
    _cleanup_json_ json_object *call = json_object_new_object();
    char id[10];

    if (!r->calls)
        r->calls = json_object_new_array();
    make_id(r, id);
    if (!call || !r->calls || add(call, "id", json_object_new_string(id)) < 0 ||
        add(call, "name", json_object_new_string(name)) < 0 ||
        add(call, "arguments", json_object_new_string_len(arguments, (int)n)) < 0 ||
        json_object_array_add(r->calls, call) < 0)
        return -ENOMEM;
    call = NULL;
    r->n_calls++;
    return 0;
}

/* Returns 1, 0 when it is no call, -ENOMEM. */
static int call_of_object(struct reply *r, json_object *o)
{
    json_object *name = NULL, *arguments = NULL;
    const char *text = "{}";

    if (!json_object_is_type(o, json_type_object) || !json_object_object_get_ex(o, "name", &name) ||
        !json_object_is_type(name, json_type_string))
        return 0;
    if (!json_object_object_get_ex(o, "arguments", &arguments))
        json_object_object_get_ex(o, "parameters", &arguments);
    if (json_object_is_type(arguments, json_type_string))
        text = json_object_get_string(arguments);
    else if (arguments)
        text = json_text(arguments);
    if (!text)
        return -ENOMEM;
    return reply_call(r, json_object_get_string(name), text, strlen(text)) < 0 ? -ENOMEM : 1;
}

int reply_call_json(struct reply *r, const char *text, size_t n)
{
    static const struct json_limits limits = {.bytes_max = 1 << 24, .depth_max = 64, .values_max = 1 << 20};
    _cleanup_json_ json_object *value = NULL;
    int e = json_parse(text, n, &limits, &value, NULL, NULL);

    if (e < 0)
        return e == -ENOMEM ? e : 0;
    if (!json_object_is_type(value, json_type_array))
        return call_of_object(r, value);
    if (json_object_array_length(value) == 0)
        return 0;
    for (size_t i = 0; i < json_object_array_length(value); i++) {
        json_object *name = NULL, *o = json_object_array_get_idx(value, i);

        if (!json_object_is_type(o, json_type_object) || !json_object_object_get_ex(o, "name", &name))
            return 0;
    }
    for (size_t i = 0; i < json_object_array_length(value); i++) {
        e = call_of_object(r, json_object_array_get_idx(value, i));
        if (e < 0)
            return e;
    }
    return 1;
}

/* ---- thoughts ---- */

static const char *const think_begins[] = {"<think>", NULL}, *const think_ends[] = {"</think>", NULL};

static size_t white(const char *text, size_t n)
{
    size_t i = 0;

    while (i < n && (text[i] == ' ' || text[i] == '\n' || text[i] == '\r' || text[i] == '\t'))
        i++;
    return i;
}

/* Returns 1 when the thoughts are over and the form's turn has come, 0 when more is needed, -ENOMEM. */
static int think(struct reply *r, bool end)
{
    size_t n, n_white, n_begin = strlen(think_begins[0]);
    const char *text = reply_rest(r, &n);
    int which, e;

    switch ((enum thought)r->thought) {
    case THOUGHT_MAY_BEGIN:
        n_white = white(text, n);
        if (n - n_white >= n_begin && memcmp(text + n_white, think_begins[0], n_begin) == 0) {
            reply_skip(r, n_white + n_begin);
            r->thought = THOUGHT_IS_ON;
            return think(r, end);
        }
        if (!end && n - n_white < n_begin && memcmp(text + n_white, think_begins[0], n - n_white) == 0)
            return 0;
        r->thought = THOUGHT_IS_OVER;
        return 1;
    case THOUGHT_IS_ON:
        /* The line feed behind <think> is layout. */
        if (r->reasoning.n == 0 && !r->thought_began) {
            if (n == 0 && !end)
                return 0;
            reply_skip(r, n > 0 && *text == '\n');
            r->thought_began = true;
        }
        n = reply_until(r, think_ends, end, &which);
        e = reply_pass(r, &r->reasoning, n);
        if (e < 0 || which < 0)
            return e;
        reply_skip(r, strlen(think_ends[0]));
        r->thought = THOUGHT_JUST_ENDED;
        return think(r, end);
    case THOUGHT_JUST_ENDED:
        reply_skip(r, white(text, n));
        if (r->at == r->input.n && !end)
            return 0;
        r->thought = THOUGHT_IS_OVER;
        return 1;
    case THOUGHT_IS_OVER:
        break;
    }
    return 1;
}

bool reply_is_marker(const struct reply *r, const char *spelling, size_t n)
{
    const char *const thoughts[] = {think_begins[0], think_ends[0]};

    for (int i = 0; i < 2 && r->thought != THOUGHT_IS_OVER; i++)
        if (strlen(thoughts[i]) == n && memcmp(thoughts[i], spelling, n) == 0)
            return true;
    for (int i = 0; r->ops->markers[i]; i++)
        if (strlen(r->ops->markers[i]) == n && memcmp(r->ops->markers[i], spelling, n) == 0)
            return true;
    return false;
}

bool reply_goes_on(const struct reply *r, const char *spelling, size_t n)
{
    return r->ops == &reply_harmony && n == 7 && memcmp(spelling, "<|end|>", 7) == 0;
}

int reply_push(struct reply *r, const char *text, size_t n, bool end, struct reply_part *ret)
{
    int e;

    json_object_put(r->calls);
    r->calls = NULL;
    r->text.n = r->reasoning.n = 0;
    if (r->at > 0) {
        memmove(r->input.data, r->input.data + r->at, r->input.n - r->at);
        r->input.n -= r->at;
        r->at = 0;
    }
    e = reply_append(&r->input, text, n);
    if (e == 0)
        e = think(r, end);
    if (e > 0)
        e = r->ops->step(r, end);
    if (e < 0)
        return e;
    *ret = (struct reply_part){.text = r->text.data,
                               .n_text = r->text.n,
                               .reasoning = r->reasoning.data,
                               .n_reasoning = r->reasoning.n,
                               .calls = r->calls};
    return 0;
}
