/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/prepare.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/fault.h"
#include "base/utf8.h"
#include "engine/grammar/grammar.h"
#include "engine/reply/reply.h"
#include "engine/sample/sampler.h"
#include "engine/token/tokenizer.h"
#include "engine/worker/base64.h"
#include "engine/worker/embed.h"
#include "engine/worker/member.h"
#include "engine/worker/model.h"
#include "engine/worker/params.h"
#include "engine/worker/public.h"
#include "engine/worker/render.h"
#include "engine/worker/structure.h"
#include "engine/worker/tools.h"
#include "engine/worker/work.h"

/* The daemon's text of a client's frame of 16 MiB. */
static const struct json_limits call_limits = {
    .bytes_max = 24u << 20, .depth_max = 64, .values_max = 4u << 20};

/* More tokens than any text of prompt_bytes_max has, so that what was tokenised can be turned back. */
#define DETOKENIZE_MAX (1u << 20)

static int invalid(struct fault *reterr, const char *parameter, const char *reason)
{
    fault_set(reterr, FAULT_INVALID_PARAMETER, parameter, "%s", reason);
    return -EINVAL;
}

static int check_length(const struct model *m, const char *parameter, size_t n_bytes, struct fault *reterr)
{
    if (n_bytes <= m->config.prompt_bytes_max)
        return 0;
    fault_set(reterr, FAULT_INVALID_PARAMETER, parameter, "expected at most %" PRIu64 " bytes, not %zu",
              m->config.prompt_bytes_max, n_bytes);
    return -EINVAL;
}

/* @begin: put a begin-of-text token before it where the model wants one (and the text has none). Never an
 * end: what comes next is the answer. */
static int encode(const struct model *m, const char *parameter, const char *text, size_t n_bytes,
                  unsigned flags, bool begin, int32_t **ret, size_t *ret_n, struct fault *reterr)
{
    _cleanup_free_ int32_t *ids = NULL;
    int32_t bos = tokenizer_bos(m->tokenizer);
    size_t n;
    int r;

    r = tokenizer_encode(m->tokenizer, text, n_bytes, flags, &ids, &n);
    if (r == -E2BIG || r == -ERANGE)
        return invalid(reterr, parameter, "the text can't be split into tokens in reasonable time");
    if (r < 0)
        return r;
    if (begin && tokenizer_adds_bos(m->tokenizer) && bos >= 0 && (n == 0 || ids[0] != bos)) {
        int32_t *grown = reallocarray(ids, n + 1, sizeof(*ids));

        if (!grown)
            return -ENOMEM;
        ids = grown;
        memmove(ids + 1, ids, n * sizeof(*ids));
        ids[0] = bos;
        n++;
    }
    *ret = TAKE_PTR(ids);
    *ret_n = n;
    return 0;
}

static int get_tokens(const struct model *m, const char *name, json_object *array, size_t n_max,
                      int32_t **ret, size_t *ret_n, struct fault *reterr)
{
    size_t n = json_object_array_length(array);
    _cleanup_free_ int32_t *ids = NULL;

    if (n > n_max) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, name, "expected at most %zu tokens, not %zu", n_max, n);
        return -EINVAL;
    }
    ids = calloc(n + 1, sizeof(*ids));
    if (!ids)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        json_object *item = json_object_array_get_idx(array, i);
        int64_t id = json_object_is_type(item, json_type_int) ? json_object_get_int64(item) : -1;

        if (id < 0 || id >= m->facts.n_vocab) {
            fault_set(reterr, FAULT_INVALID_PARAMETER, name, "expected tokens from 0 to %u",
                      m->facts.n_vocab - 1);
            return -EINVAL;
        }
        ids[i] = (int32_t)id;
    }
    *ret = TAKE_PTR(ids);
    *ret_n = n;
    return 0;
}

static int need_tokenizer(const struct model *m, struct fault *reterr)
{
    return m->tokenizer ? 0 : invalid(reterr, "model", "it has no tokenizer: only prompt_tokens can be used");
}

static int complete_tokens(const struct model *m, json_object *call, int32_t **ret, size_t *ret_n,
                           struct fault *reterr)
{
    json_object *array = NULL;
    const char *text = NULL;
    size_t n_text;
    int r_text = member_string(call, "prompt", &text, &n_text, reterr);
    int r_array = member_array(call, "prompt_tokens", &array, reterr);
    int r;

