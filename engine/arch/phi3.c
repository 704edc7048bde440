/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Phi 3, 3.5 and 4: llama's layers with q, k and v in one matrix and gate and up in another, rotated pairs half a head
 * apart; models for long contexts have LongRoPE factors (rope.c). A file's sliding window is not used: the models that
 * have one were converted without saying which layers it applies to, and other engines leave it out too.
 * Source: Abdin et al., arXiv 2404.14219.
 */

#include "engine/arch/blocks.h"

int phi3_build(struct arch_build *b)
{
    struct arch_decoder d;
    int r;

    r = arch_decoder_init(b, &d);
    if (r < 0)
        return r;
    d.gate_up_fused = true;
    return arch_decoder_build(b, &d);
}
