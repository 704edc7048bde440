/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What of a model's files need not be held in RAM under a plan: tensors that only GPUs read, as whole 2 MiB of a file,
 * so that large pages stay whole. The engine comes to the same ranges when it has placed its operations
 * (engine/engine-gpu-release.c); here they are known before anything is read, so that nothing is locked in vain.
 */
#include "policy/plan.h"

#define GRAIN_BYTES (UINT64_C(2) << 20)

static bool is_on_gpu(const struct plan_shape *s, const struct plan_result *r, const struct plan_run *run)
{
    unsigned with = (r->kv_on_gpu ? PLAN_GPU_KV : 0) | (r->head_on_gpu ? PLAN_GPU_HEAD : 0);
    uint32_t from_end = run->layer < s->n_layers ? s->n_layers - 1 - run->layer : 0;

    if (from_end >= r->gpu_layers)
        return false;
    if (from_end < r->expert_layers)
        with |= PLAN_GPU_EXPERTS;
    return run->with >> with & 1;
}

uint64_t plan_left_out(const struct plan_shape *s, const struct plan_result *r, struct plan_range *ret, size_t *ret_n)
{
    uint64_t sum = 0;
    size_t n = 0;

    for (size_t i = 0; i < s->n_runs; i++) {
        const struct plan_run *run = &s->runs[i];
        uint64_t from = (run->from + GRAIN_BYTES - 1) & ~(GRAIN_BYTES - 1), to;

        if (!is_on_gpu(s, r, run))
            continue;
        while (i + 1 < s->n_runs && s->runs[i + 1].file == run->file &&
               s->runs[i + 1].from == s->runs[i].from + s->runs[i].n_bytes && is_on_gpu(s, r, &s->runs[i + 1]))
            i++;
        to = s->runs[i].from + s->runs[i].n_bytes;
        to = s->runs[i].is_end ? to : to & ~(GRAIN_BYTES - 1);
        if (from >= to)
            continue;
        sum += to - from;
        if (ret)
            ret[n] = (struct plan_range){.file = run->file, .from = from, .n_bytes = to - from};
        n++;
    }
    if (ret_n)
        *ret_n = n;
    return sum;
}
