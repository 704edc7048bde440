/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/embed.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "engine/gguf/read.h"
#include "engine/token/tokenizer.h"
#include "engine/worker/intake.h"
#include "engine/worker/member.h"
#include "engine/worker/model.h"
#include "engine/worker/work.h"

/* "-1.23456789e-38," is as long as a number gets: nine digits give back every float. */
#define VALUE_BYTES_MAX 16u

/* What a reply of 16 MiB has room for, less its frame. */
#define VALUES_MAX ((15u << 20) / VALUE_BYTES_MAX)

DEFINE_CLEANUP(struct embedding *, embedding_free)

int embed_pooling_read(const struct gguf *g, bool is_encoder, enum embed_pooling *ret, struct fault *reterr)
{
    struct gguf_string architecture;
    uint32_t pooling = EMBED_NONE;
    char key[128];
    int r;

    r = gguf_get_string(g, "general.architecture", &architecture, reterr);
    if (r < 0)
        return r;
    snprintf(key, sizeof(key), "%.*s.pooling_type",
             (int)(architecture.n_bytes < 64 ? architecture.n_bytes : 64), architecture.data);
    r = gguf_get_u32(g, key, &pooling, reterr);
    if (r < 0 && r != -ENOENT)
        return r;
    if (pooling >= EMBED_POOLING_MAX) {
        fault_model_invalid(reterr, (int64_t)gguf_find_key(g, key)->offset, "%s is %" PRIu32 ", 0 to %d are known",
                            key, pooling, EMBED_POOLING_MAX - 1);
        return -EINVAL;
    }
    if (pooling == EMBED_NONE)
        pooling = is_encoder ? EMBED_MEAN : EMBED_LAST;
    *ret = (enum embed_pooling)pooling;
    return 0;
}

struct embedding *embedding_free(struct embedding *e)
{
    if (!e)
        return NULL;
    free(e->ends);
    free(e->vectors);
    free(e);
    return NULL;
}

static int invalid(struct fault *reterr, const char *parameter, const char *reason)
{
    fault_set(reterr, FAULT_INVALID_PARAMETER, parameter, "%s", reason);
    return -EINVAL;
}

static int check_call(const struct model *m, json_object *call, json_object **ret_input, struct fault *reterr)
{
    uint32_t n_max = VALUES_MAX / m->facts.n_embedding;
    int r;

    json_object_object_foreach(call, name, value)
    {
        if (value && strcmp(name, "input") != 0 && strcmp(name, "model") != 0 && strcmp(name, "app") != 0)
            return invalid(reterr, name, "no such parameter");
    }
    if (!m->tokenizer)
        return invalid(reterr, "model", "it has no tokenizer");
    if (m->pooling == EMBED_RANK)
        return invalid(reterr, "model", "it gives scores for pairs of texts, no vectors");
    r = member_array(call, "input", ret_input, reterr);
    if (r == -ENOENT)
        return invalid(reterr, "input", "expected texts");
    if (r < 0)
        return r;
    n_max = n_max < EMBED_INPUTS_MAX ? n_max : EMBED_INPUTS_MAX;
    if (json_object_array_length(*ret_input) < 1 || json_object_array_length(*ret_input) > n_max) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, "input", "expected 1 to %" PRIu32 " texts, not %zu", n_max,
                  json_object_array_length(*ret_input));
        return -EINVAL;
    }
    return 0;
}

static int check_text(const struct model *m, size_t i, json_object *text, size_t *n_left, struct fault *reterr)
{
    size_t n;

    if (!json_object_is_type(text, json_type_string))
        return invalid(reterr, "input", "expected texts");
    n = (size_t)json_object_get_string_len(text);
    if (n > *n_left) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, "input", "expected at most %" PRIu64
                  " bytes in all texts together, which text %zu exceeds", m->config.prompt_bytes_max, i);
        return -EINVAL;
    }
    *n_left -= n;
    return 0;
}

/* The tokens of text @i behind the @n that there are. A text stands as the model wants texts: its begin and end. */
static int add_tokens(const struct model *m, size_t i, json_object *text, int32_t **tokens, size_t *n,
                      struct fault *reterr)
{
    _cleanup_free_ int32_t *ids = NULL;
    int32_t *grown;
    size_t n_ids;
    int r;

    r = tokenizer_encode(m->tokenizer, json_object_get_string(text), (size_t)json_object_get_string_len(text),
                         TOKENIZE_BOS_EOS, &ids, &n_ids);
    if (r == -E2BIG || r == -ERANGE)
        return invalid(reterr, "input", "the text can't be split into tokens in reasonable time");
    if (r < 0)
        return r;
    if (n_ids == 0) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, "input", "text %zu has no tokens", i);
        return -EINVAL;
    }
    if (n_ids > m->facts.context_tokens) {
        fault_init(reterr, FAULT_CONTEXT_TOO_LONG, NULL);
        if (reterr) {
            reterr->limit = m->facts.context_tokens;
            reterr->used = (int64_t)n_ids;
        }
        return -EINVAL;
    }
    grown = reallocarray(*tokens, *n + n_ids, sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    *tokens = grown;
    memcpy(grown + *n, ids, n_ids * sizeof(*ids));
    *n += n_ids;
    return 0;
}

static int tokenise(const struct model *m, json_object *input, struct embedding *e, int32_t **tokens,
                    struct fault *reterr)
{
    size_t n = 0, n_left = m->config.prompt_bytes_max;
    int r;

