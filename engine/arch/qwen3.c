/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Qwen 3: Qwen 2's layers without biases, with an RMS norm on each head of q and k.
 * Source: Yang et al., arXiv 2505.09388.
 */

#include "engine/arch/blocks.h"

int qwen3_build(struct arch_build *b)
{
    struct arch_decoder d;
    int r;

    r = arch_decoder_init(b, &d);
    if (r < 0)
        return r;
    d.qk_norm = true;
    return arch_decoder_build(b, &d);
}
