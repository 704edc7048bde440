/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/kernels/linear-cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/gguf/blocks.h"
#include "engine/gguf/half.h"

#define GUARD_BYTES 256u /* kept and checked before each buffer */
#define GUARD_BYTE  0x5A
#define CANARY      0x7FA5A5A5u /* a NaN that no kernel makes */

/*
 * Regions are kept and handed out again, their ends before the unreadable page: mapping new ones for each of thousands of
 * cases took longer than all kernels.
 */
static struct region {
    uint8_t *map;
    size_t n_bytes;
    bool used;
} regions[32];

static void region_map(struct region *region, size_t n_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), body = 1u << 16;
    void *map;

    while (body < n_bytes)
        body *= 2;
    map = mmap(NULL, body + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(map != MAP_FAILED);
    assert_int_equal(mprotect((uint8_t *)map + body, page, PROT_NONE), 0);
    region->map = map;
    region->n_bytes = body;
}

struct guarded guarded_new(size_t n_bytes)
{
    size_t need = n_bytes + GUARD_BYTES;
    struct region *best = NULL;

    for (size_t i = 0; i < sizeof(regions) / sizeof(*regions); i++) {
        struct region *region = &regions[i];

        if (region->used || (region->map && region->n_bytes < need))
            continue;
        if (!best || (region->map && (!best->map || region->n_bytes < best->n_bytes)))
            best = region;
    }
    assert_non_null(best);
    if (!best->map)
        region_map(best, need);
    best->used = true;
    memset(best->map + best->n_bytes - need, GUARD_BYTE, GUARD_BYTES);
    return (struct guarded){.region = best, .data = best->map + best->n_bytes - n_bytes, .n_bytes = n_bytes};
}

void guarded_done(struct guarded *g)
{
    if (g->region)
        g->region->used = false;
    g->region = NULL;
}

static void guarded_check(const struct guarded *g)
{
    const uint8_t *before = (const uint8_t *)g->data - GUARD_BYTES;

    for (size_t i = 0; i < GUARD_BYTES; i++) {
        if (before[i] != GUARD_BYTE)
            fail_msg("%zu bytes before a buffer of %zu something was written", GUARD_BYTES - i, g->n_bytes);
    }
}

