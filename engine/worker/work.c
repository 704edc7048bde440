/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/work.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/fault.h"
#include "base/utf8.h"
#include "engine/grammar/grammar.h"
#include "engine/reply/reply.h"
#include "engine/sample/sampler.h"
#include "engine/sample/stops.h"
#include "engine/token/tokenizer.h"
#include "engine/worker/base64.h"
#include "engine/worker/embed.h"
#include "engine/worker/emit.h"
#include "engine/worker/model.h"
#include "engine/worker/params.h"

/* Room for tokens that it has at least. */
static size_t n_tokens(const struct work *w)
{
    const struct embedding *e = w->embedding;

    return e ? e->ends[e->n_inputs - 1] : (size_t)w->n_prompt + w->n_output_max;
}

struct work *work_free(struct work *w)
{
    if (!w)
        return NULL;
    /* What was asked and said, in the model's words. */
    if (w->tokens)
        explicit_bzero(w->tokens, n_tokens(w) * sizeof(*w->tokens));
    sampler_free(w->sampler);
    matcher_free(w->matcher);
    reply_free(w->reply);
    stops_free(w->stops);
    detokenizer_done(&w->detokenizer);
    embedding_free(w->embedding);
    free(w->tokens);
    free(w);
    return NULL;
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

/* {token, text, bytes, logprob}; a probability of 0 has no logarithm in JSON, so the least float stands for
 * it. */
static int logprob_to_json(const struct model *m, int32_t token, float logprob, json_object **ret)
{
    _cleanup_json_ json_object *o = json_object_new_object();
    _cleanup_free_ char *bytes = NULL;
    const char *piece = "";
    size_t n = m->tokenizer ? tokenizer_piece(m->tokenizer, token, true, &piece) : 0;

    bytes = base64_encode(piece, n);
    if (!o || !bytes)
        return -ENOMEM;
    if (add(o, "token", json_object_new_int(token)) < 0 ||
        add(o, "text",
            utf8_is_valid(piece, n, NULL) ? json_object_new_string_len(piece, (int)n)
                                          : json_object_new_string("\xef\xbf\xbd")) < 0 ||
        add(o, "bytes", json_object_new_string(bytes)) < 0 ||
        add(o, "logprob", json_object_new_double(isfinite(logprob) ? (double)logprob : -1e30)) < 0)
        return -ENOMEM;
    *ret = TAKE_PTR(o);
    return 0;
}

static int make_logprobs(const struct work *w, const struct model *m, struct sampler_workspace *workspace,
                         const float *logits, int32_t token, json_object **ret)
{
    _cleanup_json_ json_object *extra = json_object_new_object(), *entry = NULL;
    struct sampler_logprob top[PARAMS_LOGPROBS_MAX];
    json_object *list, *alternatives;
    uint32_t n_top;
    float logprob;

    n_top =
        sampler_logprobs(workspace, logits, m->facts.n_vocab, token, (uint32_t)w->n_logprobs, &logprob, top);
    if (!extra || logprob_to_json(m, token, logprob, &entry) < 0)
        return -ENOMEM;
    alternatives = json_object_new_array();
    if (add(entry, "top", alternatives) < 0)
        return -ENOMEM;
    for (uint32_t i = 0; i < n_top; i++) {
        json_object *o = NULL;

        if (logprob_to_json(m, top[i].token, top[i].logprob, &o) < 0)
            return -ENOMEM;
        if (json_object_array_add(alternatives, o) < 0) {
            json_object_put(o);
            return -ENOMEM;
        }
    }
    list = json_object_new_array();
    if (add(extra, "logprobs", list) < 0)
        return -ENOMEM;
    if (json_object_array_add(list, entry) < 0)
        return -ENOMEM;
    entry = NULL;
    *ret = TAKE_PTR(extra);
    return 0;
}

/* Text through the stop strings into the piece. */
static int hand_on_text(struct work *w, const char *text, size_t n, struct emit *e, bool *ret_hit)
{
    const char *out;
    int r;

    r = stops_push(w->stops, text, n, &out, &n, ret_hit);
    return r < 0 ? r : emit_text(e, out, n);
}

/* The parts of an answer that are no text go beside it. */
static int add_parts(const struct reply_part *part, json_object **extra)
{
    if (part->n_reasoning == 0 && !part->calls)
        return 0;
    if (!*extra)
        *extra = json_object_new_object();
    if (!*extra)
        return -ENOMEM;
    if (part->n_reasoning > 0 &&
        add(*extra, "reasoning", json_object_new_string_len(part->reasoning, (int)part->n_reasoning)) < 0)
        return -ENOMEM;
    return part->calls ? add(*extra, "tool_calls", json_object_get(part->calls)) : 0;
}

/* What a token or the end added to the answer: taken apart, then on its way. @extra: as of add_parts() */
static int hand_on(struct work *w, const char *text, size_t n, bool end, struct emit *e, json_object **extra,
                   bool *ret_hit)
{
    struct reply_part part;
    int r;

    if (!w->reply)
        return hand_on_text(w, text, n, e, ret_hit);
    r = reply_push(w->reply, text, n, end, &part);
    if (r == 0)
        r = add_parts(&part, extra);
    return r < 0 ? r : hand_on_text(w, part.text, part.n_text, e, ret_hit);
}

static int hand_on_rest(struct work *w, struct emit *e, json_object **extra)
{
    const char *text;
    bool hit = false;
    size_t n;
    int r;

    r = detokenizer_flush(&w->detokenizer, &text, &n);
    if (r == 0)
        r = hand_on(w, text, n, /* end= */ true, e, extra, &hit);
    if (r == 0 && !hit) {
        n = stops_flush(w->stops, &text);
        r = emit_text(e, text, n);
    }
    return r;
}

/* The text of a token; of a control token nothing, unless the answer's form is written with it. */
static int token_text(struct work *w, const struct model *m, int32_t token, const char **ret, size_t *ret_n)
{
    const char *spelling;
    size_t n;
    int r = detokenizer_push(&w->detokenizer, token, ret, ret_n);

    if (r < 0 || !w->reply || !tokenizer_is_control(m->tokenizer, token))
        return r;
    spelling = tokenizer_token_text(m->tokenizer, token, &n);
    if (spelling && reply_is_marker(w->reply, spelling, n)) {
        *ret = spelling;
        *ret_n = n;
    }
    return 0;
}

static bool ends_answer(const struct work *w, const struct model *m, int32_t token)
{
    const char *spelling;
    size_t n;

    if (!m->tokenizer || !tokenizer_is_end(m->tokenizer, token))
        return false;
    spelling = tokenizer_token_text(m->tokenizer, token, &n);
    return !(w->reply && spelling && reply_goes_on(w->reply, spelling, n));
}

static int too_ambiguous(int r, struct fault *reterr)
{
    if (r == -ENOMEM)
        return r;
    fault_set(reterr, FAULT_INVALID_PARAMETER, "grammar",
              "it is too ambiguous: too much had to be kept in mind");
    return -EINVAL;
}

static bool is_held_to_form(const struct work *w)
{
    return w->matcher && !(w->matcher_waits && !reply_in_text(w->reply));
}

uint32_t work_n_top(const struct work *w)
{
    uint32_t n = w->matcher || w->n_logprobs >= 0 ? 0 : sampler_n_top(w->sampler);

    return n <= ENGINE_TOP_MAX ? n : 0;
}

static int pick(struct work *w, struct sampler_workspace *workspace, const struct work_logits *logits, int32_t *ret,
                struct fault *reterr)
{
    const uint64_t *mask = NULL;
    int32_t only = -1;
    int r = is_held_to_form(w) ? matcher_mask(w->matcher, &mask, &only) : 0;

