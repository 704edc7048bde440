/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Times the matrix kernels on one thread: cycles per 256 weights from the cache, GB of weights a second from memory, GMAC
 * a second. A plain read of the same memory stands beside, slice by slice, because a machine is seldom alone; for the same
 * reason time is the thread's own, and the clock, which changes with the load, is measured beside each shape.
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

#define REGION     (400u << 20) /* bytes of weights: more than any cache holds */
#define SLICES_MAX 128

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
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

/* A plain read of the same memory: what the weights' stream is measured by. */
static double read_seconds(const uint8_t *p, size_t n_bytes)
{
    volatile uint64_t keep;
    uint64_t sum[4] = {0};
    double start = now();

    for (size_t i = 0; i + 256 <= n_bytes; i += 256) {
        for (uint32_t j = 0; j < 4; j++) {
            uint64_t v;

            memcpy(&v, p + i + 64 * j, sizeof(v));
            sum[j] ^= v;
        }
    }
    keep = sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
    (void)keep;
    return now() - start;
}

/* Of one cycle of the processor's clock: a multiplication that waits for the one before takes three on all that we know. */
static double cycle_seconds(void)
{
    double best = 1e9;

    for (uint32_t i = 0; i < 20; i++) {
        double start = now();
        uint64_t x = i;

        for (uint32_t j = 0; j < 10000; j++) {
            x *= 0x9E3779B97F4A7C15u;
            __asm__ volatile("" : "+r"(x));
        }
        start = now() - start;
        best = start < best ? start : best;
    }
    return best / 10000 / 3;
}

struct shape {
    const struct kernels *kernels;
    enum tensor_type type;
    uint32_t k, m, rows; /* rows of a slice */
    size_t row_bytes;
    const void *act;
    float *y;
    void *scratch;
};

static double slice_seconds(const struct shape *s, const uint8_t *w)
{
    double start = now();

    linear_rows(s->kernels, s->type, w, s->row_bytes, s->k, 0, s->rows, s->act, s->m, s->y, s->rows, s->scratch);
    return now() - start;
}

/* Slices are short, so that on a shared machine some run undisturbed: the best one and the median are told. */
static void bench_shape(const struct kernels *kernels, enum tensor_type type, uint32_t k, uint32_t m, const uint8_t *w)
{
    const struct tensor_traits *traits = tensor_traits(type);
    size_t row_bytes = (size_t)k / traits->block_values * traits->block_bytes, slice_bytes;
    enum act_format format = linear_format(kernels, type);
    uint32_t rows = (uint32_t)((m < 16 ? 4u << 20 : 1u << 19) / row_bytes) & ~31u, n_slices;
    struct shape s = {.kernels = kernels, .type = type, .k = k, .m = m, .rows = rows, .row_bytes = row_bytes};
    float *x = aligned((size_t)m * k * 4), *y = aligned((size_t)m * rows * 4);
    void *act = aligned(linear_pack_bytes(kernels, format, k, m)), *scratch = aligned(linear_scratch_bytes(kernels, k, m));
    double seconds[SLICES_MAX], reads[SLICES_MAX], cached = 1e9, pack = 1e9, cycle, macs = (double)rows * k * m, bytes;
    uint64_t seed = 1;

    if (!x || !y || !act || !scratch)
        exit(1);
    s.act = act;
    s.y = y;
    s.scratch = scratch;
    for (size_t i = 0; i < (size_t)m * k; i++)
        x[i] = random_float(&seed);
    for (uint32_t i = 0; i < 5; i++) {
        double start = now();

        linear_pack(kernels, format, x, k, k, m, 0, m, act);
        start = now() - start;
        pack = start < pack ? start : pack;
    }
    slice_bytes = rows * row_bytes;
    bytes = (double)slice_bytes;
    n_slices = (uint32_t)(REGION / slice_bytes) < SLICES_MAX ? (uint32_t)(REGION / slice_bytes) : SLICES_MAX;
    if (m >= 16)
        n_slices = n_slices < 15 ? n_slices : 15;
    for (uint32_t i = 0; i < n_slices; i++) {
        if (m < 16)
            reads[i] = read_seconds(w + (n_slices - 1 - i) * slice_bytes, slice_bytes);
        seconds[i] = slice_seconds(&s, w + i * slice_bytes);
    }
    s.rows = (uint32_t)((128u << 10) / row_bytes) < 32 ? 32 : (uint32_t)((128u << 10) / row_bytes) & ~31u;
    cycle = cycle_seconds();
    for (uint32_t i = 0; i < (m < 16 ? 200 : 20); i++) {
        double one = slice_seconds(&s, w) / s.rows;

        cached = one < cached ? one : cached;
    }
    qsort(seconds, n_slices, sizeof(*seconds), compare);
    qsort(reads, m < 16 ? n_slices : 0, sizeof(*reads), compare);
    printf("%-7s %-11s k %5u m %3u:", traits->name, kernels_isa_name(kernels->isa), k, m);
    printf(" cached %6.1f cycles/256", cached / cycle / k * 256);
    if (m < 16)
        printf(", memory best %5.1f median %5.1f GB/s (read %5.1f, %5.1f)", bytes / seconds[0] * 1e-9,
               bytes / seconds[n_slices / 2] * 1e-9, bytes / reads[0] * 1e-9, bytes / reads[n_slices / 2] * 1e-9);
    printf(", best %6.1f median %6.1f GMAC/s, pack %.2f ns/value\n", macs / seconds[0] * 1e-9, macs / seconds[n_slices / 2] * 1e-9,
           pack * 1e9 / ((double)m * k));
    fflush(stdout);
    free(x);
    free(y);
    free(act);
    free(scratch);
}

int bench(const char *type_name, const char *isa_name, uint32_t k)
{
    static const enum tensor_type types[] = {
        TENSOR_Q4_K, TENSOR_Q6_K, TENSOR_Q8_0,   TENSOR_Q5_K, TENSOR_Q4_0, TENSOR_IQ4_XS, TENSOR_IQ4_NL, TENSOR_Q3_K,
        TENSOR_Q2_K, TENSOR_Q5_0, TENSOR_Q4_1,   TENSOR_Q5_1, TENSOR_F16,  TENSOR_BF16,   TENSOR_F32,
        TENSOR_MXFP4, TENSOR_IQ2_XXS, TENSOR_IQ2_XS, TENSOR_IQ2_S, TENSOR_IQ3_XXS, TENSOR_IQ3_S, TENSOR_IQ1_S, TENSOR_IQ1_M, TENSOR_TQ1_0, TENSOR_TQ2_0,
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
                bench_shape(&kernels, types[i], k, tokens[l], w);
        }
    }
    free(w);
    return 0;
}
