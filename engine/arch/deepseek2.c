/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * DeepSeek V2, V2 Lite, V3 and R1, and what is built like them: latent attention (latent.c), a dense feed-forward block
 * in the first layers, then many small experts beside a shared one that every token goes to. V2 weighs experts by their
 * softmax, V3 by the sigmoid of each, with a bias for the choice, and chooses within the best groups.
 *
 * YaRN is done otherwise than elsewhere: cos and sin keep their size, and the scores grow by
 * (1 + 0.1 * mscale * ln(factor))² instead; a file's yarn_log_multiplier is 0.1 * mscale.
 *
 * Sources: arXiv 2405.04434 (V2), 2412.19437 (V3), and the models' own configuration for the scale of scores.
 */

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "base/fault.h"
#include "engine/arch/blocks.h"

/* The numbers of expert_gating_func. */
enum { GATING_SOFTMAX = 1, GATING_SIGMOID = 2 };

/* Sizes of heads, and what of them is cached. Files with K and V apart say the cache's sizes where others say those of
 * heads. */
static int latent_read(struct arch_build *b, struct arch_decoder *d)
{
    struct arch_config *c = b->config;
    struct arch_latent *l = &d->latent;
    uint32_t n_head = c->k_dim;
    int r;

    l->is_compressed = gguf_find_tensor(b->gguf, "blk.0.attn_k_b.weight") != NULL;
    l->v_dim = c->v_dim;
    r = arch_key_u32(b, "attention.q_lora_rank", ARCH_OPTIONAL, 0, ARCH_EMBEDDING_MAX, &l->q_rank);
    if (r == 0)
        r = arch_key_u32(b, "attention.kv_lora_rank", ARCH_REQUIRED, 1, ARCH_HEAD_DIM_MAX, &l->kv_rank);
    if (r == 0 && l->is_compressed)
        r = arch_key_u32(b, "attention.key_length_mla", ARCH_REQUIRED, 1, ARCH_HEAD_DIM_MAX, &n_head);
    if (r == 0 && l->is_compressed)
        r = arch_key_u32(b, "attention.value_length_mla", ARCH_REQUIRED, 1, ARCH_HEAD_DIM_MAX, &l->v_dim);
    if (r < 0)
        return r;
    if (c->n_rot >= n_head || l->kv_rank + c->n_rot > ARCH_HEAD_DIM_MAX) {
        fault_model_invalid(b->fault, FAULT_NO_OFFSET,
                            "%s.rope.dimension_count is %" PRIu32 ", expected less than a head's %" PRIu32
                            " dimensions, and with attention.kv_lora_rank (%" PRIu32 ") at most %u",
                            b->name, c->n_rot, n_head, l->kv_rank, ARCH_HEAD_DIM_MAX);
        return -EINVAL;
    }
    l->n_nope = n_head - c->n_rot;
    c->n_kv_heads = l->is_compressed ? 1 : c->n_heads;
    c->k_dim = l->is_compressed ? l->kv_rank + c->n_rot : n_head;
    c->v_dim = l->is_compressed ? l->kv_rank : l->v_dim;
    d->attention_scale = 1.0f / sqrtf((float)n_head);
    return 0;
}

static int yarn_read(struct arch_build *b, struct arch_decoder *d)
{
    float factor = 1.0f, multiplier = 0.0f, growth;
    int r;

    r = arch_key_f32(b, "rope.scaling.factor", ARCH_OPTIONAL, 0.0f, 1e6f, &factor);
    if (r == 0)
        r = arch_key_f32(b, "rope.scaling.yarn_log_multiplier", ARCH_OPTIONAL, 0.0f, 1e3f, &multiplier);
    if (r < 0)
        return r;
    d->rope_magnitude = 1.0f;
    growth = factor > 1.0f ? 1.0f + multiplier * logf(factor) : 1.0f;
    d->attention_scale *= growth * growth;
    return 0;
}

static int gating_read(struct arch_build *b, struct arch_experts *e)
{
    uint32_t gating = GATING_SOFTMAX;
    int r;

    e->normalise = false;
    r = arch_key_u32(b, "expert_gating_func", ARCH_OPTIONAL, 0, GATING_SIGMOID, &gating);
    if (r == 0)
        r = arch_key_bool(b, "expert_weights_norm", ARCH_OPTIONAL, &e->normalise);
    /* 0 is how some files write that there is none, here and below. */
    if (r == 0)
        r = arch_key_f32(b, "expert_weights_scale", ARCH_OPTIONAL, 0.0f, 1e6f, &e->scale);
    if (r == 0)
        r = arch_key_u32(b, "expert_group_count", ARCH_OPTIONAL, 0, e->n, &e->n_groups);
    if (e->n_groups == 0)
        e->n_groups = 1;
    if (r == 0)
        r = arch_key_u32(b, "expert_group_used_count", ARCH_OPTIONAL, e->n_groups > 1, e->n_groups, &e->n_groups_used);
    if (r < 0)
        return r;
    if (e->n_groups_used == 0)
        e->n_groups_used = 1;
    e->gating = gating == GATING_SIGMOID ? GRAPH_GATE_SIGMOID : GRAPH_GATE_SOFTMAX;
    if (e->scale == 0.0f)
        e->scale = 1.0f;
    if (e->n % e->n_groups || e->n / e->n_groups * e->n_groups_used < e->n_used) {
        fault_model_invalid(b->fault, FAULT_NO_OFFSET,
                            "%" PRIu32 " of %" PRIu32 " groups of %" PRIu32 " experts have not the %" PRIu32
                            " experts of a token", e->n_groups_used, e->n_groups, e->n, e->n_used);
        return -EINVAL;
    }
    return 0;
}

static int experts_read(struct arch_build *b, struct arch_decoder *d)
{
    struct arch_experts *e = &d->experts;
    uint32_t n_shared = 0;
    int r;

    r = arch_experts_read(b, d, ARCH_OPTIONAL);
    if (r < 0 || e->n == 0)
        return r;
    r = arch_key_u32(b, "leading_dense_block_count", ARCH_OPTIONAL, 0, b->config->n_layers, &e->layer0);
    if (r == 0)
        r = arch_key_u32(b, "expert_shared_count", ARCH_OPTIONAL, 0, ARCH_FF_MAX / e->n_ff, &n_shared);
    if (r < 0)
        return r;
    e->n_ff_shared = n_shared * e->n_ff;
    return gating_read(b, e);
}

int deepseek2_build(struct arch_build *b)
{
    struct arch_decoder d;
    int r;

    r = arch_decoder_init(b, &d);
    if (r == 0)
        r = latent_read(b, &d);
    if (r == 0)
        r = yarn_read(b, &d);
    if (r == 0)
        r = experts_read(b, &d);
    if (r < 0)
        return r;
    d.interleaved = true;
    return arch_decoder_build(b, &d);
}
