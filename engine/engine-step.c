/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One step: pages before windows are given back, the batch is checked, pages are reserved, the graph runs, the
 * sequences grow. Until the graph runs nothing has changed that a refusal would have to undo, and after a
 * cancelled run only pages have to be given back.
 */

#include <errno.h>

#include "base/fault.h"
#include "engine/engine-internal.h"
#include "engine/engine-wipe.h"

static int bad_batch(struct fault *reterr, const char *what, const char *expected)
{
    fault_set(reterr, FAULT_INVALID_PARAMETER, what, "%s", expected);
    return -EINVAL;
}

/* An encoder's tokens see each other: a text is a run of the batch, and can't be continued. */
static bool is_whole_text(const struct engine *e, const struct engine_batch *b, uint32_t i)
{
    const struct engine_sequence *s = &e->sequences[b->sequences[i]];

    return s->length == 0 && (s->pending == 0 || b->sequences[i - 1] == b->sequences[i]);
}

/* Checks the batch, counts each sequence's tokens (pending) and lists the sequences and the rows that want logits. */
static int batch_check(struct engine *e, const struct engine_batch *b, uint32_t *ret_n_active, uint32_t *ret_n_outputs,
                       struct fault *reterr)
{
    uint32_t n_active = 0, n_outputs = 0;

    if (b->n_tokens == 0 || b->n_tokens > e->batch_tokens_max)
        return bad_batch(reterr, "n_tokens", "1 to batch_tokens_max");
    for (uint32_t i = 0; i < b->n_tokens; i++) {
        if (b->sequences[i] >= e->sequences_max || !e->sequences[b->sequences[i]].open)
            return bad_batch(reterr, "sequences", "an open sequence");
        e->sequences[b->sequences[i]].pending = 0;
    }
    for (uint32_t i = 0; i < b->n_tokens; i++) {
        struct engine_sequence *s = &e->sequences[b->sequences[i]];

        if (b->tokens[i] < 0 || (uint32_t)b->tokens[i] >= e->arch.n_vocab)
            return bad_batch(reterr, "tokens", "a token of the vocabulary");
        if (b->positions[i] != s->length + s->pending)
            return bad_batch(reterr, "positions", "the position after the sequence's last");
        if (b->positions[i] >= e->context_tokens) {
            fault_init(reterr, FAULT_CONTEXT_TOO_LONG, NULL);
            if (reterr) {
                reterr->limit = e->context_tokens;
                reterr->used = (int64_t)b->positions[i] + 1;
            }
            return -EINVAL;
        }
        if (e->graph.is_encoder && !is_whole_text(e, b, i))
            return bad_batch(reterr, "sequences", "a whole text, from its first token to its last, side by side");
        if (b->wants_logits[i]) {
            if (e->graph.logits == GRAPH_NONE)
                return bad_batch(reterr, "wants_logits", "none: this model has no output but embeddings");
            if (n_outputs == e->outputs_max)
                return bad_batch(reterr, "wants_logits", "at most outputs_max tokens");
            e->outputs[n_outputs++] = i;
        }
        if (s->pending++ == 0)
            e->active[n_active++] = b->sequences[i];
    }
    *ret_n_active = n_active;
    *ret_n_outputs = n_outputs;
    return 0;
}

/*
 * What lies before the windows of all further tokens is given back: of those sequences that the last step made longer,
 * and only now, since until now its caller could take tokens back (speculation).
 */
static void windows_release(struct engine *e)
{
    for (uint32_t i = 0; i < e->n_active; i++) {
        struct engine_sequence *s = &e->sequences[e->active[i]];

        for (uint32_t g = 0; s->open && g < e->graph.n_groups; g++)
            page_table_release_before(&s->tables[g], e->pages[g], engine_window_begin(e, g, s->length));
    }
    e->n_active = 0;
}

static int pages_reserve(struct engine *e, uint32_t n_active)
{
    for (uint32_t g = 0; g < e->graph.n_groups; g++) {
        uint64_t need = 0;

        for (uint32_t i = 0; i < n_active; i++) {
            const struct engine_sequence *s = &e->sequences[e->active[i]];

            need += page_table_need(&s->tables[g], e->pages[g], s->length, s->pending);
        }
        if (need > pages_total(e->pages[g]) || !engine_pages_find(e, g, (uint32_t)need))
            return ENGINE_KV_FULL;
    }
    for (uint32_t g = 0; g < e->graph.n_groups; g++) {
        for (uint32_t i = 0; i < n_active; i++) {
            struct engine_sequence *s = &e->sequences[e->active[i]];

            page_table_reserve(&s->tables[g], e->pages[g], s->length, s->pending);
        }
    }
    return 0;
}

static uint32_t cut_runs(struct engine *e, const struct engine_batch *b)
{
    uint32_t n_runs = 0;

    for (uint32_t i = 0; i < b->n_tokens; i++) {
        if (i == 0 || b->sequences[i] != b->sequences[i - 1])
            e->runs[n_runs++] = (struct exec_run){
                .token0 = i, .position0 = b->positions[i], .tables = e->sequences[b->sequences[i]].tables};
        e->runs[n_runs - 1].n_tokens++;
        e->token_runs[i] = n_runs - 1;
    }
    return n_runs;
}

/* The adapter of each token; NULL when none has one: then the step has less to do. */
static const uint32_t *adapters_of(struct engine *e, const struct engine_batch *b)
{
    bool any = false;

    for (uint32_t i = 0; i < b->n_tokens; i++) {
        e->token_adapters[i] = e->sequences[b->sequences[i]].adapter;
        any |= e->token_adapters[i] != 0;
    }
    return any ? e->token_adapters : NULL;
}

int engine_step(struct engine *e, const struct engine_batch *batch, const float **ret_logits, struct fault *reterr)
{
    uint32_t n_active, n_outputs;
    struct exec_batch x;
    int r;

    windows_release(e);
    r = batch_check(e, batch, &n_active, &n_outputs, reterr);
    if (r < 0)
        return r;
    r = pages_reserve(e, n_active);
    if (r != 0)
        return r;

    x = (struct exec_batch){
        .n_tokens = batch->n_tokens,
        .n_outputs = n_outputs,
        .n_runs = cut_runs(e, batch),
        .tokens = batch->tokens,
        .positions = batch->positions,
        .token_runs = e->token_runs,
        .outputs = e->outputs,
        .runs = e->runs,
        .adapters = adapters_of(e, batch),
        .wants_embeddings = batch->wants_embeddings,
    };
    if (e->gpus.n_gpus > 0)
        r = engine_gpus_step(e, &x, batch->n_top, ret_logits, reterr);
    else
        r = exec_step(e->exec, &x, ret_logits) ? 0 : ENGINE_CANCELLED;
    if (r != 0) {
        for (uint32_t i = 0; i < n_active; i++)
            for (uint32_t g = 0; g < e->graph.n_groups; g++)
                page_table_truncate(&e->sequences[e->active[i]].tables[g], e->pages[g],
                                    e->sequences[e->active[i]].length);
        return r;
    }
    for (uint32_t i = 0; i < n_active; i++)
        e->sequences[e->active[i]].length += e->sequences[e->active[i]].pending;
    e->n_active = n_active;
    return 0;
}

const struct engine_top *engine_top(const struct engine *e)
{
    return e->gpus.top.n > 0 ? &e->gpus.top : NULL;
}

const float *engine_embeddings(const struct engine *e)
{
    return exec_embeddings(e->exec);
}

void engine_wipe(struct engine *e)
{
    exec_wipe(e->exec);
}

void engine_cancel(struct engine *e)
{
    exec_cancel(e->exec);
}
