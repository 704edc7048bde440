/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Qwen 1.5 and 2 with experts: Qwen 2's layers, many small experts whose weights are those of the softmax over all of
 * them as they are, and beside them an expert for every token, multiplied by the sigmoid of a gate of its own.
 * Source: Yang et al., arXiv 2407.10671, 2.2.2.
 */

#include "engine/arch/blocks.h"

int qwen2moe_build(struct arch_build *b)
{
    struct arch_decoder d;
    uint32_t n_ff_shared = 0;
    int r;

    r = arch_decoder_init(b, &d);
    if (r == 0)
        r = arch_experts_read(b, &d, ARCH_REQUIRED);
    if (r == 0)
        r = arch_key_u32(b, "expert_shared_feed_forward_length", ARCH_OPTIONAL, 0, ARCH_FF_MAX, &n_ff_shared);
    if (r < 0)
        return r;
    d.experts.normalise = false;
    d.experts.n_ff_shared = n_ff_shared ? n_ff_shared : b->config->n_ff;
    d.experts.shared_gate = true;
    return arch_decoder_build(b, &d);
}
