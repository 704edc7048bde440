/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/model.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "engine/chat/chat.h"
#include "engine/engine-devices.h"
#include "engine/gguf/map.h"
#include "engine/gguf/read.h"
#include "engine/grammar/vocabulary.h"
#include "engine/kernels/kernels.h"
#include "engine/token/tokenizer.h"
#include "engine/worker/draft.h"
#include "engine/worker/public.h"
#include "engine/worker/structure.h"

const uint64_t model_open_max[2] = {4, 4};

/* Each takes a row of logits, up to a megabyte; and steps of more tokens are bound by arithmetic. */
#define DRAFTS_MAX 16

/* A preempted request that keeps its pages costs the engine a page table and nothing else, so there may be
 * several times as many of them as there are places; the pages themselves are bounded by kv_tokens. */
static uint32_t parked_for(uint32_t sequences)
{
    return ((uint32_t)model_open_max[0] - 1) * sequences + (uint32_t)model_open_max[1];
}

uint32_t model_drafts_max(const struct config *c)
{
    uint32_t n = c->batch_tokens - c->sequences;

    return c->drafts == CONFIG_DRAFTS_OFF ? 0 : n < DRAFTS_MAX ? n : DRAFTS_MAX;
}

struct model *model_free(struct model *m)
{
    if (!m)
        return NULL;
    chat_template_free(m->chat_template);
    chat_template_free(m->tool_template);
    grammar_vocabulary_free(m->vocabulary);
    tokenizer_free(m->tokenizer);
    drafter_free(m->drafter);
    engine_free(m->engine);
    public_done(m);
    config_done(&m->config);
    free(m->template_fault);
    free(m);
    return NULL;
}

int model_isa_limit(uint32_t *ret, struct fault *reterr)
{
    const char *name = getenv("RESIDENT_ISA");

    *ret = UINT32_MAX;
    if (!name || !*name)
        return 0;
    if (kernels_isa_parse(name, ret) < 0) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, "RESIDENT_ISA", "no set of instructions");
        return -EINVAL;
    }
    return 0;
}

/* The model's own context length: with it the room for keys and values can be said before the engine is
 * opened. */
static int own_context(const int *fds, size_t n_fds, uint32_t *ret, struct fault *reterr)
{
    struct gguf_map *map = NULL;
    struct gguf *g = NULL;
    const struct gguf_part *parts;
    struct gguf_string architecture;
    char key[128];
    size_t n_parts;
    int r;

    r = gguf_map(fds, n_fds, 0, &map, reterr);
    if (r < 0)
        return r;
    parts = gguf_map_parts(map, &n_parts);
    r = gguf_read(parts, n_parts, &g, reterr);
    if (r == 0)
        r = gguf_get_string(g, "general.architecture", &architecture, reterr);
    if (r == 0) {
        snprintf(key, sizeof(key), "%.*s.context_length",
                 (int)(architecture.n_bytes < 64 ? architecture.n_bytes : 64), architecture.data);
        r = gguf_get_u32(g, key, ret, reterr);
    }
    gguf_free(g);
    gguf_unmap(map);
    if (r == -ENOENT) {
        fault_model_invalid(reterr, FAULT_NO_OFFSET, "general.architecture or its context_length is missing");
        r = -EINVAL;
    }
    return r;
}

/* Every failure but -ENOMEM has a fault, and it says which model. */
static void name_fault(struct fault *fault, int error, const char *model, struct fault *reterr)
{
    if (error != -ENOMEM && fault->kind == FAULT_NONE)
        fault_set(fault, FAULT_MODEL_UNAVAILABLE, "", "%s", strerrordesc_np(-error));
    if (fault->kind == FAULT_MODEL_INVALID || fault->kind == FAULT_MODEL_UNAVAILABLE)
        fault_subject(fault, model);
    if (reterr)
        *reterr = *fault;
}

/* Whose files are which: first the model's own, then a draft model's, then one of each adapter. */
struct files {
    const int *own, *draft, *adapters;
    size_t n_own, n_draft;
};

