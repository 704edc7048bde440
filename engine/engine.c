/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Opening and closing a model: files → mapping → directory → graph → memory for keys, values and activations →
 * threads. Sequences and steps are in engine-sequence.c and engine-step.c.
 *
 * Whatever is taken here is owned by struct engine and released by engine_free(), which works on a half-made one; so
 * each stage just returns its error.
 */

#include "engine/engine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fault.h"
#include "base/utf8.h"
#include "engine/engine-internal.h"
#include "engine/kernels/dequantise.h"

#define BATCH_TOKENS_DEFAULT 512

/* Beyond these a caller has mixed something up. */
#define BATCH_TOKENS_MAX (1u << 16)
#define SEQUENCES_MAX    (1u << 16)

/* general.file_type of the GGUF specification. */
static const char *const file_types[] = {
    [0] = "F32",      [1] = "F16",      [2] = "Q4_0",     [3] = "Q4_1",     [7] = "Q8_0",    [8] = "Q5_0",
    [9] = "Q5_1",     [10] = "Q2_K",    [11] = "Q3_K_S",  [12] = "Q3_K_M",  [13] = "Q3_K_L", [14] = "Q4_K_S",
    [15] = "Q4_K_M",  [16] = "Q5_K_S",  [17] = "Q5_K_M",  [18] = "Q6_K",    [19] = "IQ2_XXS", [20] = "IQ2_XS",
    [21] = "Q2_K_S",  [22] = "IQ3_XS",  [23] = "IQ3_XXS", [24] = "IQ1_S",   [25] = "IQ4_NL", [26] = "IQ3_S",
    [27] = "IQ3_M",   [28] = "IQ2_S",   [29] = "IQ2_M",   [30] = "IQ4_XS",  [31] = "IQ1_M",  [32] = "BF16",
    [36] = "TQ1_0",   [37] = "TQ2_0",   [38] = "MXFP4",
};

static int fault_memory(struct fault *f, uint64_t needed)
{
    long pages = sysconf(_SC_AVPHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);

    fault_init(f, FAULT_INSUFFICIENT_MEMORY, "ram");
    if (f) {
        f->used = needed > INT64_MAX ? INT64_MAX : (int64_t)needed;
        f->limit = pages > 0 && page_bytes > 0 ? pages * page_bytes : 0;
    }
    return -ENOMEM;
}

/* What is wrong with the file of adapter @i is said of that, not of the model. */
static int fault_adapter(struct fault *f, size_t i, int error)
{
    char reason[sizeof(f->reason)];

    if (f && f->kind == FAULT_MODEL_INVALID) {
        snprintf(reason, sizeof(reason), "%s", f->reason);
        snprintf(f->reason, sizeof(f->reason), "adapter %zu: %.400s", i + 1, reason);
    }
    return error;
}

static int config_check(const struct engine_config *c, struct fault *reterr)
{
    const char *what = NULL;

    if (c->n_fds == 0)
        what = "n_fds";
    else if (c->n_adapters > ENGINE_ADAPTERS_MAX)
        what = "n_adapters";
    else if (c->sequences_max == 0 || c->sequences_max > SEQUENCES_MAX)
        what = "sequences_max";
    else if (c->batch_tokens_max > BATCH_TOKENS_MAX)
        what = "batch_tokens_max";
    else if (c->n_threads > THREADS_MAX)
        what = "n_threads";
    if (!what)
        return 0;
    fault_set(reterr, FAULT_INVALID_PARAMETER, what, "out of range");
    return -EINVAL;
}

static int open_file(struct engine *e, const struct engine_config *c, struct fault *reterr)
{
    bool whole = c->weights_bytes_max == 0 && !engine_gpus_lock_later(c);
    unsigned flags = (c->small_pages ? GGUF_MAP_SMALL : GGUF_MAP_HUGE) |
                     (whole && c->populate ? GGUF_MAP_POPULATE : 0u) |
                     (whole && c->lock ? (unsigned)GGUF_MAP_LOCK : 0u);
    const struct gguf_part *parts;
    size_t n_parts;
    int r;

    r = gguf_map(c->fds, c->n_fds, flags, &e->map, reterr);
    if (r < 0)
        return r;
    parts = gguf_map_parts(e->map, &n_parts);
    return gguf_read(parts, n_parts, &e->gguf, reterr);
}