    if (r < 0)
        return too_ambiguous(r, reterr);
    /* Where there is no choice nothing has to be drawn. */
    if (only >= 0)
        *ret = only;
    else if (!logits->all)
        *ret = sampler_pick_top(w->sampler, workspace, logits->top.ids, logits->top.logits, logits->top.n);
    else
        *ret = sampler_pick(w->sampler, workspace, logits->all, mask);
    if (*ret != SAMPLER_NONE)
        return 0;
    fault_set(reterr, FAULT_INVALID_PARAMETER, "logit_bias", "it leaves no token%s to go on with",
              w->matcher ? " that the schema or grammar allows" : "");
    return -EINVAL;
}

int work_sample(struct work *w, const struct model *m, struct sampler_workspace *workspace,
                const struct work_logits *logits, struct emit *e, struct fault *reterr)
{
    _cleanup_json_ json_object *extra = NULL;
    enum work_result result = WORK_GOES_ON;
    const char *text;
    bool hit = false;
    int32_t token;
    size_t n;
    int r;

    r = pick(w, workspace, logits, &token, reterr);
    if (r < 0)
        return r;
    emit_piece_begin(e, w->id);
    if (ends_answer(w, m, token)) {
        result = WORK_STOPPED;
    } else {
        sampler_accept(w->sampler, token);
        r = is_held_to_form(w) ? matcher_accept(w->matcher, token) : 0;
        if (r < 0)
            return too_ambiguous(r, reterr);
        w->tokens[w->batch.n_tokens] = token;
        batch_append(&w->batch);
        w->n_output++;
        if (w->n_logprobs >= 0) {
            r = make_logprobs(w, m, workspace, logits->all, token, &extra);
            if (r < 0)
                return r;
        }
        if (m->tokenizer) {
            r = token_text(w, m, token, &text, &n);
            if (r == 0)
                r = hand_on(w, text, n, /* end= */ false, e, &extra, &hit);
            if (r < 0)
                return r;
        }
        if (hit || (w->matcher && matcher_is_complete(w->matcher)))
            result = WORK_STOPPED;
        else if (w->n_output == w->n_output_max)
            result = WORK_LENGTH;
    }
    if (result != WORK_GOES_ON && !hit && m->tokenizer) {
        r = hand_on_rest(w, e, &extra);
        if (r < 0)
            return r;
    }
    r = emit_piece_end(e, extra, w->n_output, STEP_NOT_WAITING, STEP_ETA_UNKNOWN);
    return r < 0 ? r : (int)result;
}

uint32_t work_guess(struct work *w, uint32_t n_max)
{
    return is_held_to_form(w) ? matcher_guess(w->matcher, w->tokens + w->batch.n_tokens, n_max) : 0;
}

int work_flush(struct work *w, struct emit *e)
{
    _cleanup_json_ json_object *extra = NULL;
    int r;

    if (!w->detokenizer.tokenizer || w->n_output == 0)
        return 0;
    emit_piece_begin(e, w->id);
    r = hand_on_rest(w, e, &extra);
    return r < 0 ? r : emit_piece_end(e, extra, w->n_output, STEP_NOT_WAITING, STEP_ETA_UNKNOWN);
}
