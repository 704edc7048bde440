/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Three counters of bytes run round and round the matrices that do not stay, laid end to end in the order of
 * operations: @used (what steps are done with), @arrived (what is in memory), @let_go. Always
 *
 *     let_go <= used,  used <= what the step asks for <= arrived <= used + window
 *
 * The reading thread moves @arrived, in pieces of CHUNK_BYTES, and @let_go; the one that leads a step moves @used. All
 * three are under @mutex, reading and letting go happens outside of it.
 *
 * It reads by populating the mapping: that brings 2 MiB pages, mapped, and an error is an error; a thread that computes
 * and finds a page missing all the same reads it by itself.
 */
#include "engine/cpu/ahead.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/memlock.h"
#include "engine/cpu/ahead-experts.h"
#include "engine/cpu/ahead-memory.h"

#define CHUNK_BYTES  (UINT64_C(8) << 20)
#define WINDOW_BYTES (UINT64_C(256) << 20) /* more than this much ahead gains nothing */
#define PAGE_BYTES   UINT64_C(4096)

struct ahead_range {
    uint64_t at; /* in the circle */
    const uint8_t *data;
    uint64_t n_bytes;
};

struct ahead {
    struct ahead_range *ranges; /* [n_ranges] that do not stay, in the order of the circle */
    size_t n_ranges;
    uint64_t *ends;  /* [n_ops] where in the circle what the operation needs ends */
    uint64_t circle; /* bytes in all; 0: everything stays */
    uint64_t window, bytes_locked;
    struct ahead_files files;
    struct experts *experts; /* NULL: the model has none */

    pthread_t thread;
    bool has_thread;
    pthread_mutex_t mutex;
    pthread_cond_t room; /* for the thread */
    pthread_cond_t news; /* for the step */
    uint64_t begun;      /* where in the circles the step began: a multiple of @circle */
    uint64_t used, arrived, let_go, n_read;
    bool stop;
};

/* ---- the plan ---- */

static bool is_dense(const struct graph_op *op)
{
    return op->type != GRAPH_EXPERTS_GLU && op->type != GRAPH_EXPERTS_DOWN;
}

static uint64_t matrix_bytes(const struct graph_op *op, const struct graph_linear *linear)
{
    uint64_t n_matrices = op->type == GRAPH_HEADS ? op->heads.n_heads : 1;

    return n_matrices * linear->weight.n_rows * linear->weight.row_bytes;
}

static size_t list_pieces(const struct graph *g, struct ahead_piece *pieces)
{
    size_t n = 0;

    for (size_t i = 0; i < g->n_ops; i++) {
        const struct graph_linear *linears[GRAPH_LINEAR_MAX];
        uint32_t n_linears = is_dense(&g->ops[i]) ? graph_op_linears(&g->ops[i], linears) : 0;

        for (uint32_t k = 0; k < n_linears; k++, n++) {
            if (pieces)
                pieces[n] = (struct ahead_piece){.i_op = i,
                                                 .data = linears[k]->weight.data,
                                                 .n_bytes = matrix_bytes(&g->ops[i], linears[k])};
        }
    }
    return n;
}

int ahead_plan(const struct graph *g, uint64_t bytes_max, struct ahead_piece **ret, size_t *ret_n,
               uint64_t *ret_window)
{
    size_t n = list_pieces(g, NULL);
    struct ahead_piece *pieces = calloc(n ? n : 1, sizeof(*pieces));
    uint64_t total = 0, of_op = 0, largest = 0, may_stay, window, stays = 0;
    double due = 0;

    if (!pieces)
        return -ENOMEM;
    list_pieces(g, pieces);
    for (size_t i = 0; i < n; i++) {
        total += pieces[i].n_bytes;
        of_op = (i > 0 && pieces[i - 1].i_op == pieces[i].i_op ? of_op : 0) + pieces[i].n_bytes;
        largest = of_op > largest ? of_op : largest;
    }
    window = bytes_max / 4 < WINDOW_BYTES ? bytes_max / 4 : WINDOW_BYTES;
    /* What one operation needs, and the next. */
    window = window < 2 * largest ? 2 * largest : window;
    if (total > bytes_max && window > bytes_max) {
        free(pieces);
        *ret_window = window;
        return -ENOSPC;
    }
    may_stay = total <= bytes_max ? total : bytes_max - window;
    for (size_t i = 0; i < n; i++) {
        due += (double)may_stay * (double)pieces[i].n_bytes / (double)total;
        pieces[i].stays = total <= bytes_max || (double)(stays + pieces[i].n_bytes) <= due;
        if (pieces[i].stays)
            stays += pieces[i].n_bytes;
    }
    *ret = pieces;
    *ret_n = n;
    *ret_window = window;
    return 0;
}

