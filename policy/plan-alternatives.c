/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What else could be wished for: one thing changed at a time, since a person has to be able to follow it.
 * Where the wish does not fit, each lever is pulled as little as is enough; where it fits, only what makes it
 * faster is named.
 */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/units.h"
#include "policy/plan.h"

#define CONTEXT_MIN_TOKENS 512

/* How people call sizes of weights, and bits a weight of a whole file; descending. */
static const struct {
    const char *name;
    double bits;
} quantizations[] = {
    {"F16", 16.0},    {"Q8_0", 8.5},    {"Q6_K", 6.6},     {"Q5_K_M", 5.7}, {"Q4_K_M", 4.9},
    {"IQ4_XS", 4.35}, {"Q3_K_M", 3.95}, {"IQ3_XXS", 3.25}, {"Q2_K", 3.0},   {"IQ2_XXS", 2.2},
};

struct list {
    const struct plan_shape *shape;
    const struct plan_wish *wish;
    const struct plan_result *made;
    struct plan_alternative *items;
    size_t n;
};

static void add(struct list *l, const struct plan_alternative *item, const struct plan_result *r)
{
    struct plan_alternative *a;

    if (l->n == PLAN_ALTERNATIVES_MAX || (l->made->fits && r->decode_tps < l->made->decode_tps * PLAN_WORTH))
        return;
    a = &l->items[l->n++];
    *a = *item;
    a->fits = r->fits;
    a->gpu_layers = r->gpu_layers;
    a->decode_tps = r->decode_tps;
}

static uint64_t kv_bytes(const struct plan_result *r)
{
    uint64_t n = r->ram.kv;

    for (size_t i = 0; i < r->n_devices; i++)
        n += r->devices[i].kv;
    return n;
}

static void try_kv_types(struct list *l)
{
    const struct plan_group *g = &l->shape->groups[0];

    for (size_t i = 0; i < g->n_types; i++) {
        struct plan_wish wish = *l->wish;
        struct plan_alternative a = {.key = "kv_type"};
        struct plan_result r;

        wish.k = wish.v = g->types[i].name;
        if (plan_make(l->shape, &wish, &r) < 0 || kv_bytes(&r) >= kv_bytes(l->made))
            continue;
        snprintf(a.change, sizeof(a.change), "keys and values as %s", g->types[i].name);
        snprintf(a.text, sizeof(a.text), "%s", g->types[i].name);
        add(l, &a, &r);
    }
}

static void try_context(struct list *l)
{
    struct plan_wish wish = *l->wish;
    uint32_t tokens = l->made->context_tokens / 2;
    struct plan_result r;

    for (; tokens >= CONTEXT_MIN_TOKENS; tokens /= 2) {
        struct plan_alternative a = {.key = "context_tokens", .value = tokens};

        wish.context_tokens = tokens;
        if (plan_make(l->shape, &wish, &r) < 0)
            return;
        if (!r.fits && tokens / 2 >= CONTEXT_MIN_TOKENS)
            continue;
        snprintf(a.change, sizeof(a.change), "a context of %" PRIu32 " tokens", tokens);
        add(l, &a, &r);
        return;
    }
}

static void try_sequences(struct list *l)
{
    struct plan_wish wish = *l->wish;
    struct plan_result r;

    for (uint32_t n = wish.sequences / 2; n >= 1; n /= 2) {
        struct plan_alternative a = {.key = "sequences", .value = n};

        wish.sequences = n;
        if (plan_make(l->shape, &wish, &r) < 0)
            return;
        if (!r.fits && n > 1)
            continue;
        snprintf(a.change, sizeof(a.change), "%" PRIu32 " sequence%s at a time", n, n == 1 ? "" : "s");
        add(l, &a, &r);
        return;
    }
}

static void try_gpu_layers(struct list *l)
{
    struct plan_alternative a = {.key = "gpu_layers"};
    struct plan_wish wish = *l->wish;
    struct plan_result r;

    if (wish.n_devices == 0 || wish.gpu_layers == PLAN_AUTO)
        return;
    wish.gpu_layers = PLAN_AUTO;
    if (plan_make(l->shape, &wish, &r) < 0 || r.gpu_layers == l->made->gpu_layers)
        return;
    a.value = r.gpu_layers;
    snprintf(a.change, sizeof(a.change), "%" PRIu32 " layers in VRAM", r.gpu_layers);
    add(l, &a, &r);
}

static uint64_t scaled(uint64_t bytes, double by)
{
    return (uint64_t)((double)bytes * by);
}

