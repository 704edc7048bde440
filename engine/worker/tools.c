/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/tools.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "engine/grammar/grammar.h"
#include "engine/reply/reply.h"
#include "engine/token/tokenizer.h"
#include "engine/worker/member.h"
#include "engine/worker/model.h"

/* Descriptions of more would fill the context. */
#define TOOLS_MAX 256

/* What OpenAI's interface allows; templates put names between quotes. */
#define NAME_BYTES_MAX 64

#define PARTS_MAX 12

static int invalid(struct fault *reterr, const char *parameter, const char *reason)
{
    fault_set(reterr, FAULT_INVALID_PARAMETER, parameter, "%s", reason);
    return -EINVAL;
}

static bool is_name(const char *name, size_t n)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";

    return n > 0 && n <= NAME_BYTES_MAX && strspn(name, letters) == n;
}

static json_object *function_of(json_object *tool)
{
    json_object *function = NULL;

    return json_object_object_get_ex(tool, "function", &function) ? function : tool;
}

static const char *name_of(const struct tools *t, size_t i)
{
    json_object *tool = json_object_array_get_idx(t->list, i);

    return json_object_get_string(json_object_object_get(function_of(tool), "name"));
}

/* Checks one, and brings {name, description, parameters} to the form that templates know. */
static int add_tool(struct tools *t, json_object *tool, struct fault *reterr)
{
    json_object *function, *parameters, *wrapped;
    const char *name;
    size_t n;

    if (!json_object_is_type(tool, json_type_object) ||
        !json_object_is_type(function = function_of(tool), json_type_object))
        return invalid(reterr, "tools", "a tool is an object with a function");
    if (member_string(function, "name", &name, &n, NULL) < 0 || !is_name(name, n))
        return invalid(reterr, "tools", "a function has a name of at most 64 letters, digits, _, - and .");
    if (member_object(function, "parameters", &parameters, NULL) == -EINVAL)
        return invalid(reterr, "tools", "parameters of a function are a JSON Schema");
    if (function != tool) {
        wrapped = json_object_get(tool);
    } else {
        wrapped = json_object_new_object();
        if (!wrapped || json_object_object_add(wrapped, "type", json_object_new_string("function")) < 0 ||
            json_object_object_add(wrapped, "function", json_object_get(tool)) < 0) {
            json_object_put(wrapped);
            return -ENOMEM;
        }
    }
    if (json_object_array_add(t->list, wrapped) < 0) {
        json_object_put(wrapped);
        return -ENOMEM;
    }
    return 0;
}

static int read_choice(struct tools *t, json_object *call, struct fault *reterr)
{
    const char *choice = "auto";
    size_t n;

    if (member_string(call, "tool_choice", &choice, &n, reterr) == -EINVAL)
        return -EINVAL;
    t->choice = TOOLS_AUTO;
    if (strcmp(choice, "none") == 0)
        t->choice = TOOLS_NONE;
    else if (strcmp(choice, "auto") != 0)
        t->choice = TOOLS_REQUIRED;
    if (t->choice != TOOLS_REQUIRED || strcmp(choice, "required") == 0)
        return 0;
    for (size_t i = 0; i < json_object_array_length(t->list) && t->only == SIZE_MAX; i++)
        if (strcmp(name_of(t, i), choice) == 0)
            t->only = i;
    return t->only < SIZE_MAX ? 0
                              : invalid(reterr, "tool_choice",
                                        "expected auto, none, required or the name of one of the tools");
}

int tools_parse(const struct model *m, json_object *call, struct tools *ret, struct fault *reterr)
{
    _cleanup_(tools_done) struct tools t = {.only = SIZE_MAX};
    json_object *list = NULL;
    int r = member_array(call, "tools", &list, reterr);

    if (r == -EINVAL)
        return r;
    t.list = json_object_new_array();
    if (!t.list)
        return -ENOMEM;
    if (list && json_object_array_length(list) > TOOLS_MAX)
        return invalid(reterr, "tools", "expected at most 256");
    for (size_t i = 0; list && i < json_object_array_length(list); i++) {
        r = add_tool(&t, json_object_array_get_idx(list, i), reterr);
        if (r < 0)
            return r;
    }
    r = read_choice(&t, call, reterr);
    if (r < 0)
        return r;
    if (json_object_array_length(t.list) == 0) {
        if (t.choice == TOOLS_REQUIRED)
            return invalid(reterr, "tool_choice", "there are no tools to choose from");
        t.choice = TOOLS_NONE;
    } else if (t.choice != TOOLS_NONE && m->reply_form == REPLY_PLAIN) {
        return invalid(reterr, "tools", "the model's chat template knows no tools");
    }
    *ret = t;
    t = (struct tools){0};
    return 0;
}

