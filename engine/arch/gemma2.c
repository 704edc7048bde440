/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Gemma 2: Gemma's layers with a norm behind each block too, every other layer windowed, attention scores and logits
 * soft-capped.
 * Source: Gemma Team, arXiv 2408.00118. The 27B model scales scores by its embedding's share of a head instead
 * of by the head's size; files don't say so, it is known by its number of layers.
 */

#include <math.h>

#include "engine/arch/blocks.h"

#define LAYERS_27B 46

int gemma2_build(struct arch_build *b)
{
    const struct arch_config *c = b->config;
    struct arch_decoder d;
    int r;

    r = arch_decoder_init(b, &d);
    if (r < 0)
        return r;
    d.window = 4096;
    r = arch_window_read(b, &d, ARCH_OPTIONAL, 2);
    if (r == 0)
        r = arch_key_f32(b, "attn_logit_softcapping", ARCH_OPTIONAL, 0.0f, 1e6f, &d.attention_softcap);
    if (r == 0)
        r = arch_key_f32(b, "final_logit_softcapping", ARCH_OPTIONAL, 0.0f, 1e6f, &d.logit_softcap);
    if (r < 0)
        return r;
    d.embedding_scale = sqrtf((float)c->n_embedding);
    d.activation.kind = GRAPH_GELU;
    d.post_norms = true;
    if (c->n_layers == LAYERS_27B)
        d.attention_scale = 1.0f / sqrtf((float)(c->n_embedding / c->n_heads));
    return arch_decoder_build(b, &d);
}