static int files_of(const struct config *c, const int *fds, size_t n_fds, struct files *ret, struct fault *reterr)
{
    size_t n_others = c->n_draft_files + c->n_adapters, n = c->n_files > 0 ? c->n_files : n_fds - n_others;

    if (n_others >= n_fds || n + n_others != n_fds) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, "files", "%zu files came, which is another number", n_fds);
        return -EINVAL;
    }
    *ret = (struct files){.own = fds,
                          .n_own = n,
                          .draft = fds + n,
                          .n_draft = c->n_draft_files,
                          .adapters = fds + n + c->n_draft_files};
    return 0;
}

/* @ret borrows what @files points to and is good for one call of the engine. */
static int engine_config_of(const struct config *c, uint32_t parked_max, const struct files *files,
                            struct engine_config *ret, struct fault *reterr)
{
    struct engine_config config = {
        .fds = files->own,
        .n_fds = files->n_own,
        .adapters = files->adapters,
        .n_adapters = c->n_adapters,
        .context_tokens = c->context_tokens,
        .sequences_max = c->sequences + parked_max,
        .kv_tokens = c->kv_tokens,
        .k_type = c->k_type,
        .v_type = c->v_type,
        .batch_tokens_max = c->batch_tokens,
        .outputs_max = c->sequences + model_drafts_max(c),
        .n_threads = c->n_threads,
        .weights_bytes_max = c->weights_bytes_max,
        .lock = c->lock,
        .populate = c->populate,
        .touch = c->populate && c->touch,
        .small_pages = c->small_pages,
    };
    int r;

    r = model_isa_limit(&config.isa_mask, reterr);
    if (r < 0)
        return r;
    if (config.kv_tokens == 0) {
        uint32_t context_tokens = c->context_tokens;

        if (context_tokens == 0)
            r = own_context(files->own, files->n_own, &context_tokens, reterr);
        if (r < 0)
            return r;
        config.kv_tokens = (uint64_t)context_tokens * c->sequences;
    }
    *ret = config;
    return 0;
}

static struct engine_gpu_config gpu_config_of(const struct config_gpu *c, const struct model_gpu *gpu)
{
    return (struct engine_gpu_config){
        .layers = c->layers,
        .expert_layers = c->expert_layers,
        .experts_in_ram = c->expert_layers == 0,
        .kv_in_ram = c->kv_in_ram,
        .head = c->head ? ENGINE_HEAD_VRAM : ENGINE_HEAD_RAM,
        .devices = c->devices,
        .n_devices = c->n_devices,
        .device_layers = c->n_devices > 0 ? c->device_layers : NULL,
        .exact = c->exact,
        .small_steps = c->small_steps,
        .keep_locked = c->keep_locked,
        .ram_bytes_max = c->ram_bytes_max,
        .open = gpu->devices,
        .progress = gpu->progress,
        .userdata = gpu->userdata,
    };
}

/* The numbers that this process's driver gives them. */
static void find_devices(struct config_gpu *c, const struct engine_devices *devices)
{
    struct engine_device_info known[ENGINE_DEVICES_MAX];
    size_t n = engine_devices_list(devices, known);

    for (size_t i = 0; i < c->n_devices; i++) {
        if (c->bus_ids[i][0] == 0)
            continue;
        c->devices[i] = UINT32_MAX; /* it is gone */
        for (size_t k = 0; k < n; k++)
            if (strcmp(known[k].bus_id, c->bus_ids[i]) == 0)
                c->devices[i] = known[k].i_device;
    }
}

static int open_engine(struct model *m, const struct files *f, const struct model_gpu *gpu, struct fault *reterr)
{
    struct engine_config config;
    int r;

    r = engine_config_of(&m->config, m->parked_max, f, &config, reterr);
    if (r < 0)
        return r;
    if (gpu->devices) {
        find_devices(&m->config.gpu, gpu->devices);
        config.gpu = gpu_config_of(&m->config.gpu, gpu);
    }
    r = engine_open(&config, &m->engine, reterr);
    if (r < 0 || !gpu->devices)
        return r;
    engine_facts(m->engine, &m->facts);
    for (uint32_t i = 0; i < m->facts.n_gpus; i++)
        m->config.gpu.devices[i] = m->facts.gpus[i].i_device;
    engine_devices_keep(gpu->devices, m->config.gpu.devices, m->facts.n_gpus);
    return 0;
}

/* Taken from what the kernel showed of workers that were ready: 0.8, 4.2 and 12.9 MB with vocabularies of 512, 32000
 * and 128000 tokens, and up to 1 MB more when all sequences had been filled. */