void tools_done(struct tools *t)
{
    json_object_put(t->list);
    t->list = NULL;
}

/* ---- calls that have to be made ---- */

struct sequence {
    struct grammar_part parts[PARTS_MAX];
    size_t n;
    char head[2 * NAME_BYTES_MAX + 64], path[64];
};

static void add_text(struct sequence *s, const char *text)
{
    s->parts[s->n++] = (struct grammar_part){.text = text};
}

/* A marker: the control token, where it is one, else its text. */
static void add_marker(struct sequence *s, const struct model *m, const char *spelling)
{
    int32_t token = tokenizer_find(m->tokenizer, spelling, strlen(spelling));

    if (token >= 0 && tokenizer_is_control(m->tokenizer, token))
        s->parts[s->n++] = (struct grammar_part){.token = token};
    else
        add_text(s, spelling);
}

static void add_named(struct sequence *s, const char *name, const char *member, json_object *schema,
                      const char *tail)
{
    snprintf(s->head, sizeof(s->head), "{\"name\": \"%s\", \"%s\": ", name, member);
    add_text(s, s->head);
    s->parts[s->n++] = (struct grammar_part){.schema = schema, .path = s->path};
    add_text(s, tail);
}

static void make_sequence(struct sequence *s, const struct model *m, const char *name, json_object *schema)
{
    switch (m->reply_form) {
    case REPLY_HERMES:
        add_marker(s, m, "<tool_call>");
        add_text(s, "\n");
        add_named(s, name, "arguments", schema, "}\n");
        add_marker(s, m, "</tool_call>");
        break;
    case REPLY_LLAMA:
        add_named(s, name, "parameters", schema, "}");
        break;
    case REPLY_MISTRAL:
        add_marker(s, m, "[TOOL_CALLS]");
        add_text(s, "[");
        add_named(s, name, "arguments", schema, "}]");
        break;
    case REPLY_HARMONY:
        add_marker(s, m, "<|channel|>");
        snprintf(s->head, sizeof(s->head), "commentary to=functions.%s ", name);
        add_text(s, s->head);
        add_marker(s, m, "<|constrain|>");
        add_text(s, "json");
        add_marker(s, m, "<|message|>");
        s->parts[s->n++] = (struct grammar_part){.schema = schema, .path = s->path};
        break;
    case REPLY_PLAIN:
    case REPLY_FORM_MAX:
        break;
    }
}

static int compile(const struct model *m, const struct tools *t, json_object *any, struct grammar **ret,
                   struct fault *reterr)
{
    size_t from = t->only < SIZE_MAX ? t->only : 0,
           to = t->only < SIZE_MAX ? t->only + 1 : json_object_array_length(t->list);
    _cleanup_free_ struct sequence *all = calloc(to - from, sizeof(*all));
    _cleanup_free_ const struct grammar_part **rows = calloc(to - from, sizeof(*rows));
    _cleanup_free_ size_t *n_parts = calloc(to - from, sizeof(*n_parts));

    if (!all || !rows || !n_parts)
        return -ENOMEM;
    for (size_t i = from; i < to; i++) {
        struct sequence *s = &all[i - from];
        json_object *function = function_of(json_object_array_get_idx(t->list, i)), *schema = NULL;

        if (member_object(function, "parameters", &schema, NULL) < 0)
            schema = any;
        snprintf(s->path, sizeof(s->path), "/%zu/function/parameters", i);
        make_sequence(s, m, name_of(t, i), schema);
        rows[i - from] = s->parts;
        n_parts[i - from] = s->n;
    }
    return grammar_from_parts(rows, n_parts, to - from, ret, reterr);
}

int tools_matcher(const struct model *m, const struct tools *t, struct matcher **ret, struct fault *reterr)
{
    _cleanup_json_ json_object *any = json_object_new_object();
    struct grammar *g = NULL;
    int r;

    if (t->choice != TOOLS_REQUIRED)
        return 0;
    if (!any || json_object_object_add(any, "type", json_object_new_string("object")) < 0)
        return -ENOMEM;
    r = compile(m, t, any, &g, reterr);
    if (r == 0)
        r = matcher_new(g, m->vocabulary, MATCHER_STRIP_SPACE, ret);
    if (r == -E2BIG)
        return invalid(reterr, "tools", "their parameters are too ambiguous");
    if (r == -EINVAL)
        fault_subject(reterr, "tools");
    return r;
}
