/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One step: what the scheduler planned goes through the engine, next tokens are sampled, one STEP packet says what
 * came of it, and those that are through end.
 */
#include "engine/worker/compute-internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "engine/reply/reply.h"
#include "engine/sample/sampler.h"
#include "engine/worker/clock.h"
#include "engine/worker/embed.h"
#include "engine/worker/reuse.h"

/* A prompt's part of a step does not have to be smaller than this to fit into a GPU's memory. */
#define STEP_TOKENS_SMALL 16

/* As many of the largest logits as each request that samples wants; 0: one of them wants all. */
static uint32_t n_top_of(const struct batch_plan *plan)
{
    uint32_t n_top = 0;

    for (size_t i = 0; i < plan->n_slices; i++) {
        const struct work *w = compute_work_of(plan->slices[i].request);
        uint32_t n;

        if (!plan->slices[i].wants_logits || w->embedding)
            continue;
        n = work_n_top(w);
        if (n == 0)
            return 0;
        n_top = n > n_top ? n : n_top;
    }
    return n_top;
}

/* Fills the arrays of the batch. Returns false when the engine has no sequence for one of them. */
static bool gather(struct compute *c, const struct batch_plan *plan, struct engine_batch *batch)
{
    uint32_t n = 0;

    for (size_t i = 0; i < plan->n_slices; i++) {
        const struct batch_slice *s = &plan->slices[i];
        struct work *w = compute_work_of(s->request);

        if (!w->has_sequence) {
            if (engine_sequence_open(c->model->engine, &w->sequence) != 0)
                return false;
            w->has_sequence = true;
            engine_sequence_adapt(c->model->engine, w->sequence, w->adapter);
            reuse_begin(c->model->engine, w, s);
        }
        for (uint32_t k = 0; k < s->n_tokens; k++, n++) {
            c->tokens[n] = w->tokens[w->first + w->batch.n_fed + s->n_found + k];
            c->sequences[n] = w->sequence;
            c->positions[n] = w->batch.n_fed + s->n_found + k;
            c->wants_logits[n] = 0;
        }
        for (uint32_t k = 0; k <= s->n_draft; k++)
            c->wants_logits[n - 1 - k] = s->wants_logits && !w->embedding;
        batch->wants_embeddings |= w->embedding != NULL;
    }
    batch->n_top = n_top_of(plan);
    return true;
}

static void tell_costs(struct compute *c, const struct batch_plan *plan, uint64_t duration_ns)
{
    for (size_t i = 0; i < plan->n_slices; i++) {
        const struct batch_slice *s = &plan->slices[i];
        struct work *w = compute_work_of(s->request);
        const struct step_tenant part = {
            .tenant = w->tenant,
            .n_pages = (uint32_t)w->batch.item.tenant->n_pages,
            .cost_ns = (uint64_t)((double)duration_ns * s->n_tokens / plan->n_tokens) + w->draft_ns,
            .n_prompt = w->batch.n_fed + s->n_found < w->n_prompt ? s->n_tokens : 0,
            .n_output = s->wants_logits && !w->embedding,
        };

        w->draft_ns = 0;
        if (emit_tenant(&c->emit, &part) < 0)
            compute_out_of_memory(c);
    }
}

static enum done_finish finish_of(const struct work *w)
{
    if (w->result == WORK_LENGTH)
        return DONE_LENGTH;
    return w->reply && reply_n_calls(w->reply) > 0 ? DONE_TOOL_CALLS : DONE_STOP;
}

/* States of a text of an embedding, and what they mean for it. */
static int pool(struct work *w, const struct batch_slice *s, const float *rows, uint64_t now_ns, struct fault *reterr)
{
    struct embedding *e = w->embedding;

    if (e->started_ns == 0)
        e->started_ns = w->batch.started_ns;
    embed_add(e, rows, w->batch.n_fed - s->n_tokens, s->n_tokens);
    if (!s->wants_logits)
        return WORK_GOES_ON;
    if (!embed_end(e)) {
        fault_set(reterr, FAULT_MODEL_UNAVAILABLE, "", "its states are no numbers, or all 0");
        return -EINVAL;
    }
    if (e->i_input < e->n_inputs)
        return WORK_NEXT_TEXT;
    w->first_ns = now_ns;
    return WORK_STOPPED;
}

/* The next text of an embedding waits for its turn like a new request. */
static void next_text(struct compute *c, struct work *w, uint64_t now_ns)
{
    uint32_t n_tokens;

    compute_close_sequence(c, w);
    batch_remove(c->batch, &w->batch, now_ns);
    embed_begin(w->embedding, &w->first, &n_tokens);
    if (batch_submit(c->batch, &w->batch, w->tenant, w->priority, n_tokens, now_ns) < 0)
        compute_out_of_memory(c);
}