/* ---- the thread ---- */

/* The range of the circle that @at lies in. */
static const struct ahead_range *range_at(const struct ahead *a, uint64_t at)
{
    size_t low = 0, high = a->n_ranges;

    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;

        if (a->ranges[middle].at <= at)
            low = middle;
        else
            high = middle;
    }
    return &a->ranges[low];
}

/* The next chunk behind @at of the circles: at most CHUNK_BYTES, of one range. */
static uint64_t chunk_at(const struct ahead *a, uint64_t at, const uint8_t **ret_data)
{
    const struct ahead_range *range = range_at(a, at % a->circle);
    uint64_t inside = at % a->circle - range->at, left = range->n_bytes - inside;

    *ret_data = range->data + inside;
    return left < CHUNK_BYTES ? left : CHUNK_BYTES;
}

/* Under the mutex; gives it up meanwhile. False: there is nothing to do. */
static bool do_something(struct ahead *a)
{
    const uint8_t *data;
    uint64_t n;

    if (a->let_go < a->used) {
        n = chunk_at(a, a->let_go, &data);
        if (a->let_go + n <= a->used) {
            pthread_mutex_unlock(&a->mutex);
            ahead_let_go(&a->files, data, n);
            pthread_mutex_lock(&a->mutex);
            a->let_go += n;
            return true;
        }
    }
    if (a->arrived < a->used) /* a step was cancelled: what it would have used is not read for nothing */
        a->arrived = a->used;
    n = chunk_at(a, a->arrived, &data);
    if (a->arrived + n > a->used + a->window)
        return false;
    pthread_mutex_unlock(&a->mutex);
    ahead_populate(data, n);
    pthread_mutex_lock(&a->mutex);
    a->arrived += n;
    a->n_read += n;
    pthread_cond_signal(&a->news);
    return true;
}

static void *thread_main(void *userdata)
{
    struct ahead *a = userdata;

    pthread_mutex_lock(&a->mutex);
    while (!a->stop) {
        if (!do_something(a))
            pthread_cond_wait(&a->room, &a->mutex);
    }
    pthread_mutex_unlock(&a->mutex);
    return NULL;
}

/* ---- made and ended ---- */

static int keep(struct ahead *a, const struct ahead_piece *piece, bool lock)
{
    uintptr_t from = (uintptr_t)piece->data & ~(uintptr_t)(PAGE_BYTES - 1);

    ahead_populate(piece->data, piece->n_bytes);
    if (!lock)
        return 0;
    if (memlock((void *)from, (uintptr_t)piece->data + piece->n_bytes - from) < 0)
        return -errno;
    a->bytes_locked += piece->n_bytes;
    return 0;
}

static int take_pieces(struct ahead *a, const struct ahead_config *config, const struct ahead_piece *pieces, size_t n)
{
    size_t i = 0;

    a->ranges = calloc(n ? n : 1, sizeof(*a->ranges));
    a->ends = calloc(config->graph->n_ops, sizeof(*a->ends));
    if (!a->ranges || !a->ends)
        return -ENOMEM;
    for (size_t i_op = 0; i_op < config->graph->n_ops; i_op++) {
        for (; i < n && pieces[i].i_op == i_op; i++) {
            int r = pieces[i].stays ? keep(a, &pieces[i], config->lock) : 0;

            if (r < 0)
                return r;
            if (pieces[i].stays)
                continue;
            a->ranges[a->n_ranges++] =
                (struct ahead_range){.at = a->circle, .data = pieces[i].data, .n_bytes = pieces[i].n_bytes};
            a->circle += pieces[i].n_bytes;
        }
        a->ends[i_op] = a->circle;
    }
    return 0;
}

static int start(struct ahead *a)
{
    sigset_t all, before;
    int r;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&a->thread, NULL, thread_main, a);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    a->has_thread = r == 0;
    return -r;
}

