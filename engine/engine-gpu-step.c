/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A step that goes through places: the operations in their order, each where it was put, and values carried when the
 * next operation reads them on another side.
 */

#include "engine/engine-gpu.h"

#include <errno.h>

#include "base/fault.h"
#include "engine/cuda/device.h"
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

/* The operations from @first on that the CPU computes without anything being carried in between. */
static size_t part_end(const struct engine *e, size_t first, const struct engine_transfer *next)
{
    size_t past = first + 1, end = next ? next->op : e->graph.n_ops;

    while (past < end && e->gpus.places[past] == 0)
        past++;
    return past;
}

/* Returns as driver_check(); sets *ret_cancelled when it ended early because of engine_cancel(), which is no error. */
static int walk(struct engine *e, bool *ret_cancelled, struct fault *reterr)
{
    const struct engine_gpus *g = &e->gpus;
    size_t i_transfer = 0;
    int r = 0;

    for (size_t i = 0; r == 0 && i <= e->graph.n_ops;) {
        bool left_out = i < e->graph.n_ops && exec_is_left_out(e->exec, i);

        for (; r == 0 && i_transfer < g->n_transfers && g->transfers[i_transfer].op == i; i_transfer++)
            if (!left_out)
                r = carry(e, &g->transfers[i_transfer], reterr);
        if (r != 0 || i == e->graph.n_ops)
            break;
        if (g->places[i] != 0) {
            if (!left_out)
                r = gpu_run(g->gpus[g->places[i] - 1], i, reterr);
            i++;
        } else {
            size_t past = part_end(e, i, i_transfer < g->n_transfers ? &g->transfers[i_transfer] : NULL);

            if (!exec_part(e->exec, i, past)) {
                *ret_cancelled = true;
                break;
            }
            i = past;
        }
    }
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

int engine_gpus_step(struct engine *e, const struct exec_batch *batch, const float **ret_logits, struct fault *reterr)
{
    bool cancelled = false;
    int r = 0;

    exec_begin(e->exec, batch);
    for (uint32_t i = 0; r == 0 && i < e->gpus.n_gpus; i++)
        r = gpu_begin(e->gpus.gpus[i], batch, reterr);
    if (r == 0)
        r = walk(e, &cancelled, reterr);
    /* Also when something went wrong: what is under way reads the batch and pinned memory. A device that is lost says
     * more than one that has no memory. */
    for (uint32_t i = 0; i < e->gpus.n_gpus; i++) {
        int error = gpu_wait(e->gpus.gpus[i], r == 0 ? reterr : NULL);

        if (error != 0 && (r == 0 || r == DRIVER_OUT_OF_MEMORY))
            r = error;
    }
    if (!exec_end(e->exec, ret_logits))
        cancelled = true;
    if (r == 0)
        return cancelled ? ENGINE_CANCELLED : 0;
    if (r != DRIVER_OUT_OF_MEMORY)
        return -EIO;
    tell_full(e, reterr);
    return ENGINE_GPU_FULL;
}
