/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/kernels/rope.h"

#define ANGLE static
#include "engine/kernels/rope-angle.inc"

void rope_table(const double *frequency, uint32_t n_pairs, uint32_t position, float magnitude, float *ret)
{
    for (uint32_t i = 0; i < n_pairs; i++) {
        double s, c;

        sine_and_cosine((double)position * frequency[i], &s, &c);
        ret[2 * i] = (float)c * magnitude;
        ret[2 * i + 1] = (float)s * magnitude;
    }
}
