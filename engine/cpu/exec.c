/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The walk of all threads through a graph, and the memory it needs. What each operation does is in exec-ops.c.
 *
 * After each operation stands a barrier, whose last thread resets the counter from which pieces of work were drawn and
 * decides, for all, whether the step goes on. Two counters take turns: the next operation's must be at 0 before its
 * first thread comes, and the last operation's may be reset only when all threads have seen that it is drawn empty.
 */

#include "engine/cpu/exec.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/checked.h"
#include "engine/cpu/ahead.h"
#include "engine/cpu/exec-ops.h"
#include "engine/cpu/threads.h"

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Memory that is only taken as it is touched: a step smaller than the largest uses less. */
static int scratch_map(uint64_t n_bytes, uint8_t **ret)
{
    void *p = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        return -ENOMEM;
    (void)madvise(p, n_bytes, MADV_HUGEPAGE);
    *ret = p;
    return 0;
}

/* What products need, over all operations, in whole pages: what other operations need besides comes behind it. */
static uint64_t linear_scratch_max(const struct exec_config *x)
{
    uint32_t m = x->tokens_max > x->outputs_max ? x->tokens_max : x->outputs_max;
    uint64_t n_bytes = 0;

    for (size_t i = 0; i < x->graph->n_ops; i++) {
        const struct graph_linear *linears[GRAPH_LINEAR_MAX];
        uint32_t n = graph_op_linears(&x->graph->ops[i], linears);

        /* A row of an embedding's other matrices. */
        if (x->graph->ops[i].type == GRAPH_EMBED && x->graph->ops[i].embed.weight.n_cols * sizeof(float) > n_bytes)
            n_bytes = x->graph->ops[i].embed.weight.n_cols * sizeof(float);
        for (uint32_t k = 0; k < n; k++) {
            uint64_t need = linear_scratch_bytes(x->kernels, linears[k]->weight.n_cols, m);

            n_bytes = need > n_bytes ? need : n_bytes;
        }
    }
    for (size_t i = 0; i < (size_t)x->graph->n_sites * x->graph->n_adapters; i++) {
        const struct graph_adapted *a = &x->graph->adapted[i];
        uint32_t n_cols = a->down.n_cols > a->up.n_cols ? a->down.n_cols : a->up.n_cols;
        uint64_t need = a->down.data ? linear_scratch_bytes(x->kernels, n_cols, EXEC_ADAPT_TOKENS) : 0;

        n_bytes = need > n_bytes ? need : n_bytes;
    }
    return (n_bytes + SCRATCH_ALIGN - 1) / SCRATCH_ALIGN * SCRATCH_ALIGN;
}

/* Adapters change products of experts while those hold theirs. */
static uint64_t adapt_scratch_at(const struct exec_config *x)
{
    uint64_t experts = x->graph->n_experts ? exec_experts_scratch_bytes(x) : 0;

    return linear_scratch_max(x) + (experts + LINEAR_ALIGN - 1) / LINEAR_ALIGN * LINEAR_ALIGN;
}

/* Over all operations: they run one after the other, so they share it. */
int exec_thread_scratch_bytes(const struct exec_config *x, uint64_t *ret)
{
    uint64_t n_bytes = linear_scratch_max(x), behind = 0, attention = 0, pages;

    behind = adapt_scratch_at(x) - n_bytes;
    if (x->graph->n_sites)
        behind += exec_adapt_scratch_bytes(x);
    if (exec_heads_scratch_bytes(x) > behind)
        behind = exec_heads_scratch_bytes(x);
    n_bytes += behind;
    for (uint32_t i = 0; i < x->graph->n_groups; i++) {
        uint64_t need = attention_scratch_bytes(&x->layouts[i]);

        attention = need > attention ? need : attention;
    }
    if (!checked_mul(x->pages_max, sizeof(void *), &pages) || !checked_align(pages, SCRATCH_ALIGN, &pages) ||
        !checked_align(attention, SCRATCH_ALIGN, &attention) || !checked_add(attention, pages, &attention))
        return -EOVERFLOW;
    n_bytes = attention > n_bytes ? attention : n_bytes;
    return checked_align(n_bytes + 1, SCRATCH_ALIGN, ret) ? 0 : -EOVERFLOW;
}

