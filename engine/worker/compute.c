/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is true between two steps:
 *  1. each work is in the table, in the list and, if it has a deadline, in the heap; its batch request is in
 * the batch;
 *  2. a work has an engine sequence exactly as long as its batch request has pages, or had some before a plan
 * dropped them; the sequence is as long as n_fed;
 *  3. all works are of @epoch: a RESET ends those of an older one.
 *
 * Longer than other files: it is one struct and one thread, and what could be taken out of it is (prepare.c, drafts.c,
 * emit.c, intake.c, work.c).
 *
 * Memory is taken when a request comes. If it is short later on, in the middle of a step, the process ends:
 * there is no way to go on that would not leave one user's request half done for another's sake.
 */
#include "engine/worker/compute.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "engine/engine-prefix.h"
#include "engine/reply/reply.h"
#include "engine/sample/sampler.h"
#include "engine/token/tokenizer.h"
#include "engine/worker/clock.h"
#include "engine/worker/draft.h"
#include "engine/worker/drafts.h"
#include "engine/worker/embed.h"
#include "engine/worker/emit.h"
#include "engine/worker/facts.h"
#include "engine/worker/intake.h"
#include "engine/worker/link.h"
#include "engine/worker/model.h"
#include "engine/worker/prepare.h"
#include "engine/worker/public.h"
#include "engine/worker/reuse.h"
#include "engine/worker/shape.h"
#include "engine/worker/work.h"

#define N_BUCKETS 4096

/* More than this that the daemon has not read: no further steps until it has. */
#define BACKLOG_BYTES_MAX (UINT64_C(8) << 20)

/* Steps that others have to wait for, and those of somebody who is alone. */
#define STEP_NS_MAX       UINT64_C(250000000)
#define STEP_ALONE_NS_MAX UINT64_C(500000000)
/* A tenant that runs ahead by more is preempted for one that waits. */
#define QUANTUM_NS UINT64_C(500000000)

/* Whoever has heard nothing for so long hears where it stands. */
#define REPORT_NS UINT64_C(2000000000)
/* A newcomer that has to wait hears it sooner. */
#define REPORT_NEW_NS UINT64_C(200000000)

struct compute {
    struct link *link;
    struct intake *intake;
    const struct log *log;
    struct model *model; /* NULL until it is loaded */
    struct batch *batch;
    struct emit emit;
    struct sampler_workspace *workspace;

    /* One step's batch, [batch_tokens_max] each. */
    int32_t *tokens;
    uint32_t *sequences, *positions;
    uint8_t *wants_logits;
    struct work **sampled; /* [batch_tokens_max] those that go on */
    struct drafts *drafts;

    struct work **buckets; /* [N_BUCKETS] by id */
    struct work *works;
    struct heap deadlines;
    size_t n_works;
    uint64_t epoch;
    uint32_t n_threads; /* of THREADS before the model is there, 0: none came */

    struct batch_position *order; /* room for a report */
    size_t order_allocated;
    uint64_t reported_ns;
    size_t n_new_untold; /* came since then */

    bool draining;
    uint64_t drain_deadline_ns; /* 0: none */
};

static _Noreturn void out_of_memory(struct compute *c)
{
    log_line(c->log, LOG_ERR, NULL, "worker ends: out of memory");
    link_finish(c->link, EXIT_FAILURE);
}

/* ---- the table of works ---- */

static struct work *of_request(struct batch_request *r)
{
    return (struct work *)(void *)((char *)r - offsetof(struct work, batch));
}

static const struct work *of_const_request(const struct batch_request *r)
{
    return (const struct work *)(const void *)((const char *)r - offsetof(struct work, batch));
}

static struct work **bucket_of(struct compute *c, uint64_t id)
{
    return &c->buckets[id % N_BUCKETS];
}

static struct work *find(struct compute *c, uint64_t id)
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

static void put_in(struct compute *c, struct work *w)
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
            out_of_memory(c);
        heap_push(&c->deadlines, w);
    }
}