uint64_t random_next(uint64_t *seed)
{
    uint64_t z = *seed += 0x9E3779B97F4A7C15u; /* splitmix64 */

    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static uint32_t random_below(uint64_t *seed, uint32_t n)
{
    return (uint32_t)(random_next(seed) % n);
}

float random_float(uint64_t *seed)
{
    int64_t sum = 0;

    for (uint32_t i = 0; i < 4; i++)
        sum += (int64_t)(random_next(seed) & 0xFFFFFF) - 0x800000;
    return (float)sum * (1.0f / 0x93CD3A);
}

/* Where the half floats of a block are; -1: none */
static const struct {
    int d, m;
} scale_offset[TENSOR_TYPE_MAX] = {
    [TENSOR_Q4_0] = {0, -1},
    [TENSOR_Q4_1] = {0, 2},
    [TENSOR_Q5_0] = {0, -1},
    [TENSOR_Q5_1] = {0, 2},
    [TENSOR_Q8_0] = {0, -1},
    [TENSOR_IQ4_NL] = {0, -1},
    [TENSOR_Q2_K] = {offsetof(struct block_q2_k, d), offsetof(struct block_q2_k, dmin)},
    [TENSOR_Q3_K] = {offsetof(struct block_q3_k, d), -1},
    [TENSOR_Q4_K] = {0, 2},
    [TENSOR_Q5_K] = {0, 2},
    [TENSOR_Q6_K] = {offsetof(struct block_q6_k, d), -1},
    [TENSOR_IQ4_XS] = {0, -1},
    [TENSOR_IQ2_XXS] = {0, -1},
    [TENSOR_IQ2_XS] = {0, -1},
    [TENSOR_IQ2_S] = {0, -1},
    [TENSOR_IQ3_XXS] = {0, -1},
    [TENSOR_IQ3_S] = {0, -1},
    [TENSOR_IQ1_S] = {0, -1},
    [TENSOR_TQ1_0] = {offsetof(struct block_tq1_0, d), -1},
    [TENSOR_TQ2_0] = {offsetof(struct block_tq2_0, d), -1},
};

/* MXFP4's scale is an exponent. */
static uint8_t draw_exponent(enum case_weights kind, uint64_t *seed)
{
    static const uint8_t extremes[] = {0, 1, 2, 127, 128, 254, 255};

    if (kind == WEIGHTS_EXTREME)
        return extremes[random_below(seed, sizeof(extremes))];
    return (uint8_t)(116 + random_below(seed, 8));
}

static uint16_t draw_scale(enum case_weights kind, uint64_t *seed)
{
    static const uint16_t extremes[] = {0x7BFF, 0xFBFF, 0, 0x8000, 1, 0x8001, 0x0400, 0x3C00, 0x03FF, 0xBE66};

    if (kind == WEIGHTS_EXTREME)
        return extremes[random_below(seed, sizeof(extremes) / sizeof(*extremes))];
    return float_to_half(random_float(seed) * 0.01f);
}

/* IQ1_M's scale: a nibble in each of its four words. */
static void put_iq1_m_scale(uint8_t *block, uint16_t d)
{
    for (uint32_t j = 0; j < 4; j++) {
        uint8_t *high = block + offsetof(struct block_iq1_m, scales) + 2 * j + 1;

        *high = (uint8_t)((*high & 15) | (d >> 4 * j & 15) << 4);
    }
}

static void fill_floats(uint8_t *row, enum tensor_type type, uint32_t k, enum case_weights kind, uint64_t *seed)
{
    static const float extremes[] = {65504.0f, -65504.0f, 0.0f, -0.0f, 0x1p-24f, -0x1p-24f, 0x1p-14f, 1.0f};

    for (uint32_t i = 0; i < k; i++) {
        float value = kind == WEIGHTS_EXTREME ? extremes[random_below(seed, 8)] : random_float(seed);
        uint16_t half = type == TENSOR_F16 ? float_to_half(value) : float_to_bf16(value);

        if (type == TENSOR_F32)
            memcpy(row + (size_t)i * 4, &value, 4);
        else
            memcpy(row + (size_t)i * 2, &half, 2);
    }
}

void fill_weights(uint8_t *row, enum tensor_type type, uint32_t k, enum case_weights kind, uint64_t *seed)
{
    const struct tensor_traits *traits = tensor_traits(type);
    size_t n_bytes = (size_t)k / traits->block_values * traits->block_bytes;

    for (size_t i = 0; i < n_bytes; i++)
        row[i] = kind == WEIGHTS_ONES ? 0xFF : (uint8_t)random_next(seed);
    if (kind == WEIGHTS_WILD)
        return;
    if (traits->block_values == 1) {
        fill_floats(row, type, k, kind, seed);
        return;
    }
    for (size_t at = 0; at < n_bytes; at += traits->block_bytes) {
        uint16_t d = draw_scale(kind, seed), m = draw_scale(kind, seed);

        if (type == TENSOR_MXFP4) {
            row[at] = draw_exponent(kind, seed);
            continue;
        }
        if (type == TENSOR_IQ1_M) {
            put_iq1_m_scale(row + at, d);
            continue;
        }
        memcpy(row + at + scale_offset[type].d, &d, 2);
        if (scale_offset[type].m >= 0)
            memcpy(row + at + scale_offset[type].m, &m, 2);
    }
}

static void fill_activations(float *x, uint32_t k, enum case_activations kind, uint64_t *seed)
{
    static const float sizes[] = {1e-30f, 1e-38f, 1e-41f, 1e30f, 3e38f, 1.0f, 1e-5f, 4e-37f, 0.0f};

    for (uint32_t i = 0; i < k; i++) {
        float value = random_float(seed);

        if (kind == ACTIVATIONS_ZERO)
            value = random_next(seed) & 1 ? 0.0f : -0.0f;
        if (kind == ACTIVATIONS_EDGE)
            value = random_next(seed) % 64 ? 3.5f : -3.5f;
        if (kind == ACTIVATIONS_EXTREME) {
            value *= sizes[(i / 32 + k) % 9] * 0.2f;
            if (random_below(seed, 100) == 0)
                value *= 1000.0f;
        }
        if (kind == ACTIVATIONS_BROKEN && random_below(seed, 400) == 0)
            value = random_next(seed) & 1 ? __builtin_inff() : -__builtin_nanf("");
        x[i] = value;
    }
}

void case_make_sized(struct linear_case *c, enum tensor_type type, uint32_t k, uint32_t n, uint32_t m,
                     enum case_weights weights, enum case_activations activations, uint64_t *seed)
{
    const struct tensor_traits *traits = tensor_traits(type);
    float *x;

    memset(c, 0, sizeof(*c));
    c->type = type;
    c->format = linear_format(NULL, type);
    c->k = k;
    c->n = n;
    c->m = m;
    c->weights = weights;
    c->activations = activations;
    c->split = random_next(seed);
    c->row_bytes = (size_t)k / traits->block_values * traits->block_bytes;
    c->x_stride = k + random_below(seed, 5);
    c->y_stride = n + random_below(seed, 5);
    c->w = guarded_new(n * c->row_bytes);
    for (uint32_t r = 0; r < n; r++)
        fill_weights((uint8_t *)c->w.data + r * c->row_bytes, type, k, weights, seed);
    c->x_memory = guarded_new(((m - 1) * c->x_stride + k) * sizeof(float));
    x = c->x_memory.data;
    for (uint32_t t = 0; t < m; t++)
        fill_activations(x + t * c->x_stride, k, activations, seed);
    c->x = x;
}

void case_make(struct linear_case *c, enum tensor_type type, uint32_t i, uint32_t m_min, uint32_t m_max, uint64_t *seed)
{
    static const uint32_t rows[] = {1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 35, 49, 64};
    static const uint32_t blocks[] = {1, 2, 3, 4, 5, 7, 8, 9, 11};
    const struct tensor_traits *traits = tensor_traits(type);
    uint32_t k = blocks[random_below(seed, sizeof(blocks) / sizeof(*blocks))] * traits->block_values;
    uint32_t n = rows[random_below(seed, sizeof(rows) / sizeof(*rows))];
    uint32_t m = m_min + random_below(seed, m_max - m_min + 1);
    enum case_weights weights = i % 3 ? WEIGHTS_USUAL : random_below(seed, WEIGHTS_MAX);
    enum case_activations activations = i % 2 ? ACTIVATIONS_USUAL : random_below(seed, ACTIVATIONS_MAX);

    if (traits->block_values == 32)
        k = 32 * (1 + random_below(seed, 37));
    if (traits->block_values == 1)
        k = 1 + random_below(seed, 200);
    case_make_sized(c, type, k, n, m, weights, activations, seed);
    if (n > 16 && random_below(seed, 4) == 0)
        c->row0 = 16;
}

void case_done(struct linear_case *c)
{
    guarded_done(&c->w);
    guarded_done(&c->x_memory);
}

static void fill_canary(struct guarded *g)
{
    uint32_t value = CANARY;

    for (size_t i = 0; i + 4 <= g->n_bytes; i += 4)
        memcpy((uint8_t *)g->data + i, &value, 4);
}

void outcome_init(const struct kernels *kernels, const struct linear_case *c, struct outcome *o)
{
    size_t act_bytes = linear_pack_bytes(kernels, c->format, c->k, c->m);

    ((struct linear_case *)c)->act_bytes = act_bytes;
    o->act = guarded_new(act_bytes);
    o->scratch = guarded_new(linear_scratch_bytes(kernels, c->k, c->m));
    o->y_memory = guarded_new(((c->m - 1) * c->y_stride + c->n) * sizeof(float));
    memset(o->act.data, 0xEE, act_bytes);
    memset(o->scratch.data, 0xFF, o->scratch.n_bytes); /* NaN: what a kernel has not written spoils its results */
    fill_canary(&o->y_memory);
    o->y = o->y_memory.data;
}

void outcome_done(struct outcome *o)
{
    guarded_done(&o->act);
    guarded_done(&o->scratch);
    guarded_done(&o->y_memory);
}

void case_pack(const struct kernels *kernels, const struct linear_case *c, struct outcome *o)
{
    uint64_t seed = c->split;

    /* Later ranges first: a range must not lean on one before it. */
    for (uint32_t m1 = c->m; m1 > 0;) {
        uint32_t m0 = random_next(&seed) & 1 ? 0 : (m1 - 1) / LINEAR_PACK_STEP * LINEAR_PACK_STEP;

        linear_pack(kernels, c->format, c->x, c->x_stride, c->k, c->m, m0, m1, o->act.data);
        m1 = m0;
    }
}

void case_rows(const struct kernels *kernels, const struct linear_case *c, struct outcome *o)
{
    uint64_t seed = c->split;

    for (uint32_t row0 = c->row0; row0 < c->n;) {
        uint32_t row1 = row0 + LINEAR_ROW_STEP * (1 + random_below(&seed, 20));

        row1 = row1 < c->n ? row1 : c->n;
        linear_rows(kernels, c->type, c->w.data, c->row_bytes, c->k, row0, row1, o->act.data, c->m, o->y, c->y_stride,
                    o->scratch.data);
        row0 = row1;
    }
}

void case_check_borders(const struct linear_case *c, const struct outcome *o)
{
    for (uint32_t t = 0; t < c->m; t++) {
        for (uint32_t r = 0; r < c->y_stride && (t + 1 < c->m || r < c->n); r++) {
            if (r >= c->row0 && r < c->n)
                continue;
            if (float_to_bits(o->y[t * c->y_stride + r]) != CANARY)
                fail_msg("y[%u, %u] of [%u, %u] was written", t, r, c->m, c->n);
        }
    }
    guarded_check(&o->y_memory);
    guarded_check(&o->scratch);
    guarded_check(&o->act);
    guarded_check(&c->w);
    guarded_check(&c->x_memory);
}
