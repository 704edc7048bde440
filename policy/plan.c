/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The search: how many layers' dense parts go to VRAM, how many of those with their experts, whether their KV
 * and the output head go too. Each combination has exact bytes and a predicted speed; the fastest that fits
 * wins, and among equals the one that puts less into VRAM. There are at most some ten thousand combinations,
 * each costs O(devices).
 *
 * Layers are taken from the end of the model, as the head is there, and fill devices one after the other;
 * dense parts of all layers come before the first experts, since a token reads all of the former and few of
 * the latter.
 */
#include "policy/plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/units.h"

/* A token's way from one device to the next and back: a copy of some kilobytes, and waiting for it. */
#define CROSSING_S 30e-6

/* One combination that is tried. */
struct trial {
    uint32_t n_dense, n_experts; /* layers, from the end; n_experts <= n_dense */
    bool kv, head, small; /* small: steps */
};

struct planner {
    const struct plan_shape *shape;
    const struct plan_wish *wish;
    uint64_t kv_bytes[PLAN_GROUPS_MAX]; /* of one layer of the group, all sequences */
    uint64_t kv_read[PLAN_GROUPS_MAX];  /* of one layer, for a token of a sequence that is half full */
    uint32_t context_tokens;
    bool kv_on_gpu; /* may be */
};

static uint64_t ceil_div(uint64_t n, uint64_t by)
{
    return n / by + (n % by != 0);
}

static const struct plan_kv_type *find_type(const struct plan_group *group, const char *name)
{
    for (size_t i = 0; i < group->n_types; i++)
        if (strcmp(group->types[i].name, name) == 0)
            return &group->types[i];
    return NULL;
}

/* The same sum as the engine's: whole pages for all sequences together; of windows, what they span in each. */
static int measure_kv(struct planner *p)
{
    const struct plan_shape *s = p->shape;
    uint64_t all = ceil_div((uint64_t)p->context_tokens * p->wish->sequences, s->page_tokens);
    uint64_t n_open = s->open[0] * p->wish->sequences + s->open[1];

    for (uint32_t i = 0; i < s->n_groups; i++) {
        const struct plan_kv_type *k = find_type(&s->groups[i], p->wish->k),
                                  *v = find_type(&s->groups[i], p->wish->v);
        uint64_t page_bytes, seen = p->context_tokens / 2, pages = all;

        if (!k || !v)
            return -EINVAL;
        p->kv_on_gpu = p->kv_on_gpu && k->on_gpu && v->on_gpu;
        if (s->groups[i].window > 0) {
            uint64_t n = s->groups[i].pages_per_sequence * n_open + s->groups[i].pages_per_step;

            pages = n < all ? n : all;
        }
        if (!checked_add(k->k_bytes, v->v_bytes, &page_bytes) ||
            !checked_mul(page_bytes, pages, &p->kv_bytes[i]))
            p->kv_bytes[i] = UINT64_MAX / PLAN_LAYERS_MAX / 2;
        if (s->groups[i].window > 0 && s->groups[i].window < seen)
            seen = s->groups[i].window;
        p->kv_read[i] = seen / s->page_tokens * page_bytes;
    }
    return 0;
}

static int start(struct planner *p, const struct plan_shape *shape, const struct plan_wish *wish)
{
    *p = (struct planner){.shape = shape, .wish = wish, .kv_on_gpu = true};
    p->context_tokens = wish->context_tokens;
    if (p->context_tokens == 0 || p->context_tokens > shape->context_trained_tokens)
        p->context_tokens = shape->context_trained_tokens;
    return measure_kv(p);
}

/* What one token reads of a layer's experts. */
static uint64_t expert_read(const struct plan_shape *s, const struct plan_layer *layer)
{
    if (s->n_experts == 0)
        return layer->expert_bytes;
    return (uint64_t)((double)layer->expert_bytes / s->n_experts * s->n_experts_used);
}

static double device_gbps(const struct plan_device *d)
{
    return d->read_gbps > 0 ? d->read_gbps : PLAN_DEVICE_GBPS;
}

static uint64_t gpu_scratch(const struct plan_shape *s, const struct trial *t, size_t i_device)
{
    uint32_t i = (t->kv ? PLAN_GPU_KV : 0) | (t->head && i_device == 0 ? PLAN_GPU_HEAD : 0) |
                 (t->n_experts > 0 ? PLAN_GPU_EXPERTS : 0);

    return t->small ? s->gpu_small_scratch_bytes[i] : s->gpu_scratch_bytes[i];
}

