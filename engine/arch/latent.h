/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct arch_attention;
struct arch_build;
struct arch_decoder;

/* Attention whose keys and values come from one short vector a token (latent.c). */
struct arch_latent {
    uint32_t kv_rank;       /* of that vector; 0: attention is the usual one */
    uint32_t q_rank;        /* of the one that q comes from; 0: q comes from the stream */
    uint32_t n_nope, v_dim; /* of a head: dimensions of a key without a position, and of a value */
    bool is_compressed;     /* the cache holds the vector; b->config has the cache's sizes either way */
};

/**
 * arch_latent_block() - arch_attention_block() with d->latent
 */
int arch_latent_block(struct arch_build *b, const struct arch_decoder *d, uint32_t layer,
                      const struct arch_attention *a, uint32_t x);