static int open_adapters(struct engine *e, const struct engine_config *c, struct fault *reterr)
{
    unsigned flags = (c->populate ? GGUF_MAP_POPULATE : 0u) | (c->lock ? (unsigned)GGUF_MAP_LOCK : 0u);

    e->adapters = calloc(c->n_adapters ? c->n_adapters : 1, sizeof(*e->adapters));
    if (!e->adapters)
        return -ENOMEM;
    e->n_adapters = c->n_adapters;
    for (size_t i = 0; i < c->n_adapters; i++) {
        const struct gguf_part *parts;
        size_t n_parts;
        int r;

        r = gguf_map(&c->adapters[i], 1, flags, &e->adapters[i].map, reterr);
        if (r < 0)
            return fault_adapter(reterr, i, r);
        parts = gguf_map_parts(e->adapters[i].map, &n_parts);
        r = gguf_read(parts, n_parts, &e->adapters[i].gguf, reterr);
        if (r < 0)
            return fault_adapter(reterr, i, r);
    }
    return 0;
}

static int weight_format(const void *userdata, enum tensor_type type)
{
    const struct kernels *kernels = userdata;

    if (!linear_has_type(type) || !dequantise_has_type(type))
        return -EINVAL;
    return (int)linear_format(kernels, type);
}

static size_t packed_bytes(const void *userdata, uint32_t format, uint32_t n_cols, uint32_t n_rows)
{
    return linear_pack_bytes(userdata, (enum act_format)format, n_cols, n_rows);
}

static int adapt_graph(struct engine *e, const struct arch_target *target, struct fault *reterr)
{
    _cleanup_free_ const struct gguf **adapters = calloc(e->n_adapters ? e->n_adapters : 1, sizeof(struct gguf *));
    size_t i_bad = 0;
    int r;

    if (!adapters)
        return -ENOMEM;
    for (size_t i = 0; i < e->n_adapters; i++)
        adapters[i] = e->adapters[i].gguf;
    r = arch_adapt(&e->graph, e->gguf, adapters, e->n_adapters, target, &i_bad, reterr);
    return r == -EINVAL ? fault_adapter(reterr, i_bad, r) : r;
}

static int open_graph(struct engine *e, const struct engine_config *c, struct fault *reterr)
{
    const struct arch_target target = {
        .format = weight_format, .userdata = &e->kernels, .context_tokens = c->context_tokens};
    struct graph_limits limits = {.packed_bytes = packed_bytes, .userdata = &e->kernels};
    int r;

    kernels_select(kernels_isa_detect() & c->isa_mask, &e->kernels);
    r = arch_build(e->gguf, &target, &e->arch, &e->graph, reterr);
    if (r == 0)
        r = adapt_graph(e, &target, reterr);
    if (r < 0)
        return r;

    e->context_tokens = e->arch.context_tokens;
    if (c->context_tokens && c->context_tokens < e->context_tokens)
        e->context_tokens = c->context_tokens;
    e->sequences_max = c->sequences_max;
    e->batch_tokens_max = c->batch_tokens_max ? c->batch_tokens_max : BATCH_TOKENS_DEFAULT;
    /* An encoder's text is one step. */
    if (e->graph.is_encoder && e->context_tokens > BATCH_TOKENS_MAX)
        e->context_tokens = BATCH_TOKENS_MAX;
    if (e->graph.is_encoder && e->batch_tokens_max < e->context_tokens)
        e->batch_tokens_max = e->context_tokens;
    e->outputs_max = c->outputs_max ? c->outputs_max : c->sequences_max;
    if (e->outputs_max > e->batch_tokens_max)
        e->outputs_max = e->batch_tokens_max;

    limits.tokens_max = e->batch_tokens_max;
    limits.outputs_max = e->outputs_max;
    r = graph_plan(&e->graph, &limits);
    if (r == -EOVERFLOW)
        return fault_memory(reterr, UINT64_MAX);
    return r;
}

/* How a group's pages are laid out. */
static int open_layout(struct engine *e, uint32_t i, const struct engine_config *c, struct fault *reterr)
{
    const struct graph_group *group = &e->graph.groups[i];
    int r = kv_layout_init(&e->layouts[i], c->k_type, c->v_type, group->n_kv_heads, group->k_dim, group->v_dim);

    if (r == -ENOTSUP) {
        const struct tensor_traits *k = tensor_traits(c->k_type), *v = tensor_traits(c->v_type);

        fault_set(reterr, FAULT_INVALID_PARAMETER, "k_type, v_type",
                  "keys of type %s with values of type %s are not supported", k ? k->name : "unknown",
                  v ? v->name : "unknown");
        return -EINVAL;
    }
    if (r == -EINVAL)
        fault_model_invalid(reterr, FAULT_NO_OFFSET,
                            "%u key/value heads of %u and %u dimensions are more than a cache page can hold",
                            group->n_kv_heads, group->k_dim, group->v_dim);
    return r;
}

