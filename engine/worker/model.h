/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A loaded model with all that requests need of it. Made once by the compute thread; afterwards the helper
 * thread reads everything but the engine, and nobody changes anything but the engine.
 */

#include <stdint.h>

#include "base/cleanup.h"
#include "engine/engine-shape.h"
#include "engine/engine.h"
#include "engine/reply/reply.h"
#include "engine/worker/config.h"
#include "engine/worker/embed.h"

struct chat_template;
struct drafter;
struct fault;
struct grammar_vocabulary;
struct public_prefix;
struct tokenizer;

struct model {
    struct config config;
    struct engine *engine;
    struct engine_facts facts;
    struct tokenizer *tokenizer;         /* NULL: the model has none, prompts have to come as tokens */
    struct grammar_vocabulary *vocabulary; /* of the tokenizer, for answers of a given form */
    struct chat_template *chat_template; /* NULL: the model can't chat */
    struct chat_template *tool_template; /* the one for conversations with tools, NULL: the same */
    enum reply_form reply_form; /* how it writes calls of tools */
    bool thinks;                /* its template knows <think> */
    struct fault *template_fault; /* why a template was not understood, NULL if it was or there is none */
    struct drafter *drafter;    /* NULL: there is no draft model */
    enum embed_pooling pooling;          /* EMBED_RANK: no vectors */
    struct public_prefix *public_prefixes; /* [n_public_prefixes] (public.h) */
    size_t n_public_prefixes;
    uint32_t parked_max;          /* sequences beyond config.sequences that the engine has room for */
};

/* With n sequences at a time, [0] * n + [1] are open at most: those that are preempted keep their pages. */
extern const uint64_t model_open_max[2];

/**
 * model_isa_limit() - the kernels that RESIDENT_ISA leaves, as engine_config.isa_mask
 */
int model_isa_limit(uint32_t *ret, struct fault *reterr);

/**
 * model_drafts_max() - tokens of drafts that a step of such a model may have room for
 */
uint32_t model_drafts_max(const struct config *c);

/* What a worker for GPUs brings along. */
struct model_gpu {
    struct engine_devices *devices; /* NULL: the worker is for the processor alone */
    bool (*progress)(void *userdata, uint64_t n_bytes, uint64_t n_total); /* as of engine_gpu_config */
    void *userdata;
};

/**
 * model_load() - everything from the files to a model that can compute
 * @fds:         [n_fds], borrowed
 * @config_take: consumed, on failure too
 * @gpu:         devices are borrowed for the model's life, the rest for the call
 * @reterr:      on failure, with the model's name in it where a fault has one
 * Returns 0 or a negative errno; the fault is set for all but -ENOMEM.
 */
int model_load(const int *fds, size_t n_fds, struct config *config_take, const struct model_gpu *gpu,
               struct model **ret, struct fault *reterr);

/**
 * model_process_bytes() - what a worker's process has beside weights, keys, values and scratch: its vocabulary,
 * templates, stacks and libraries. Of a model with @n_vocab tokens; counted as scratch
 */
uint64_t model_process_bytes(uint32_t n_vocab);

/**
 * model_measure() - what model_load() would take, without taking it
 * @c:   borrowed
 * @ret: to be released by engine_shape_done()
 * Returns as model_load().
 */
int model_measure(const int *fds, size_t n_fds, const struct config *c, struct engine_shape *ret,
                  struct fault *reterr);

/**
 * model_free() - takes NULL, returns NULL
 */
struct model *model_free(struct model *m);

DEFINE_CLEANUP(struct model *, model_free)
