/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Angles of rotary position embedding. They are computed in double precision from the position itself, with
 * our own sine and cosine, so that a table has the same bits on every machine and long contexts lose nothing:
 * an angle in single precision is wrong by 0.004 at position 100000. The rotation itself is a vector kernel
 * (vector.h, rope). One table serves all layers with the same frequencies.
 */

#include <stdint.h>

/**
 * rope_table() - cosines and sines of one position
 * @frequency: [n_pairs], radians per position, with whatever scaling the model asks for (linear, YaRN,
 * factors) in it
 * @magnitude: factor on both (YaRN's; 1 for others)
 * @ret: [n_pairs][2]: cosine, sine
 * Frequencies must be finite; |position * frequency| up to 1e9 is exact to a float.
 */
void rope_table(const double *frequency, uint32_t n_pairs, uint32_t position, float magnitude, float *ret);