static void close_sequence(struct compute *c, struct work *w)
{
    if (w->has_sequence)
        engine_sequence_close(c->model->engine, w->sequence);
    w->has_sequence = false;
}

/* The work is over; its pages are free and it is forgotten. */
static void take_out(struct compute *c, struct work *w, uint64_t now_ns)
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
    close_sequence(c, w);
    reuse_limit(c->model->engine, w->batch.item.tenant);
    if (c->model->drafter)
        drafter_forget(c->model->drafter, w->id);
    batch_remove(c->batch, &w->batch, now_ns);
    work_free(w);
}

static void end_done(struct compute *c, struct work *w, enum done_finish finish, uint64_t now_ns)
{
    const struct embedding *e = w->embedding;
    uint64_t started_ns = w->batch.started ? w->batch.started_ns : now_ns;
    uint64_t first_ns = w->first_ns > 0 ? w->first_ns : now_ns;
    _cleanup_free_ char *vectors = NULL;
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
    if (e && finish == DONE_STOP) {
        size_t n;

        vectors = embed_reply(e, &n);
        if (!vectors || emit_request_done_text(c->link, w->epoch, &done, vectors, n) < 0)
            out_of_memory(c);
    } else if (emit_request_done(c->link, w->epoch, &done, NULL) < 0) {
        out_of_memory(c);
    }
    take_out(c, w, now_ns);
}

static void end_failed(struct compute *c, struct work *w, const struct fault *fault)
{
    emit_request_failed(c->link, w->epoch, w->id, fault);
    take_out(c, w, clock_now_ns());
}

/* ---- the helper thread ---- */

static void *help(void *userdata)
{
    struct compute *c = userdata;

    for (;;) {
        struct job *j = intake_next_job(c->intake);
        _cleanup_json_ json_object *reply = NULL;
        uint64_t request = j->submit.request, epoch = j->epoch, begin_ns = clock_now_ns();
        struct packet_done done = {.request = request, .finish = DONE_STOP};
        struct work *w = NULL;
        struct fault fault;
        int r, dropped;

        fault_init(&fault, FAULT_NONE, NULL);
        r = prepare(c->model, j, &w, &reply, &fault);
        if (r < 0 && (r == -ENOMEM || fault.kind == FAULT_NONE)) {
            fault_init(&fault, FAULT_INSUFFICIENT_MEMORY, "ram");
            fault.used = (int64_t)j->n_json;
        }
        if (r == 0 && !w) {
            done.queue_ns = begin_ns - j->received_ns;
            done.prefill_ns = clock_now_ns() - begin_ns;
        }
        dropped = intake_job_done(c->intake, j, clock_now_ns() - begin_ns, r == 0 ? w : NULL);
        if (dropped < 0)
            out_of_memory(c);
        if (dropped)
            continue;
        if (r == 0 && !w) {
            r = emit_request_done(c->link, epoch, &done, reply);
            if (r == -E2BIG)
                fault_set(&fault, FAULT_INVALID_PARAMETER, "text",
                          "the answer would be longer than a reply may be");
            else if (r < 0)
                out_of_memory(c);
        }
        if (r < 0)
            emit_request_failed(c->link, epoch, request, &fault);
    }
    return NULL;
}

/* ---- loading ---- */

static _Noreturn void fail_model(struct compute *c, struct fault *fault, int r)
{
    char text[512];

    if (fault->kind == FAULT_NONE)
        fault_set(fault, r == -ENOMEM ? FAULT_INSUFFICIENT_MEMORY : FAULT_MODEL_UNAVAILABLE,
                  r == -ENOMEM ? "ram" : "", "%s", strerrordesc_np(-r));
    log_line(c->log, LOG_ERR, NULL, "model not loaded: %s", fault_describe(fault, text, sizeof(text)));
    emit_request_failed(c->link, LINK_EPOCH_ANY, 0, fault);
    link_finish(c->link, EXIT_SUCCESS);
}

