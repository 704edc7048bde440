/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SHA-256 with the SHA extensions: some five times as fast as the portable form, which would take longer over a model
 * than reading it. The instructions, and which lanes hold what, are as in Intel's Software Developer's Manual, volume
 * 2 (SHA256RNDS2): one register holds A, B, E, F from the highest lane down, the other C, D, G, H; two rounds make the
 * next A, B, E, F, and the old ones become C, D, G, H.
 */
#include "base/sha256-blocks.h"

#include <cpuid.h>
#include <immintrin.h>
#include <stdbool.h>

#define CPUID_7_EBX_SHA (1u << 29)

__attribute__((target("sha,sse4.1,ssse3"))) static void add_blocks(uint32_t state[8], const uint8_t *p, size_t n_blocks)
{
    const __m128i big_endian = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    __m128i abef = _mm_set_epi32((int)state[0], (int)state[1], (int)state[4], (int)state[5]);
    __m128i cdgh = _mm_set_epi32((int)state[2], (int)state[3], (int)state[6], (int)state[7]);

    for (; n_blocks > 0; n_blocks--, p += SHA256_BLOCK_BYTES) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4]; /* the last 16 words of the message schedule */

#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            __m128i k = _mm_loadu_si128((const __m128i *)(const void *)(sha256_constants + (ptrdiff_t)4 * i));

            if (i < 4) {
                w[i] = _mm_loadu_si128((const __m128i *)(const void *)(p + (ptrdiff_t)16 * i));
                w[i] = _mm_shuffle_epi8(w[i], big_endian);
            } else {
                __m128i a = _mm_sha256msg1_epu32(w[i % 4], w[(i + 1) % 4]);

                a = _mm_add_epi32(a, _mm_alignr_epi8(w[(i + 3) % 4], w[(i + 2) % 4], 4));
                w[i % 4] = _mm_sha256msg2_epu32(a, w[(i + 3) % 4]);
            }
            k = _mm_add_epi32(k, w[i % 4]);
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, k);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(k, 0x0e));
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    state[0] = (uint32_t)_mm_extract_epi32(abef, 3);
    state[1] = (uint32_t)_mm_extract_epi32(abef, 2);
    state[2] = (uint32_t)_mm_extract_epi32(cdgh, 3);
    state[3] = (uint32_t)_mm_extract_epi32(cdgh, 2);
    state[4] = (uint32_t)_mm_extract_epi32(abef, 1);
    state[5] = (uint32_t)_mm_extract_epi32(abef, 0);
    state[6] = (uint32_t)_mm_extract_epi32(cdgh, 1);
    state[7] = (uint32_t)_mm_extract_epi32(cdgh, 0);
}

sha256_blocks_fn *sha256_blocks_best(void)
{
    unsigned a, b, c, d;
    bool has_sse = __get_cpuid(1, &a, &b, &c, &d) && c & bit_SSE4_1 && c & bit_SSSE3;

    if (has_sse && __get_cpuid_count(7, 0, &a, &b, &c, &d) && b & CPUID_7_EBX_SHA)
        return add_blocks;
    return sha256_blocks_portable;
}
