/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * How much of a model file's directory is believed. Each limit lies well above what published models use and well
 * below what would hurt: a file beyond one of them is refused, with the limit in the message. (Limits of the other
 * parsers of the worker stand beside those parsers.)
 */

#include <stdint.h>

/*
 * The directory is copied into memory of our own before it is believed. Vocabularies of 262,144 tokens with merges
 * make 15 MB; string positions are kept as 32-bit numbers, so this must stay below 4 GiB.
 */
#define GGUF_HEADER_BYTES_MAX (256ull << 20)

/* Published models have up to 100 keys. */
#define GGUF_KEYS_MAX 65536u

/* A mixture of experts with every expert a tensor of its own: 61 layers × 384 experts × 3 = 70,272. */
#define GGUF_TENSORS_MAX 131072u

/* As the specification has them: keys up to 2^16 - 1 bytes, tensor names up to 64. */
#define GGUF_KEY_BYTES_MAX 65535u
#define GGUF_TENSOR_NAME_BYTES_MAX 64u

#define GGUF_DIMS_MAX 4u

/*
 * The specification wants a multiple of 8 (and 32 when the key is absent). More than a huge page helps nobody, and a
 * bounded alignment keeps the sums of padded sizes far from wrapping.
 */
#define GGUF_ALIGNMENT_MIN 8u
#define GGUF_ALIGNMENT_MAX (2u << 20)
#define GGUF_ALIGNMENT_DEFAULT 32u

/* split.count is a 16-bit number, but each part costs a descriptor and a mapping; published models have up to 100. */
#define GGUF_PARTS_MAX 1024u