static int make_arrays(struct compute *c)
{
    uint32_t n = c->model->facts.batch_tokens_max;

    c->tokens = calloc(n, sizeof(*c->tokens));
    c->sequences = calloc(n, sizeof(*c->sequences));
    c->positions = calloc(n, sizeof(*c->positions));
    c->wants_logits = calloc(n, 1);
    c->sampled = calloc(n, sizeof(struct work *));
    if (!c->tokens || !c->sequences || !c->positions || !c->wants_logits || !c->sampled ||
        drafts_new(c->model, &c->drafts) < 0)
        return -ENOMEM;
    return sampler_workspace_new(c->model->facts.n_vocab, &c->workspace);
}

static uint32_t found(const struct batch_request *r, void *userdata)
{
    const struct compute *c = userdata;

    return reuse_found(c->model->engine, of_const_request(r));
}

static int make_batch(struct compute *c)
{
    const struct model *m = c->model;
    const struct batch_config config = {
        .sequences_max = m->config.sequences,
        .parked_max = m->parked_max,
        .step_tokens_max = m->facts.batch_tokens_max,
        .drafts_max = m->facts.is_encoder ? 0 : model_drafts_max(&m->config),
        .page_tokens = m->facts.page_tokens,
        .pages_total = m->facts.pages_total,
        .whole_prompts = m->facts.is_encoder,
        .step_ns_max = STEP_NS_MAX,
        .step_alone_ns_max = STEP_ALONE_NS_MAX,
        .quantum_ns = QUANTUM_NS,
        .found = found,
        .userdata = c,
    };

    return batch_new(&config, &c->batch);
}

static int start_helper(struct compute *c)
{
    pthread_attr_t attr;
    pthread_t thread;
    int r;

    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    r = pthread_create(&thread, &attr, help, c);
    pthread_attr_destroy(&attr);
    return -r;
}

static unsigned abilities_of(const struct model *m)
{
    unsigned abilities = m->tokenizer && m->pooling != EMBED_RANK ? FACTS_EMBED : 0;

    if (m->facts.is_encoder)
        return abilities;
    abilities |= FACTS_COMPLETE;
    if (!m->chat_template)
        return abilities;
    abilities |= FACTS_CHAT;
    if (m->reply_form != REPLY_PLAIN)
        abilities |= FACTS_TOOLS;
    if (m->thinks || m->reply_form == REPLY_HARMONY)
        abilities |= FACTS_REASONING;
    return abilities;
}

static int tell_loaded(struct compute *c)
{
    const struct packet_progress progress = {.bytes_done = c->model->facts.bytes_weights,
                                             .bytes_total = c->model->facts.bytes_weights};
    const struct packet_facts ready = {0};
    const struct model *m = c->model;
    struct engine_facts facts = m->facts, other;
    _cleanup_json_ json_object *o = NULL;
    const char *text;

    if (m->drafter) {
        drafter_facts(m->drafter, &other);
        facts.bytes_weights += other.bytes_weights;
        facts.bytes_locked += other.bytes_locked;
        facts.bytes_scratch += other.bytes_kv + other.bytes_scratch;
    }
    if (facts_to_json(&facts, m->config.sequences, m->tokenizer ? tokenizer_kind(m->tokenizer) : NULL,
                      abilities_of(m), &o) < 0)
        return -ENOMEM;
    text = json_text(o);
    if (!text || link_set_facts(c->link, text, strlen(text)) < 0)
        return -ENOMEM;
    link_send(c->link, LINK_EPOCH_ANY, PACKET_PROGRESS, &progress, sizeof(progress), NULL, 0);
    link_send(c->link, LINK_EPOCH_ANY, PACKET_READY, &ready, sizeof(ready), text, strlen(text));
    return 0;
}