    if (r_text == -EINVAL || r_array == -EINVAL)
        return -EINVAL;
    if ((r_text == 0) == (r_array == 0))
        return invalid(reterr, "prompt", "expected either prompt or prompt_tokens");
    if (r_array == 0) {
        /* One that is longer than the context has to be counted to be refused, but not to be kept. */
        if (json_object_array_length(array) > m->facts.context_tokens) {
            fault_init(reterr, FAULT_CONTEXT_TOO_LONG, NULL);
            if (reterr) {
                reterr->limit = m->facts.context_tokens;
                reterr->used = (int64_t)json_object_array_length(array) + 1;
            }
            return -EINVAL;
        }
        return get_tokens(m, "prompt_tokens", array, m->facts.context_tokens, ret, ret_n, reterr);
    }
    r = need_tokenizer(m, reterr);
    if (r == 0)
        r = check_length(m, "prompt", n_text, reterr);
    if (r < 0)
        return r;
    return encode(m, "prompt", text, n_text, 0, true, ret, ret_n, reterr);
}

/* Whether the prompt ends in the beginning of a thought, as some templates make it. */
static bool ends_in_thought(const char *text, size_t n)
{
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == ' '))
        n--;
    return n >= 7 && memcmp(text + n - 7, "<think>", 7) == 0;
}

static int chat_tokens(const struct model *m, json_object *call, size_t n_json, const struct tools *tools,
                       bool *ret_thought, int32_t **ret, size_t *ret_n, struct fault *reterr)
{
    _cleanup_free_ char *text = NULL;
    size_t n_text;
    int r;

    r = need_tokenizer(m, reterr);
    if (r == 0)
        r = check_length(m, "messages", n_json, reterr);
    if (r == 0)
        r = worker_render(m, call, tools->choice != TOOLS_NONE ? tools->list : NULL, &text, &n_text, reterr);
    if (r < 0)
        return r == -E2BIG ? -EINVAL : r;
    *ret_thought = ends_in_thought(text, n_text);
    return encode(m, "messages", text, n_text, TOKENIZE_SPECIAL | TOKENIZE_SHIELDED, true, ret, ret_n, reterr);
}

/* Answers are taken apart where they may have parts. */
static int add_reply(const struct model *m, const struct tools *tools, bool in_thought, struct work *w)
{
    unsigned flags = (tools->choice != TOOLS_NONE ? REPLY_HAS_TOOLS : 0u) | (m->thinks ? REPLY_THINKS : 0u) |
                     (in_thought ? REPLY_IN_THOUGHT : 0u);

    return flags || m->reply_form == REPLY_HARMONY ? reply_new(m->reply_form, flags, w->id, &w->reply) : 0;
}

static int add_matcher(const struct model *m, json_object *call, const struct tools *tools, struct work *w,
                       struct fault *reterr)
{
    /* Thoughts and headers are free: the form is that of the text behind them. */
    bool waits = w->reply && !reply_in_text(w->reply), strips = w->detokenizer.flags & DETOKENIZE_STRIP_SPACE;
    int r = structure_matcher(call, m->vocabulary, strips && !waits, &w->matcher, reterr);

    if (r < 0 || tools->choice != TOOLS_REQUIRED) {
        w->matcher_waits = waits;
        return r;
    }
    if (w->matcher)
        return invalid(reterr, "tool_choice",
                       "a call that has to be made and json_schema or grammar exclude each other");
    /* The form has its own headers in it, but comes after thoughts that have begun. */
    w->matcher_waits = waits && m->reply_form != REPLY_HARMONY;
    return tools_matcher(m, tools, &w->matcher, reterr);
}

static int make_work(const struct model *m, const struct job *job, json_object *call, struct work **ret,
                     struct fault *reterr)
{
    static const char *const complete_others[] = {"prompt", "prompt_tokens", "json_schema", "grammar", NULL};
    static const char *const chat_others[] = {"messages",    "tools",   "tool_choice", "template_parameters",
                                              "json_schema", "grammar", NULL};
    bool chat = job->submit.kind == SUBMIT_CHAT, in_thought = false;
    _cleanup_(params_done) struct params params = {0};
    _cleanup_(tools_done) struct tools tools = {.choice = TOOLS_NONE};
    _cleanup_(work_freep) struct work *w = NULL;
    _cleanup_free_ int32_t *ids = NULL;
    uint32_t context = m->facts.context_tokens, left;
    int32_t *grown;
    size_t n;
    int r;

