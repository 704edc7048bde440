/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the engine's own files share: engine.c (opening, closing, facts), engine-sequence.c, engine-step.c,
 * engine-prefix.c, engine-profile.c. Nobody else includes it.
 */

#include "engine/arch/adapt.h"
#include "engine/arch/arch.h"
#include "engine/cpu/ahead.h"
#include "engine/cpu/exec.h"
#include "engine/cpu/threads.h"
#include "engine/engine-gpu.h"
#include "engine/engine.h"
#include "engine/gguf/map.h"
#include "engine/gguf/read.h"
#include "engine/graph/ops.h"
#include "engine/kernels/kernels.h"
#include "engine/kv/layout.h"
#include "engine/kv/pages.h"
#include "engine/kv/prefix.h"

_Static_assert(ENGINE_PAGE_TOKENS == KV_PAGE_TOKENS && PAGES_TOKENS == KV_PAGE_TOKENS, "one size of page");

struct engine_sequence {
    bool open;
    uint32_t length;  /* tokens fed */
    uint32_t adapter; /* from 1; 0: none */
    uint32_t pending; /* tokens of the batch that is being checked or computed */
    struct page_table tables[GRAPH_GROUPS_MAX];
    uint64_t owner;        /* 0: none, nothing of it is kept */
    uint32_t node;         /* of engine.prefix, pinned: that of the first n_kept_pages; PREFIX_NONE: 0 of them */
    uint32_t n_kept_pages;
};

/* The file of an adapter. */
struct engine_adapter {
    struct gguf_map *map;
    struct gguf *gguf;
};

struct engine {
    struct gguf_map *map;
    struct gguf *gguf;
    struct engine_adapter *adapters; /* [n_adapters] */
    size_t n_adapters;
    struct arch_config arch;
    struct graph graph; /* points into gguf and map, and those of adapters */
    struct kernels kernels;
    struct kv_layout layouts[GRAPH_GROUPS_MAX]; /* [graph.n_groups] of one layer */
    struct pages *pages[GRAPH_GROUPS_MAX];
    struct prefix *prefix; /* NULL for an encoder */
    struct threads *threads;
    struct ahead *ahead; /* NULL: all weights are in memory */
    struct exec *exec;
    struct engine_gpus gpus;

    uint32_t context_tokens, sequences_max, batch_tokens_max, outputs_max;
    uint32_t n_open;
    struct engine_sequence *sequences; /* [sequences_max] */

    /* Of the step that is being prepared, [batch_tokens_max] each. */
    uint32_t *active;     /* sequences that have tokens in the batch; n_active of them in the last step */
    uint32_t n_active;
    uint32_t *token_runs; /* the run of each token */
    uint32_t *token_adapters;
    uint32_t *outputs;    /* rows that want logits; [outputs_max] */
    struct exec_run *runs;

    struct engine_facts facts; /* fixed when the engine is opened, but for n_threads */
    char *name, *quantization;

    struct engine_profile *profile; /* [n_profile], distinct names */
    size_t n_profile;
    uint32_t *profile_rows; /* [graph.n_ops] the row of each operation */
};

/* Pages that one sequence keeps for a window: it may begin and end within one. */
static inline uint64_t engine_window_pages(uint64_t window)
{
    return (window + KV_PAGE_TOKENS - 3) / KV_PAGE_TOKENS + 2;
}

/**
 * engine_open_graph() - the first half of engine_open(): the file is mapped, read and planned, nothing else taken
 */
int engine_open_graph(const struct engine_config *config, struct engine **ret, struct fault *reterr);

/**
 * engine_touch() - read a byte of each page of the weights that is to be in memory, with all threads
 */
void engine_touch(struct engine *e);

/**
 * engine_stream_memory() - nanoseconds that @threads together need to read @n_bytes of memory once
 */
uint64_t engine_stream_memory(struct threads *threads, const void *memory, uint64_t n_bytes);

/**
 * engine_sequence_find() - the sequence with this number, NULL when it is not open
 */
struct engine_sequence *engine_sequence_find(const struct engine *e, uint32_t sequence);

/**
 * engine_pages_find() - whether @n_pages of @group are free now, at the cost of kept prefixes
 */
bool engine_pages_find(struct engine *e, uint32_t group, uint32_t n_pages);

/**
 * engine_prefix_init() - pages and the graph are there; 0 or -ENOMEM
 */
int engine_prefix_init(struct engine *e);

/**
 * engine_prefix_cut() - the sequence is about to be cut to @n_tokens
 */
void engine_prefix_cut(struct engine *e, struct engine_sequence *s, uint32_t n_tokens);

/**
 * engine_window_begin() - the first position that a token at @position sees in layers of @group
 */
uint32_t engine_window_begin(const struct engine *e, uint32_t group, uint32_t position);

/**
 * engine_profile_init() - name the operations; 0 or -ENOMEM
 */
int engine_profile_init(struct engine *e);

/**
 * engine_profile_done() - release the names
 */
void engine_profile_done(struct engine *e);
