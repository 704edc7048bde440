/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What decoders have in common: embedding, layers of attention and feed-forward that add to a stream, output. A
 * family's file fills in struct arch_decoder; this builds it.
 */

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "base/fault.h"
#include "engine/arch/blocks.h"

int arch_decoder_init(struct arch_build *b, struct arch_decoder *d)
{
    int r;

    r = arch_config_read(b, "attention.layer_norm_rms_epsilon");
    if (r < 0)
        return r;
    *d = (struct arch_decoder){
        .embedding_scale = 1.0f,
        .residual_scale = 1.0f,
        .logit_scale = 1.0f,
        .attention_scale = 1.0f / sqrtf((float)b->config->k_dim),
        .ffn_norm = "ffn_norm",
        .activation = {.kind = GRAPH_SILU},
        .experts = {.gating = GRAPH_GATE_SOFTMAX, .normalise = true, .scale = 1.0f, .n_groups = 1, .n_groups_used = 1},
    };
    return 0;
}

/* The pattern as the file has it: one truth for each layer. */
static int window_pattern_read(struct arch_build *b, struct arch_decoder *d, const char *key)
{
    struct gguf_array array;
    int r;

    r = gguf_get_array(b->gguf, key, GGUF_BOOL, &array, b->fault);
    if (r < 0)
        return r;
    if (array.n < b->config->n_layers) {
        fault_model_invalid(b->fault, (int64_t)array.offset,
                            "%s has %" PRIu64 " elements, expected one for each of %" PRIu32 " layers", key, array.n,
                            b->config->n_layers);
        return -EINVAL;
    }
    for (uint32_t i = 0; i < b->config->n_layers; i++)
        d->windowed[i] = gguf_array_bool(&array, i);
    return 0;
}

int arch_window_read(struct arch_build *b, struct arch_decoder *d, enum arch_need need, uint32_t period)
{
    const struct gguf_key *pattern;
    char key[128];
    int r;

    r = arch_key_u32(b, "attention.sliding_window", need, need == ARCH_REQUIRED, ARCH_CONTEXT_MAX, &d->window);
    if (r < 0 || d->window == 0)
        return r;
    snprintf(key, sizeof(key), "%s.attention.sliding_window_pattern", b->name);
    pattern = gguf_find_key(b->gguf, key);
    if (pattern && pattern->type == GGUF_ARRAY)
        return window_pattern_read(b, d, key);
    r = arch_key_u32(b, "attention.sliding_window_pattern", ARCH_OPTIONAL, 0, ARCH_LAYERS_MAX, &period);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < b->config->n_layers; i++)
        d->windowed[i] = period == 0 || i % period != period - 1;
    return 0;
}

int arch_experts_read(struct arch_build *b, struct arch_decoder *d, enum arch_need need)
{
    struct arch_experts *e = &d->experts;
    uint32_t n_ff = 0;
    int r;

    r = arch_key_u32(b, "expert_count", need, need == ARCH_REQUIRED, ARCH_EXPERTS_MAX, &e->n);
    if (r < 0 || e->n == 0)
        return r;
    r = arch_key_u32(b, "expert_used_count", ARCH_REQUIRED, 1, e->n, &e->n_used);
    if (r < 0)
        return r;
    r = arch_key_u32(b, "expert_feed_forward_length", ARCH_OPTIONAL, 0, ARCH_FF_MAX, &n_ff);
    if (r < 0)
        return r;
    e->n_ff = n_ff ? n_ff : b->config->n_ff;
    b->graph->n_experts = e->n;
    b->graph->n_experts_used = e->n_used;
    return 0;
}

/* Layers with and without a window keep their keys in pages of their own. Sets each layer's group and number in it. */
static void groups_init(struct arch_build *b, const struct arch_decoder *d, struct arch_attention *layers)
{
    const struct arch_config *c = b->config;
    struct graph *g = b->graph;

    for (uint32_t i = 0; i < c->n_layers; i++) {
        uint32_t window = d->windowed[i] ? d->window : 0, group = 0;

        while (group < g->n_groups && g->groups[group].window != window)
            group++;
        if (group == g->n_groups)
            g->groups[g->n_groups++] = (struct graph_group){
                .n_kv_heads = c->n_kv_heads, .k_dim = c->k_dim, .v_dim = c->v_dim, .window = window};
        layers[i].group = group;
        layers[i].group_layer = g->groups[group].n_layers++;
    }
}

/* The angles of all layers: one table, or one of their own for those with a window. */
static int rope_tables(struct arch_build *b, const struct arch_decoder *d, uint32_t *ret_full, uint32_t *ret_windowed)
{
    struct arch_rope rope = {.n_rot = b->config->n_rot, .base = 10000.0f};
    struct arch_rope windowed = {.n_rot = b->config->n_rot, .base = d->window_rope_base, .is_fixed = true};
    int r;

    r = arch_rope_read(b, &rope);
    if (r < 0)
        return r;
    if (d->rope_magnitude > 0.0f)
        rope.magnitude = d->rope_magnitude;
    r = arch_rope_table(b, &rope, ret_full);
    *ret_windowed = *ret_full;
    if (r < 0 || d->window == 0 || d->window_rope_base == 0.0f)
        return r;
    r = arch_rope_read(b, &windowed);
    if (r < 0)
        return r;
    return arch_rope_table(b, &windowed, ret_windowed);
}

int arch_decoder_build(struct arch_build *b, const struct arch_decoder *d)
{
    struct arch_attention layers[ARCH_LAYERS_MAX];
    uint32_t x, table, table_windowed;
    struct graph_tensor embedding;
    int r;

    groups_init(b, d, layers);
    r = arch_embed(b, d->embedding_scale, &x, &embedding);
    if (r < 0)
        return r;
    r = rope_tables(b, d, &table, &table_windowed);
    if (r < 0)
        return r;
    for (uint32_t layer = 0; layer < b->config->n_layers; layer++) {
        b->graph->layer = layer;
        layers[layer].rope_table = d->unrotated[layer] ? GRAPH_NONE : d->windowed[layer] ? table_windowed : table;
        r = d->latent.kv_rank ? arch_latent_block(b, d, layer, &layers[layer], x)
                              : arch_attention_block(b, d, layer, &layers[layer], x);
        if (r < 0)
            return r;
        if (d->experts.n && layer >= d->experts.layer0)
            r = arch_experts_block(b, d, layer, x);
        else
            r = arch_ffn_block(b, d, layer, x);
        if (r < 0)
            return r;
    }
    b->graph->layer = GRAPH_OUTPUT;
    return arch_output(b, d, x, &embedding);
}
