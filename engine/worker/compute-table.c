/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/compute-internal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/fault.h"
#include "engine/worker/clock.h"
#include "engine/worker/draft.h"
#include "engine/worker/embed.h"
#include "engine/worker/reuse.h"

_Noreturn void compute_out_of_memory(struct compute *c)
{
    log_line(c->log, LOG_ERR, NULL, "worker ends: out of memory");
    link_finish(c->link, EXIT_FAILURE);
}

static struct work **bucket_of(struct compute *c, uint64_t id)
{
    return &c->buckets[id % COMPUTE_BUCKETS];
}

struct work *compute_find(struct compute *c, uint64_t id)
{
    struct work *w = *bucket_of(c, id);

    while (w && w->id != id)
        w = w->next_in_bucket;
    return w;
}

static bool earlier(const void *a, const void *b)
{
    return ((const struct work *)a)->deadline_ns < ((const struct work *)b)->deadline_ns;
}

void compute_put_in(struct compute *c, struct work *w)
{
    struct work **bucket = bucket_of(c, w->id);

    w->next_in_bucket = *bucket;
    *bucket = w;
    w->next = c->works;
    if (c->works)
        c->works->prev = w;
    c->works = w;
    c->n_works++;
    if (w->deadline_ns > 0) {
        if (heap_reserve(&c->deadlines, c->deadlines.n + 1) < 0)
            compute_out_of_memory(c);
        heap_push(&c->deadlines, w);
    }
}

void compute_close_sequence(struct compute *c, struct work *w)
{
    if (w->has_sequence)
        engine_sequence_close(c->model->engine, w->sequence);
    c->has_traces |= w->has_sequence;
    w->has_sequence = false;
}

/* The work is over; its pages are free and it is forgotten. */
void compute_take_out(struct compute *c, struct work *w, uint64_t now_ns)
{
    struct work **at = bucket_of(c, w->id);

    while (*at != w)
        at = &(*at)->next_in_bucket;
    *at = w->next_in_bucket;
    if (w->prev)
        w->prev->next = w->next;
    else
        c->works = w->next;
    if (w->next)
        w->next->prev = w->prev;
    heap_remove(&c->deadlines, w);
    c->n_works--;
    compute_close_sequence(c, w);
    reuse_limit(c->model, w->batch.item.tenant);
    if (c->model->drafter)
        drafter_forget(c->model->drafter, w->id);
    batch_remove(c->batch, &w->batch, now_ns);
    work_free(w);
}

struct packet_done compute_describe(const struct work *w, enum done_finish finish, uint64_t now_ns)
{
    const struct embedding *e = w->embedding;
    uint64_t started_ns = w->batch.started ? w->batch.started_ns : now_ns;
    uint64_t first_ns = w->first_ns > 0 ? w->first_ns : now_ns;
    struct packet_done done = {
        .request = w->id,
        .finish = (uint32_t)finish,
        .prompt_tokens = e ? e->ends[e->n_inputs - 1] : w->n_prompt,
        .cached_tokens = w->n_cached,
        .output_tokens = w->n_output,
        .queue_ns = started_ns > w->received_ns ? started_ns - w->received_ns : 0,
        .prefill_ns = first_ns > started_ns ? first_ns - started_ns : 0,
        .decode_ns = now_ns - first_ns,
    };

    if (e && e->started_ns > 0) {
        /* The batch knows the last text's beginning only. */
        done.queue_ns = e->started_ns > w->received_ns ? e->started_ns - w->received_ns : 0;
        done.prefill_ns = first_ns - e->started_ns;
    }
    return done;
}

void compute_end_done(struct compute *c, struct work *w, enum done_finish finish, uint64_t now_ns)
{
    const struct packet_done done = compute_describe(w, finish, now_ns);
    const struct embedding *e = w->embedding;
    _cleanup_free_ char *vectors = NULL;

    used_note(&c->used, w, &done, now_ns);
    if (e && finish == DONE_STOP) {
        size_t n;

        vectors = embed_reply(e, &n);
        if (!vectors || emit_request_done_text(c->link, w->epoch, &done, vectors, n) < 0)
            compute_out_of_memory(c);
    } else if (emit_request_done(c->link, w->epoch, &done, NULL) < 0) {
        compute_out_of_memory(c);
    }
    compute_take_out(c, w, now_ns);
}

void compute_end_failed(struct compute *c, struct work *w, const struct fault *fault)
{
    uint64_t now_ns = clock_now_ns();
    const struct packet_done done = compute_describe(w, DONE_CANCELLED, now_ns);

    used_note(&c->used, w, &done, now_ns);
    emit_request_failed(c->link, w->epoch, w->id, fault);
    compute_take_out(c, w, now_ns);
}

int compute_table_init(struct compute *c)
{
    heap_init(&c->deadlines, earlier, offsetof(struct work, i_deadline));
    c->buckets = calloc(COMPUTE_BUCKETS, sizeof(*c->buckets));
    return c->buckets ? 0 : -ENOMEM;
}
