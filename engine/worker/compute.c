/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The compute thread: takes commands, runs steps, tells those who wait where they stand (compute-internal.h).
 */
#include "engine/worker/compute.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/wipe.h"
#include "engine/engine-prefix.h"
#include "engine/engine-wipe.h"
#include "engine/sample/sampler.h"
#include "engine/worker/clock.h"
#include "engine/worker/compute-internal.h"
#include "engine/worker/draft.h"
#include "engine/worker/reuse.h"

/* More than this that the daemon has not read: no further steps until it has. */
#define BACKLOG_BYTES_MAX (UINT64_C(8) << 20)

/* Whoever has heard nothing for so long hears where it stands. */
#define REPORT_NS UINT64_C(2000000000)
/* A newcomer that has to wait hears it sooner. */
#define REPORT_NEW_NS UINT64_C(200000000)

/* ---- commands ---- */

static uint64_t pages_max(const struct compute *c, uint64_t kv_max_bytes)
{
    return kv_max_bytes > 0 ? kv_max_bytes / c->model->facts.bytes_kv_page : UINT64_MAX;
}

static void set_tenant(struct compute *c, const struct packet_tenant *p)
{
    struct fair_tenant *t;

    if (p->weight == 0) {
        t = fair_tenant_find(batch_fair(c->batch), p->tenant);
        if (t)
            reuse_forget(c->model, t);
        fair_forget(batch_fair(c->batch), p->tenant);
        return;
    }
    if (p->mark != 0)
        fair_rejoin(batch_fair(c->batch), p->tenant, p->mark);
    if (fair_tenant_set(batch_fair(c->batch), p->tenant, p->weight, p->tenant_class, p->class_weight, &t) < 0)
        compute_out_of_memory(c);
    t->mark = p->mark;
    t->pages_max = pages_max(c, p->kv_max_bytes);
}

/* A tenant's room for keys and values bounds its answer; a prompt that is longer is refused. */
static bool fits_tenant(struct compute *c, struct work *w, struct fault *reterr)
{
    const struct fair_tenant *t = w->batch.item.tenant;
    uint32_t page_tokens = c->model->facts.page_tokens;
    uint64_t tokens_max;

    if (t->pages_max >= c->model->facts.pages_total)
        return true;
    tokens_max = t->pages_max * page_tokens;
    if (w->n_prompt + UINT64_C(1) > tokens_max) {
        fault_init(reterr, FAULT_QUOTA_EXCEEDED, "kv");
        reterr->limit = (int64_t)(t->pages_max * c->model->facts.bytes_kv_page);
        reterr->used = (int64_t)((w->n_prompt / page_tokens + 1) * c->model->facts.bytes_kv_page);
        return false;
    }
    if (w->n_output_max > tokens_max - w->n_prompt)
        w->n_output_max = (uint32_t)(tokens_max - w->n_prompt);
    return true;
}

static void take_work(struct compute *c, struct command *command)
{
    struct work *w = TAKE_PTR(command->work);
    uint64_t now_ns = clock_now_ns();
    struct fault fault;

    if (command->epoch != c->epoch) {
        work_free(w);
        return;
    }
    if (compute_find(c, w->id)) {
        log_line(c->log, LOG_ERR, NULL, "worker ends: the daemon used a request's number twice");
        link_finish(c->link, EXIT_FAILURE);
    }
    if (batch_submit(c->batch, &w->batch, w->tenant, w->priority, w->batch.n_tokens, now_ns) < 0)
        compute_out_of_memory(c);
    w->batch.n_more_max = w->n_output_max;
    c->has_unmarked |= w->batch.item.tenant->mark == 0;
    compute_put_in(c, w);
    c->n_new_untold++;
    /* What the helper spent on it counts like a step. */
    fair_charge(batch_fair(c->batch), w->batch.item.tenant, command->cost_ns);
    if (!fits_tenant(c, w, &fault))
        compute_end_failed(c, w, &fault);
}

static void pause_or_resume(struct compute *c, uint64_t request,
                            void (*change)(struct batch *, struct batch_request *))
{
    struct work *w = request != 0 ? compute_find(c, request) : c->works;

    for (; w; w = request != 0 ? NULL : w->next)
        change(c->batch, &w->batch);
}

static void trim(struct compute *c, uint64_t bytes)
{
    uint64_t page_bytes = c->model->facts.bytes_kv_page, n_pages = bytes / page_bytes + (bytes % page_bytes > 0);
    struct engine *e = c->model->engine;
    struct batch_request *r;

    n_pages += engine_pages_free(e);
    if (n_pages > c->model->facts.pages_total)
        n_pages = c->model->facts.pages_total;
    reuse_trim(c->model, (uint32_t)n_pages);
    while (engine_pages_free(e) < n_pages && (r = batch_trim(c->batch, c->model->facts.pages_total))) {
        compute_close_sequence(c, compute_work_of(r));
        reuse_trim(c->model, (uint32_t)n_pages);
    }
}

