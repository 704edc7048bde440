/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A tensor belongs to a layer by its name ("blk.7.…"), as the format has it for every architecture; experts
 * are those that hold all experts of a layer in one tensor ("…_exps.…"). Which group of KV pages a layer has,
 * the graph says.
 */
#include "engine/engine-shape.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/fault.h"
#include "engine/cuda/device.h"
#include "engine/cuda/weights.h"
#include "engine/engine-internal.h"

/* Several times any cache, and read in a few milliseconds. */
#define STREAM_BYTES (UINT64_C(128) << 20)
#define STREAM_RUNS  3

_Static_assert(ENGINE_SHAPE_GROUPS_MAX == GRAPH_GROUPS_MAX, "one for each group of the graph");

static void count_tensors(const struct gguf *g, struct engine_shape *s)
{
    const struct gguf_tensor *embedding = gguf_find_tensor(g, "token_embd.weight");
    const struct gguf_tensor *head = gguf_find_tensor(g, "output.weight");

    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);
        unsigned layer;

        s->n_parameters += t->n_rows * t->dims[0];
        if (t == embedding || t == head)
            continue;
        if (sscanf(t->name, "blk.%u.", &layer) != 1 || layer >= s->n_layers)
            s->rest_bytes += t->n_bytes;
        else if (strstr(t->name, "_exps."))
            s->layers[layer].expert_bytes += t->n_bytes;
        else
            s->layers[layer].dense_bytes += t->n_bytes;
    }
    s->embedding_bytes = embedding ? embedding->n_bytes : 0;
    s->head_is_tied = !head;
    s->head_bytes = head ? head->n_bytes : s->embedding_bytes;
}

/* What changes no layer changes the head: nothing else outside of layers can be adapted. */
static void count_adapter(const struct gguf *g, struct engine_shape *s)
{
    for (size_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);
        unsigned layer;

        if (sscanf(t->name, "blk.%u.", &layer) != 1 || layer >= s->n_layers)
            s->head_adapter_bytes += t->n_bytes;
        else if (strstr(t->name, "_exps."))
            s->layers[layer].adapter_expert_bytes += t->n_bytes;
        else
            s->layers[layer].adapter_bytes += t->n_bytes;
    }
}

static void count_experts(const struct gguf *g, const char *architecture, struct engine_shape *s)
{
    char key[128];

    snprintf(key, sizeof(key), "%s.expert_count", architecture);
    if (gguf_get_u32(g, key, &s->n_experts, NULL) < 0)
        s->n_experts = 0;
    snprintf(key, sizeof(key), "%s.expert_used_count", architecture);
    if (s->n_experts == 0 || gguf_get_u32(g, key, &s->n_experts_used, NULL) < 0 ||
        s->n_experts_used > s->n_experts)
        s->n_experts_used = s->n_experts;
}

/* Attention stands in the graph once a layer, in their order. */
static void find_groups(const struct graph *g, struct engine_shape *s)
{
    uint32_t layer = 0;

    for (size_t i = 0; i < g->n_ops && layer < s->n_layers; i++)
        if (g->ops[i].type == GRAPH_ATTENTION)
            s->layers[layer++].group = g->ops[i].attention.group;
}

static void count_kv(const struct graph *g, uint32_t batch_tokens, struct engine_shape *s)
{
    s->n_groups = g->n_groups;
    for (uint32_t i = 0; i < g->n_groups; i++) {
        const struct graph_group *group = &g->groups[i];

        s->groups[i].window = group->window;
        if (group->window > 0) {
            s->groups[i].pages_per_sequence = engine_window_pages(group->window);
            s->groups[i].pages_per_step = batch_tokens / KV_PAGE_TOKENS;
        }
        for (uint32_t type = 0; type < TENSOR_TYPE_MAX; type++) {
            struct kv_layout layout;

            if (kv_layout_init(&layout, type, type, group->n_kv_heads, group->k_dim, group->v_dim) < 0)
                continue;
            s->groups[i].k_bytes[type] = (uint64_t)group->n_kv_heads * layout.k_bytes;
            s->groups[i].v_bytes[type] = (uint64_t)group->n_kv_heads * layout.v_bytes;
            s->groups[i].on_gpu[type] = gpu_can_keep(&layout);
        }
    }
}

