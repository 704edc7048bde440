/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/draft.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "engine/engine-prefix.h"
#include "engine/engine-wipe.h"
#include "engine/token/tokenizer.h"
#include "engine/worker/clock.h"
#include "engine/worker/config.h"
#include "engine/worker/model.h"
#include "engine/worker/reuse.h"

/* Of prompts, a call: somebody waits for it. */
#define CATCH_UP_TOKENS 256
/* Calls without a draft after which what a token takes has fallen to a third. */
#define FORGET 256

/* A sequence of the model that is followed. */
struct follower {
    uint64_t id;       /* 0: nobody's */
    uint32_t sequence; /* if id is not 0 */
    uint64_t used;     /* the call in which it was last asked */
};

struct drafter {
    struct engine *engine;
    struct engine_facts facts;
    uint32_t sequences, n_vocab; /* n_vocab: of tokens that both models have */
    struct follower *followers;  /* [sequences] */
    uint64_t n_calls;
    double token_ns;

    /* Of one step, [facts.batch_tokens_max] each. */
    int32_t *tokens;
    uint32_t *in, *positions, n;
    uint8_t *wants_logits;
    /* Of the running call, [sequences]: the items that go on, and the sequences in which they do. */
    struct drafter_item **going;
    uint32_t *forks;
};

static int engine_config_of(const struct config *c, uint32_t context_tokens, const int *fds, size_t n_fds,
                            struct engine_config *ret, struct fault *reterr)
{
    uint32_t batch_tokens = 2 * c->sequences > CATCH_UP_TOKENS ? 2 * c->sequences : CATCH_UP_TOKENS;

    *ret = (struct engine_config){
        .fds = fds,
        .n_fds = n_fds,
        .context_tokens = context_tokens,
        .sequences_max = 2 * c->sequences,
        /* A fork has a page of its own, and the one that its draft runs into. */
        .kv_tokens = ((uint64_t)context_tokens + 3 * ENGINE_PAGE_TOKENS) * c->sequences,
        .k_type = c->k_type,
        .v_type = c->v_type,
        .batch_tokens_max = batch_tokens,
        .outputs_max = c->sequences,
        .n_threads = c->n_threads,
        .lock = c->lock,
        .populate = c->populate,
        .touch = c->populate && c->touch,
        .small_pages = c->small_pages,
    };
    return model_isa_limit(&ret->isa_mask, reterr);
}

/* The same number has to mean the same text in both; one vocabulary may have more at its end (padding). */
static int compare_vocabularies(const struct drafter *d, const struct tokenizer *tokenizer, struct fault *reterr)
{
    struct tokenizer *own = NULL;
    int r = tokenizer_new(engine_gguf(d->engine), &own, reterr);
    uint32_t n;

    if (r == -ENOENT) {
        fault_model_invalid(reterr, FAULT_NO_OFFSET, "the draft model has no vocabulary");
        return -EINVAL;
    }
    if (r < 0)
        return r;
    n = tokenizer_n_vocab(own) < tokenizer_n_vocab(tokenizer) ? tokenizer_n_vocab(own) : tokenizer_n_vocab(tokenizer);
    for (uint32_t i = 0; i < n && r == 0; i++) {
        size_t n_a, n_b;
        const char *a = tokenizer_token_text(own, (int32_t)i, &n_a);
        const char *b = tokenizer_token_text(tokenizer, (int32_t)i, &n_b);

        if (n_a == n_b && memcmp(a, b, n_a) == 0)
            continue;
        fault_model_invalid(reterr, FAULT_NO_OFFSET, "the draft model has another vocabulary: token %u differs", i);
        r = -EINVAL;
    }
    tokenizer_free(own);
    return r;
}