int exec_threads_set(struct exec *x, struct threads *threads)
{
    uint64_t n_bytes;
    uint8_t *scratch;
    int r;

    if (!checked_mul(x->thread_scratch_bytes, threads_count(threads), &n_bytes))
        return -EOVERFLOW;
    r = scratch_map(n_bytes, &scratch);
    if (r < 0)
        return r;
    if (x->thread_scratch)
        munmap(x->thread_scratch, x->thread_scratch_total);
    x->thread_scratch = scratch;
    x->thread_scratch_total = n_bytes;
    x->threads = threads;
    return 0;
}

static int adapted_new(struct exec *x)
{
    for (uint32_t i = 0; x->graph->n_adapters && i < 2; i++) {
        x->adapted[i].groups = calloc(x->graph->n_adapters, sizeof(*x->adapted[i].groups));
        x->adapted[i].rows = calloc(i == 0 ? x->tokens_max : x->outputs_max, sizeof(*x->adapted[i].rows));
        if (!x->adapted[i].groups || !x->adapted[i].rows)
            return -ENOMEM;
    }
    return 0;
}

int exec_new(const struct exec_config *config, struct threads *threads, struct exec **ret)
{
    _cleanup_(exec_freep) struct exec *x = NULL;
    int r;

    x = aligned_alloc(_Alignof(struct exec), sizeof(*x));
    if (!x)
        return -ENOMEM;
    *x = (struct exec){
        .graph = config->graph,
        .kernels = config->kernels,
        .layouts = config->layouts,
        .pages = config->pages,
        .tokens_max = config->tokens_max,
        .outputs_max = config->outputs_max,
        .pages_max = config->pages_max,
        .ahead = config->ahead,
    };
    x->blocks = calloc(config->tokens_max, sizeof(*x->blocks));
    x->op_calls = calloc(config->graph->n_ops, sizeof(*x->op_calls));
    x->op_ns = calloc(config->graph->n_ops, sizeof(*x->op_ns));
    if (!x->blocks || !x->op_calls || !x->op_ns || adapted_new(x) < 0 || exec_traces_init(x) < 0)
        return -ENOMEM;

    r = scratch_map(config->graph->scratch_bytes, &x->scratch);
    if (r < 0)
        return r;
    x->linear_scratch_bytes = linear_scratch_max(config);
    x->adapt_scratch_at = adapt_scratch_at(config);
    r = exec_thread_scratch_bytes(config, &x->thread_scratch_bytes);
    if (r < 0)
        return r;
    r = exec_threads_set(x, threads);
    if (r < 0)
        return r;

    *ret = TAKE_PTR(x);
    return 0;
}

struct exec *exec_free(struct exec *x)
{
    if (!x)
        return NULL;
    if (x->scratch)
        munmap(x->scratch, x->graph->scratch_bytes);
    if (x->thread_scratch)
        munmap(x->thread_scratch, x->thread_scratch_total);
    for (uint32_t i = 0; i < 2; i++) {
        free(x->adapted[i].groups);
        free(x->adapted[i].rows);
    }
    exec_traces_done(x);
    free(x->blocks);
    free(x->op_calls);
    free(x->op_ns);
    free(x);
    return NULL;
}

/* Cuts the runs into blocks of queries. Late positions have the most keys, so they are handed out first. */
static void cut_blocks(struct exec *x, const struct exec_batch *batch)
{
    x->n_blocks = 0;
    for (uint32_t i = batch->n_runs; i-- > 0;) {
        const struct exec_run *run = &batch->runs[i];
        uint32_t n_blocks = (run->n_tokens + EXEC_BLOCK_QUERIES - 1) / EXEC_BLOCK_QUERIES;

        for (uint32_t k = n_blocks; k-- > 0;) {
            uint32_t first = k * EXEC_BLOCK_QUERIES, n = run->n_tokens - first;

            x->blocks[x->n_blocks++] = (struct exec_block){
                .run = i,
                .first = first,
                .n_queries = n < EXEC_BLOCK_QUERIES ? n : EXEC_BLOCK_QUERIES,
            };
        }
    }
}

bool exec_is_left_out(const struct exec *x, size_t i)
{
    const struct graph_op *op = &x->graph->ops[i];

    return (op->embeddings_only && !x->batch->wants_embeddings) || (op->adapters_only && !x->batch->adapters);
}