/* Puts the trial's layers on devices, the last layer first. False: a device is full before all are placed. */
static bool place(const struct planner *p, const struct trial *t, struct plan_result *r, double *seconds)
{
    const struct plan_shape *s = p->shape;
    const struct plan_wish *w = p->wish;
    size_t d = 0;
    bool fits = true;

    for (uint32_t n = 0; n < t->n_dense; n++) {
        const struct plan_layer *layer = &s->layers[s->n_layers - 1 - n];
        uint64_t weights = layer->dense_bytes + layer->adapter_bytes +
                           (n < t->n_experts ? layer->expert_bytes + layer->adapter_expert_bytes : 0);
        uint64_t kv = t->kv ? p->kv_bytes[layer->group] : 0, padding = s->gpu_padding_bytes;

        if (!layer->can_offload)
            continue;
        if (n == 0 && t->head) {
            weights += s->head_bytes + s->head_adapter_bytes;
            padding += s->rest_bytes; /* the last norm is of it */
        }
        for (;; d++) {
            struct plan_bytes *b = &r->devices[d];
            uint64_t scratch = (b->scratch ? b->scratch : gpu_scratch(s, t, d)) + padding;
            uint64_t used = b->weights + weights + b->kv + kv + w->devices[d].overhead_bytes + scratch;

            if (used <= w->devices[d].budget_bytes || d + 1 == w->n_devices) {
                fits = fits && used <= w->devices[d].budget_bytes;
                b->driver = w->devices[d].overhead_bytes;
                b->scratch = scratch;
                b->weights += weights;
                b->kv += kv;
                r->device_layers[d]++;
                break;
            }
        }
        *seconds += ((double)layer->dense_bytes + (n < t->n_experts ? (double)expert_read(s, layer) : 0) +
                     (t->kv ? (double)p->kv_read[layer->group] : 0) +
                     (n == 0 && t->head ? (double)s->head_bytes : 0)) /
                    (device_gbps(&w->devices[d]) * 1e9);
        /* What is left in RAM of a layer whose rest is on a device has to be gone to and come back from. */
        if (!t->kv || (layer->expert_bytes > 0 && n >= t->n_experts))
            *seconds += 2 * CROSSING_S;
    }
    for (size_t i = 0; i < r->n_devices; i++)
        *seconds += r->device_layers[i] > 0 ? 2 * CROSSING_S : 0;
    return fits;
}

static void sum_up(const struct planner *p, struct plan_result *r)
{
    uint64_t ram = r->ram.kv + r->ram.scratch, file = p->shape->file_bytes, shared = p->wish->ram_shared_bytes;
    uint64_t own = shared < file ? file - shared : 0;

    /* What a GPU has of a file may be just what others hold of it. */
    if (!p->wish->is_mapped_only)
        ram += r->ram.weights < own ? r->ram.weights : own;
    r->ram_needed_bytes = ram;
    r->vram_needed_bytes = 0;
    for (size_t i = 0; i < r->n_devices; i++) {
        const struct plan_bytes *b = &r->devices[i];

        r->vram_needed_bytes += b->weights + b->kv + b->scratch + b->driver;
    }
}

