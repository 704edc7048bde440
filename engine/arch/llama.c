/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The llama family (Llama 1 to 3, Mistral, and what is stored as such): RMS norms before attention and feed-forward,
 * grouped-query attention with rotary positions, SwiGLU. GGUF files of this architecture keep q and k permuted so that
 * the rotated pairs are neighbours. Biases are used where a file has them.
 * Sources: Touvron et al., arXiv 2302.13971; Ainslie et al., arXiv 2305.13245; GGUF specification, "LLM architectures".
 */

#include <errno.h>
#include <inttypes.h>
#include <math.h>

#include "base/fault.h"
#include "engine/arch/blocks.h"

int llama_build(struct arch_build *b)
{
    struct arch_config *c = b->config;
    struct arch_rope rope = {.base = 10000.0f};
    struct arch_attention attention = {.interleaved = true};
    struct graph_tensor embedding;
    uint32_t n_experts = 0, x;
    int r;

    r = arch_config_read(b);
    if (r < 0)
        return r;
    r = arch_key_u32(b, "expert_count", ARCH_OPTIONAL, 0, UINT32_MAX, &n_experts);
    if (r < 0)
        return r;
    if (n_experts) {
        fault_model_invalid(b->fault, FAULT_NO_OFFSET,
                            "%s.expert_count is %" PRIu32 ": mixtures of experts are not supported in this version",
                            b->name, n_experts);
        return -EINVAL;
    }

    b->graph->n_groups = 1;
    b->graph->groups[0] = (struct graph_group){
        .n_layers = c->n_layers, .n_kv_heads = c->n_kv_heads, .k_dim = c->k_dim, .v_dim = c->v_dim};

    r = arch_embed(b, &x, &embedding);
    if (r < 0)
        return r;
    rope.n_rot = attention.n_rot = c->n_rot;
    r = arch_rope_read(b, &rope);
    if (r < 0)
        return r;
    r = arch_rope_table(b, &rope, &attention.rope_table);
    if (r < 0)
        return r;
    attention.scale = 1.0f / sqrtf((float)c->k_dim);

    for (uint32_t layer = 0; layer < c->n_layers; layer++) {
        attention.group_layer = layer;
        r = arch_attention_block(b, layer, &attention, x);
        if (r < 0)
            return r;
        r = arch_ffn_block(b, layer, x);
        if (r < 0)
            return r;
    }
    return arch_output(b, x, &embedding);
}
