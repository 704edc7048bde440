/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a MODEL packet to something that computes, and the helper thread, which prepares requests from then on.
 */
#include "engine/worker/compute-internal.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/wipe.h"
#include "engine/engine-devices.h"
#include "engine/reply/reply.h"
#include "engine/sample/sampler.h"
#include "engine/token/tokenizer.h"
#include "engine/worker/clock.h"
#include "engine/worker/draft.h"
#include "engine/worker/facts.h"
#include "engine/worker/gpus.h"
#include "engine/worker/prepare.h"
#include "engine/worker/public.h"
#include "engine/worker/reuse.h"
#include "engine/worker/shape.h"

/* Steps that others have to wait for, and those of somebody who is alone. */
#define STEP_NS_MAX       UINT64_C(250000000)
#define STEP_ALONE_NS_MAX UINT64_C(500000000)
/* A tenant that runs ahead by more is preempted for one that waits. */
#define QUANTUM_NS UINT64_C(500000000)

/* ---- the helper thread ---- */

/* Its frame is below the one that wipes, which is why it may not be inlined. */
__attribute__((noinline)) static void prepare_next(struct compute *c)
{
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
        compute_out_of_memory(c);
    if (dropped)
        return;
    if (r == 0 && !w) {
        r = emit_request_done(c->link, epoch, &done, reply);
        if (r == -E2BIG)
            fault_set(&fault, FAULT_INVALID_PARAMETER, "text",
                      "the answer would be longer than a reply may be");
        else if (r < 0)
            compute_out_of_memory(c);
    }
    if (r < 0)
        emit_request_failed(c->link, epoch, request, &fault);
}

static void *help(void *userdata)
{
    for (;;) {
        prepare_next(userdata);
        wipe_stack();
    }
    return NULL;
}

/* ---- loading ---- */

static _Noreturn void fail_model(struct compute *c, struct fault *fault, int r)
{
    /* The daemon logs it, with the model's name. */
    if (fault->kind == FAULT_NONE)
        fault_set(fault, r == -ENOMEM ? FAULT_INSUFFICIENT_MEMORY : FAULT_MODEL_UNAVAILABLE,
                  r == -ENOMEM ? "ram" : "", "%s", strerrordesc_np(-r));
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

    return reuse_found(c->model->engine, compute_const_work_of(r));
}

int compute_make_batch(struct compute *c)
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

    facts.bytes_scratch += model_process_bytes(facts.n_vocab);
    if (m->drafter) {
        drafter_facts(m->drafter, &other);
        facts.bytes_scratch += model_process_bytes(other.n_vocab);
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

/* Only says which GPUs there are, and then what they are doing, until the daemon ends the link. */
static void look(struct compute *c)
{
    _cleanup_json_ json_object *o = json_object_new_object();
    const char *text = o && gpus_add_looked(c->devices, o) == 0 ? json_text(o) : NULL;

    if (!text || link_set_facts(c->link, text, strlen(text)) < 0)
        compute_out_of_memory(c);
    if (c->devices && engine_devices_can_sample(c->devices) && gpus_watch(c->devices, c->link) < 0)
        compute_out_of_memory(c);
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
    (void)shape_to_json(&shape, model_open_max, config->bandwidth ? engine_memory_gbps(config->n_threads) : 0, &o);
    engine_shape_done(&shape);
    text = o && gpus_add_facts(c->devices, o) == 0 ? json_text(o) : NULL;
    if (!text || link_set_facts(c->link, text, strlen(text)) < 0)
        compute_out_of_memory(c);
}

static bool tell_progress(void *userdata, uint64_t n_bytes, uint64_t n_total)
{
    struct compute *c = userdata;
    const struct packet_progress progress = {.bytes_done = n_bytes, .bytes_total = n_total};

    link_send(c->link, LINK_EPOCH_ANY, PACKET_PROGRESS, &progress, sizeof(progress), NULL, 0);
    return true;
}

void compute_load(struct compute *c, struct command *command)
{
    const struct model_gpu gpu = {.devices = c->devices, .progress = tell_progress, .userdata = c};
    struct config config;
    struct fault fault;
    int r;

    fault_init(&fault, FAULT_NONE, NULL);
    r = config_parse(command->model.json, command->model.n_json, &config, &fault);
    if (r == 0) {
        if (c->n_threads > 0)
            config.n_threads = c->n_threads;
        if (config.measure || config.look) {
            if (config.look)
                look(c);
            else
                measure(c, command, &config);
            config_done(&config);
            return;
        }
        r = model_load(command->model.fds, command->model.n_fds, &config, &gpu, &c->model, &fault);
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
        r = compute_make_batch(c);
    if (r == 0)
        r = start_helper(c);
    if (r < 0)
        fail_model(c, &fault, r);
    if (tell_loaded(c) < 0)
        compute_out_of_memory(c);
    if (c->model->facts.n_gpus > 0 && gpus_watch(c->devices, c->link) < 0)
        compute_out_of_memory(c);
}
