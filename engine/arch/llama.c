/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The llama family (Llama 1 to 3, Mistral, Mixtral, and what is stored as such): RMS norms before attention and
 * feed-forward, grouped-query attention with rotary positions, SwiGLU. GGUF files of this architecture keep q and k
 * permuted so that the rotated pairs are neighbours. Biases are used where a file has them.
 *
 * Mixtral: experts in place of the feed-forward network; the weights of the chosen ones add up to 1. Mistral 7B
 * v0.1: all layers see a window only, where the file says so.
 * Sources: Touvron et al., arXiv 2302.13971; Ainslie et al., arXiv 2305.13245; Jiang et al., arXiv 2310.06825 and
 * 2401.04088; GGUF specification, "LLM architectures".
 */

#include "engine/arch/blocks.h"

int llama_build(struct arch_build *b)
{
    struct arch_decoder d;
    int r;

    r = arch_decoder_init(b, &d);
    if (r == 0)
        r = arch_window_read(b, &d, ARCH_OPTIONAL, 0);
    if (r == 0)
        r = arch_experts_read(b, &d, ARCH_OPTIONAL);
    if (r < 0)
        return r;
    d.interleaved = true;
    return arch_decoder_build(b, &d);
}
