/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sine and cosine in double precision from IEEE operations alone: reduction by pi/2 in three parts (Cody and
 * Waite; the first two have 33 bits, so that their products with the quadrant are exact up to 2^20 quadrants,
 * and below a float's half ulp far beyond), then Taylor polynomials on [-pi/4, pi/4], whose first omitted
 * terms are below 1e-15.
 */
#include "engine/kernels/rope.h"

#define TWO_OVER_PI 0x1.45f306dc9c883p-1
#define HALF_PI_1   0x1.921fb544p+0
#define HALF_PI_2   0x1.0b4611a6p-34
#define HALF_PI_3   0x1.3198a2e037073p-69
#define ROUND       0x1.8p+52 /* adding and subtracting it rounds to an integer, to even */

static double sine(double r)
{
    double z = r * r;
    double p = -1.0 / 1307674368000.0;

    p = p * z + 1.0 / 6227020800.0;
    p = p * z - 1.0 / 39916800.0;
    p = p * z + 1.0 / 362880.0;
    p = p * z - 1.0 / 5040.0;
    p = p * z + 1.0 / 120.0;
    p = p * z - 1.0 / 6.0;
    return r + r * z * p;
}

static double cosine(double r)
{
    double z = r * r;
    double p = -1.0 / 87178291200.0;

    p = p * z + 1.0 / 479001600.0;
    p = p * z - 1.0 / 3628800.0;
    p = p * z + 1.0 / 40320.0;
    p = p * z - 1.0 / 720.0;
    p = p * z + 1.0 / 24.0;
    p = p * z - 0.5;
    return 1.0 + z * p;
}

void rope_table(const double *frequency, uint32_t n_pairs, uint32_t position, float magnitude, float *ret)
{
    for (uint32_t i = 0; i < n_pairs; i++) {
        double angle = (double)position * frequency[i];
        double quadrant = (angle * TWO_OVER_PI + ROUND) - ROUND;
        double r = ((angle - quadrant * HALF_PI_1) - quadrant * HALF_PI_2) - quadrant * HALF_PI_3;
        double s = sine(r), c = cosine(r);

        switch ((int64_t)quadrant & 3) {
        case 0:
            break;
        case 1: {
            double t = s;

            s = c;
            c = -t;
            break;
        }
        case 2:
            s = -s;
            c = -c;
            break;
        default: {
            double t = s;

            s = -c;
            c = t;
            break;
        }
        }
        ret[2 * i] = (float)c * magnitude;
        ret[2 * i + 1] = (float)s * magnitude;
    }
}