    if (job->submit.tokens_max > 0 && job->submit.tokens_max < context)
        context = job->submit.tokens_max; /* of the user's quotas */
    r = params_parse(call, &m->config, chat ? chat_others : complete_others, m->facts.n_vocab,
                     &params, reterr);
    if (r == 0 && chat)
        r = tools_parse(m, call, &tools, reterr);
    if (r < 0)
        return r;
    r = chat ? chat_tokens(m, call, job->n_json, &tools, &in_thought, &ids, &n, reterr)
             : complete_tokens(m, call, &ids, &n, reterr);
    if (r < 0)
        return r;
    if (n == 0)
        return invalid(reterr, chat ? "messages" : "prompt", "expected at least one token");
    if (n + 1 > context) {
        fault_init(reterr, FAULT_CONTEXT_TOO_LONG, NULL);
        if (reterr) {
            reterr->limit = context;
            reterr->used = (int64_t)n + 1;
        }
        return -EINVAL;
    }

    w = calloc(1, sizeof(*w));
    if (!w)
        return -ENOMEM;
    left = context - (uint32_t)n;
    w->n_output_max = params.max_tokens;
    if (w->n_output_max > m->config.max_tokens)
        w->n_output_max = m->config.max_tokens;
    if (w->n_output_max > left)
        w->n_output_max = left;
    grown = reallocarray(ids, n + w->n_output_max, sizeof(*ids));
    if (!grown)
        return -ENOMEM;
    ids = grown;
    w->batch.state = BATCH_GONE; /* not in any batch yet */
    w->batch.n_tokens = (uint32_t)n;
    w->id = job->submit.request;
    w->epoch = job->epoch;
    w->tenant = job->submit.tenant;
    w->priority = job->submit.priority;
    w->deadline_ns = job->submit.deadline_ns;
    w->received_ns = job->received_ns;
    w->i_deadline = HEAP_NOWHERE;
    w->n_prompt = (uint32_t)n;
    w->n_logprobs = params.n_logprobs;
    w->adapter = params.adapter;
    w->sampler = TAKE_PTR(params.sampler);
    w->stops = TAKE_PTR(params.stops);
    if (m->tokenizer)
        detokenizer_init(&w->detokenizer, m->tokenizer, chat ? DETOKENIZE_STRIP_SPACE : 0);
    r = chat ? add_reply(m, &tools, in_thought, w) : 0;
    if (r == 0)
        r = add_matcher(m, call, &tools, w, reterr);
    if (r < 0)
        return r;
    sampler_prompt(w->sampler, ids, n);
    w->n_public = public_tokens(m, ids, w->n_prompt);
    w->tokens = TAKE_PTR(ids);
    *ret = TAKE_PTR(w);
    return 0;
}

static int check_names(json_object *call, const char *const *names, struct fault *reterr)
{
    json_object_object_foreach(call, name, value)
    {
        const char *const *known = names;

        while (*known && strcmp(*known, name) != 0)
            known++;
        if (!*known && value)
            return invalid(reterr, name, "no such parameter");
    }
    return 0;
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

static int tokenize(const struct model *m, json_object *call, json_object **ret, struct fault *reterr)
{
    static const char *const names[] = {"text", "special", "model", "app", NULL};
    _cleanup_json_ json_object *reply = json_object_new_object();
    _cleanup_free_ int32_t *ids = NULL;
    json_object *array;
    const char *text;
    bool special = false;
    size_t n_text, n;
    int r;

    r = check_names(call, names, reterr);
    if (r == 0)
        r = need_tokenizer(m, reterr);
    if (r == 0)
        r = member_string(call, "text", &text, &n_text, reterr);
    if (r == -ENOENT)
        return invalid(reterr, "text", "expected text");
    if (r < 0 || member_bool(call, "special", &special, reterr) == -EINVAL)
        return -EINVAL;
    r = check_length(m, "text", n_text, reterr);
    if (r < 0)
        return r;
    r = tokenizer_encode(m->tokenizer, text, n_text, special ? TOKENIZE_SPECIAL | TOKENIZE_BOS_EOS : 0, &ids,
                         &n);
    if (r == -E2BIG || r == -ERANGE)
        return invalid(reterr, "text", "it can't be split into tokens in reasonable time");
    if (r < 0)
        return r;
    array = json_object_new_array_ext((int)n);
    if (!reply || add(reply, "tokens", array) < 0)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        json_object *id = json_object_new_int(ids[i]);

        if (!id)
            return -ENOMEM;
        if (json_object_array_add(array, id) < 0) {
            json_object_put(id);
            return -ENOMEM;
        }
    }
    *ret = TAKE_PTR(reply);
    return 0;
}

