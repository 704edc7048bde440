/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What only GPUs read need not stay locked in RAM once they have their copy of it. It stays mapped: whoever looks there
 * all the same has it read again.
 *
 * Only whole 2 MiB of a file are let go of: elsewhere large pages would fall apart, on which the rest is faster.
 */
#include <errno.h>
#include <stdlib.h>

#include "engine/cuda/weights.h"
#include "engine/engine-gpu.h"
#include "engine/engine-internal.h"

#define GRAIN_BYTES (UINT64_C(2) << 20)

struct tensor {
    const struct gguf_tensor *t;
    bool is_on_gpu; /* … and nobody else reads it */
};

static int by_offset(const void *a, const void *b)
{
    const struct gguf_tensor *x = ((const struct tensor *)a)->t, *y = ((const struct tensor *)b)->t;

    if (x->part != y->part)
        return x->part < y->part ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Rows of one matrix may be used as several: any that begins in a tensor is of it. */
static bool has_any_of(const struct weights *w, const struct gguf_tensor *t)
{
    const uint8_t *from = t->data, *to = from + t->n_bytes;

    for (size_t i = 0; i < w->n; i++)
        if (w->entries[i].data >= from && w->entries[i].data < to)
            return true;
    return false;
}

static int mark(const struct engine *e, uint8_t place, struct tensor *tensors, size_t n)
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

static int find_tensors(const struct engine *e, struct tensor *tensors, size_t n)
{
    /* Read a row a token, on the CPU, also where it is the output matrix too. */
    const struct gguf_tensor *embedding = gguf_find_tensor(e->gguf, "token_embd.weight");
    int r = 0;

    for (size_t i = 0; i < n; i++)
        tensors[i] = (struct tensor){.t = gguf_tensor(e->gguf, i)};
    for (uint32_t place = e->gpus.n_gpus; r == 0 && place > 0; place--)
        r = mark(e, (uint8_t)place, tensors, n);
    if (r == 0)
        r = mark(e, 0, tensors, n);
    for (size_t i = 0; i < n; i++)
        if (tensors[i].t == embedding)
            tensors[i].is_on_gpu = false;
    qsort(tensors, n, sizeof(*tensors), by_offset);
    return r;
}

int engine_gpus_release(struct engine *e)
{
    size_t n = gguf_n_tensors(e->gguf), n_parts;
    const struct gguf_part *parts = gguf_map_parts(e->map, &n_parts);
    _cleanup_free_ struct tensor *tensors = calloc(n ? n : 1, sizeof(*tensors));
    int r;

    e->gpus.released = calloc(n ? n : 1, sizeof(*e->gpus.released));
    if (!tensors || !e->gpus.released)
        return -ENOMEM;
    r = find_tensors(e, tensors, n);
    for (size_t i = 0; r == 0 && i < n; i++) {
        uint32_t part = tensors[i].t->part;
        uint64_t from = (tensors[i].t->offset + GRAIN_BYTES - 1) & ~(GRAIN_BYTES - 1), to = parts[part].n_bytes;

        if (!tensors[i].is_on_gpu)
            continue;
        while (i + 1 < n && tensors[i + 1].is_on_gpu && tensors[i + 1].t->part == part)
            i++;
        if (i + 1 < n && tensors[i + 1].t->part == part)
            to = tensors[i + 1].t->offset & ~(GRAIN_BYTES - 1);
        if (from >= to)
            continue;
        r = gguf_map_unlock(e->map, part, from, to - from);
        e->gpus.released[e->facts.n_released++] =
            (struct engine_range){.file = part, .from = from, .n_bytes = to - from};
    }
    e->facts.released = e->gpus.released;
    return r;
}
