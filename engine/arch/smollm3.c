/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SmolLM 3: llama's layers, every fourth of them without positions ("NoPE").
 * Source: Hugging Face, "SmolLM3: smol, multilingual, long-context reasoner"; Yang et al., arXiv 2501.18795.
 */

#include "engine/arch/blocks.h"

#define UNROTATED_PERIOD 4

int smollm3_build(struct arch_build *b)
{
    struct arch_decoder d;
    int r;

    r = arch_decoder_init(b, &d);
    if (r < 0)
        return r;
    d.interleaved = true;
    for (uint32_t i = 0; i < b->config->n_layers; i++)
        d.unrotated[i] = i % UNROTATED_PERIOD == UNROTATED_PERIOD - 1;
    return arch_decoder_build(b, &d);
}