/* @n_layers: those on GPUs too. */
static int open_group(struct engine *e, uint32_t i, uint32_t n_pages, uint32_t n_layers, struct fault *reterr)
{
    uint64_t page_bytes, n_bytes;
    int r;

    if (!checked_mul(e->layouts[i].page_bytes, e->graph.groups[i].n_layers, &page_bytes) ||
        !checked_mul(page_bytes, n_pages, &n_bytes))
        return fault_memory(reterr, UINT64_MAX);
    /* Of a group whose layers are all on GPUs only the numbers are needed; no memory is taken before it is used. */
    r = pages_new(n_pages, page_bytes ? page_bytes : KV_ALIGN, &e->pages[i]);
    if (r == -ENOMEM || r == -EOVERFLOW)
        return fault_memory(reterr, n_bytes);
    if (r < 0)
        return r;
    e->facts.bytes_kv += n_bytes;
    e->facts.bytes_kv_page += e->layouts[i].page_bytes * n_layers;
    return 0;
}

/*
 * Pages of group @i, where @n_pages hold all tokens. Layers with a window keep what it spans, in every sequence, and
 * what one step adds to that; a sequence's window may begin and end within a page.
 */
static uint32_t group_pages(const struct engine *e, uint32_t i, uint32_t n_pages)
{
    uint64_t window = e->graph.groups[i].window, n;

    if (window == 0)
        return n_pages;
    n = engine_window_pages(window) * e->sequences_max + e->batch_tokens_max / KV_PAGE_TOKENS;
    return n < n_pages ? (uint32_t)n : n_pages;
}

static int open_sequences(struct engine *e, const struct engine_config *c, struct fault *reterr)
{
    uint32_t pages_max = e->context_tokens / KV_PAGE_TOKENS + (e->context_tokens % KV_PAGE_TOKENS != 0);
    uint64_t n_pages = (uint64_t)pages_max * e->sequences_max;
    uint32_t n_group_pages[GRAPH_GROUPS_MAX] = {0}, n_group_layers[GRAPH_GROUPS_MAX] = {0};
    int r;

    if (c->kv_tokens)
        n_pages = c->kv_tokens / KV_PAGE_TOKENS + (c->kv_tokens % KV_PAGE_TOKENS != 0);
    if (n_pages > UINT32_MAX)
        return fault_memory(reterr, UINT64_MAX);
    e->facts.pages_total = (uint32_t)n_pages;

    e->sequences = calloc(e->sequences_max, sizeof(*e->sequences));
    if (!e->sequences)
        return -ENOMEM;
    for (uint32_t i = 0; i < e->graph.n_groups; i++) {
        r = open_layout(e, i, c, reterr);
        if (r < 0)
            return r;
        n_group_pages[i] = group_pages(e, i, (uint32_t)n_pages);
        n_group_layers[i] = e->graph.groups[i].n_layers;
    }
    r = engine_gpus_open(e, c, n_group_pages, reterr);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < e->graph.n_groups; i++) {
        r = open_group(e, i, n_group_pages[i], n_group_layers[i], reterr);
        if (r < 0)
            return r;
        for (uint32_t s = 0; s < e->sequences_max; s++) {
            r = page_table_init(&e->sequences[s].tables[i], pages_max);
            if (r < 0)
                return r;
        }
    }
    r = engine_gpus_lock_later(c) ? engine_gpus_hold(e, c, reterr) : 0;
    if (r < 0)
        return r;
    engine_gpus_mirror(e);
    e->active = calloc(e->batch_tokens_max, sizeof(*e->active));
    e->token_runs = calloc(e->batch_tokens_max, sizeof(*e->token_runs));
    e->token_adapters = calloc(e->batch_tokens_max, sizeof(*e->token_adapters));
    e->outputs = calloc(e->outputs_max, sizeof(*e->outputs));
    e->runs = calloc(e->batch_tokens_max, sizeof(*e->runs));
    return e->active && e->token_runs && e->token_adapters && e->outputs && e->runs ? 0 : -ENOMEM;
}

