/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a model writes, taken apart as it comes: text for the reader, reasoning, and calls of tools. Models
 * write calls in a few forms, which their chat templates show; one file each (hermes.c, llama.c, mistral.c,
 * harmony.c). Thoughts between <think> and </think> come before any of them.
 *
 * The parts do not depend on how the text is cut into pieces. Of a marker nothing is ever handed out as text:
 * what may still become one is held back. What looks like a call and is none (no JSON, no name) is text.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/json.h"

struct reply;

enum reply_form {
    REPLY_PLAIN,   /* no tools */
    REPLY_HERMES,  /* <tool_call>{"name": …, "arguments": …}</tool_call>: Hermes, Qwen and others */
    REPLY_LLAMA,   /* {"name": …, "parameters": …}, or <|python_tag|>…: Llama 3 */
    REPLY_MISTRAL, /* [TOOL_CALLS][{"name": …, "arguments": …}], or [TOOL_CALLS]name[ARGS]{…} */
    REPLY_HARMONY, /* channels: <|channel|>analysis<|message|>…: gpt-oss */
    REPLY_FORM_MAX,
};

enum reply_flags {
    REPLY_HAS_TOOLS = 1 << 0,  /* look for calls */
    REPLY_THINKS = 1 << 1,     /* the answer may begin with <think> */
    REPLY_IN_THOUGHT = 1 << 2, /* <think> was the end of the prompt */
};

/**
 * reply_form_of() - the form that a chat template speaks; *ret_thinks: it knows of <think>
 */
enum reply_form reply_form_of(const char *chat_template, size_t n, bool *ret_thinks);

/**
 * reply_new() - nothing has been said yet
 * @flags: enum reply_flags
 * @id:    of the request, for the ids of its calls
 * Returns 0 or -ENOMEM.
 */
int reply_new(enum reply_form form, unsigned flags, uint64_t id, struct reply **ret);

/**
 * reply_free() - takes NULL, returns NULL
 */
struct reply *reply_free(struct reply *r);

DEFINE_CLEANUP(struct reply *, reply_free)

/* What a piece of the answer turned out to be; owned by the reply, until its next call. */
struct reply_part {
    const char *text, *reasoning;
    size_t n_text, n_reasoning;
    json_object *calls; /* [{id, name, arguments}], NULL: none came to an end */
};

/**
 * reply_push() - the next piece of the answer
 * @end: it was the last one (@n may be 0)
 * Returns 0 or -ENOMEM.
 */
int reply_push(struct reply *r, const char *text, size_t n, bool end, struct reply_part *ret);

/**
 * reply_is_marker() - whether a control token's spelling has to be pushed, though it stands for no text
 */
bool reply_is_marker(const struct reply *r, const char *spelling, size_t n);

/**
 * reply_goes_on() - whether the answer goes on after a token that otherwise would end it (harmony's <|end|>)
 */
bool reply_goes_on(const struct reply *r, const char *spelling, size_t n);

/**
 * reply_in_text() - whether what comes now is text for the reader: thoughts and headers are over
 */
bool reply_in_text(const struct reply *r);

/**
 * reply_n_calls() - calls of tools so far
 */
uint32_t reply_n_calls(const struct reply *r);