/* The same model in another quantisation, roughly: every tensor by the same factor. */
static int scale_shape(const struct plan_shape *s, double by, struct plan_shape *ret)
{
    struct plan_layer *layers = calloc(s->n_layers ? s->n_layers : 1, sizeof(*layers));

    if (!layers)
        return -ENOMEM;
    *ret = *s;
    ret->layers = layers;
    for (uint32_t i = 0; i < s->n_layers; i++)
        layers[i] = (struct plan_layer){.dense_bytes = scaled(s->layers[i].dense_bytes, by),
                                        .expert_bytes = scaled(s->layers[i].expert_bytes, by),
                                        .group = s->layers[i].group,
                                        .can_offload = s->layers[i].can_offload};
    ret->file_bytes = scaled(s->file_bytes, by);
    ret->embedding_bytes = scaled(s->embedding_bytes, by);
    ret->head_bytes = scaled(s->head_bytes, by);
    ret->rest_bytes = scaled(s->rest_bytes, by);
    /* Nobody knows where its tensors would lie. */
    ret->runs = NULL;
    ret->n_runs = 0;
    return 0;
}

static void try_quantizations(struct list *l)
{
    const struct plan_shape *s = l->shape;
    struct plan_wish wish = *l->wish;
    double bits = s->n_parameters > 0 ? (double)s->file_bytes * 8 / (double)s->n_parameters : 0;

    if (l->made->fits)
        return;
    wish.ram_shared_bytes = 0; /* it would be another file */
    for (size_t i = 0; i < sizeof(quantizations) / sizeof(quantizations[0]); i++) {
        struct plan_alternative a = {.key = "quantization"};
        struct plan_shape smaller;
        struct plan_result r;
        int q;

        if (quantizations[i].bits >= bits * 0.98)
            continue;
        if (scale_shape(s, quantizations[i].bits / bits, &smaller) < 0)
            return;
        q = plan_make(&smaller, &wish, &r);
        free(smaller.layers);
        if (q < 0)
            return;
        if (!r.fits)
            continue;
        snprintf(a.change, sizeof(a.change), "a file of type %s", quantizations[i].name);
        snprintf(a.text, sizeof(a.text), "%s", quantizations[i].name);
        add(l, &a, &r);
        return;
    }
}

static void try_ram(struct list *l)
{
    struct plan_alternative a = {.key = "ram_bytes", .value = l->made->ram_needed_bytes};
    struct plan_wish wish = *l->wish;
    char text[UNITS_TEXT_MAX];
    struct plan_result r;

    if (l->made->fits || l->made->ram_needed_bytes <= wish.ram_bytes)
        return;
    wish.ram_bytes = l->made->ram_needed_bytes;
    if (plan_make(l->shape, &wish, &r) < 0)
        return;
    snprintf(a.change, sizeof(a.change), "%s of RAM", units_format_size(wish.ram_bytes, text));
    add(l, &a, &r);
}

static int compare(const void *pa, const void *pb)
{
    const struct plan_alternative *a = pa, *b = pb;

    if (a->fits != b->fits)
        return a->fits ? -1 : 1;
    if (a->decode_tps != b->decode_tps)
        return a->decode_tps > b->decode_tps ? -1 : 1;
    return strcmp(a->change, b->change);
}

size_t plan_alternatives(const struct plan_shape *shape, const struct plan_wish *wish,
                         const struct plan_result *made, struct plan_alternative *ret)
{
    struct list l = {.shape = shape, .wish = wish, .made = made, .items = ret};

    try_gpu_layers(&l);
    try_kv_types(&l);
    try_context(&l);
    try_sequences(&l);
    try_quantizations(&l);
    try_ram(&l);
    qsort(ret, l.n, sizeof(*ret), compare);
    return l.n;
}

static json_object *suggestion(const struct plan_alternative *a)
{
    _cleanup_json_ json_object *o = json_object_new_object();
    json_object *value =
        a->text[0] ? json_object_new_string(a->text) : json_object_new_int64((int64_t)a->value);

    if (!o || !value || json_object_object_add(o, "value", value) < 0) {
        json_object_put(value);
        return NULL;
    }
    value = json_object_new_string(a->key);
    if (!value || json_object_object_add(o, "change", value) < 0) {
        json_object_put(value);
        return NULL;
    }
    return TAKE_PTR(o);
}

int plan_suggestions(const struct plan_alternative *alternatives, size_t n, json_object **ret)
{
    _cleanup_json_ json_object *array = json_object_new_array();

    if (!array)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        json_object *o;

        if (!alternatives[i].fits || strcmp(alternatives[i].key, "ram_bytes") == 0)
            continue;
        o = suggestion(&alternatives[i]);
        if (!o || json_object_array_add(array, o) < 0) {
            json_object_put(o);
            return -ENOMEM;
        }
    }
    *ret = TAKE_PTR(array);
    return 0;
}
