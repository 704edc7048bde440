/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What only GPUs read need not be locked in RAM: it is never locked at all, but copied out of the mapping, which the
 * kernel reads from the file meanwhile, and may forget behind. So a model that only fits into RAM and VRAM together is
 * loaded without ever taking more RAM than what stays there. It stays mapped: whoever looks there all the same has it
 * read again.
 *
 * Only whole 2 MiB of a file are left out: elsewhere large pages would fall apart, on which the rest is faster.
 * policy/plan-ranges.c comes to the same ranges from what engine-shape.c says of the file.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/fault.h"
#include "engine/cuda/weights.h"
#include "engine/engine-gpu.h"
#include "engine/engine-internal.h"

#define GRAIN_BYTES (UINT64_C(2) << 20)

static int by_offset(const void *a, const void *b)
{
    const struct gguf_tensor *x = ((const struct engine_gpu_tensor *)a)->t,
                             *y = ((const struct engine_gpu_tensor *)b)->t;

    if (x->part != y->part)
        return x->part < y->part ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Rows of one matrix may be used as several: any that begins in a tensor is of it. Entries are by address. */
static bool has_any_of(const struct weights *w, const struct gguf_tensor *t)
{
    const uint8_t *from = t->data;
    size_t low = 0, high = w->n;

    while (low < high) {
        size_t i = low + (high - low) / 2;

        if (w->entries[i].data < from)
            low = i + 1;
        else
            high = i;
    }
    return low < w->n && w->entries[low].data < from + t->n_bytes;
}

static int mark(const struct engine *e, uint8_t place, struct engine_gpu_tensor *tensors, size_t n)
{
    struct weights w;
    int r = weights_find(&w, &e->graph, e->gpus.places, place);

    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++)
        if (has_any_of(&w, tensors[i].t))
            tensors[i].is_on_gpu = place > 0;
    weights_done(&w);
    return 0;
}

int engine_gpus_tensors(const struct engine *e, uint32_t n_gpus, struct engine_gpu_tensor *tensors)
{
    /* Read a row a token, on the CPU, also where it is the output matrix too. */
    const struct gguf_tensor *embedding = gguf_find_tensor(e->gguf, "token_embd.weight");
    size_t n = gguf_n_tensors(e->gguf);
    int r = 0;

    for (size_t i = 0; i < n; i++)
        tensors[i] = (struct engine_gpu_tensor){.t = gguf_tensor(e->gguf, i)};
    for (uint32_t place = n_gpus; r == 0 && place > 0; place--)
        r = mark(e, (uint8_t)place, tensors, n);
    if (r == 0)
        r = mark(e, 0, tensors, n);
    for (size_t i = 0; i < n; i++)
        if (tensors[i].t == embedding)
            tensors[i].is_on_gpu = false;
    qsort(tensors, n, sizeof(*tensors), by_offset);
    return r;
}

bool engine_gpus_lock_later(const struct engine_config *c)
{
    return c->lock && c->gpu.layers > 0 && !c->gpu.keep_locked && c->weights_bytes_max == 0;
}

int engine_gpus_find_released(struct engine *e)
{
    size_t n = gguf_n_tensors(e->gguf), n_parts;
    const struct gguf_part *parts = gguf_map_parts(e->map, &n_parts);
    _cleanup_free_ struct engine_gpu_tensor *tensors = calloc(n ? n : 1, sizeof(*tensors));
    int r;

    e->gpus.released = calloc(n ? n : 1, sizeof(*e->gpus.released));
    if (!tensors || !e->gpus.released)
        return -ENOMEM;
    r = engine_gpus_tensors(e, e->gpus.n_gpus, tensors);
    for (size_t i = 0; r == 0 && i < n; i++) {
        uint32_t part = tensors[i].t->part;
        uint64_t from = (tensors[i].t->offset + GRAIN_BYTES - 1) & ~(GRAIN_BYTES - 1), to = parts[part].n_bytes;

        if (!tensors[i].is_on_gpu)
            continue;
        while (i + 1 < n && tensors[i + 1].is_on_gpu && tensors[i + 1].t->part == part)
            i++;
        if (i + 1 < n && tensors[i + 1].t->part == part)
            to = tensors[i + 1].t->offset & ~(GRAIN_BYTES - 1);
        if (from < to)
            e->gpus.released[e->facts.n_released++] =
                (struct engine_range){.file = part, .from = from, .n_bytes = to - from};
    }
    e->facts.released = e->gpus.released;
    return r;
}

void engine_gpus_forget(const struct engine *e)
{
    for (size_t i = 0; i < e->facts.n_released; i++)
        gguf_map_forget(e->map, e->gpus.released[i].file, e->gpus.released[i].from, e->gpus.released[i].n_bytes);
}

static int hold_part(struct engine *e, uint32_t part, uint64_t n_bytes, struct fault *reterr)
{
    uint64_t at = 0;
    int r = 0;

    for (size_t i = 0; r == 0 && i < e->facts.n_released; i++) {
        const struct engine_range *range = &e->gpus.released[i];

        if (range->file != part)
            continue;
        if (range->from > at)
            r = gguf_map_lock(e->map, part, at, range->from - at, reterr);
        at = range->from + range->n_bytes;
    }
    return r == 0 && at < n_bytes ? gguf_map_lock(e->map, part, at, n_bytes - at, reterr) : r;
}

int engine_gpus_hold(struct engine *e, const struct engine_config *c, struct fault *reterr)
{
    uint64_t n_bytes = gguf_map_bytes(e->map) + e->facts.bytes_kv, max = c->gpu.ram_bytes_max;
    size_t n_parts;
    const struct gguf_part *parts = gguf_map_parts(e->map, &n_parts);
    int r = 0;

    for (size_t i = 0; i < e->facts.n_released; i++)
        n_bytes -= e->gpus.released[i].n_bytes;
    if (max > 0 && n_bytes > max) {
        fault_init(reterr, FAULT_INSUFFICIENT_MEMORY, "ram");
        if (reterr) {
            reterr->used = (int64_t)n_bytes;
            reterr->limit = (int64_t)max;
        }
        return -ENOMEM;
    }
    engine_gpus_forget(e);
    for (uint32_t i = 0; r == 0 && i < n_parts; i++)
        r = hold_part(e, i, parts[i].n_bytes, reterr);
    return r;
}
