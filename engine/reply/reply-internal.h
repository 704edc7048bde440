/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the forms share. Private to engine/reply.
 */

#include "engine/reply/reply.h"

struct reply_buffer {
    char *data;
    size_t n, allocated;
};

struct reply_ops {
    /* Takes as much from r->input as can be decided; @end: nothing will follow. Returns 0 or -ENOMEM. */
    int (*step)(struct reply *r, bool end);
    bool (*in_text)(const struct reply *r); /* NULL: always */
    const char *const *markers;             /* control tokens that it looks for, NULL at the end */
};

struct reply {
    const struct reply_ops *ops;
    unsigned flags;
    uint64_t id;
    uint32_t n_calls;
    int thought;               /* enum in reply.c */
    int state;                 /* of the form */
    struct reply_buffer input; /* what is not decided yet: from `at` on */
    size_t at;
    struct reply_buffer text, reasoning, collected;
    json_object *calls;
    char name[128];     /* harmony: who is called, "" nobody */
    bool thought_began; /* something behind <think> was seen */
};

extern const struct reply_ops reply_hermes, reply_llama, reply_mistral, reply_harmony;

/**
 * reply_append() - add to a buffer; 0 or -ENOMEM
 */
int reply_append(struct reply_buffer *b, const char *data, size_t n);

/**
 * reply_until() - how much of the input comes before the first of @markers
 * *ret_which: its index, or -1: none is there, and what may still become one is not counted (it is, at the
 * end)
 */
size_t reply_until(const struct reply *r, const char *const *markers, bool end, int *ret_which);

/**
 * reply_pass() - hand out @n bytes of the input; reply_skip(): drop them; reply_collect(): keep them
 */
int reply_pass(struct reply *r, struct reply_buffer *to, size_t n);
void reply_skip(struct reply *r, size_t n);

/**
 * reply_call_json() - add calls out of JSON text: an object with name and arguments (or parameters), or a
 * list of them Returns 1; 0 when it is none (nothing was added); -ENOMEM.
 */
int reply_call_json(struct reply *r, const char *text, size_t n);

/**
 * reply_call() - add a call with given arguments, JSON text
 */
int reply_call(struct reply *r, const char *name, const char *arguments, size_t n);

static inline const char *reply_rest(const struct reply *r, size_t *ret_n)
{
    *ret_n = r->input.n - r->at;
    return r->input.data ? r->input.data + r->at : "";
}
