/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Granite 3 and 4 (dense): llama's layers with four multipliers: of the embeddings, of attention scores (in
 * place of one over the root of the head's size), of what each block adds, and a divisor of the logits.
 * Source: IBM Granite Team, "Granite 3.0 Language Models"; transformers, models/granite.
 */

#include "engine/arch/blocks.h"

/* Far beyond any published multiplier (granite's are 0.0078 to 16). */
#define SCALE_MIN 1e-6f
#define SCALE_MAX 1e6f

int granite_build(struct arch_build *b)
{
    float logits_divided_by = 1.0f;
    bool rotated = true;
    struct arch_decoder d;
    int r;

    r = arch_decoder_init(b, &d);
    if (r == 0)
        r = arch_key_f32(b, "embedding_scale", ARCH_OPTIONAL, SCALE_MIN, SCALE_MAX, &d.embedding_scale);
    if (r == 0)
        r = arch_key_f32(b, "residual_scale", ARCH_OPTIONAL, SCALE_MIN, SCALE_MAX, &d.residual_scale);
    if (r == 0)
        r = arch_key_f32(b, "attention.scale", ARCH_OPTIONAL, SCALE_MIN, SCALE_MAX, &d.attention_scale);
    if (r == 0)
        r = arch_key_f32(b, "logit_scale", ARCH_REQUIRED, SCALE_MIN, SCALE_MAX, &logits_divided_by);
    /* What the key says elsewhere is another matter: here it tells whether there are positions at all. */
    if (r == 0)
        r = arch_key_bool(b, "rope.scaling.finetuned", ARCH_OPTIONAL, &rotated);
    if (r < 0)
        return r;
    d.interleaved = true;
    d.logit_scale = 1.0f / logits_divided_by;
    for (uint32_t i = 0; i < b->config->n_layers; i++)
        d.unrotated[i] = !rotated;
    return arch_decoder_build(b, &d);
}
