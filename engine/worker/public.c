/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tokens are made by asking for them as a client would: a prompt of that text, and two conversations which differ in
 * what the user says. What those two have in common is the template's beginning, the system message, and what stands
 * between it and the user's words, whatever the template looks like.
 */
#include "engine/worker/public.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "base/fault.h"
#include "base/log.h"
#include "engine/worker/model.h"
#include "engine/worker/prepare.h"
#include "engine/worker/work.h"

/* The tokens of a call; *ret NULL and @fault set where the model can't take it. */
static int tokens_of(const struct model *m, enum submit_kind kind, json_object *call, struct public_prefix *ret,
                     struct fault *fault)
{
    _cleanup_(work_freep) struct work *w = NULL;
    _cleanup_json_ json_object *reply = NULL;
    const char *text = json_text(call);
    struct job job = {.submit = {.request = 1, .kind = (uint32_t)kind}};
    int r;

    if (!text)
        return -ENOMEM;
    job.json = strdup(text);
    if (!job.json)
        return -ENOMEM;
    job.n_json = strlen(text);
    r = prepare(m, &job, &w, &reply, fault);
    free(job.json);
    if (r == -ENOMEM)
        return r;
    *ret = (struct public_prefix){0};
    if (r == 0)
        *ret = (struct public_prefix){.tokens = TAKE_PTR(w->tokens), .n_tokens = w->n_prompt};
    return 0;
}

/* json-c's constructors return NULL without memory. */
static bool add(json_object *to, const char *name, json_object *value_take)
{
    if (to && value_take && json_object_object_add(to, name, value_take) == 0)
        return true;
    json_object_put(value_take);
    return false;
}

static bool add_message(json_object *messages, const char *role, json_object *content_take)
{
    _cleanup_json_ json_object *m = json_object_new_object();
    bool is_role = add(m, "role", json_object_new_string(role)), is_content = add(m, "content", content_take);

    if (!is_role || !is_content || json_object_array_add(messages, m) < 0)
        return false;
    m = NULL;
    return true;
}

/* A prompt of the text, or with @user a conversation whose system message it is; NULL: no memory. */
static json_object *call_new(json_object *text, const char *user)
{
    _cleanup_json_ json_object *call = json_object_new_object();
    json_object *messages = user ? json_object_new_array() : NULL;

    if (!add(call, user ? "messages" : "prompt", user ? messages : json_object_get(text)))
        return NULL;
    if (user && (!add_message(messages, "system", json_object_get(text)) ||
                 !add_message(messages, "user", json_object_new_string(user))))
        return NULL;
    return TAKE_PTR(call);
}

static uint32_t same_tokens(const int32_t *a, uint32_t n_a, const int32_t *b, uint32_t n_b)
{
    uint32_t n = 0;

    while (n < n_a && n < n_b && a[n] == b[n])
        n++;
    return n;
}

static int add_text(struct model *m, json_object *text, const struct log *log)
{
    static const char *const users[3] = {NULL, "a", "0 what"};
    struct public_prefix rows[3] = {{0}};
    struct fault fault;
    char why[512];
    int r;

    fault_init(&fault, FAULT_NONE, NULL);
    for (size_t i = 0; i < 3; i++) {
        _cleanup_json_ json_object *call = NULL;

        if (users[i] && !m->chat_template)
            break;
        call = call_new(text, users[i]);
        r = call ? tokens_of(m, users[i] ? SUBMIT_CHAT : SUBMIT_COMPLETE, call, &rows[i], &fault) : -ENOMEM;
        if (r < 0)
            goto out;
    }
    if (fault.kind != FAULT_NONE)
        log_line(log, LOG_WARNING, NULL, "a public prefix is not used in all ways: %s",
                 fault_describe(&fault, why, sizeof(why)));
    rows[1].n_tokens = same_tokens(rows[1].tokens, rows[1].n_tokens, rows[2].tokens, rows[2].n_tokens);
    for (size_t i = 0; i < 2; i++)
        if (rows[i].n_tokens > 0) {
            m->public_prefixes[m->n_public_prefixes++] = rows[i];
            rows[i].tokens = NULL;
        }
    r = 0;
out:
    for (size_t i = 0; i < 3; i++)
        free(rows[i].tokens);
    return r;
}

int public_make(struct model *m, const struct log *log)
{
    size_t n = m->config.public_prefixes ? json_object_array_length(m->config.public_prefixes) : 0;

    if (n == 0 || m->facts.is_encoder || !m->tokenizer)
        return 0;
    m->public_prefixes = calloc(2 * n, sizeof(*m->public_prefixes));
    if (!m->public_prefixes)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        int r = add_text(m, json_object_array_get_idx(m->config.public_prefixes, i), log);

        if (r < 0)
            return r;
    }
    return 0;
}

void public_done(struct model *m)
{
    for (size_t i = 0; i < m->n_public_prefixes; i++)
        free(m->public_prefixes[i].tokens);
    free(m->public_prefixes);
    m->public_prefixes = NULL;
    m->n_public_prefixes = 0;
}

uint32_t public_tokens(const struct model *m, const int32_t *tokens, uint32_t n_tokens)
{
    uint32_t longest = 0;

    for (size_t i = 0; i < m->n_public_prefixes; i++) {
        uint32_t n = same_tokens(m->public_prefixes[i].tokens, m->public_prefixes[i].n_tokens, tokens, n_tokens);

        longest = n > longest ? n : longest;
    }
    return longest;
}
