/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Gemma 3 (its text part): Gemma 2's layers with norms on the heads of q and k in place of the caps; five of
 * six layers are windowed and have rotary frequencies of their own, to which the file's scaling does not apply.
 * Source: Gemma Team, arXiv 2503.19786. The scale of the 27B model's scores is known as with Gemma 2.
 */

#include <math.h>

#include "engine/arch/blocks.h"

#define LAYERS_27B 62

int gemma3_build(struct arch_build *b)
{
    const struct arch_config *c = b->config;
    struct arch_decoder d;
    int r;

    r = arch_decoder_init(b, &d);
    if (r == 0)
        r = arch_window_read(b, &d, ARCH_OPTIONAL, 6);
    if (r < 0)
        return r;
    d.window_rope_base = 10000.0f;
    r = arch_key_f32(b, "rope.freq_base_swa", ARCH_OPTIONAL, 1.0001f, ARCH_ROPE_BASE_MAX, &d.window_rope_base);
    if (r == 0)
        r = arch_key_f32(b, "final_logit_softcapping", ARCH_OPTIONAL, 0.0f, 1e6f, &d.logit_softcap);
    if (r < 0)
        return r;
    d.embedding_scale = sqrtf((float)c->n_embedding);
    d.activation.kind = GRAPH_GELU;
    d.post_norms = true;
    d.qk_norm = true;
    if (c->n_layers == LAYERS_27B)
        d.attention_scale = 1.0f / sqrtf((float)(c->n_embedding / c->n_heads));
    return arch_decoder_build(b, &d);
}