/* While one thread waits here for what the next operation needs, the others sleep in the barrier. */
static void go_on_to(struct exec *x, size_t i)
{
    while (i < x->graph->n_ops && exec_is_left_out(x, i))
        i++;
    x->i_op = i;
    if (i < x->graph->n_ops) {
        ahead_wait(x->ahead, i);
        exec_need_experts(x, i);
    }
}

/* Run by the last thread that ends an operation, while the others wait. */
static void end_operation(void *userdata)
{
    struct exec *x = userdata;

    atomic_store_explicit(&x->drawn[x->turn].n, 0, memory_order_relaxed);
    x->turn ^= 1;
    /* Only a flag: nothing that the cancelling thread wrote is read. */
    x->stopped = atomic_load_explicit(&x->cancelled, memory_order_relaxed);
    if (!x->ahead || x->stopped)
        return;
    ahead_done(x->ahead, x->i_op);
    go_on_to(x, x->i_op + 1);
}

static void walk(void *userdata, uint32_t thread, uint32_t n_threads)
{
    struct exec *x = userdata;
    struct exec_thread t = {
        .x = x,
        .thread = thread,
        .n_threads = n_threads,
        .scratch = x->thread_scratch + thread * x->thread_scratch_bytes,
    };
    bool timed = x->profiling && thread == 0;
    uint32_t n_done = 0;

    for (size_t i = x->first_op; i < x->past_op; i++) {
        uint64_t start = timed ? now_ns() : 0;

        if (exec_is_left_out(x, i))
            continue;
        t.drawn = &x->drawn[n_done++ & 1];
        exec_op(&t, &x->graph->ops[i]);
        threads_barrier(x->threads, end_operation, x);
        if (timed) {
            x->op_ns[i] += now_ns() - start;
            x->op_calls[i]++;
        }
        if (x->stopped)
            return;
    }
}

void exec_begin(struct exec *x, const struct exec_batch *batch)
{
    x->batch = batch;
    x->stopped = false;
    exec_traces_begin(x);
    cut_blocks(x, batch);
    if (batch->adapters)
        exec_adapt_group(x);
}

bool exec_part(struct exec *x, size_t first, size_t past)
{
    x->turn = 0;
    x->first_op = first;
    x->past_op = past;
    exec_traces_ops(x, first, past);
    if (x->ahead)
        go_on_to(x, first);
    threads_run(x->threads, walk, x);
    return !x->stopped;
}

bool exec_end(struct exec *x, const float **ret_logits)
{
    uint32_t n_outputs = x->batch->n_outputs;

    x->batch = NULL;
    /* Taken whether it came in time or not: a cancellation is meant for one step. */
    if (atomic_exchange_explicit(&x->cancelled, false, memory_order_relaxed) || x->stopped)
        return false;
    *ret_logits = n_outputs ? (const float *)(x->scratch + x->graph->values[x->graph->logits].offset) : NULL;
    return true;
}

bool exec_step(struct exec *x, const struct exec_batch *batch, const float **ret_logits)
{
    exec_begin(x, batch);
    (void)exec_part(x, 0, x->graph->n_ops);
    if (x->ahead)
        ahead_step_end(x->ahead);
    return exec_end(x, ret_logits);
}

float *exec_value(struct exec *x, uint32_t id, uint32_t *ret_rows)
{
    *ret_rows = exec_rows(x, id);
    exec_traces_value(x, id);
    return (float *)(void *)(x->scratch + x->graph->values[id].offset);
}

const float *exec_embeddings(const struct exec *x)
{
    return (const float *)(x->scratch + x->graph->values[x->graph->embeddings].offset);
}

void exec_cancel(struct exec *x)
{
    atomic_store_explicit(&x->cancelled, true, memory_order_relaxed);
}

uint64_t exec_scratch_bytes(const struct exec *x)
{
    return x->graph->scratch_bytes + x->thread_scratch_total;
}

void exec_profile_start(struct exec *x)
{
    memset(x->op_calls, 0, x->graph->n_ops * sizeof(*x->op_calls));
    memset(x->op_ns, 0, x->graph->n_ops * sizeof(*x->op_ns));
    x->profiling = true;
}

void exec_profile(const struct exec *x, size_t i_op, uint64_t *ret_calls, uint64_t *ret_ns)
{
    *ret_calls = x->op_calls[i_op];
    *ret_ns = x->op_ns[i_op];
}