static void try(const struct planner *p, const struct trial *t, struct plan_result *r)
{
    const struct plan_shape *s = p->shape;
    const struct plan_wish *w = p->wish;
    double seconds = 0, gbps = s->read_gbps > 0 ? s->read_gbps : PLAN_RAM_GBPS;
    double read = (double)s->rest_bytes;
    uint64_t offloaded = 0;

    *r = (struct plan_result){
        .gpu_layers = t->n_dense,
        .expert_layers = t->n_experts,
        .kv_on_gpu = t->kv && t->n_dense > 0,
        .head_on_gpu = t->head,
        .small_steps = t->small && t->n_dense > 0,
        .context_tokens = p->context_tokens,
        .sequences = w->sequences,
        .n_devices = w->n_devices,
    };
    r->devices_fit = t->n_dense == 0 || place(p, t, r, &seconds);
    for (uint32_t i = 0; i < s->n_layers; i++) {
        const struct plan_layer *layer = &s->layers[i];
        uint32_t from_end = s->n_layers - 1 - i;

        if (from_end >= t->n_dense || !layer->can_offload)
            read += (double)layer->dense_bytes;
        if (from_end >= t->n_experts || !layer->can_offload)
            read += (double)expert_read(s, layer);
        if (from_end >= t->n_dense || !t->kv || !layer->can_offload) {
            r->ram.kv += p->kv_bytes[layer->group];
            read += (double)p->kv_read[layer->group];
        }
    }
    if (!t->head)
        read += (double)s->head_bytes;
    for (size_t d = 0; d < r->n_devices; d++)
        offloaded += r->devices[d].weights;
    if (t->head && s->head_is_tied)
        offloaded -= s->head_bytes; /* its bytes in RAM are the embedding's, which stay */
    if (s->n_runs > 0)
        offloaded = plan_left_out(s, r, NULL, NULL);
    r->ram.weights = s->file_bytes - (w->keeps_offloaded ? 0 : offloaded);
    if (w->weights_bytes_max > 0 && r->ram.weights > w->weights_bytes_max)
        r->ram.weights = w->weights_bytes_max;
    r->ram.scratch = s->scratch_bytes + s->other_bytes +
                     w->n_threads * (s->thread_scratch_bytes + s->other_thread_bytes);
    sum_up(p, r);
    r->fits = r->devices_fit && r->ram_needed_bytes <= w->ram_bytes;
    seconds += read / (gbps * 1e9);
    r->decode_tps = seconds > 0 ? 1 / seconds : 0;
}

/* Whether @a is to be preferred. */
static bool is_better(const struct plan_result *a, const struct plan_result *b)
{
    if (a->fits != b->fits)
        return a->fits;
    if (a->devices_fit != b->devices_fit)
        return a->devices_fit;
    if (!a->fits && a->ram_needed_bytes != b->ram_needed_bytes)
        return a->ram_needed_bytes < b->ram_needed_bytes;
    if (a->decode_tps != b->decode_tps)
        return a->decode_tps > b->decode_tps;
    return a->vram_needed_bytes < b->vram_needed_bytes;
}

static void __attribute__((format(printf, 2, 3))) say(struct plan_result *r, const char *format, ...)
{
    va_list ap;

    if (r->n_reasons == PLAN_REASONS_MAX)
        return;
    va_start(ap, format);
    vsnprintf(r->reasons[r->n_reasons++], sizeof(r->reasons[0]), format, ap);
    va_end(ap);
}

/* Beside what is there: where a layer fits only when the KV cache leaves, VRAM is full. */
static bool one_more_fits(const struct planner *p, const struct plan_result *r)
{
    const struct trial t = {.n_dense = r->gpu_layers + 1,
                            .n_experts = p->shape->n_experts > 0 ? 0 : r->gpu_layers + 1,
                            .kv = r->kv_on_gpu,
                            .head = r->head_on_gpu,
                            .small = r->small_steps};
    struct plan_result more;

    /* More were tried, and refused. */
    if (p->wish->gpu_layers_max > 0)
        return false;
    try(p, &t, &more);
    return more.devices_fit;
}

static bool can_offload(const struct plan_shape *s)
{
    for (uint32_t i = 0; i < s->n_layers; i++)
        if (s->layers[i].can_offload)
            return true;
    return false;
}