/* Only says what the model would take; the daemon ends the link when it has heard that. */
static void measure(struct compute *c, const struct command *command, const struct config *config)
{
    _cleanup_json_ json_object *o = NULL;
    struct engine_shape shape;
    struct fault fault;
    const char *text;
    int r;

    fault_init(&fault, FAULT_NONE, NULL);
    r = model_measure(command->model.fds, command->model.n_fds, config, &shape, &fault);
    if (r < 0)
        fail_model(c, &fault, r);
    r = shape_to_json(&shape, model_open_max, config->bandwidth ? engine_memory_gbps(config->n_threads) : 0, &o);
    engine_shape_done(&shape);
    text = r == 0 ? json_text(o) : NULL;
    if (!text || link_set_facts(c->link, text, strlen(text)) < 0)
        out_of_memory(c);
}

static void load(struct compute *c, struct command *command)
{
    struct config config;
    struct fault fault;
    int r;

    fault_init(&fault, FAULT_NONE, NULL);
    r = config_parse(command->model.json, command->model.n_json, &config, &fault);
    if (r == 0) {
        if (c->n_threads > 0)
            config.n_threads = c->n_threads;
        if (config.measure) {
            measure(c, command, &config);
            config_done(&config);
            return;
        }
        r = model_load(command->model.fds, command->model.n_fds, &config, &c->model, &fault);
    }
    if (r < 0)
        fail_model(c, &fault, r);
    /* The mappings stay; whoever breaks in here later finds no file. */
    for (size_t i = 0; i < command->model.n_fds; i++)
        close(command->model.fds[i]);
    command->model.n_fds = 0;
    r = public_make(c->model, c->log);
    if (r == 0)
        r = make_arrays(c);
    if (r == 0)
        r = make_batch(c);
    if (r == 0)
        r = start_helper(c);
    if (r < 0)
        fail_model(c, &fault, r);
    if (tell_loaded(c) < 0)
        out_of_memory(c);
}

/* ---- commands ---- */

static uint64_t pages_max(const struct compute *c, uint64_t kv_max_bytes)
{
    return kv_max_bytes > 0 ? kv_max_bytes / c->model->facts.bytes_kv_page : UINT64_MAX;
}

static void set_tenant(struct compute *c, const struct packet_tenant *p)
{
    struct fair_tenant *t;

    if (p->weight == 0) {
        fair_forget(batch_fair(c->batch), p->tenant);
        reuse_forget(c->model->engine, p->tenant);
        return;
    }
    if (fair_tenant_set(batch_fair(c->batch), p->tenant, p->weight, p->tenant_class, p->class_weight, &t) < 0)
        out_of_memory(c);
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
    if (find(c, w->id)) {
        log_line(c->log, LOG_ERR, NULL, "worker ends: the daemon used a request's number twice");
        link_finish(c->link, EXIT_FAILURE);
    }
    if (batch_submit(c->batch, &w->batch, w->tenant, w->priority, w->batch.n_tokens, now_ns) < 0)
        out_of_memory(c);
    w->batch.n_more_max = w->n_output_max;
    put_in(c, w);
    c->n_new_untold++;
    /* What the helper spent on it counts like a step. */
    fair_charge(batch_fair(c->batch), w->batch.item.tenant, command->cost_ns);
    if (!fits_tenant(c, w, &fault))
        end_failed(c, w, &fault);
}

static void pause_or_resume(struct compute *c, uint64_t request,
                            void (*change)(struct batch *, struct batch_request *))
{
    struct work *w = request != 0 ? find(c, request) : c->works;

    for (; w; w = request != 0 ? NULL : w->next)
        change(c->batch, &w->batch);
}

