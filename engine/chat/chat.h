/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Chat templates: the Jinja subset that the `tokenizer.chat_template` of real models uses, interpreted
 * without access to anything but the variables that are handed in. Both the template (from a model file) and
 * the variables (from a client) are hostile: steps, memory, output and nesting are bounded.
 *
 * Rendered as `transformers` does it: trim_blocks, lstrip_blocks, loop controls, raise_exception(),
 * strftime_now(), tojson without ASCII or HTML escapes, and an immutable sandbox (no list.append() and the
 * like). Source: the Jinja2 3.1 template designer documentation.
 *
 *      lex.c   text and tags -> tokens              value.c   values, arena, Python's str() and repr()
 *      parse.c tokens -> tree                       json-value.c   values from and to JSON
 *      eval.c  statements, scopes, limits           expression.c   operators, names, attributes, calls
 *      filters.c, tests.c, methods.c   what the tables of names hold: to add one is a row and a function
 *
 * A template may be rendered by several threads at once; a rendering shares nothing with another.
 */

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/cleanup.h"

struct chat_template;
struct fault;
struct json_object;

struct chat_limits {
    uint64_t steps_max; /* nodes evaluated and, in blocks of 64, bytes looked at */
    size_t memory_max;  /* bytes of values and intermediate strings */
    size_t output_max;  /* bytes */
    uint32_t depth_max; /* of calls of macros and of nested values */
};

/* Far above what any real conversation needs (a 128k-token chat takes about 1e5 steps and 2 MB). */
#define CHAT_LIMITS_DEFAULT                                                                     \
    (struct chat_limits)                                                                        \
    {                                                                                           \
        .steps_max = 20000000, .memory_max = 256 << 20, .output_max = 32 << 20, .depth_max = 64 \
    }

/* A template longer than this is refused: the longest published ones have 20 KB. */
#define CHAT_TEMPLATE_BYTES_MAX (1 << 20)

/**
 * chat_template_new() - parse a template
 * @source: @n bytes of UTF-8, borrowed for the call
 * @ret:    owned by the caller: chat_template_free()
 * @reterr: may be NULL; FAULT_MODEL_INVALID with the line and what is wrong there (no offset)
 * Returns 0, -EINVAL, -ENOMEM.
 */
int chat_template_new(const char *source, size_t n, struct chat_template **ret, struct fault *reterr);

/**
 * chat_template_free() - release; takes NULL, returns NULL
 */
struct chat_template *chat_template_free(struct chat_template *t);

DEFINE_CLEANUP(struct chat_template *, chat_template_free)
#define _cleanup_chat_template_ _cleanup_(chat_template_freep)

/**
 * chat_render() - the text that the template makes of the variables
 * @variables: JSON object; its members are the template's variables (messages, tools, add_generation_prompt,
 *             bos_token, eos_token, …); borrowed for the call
 * @limits:    NULL: CHAT_LIMITS_DEFAULT
 * @now:       local time for strftime_now()
 * @ret:       the text, terminated, owned by the caller (free()); @ret_n its bytes without the terminator
 * @reterr:    may be NULL; FAULT_INVALID_PARAMETER about "messages": the template's own raise_exception()
 * text as it is, or the line and what went wrong there Returns 0, -EINVAL, -E2BIG (a limit; with the fault),
 * -ENOMEM.
 */
int chat_render(const struct chat_template *t, struct json_object *variables,
                const struct chat_limits *limits, const struct tm *now, char **ret, size_t *ret_n,
                struct fault *reterr);