static int count_scratch(struct engine *e, const struct engine_config *c, struct engine_shape *s)
{
    const struct exec_config config = {
        .graph = &e->graph,
        .kernels = &e->kernels,
        .layouts = e->layouts,
        .tokens_max = e->batch_tokens_max,
        .outputs_max = e->outputs_max,
        .pages_max = e->context_tokens / KV_PAGE_TOKENS + 1,
    };

    for (uint32_t i = 0; i < e->graph.n_groups; i++) {
        const struct graph_group *group = &e->graph.groups[i];
        int r = kv_layout_init(&e->layouts[i], c->k_type, c->v_type, group->n_kv_heads, group->k_dim,
                               group->v_dim);

        if (r < 0)
            return r;
    }
    s->batch_tokens = e->batch_tokens_max;
    s->scratch_bytes = e->graph.scratch_bytes;
    return exec_thread_scratch_bytes(&config, &s->thread_scratch_bytes);
}

/* Tensors of the layer that has most of them. */
static uint64_t tensors_of_a_layer(const struct gguf *g, uint32_t n_layers)
{
    uint64_t most = 0;

    for (uint32_t layer = 0; layer < n_layers; layer++) {
        uint64_t n = 0;

        for (size_t i = 0; i < gguf_n_tensors(g); i++) {
            unsigned of;

            n += sscanf(gguf_tensor(g, i)->name, "blk.%u.", &of) == 1 && of == layer;
        }
        most = n > most ? n : most;
    }
    return most;
}

/* A file's tensor, and with what on a GPU it is there, too. */
struct place {
    const struct gguf_tensor *t;
    uint8_t with;
};

static uint32_t layer_of(const struct gguf_tensor *t, uint32_t n_layers)
{
    unsigned layer;

    return sscanf(t->name, "blk.%u.", &layer) == 1 && layer < n_layers ? layer : n_layers;
}

static int make_runs(const struct engine *e, const struct place *places, struct engine_shape *s)
{
    size_t n = gguf_n_tensors(e->gguf), n_parts;
    const struct gguf_part *parts = gguf_map_parts(e->map, &n_parts);

    s->runs = calloc(n ? n : 1, sizeof(*s->runs));
    if (!s->runs)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        const struct place *p = &places[i];
        bool is_end = i + 1 == n || places[i + 1].t->part != p->t->part;
        uint64_t to = is_end ? parts[p->t->part].n_bytes : places[i + 1].t->offset;
        uint32_t layer = layer_of(p->t, s->n_layers);
        struct engine_shape_run *last = s->n_runs > 0 ? &s->runs[s->n_runs - 1] : NULL;

        if (p->with == 0)
            continue;
        if (last && last->file == p->t->part && last->from + last->n_bytes == p->t->offset && last->layer == layer &&
            last->with == p->with) {
            last->n_bytes = to - last->from;
            last->is_end = is_end;
            continue;
        }
        s->runs[s->n_runs++] = (struct engine_shape_run){.file = p->t->part,
                                                         .from = p->t->offset,
                                                         .n_bytes = to - p->t->offset,
                                                         .layer = layer,
                                                         .with = p->with,
                                                         .is_end = is_end};
    }
    return 0;
}

/* As operations are placed now, by engine_gpus_measure(): which tensors have left. */
static int note_places(const struct engine *e, uint32_t i, struct engine_gpu_tensor *tensors, struct place *places)
{
    int r = engine_gpus_tensors(e, 1, tensors);

    for (size_t k = 0; r == 0 && k < gguf_n_tensors(e->gguf); k++) {
        places[k].t = tensors[k].t;
        places[k].with |= (uint8_t)(tensors[k].is_on_gpu << i);
    }
    return r;
}

/* Beside weights and pages, which are blocks of their own, rounded up by less than a grain each. */
static int measure_gpu(struct engine *e, const struct engine_gpu_config *c, uint64_t *ret, bool *ret_layers)
{
    const uint32_t n_pages[GRAPH_GROUPS_MAX] = {0};
    struct gpu_bytes bytes;
    int r = engine_gpus_measure(e, c, n_pages, &bytes, ret_layers);

    if (r == 0)
        *ret = bytes.scratch + (1 + e->graph.n_groups) * device_charged_bytes(1);
    return r;
}

