/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Four floats at a time, in the compiler's own vectors, which every 64-bit machine has; what is compiled for
 * is the baseline of the platform, and no fused operation is used, so the bits are the same everywhere.
 */
#include "engine/sample/probability.h"

#include <stdbool.h>
#include <string.h>

enum {
    BLOCK = 16, /* lanes of a sum */
    WIDTH = 4,
};

typedef float floats __attribute__((vector_size(WIDTH * sizeof(float))));
typedef int32_t masks __attribute__((vector_size(WIDTH * sizeof(int32_t))));

static inline floats all(float x)
{
    return (floats){x, x, x, x};
}

static inline floats load(const float *p)
{
    floats x;

    memcpy(&x, p, sizeof(x));
    return x;
}

static inline floats select(masks m, floats a, floats b)
{
    return (floats)(((masks)a & m) | ((masks)b & ~m));
}

/* probability_clean() */
static inline floats clean(floats x)
{
    return select(x <= all(__FLT_MAX__), x, select(x > all(0), all(__FLT_MAX__), all(-__builtin_inff())));
}

/*
 * 2^n * e^r with n = round(x / ln 2), |r| <= ln 2 / 2. ln 2 in two parts, the upper with few bits, so that
 * its product with n is exact. The polynomial is a minimax fit made for this file.
 */
static inline floats exp_of(floats x)
{
    const floats round = all(0x1.8p+23f);
    masks is_zero = x < all(-87.0f);
    floats cut = select(is_zero, all(-87.0f), x);
    floats n = (cut * all(0x1.715476p+0f) + round) - round;
    floats r = (cut - n * all(0x1.63p-1f)) + n * all(0x1.bd0106p-13f);
    floats p = all(0x1.6a21acp-10f);

    p = p * r + all(0x1.123b6ap-7f);
    p = p * r + all(0x1.5558fap-5f);
    p = p * r + all(0x1.555490p-3f);
    p = p * r + all(0x1.fffffcp-2f);
    p = all(1.0f) + (r + r * r * p);
    p *= (floats)((__builtin_convertvector(n, masks) + 127) << 23);
    return select(is_zero, all(0), p);
}

float probability_exp(float x)
{
    return exp_of(all(x))[0];
}

/*
 * x = 2^e * m with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh((m - 1) / (m + 1)), its series up to the 21st
 * power.
 */
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
    floats most[BLOCK / WIDTH];
    float result = -__builtin_inff();
    uint32_t i = 0;

    for (uint32_t j = 0; j < BLOCK / WIDTH; j++)
        most[j] = all(result);
    for (; i + BLOCK <= n; i += BLOCK) {
        for (uint32_t j = 0; j < BLOCK / WIDTH; j++) {
            floats x = load(logits + i + j * WIDTH);

            most[j] = select(x > most[j], x, most[j]);
        }
    }
    for (uint32_t j = 0; j < BLOCK; j++)
        result = most[j / WIDTH][j % WIDTH] > result ? most[j / WIDTH][j % WIDTH] : result;
    for (; i < n; i++)
        result = logits[i] > result ? logits[i] : result;
    return probability_clean(result);
}

/*
 * exp(x) of x = (logit - most) / temperature; and, for the mean, times -x. An infinite distance counts for
 * nothing.
 */
static inline floats term(floats x, bool is_mean)
{
    floats e = exp_of(x);

    return is_mean ? select(e > all(0), -x * e, all(0)) : e;
}

static inline double chunk_sum(const float *logits, uint32_t n, float most, float temperature, bool is_mean)
{
    floats sum[BLOCK / WIDTH] = {all(0), all(0), all(0), all(0)};
    double total = 0;
    uint32_t i = 0;

    for (; i + BLOCK <= n; i += BLOCK)
        for (uint32_t j = 0; j < BLOCK / WIDTH; j++)
            sum[j] += term((clean(load(logits + i + j * WIDTH)) - all(most)) / all(temperature), is_mean);
    for (; i < n; i++)
        sum[i % BLOCK / WIDTH][i % WIDTH] +=
            term((all(probability_clean(logits[i])) - all(most)) / all(temperature), is_mean)[0];
    for (uint32_t j = 0; j < BLOCK; j++)
        total += (double)sum[j / WIDTH][j % WIDTH];
    return total;
}

static uint32_t chunk_at(uint32_t i, uint32_t n)
{
    return n - i < PROBABILITY_CHUNK ? n - i : PROBABILITY_CHUNK;
}

double probability_sum(const float *logits, uint32_t n, float most, float temperature, double *ret_chunks)
{
    double total = 0;

    for (uint32_t i = 0; i < n; i += PROBABILITY_CHUNK) {
        double sum = chunk_sum(logits + i, chunk_at(i, n), most, temperature, false);

        if (ret_chunks)
            ret_chunks[i / PROBABILITY_CHUNK] = sum;
        total += sum;
    }
    return total;
}

double probability_mean_distance(const float *logits, uint32_t n, float most)
{
    double total = 0;

    for (uint32_t i = 0; i < n; i += PROBABILITY_CHUNK)
        total += chunk_sum(logits + i, chunk_at(i, n), most, 1, true);
    return total;
}