uint64_t model_process_bytes(uint32_t n_vocab)
{
    return (UINT64_C(2) << 20) + 112 * (uint64_t)n_vocab;
}

int model_measure(const int *fds, size_t n_fds, const struct config *c, struct engine_shape *ret, struct fault *reterr)
{
    struct engine_shape shape = {.layers = NULL};
    struct engine_config config;
    struct files files;
    struct fault fault;
    int r;

    fault_init(&fault, FAULT_NONE, NULL);
    r = files_of(c, fds, n_fds, &files, &fault);
    if (r == 0)
        r = engine_config_of(c, parked_for(c->sequences), &files, &config, &fault);
    if (r == 0)
        r = engine_shape(&config, &shape, &fault);
    if (r == 0)
        shape.other_bytes += model_process_bytes(shape.n_vocab);
    if (r == 0)
        r = files.n_draft > 0 ? drafter_measure(files.draft, files.n_draft, c, &shape, &fault) : 0;
    if (r < 0) {
        engine_shape_done(&shape);
        name_fault(&fault, r, c->model, reterr);
        return r;
    }
    *ret = shape;
    return 0;
}

static int open_template(struct model *m, const struct gguf *g)
{
    struct gguf_string text;
    struct fault fault;
    int r;

    if (gguf_get_string(g, "tokenizer.chat_template", &text, NULL) < 0)
        return 0;
    m->reply_form = reply_form_of(text.data, text.n_bytes, &m->thinks);
    fault_init(&fault, FAULT_NONE, NULL);
    r = chat_template_new(text.data, text.n_bytes, &m->chat_template, &fault);
    /* Some models (Command R, Hermes 2) bring another one for conversations with tools. */
    if (r == 0 && gguf_get_string(g, "tokenizer.chat_template.tool_use", &text, NULL) == 0) {
        m->reply_form = reply_form_of(text.data, text.n_bytes, &m->thinks);
        r = chat_template_new(text.data, text.n_bytes, &m->tool_template, &fault);
    }
    if (r == 0 || r == -ENOMEM)
        return r;
    /* The model can do everything else; whoever wants to chat is told why not. */
    m->template_fault = malloc(sizeof(*m->template_fault));
    if (!m->template_fault)
        return -ENOMEM;
    *m->template_fault = fault;
    return 0;
}

int model_load(const int *fds, size_t n_fds, struct config *config_take, const struct model_gpu *gpu,
               struct model **ret, struct fault *reterr)
{
    _cleanup_(model_freep) struct model *m = calloc(1, sizeof(*m));
    const struct gguf *g;
    struct files files;
    struct fault fault;
    int r;

    if (!m) {
        config_done(config_take);
        return -ENOMEM;
    }
    m->config = *config_take;
    *config_take = (struct config){0};
    m->parked_max = parked_for(m->config.sequences);
    fault_init(&fault, FAULT_NONE, NULL);
    r = files_of(&m->config, fds, n_fds, &files, &fault);
    if (r == 0)
        r = open_engine(m, &files, gpu, &fault);
    if (r == 0) {
        engine_facts(m->engine, &m->facts);
        g = engine_gguf(m->engine);
        r = tokenizer_new(g, &m->tokenizer, &fault);
        if (r == -ENOENT)
            r = 0;
        if (r == 0 && m->tokenizer)
            r = structure_vocabulary(m->tokenizer, m->facts.n_vocab, &m->vocabulary);
        if (r == 0 && m->tokenizer)
            r = open_template(m, g);
        if (r == 0)
            r = embed_pooling_read(g, m->facts.is_encoder, &m->pooling, &fault);
    }
    if (r == 0 && m->tokenizer && tokenizer_n_vocab(m->tokenizer) > m->facts.n_vocab) {
        fault_model_invalid(&fault, FAULT_NO_OFFSET, "the tokenizer has %u tokens, but the model only %u",
                            tokenizer_n_vocab(m->tokenizer), m->facts.n_vocab);
        r = -EINVAL;
    }
    if (r == 0 && files.n_draft > 0)
        r = drafter_new(files.draft, files.n_draft, &m->config, &m->facts, m->tokenizer, &m->drafter, &fault);
    if (r < 0) {
        name_fault(&fault, r, m->config.model, reterr);
        return r;
    }
    *ret = TAKE_PTR(m);
    return 0;
}
