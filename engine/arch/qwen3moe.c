/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Qwen 3 with experts: Qwen 3's layers; the weights of a token's experts add up to 1, and there is no shared expert.
 * Source: Yang et al., arXiv 2505.09388.
 */

#include "engine/arch/blocks.h"

int qwen3moe_build(struct arch_build *b)
{
    struct arch_decoder d;
    int r;

    r = arch_decoder_init(b, &d);
    if (r == 0)
        r = arch_experts_read(b, &d, ARCH_REQUIRED);
    if (r < 0)
        return r;
    d.qk_norm = true;
    return arch_decoder_build(b, &d);
}