static void explain(const struct planner *p, struct plan_result *r)
{
    const struct plan_shape *s = p->shape;
    const struct plan_wish *w = p->wish;
    char a[UNITS_TEXT_MAX], b[UNITS_TEXT_MAX];

    if (w->context_tokens > s->context_trained_tokens)
        say(r, "the model was trained for %" PRIu32 " tokens of context, not for %" PRIu32,
            s->context_trained_tokens, w->context_tokens);
    if (r->ram_needed_bytes > w->ram_bytes)
        say(r, "%s of RAM are needed, %s may be used", units_format_size(r->ram_needed_bytes, a),
            units_format_size(w->ram_bytes, b));
    if (!r->devices_fit)
        say(r, "%" PRIu32 " layers do not fit into the VRAM that may be used", r->gpu_layers);
    if (w->n_devices > 0 && w->gpu_layers != 0 && !can_offload(s))
        say(r, "there are no kernels that compute this model on a GPU");
    else if (w->n_devices > 0 && r->fits && r->gpu_layers < s->n_layers && w->gpu_layers == PLAN_AUTO)
        say(r,
            one_more_fits(p, r) ? "more than %" PRIu32 " of %" PRIu32 " layers in VRAM would not be faster"
                                : "VRAM is full after %" PRIu32 " of %" PRIu32 " layers",
            r->gpu_layers, s->n_layers);
    if (r->small_steps)
        say(r, "VRAM has no room for larger steps: one takes %" PRIu32 " tokens at most", s->gpu_small_tokens);
    if (r->gpu_layers > 0 && !p->kv_on_gpu)
        say(r, "the KV cache stays in RAM: no kernels on a GPU read types %s and %s", w->k, w->v);
    else if (r->gpu_layers > 0 && !r->kv_on_gpu)
        say(r, "the KV cache stays in RAM: more layers in VRAM gain more than attention there");
    if (r->expert_layers < r->gpu_layers && s->n_experts > 0)
        say(r, "experts of %" PRIu32 " layers stay in RAM: a token reads %" PRIu32 " of %" PRIu32 " of them",
            s->n_layers - r->expert_layers, s->n_experts_used, s->n_experts);
    if (w->is_mapped_only)
        say(r, "the weights are only mapped: the kernel may evict them, and they count against no budget");
    if (s->read_gbps <= 0)
        say(r, "the memory was not measured: %.0f GB/s are assumed", PLAN_RAM_GBPS);
}

/* The best of what can be done with @from to @to layers; *@have: whether *@best is one to compare with. */
static void search(const struct planner *p, uint32_t from, uint32_t to, bool small, struct plan_result *best,
                   bool *have)
{
    const struct plan_shape *s = p->shape;
    const struct plan_wish *w = p->wish;

    for (uint32_t n = from; n <= to; n++) {
        /* Experts are worth something only once all dense parts are there, unless somebody wants it
         * otherwise. */
        uint32_t experts_from = w->experts == PLAN_EXPERTS_VRAM || s->n_experts == 0 ? n : 0;
        uint32_t experts_to = w->experts == PLAN_EXPERTS_RAM && s->n_experts > 0 ? 0 : n;

        if (w->experts == PLAN_EXPERTS_AUTO && s->n_experts > 0 && n < s->n_layers)
            experts_to = 0;
        for (uint32_t e = experts_from; e <= experts_to; e++)
            for (unsigned bits = 0; bits < (n > 0 ? 4u : 1u); bits++) {
                const struct trial t = {
                    .n_dense = n, .n_experts = e, .kv = bits & 1, .head = bits & 2, .small = small};
                struct plan_result r;

                if (t.kv && !p->kv_on_gpu)
                    continue;
                try(p, &t, &r);
                if (!*have || is_better(&r, best))
                    *best = r;
                *have = true;
            }
    }
}

/* As the engine does it (engine_gpus_open()): where not one layer has room, or there have to be as many, steps become
 * smaller before keys and values leave. */
static bool wants_small_steps(const struct planner *p, const struct plan_result *r)
{
    if (p->shape->gpu_small_tokens == 0 || p->wish->n_devices == 0)
        return false;
    if (p->wish->gpu_layers == PLAN_AUTO)
        return r->gpu_layers == 0;
    return p->wish->gpu_layers > 0 && (!r->devices_fit || (!r->kv_on_gpu && p->kv_on_gpu));
}

int plan_make(const struct plan_shape *shape, const struct plan_wish *wish, struct plan_result *ret)
{
    struct plan_result best;
    struct planner p;
    uint32_t from = 0, to = 0;
    bool have = false;

    if (start(&p, shape, wish) < 0)
        return -EINVAL;
    if (wish->n_devices > 0 && can_offload(shape)) {
        to = wish->gpu_layers >= shape->n_layers ? shape->n_layers : wish->gpu_layers;
        from = wish->gpu_layers == PLAN_AUTO ? 0 : to;
        if (wish->gpu_layers == PLAN_AUTO && wish->gpu_layers_max > 0 && wish->gpu_layers_max < to)
            to = wish->gpu_layers_max;
    }
    search(&p, from, to, /* small= */ false, &best, &have);
    if (wants_small_steps(&p, &best))
        search(&p, from, to, /* small= */ true, &best, &have);
    explain(&p, &best);
    *ret = best;
    return 0;
}
