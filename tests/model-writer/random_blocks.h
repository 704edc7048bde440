/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Random tensor data of any type: random bits, with each block's scales set so that the values have about a wanted
 * standard deviation. Deterministic by seed, and the same however the bytes are cut into calls at block borders.
 */

#include <stddef.h>
#include <stdint.h>

#include "engine/gguf/types.h"

struct random_blocks {
    uint64_t state;
    enum tensor_type type;
    uint32_t block_bytes;
    float std;
};

/**
 * random_blocks_init() - begin the sequence of @seed
 */
void random_blocks_init(struct random_blocks *r, enum tensor_type type, float std, uint64_t seed);

/**
 * random_blocks_fill() - the next @n_bytes, a whole number of blocks
 */
void random_blocks_fill(struct random_blocks *r, uint8_t *to, size_t n_bytes);

/**
 * random_next() - 64 random bits (splitmix64); advances *state
 */
uint64_t random_next(uint64_t *state);

/**
 * random_normal() - a value of mean 0 and deviation 1, bell-shaped, within ±6
 */
float random_normal(uint64_t *state);