/* The bytes that the tokens stand for, one after the other. */
static int join_pieces(const struct model *m, const int32_t *ids, size_t n, char **ret, size_t *ret_n)
{
    size_t n_bytes = 0, at = 0;
    const char *piece;
    char *bytes;

    for (size_t i = 0; i < n; i++)
        n_bytes += tokenizer_piece(m->tokenizer, ids[i], true, &piece);
    bytes = malloc(n_bytes + 1);
    if (!bytes)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        size_t n_piece = tokenizer_piece(m->tokenizer, ids[i], true, &piece);

        if (n_piece > 0)
            memcpy(bytes + at, piece, n_piece);
        at += n_piece;
    }
    *ret = bytes;
    *ret_n = n_bytes;
    return 0;
}

/* Bytes that are no UTF-8 become U+FFFD, one for each that can't be used. */
static int to_text(const char *bytes, size_t n, char **ret, size_t *ret_n)
{
    static const char replacement[] = "\xef\xbf\xbd";
    char *text = malloc(3 * n + 1), *to = text;
    uint32_t code;

    if (!text)
        return -ENOMEM;
    for (size_t at = 0; at < n;) {
        int length = utf8_decode(bytes + at, n - at, &code);

        if (length > 0) {
            memcpy(to, bytes + at, (size_t)length);
            to += length;
            at += (size_t)length;
        } else {
            memcpy(to, replacement, 3);
            to += 3;
            at++;
        }
    }
    *ret = text;
    *ret_n = (size_t)(to - text);
    return 0;
}

static int detokenize(const struct model *m, json_object *call, json_object **ret, struct fault *reterr)
{
    static const char *const names[] = {"tokens", "model", "app", NULL};
    _cleanup_json_ json_object *reply = json_object_new_object();
    _cleanup_free_ char *bytes = NULL, *text = NULL, *encoded = NULL;
    _cleanup_free_ int32_t *ids = NULL;
    json_object *array = NULL;
    size_t n = 0, n_bytes = 0, n_text = 0;
    int r;

    r = check_names(call, names, reterr);
    if (r == 0)
        r = need_tokenizer(m, reterr);
    if (r == 0)
        r = member_array(call, "tokens", &array, reterr);
    if (r == -ENOENT)
        return invalid(reterr, "tokens", "expected tokens");
    if (r == 0)
        r = get_tokens(m, "tokens", array, DETOKENIZE_MAX, &ids, &n, reterr);
    if (r == 0)
        r = join_pieces(m, ids, n, &bytes, &n_bytes);
    if (r == 0)
        r = to_text(bytes, n_bytes, &text, &n_text);
    if (r < 0)
        return r;
    encoded = base64_encode(bytes, n_bytes);
    if (!encoded || !reply || n_text > INT32_MAX ||
        add(reply, "text", json_object_new_string_len(text, (int)n_text)) < 0 ||
        add(reply, "bytes", json_object_new_string(encoded)) < 0)
        return -ENOMEM;
    *ret = TAKE_PTR(reply);
    return 0;
}

int prepare(const struct model *m, const struct job *job, struct work **ret_work, json_object **ret_reply,
            struct fault *reterr)
{
    _cleanup_json_ json_object *call = NULL, *reply = NULL;
    struct work *work = NULL;
    struct json_error error;
    int r;

    r = json_parse(job->json, job->n_json, &call_limits, &call, NULL, &error);
    if (r == -EINVAL || r == -E2BIG)
        return invalid(reterr, "parameters", error.reason);
    if (r < 0)
        return r;
    if (!json_object_is_type(call, json_type_object))
        return invalid(reterr, "parameters", "expected an object");

    switch ((enum submit_kind)job->submit.kind) {
    case SUBMIT_COMPLETE:
    case SUBMIT_CHAT:
        if (m->facts.is_encoder)
            return invalid(reterr, "model", "it makes embeddings only, no text");
        r = make_work(m, job, call, &work, reterr);
        break;
    case SUBMIT_TOKENIZE:
        r = tokenize(m, call, &reply, reterr);
        break;
    case SUBMIT_DETOKENIZE:
        r = detokenize(m, call, &reply, reterr);
        break;
    case SUBMIT_EMBED:
        r = embed_prepare(m, job, call, &work, reterr);
        break;
    case SUBMIT_KIND_MAX: /* proto.c lets none through */
        r = -EINVAL;
    }
    if (r < 0)
        return r;
    *ret_work = work;
    *ret_reply = TAKE_PTR(reply);
    return 0;
}
