/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Steps of few tokens are some hundred launches of small kernels, which take the processor longer to hand in than the
 * GPU to run. So the launches of a range of operations are captured once, as a graph, and handed in with one call from
 * then on. What changes from step to step without changing a launch (tokens, positions, pages) is in the device's
 * memory already, at the same place; what does change a launch is the graph's key. Page tables and segments grow in
 * coarse steps (gpu_begin()), so that a sequence which gets longer stays with its graph for GPU_GRAPH_PAGES pages.
 *
 * A range is captured when it comes for the second time: much comes only once. Where the driver refuses, for want of
 * memory or because it can't, launches are handed in one by one as before; a graph changes no bit.
 */

#include <assert.h>
#include <string.h>

#include "base/fault.h"
#include "engine/cuda/gpu-internal.h"

/* Places that a key may be at. */
#define WAYS 4

/* Operations of all graphs together: each takes some hundred bytes of the device and of RAM. */
#define OPS_MAX 16384

static struct gpu_graph_key key_of(const struct gpu *g, size_t first, size_t past)
{
    struct gpu_graph_key key = {.first = (uint32_t)first,
                                .past = (uint32_t)past,
                                .n_tokens = g->batch->n_tokens,
                                .n_outputs = g->batch->n_outputs,
                                .table_stride = g->table_stride,
                                .n_segments = g->n_segments};

    for (uint32_t i = 0; i < g->n_cuts; i++)
        key.n_queries[i] = g->cuts[i].n;
    for (uint32_t i = 0; i < 2; i++) {
        key.n_adapted[i] = g->adapted[i].n_groups;
        for (uint32_t k = 0; k < key.n_adapted[i]; k++)
            key.adapted[i][k] = g->adapted[i].groups[k];
    }
    return key;
}

bool gpu_graphs_can(const struct gpu *g)
{
    return g->batch->n_tokens <= GPU_GRAPH_TOKENS_MAX && !g->refuses_graphs &&
           g->adapted[0].n_groups <= GPU_GRAPH_ADAPTERS && g->adapted[1].n_groups <= GPU_GRAPH_ADAPTERS;
}

static uint32_t hash(const struct gpu_graph_key *key)
{
    uint32_t words[sizeof(*key) / sizeof(uint32_t)], h = 2166136261u;

    static_assert(sizeof(words) == sizeof(*key), "a key is words, without gaps");
    memcpy(words, key, sizeof(words));
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        h = (h ^ words[i]) * 16777619u;
    return h ^ h >> 15;
}

static void forget(struct gpu *g, struct gpu_graph *x)
{
    if (x->exec) {
        (void)g->device->driver->graph_exec_free(x->exec);
        g->n_graph_ops -= x->key.past - x->key.first;
    }
    *x = (struct gpu_graph){.exec = NULL};
}

void gpu_graphs_forget(struct gpu *g)
{
    if (g->device)
        (void)g->device->driver->context_set(g->device->context);
    for (uint32_t i = 0; g->device && i < GPU_GRAPHS; i++)
        forget(g, &g->graphs[i]);
}

/* The graph's own place, or the one that was not used for the longest time. */
static struct gpu_graph *find(struct gpu *g, const struct gpu_graph_key *key)
{
    struct gpu_graph *set = &g->graphs[hash(key) % (GPU_GRAPHS / WAYS) * WAYS], *oldest = set;

    for (uint32_t i = 0; i < WAYS; i++) {
        if (set[i].n_used && memcmp(&set[i].key, key, sizeof(*key)) == 0)
            return &set[i];
        if (set[i].last_used < oldest->last_used)
            oldest = &set[i];
    }
    forget(g, oldest);
    oldest->key = *key;
    return oldest;
}

/* Returns 0, with x->exec NULL where it can't be done; DRIVER_LOST. What a launch says here is not told: launched by
 * itself it says it again, if capturing was not the reason. */
static int capture(struct gpu *g, struct gpu_graph *x, struct fault *reterr)
{
    const struct driver *v = g->device->driver;
    struct cuda_graph *graph = NULL;
    struct fault f = {.kind = FAULT_NONE};
    int r, error;

    r = driver_check(v, v->capture_begin(g->device->stream, CUDA_CAPTURE_THREAD_LOCAL), "cuStreamBeginCapture", &f);
    if (r == 0) {
        r = gpu_run_ops(g, x->key.first, x->key.past, &f);
        error = v->capture_end(g->device->stream, &graph);
        r = r != 0 ? r : driver_check(v, error, "cuStreamEndCapture", &f);
    }
    if (r == 0)
        r = driver_check(v, v->graph_instantiate(&x->exec, graph, 0), "cuGraphInstantiateWithFlags", &f);
    if (graph)
        (void)v->graph_free(graph);
    if (r == 0) {
        g->n_graph_ops += x->key.past - x->key.first;
        return 0;
    }
    x->exec = NULL;
    g->refuses_graphs = true;
    if (r != DRIVER_LOST)
        return 0;
    if (reterr)
        *reterr = f;
    return r;
}

int gpu_graphs_run(struct gpu *g, size_t first, size_t past, struct fault *reterr)
{
    const struct driver *v = g->device->driver;
    const struct gpu_graph_key key = key_of(g, first, past);
    struct gpu_graph *x = find(g, &key);
    int r = 0;

    x->last_used = ++g->n_graph_uses;
    if (x->n_used++ > 0 && !x->exec) {
        if (g->n_graph_ops + (past - first) > OPS_MAX) {
            gpu_graphs_forget(g);
            *x = (struct gpu_graph){.key = key, .last_used = g->n_graph_uses, .n_used = 2};
        }
        r = capture(g, x, reterr);
    }
    if (r != 0)
        return r;
    if (!x->exec)
        return gpu_run_ops(g, first, past, reterr);
    return driver_check(v, v->graph_launch(x->exec, g->device->stream), "cuGraphLaunch", reterr);
}
