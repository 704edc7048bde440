/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A step that goes through places: the operations in their order, each where it was put, and values carried when the
 * next operation reads them on another side. A long step goes through them in pieces, of which each place has one.
 */

#include "engine/engine-gpu.h"

#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "engine/cuda/device.h"
#include "engine/engine-gpu-pieces.h"
#include "engine/engine-internal.h"

static void zero_page(void *userdata, uint32_t id)
{
    const struct engine_gpu_group *g = userdata;

    for (uint32_t i = 0; i < g->gpus->n_gpus; i++)
        gpu_page_zero(g->gpus->gpus[i], g->group, id);
}

static void copy_page(void *userdata, uint32_t to, uint32_t from)
{
    const struct engine_gpu_group *g = userdata;

    for (uint32_t i = 0; i < g->gpus->n_gpus; i++)
        gpu_page_copy(g->gpus->gpus[i], g->group, to, from);
}

void engine_gpus_mirror(struct engine *e)
{
    for (uint32_t i = 0; e->gpus.n_gpus > 0 && i < e->graph.n_groups; i++) {
        e->gpus.groups[i] = (struct engine_gpu_group){.gpus = &e->gpus, .group = i};
        pages_mirror_set(e->pages[i], &(struct pages_mirror){
                                          .zero = zero_page, .copy = copy_page, .userdata = &e->gpus.groups[i]});
    }
}

void engine_gpus_wipe(struct engine_gpus *g)
{
    for (uint32_t i = 0; i < g->n_gpus; i++)
        gpu_wipe(g->gpus[i]);
    if (g->n_gpus == 0)
        return;
    g->top.n = 0;
    memset(g->top_ids, 0, g->n_top_room * sizeof(*g->top_ids));
    memset(g->top_logits, 0, g->n_top_room * sizeof(*g->top_logits));
}

/* Between two GPUs by way of the memory that the value has on the CPU. */
static int carry(struct engine *e, const struct engine_transfer *t, struct fault *reterr)
{
    uint32_t n_rows;
    float *value = exec_value(e->exec, t->value, &n_rows);
    int r = 0;

    if (t->from != 0)
        r = gpu_get(e->gpus.gpus[t->from - 1], t->value, value, n_rows, reterr);
    if (r == 0 && t->to != 0)
        r = gpu_put(e->gpus.gpus[t->to - 1], t->value, value, n_rows, reterr);
    return r;
}

/* The logits of the last operation: all of them, or the largest where that is enough and a GPU finds them. */
static int carry_logits(struct engine *e, const struct engine_transfer *t, struct fault *reterr)
{
    struct engine_gpus *g = &e->gpus;
    uint32_t n_rows;
    int r;

    if (t->value != e->graph.logits || g->n_top_wanted == 0 ||
        !gpu_has_top(g->gpus[t->from - 1], t->value, g->n_top_wanted))
        return carry(e, t, reterr);
    (void)exec_value(e->exec, t->value, &n_rows);
    r = gpu_get_top(g->gpus[t->from - 1], t->value, g->n_top_wanted, n_rows, g->top_ids, g->top_logits, reterr);
    if (r == 0 && n_rows > 0)
        g->top = (struct engine_top){.n = g->n_top_wanted, .ids = g->top_ids, .logits = g->top_logits};
    return r;
}

/* What is carried next, @i_transfer or one behind it; nothing is for operations that are left out. */
static size_t next_transfer(const struct engine *e, size_t i_transfer)
{
    const struct engine_gpus *g = &e->gpus;

    while (i_transfer < g->n_transfers && g->transfers[i_transfer].op < e->graph.n_ops &&
           exec_is_left_out(e->exec, g->transfers[i_transfer].op))
        i_transfer++;
    return i_transfer;
}

/* The operations from @first on, before @end, at the same place or left out, with nothing carried in between. */
static size_t part_end(const struct engine *e, size_t first, size_t end, size_t i_transfer)
{
    size_t past = first + 1;

    if (i_transfer < e->gpus.n_transfers && e->gpus.transfers[i_transfer].op < end)
        end = e->gpus.transfers[i_transfer].op;
    while (past < end && (e->gpus.places[past] == e->gpus.places[first] || exec_is_left_out(e->exec, past)))
        past++;
    return past;
}

/* What follows the last layer makes outputs. A piece of a prompt has none, so nobody waits for its last state. */
static size_t ops_end(const struct engine *e, const struct exec_batch *batch)
{
    size_t end = e->graph.n_ops;

    if (batch->n_outputs == 0 && !batch->wants_embeddings)
        while (end > 0 && e->graph.ops[end - 1].layer == GRAPH_OUTPUT)
            end--;
    return end;
}

