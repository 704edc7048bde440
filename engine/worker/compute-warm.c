/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Public prefixes are computed before anybody asks: after loading, and after a RESET, as long as nobody wants anything
 * else. So the first user waits for one of them no longer than the second. It is done in slices, each a sequence of its
 * own that begins with what the slices before it left, so nothing is held in between, and a request that comes waits
 * for one slice at most. First without adapters, then with each of them, then by the draft model.
 *
 * Pages that others keep are not taken for it, and what is lost later, because somebody needed the pages, is left to
 * the next request that computes it.
 */
#include "engine/worker/compute-internal.h"

#include "base/fault.h"
#include "engine/engine-prefix.h"
#include "engine/worker/clock.h"
#include "engine/worker/draft.h"
#include "engine/worker/public.h"
#include "engine/worker/reuse.h"

/* Before it is known how long a token takes. */
#define SLICE_TOKENS_FIRST 64
/* About as long as a slice of a prompt that others wait for. */
#define SLICE_NS_MAX UINT64_C(250000000)

/* What is computed for whom. */
struct warming {
    const struct public_prefix *prefix;
    uint32_t adapter; /* 0: none */
    struct drafter *drafter; /* NULL: by the model */
};

static size_t n_warmings(const struct model *m)
{
    return (1 + m->config.n_adapters + (m->drafter ? 1 : 0)) * m->n_public_prefixes;
}

static struct warming warming_of(const struct model *m, size_t i)
{
    size_t of = i / m->n_public_prefixes;
    bool is_drafter = of > m->config.n_adapters;

    return (struct warming){.prefix = &m->public_prefixes[i % m->n_public_prefixes],
                            .adapter = is_drafter ? 0 : (uint32_t)of,
                            .drafter = is_drafter ? m->drafter : NULL};
}

static uint32_t found(const struct compute *c, const struct warming *w, uint32_t n)
{
    return w->drafter ? drafter_found_public(w->drafter, w->prefix->tokens, n)
                      : reuse_found_public(c->model->engine, w->adapter, w->prefix->tokens, n);
}

/* Feeds @n tokens behind the first @n_have, which are kept. Whether it was done. */
static bool feed(struct compute *c, const struct warming *w, uint32_t n_have, uint32_t n)
{
    const struct public_prefix *p = w->prefix;
    struct engine *e = c->model->engine;
    const struct engine_batch batch = {.n_tokens = n,
                                       .tokens = p->tokens + n_have,
                                       .sequences = c->sequences,
                                       .positions = c->positions,
                                       .wants_logits = c->wants_logits};
    const float *logits;
    struct fault fault;
    uint32_t sequence;
    bool done = false;

    fault_init(&fault, FAULT_NONE, NULL);
    if (engine_sequence_open(e, &sequence) != 0)
        return false;
    if (reuse_begin_public(e, sequence, w->adapter, p->tokens, n_have)) {
        for (uint32_t i = 0; i < n; i++) {
            c->sequences[i] = sequence;
            c->positions[i] = n_have + i;
            c->wants_logits[i] = 0;
        }
        done = engine_step(e, &batch, &logits, &fault) == 0;
        if (done)
            reuse_keep_public(e, sequence, p->tokens, n_have + n);
    }
    engine_sequence_close(e, sequence);
    return done;
}

/* The next slice of a prefix, of which the first @n_have tokens are kept and @n_left are not. */
static bool warm_slice(struct compute *c, const struct warming *w, uint32_t n_have, uint32_t n_left)
{
    uint32_t page_tokens = c->model->facts.page_tokens, n_max = c->model->facts.batch_tokens_max;
    uint32_t n = c->warm_tokens > 0 ? c->warm_tokens : SLICE_TOKENS_FIRST;
    uint64_t begin_ns = clock_now_ns(), ns;
    bool done;

    n = n < n_max ? n : n_max / page_tokens * page_tokens;
    n = n < n_left ? n : n_left;
    if (n == 0 || (!w->drafter && engine_pages_free(c->model->engine) < n / page_tokens))
        return false;
    link_step_begins(c->link, begin_ns);
    done = w->drafter ? drafter_read_public(w->drafter, w->prefix->tokens, n_have, n) : feed(c, w, n_have, n);
    link_step_ends(c->link);
    ns = clock_now_ns() - begin_ns;
    if (ns > SLICE_NS_MAX && n > page_tokens)
        c->warm_tokens = n / 2 / page_tokens * page_tokens;
    else if (ns < SLICE_NS_MAX / 2)
        c->warm_tokens = 2 * n;
    return done;
}

bool compute_warm(struct compute *c)
{
    uint32_t page_tokens = c->model->facts.page_tokens;

    for (; c->i_warm < n_warmings(c->model); c->i_warm++, c->n_warm = 0) {
        const struct warming w = warming_of(c->model, c->i_warm);
        uint32_t n = w.prefix->n_tokens / page_tokens * page_tokens, n_have = found(c, &w, n);

        /* A slice that left nothing would leave nothing the next time. */
        if (n_have >= n || (c->n_warm > 0 && n_have < c->n_warm))
            continue;
        c->n_warm = n_have + page_tokens;
        if (warm_slice(c, &w, n_have, n - n_have)) {
            c->tell_figures = true;
            return true;
        }
    }
    return false;
}