static uint64_t dense_bytes(const struct graph *g)
{
    uint64_t n_bytes = 0;

    for (size_t i = 0; i < g->n_ops; i++) {
        const struct graph_linear *linears[GRAPH_LINEAR_MAX];
        uint32_t n = is_dense(&g->ops[i]) ? graph_op_linears(&g->ops[i], linears) : 0;

        for (uint32_t k = 0; k < n; k++)
            n_bytes += matrix_bytes(&g->ops[i], linears[k]);
    }
    return n_bytes;
}

/* What every token needs comes first; experts get the rest, and at least what one token's take in one layer. */
static void divide(const struct ahead_config *config, uint64_t *ret_dense, uint64_t *ret_experts)
{
    uint64_t at_least, all = experts_bytes(config->graph, &at_least), dense = dense_bytes(config->graph);
    uint64_t left = config->bytes_max > dense ? config->bytes_max - dense : 0;

    *ret_experts = all;
    if (left < all)
        *ret_experts = left > at_least ? left : at_least;
    *ret_dense = config->bytes_max > *ret_experts ? config->bytes_max - *ret_experts : 0;
}

int ahead_new(const struct ahead_config *config, struct ahead **ret, uint64_t *ret_needed)
{
    _cleanup_(ahead_freep) struct ahead *a = calloc(1, sizeof(*a));
    _cleanup_free_ struct ahead_piece *pieces = NULL;
    uint64_t bytes_max, bytes_experts;
    size_t n;
    int r;

    if (!a)
        return -ENOMEM;
    pthread_mutex_init(&a->mutex, NULL); /* these can't fail on Linux */
    pthread_cond_init(&a->room, NULL);
    pthread_cond_init(&a->news, NULL);
    divide(config, &bytes_max, &bytes_experts);
    r = ahead_plan(config->graph, bytes_max, &pieces, &n, &a->window);
    if (r == -ENOSPC)
        *ret_needed = a->window + bytes_experts;
    if (r == 0)
        r = ahead_files_copy(config, &a->files);
    if (r == 0)
        r = take_pieces(a, config, pieces, n);
    if (r == 0 && bytes_experts > 0)
        r = experts_new(config, &a->files, bytes_experts, &a->experts);
    if (r == 0 && a->circle > 0)
        r = start(a);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(a);
    return 0;
}

struct ahead *ahead_free(struct ahead *a)
{
    if (!a)
        return NULL;
    if (a->has_thread) {
        pthread_mutex_lock(&a->mutex);
        a->stop = true;
        pthread_cond_signal(&a->room);
        pthread_mutex_unlock(&a->mutex);
        pthread_join(a->thread, NULL);
    }
    pthread_cond_destroy(&a->news);
    pthread_cond_destroy(&a->room);
    pthread_mutex_destroy(&a->mutex);
    experts_free(a->experts);
    ahead_files_done(&a->files);
    free(a->ranges);
    free(a->ends);
    free(a);
    return NULL;
}

/* ---- the step ---- */

void ahead_wait(struct ahead *a, size_t i_op)
{
    if (a->circle == 0)
        return;
    pthread_mutex_lock(&a->mutex);
    while (a->arrived < a->begun + a->ends[i_op])
        pthread_cond_wait(&a->news, &a->mutex);
    pthread_mutex_unlock(&a->mutex);
}

void ahead_need_experts(struct ahead *a, size_t i_op, const uint32_t *active, uint32_t n)
{
    if (a->experts)
        experts_need(a->experts, i_op, active, n);
}

static void use_up_to(struct ahead *a, uint64_t at)
{
    if (at == a->used)
        return;
    a->used = at;
    pthread_cond_signal(&a->room);
}

void ahead_done(struct ahead *a, size_t i_op)
{
    if (a->circle == 0)
        return;
    pthread_mutex_lock(&a->mutex);
    use_up_to(a, a->begun + a->ends[i_op]);
    pthread_mutex_unlock(&a->mutex);
}

void ahead_step_end(struct ahead *a)
{
    if (a->circle == 0)
        return;
    pthread_mutex_lock(&a->mutex);
    a->begun += a->circle;
    use_up_to(a, a->begun);
    pthread_mutex_unlock(&a->mutex);
}

uint64_t ahead_bytes_locked(const struct ahead *a)
{
    return a->bytes_locked + (a->experts ? experts_bytes_locked(a->experts) : 0);
}

uint64_t ahead_bytes_read(struct ahead *a)
{
    uint64_t n;

    pthread_mutex_lock(&a->mutex);
    n = a->n_read;
    pthread_mutex_unlock(&a->mutex);
    return n + (a->experts ? experts_bytes_read(a->experts) : 0);
}