    for (uint32_t i = 0; i < e->n_inputs; i++) {
        json_object *text = json_object_array_get_idx(input, i);

        r = check_text(m, i, text, &n_left, reterr);
        if (r == 0)
            r = add_tokens(m, i, text, tokens, &n, reterr);
        if (r < 0)
            return r;
        /* Bounded by prompt_bytes_max and the number of texts, far below 2^32. */
        e->ends[i] = (uint32_t)n;
    }
    return 0;
}

static struct embedding *embedding_new(const struct model *m, size_t n_inputs)
{
    struct embedding *e = calloc(1, sizeof(*e));

    if (!e)
        return NULL;
    e->pooling = m->pooling;
    e->n_inputs = (uint32_t)n_inputs;
    e->n_dims = m->facts.n_embedding;
    e->ends = calloc(n_inputs, sizeof(*e->ends));
    e->vectors = calloc(n_inputs, e->n_dims * sizeof(*e->vectors));
    return e->ends && e->vectors ? e : embedding_free(e);
}

int embed_prepare(const struct model *m, const struct job *job, json_object *call, struct work **ret,
                  struct fault *reterr)
{
    _cleanup_(embedding_freep) struct embedding *e = NULL;
    _cleanup_(work_freep) struct work *w = calloc(1, sizeof(*w));
    json_object *input = NULL;
    uint32_t begin = 0;
    int r;

    r = check_call(m, call, &input, reterr);
    if (r < 0)
        return r;
    e = embedding_new(m, json_object_array_length(input));
    if (!w || !e)
        return -ENOMEM;
    w->batch.state = BATCH_GONE; /* not in any batch yet */
    w->id = job->submit.request;
    w->epoch = job->epoch;
    w->tenant = job->submit.tenant;
    w->priority = job->submit.priority;
    w->deadline_ns = job->submit.deadline_ns;
    w->received_ns = job->received_ns;
    w->i_deadline = HEAP_NOWHERE;
    w->n_logprobs = -1;
    r = tokenise(m, input, e, &w->tokens, reterr);
    if (r < 0)
        return r;
    if (job->submit.tokens_max > 0 && e->ends[e->n_inputs - 1] > job->submit.tokens_max) {
        /* All texts together count against the user's quotas. */
        fault_init(reterr, FAULT_CONTEXT_TOO_LONG, NULL);
        if (reterr) {
            reterr->limit = job->submit.tokens_max;
            reterr->used = e->ends[e->n_inputs - 1];
        }
        return -EINVAL;
    }
    w->batch.n_tokens = e->ends[0];
    /* What has to fit into the tenant's share is the longest text. */
    for (uint32_t i = 0; i < e->n_inputs; begin = e->ends[i++])
        if (e->ends[i] - begin > w->n_prompt)
            w->n_prompt = e->ends[i] - begin;
    w->embedding = TAKE_PTR(e);
    *ret = TAKE_PTR(w);
    return 0;
}

void embed_begin(const struct embedding *e, uint32_t *ret_first, uint32_t *ret_n)
{
    *ret_first = e->i_input > 0 ? e->ends[e->i_input - 1] : 0;
    *ret_n = e->ends[e->i_input] - *ret_first;
}

void embed_add(struct embedding *e, const float *rows, uint32_t position, uint32_t n_tokens)
{
    float *to = e->vectors + (size_t)e->i_input * e->n_dims;
    size_t n_bytes = e->n_dims * sizeof(*to);

    switch (e->pooling) {
    case EMBED_MEAN:
        /* The sum: what it would be divided by goes with the length. */
        if (position == 0)
            memset(to, 0, n_bytes);
        for (uint32_t t = 0; t < n_tokens; t++)
            for (uint32_t i = 0; i < e->n_dims; i++)
                to[i] += rows[(size_t)t * e->n_dims + i];
        break;
    case EMBED_CLS:
        if (position == 0)
            memcpy(to, rows, n_bytes);
        break;
    case EMBED_NONE:
    case EMBED_LAST:
    case EMBED_RANK:
    case EMBED_POOLING_MAX:
        memcpy(to, rows + (size_t)(n_tokens - 1) * e->n_dims, n_bytes);
        break;
    }
}

bool embed_end(struct embedding *e)
{
    float *v = e->vectors + (size_t)e->i_input++ * e->n_dims;
    double sum = 0;

    for (uint32_t i = 0; i < e->n_dims; i++)
        sum += (double)v[i] * (double)v[i];
    if (!isfinite(sum) || sum == 0)
        return false;
    for (uint32_t i = 0; i < e->n_dims; i++)
        v[i] = (float)((double)v[i] / sqrt(sum));
    return true;
}

char *embed_reply(const struct embedding *e, size_t *ret_n)
{
    size_t n_values = (size_t)e->n_inputs * e->n_dims;
    char *text = malloc(n_values * VALUE_BYTES_MAX + e->n_inputs * sizeof("{\"values\":[]},") + 64), *at = text;

    if (!text)
        return NULL;
    at = stpcpy(at, "{\"embeddings\":[");
    for (uint32_t i = 0; i < e->n_inputs; i++) {
        const float *v = e->vectors + (size_t)i * e->n_dims;

        at = stpcpy(at, i > 0 ? ",{\"values\":[" : "{\"values\":[");
        for (uint32_t k = 0; k < e->n_dims; k++)
            at += snprintf(at, VALUE_BYTES_MAX + 1, "%s%.9g", k > 0 ? "," : "", (double)v[k]);
        at = stpcpy(at, "]}");
    }
    at = stpcpy(at, "]}");
    *ret_n = (size_t)(at - text);
    return text;
}
