/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/drafts.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/worker/draft.h"
#include "engine/worker/model.h"
#include "engine/worker/reuse.h"
#include "engine/worker/work.h"

struct drafts {
    const struct model *model;
    /* [config.sequences] what the draft model is asked for, and for whom */
    struct drafter_item *items;
    struct work **wanting;
};

int drafts_new(const struct model *model_borrow, struct drafts **ret)
{
    _cleanup_(drafts_freep) struct drafts *d = calloc(1, sizeof(*d));

    if (!d)
        return -ENOMEM;
    d->model = model_borrow;
    d->items = calloc(model_borrow->config.sequences, sizeof(*d->items));
    d->wanting = calloc(model_borrow->config.sequences, sizeof(struct work *));
    if (!d->items || !d->wanting)
        return -ENOMEM;
    *ret = TAKE_PTR(d);
    return 0;
}

struct drafts *drafts_free(struct drafts *d)
{
    if (!d)
        return NULL;
    free(d->items);
    free(d->wanting);
    free(d);
    return NULL;
}

/* How long a draft for @w should be, of @left tokens that it may have; 0: it would not pay. */
static uint32_t draft_length(const struct drafts *d, const struct work *w, enum draft_source source, double cost,
                             uint32_t left)
{
    /* The last token of an answer is not fed. */
    uint32_t n = w->n_output_max - w->n_output - 1;

    n = n < left ? n : left;
    if (d->model->config.drafts == CONFIG_DRAFTS_ALWAYS)
        return n < SPECULATE_TOKENS_MAX ? n : SPECULATE_TOKENS_MAX;
    return speculate_length(&w->speculation[source], cost, n);
}

/* What the @i-th of @n may have of what is left: all of it would leave nothing to those behind it. */
static uint32_t share(uint32_t left, size_t i, size_t n)
{
    return (uint32_t)((left + n - i - 1) / (n - i));
}

/* Drafts of the draft model for those whose own text offered none. */
static void draft_by_model(struct drafts *d, struct batch *b, struct work *const *sampled, size_t n_sampled,
                           uint32_t left)
{
    double cost = batch_draft_cost(b);
    uint32_t n = 0;

    if (batch_step_ns(b) > 0)
        cost += drafter_token_ns(d->model->drafter) / batch_step_ns(b);
    for (size_t i = 0; i < n_sampled && left > 0; i++) {
        struct work *w = sampled[i];

        if (w->batch.n_draft > 0)
            continue;
        d->wanting[n] = w;
        d->items[n] = (struct drafter_item){.id = w->id,
                                             .owner = reuse_owner(w->batch.item.tenant),
                                             .n_public = w->n_public,
                                             .tokens = w->tokens,
                                             .n_tokens = w->batch.n_tokens};
        d->items[n].n_max = draft_length(d, w, DRAFT_BY_MODEL, cost * (double)n_sampled, share(left, i, n_sampled));
        left -= d->items[n].n_max;
        n += d->items[n].n_max > 0;
    }
    drafter_run(d->model->drafter, d->items, n);
    for (uint32_t i = 0; i < n; i++) {
        struct work *w = d->wanting[i];

        w->batch.n_draft = d->items[i].n;
        w->draft_source = DRAFT_BY_MODEL;
        w->draft_ns += d->items[i].cost_ns;
        fair_charge(batch_fair(b), w->batch.item.tenant, d->items[i].cost_ns);
    }
}

/*
 * What those may go on with that have a new token. The ends of others are over, so the batch says who is left. A step
 * brings each of them a token, and a longer one takes all of them longer: so a token of a draft costs as many times as
 * there are sequences.
 */
void drafts_make(struct drafts *d, struct batch *b, struct work *const *sampled, size_t n_sampled)
{
    double cost = batch_draft_cost(b) * (double)n_sampled;
    uint32_t left = batch_drafts_max(b);

    for (size_t i = 0; i < n_sampled && left > 0; i++) {
        struct work *w = sampled[i];
        uint32_t n_max = share(left, i, n_sampled);

        w->draft_source = DRAFT_BY_FORM;
        w->batch.n_draft = work_guess(w, draft_length(d, w, DRAFT_BY_FORM, cost, n_max));
        if (w->batch.n_draft == 0) {
            w->draft_source = DRAFT_BY_TEXT;
            w->batch.n_draft = speculate_lookup(w->tokens, w->batch.n_tokens,
                                                draft_length(d, w, DRAFT_BY_TEXT, cost, n_max));
        }
        left -= w->batch.n_draft;
    }
    if (d->model->drafter && left > 0)
        draft_by_model(d, b, sampled, n_sampled, left);
}

void drafts_learn(struct work *w, uint32_t n_drafted, uint32_t n_right)
{
    /* A source that had nothing to say in this step hears of one without a draft. */
    for (unsigned i = 0; i < DRAFT_SOURCE_MAX; i++)
        speculate_learn(&w->speculation[i], i == w->draft_source ? n_drafted : 0, i == w->draft_source ? n_right : 0);
}
