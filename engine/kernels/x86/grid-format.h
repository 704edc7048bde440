/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * An unpacked block of the types in blocks-grid.h, and how a type is unpacked.
 */

#include <stddef.h>
#include <stdint.h>

struct grid_block {
    int8_t q[256];
    int8_t scale[16]; /* of 16 values each */
    float d;
} __attribute__((aligned(64)));

struct grid_format {
    void (*unpack)(const uint8_t *p, struct grid_block *ret);
    size_t block_bytes;
};
