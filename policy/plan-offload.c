/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What VRAM has a copy of is not needed in RAM as well. Spans cover a file from its first byte to its last, so what
 * lies between two tensors (padding) belongs to the one before, and neighbours that both go are one range.
 */
#include "policy/plan.h"

static bool is_on_gpu(const struct plan_shape *s, const struct plan_result *plan, const struct plan_span *span)
{
    uint32_t from_end = s->n_layers - 1 - span->layer;

    switch (span->part) {
    case PLAN_PART_DENSE:
        return from_end < plan->gpu_layers;
    case PLAN_PART_EXPERTS:
        return from_end < plan->expert_layers;
    case PLAN_PART_HEAD:
        return plan->head_on_gpu;
    default:
        return false;
    }
}

static uint64_t end_of(const struct plan_shape *s, size_t i)
{
    const struct plan_span *span = &s->spans[i];

    return i + 1 < s->n_spans && span[1].file == span->file ? span[1].from : s->span_files[span->file];
}

bool plan_next_offloaded(const struct plan_shape *s, const struct plan_result *plan, uint64_t page_bytes,
                         size_t *i_span, struct plan_range *ret)
{
    while (*i_span < s->n_spans) {
        const struct plan_span *first = &s->spans[(*i_span)++];
        uint64_t from = (first->from + page_bytes - 1) & ~(page_bytes - 1), to;

        if (!is_on_gpu(s, plan, first))
            continue;
        while (*i_span < s->n_spans && s->spans[*i_span].file == first->file &&
               is_on_gpu(s, plan, &s->spans[*i_span]))
            ++*i_span;
        to = end_of(s, *i_span - 1);
        /* A file's last page is its own, however little of it there is. */
        if (to < s->span_files[first->file])
            to &= ~(page_bytes - 1);
        if (from >= to)
            continue;
        *ret = (struct plan_range){.file = first->file, .from = from, .n_bytes = to - from};
        return true;
    }
    return false;
}
