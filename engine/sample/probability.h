/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * exp, log and sums over a vocabulary for the sampler: plain C with one fixed order of operations and no C
 * library, so that every machine gets the same bits. Sums over many tokens run in 16 lanes per chunk of 1024
 * tokens, and over the chunks in double precision.
 */

#include <stdint.h>

#define PROBABILITY_CHUNK 1024 /* tokens */

/* A logit as the sampler sees it: NaN is impossible, infinity the largest float. */
static inline float probability_clean(float logit)
{
    if (!(logit <= __FLT_MAX__)) /* +infinity and NaN */
        return logit > 0 ? __FLT_MAX__ : -__builtin_inff();
    return logit;
}

/**
 * probability_exp() - exp(x) for x <= 0 (NaN: anything); 0 below -87. Relative error below 1e-7.
 */
float probability_exp(float x);

/**
 * probability_log() - the natural logarithm of a positive, finite, normal double. Relative error below 1e-14.
 */
double probability_log(double x);

/**
 * probability_max() - the largest of n >= 1 logits (cleaned); -infinity when there is none
 */
float probability_max(const float *logits, uint32_t n);

/**
 * probability_sum() - sum of exp((logits[i] - most) / temperature)
 * @ret_chunks: NULL, or the sums of each chunk of PROBABILITY_CHUNK tokens
 */
double probability_sum(const float *logits, uint32_t n, float most, float temperature, double *ret_chunks);

/**
 * probability_mean_distance() - sum of d * exp(-d), d = most - logits[i]: with the sum at temperature 1, the
 * entropy
 */
double probability_mean_distance(const float *logits, uint32_t n, float most);