/* Whatever stays in RAM of it: a layer is one that can be on a GPU if anything of it can. */
static int count_gpu(struct engine *e, const struct engine_config *c, struct engine_shape *s)
{
    _cleanup_free_ bool *layers = calloc(s->n_layers ? s->n_layers : 1, sizeof(*layers));
    size_t n = gguf_n_tensors(e->gguf);
    _cleanup_free_ struct engine_gpu_tensor *tensors = calloc(n ? n : 1, sizeof(*tensors));
    _cleanup_free_ struct place *places = calloc(n ? n : 1, sizeof(*places));

    if (!layers || !tensors || !places)
        return -ENOMEM;
    /* engine_gpus_open() leaves those on the CPU. */
    if (c->weights_bytes_max)
        return 0;
    s->gpu_padding_bytes = tensors_of_a_layer(e->gguf, s->n_layers) * WEIGHTS_ALIGN;
    for (size_t i = 0; i < e->n_adapters; i++)
        s->gpu_padding_bytes += tensors_of_a_layer(e->adapters[i].gguf, s->n_layers) * WEIGHTS_ALIGN;
    s->gpu_small_tokens = engine_gpus_small_steps(e);
    for (uint32_t i = 0; i < 8; i++) {
        struct engine_gpu_config config = {.layers = ENGINE_LAYERS_ALL,
                                                 .kv_in_ram = !(i & ENGINE_SHAPE_GPU_KV),
                                                 .head = i & ENGINE_SHAPE_GPU_HEAD ? ENGINE_HEAD_VRAM : ENGINE_HEAD_RAM,
                                                 .experts_in_ram = !(i & ENGINE_SHAPE_GPU_EXPERTS)};
        int r = measure_gpu(e, &config, &s->gpu_scratch_bytes[i], layers);

        config.small_steps = true;
        if (r == 0)
            r = measure_gpu(e, &config, &s->gpu_small_scratch_bytes[i], layers);
        if (r == 0)
            r = note_places(e, i, tensors, places);
        if (r < 0)
            return r;
        for (uint32_t k = 0; k < s->n_layers; k++)
            s->layers[k].can_offload |= layers[k];
    }
    return make_runs(e, places, s);
}

static int fill(struct engine *e, const struct engine_config *config, struct engine_shape *s,
                struct fault *reterr)
{
    int r;

    s->n_layers = e->arch.n_layers;
    s->layers = calloc(s->n_layers ? s->n_layers : 1, sizeof(*s->layers));
    if (!s->layers)
        return -ENOMEM;
    s->file_bytes = gguf_map_bytes(e->map);
    for (size_t i = 0; i < e->n_adapters; i++)
        s->file_bytes += gguf_map_bytes(e->adapters[i].map);
    s->context_trained_tokens = e->arch.context_tokens;
    s->n_vocab = e->arch.n_vocab;
    count_tensors(e->gguf, s);
    for (size_t i = 0; i < e->n_adapters; i++)
        count_adapter(e->adapters[i].gguf, s);
    count_experts(e->gguf, e->arch.name, s);
    find_groups(&e->graph, s);
    count_kv(&e->graph, e->batch_tokens_max, s);
    r = count_scratch(e, config, s);
    if (r == 0)
        r = count_gpu(e, config, s);
    if (r == -ENOTSUP || r == -EINVAL)
        fault_set(reterr, FAULT_INVALID_PARAMETER, "k_type, v_type", "the cache can't have these types");
    return r == -ENOTSUP ? -EINVAL : r;
}

int engine_shape(const struct engine_config *config, struct engine_shape *ret, struct fault *reterr)
{
    struct engine_config c = *config;
    struct engine_shape shape = {.layers = NULL};
    _cleanup_engine_ struct engine *e = NULL;
    int r;

    c.lock = c.populate = false;
    r = engine_open_graph(&c, &e, reterr);
    if (r == 0)
        r = fill(e, &c, &shape, reterr);
    if (r < 0) {
        engine_shape_done(&shape);
        return r;
    }
    *ret = shape;
    return 0;
}

uint64_t engine_shape_kv_bytes(const struct engine_shape *s, const struct engine_config *c)
{
    uint64_t all = (c->kv_tokens + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS, n_bytes = 0;

    for (uint32_t i = 0; i < s->n_layers; i++) {
        const struct engine_shape_group *g = &s->groups[s->layers[i].group];
        uint64_t n = g->pages_per_sequence * c->sequences_max + g->pages_per_step;

        n_bytes += (g->window > 0 && n < all ? n : all) * (g->k_bytes[c->k_type] + g->v_bytes[c->v_type]);
    }
    return n_bytes;
}

void engine_shape_done(struct engine_shape *shape)
{
    free(shape->layers);
    free(shape->runs);
    *shape = (struct engine_shape){.layers = NULL};
}

double engine_memory_gbps(uint32_t n_threads)
{
    _cleanup_(threads_freep) struct threads *threads = NULL;
    double best = 0;
    void *memory;

    if (threads_new(n_threads ? n_threads : threads_cores(), &threads) < 0)
        return 0;
    memory = mmap(NULL, STREAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 0;
    /* Pages that were never written are all the same one. */
    memset(memory, 1, STREAM_BYTES);
    for (int i = 0; i < STREAM_RUNS; i++) {
        uint64_t ns = engine_stream_memory(threads, memory, STREAM_BYTES);
        double gbps = ns > 0 ? (double)STREAM_BYTES / (double)ns : 0;

        best = gbps > best ? gbps : best;
    }
    munmap(memory, STREAM_BYTES);
    return best;
}
