/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Code books of the IQ types: an entry holds the values of an index, one a byte, lowest first. Signs lie in the blocks.
 */

#include <stdint.h>

#define GRID_IQ2_XXS_N 256
#define GRID_IQ2_XS_N  512
#define GRID_IQ2_S_N   1024
#define GRID_IQ3_XXS_N 256
#define GRID_IQ3_S_N   512
#define GRID_IQ1_N     2048

extern const uint64_t grid_iq2_xxs[GRID_IQ2_XXS_N];
extern const uint64_t grid_iq2_xs[GRID_IQ2_XS_N];
extern const uint64_t grid_iq2_s[GRID_IQ2_S_N];
extern const uint32_t grid_iq3_xxs[GRID_IQ3_XXS_N];
extern const uint32_t grid_iq3_s[GRID_IQ3_S_N];
extern const uint64_t grid_iq1[GRID_IQ1_N]; /* signed bytes, eight times the format's values */

/* Seven signs are stored, the eighth makes their number even. */
static inline uint32_t grid_signs(uint32_t seven)
{
    return seven | (uint32_t)__builtin_parity(seven) << 7;
}