static void trim(struct compute *c, uint64_t bytes)
{
    uint64_t n_pages = (bytes + c->model->facts.bytes_kv_page - 1) / c->model->facts.bytes_kv_page;
    struct engine *e = c->model->engine;
    struct batch_request *r;

    n_pages += engine_pages_free(e);
    if (n_pages > c->model->facts.pages_total)
        n_pages = c->model->facts.pages_total;
    engine_prefix_trim(e, (uint32_t)n_pages);
    while (engine_pages_free(e) < n_pages && (r = batch_trim(c->batch, c->model->facts.pages_total))) {
        close_sequence(c, of_request(r));
        engine_prefix_trim(e, (uint32_t)n_pages);
    }
}

static void reset(struct compute *c, uint64_t epoch)
{
    uint64_t now_ns = clock_now_ns();

    while (c->works)
        take_out(c, c->works, now_ns);
    c->epoch = epoch;
    /* Tenants are numbers of the daemon that gave them, so they, what they are due and what is kept of them begin
     * anew. */
    if (c->batch) {
        engine_prefix_trim(c->model->engine, c->model->facts.pages_total);
        c->batch = batch_free(c->batch);
        if (make_batch(c) < 0)
            out_of_memory(c);
    }
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
        load(c, command);
        break;
    case COMMAND_WORK:
        take_work(c, command);
        break;
    case COMMAND_CANCEL:
        w = find(c, command->request);
        if (w)
            end_done(c, w, DONE_CANCELLED, clock_now_ns());
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

/* ---- one step ---- */

static void deadlines(struct compute *c, uint64_t now_ns)
{
    struct work *w;

    while ((w = heap_top(&c->deadlines)) && w->deadline_ns <= now_ns) {
        if (work_flush(w, &c->emit) < 0)
            out_of_memory(c);
        emit_step(&c->emit, c->epoch, (struct packet_step){.n_steps = link_n_steps(c->link)});
        end_done(c, w, DONE_DEADLINE, now_ns);
    }
}

/* Fills the arrays of the batch. Returns false when the engine has no sequence for one of them. */
static bool gather(struct compute *c, const struct batch_plan *plan, struct engine_batch *batch)
{
    uint32_t n = 0;

    for (size_t i = 0; i < plan->n_slices; i++) {
        const struct batch_slice *s = &plan->slices[i];
        struct work *w = of_request(s->request);

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
    return true;
}

static void tell_costs(struct compute *c, const struct batch_plan *plan, uint64_t duration_ns)
{
    for (size_t i = 0; i < plan->n_slices; i++) {
        const struct batch_slice *s = &plan->slices[i];
        struct work *w = of_request(s->request);
        const struct step_tenant part = {
            .tenant = w->tenant,
            .n_pages = (uint32_t)w->batch.item.tenant->n_pages,
            .cost_ns = (uint64_t)((double)duration_ns * s->n_tokens / plan->n_tokens) + w->draft_ns,
            .n_prompt = w->batch.n_fed + s->n_found < w->n_prompt ? s->n_tokens : 0,
            .n_output = s->wants_logits && !w->embedding,
        };

        w->draft_ns = 0;
        if (emit_tenant(&c->emit, &part) < 0)
            out_of_memory(c);
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

    close_sequence(c, w);
    batch_remove(c->batch, &w->batch, now_ns);
    embed_begin(w->embedding, &w->first, &n_tokens);
    if (batch_submit(c->batch, &w->batch, w->tenant, w->priority, n_tokens, now_ns) < 0)
        out_of_memory(c);
}

/*
 * The next token, and as long as it is the one that was drafted, those behind it. Returns how many logits were there.
 * What a grammar, a stop string or the sampler says of a token comes out as without a draft: they see the same tokens
 * and logits in the same order.
 */
static uint32_t sample_slice(struct compute *c, const struct batch_slice *s, const float *logits,
                             struct packet_step *step, struct fault *reterr)
{
    struct work *w = of_request(s->request);
    uint32_t n_vocab = c->model->facts.n_vocab, n_right = 0;
    uint64_t begin_ns = clock_now_ns();

    for (;;) {
        int32_t draft = n_right < s->n_draft ? w->tokens[w->batch.n_tokens] : SAMPLER_NONE;

        w->result = work_sample(w, c->model, c->workspace, logits + n_right * n_vocab, &c->emit, reterr);
        if (w->result == -ENOMEM)
            out_of_memory(c);
        if (w->result != WORK_GOES_ON || draft == SAMPLER_NONE || w->tokens[w->batch.n_tokens - 1] != draft)
            break;
        n_right++;
    }
    if (n_right > 0 && emit_tenant(&c->emit, &(struct step_tenant){.tenant = w->tenant,
                                                                   .n_pages = (uint32_t)w->batch.item.tenant->n_pages,
                                                                   .n_output = n_right}) < 0)
        out_of_memory(c);
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
    struct fault fault;
    size_t row = 0, n_tokens = 0, n_sampled = 0;

    fault_init(&fault, FAULT_NONE, NULL);
    for (size_t i = 0; i < plan->n_slices; i++) {
        const struct batch_slice *s = &plan->slices[i];
        struct work *w = of_request(s->request);

        w->result = WORK_GOES_ON;
        if (w->embedding)
            w->result = pool(w, s, states + n_tokens * w->embedding->n_dims, now_ns, &fault);
        n_tokens += s->n_tokens;
        if (w->embedding || !s->wants_logits)
            continue;
        if (w->first_ns == 0)
            w->first_ns = now_ns;
        w->told_ns = now_ns;
        row += sample_slice(c, s, logits + row * c->model->facts.n_vocab, &step, &fault);
    }
    step.n_steps = link_n_steps(c->link);
    step.n_running = batch_n_active(c->batch);
    step.n_waiting = (uint32_t)batch_n_idle(c->batch);
    step.pages_used = batch_pages_used(c->batch);
    step.pages_total = c->model->facts.pages_total;
    emit_step(&c->emit, c->epoch, step);
    now_ns = clock_now_ns();
    for (size_t i = 0; i < plan->n_slices; i++) {
        struct work *w = of_request(plan->slices[i].request);

        reuse_keep(c->model->engine, w);
        if (w->result < 0)
            end_failed(c, w, &fault);
        else if (w->result == WORK_NEXT_TEXT)
            next_text(c, w, now_ns);
        else if (w->result != WORK_GOES_ON)
            end_done(c, w, finish_of(w), now_ns);
        else if (!w->embedding && plan->slices[i].wants_logits)
            c->sampled[n_sampled++] = w;
    }
    drafts_make(c->drafts, c->batch, c->sampled, n_sampled);
}

static void fail_for_pages(struct compute *c, struct work *w)
{
    struct fault fault;

    fault_init(&fault, FAULT_INSUFFICIENT_MEMORY, "kv");
    fault.used =
        (int64_t)((w->batch.n_tokens / c->model->facts.page_tokens + 1) * c->model->facts.bytes_kv_page);
    fault.limit = (int64_t)(c->model->facts.pages_total * c->model->facts.bytes_kv_page);
    end_failed(c, w, &fault);
}

/* The engine has less room than the scheduler thought. Somebody gives up pages; if nobody else has any, it
 * fails. */
static void make_room(struct compute *c, const struct batch_plan *plan)
{
    struct work *first = of_request(plan->slices[0].request);
    struct batch_request *r;

    /* Whatever has only just begun is no longer than it says, which is nothing. */
    for (size_t i = 0; i < plan->n_slices; i++)
        if (plan->slices[i].request->n_fed == 0)
            close_sequence(c, of_request(plan->slices[i].request));
    batch_step_failed(c->batch);
    r = batch_drop_one(c->batch);
    if (r)
        close_sequence(c, of_request(r));
    else
        fail_for_pages(c, first);
}

/* Returns false when there was nothing to compute. */
static bool step(struct compute *c)
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
        close_sequence(c, of_request(plan.dropped[i]));
    if (plan.stuck) {
        batch_step_failed(c->batch);
        fail_for_pages(c, of_request(plan.stuck));
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
    if (r == ENGINE_KV_FULL) {
        make_room(c, &plan);
        return true;
    }
    if (r != 0) {
        char text[512];

        /* Everything that could be wrong with a request was checked before: the engine itself is broken. */
        log_line(c->log, LOG_ERR, NULL, "worker ends: a step failed: %s",
                 fault.kind != FAULT_NONE ? fault_describe(&fault, text, sizeof(text)) : strerrordesc_np(-r));
        link_finish(c->link, EXIT_FAILURE);
    }
    tell_costs(c, &plan, duration_ns);
    batch_step_done(c->batch, duration_ns);
    sample(c, &plan, logits, batch.wants_embeddings ? engine_embeddings(c->model->engine) : NULL,
           (struct packet_step){.duration_ns = duration_ns});
    return true;
}

/* ---- news for those who wait ---- */

static void tell(struct compute *c, struct work *w, int32_t position, int64_t eta_ms, uint64_t now_ns)
{
    emit_piece_begin(&c->emit, w->id);
    if (emit_piece_end(&c->emit, NULL, w->n_output, position, eta_ms) < 0)
        out_of_memory(c);
    w->told_ns = now_ns;
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
            out_of_memory(c);
        c->order = grown;
        c->order_allocated = n_new + n_new / 2;
    }
    if (n_new > 0)
        n = batch_positions(c->batch, c->order);
    for (size_t i = 0; i < n; i++) {
        struct work *w = of_request(c->order[i].request);

        if (w->told_ns == 0 || now_ns - w->told_ns >= REPORT_NS)
            tell(c, w, (int32_t)c->order[i].position, c->order[i].eta_ms, now_ns);
    }
    for (struct work *w = c->works; w; w = w->next)
        if (w->batch.started && now_ns - w->told_ns >= REPORT_NS)
            tell(c, w, STEP_NOT_WAITING, STEP_ETA_UNKNOWN, now_ns);
    emit_step(&c->emit, c->epoch,
              (struct packet_step){
                  .n_steps = link_n_steps(c->link),
                  .n_running = batch_n_active(c->batch),
                  .n_waiting = (uint32_t)batch_n_idle(c->batch),
                  .pages_used = batch_pages_used(c->batch),
                  .pages_total = c->model->facts.pages_total,
              });
}

/* ---- the loop ---- */

static void drain(struct compute *c, uint64_t now_ns)
{
    if (c->drain_deadline_ns > 0 && now_ns >= c->drain_deadline_ns)
        while (c->works) {
            struct fault fault;

            fault_init(&fault, FAULT_SHUTTING_DOWN, NULL);
            end_failed(c, c->works, &fault);
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

_Noreturn void compute_run(struct link *l, struct intake *in, const struct log *log)
{
    struct compute c = {.link = l, .intake = in, .log = log};
    uint64_t until_ns = 0, now_ns;

    emit_init(&c.emit, l);
    heap_init(&c.deadlines, earlier, offsetof(struct work, i_deadline));
    c.buckets = calloc(N_BUCKETS, sizeof(*c.buckets));
    if (!c.buckets)
        out_of_memory(&c);
    until_ns = next_event(&c, clock_now_ns());
    for (;;) {
        bool parked, ran = false;
        struct command *list = intake_take(in, until_ns, &parked);

        while (list) {
            struct command *command = list;

            list = command->next;
            obey(&c, command);
            command_free(command);
        }
        now_ns = clock_now_ns();
        deadlines(&c, now_ns);
        if (c.draining)
            drain(&c, now_ns);
        /* Nobody may be there to read; or somebody does not read: then text waits here, where it costs
         * nothing. */
        if (c.model && !parked && link_backlog(l) <= BACKLOG_BYTES_MAX) {
            ran = step(&c);
            report(&c, clock_now_ns());
        }
        until_ns = ran ? 0 : next_event(&c, clock_now_ns());
    }
}