static int make_arrays(struct drafter *d)
{
    uint32_t n = d->facts.batch_tokens_max;

    d->followers = calloc(d->sequences, sizeof(*d->followers));
    d->going = calloc(d->sequences, sizeof(struct drafter_item *));
    d->forks = calloc(d->sequences, sizeof(*d->forks));
    d->tokens = calloc(n, sizeof(*d->tokens));
    d->in = calloc(n, sizeof(*d->in));
    d->positions = calloc(n, sizeof(*d->positions));
    d->wants_logits = calloc(n, 1);
    return d->followers && d->going && d->forks && d->tokens && d->in && d->positions && d->wants_logits ? 0 : -ENOMEM;
}

int drafter_new(const int *fds, size_t n_fds, const struct config *c, const struct engine_facts *of,
                const struct tokenizer *tokenizer, struct drafter **ret, struct fault *reterr)
{
    _cleanup_(drafter_freep) struct drafter *d = calloc(1, sizeof(*d));
    struct engine_config config;
    int r;

    if (!d)
        return -ENOMEM;
    d->sequences = c->sequences;
    r = engine_config_of(c, of->context_tokens, fds, n_fds, &config, reterr);
    if (r == 0)
        r = engine_open(&config, &d->engine, reterr);
    if (r < 0)
        return r;
    engine_facts(d->engine, &d->facts);
    d->n_vocab = d->facts.n_vocab < of->n_vocab ? d->facts.n_vocab : of->n_vocab;
    if (d->facts.is_encoder) {
        fault_model_invalid(reterr, FAULT_NO_OFFSET, "the draft model makes embeddings and no text");
        return -EINVAL;
    }
    if (tokenizer) {
        r = compare_vocabularies(d, tokenizer, reterr);
        if (r < 0)
            return r;
    }
    r = make_arrays(d);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(d);
    return 0;
}

struct drafter *drafter_free(struct drafter *d)
{
    if (!d)
        return NULL;
    engine_free(d->engine);
    free(d->followers);
    free(d->going);
    free(d->forks);
    free(d->tokens);
    free(d->in);
    free(d->positions);
    free(d->wants_logits);
    free(d);
    return NULL;
}

int drafter_measure(const int *fds, size_t n_fds, const struct config *c, struct engine_shape *into,
                    struct fault *reterr)
{
    uint32_t context_tokens = into->context_trained_tokens;
    struct engine_config config;
    struct engine_shape shape;
    int r;

    if (c->context_tokens > 0 && c->context_tokens < context_tokens)
        context_tokens = c->context_tokens;
    r = engine_config_of(c, context_tokens, fds, n_fds, &config, reterr);
    if (r == 0)
        r = engine_shape(&config, &shape, reterr);
    if (r < 0)
        return r;
    into->file_bytes += shape.file_bytes;
    into->other_bytes += engine_shape_kv_bytes(&shape, &config) + shape.scratch_bytes;
    into->other_bytes += model_process_bytes(shape.n_vocab);
    into->other_thread_bytes += shape.thread_scratch_bytes;
    engine_shape_done(&shape);
    return 0;
}

void drafter_facts(const struct drafter *d, struct engine_facts *ret)
{
    engine_facts(d->engine, ret);
}

int drafter_threads_set(struct drafter *d, uint32_t n)
{
    return engine_threads_set(d->engine, n);
}

double drafter_token_ns(const struct drafter *d)
{
    return d->token_ns;
}

static void unfollow(struct drafter *d, struct follower *f)
{
    if (f->id != 0)
        engine_sequence_close(d->engine, f->sequence);
    f->id = 0;
}

void drafter_limit(struct drafter *d, uint64_t owner, uint32_t n_pages)
{
    engine_prefix_limit(d->engine, owner, n_pages);
}

void drafter_trim(struct drafter *d)
{
    engine_prefix_trim(d->engine, d->facts.pages_total);
}

void drafter_wipe(struct drafter *d)
{
    engine_wipe(d->engine);
}

void drafter_forget(struct drafter *d, uint64_t id)
{
    for (uint32_t i = 0; i < d->sequences; i++)
        if (d->followers[i].id == id)
            unfollow(d, &d->followers[i]);
}

