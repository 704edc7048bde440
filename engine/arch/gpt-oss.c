/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gpt-oss: biases everywhere; attention in which each head has a sink, a logit that takes its share of the
 * softmax and has no value; every other layer windowed; experts chosen by their logits, weighted by the softmax
 * over the chosen ones; a clamped SwiGLU with 1 added to the up half.
 * Source: OpenAI, arXiv 2508.10925, and the reference implementation that it names.
 */

#include "engine/arch/blocks.h"

int gpt_oss_build(struct arch_build *b)
{
    struct arch_decoder d;
    int r;

    r = arch_decoder_init(b, &d);
    if (r == 0)
        r = arch_window_read(b, &d, ARCH_REQUIRED, 2);
    if (r == 0)
        r = arch_experts_read(b, &d, ARCH_REQUIRED);
    if (r < 0)
        return r;
    d.sinks = true;
    d.ffn_norm = "post_attention_norm";
    d.activation = (struct graph_activation){.kind = GRAPH_SWIGLU_CLAMPED, .alpha = 1.702f, .limit = 7.0f};
    d.experts.gating = GRAPH_GATE_SOFTMAX_CHOSEN;
    d.experts.normalise = false;
    return arch_decoder_build(b, &d);
}