static void reset(struct compute *c, uint64_t epoch)
{
    uint64_t now_ns = clock_now_ns();

    while (c->works) {
        const struct packet_done done = compute_describe(c->works, DONE_CANCELLED, now_ns);

        used_note(&c->used, c->works, &done, now_ns);
        compute_take_out(c, c->works, now_ns);
    }
    c->epoch = epoch;
    used_tell(&c->used, c->link, epoch, now_ns);
    /* Tenants are numbers of the daemon that gave them, and mean others from now on. What is kept of them, what they
     * have used and what they are due stays under their marks; of those without one nothing may. */
    if (c->batch) {
        if (c->has_unmarked)
            reuse_trim(c->model, c->model->facts.pages_total);
        c->has_unmarked = false;
        c->i_warm = c->n_warm = 0;
        fair_part_all(batch_fair(c->batch));
    }
}

static void charge_spent(struct compute *c, const struct packet_spent *p)
{
    struct fair_tenant *t = fair_tenant_find(batch_fair(c->batch), p->tenant);

    if (t && t->n_items > 0)
        fair_charge(batch_fair(c->batch), t, p->cost_ns);
}

static void set_threads(struct compute *c, uint32_t n)
{
    int r;

    c->n_threads = n;
    if (!c->model)
        return;
    r = engine_threads_set(c->model->engine, n);
    if (r == 0 && c->model->drafter)
        r = drafter_threads_set(c->model->drafter, n);
    if (r < 0)
        log_line(c->log, LOG_WARNING, NULL, "could not use %u threads: %s", n, strerrordesc_np(-r));
}

static void obey(struct compute *c, struct command *command)
{
    struct work *w;

    if (command->kind != COMMAND_RESET && command->kind != COMMAND_WORK)
        c->epoch = command->epoch;
    /* Without a model (drained before one came) the rest has no meaning. */
    if (!c->model && command->kind != COMMAND_MODEL && command->kind != COMMAND_THREADS &&
        command->kind != COMMAND_DRAIN && command->kind != COMMAND_RESET)
        return;
    switch (command->kind) {
    case COMMAND_MODEL:
        compute_load(c, command);
        break;
    case COMMAND_WORK:
        take_work(c, command);
        break;
    case COMMAND_CANCEL:
        w = compute_find(c, command->request);
        if (w)
            compute_end_done(c, w, DONE_CANCELLED, clock_now_ns());
        break;
    case COMMAND_PAUSE:
        pause_or_resume(c, command->request, batch_pause);
        break;
    case COMMAND_RESUME:
        pause_or_resume(c, command->request, batch_resume);
        break;
    case COMMAND_TENANT:
        set_tenant(c, &command->tenant);
        break;
    case COMMAND_SPENT:
        charge_spent(c, &command->spent);
        break;
    case COMMAND_THREADS:
        set_threads(c, command->n_threads);
        break;
    case COMMAND_TRIM:
        trim(c, command->bytes);
        break;
    case COMMAND_DRAIN:
        c->draining = true;
        c->drain_deadline_ns = command->deadline_ns;
        break;
    case COMMAND_RESET:
        reset(c, command->epoch);
        break;
    }
}

/* ---- news for those who wait ---- */

static void tell(struct compute *c, struct work *w, int32_t position, int64_t eta_ms, uint64_t now_ns)
{
    emit_piece_begin(&c->emit, w->id);
    if (emit_piece_end(&c->emit, NULL, w->n_output, position, eta_ms) < 0)
        compute_out_of_memory(c);
    w->told_ns = now_ns;
}

struct packet_step compute_figures(struct compute *c)
{
    c->tell_figures = true;
    return (struct packet_step){
        .n_steps = link_n_steps(c->link),
        .n_running = batch_n_active(c->batch),
        .n_waiting = (uint32_t)batch_n_idle(c->batch),
        .pages_used = batch_pages_used(c->batch),
        .pages_total = c->model->facts.pages_total,
        .pages_kept = c->pages_kept,
    };
}

