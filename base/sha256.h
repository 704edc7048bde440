/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * SHA-256 (FIPS 180-4) of a stream of bytes, to check that a model file is the one that the administrator meant.
 */

#include <stddef.h>
#include <stdint.h>

#define SHA256_TEXT_MAX 65 /* hexadecimal digits and the final NUL */

struct sha256 {
    uint32_t state[8];
    uint64_t n_bytes;
    uint8_t block[64];
    void (*add_blocks)(uint32_t state[8], const uint8_t *p, size_t n_blocks); /* the fastest that the machine has */
};

/**
 * sha256_init() - start with nothing
 */
void sha256_init(struct sha256 *s);

/**
 * sha256_add() - @n more bytes
 */
void sha256_add(struct sha256 *s, const void *data, size_t n);

/**
 * sha256_text() - end, and write the digest as lower-case hexadecimal text; @s must be initialised anew afterwards
 * Returns @buffer.
 */
const char *sha256_text(struct sha256 *s, char buffer[SHA256_TEXT_MAX]);