/* The follower of an item: its own, or the one that was not asked for longest, with what is kept of its prompt. */
static struct follower *follow(struct drafter *d, const struct drafter_item *item)
{
    struct follower *found = &d->followers[0];
    uint32_t n_kept;

    for (uint32_t i = 0; i < d->sequences; i++) {
        struct follower *f = &d->followers[i];

        if (f->id == item->id) {
            f->used = d->n_calls;
            return f;
        }
        if (f->used < found->used)
            found = f;
    }
    /* All are of this call: more items than there are sequences. */
    if (found->used == d->n_calls)
        return NULL;
    unfollow(d, found);
    if (engine_sequence_open(d->engine, &found->sequence) != 0)
        return NULL;
    /* The last token is read in any case: what comes behind it is wanted. */
    (void)engine_prefix_begin(d->engine, found->sequence, item->owner, item->tokens, item->n_tokens - 1, &n_kept);
    found->id = item->id;
    found->used = d->n_calls;
    return found;
}

static void add_token(struct drafter *d, int32_t token, uint32_t sequence, uint32_t position, bool wants_logits)
{
    d->tokens[d->n] = token;
    d->in[d->n] = sequence;
    d->positions[d->n] = position;
    d->wants_logits[d->n++] = wants_logits;
}

/* Feeds what was added. Returns the logits of those that wanted any; NULL: none did, or it failed. */
static bool step(struct drafter *d, const float **ret_logits)
{
    const struct engine_batch batch = {.n_tokens = d->n,
                                       .tokens = d->tokens,
                                       .sequences = d->in,
                                       .positions = d->positions,
                                       .wants_logits = d->wants_logits,
                                       /* The likeliest of those that both models have. */
                                       .n_top = d->n_vocab == d->facts.n_vocab};
    bool done = d->n == 0 || engine_step(d->engine, &batch, ret_logits, NULL) == 0;

    explicit_bzero(d->tokens, d->n * sizeof(*d->tokens));
    d->n = 0;
    return done;
}

/* Adds what the follower does not know yet, as far as there is room. Whether that is all. */
static bool catch_up(struct drafter *d, const struct drafter_item *item, uint32_t sequence)
{
    uint32_t from = engine_sequence_length(d->engine, sequence), to = item->n_tokens;
    uint32_t room = d->facts.batch_tokens_max - d->n;

    if (from >= to || item->n_max == 0 || item->n_tokens + item->n_max > d->facts.context_tokens)
        return false;
    for (uint32_t i = from; i < to; i++)
        if ((uint32_t)item->tokens[i] >= d->n_vocab)
            return false;
    if (to - from > room)
        to = from + room;
    for (uint32_t i = from; i < to; i++)
        add_token(d, item->tokens[i], sequence, i, i + 1 == item->n_tokens);
    return to == item->n_tokens;
}

static int32_t likeliest(const float *logits, uint32_t n)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return (int32_t)best;
}

/* What row @i of the last step says. */
static int32_t token_of(const struct drafter *d, const float *logits, uint32_t i)
{
    const struct engine_top *top = engine_top(d->engine);

    return top ? (int32_t)top->ids[i * top->n] : likeliest(logits + (size_t)i * d->facts.n_vocab, d->n_vocab);
}

/* Each item that goes on gets the token that its row says; those that want no more leave. Returns how many stay. */
static uint32_t take_tokens(struct drafter *d, const float *logits, uint32_t n_going)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < n_going; i++) {
        struct drafter_item *item = d->going[i];

        item->tokens[item->n_tokens + item->n++] = token_of(d, logits, i);
        if (item->n == item->n_max) {
            engine_sequence_close(d->engine, d->forks[i]);
            continue;
        }
        d->going[n] = item;
        d->forks[n++] = d->forks[i];
    }
    return n;
}

/* A fork for each item that goes on; there are as many as sequences, so it fails at most for want of pages. */
static bool fork_all(struct drafter *d, uint32_t n_going)
{
    for (uint32_t i = 0; i < n_going; i++) {
        uint32_t from = d->forks[i];

        if (engine_sequence_fork(d->engine, from, d->going[i]->n_tokens, &d->forks[i]) == 0)
            continue;
        while (i-- > 0)
            engine_sequence_close(d->engine, d->forks[i]);
        return false;
    }
    return true;
}