static struct work_logits logits_of(const struct compute *c, const float *logits, size_t row)
{
    const struct engine_top *top = engine_top(c->model->engine);

    if (!top)
        return (struct work_logits){.all = logits + row * c->model->facts.n_vocab};
    return (struct work_logits){
        .top = {.n = top->n, .ids = top->ids + row * top->n, .logits = top->logits + row * top->n}};
}

/*
 * The next token, and as long as it is the one that was drafted, those behind it. Returns how many logits were there.
 * What a grammar, a stop string or the sampler says of a token comes out as without a draft: they see the same tokens
 * and logits in the same order.
 */
static uint32_t sample_slice(struct compute *c, const struct batch_slice *s, const float *logits, size_t row,
                             struct packet_step *step, struct fault *reterr)
{
    struct work *w = compute_work_of(s->request);
    uint32_t n_right = 0;
    uint64_t begin_ns = clock_now_ns();

    for (;;) {
        int32_t draft = n_right < s->n_draft ? w->tokens[w->batch.n_tokens] : SAMPLER_NONE;

        const struct work_logits row_logits = logits_of(c, logits, row + n_right);

        w->result = work_sample(w, c->model, c->workspace, &row_logits, &c->emit, reterr);
        if (w->result == -ENOMEM)
            compute_out_of_memory(c);
        if (w->result != WORK_GOES_ON || draft == SAMPLER_NONE || w->tokens[w->batch.n_tokens - 1] != draft)
            break;
        n_right++;
    }
    if (n_right > 0 && emit_tenant(&c->emit, &(struct step_tenant){.tenant = w->tenant,
                                                                   .n_pages = (uint32_t)w->batch.item.tenant->n_pages,
                                                                   .n_output = n_right}) < 0)
        compute_out_of_memory(c);
    if (n_right < s->n_draft && w->result == WORK_GOES_ON) {
        batch_refuse(c->batch, &w->batch, s->n_draft - n_right);
        engine_sequence_truncate(c->model->engine, w->sequence, w->batch.n_fed);
    }
    drafts_learn(w, s->n_draft, n_right);
    step->n_drafted += s->n_draft;
    step->n_accepted += n_right;
    /* The step was charged; what a grammar takes on top of it comes from the request alone. */
    if (w->matcher)
        fair_charge(batch_fair(c->batch), w->batch.item.tenant, clock_now_ns() - begin_ns);
    return 1 + s->n_draft;
}

/* The requests of the last step that have a next token. Their ends are told after the STEP with their last
 * text. */
static void sample(struct compute *c, const struct batch_plan *plan, const float *logits, const float *states,
                   struct packet_step step)
{
    uint64_t now_ns = clock_now_ns();
    struct packet_step figures;
    struct fault fault;
    size_t row = 0, n_tokens = 0, n_sampled = 0;

    fault_init(&fault, FAULT_NONE, NULL);
    for (size_t i = 0; i < plan->n_slices; i++) {
        const struct batch_slice *s = &plan->slices[i];
        struct work *w = compute_work_of(s->request);

        w->result = WORK_GOES_ON;
        if (w->embedding)
            w->result = pool(w, s, states + n_tokens * w->embedding->n_dims, now_ns, &fault);
        n_tokens += s->n_tokens;
        if (w->embedding || !s->wants_logits)
            continue;
        if (w->first_ns == 0)
            w->first_ns = now_ns;
        w->told_ns = now_ns;
        row += sample_slice(c, s, logits, row, &step, &fault);
    }
    figures = compute_figures(c);
    figures.duration_ns = step.duration_ns;
    figures.n_drafted = step.n_drafted;
    figures.n_accepted = step.n_accepted;
    emit_step(&c->emit, c->epoch, figures);
    now_ns = clock_now_ns();
    for (size_t i = 0; i < plan->n_slices; i++) {
        struct work *w = compute_work_of(plan->slices[i].request);

        reuse_keep(c->model->engine, w);
        if (w->result < 0)
            compute_end_failed(c, w, &fault);
        else if (w->result == WORK_NEXT_TEXT)
            next_text(c, w, now_ns);
        else if (w->result != WORK_GOES_ON)
            compute_end_done(c, w, finish_of(w), now_ns);
        else if (!w->embedding && plan->slices[i].wants_logits)
            c->sampled[n_sampled++] = w;
    }
    drafts_make(c->drafts, c->batch, c->sampled, n_sampled);
}

/* Others needed its pages: what was computed of it is computed again. Once for a request, since it may go on so. */
static void drop_pages(struct compute *c, struct work *w)
{
    const struct log_fields fields = {.request = w->id, .tenant = w->tenant};

    if (!w->said_dropped)
        log_line(c->log, LOG_NOTICE, &fields,
                 "a request gave up its place in the KV cache, and is computed again when its turn comes");
    w->said_dropped = true;
    compute_close_sequence(c, w);
}