static void report(struct compute *c, uint64_t now_ns)
{
    size_t n_new = batch_n_new(c->batch), n = 0;
    uint64_t due_ns = c->n_new_untold > 0 && n_new > 0 ? REPORT_NEW_NS : REPORT_NS;

    if (c->n_works == 0 || now_ns - c->reported_ns < due_ns)
        return;
    c->reported_ns = now_ns;
    c->n_new_untold = 0;
    if (n_new > c->order_allocated) {
        struct batch_position *grown = reallocarray(c->order, n_new + n_new / 2, sizeof(*grown));

        if (!grown)
            compute_out_of_memory(c);
        c->order = grown;
        c->order_allocated = n_new + n_new / 2;
    }
    if (n_new > 0)
        n = batch_positions(c->batch, c->order);
    for (size_t i = 0; i < n; i++) {
        struct work *w = compute_work_of(c->order[i].request);

        if (w->told_ns == 0 || now_ns - w->told_ns >= REPORT_NS)
            tell(c, w, (int32_t)c->order[i].position, c->order[i].eta_ms, now_ns);
    }
    for (struct work *w = c->works; w; w = w->next)
        if (w->batch.started && now_ns - w->told_ns >= REPORT_NS)
            tell(c, w, STEP_NOT_WAITING, STEP_ETA_UNKNOWN, now_ns);
    c->pages_kept = engine_prefix_pages(c->model->engine);
    emit_step(&c->emit, c->epoch, compute_figures(c));
}

/* Once there is nothing left to do: what the last request held is free, or kept. */
static void tell_idle(struct compute *c)
{
    if (!c->tell_figures || c->n_works > 0)
        return;
    c->pages_kept = engine_prefix_pages(c->model->engine);
    emit_figures(&c->emit, c->epoch, compute_figures(c));
    c->tell_figures = false;
}

/* ---- the loop ---- */

static void deadlines(struct compute *c, uint64_t now_ns)
{
    struct work *w;

    while ((w = heap_top(&c->deadlines)) && w->deadline_ns <= now_ns) {
        if (work_flush(w, &c->emit) < 0)
            compute_out_of_memory(c);
        emit_step(&c->emit, c->epoch, compute_figures(c));
        compute_end_done(c, w, DONE_DEADLINE, now_ns);
    }
}

static void drain(struct compute *c, uint64_t now_ns)
{
    if (c->drain_deadline_ns > 0 && now_ns >= c->drain_deadline_ns)
        while (c->works) {
            struct fault fault;

            fault_init(&fault, FAULT_SHUTTING_DOWN, NULL);
            compute_end_failed(c, c->works, &fault);
        }
    if (!c->works && intake_is_empty(c->intake))
        link_finish(c->link, EXIT_SUCCESS);
}

static uint64_t next_event(const struct compute *c, uint64_t now_ns)
{
    const struct work *w = heap_top(&c->deadlines);
    uint64_t at_ns = now_ns + (c->n_works > 0 ? REPORT_NEW_NS : UINT64_C(3600000000000));

    if (w && w->deadline_ns < at_ns)
        at_ns = w->deadline_ns;
    if (c->draining && c->drain_deadline_ns > 0 && c->drain_deadline_ns < at_ns)
        at_ns = c->drain_deadline_ns;
    return at_ns;
}

/* Of a request that has ended nothing stays until others' steps have overwritten it: there may be none for hours. */
static void wipe_traces(struct compute *c)
{
    if (!c->has_traces)
        return;
    engine_wipe(c->model->engine);
    if (c->model->drafter)
        drafter_wipe(c->model->drafter);
    sampler_workspace_wipe(c->workspace);
    c->has_traces = false;
}

/* What has come, then a step. Returns until when nothing is to be done; 0: go on. Its frame is below the one that
 * wipes, which is why it may not be inlined. */
__attribute__((noinline)) static uint64_t take_turn(struct compute *c, uint64_t until_ns)
{
    bool parked, ran = false;
    struct command *list = intake_take(c->intake, until_ns, &parked);
    uint64_t now_ns;

    while (list) {
        struct command *command = list;

        list = command->next;
        obey(c, command);
        command_free(command);
    }
    now_ns = clock_now_ns();
    deadlines(c, now_ns);
    if (c->draining)
        drain(c, now_ns);
    /* Nobody may be there to read; or somebody does not read: then text waits here, where it costs
     * nothing. */
    if (c->model && !parked && link_backlog(c->link) <= BACKLOG_BYTES_MAX) {
        ran = compute_step(c) || compute_warm(c);
        report(c, clock_now_ns());
        if (!ran)
            tell_idle(c);
    }
    return ran ? 0 : next_event(c, clock_now_ns());
}

_Noreturn void compute_run(struct link *l, struct intake *in, struct engine_devices *devices, const struct log *log)
{
    struct compute c = {.link = l, .intake = in, .devices = devices, .log = log};
    uint64_t until_ns;

    emit_init(&c.emit, l);
    if (compute_table_init(&c) < 0)
        compute_out_of_memory(&c);
    until_ns = next_event(&c, clock_now_ns());
    for (;;) {
        until_ns = take_turn(&c, until_ns);
        wipe_traces(&c);
        wipe_stack();
    }
}