/* What the followers have read can be found from now on. */
static void keep_read(struct drafter *d, const struct drafter_item *items, uint32_t n_items)
{
    for (uint32_t i = 0; i < n_items; i++)
        for (uint32_t k = 0; k < d->sequences; k++)
            if (d->followers[k].id == items[i].id)
                (void)engine_prefix_keep(d->engine, d->followers[k].sequence, items[i].tokens, items[i].n_public);
}

static void draft(struct drafter *d, struct drafter_item *items, uint32_t n_items)
{
    const float *logits = NULL;
    uint32_t n_going = 0;

    for (uint32_t i = 0; i < n_items; i++) {
        struct follower *f = follow(d, &items[i]);

        if (f && catch_up(d, &items[i], f->sequence)) {
            d->going[n_going] = &items[i];
            d->forks[n_going++] = f->sequence;
        }
    }
    if (!step(d, &logits))
        return;
    keep_read(d, items, n_items);
    if (n_going == 0 || !fork_all(d, n_going))
        return;
    for (;;) {
        n_going = take_tokens(d, logits, n_going);
        if (n_going == 0)
            return;
        for (uint32_t i = 0; i < n_going; i++) {
            const struct drafter_item *item = d->going[i];
            uint32_t at = item->n_tokens + item->n - 1;

            add_token(d, item->tokens[at], d->forks[i], at, true);
        }
        if (!step(d, &logits))
            break;
    }
    while (n_going-- > 0)
        engine_sequence_close(d->engine, d->forks[n_going]);
}

uint32_t drafter_found_public(const struct drafter *d, const int32_t *tokens, uint32_t n_tokens)
{
    return reuse_found_public(d->engine, /* adapter= */ 0, tokens, n_tokens);
}

bool drafter_read_public(struct drafter *d, const int32_t *tokens, uint32_t n_have, uint32_t n)
{
    const float *logits;
    uint32_t sequence;
    bool done = false;

    n = n < d->facts.batch_tokens_max ? n : d->facts.batch_tokens_max / ENGINE_PAGE_TOKENS * ENGINE_PAGE_TOKENS;
    for (uint32_t i = 0; i < n; i++)
        if ((uint32_t)tokens[n_have + i] >= d->n_vocab)
            return false;
    if (n == 0 || n_have + n > d->facts.context_tokens || engine_pages_free(d->engine) < n / ENGINE_PAGE_TOKENS ||
        engine_sequence_open(d->engine, &sequence) != 0)
        return false;
    if (reuse_begin_public(d->engine, sequence, /* adapter= */ 0, tokens, n_have)) {
        for (uint32_t i = 0; i < n; i++)
            add_token(d, tokens[n_have + i], sequence, n_have + i, false);
        done = step(d, &logits);
        if (done)
            reuse_keep_public(d->engine, sequence, tokens, n_have + n);
    }
    engine_sequence_close(d->engine, sequence);
    return done;
}

void drafter_run(struct drafter *d, struct drafter_item *items, uint32_t n_items)
{
    uint64_t begin_ns = clock_now_ns(), n_drafted = 0;
    double ns;

    if (n_items == 0) {
        /* What was measured long ago, perhaps while others had the machine, is forgotten: it is tried again. */
        d->token_ns -= d->token_ns / FORGET;
        return;
    }
    d->n_calls++;
    draft(d, items, n_items);
    ns = (double)(clock_now_ns() - begin_ns);
    for (uint32_t i = 0; i < n_items; i++) {
        n_drafted += items[i].n;
        items[i].cost_ns = (uint64_t)(ns / n_items);
    }
    if (n_drafted > 0)
        d->token_ns += (ns / (double)n_drafted - d->token_ns) / (d->token_ns > 0 ? 8 : 1);
}