/* Part of the weights stays in memory, and a thread reads the rest ahead of the step. */
static int open_ahead(struct engine *e, const struct engine_config *c, struct fault *reterr)
{
    _cleanup_free_ struct ahead_file *files = NULL;
    struct ahead_config config = {.graph = &e->graph, .bytes_max = c->weights_bytes_max, .lock = c->lock};
    const struct gguf_part *parts;
    uint64_t needed = 0;
    int r;

    if (c->weights_bytes_max == 0)
        return 0;
    parts = gguf_map_parts(e->map, &config.n_files);
    files = calloc(config.n_files, sizeof(*files));
    if (!files)
        return -ENOMEM;
    for (size_t i = 0; i < config.n_files; i++)
        files[i] = (struct ahead_file){.data = parts[i].data, .n_bytes = parts[i].n_bytes, .fd = c->fds[i]};
    config.files = files;
    r = ahead_new(&config, &e->ahead, &needed);
    if (r == -ENOSPC && reterr) {
        fault_init(reterr, FAULT_INSUFFICIENT_MEMORY, "ram");
        reterr->used = (int64_t)needed;
        reterr->limit = (int64_t)c->weights_bytes_max;
    }
    return r == -ENOSPC ? -ENOMEM : r;
}

static int open_exec(struct engine *e, const struct engine_config *c, struct fault *reterr)
{
    struct exec_config config = {
        .graph = &e->graph,
        .kernels = &e->kernels,
        .layouts = e->layouts,
        .pages = e->pages,
        .tokens_max = e->batch_tokens_max,
        .outputs_max = e->outputs_max,
        .pages_max = e->context_tokens / KV_PAGE_TOKENS + 1,
        .ahead = e->ahead,
    };
    int r;

    r = threads_new(c->n_threads ? c->n_threads : threads_cores(), &e->threads);
    if (r < 0)
        return r;
    r = exec_new(&config, e->threads, &e->exec);
    if (r == -ENOMEM || r == -EOVERFLOW)
        return fault_memory(reterr, e->graph.scratch_bytes);
    return r;
}

/* A type's name in capitals, as files are called. */
static char *type_name_dup(enum tensor_type type)
{
    char *name = strdup(tensor_traits(type)->name);

    for (char *p = name; p && *p; p++)
        if (*p >= 'a' && *p <= 'z')
            *p = (char)(*p - 'a' + 'A');
    return name;
}

/* What people call the mixture of types: by the file's own word, or by the type that most bytes have. */
static char *quantization_dup(const struct gguf *g)
{
    uint64_t n_bytes[TENSOR_TYPE_MAX] = {0};
    uint32_t file_type, best = 0;

    if (gguf_get_u32(g, "general.file_type", &file_type, NULL) == 0 &&
        file_type < sizeof(file_types) / sizeof(file_types[0]) && file_types[file_type])
        return strdup(file_types[file_type]);
    for (size_t i = 0; i < gguf_n_tensors(g); i++)
        n_bytes[gguf_tensor(g, i)->type] += gguf_tensor(g, i)->n_bytes;
    for (uint32_t i = 1; i < TENSOR_TYPE_MAX; i++)
        if (n_bytes[i] > n_bytes[best])
            best = i;
    return type_name_dup((enum tensor_type)best);
}

static char *name_dup(const struct gguf *g)
{
    struct gguf_string name;

    if (gguf_get_string(g, "general.name", &name, NULL) < 0 || !utf8_is_valid(name.data, name.n_bytes, NULL) ||
        memchr(name.data, '\0', name.n_bytes))
        return strdup("");
    return strndup(name.data, name.n_bytes);
}

/* Bytes of weights that one token's way through the model reads: every matrix that is multiplied with, of experts as
 * many as a token has. */
static uint64_t count_bytes_per_token(const struct graph *g)
{
    uint64_t n = 0;

    for (size_t i = 0; i < g->n_ops; i++) {
        const struct graph_linear *linears[GRAPH_LINEAR_MAX];
        uint32_t n_linears = graph_op_linears(&g->ops[i], linears);
        uint32_t n_matrices = graph_op_matrices(g, &g->ops[i]);

        for (uint32_t k = 0; k < n_linears; k++)
            n += n_matrices * linears[k]->weight.n_rows * linears[k]->weight.row_bytes;
    }
    return n;
}