static void fail_for_pages(struct compute *c, struct work *w)
{
    struct fault fault;

    fault_init(&fault, FAULT_INSUFFICIENT_MEMORY, "kv");
    fault.used =
        (int64_t)((w->batch.n_tokens / c->model->facts.page_tokens + 1) * c->model->facts.bytes_kv_page);
    fault.limit = (int64_t)(c->model->facts.pages_total * c->model->facts.bytes_kv_page);
    compute_end_failed(c, w, &fault);
}

/* The plan was not computed. Whatever has only just begun is no longer than it says, which is nothing. */
static void undo(struct compute *c, const struct batch_plan *plan)
{
    for (size_t i = 0; i < plan->n_slices; i++)
        if (plan->slices[i].request->n_fed == 0)
            compute_close_sequence(c, compute_work_of(plan->slices[i].request));
    batch_step_failed(c->batch);
}

/* The engine has less room than the scheduler thought. Somebody gives up pages; if nobody else has any, it
 * fails. */
static void make_room(struct compute *c, const struct batch_plan *plan)
{
    struct work *first = compute_work_of(plan->slices[0].request);
    struct batch_request *r;

    undo(c, plan);
    r = batch_drop_one(c->batch);
    if (r)
        drop_pages(c, compute_work_of(r));
    else
        fail_for_pages(c, first);
}

/* A GPU's driver has no memory for what it needs itself in a step. It may have some again in a moment; a step of fewer
 * tokens needs less; and where that does not help either, the longest one is not answered, so that others are. */
static void give_way(struct compute *c, const struct batch_plan *plan, const struct fault *fault)
{
    const struct batch_slice *longest = &plan->slices[0];

    for (size_t i = 1; i < plan->n_slices; i++)
        if (plan->slices[i].n_tokens > longest->n_tokens)
            longest = &plan->slices[i];
    undo(c, plan);
    if (++c->n_gpu_full == 1)
        return;
    if (longest->n_tokens > STEP_TOKENS_SMALL && batch_shrink(c->batch))
        log_line(c->log, LOG_NOTICE, NULL, "a GPU has too little memory for a step: steps are smaller from now on");
    else
        compute_end_failed(c, compute_work_of(longest->request), fault);
}

/* Returns false when there was nothing to compute. */
bool compute_step(struct compute *c)
{
    /* A copy: its slices stay where they are until the next plan, its counts don't. */
    const struct batch_plan plan = *batch_plan(c->batch, clock_now_ns());
    struct engine_batch batch = {
        .n_tokens = plan.n_tokens,
        .tokens = c->tokens,
        .sequences = c->sequences,
        .positions = c->positions,
        .wants_logits = c->wants_logits,
    };
    const float *logits = NULL;
    struct fault fault;
    uint64_t begin_ns, duration_ns;
    int r;

    for (size_t i = 0; i < plan.n_dropped; i++)
        drop_pages(c, compute_work_of(plan.dropped[i]));
    if (plan.stuck) {
        batch_step_failed(c->batch);
        fail_for_pages(c, compute_work_of(plan.stuck));
        return true;
    }
    if (plan.n_slices == 0)
        return false;
    if (!gather(c, &plan, &batch)) {
        make_room(c, &plan);
        return true;
    }

    fault_init(&fault, FAULT_NONE, NULL);
    begin_ns = clock_now_ns();
    link_step_begins(c->link, begin_ns);
    r = engine_step(c->model->engine, &batch, &logits, &fault);
    duration_ns = clock_now_ns() - begin_ns;
    link_step_ends(c->link);
    explicit_bzero(c->tokens, plan.n_tokens * sizeof(*c->tokens));
    if (r == ENGINE_KV_FULL) {
        make_room(c, &plan);
        return true;
    }
    if (r == ENGINE_GPU_FULL) {
        give_way(c, &plan, &fault);
        return true;
    }
    if (r != 0) {
        char text[512];

        /* Everything that could be wrong with a request was checked before: the engine itself is broken. */
        log_line(c->log, LOG_ERR, NULL, "worker ends: a step failed: %s",
                 fault.kind != FAULT_NONE ? fault_describe(&fault, text, sizeof(text)) : strerrordesc_np(-r));
        link_finish(c->link, r == -EIO ? PROTO_EXIT_GPU_LOST : EXIT_FAILURE);
    }
    c->n_gpu_full = 0;
    tell_costs(c, &plan, duration_ns);
    batch_step_done(c->batch, duration_ns);
    sample(c, &plan, logits, batch.wants_embeddings ? engine_embeddings(c->model->engine) : NULL,
           (struct packet_step){.duration_ns = duration_ns});
    return true;
}
