/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rows of weights as float32. Scalar on purpose: one embedding row per token is all that a step needs of it.
 */
#include "engine/kernels/dequantise.h"

#include <assert.h>
#include <string.h>

#include "engine/gguf/half.h"
#include "engine/kernels/decode.h"

bool dequantise_has_type(uint32_t type)
{
    return type == TENSOR_F32 || type == TENSOR_F16 || type == TENSOR_BF16 || block_is_decodable(type);
}

static void dequantise_block(const struct decoded_block *block, float *dst)
{
    for (uint32_t j = 0; j * block->sub_values < block->n_values; j++) {
        float scale = block->d * (float)block->scale[j];
        float offset = block->dmin * (float)block->min[j];

        for (uint32_t i = j * block->sub_values; i < (j + 1) * block->sub_values; i++) {
            float value = scale * (float)block->q[i];

            dst[i] = block->has_min ? value - offset : value;
        }
    }
}

void dequantise_row(enum tensor_type type, const void *src, uint32_t k, float *dst)
{
    const struct tensor_traits *traits = tensor_traits(type);
    const uint8_t *p = src;

    assert(dequantise_has_type(type) && k % traits->block_values == 0);

    if (type == TENSOR_F32) {
        memcpy(dst, src, (size_t)k * sizeof(float));
        return;
    }
    if (type == TENSOR_F16 || type == TENSOR_BF16) {
        for (uint32_t i = 0; i < k; i++) {
            uint16_t bits;

            memcpy(&bits, p + (size_t)i * 2, sizeof(bits));
            dst[i] = type == TENSOR_F16 ? half_to_float(bits) : bf16_to_float(bits);
        }
        return;
    }
    for (uint32_t i = 0; i < k; i += traits->block_values, p += traits->block_bytes) {
        struct decoded_block block;

        block_decode(type, p, &block);
        dequantise_block(&block, dst + i);
    }
}
