/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Loops over blocks of 16 without branches, which the compiler turns into vector code; the order of operations on each
 * element, and of the sums, stands in the source and can't be changed by it.
 */
#include "engine/sample/probability.h"

#include <string.h>

enum { BLOCK = 16 };

static inline float float_of_bits(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, sizeof(f));
    return f;
}

/*
 * 2^n * e^r with n = round(x / ln 2), |r| <= ln 2 / 2. ln 2 in two parts, the upper with few bits, so that its product
 * with n is exact. The polynomial is a minimax fit made for this file.
 */
static inline float exp_of(float x)
{
    const float round = 0x1.8p+23f;
    float cut = x > -87.0f ? x : -87.0f;
    float n = (cut * 0x1.715476p+0f + round) - round;
    float r = (cut - n * 0x1.63p-1f) + n * 0x1.bd0106p-13f;
    float p = 0x1.6a21acp-10f;

    p = p * r + 0x1.123b6ap-7f;
    p = p * r + 0x1.5558fap-5f;
    p = p * r + 0x1.555490p-3f;
    p = p * r + 0x1.fffffcp-2f;
    p = 1.0f + (r + r * r * p);
    p *= float_of_bits((uint32_t)((int32_t)n + 127) << 23);
    return x >= -87.0f ? p : 0.0f;
}

float probability_exp(float x)
{
    return exp_of(x);
}

/* x = 2^e * m with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh((m - 1) / (m + 1)), its series up to the 21st power. */
double probability_log(double x)
{
    uint64_t bits;
    int64_t e;
    double m, t, z, p;

    memcpy(&bits, &x, sizeof(bits));
    e = (int64_t)(bits >> 52) - 1023;
    bits = (bits & 0xFFFFFFFFFFFFFu) | 0x3FF0000000000000u;
    memcpy(&m, &bits, sizeof(m));
    if (m > 1.4142135623730951) {
        m *= 0.5;
        e++;
    }
    t = (m - 1.0) / (m + 1.0);
    z = t * t;
    p = 1.0 / 21.0;
    for (int i = 19; i >= 1; i -= 2)
        p = p * z + 1.0 / i;
    return (double)e * 0.6931471805599453 + 2.0 * t * p;
}

float probability_max(const float *logits, uint32_t n)
{
    float most[BLOCK], result = -__builtin_inff();
    uint32_t i = 0;

    for (uint32_t j = 0; j < BLOCK; j++)
        most[j] = result;
    for (; i + BLOCK <= n; i += BLOCK)
        for (uint32_t j = 0; j < BLOCK; j++)
            most[j] = logits[i + j] > most[j] ? logits[i + j] : most[j];
    for (; i < n; i++)
        most[i % BLOCK] = logits[i] > most[i % BLOCK] ? logits[i] : most[i % BLOCK];
    for (uint32_t j = 0; j < BLOCK; j++)
        result = most[j] > result ? most[j] : result;
    return probability_clean(result);
}

static double chunk_sum(const float *logits, uint32_t n, float most, float temperature)
{
    float sum[BLOCK] = {0};
    double total = 0;
    uint32_t i = 0;

    for (; i + BLOCK <= n; i += BLOCK)
        for (uint32_t j = 0; j < BLOCK; j++)
            sum[j] += exp_of((probability_clean(logits[i + j]) - most) / temperature);
    for (; i < n; i++)
        sum[i % BLOCK] += exp_of((probability_clean(logits[i]) - most) / temperature);
    for (uint32_t j = 0; j < BLOCK; j++)
        total += (double)sum[j];
    return total;
}

double probability_sum(const float *logits, uint32_t n, float most, float temperature, double *ret_chunks)
{
    double total = 0;

    for (uint32_t i = 0; i < n; i += PROBABILITY_CHUNK) {
        double sum = chunk_sum(logits + i, n - i < PROBABILITY_CHUNK ? n - i : PROBABILITY_CHUNK, most, temperature);

        if (ret_chunks)
            ret_chunks[i / PROBABILITY_CHUNK] = sum;
        total += sum;
    }
    return total;
}

double probability_mean_distance(const float *logits, uint32_t n, float most)
{
    double total = 0;

    for (uint32_t i = 0; i < n; i += PROBABILITY_CHUNK) {
        uint32_t end = n - i < PROBABILITY_CHUNK ? n - i : PROBABILITY_CHUNK;
        float sum[BLOCK] = {0};

        for (uint32_t j = 0; j < end; j++) {
            float d = most - probability_clean(logits[i + j]);
            float e = exp_of(-d);

            sum[j % BLOCK] += e > 0 ? d * e : 0; /* infinity * 0 is not 0 */
        }
        for (uint32_t j = 0; j < BLOCK; j++)
            total += (double)sum[j];
    }
    return total;
}