static int open_facts(struct engine *e)
{
    struct engine_facts *f = &e->facts;

    e->name = name_dup(e->gguf);
    e->quantization = quantization_dup(e->gguf);
    if (!e->name || !e->quantization)
        return -ENOMEM;
    f->architecture = e->arch.name;
    f->name = e->name;
    f->quantization = e->quantization;
    f->isa = kernels_isa_name(e->kernels.isa);
    for (size_t i = 0; i < gguf_n_tensors(e->gguf); i++)
        f->n_parameters += gguf_tensor(e->gguf, i)->n_rows * gguf_tensor(e->gguf, i)->dims[0];
    f->n_layers = e->arch.n_layers;
    f->n_vocab = e->arch.n_vocab;
    f->n_embedding = e->arch.n_embedding;
    f->is_encoder = e->graph.is_encoder;
    f->context_trained_tokens = e->arch.context_tokens;
    f->context_tokens = e->context_tokens;
    f->sequences_max = e->sequences_max;
    f->batch_tokens_max = e->batch_tokens_max;
    f->outputs_max = e->outputs_max;
    f->page_tokens = KV_PAGE_TOKENS;
    f->bytes_weights = gguf_map_bytes(e->map);
    f->bytes_locked = e->ahead ? ahead_bytes_locked(e->ahead) : gguf_map_bytes_locked(e->map);
    f->n_adapters = (uint32_t)e->n_adapters;
    for (size_t i = 0; i < e->n_adapters; i++) {
        f->bytes_weights += gguf_map_bytes(e->adapters[i].map);
        f->bytes_locked += gguf_map_bytes_locked(e->adapters[i].map);
    }
    f->bytes_per_token = count_bytes_per_token(&e->graph);
    return engine_profile_init(e);
}

int engine_open_graph(const struct engine_config *config, struct engine **ret, struct fault *reterr)
{
    _cleanup_engine_ struct engine *e = NULL;
    int r;

    r = config_check(config, reterr);
    if (r < 0)
        return r;
    e = calloc(1, sizeof(*e));
    if (!e)
        return -ENOMEM;
    graph_init(&e->graph);

    r = open_file(e, config, reterr);
    if (r < 0)
        return r;
    r = open_adapters(e, config, reterr);
    if (r < 0)
        return r;
    r = open_graph(e, config, reterr);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(e);
    return 0;
}

int engine_open(const struct engine_config *config, struct engine **ret, struct fault *reterr)
{
    _cleanup_engine_ struct engine *e = NULL;
    int r;

    r = engine_open_graph(config, &e, reterr);
    if (r < 0)
        return r;
    r = open_sequences(e, config, reterr);
    if (r < 0)
        return r;
    r = engine_prefix_init(e);
    if (r < 0)
        return r;
    r = open_ahead(e, config, reterr);
    if (r < 0)
        return r;
    r = open_exec(e, config, reterr);
    if (r < 0)
        return r;
    r = open_facts(e);
    if (r < 0)
        return r;
    if (config->touch && !e->ahead)
        engine_touch(e);
    *ret = TAKE_PTR(e);
    return 0;
}

struct engine *engine_free(struct engine *e)
{
    if (!e)
        return NULL;
    engine_profile_done(e);
    exec_free(e->exec);
    ahead_free(e->ahead);
    threads_free(e->threads);
    prefix_free(e->prefix);
    for (uint32_t i = 0; i < e->graph.n_groups; i++) {
        for (uint32_t s = 0; e->sequences && s < e->sequences_max; s++)
            page_table_done(&e->sequences[s].tables[i], e->pages[i]);
        pages_free(e->pages[i]);
    }
    engine_gpus_close(&e->gpus);
    free(e->sequences);
    free(e->active);
    free(e->token_runs);
    free(e->token_adapters);
    free(e->outputs);
    free(e->runs);
    free(e->name);
    free(e->quantization);
    graph_done(&e->graph);
    for (size_t i = 0; i < e->n_adapters; i++) {
        gguf_free(e->adapters[i].gguf);
        gguf_unmap(e->adapters[i].map);
    }
    free(e->adapters);
    gguf_free(e->gguf);
    gguf_unmap(e->map);
    free(e);
    return NULL;
}

const struct gguf *engine_gguf(const struct engine *e)
{
    return e->gguf;
}

void engine_facts(const struct engine *e, struct engine_facts *ret)
{
    *ret = e->facts;
    ret->n_threads = threads_count(e->threads);
    ret->bytes_scratch = exec_scratch_bytes(e->exec);
}

int engine_threads_set(struct engine *e, uint32_t n)
{
    _cleanup_(threads_freep) struct threads *threads = NULL;
    int r;

    if (n == 0)
        n = threads_cores();
    if (n == threads_count(e->threads))
        return 0;
    r = threads_new(n, &threads);
    if (r < 0)
        return r;
    r = exec_threads_set(e->exec, threads);
    if (r < 0)
        return r;
    threads_free(e->threads);
    e->threads = TAKE_PTR(threads);
    return 0;
}
