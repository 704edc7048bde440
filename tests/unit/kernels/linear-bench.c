/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Times the matrix kernels: GB of weights a second and GMAC a second, one thread, weights from memory that no cache
 * holds. The machine is seldom alone: the best of several rounds stands beside the median.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <cmocka.h>

#include "tests/unit/kernels/linear-cases.h"

#define ROUNDS     7
#define REGION     (400u << 20) /* bytes of weights, walked once a round for few tokens */
#define MANY_BYTES (12u << 20)  /* bytes walked for many */

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void *aligned(size_t n_bytes)
{
    void *p = aligned_alloc(2u << 20, (n_bytes + (2u << 20) - 1) & ~(size_t)((2u << 20) - 1));

    if (p) {
        madvise(p, n_bytes, MADV_HUGEPAGE);
        memset(p, 0, n_bytes);
    }
    return p;
}

static void bench_shape(const struct kernels *kernels, enum tensor_type type, uint32_t k, uint32_t m, const uint8_t *w)
{
    const struct tensor_traits *traits = tensor_traits(type);
    size_t row_bytes = (size_t)k / traits->block_values * traits->block_bytes;
    uint32_t n = (uint32_t)((m < 16 ? REGION : MANY_BYTES) / row_bytes) & ~15u;
    enum act_format format = linear_format(kernels, type);
    float *x = aligned((size_t)m * k * 4), *y = aligned((size_t)m * n * 4);
    void *act = aligned(linear_pack_bytes(kernels, format, k, m)), *scratch = aligned(linear_scratch_bytes(kernels, k, m));
    double seconds[ROUNDS], pack_seconds;
    uint64_t seed = 1;

    if (!x || !y || !act || !scratch)
        exit(1);
    for (size_t i = 0; i < (size_t)m * k; i++)
        x[i] = random_float(&seed);
    linear_pack(kernels, format, x, k, k, m, 0, m, act);
    pack_seconds = now();
    linear_pack(kernels, format, x, k, k, m, 0, m, act);
    pack_seconds = now() - pack_seconds;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        seconds[i] = now();
        for (uint32_t r = 0; r < n; r += 256)
            linear_rows(kernels, type, w, row_bytes, k, r, r + 256 < n ? r + 256 : n, act, m, y, n, scratch);
        seconds[i] = now() - seconds[i];
    }
    qsort(seconds, ROUNDS, sizeof(*seconds), compare);
    printf("%-7s %-12s k %5u m %3u: best %6.1f GB/s %6.1f GMAC/s, median %6.1f GB/s %6.1f GMAC/s, pack %.2f ns/value\n", traits->name,
           kernels_isa_name(kernels->isa), k, m, (double)(n * row_bytes) / seconds[0] * 1e-9, (double)n * k * m / seconds[0] * 1e-9,
           (double)(n * row_bytes) / seconds[ROUNDS / 2] * 1e-9, (double)n * k * m / seconds[ROUNDS / 2] * 1e-9,
           pack_seconds * 1e9 / ((double)m * k));
    fflush(stdout);
    free(x);
    free(y);
    free(act);
    free(scratch);
}

int bench(const char *type_name, const char *isa_name)
{
    static const enum tensor_type types[] = {
        TENSOR_Q4_K, TENSOR_Q6_K, TENSOR_Q8_0,   TENSOR_Q5_K, TENSOR_Q4_0, TENSOR_IQ4_XS, TENSOR_IQ4_NL, TENSOR_Q3_K,
        TENSOR_Q2_K, TENSOR_Q5_0, TENSOR_Q4_1,   TENSOR_Q5_1, TENSOR_F16,  TENSOR_BF16,   TENSOR_F32,
    };
    static const char *const limits[] = {"avx2", "avx-vnni", "avx512"};
    static const uint32_t tokens[] = {1, 2, 4, 8, 16, 128};
    uint8_t *w = aligned(REGION);
    uint64_t seed = 7;

    if (!w)
        return 1;
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        const struct tensor_traits *traits = tensor_traits(types[i]);

        if (type_name && strcmp(type_name, traits->name) != 0 && strcmp(type_name, "all") != 0)
            continue;
        /* One row of 1 MiB values, repeated: what the bits are does not change the time. */
        fill_weights(w, types[i], 1u << 20, WEIGHTS_USUAL, &seed);
        for (size_t n = (size_t)(1u << 20) / traits->block_values * traits->block_bytes, at = n; at + n <= REGION; at += n)
            memcpy(w + at, w, n);
        for (size_t j = 0; j < sizeof(limits) / sizeof(*limits); j++) {
            struct kernels kernels;
            uint32_t mask = 0;

            if ((isa_name && strcmp(isa_name, limits[j]) != 0) || kernels_isa_parse(limits[j], &mask) < 0)
                continue;
            kernels_select(mask & kernels_isa_detect(), &kernels);
            for (size_t l = 0; l < sizeof(tokens) / sizeof(*tokens); l++)
                bench_shape(&kernels, types[i], 4096, tokens[l], w);
        }
    }
    free(w);
    return 0;
}
