/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Qwen 2 and 2.5: llama's layers with biases on q, k and v, and rotated pairs half a head apart.
 * Source: Yang et al., arXiv 2407.10671.
 */

#include "engine/arch/blocks.h"

int qwen2_build(struct arch_build *b)
{
    struct arch_decoder d;
    int r;

    r = arch_decoder_init(b, &d);
    return r < 0 ? r : arch_decoder_build(b, &d);
}
