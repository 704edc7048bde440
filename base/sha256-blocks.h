/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The inner loop of SHA-256, in the forms that machines have. For sha256.c and its test.
 */

#include <stddef.h>
#include <stdint.h>

#define SHA256_BLOCK_BYTES 64

typedef void sha256_blocks_fn(uint32_t state[8], const uint8_t *p, size_t n_blocks);

/* FIPS 180-4, section 4.2.2. */
extern const uint32_t sha256_constants[64];

/**
 * sha256_blocks_portable() - @n_blocks blocks of 64 bytes at @p into @state, on any machine
 */
void sha256_blocks_portable(uint32_t state[8], const uint8_t *p, size_t n_blocks);

/**
 * sha256_blocks_best() - the fastest form that this machine can run
 */
sha256_blocks_fn *sha256_blocks_best(void);