/* Returns as driver_check(); sets *ret_cancelled when it ended early because of engine_cancel(), which is no error. */
static int walk(struct engine *e, size_t end, bool *ret_cancelled, struct fault *reterr)
{
    const struct engine_gpus *g = &e->gpus;
    size_t i_transfer = next_transfer(e, 0), i = 0, past;
    int r = 0;

    for (;;) {
        while (r == 0 && i_transfer < g->n_transfers && g->transfers[i_transfer].op == i &&
               (i < end || end == e->graph.n_ops)) {
            r = (i == e->graph.n_ops ? carry_logits : carry)(e, &g->transfers[i_transfer], reterr);
            i_transfer = next_transfer(e, i_transfer + 1);
        }
        if (r != 0 || i >= end)
            return r;
        past = exec_is_left_out(e->exec, i) ? i + 1 : part_end(e, i, end, i_transfer);
        if (g->places[i] != 0) {
            if (!exec_is_left_out(e->exec, i))
                r = gpu_run(g->gpus[g->places[i] - 1], i, past, reterr);
        } else if (!exec_part(e->exec, i, past)) {
            *ret_cancelled = true;
            return 0;
        }
        i = past;
    }
}

/* Hands one piece in: what GPUs do of it goes on afterwards, but for what the CPU needed. Returns as walk(). */
static int run_piece(struct engine *e, const struct exec_batch *batch, const float **ret_logits, bool *ret_cancelled,
                     struct fault *reterr)
{
    int r = 0, error;

    exec_begin(e->exec, batch);
    for (uint32_t i = 0; r == 0 && i < e->gpus.n_gpus; i++)
        r = gpu_begin(e->gpus.gpus[i], batch, reterr);
    if (r == 0)
        r = walk(e, ops_end(e, batch), ret_cancelled, reterr);
    for (uint32_t i = 0; i < e->gpus.n_gpus; i++) {
        error = gpu_end(e->gpus.gpus[i], r == 0 ? reterr : NULL);
        r = r == 0 ? error : r;
    }
    if (!exec_end(e->exec, ret_logits))
        *ret_cancelled = true;
    return r;
}

/* How much more a driver wanted is not known: it has less than another piece of its grain. */
static void tell_full(const struct engine *e, struct fault *f)
{
    uint64_t least = UINT64_MAX;

    if (!f || f->kind != FAULT_INSUFFICIENT_MEMORY)
        return;
    for (uint32_t i = 0; i < e->gpus.n_gpus; i++) {
        uint64_t n_bytes = gpu_free_bytes(e->gpus.gpus[i]);

        least = n_bytes < least ? n_bytes : least;
    }
    f->limit = (int64_t)least;
    f->used = (int64_t)(least + device_charged_bytes(1));
}

int engine_gpus_step(struct engine *e, const struct exec_batch *batch, uint32_t n_top, const float **ret_logits,
                     struct fault *reterr)
{
    const struct exec_batch *pieces[ENGINE_PIECES_MAX] = {batch};
    uint32_t n_pieces = e->gpus.pieces ? engine_pieces_cut(e->gpus.pieces, batch, pieces) : 1;
    const float *logits = NULL;
    bool cancelled = false;
    int r = 0;

    e->gpus.top.n = 0;
    e->gpus.n_top_wanted = n_top;
    for (uint32_t i = 0; r == 0 && !cancelled && i < n_pieces; i++)
        r = run_piece(e, pieces[i], &logits, &cancelled, reterr);
    /* Also when something went wrong: nothing may be under way that its caller thinks is over, and what a step took is
     * charged by the time that it took. A device that is lost says more than one that has no memory. */
    for (uint32_t i = 0; i < e->gpus.n_gpus; i++) {
        int error = gpu_wait(e->gpus.gpus[i], r == 0 ? reterr : NULL);

        if (error != 0 && (r == 0 || r == DRIVER_OUT_OF_MEMORY))
            r = error;
    }
    if (e->gpus.pieces)
        engine_pieces_forget(e->gpus.pieces);
    if (r == 0 && !cancelled)
        *ret_logits = e->gpus.top.n > 0 ? NULL : logits;
    if (r == 0)
        return cancelled ? ENGINE_CANCELLED : 0;
    if (r != DRIVER_OUT_OF_MEMORY)
        return -EIO;
    tell_full(e, reterr);
    return ENGINE_GPU_FULL;
}
