/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Gemma 1: llama's layers with GELU in place of SiLU, heads wider than their share of the embedding, embeddings
 * multiplied by the square root of their length, the output tied to them. The files store norm weights with the
 * 1 already added.
 * Source: Gemma Team, arXiv 2403.08295.
 */

#include <math.h>

#include "engine/arch/blocks.h"

int gemma_build(struct arch_build *b)
{
    struct arch_decoder d;
    int r;

    r = arch_decoder_init(b, &d);
    if (r < 0)
        return r;
    d.embedding_scale = sqrtf((float)b->config->n_embedding);
    d.activation.kind = GRAPH_GELU;
    return arch_decoder_build(b, &d);
}
