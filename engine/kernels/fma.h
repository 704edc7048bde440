/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * a * b + c in float32 with one rounding, for scalar code on machines and builds without the instruction: the
 * scalar kernels must give the bits of vfmadd, and the C library's fmaf is not used in kernels.
 * The product of two floats is exact in a double. The sum is rounded to odd (Boldo and Melquiond, "Emulation of FMA
 * and correctly rounded sums", 2008), after which rounding to float can't go wrong a second time.
 */

#include <stdint.h>
#include <string.h>

static inline float fma_exact(float a, float b, float c)
{
    double product = (double)a * (double)b;
    double addend = (double)c;
    double sum = product + addend;
    double rest = sum - product;
    double error = (product - (sum - rest)) + (addend - rest);
    uint64_t bits;

    memcpy(&bits, &sum, sizeof(bits));
    /* error is NaN when the sum is infinite or NaN: both comparisons are false and the sum stands. */
    if ((error > 0.0 || error < 0.0) && !(bits & 1)) {
        bits += (error > 0.0) == (sum > 0.0) ? 1 : (uint64_t)-1;
        memcpy(&sum, &bits, sizeof(bits));
    }
    return (float)sum;
}
