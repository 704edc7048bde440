/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The GPU's kernels around the products against the CPU's, bit for bit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/gguf/half.h"
#include "engine/graph/values.h"
#include "engine/kernels/dequantise.h"
#include "engine/kernels/kernels.h"
#include "engine/kernels/linear-act.h"
#include "engine/kernels/rope.h"
#include "engine/sample/candidates.h"
#include "tests/cuda-emulation/emulated-device.h"
#include "tests/unit/kernels/linear-cases.h"

enum { FLOATS = 8192 };

static struct kernels scalar;
static float floats[FLOATS], others[FLOATS], more[FLOATS];

static void fill(float *x, size_t n, uint64_t *seed)
{
    for (size_t i = 0; i < n; i++)
        x[i] = random_float(seed);
}

static void test_embedding_of_every_type(void **state)
{
    enum { VOCAB = 7, TOKENS = 3, COLS = 768 };
    static const int32_t tokens[TOKENS] = {6, 0, 3};
    static const uint32_t positions[TOKENS] = {1, 5, 2};
    uint64_t seed = 3;

    (void)state;
    for (uint32_t type = 0; type < TENSOR_TYPE_MAX; type++) {
        uint32_t n_cols = type == TENSOR_F16 ? 100 : COLS;
        struct linear_case c;
        struct launch_embed a = {0};
        float expected[TOKENS * COLS], y[COLS];

        if (!launch_has_type(type))
            continue;
        case_make_sized(&c, type, n_cols, VOCAB, 1, WEIGHTS_USUAL, ACTIVATIONS_USUAL, &seed);
        for (uint32_t variant = 0; variant < 2; variant++) {
            a = (struct launch_embed){
                .tokens = device_copy(tokens, sizeof(tokens)),
                .weight = device_copy(c.w.data, VOCAB * c.row_bytes),
                .weight_row_bytes = c.row_bytes,
                .weight_type = type,
                .out = device_new(TOKENS * n_cols * sizeof(float)),
                .n_tokens = TOKENS,
                .n_cols = n_cols,
                .scale = variant ? 3.5f : 1.0f,
            };
            if (variant) {
                a.positions = device_copy(positions, sizeof(positions));
                a.position = a.kind = a.weight;
                a.position_type = a.kind_type = type;
                a.position_row_bytes = c.row_bytes;
            }
            for (uint32_t t = 0; t < TOKENS; t++) {
                float *x = expected + t * n_cols;

                dequantise_row(type, (uint8_t *)c.w.data + (uint32_t)tokens[t] * c.row_bytes, n_cols, x);
                if (!variant)
                    continue;
                scalar.vector.scale(x, x, 3.5f, n_cols);
                dequantise_row(type, c.w.data, n_cols, y);
                scalar.vector.add(x, y, n_cols);
                dequantise_row(type, (uint8_t *)c.w.data + positions[t] * c.row_bytes, n_cols, y);
                scalar.vector.add(x, y, n_cols);
            }
            device_launch(LAUNCH_EMBED, &a);
            assert_floats_equal(tensor_traits(type)->name, device_memory(a.out), expected, TOKENS * n_cols);
            device_reset();
        }
        case_done(&c);
    }
}

static void test_rope_tables(void **state)
{
    enum { TOKENS = 5, ROT = 24 };
    static const uint32_t positions[TOKENS] = {0, 1, 4095, 131071, 1000000};
    double frequency[ROT / 2];
    float expected[TOKENS * ROT];
    struct launch_rope_table a = {.n_tokens = TOKENS, .n_rot = ROT, .magnitude = 1.25f};

    (void)state;
    for (uint32_t i = 0; i < ROT / 2; i++)
        frequency[i] = 1.0 / (1.0 + i * i * 7.3);
    for (uint32_t t = 0; t < TOKENS; t++)
        rope_table(frequency, ROT / 2, positions[t], 1.25f, expected + t * ROT);
    a.frequency = device_copy(frequency, sizeof(frequency));
    a.positions = device_copy(positions, sizeof(positions));
    a.out = device_new(sizeof(expected));
    device_launch(LAUNCH_ROPE_TABLE, &a);
    assert_floats_equal("table", device_memory(a.out), expected, TOKENS * ROT);
    device_reset();
}

/* A packed row against the CPU's. */
static void compare_packed(const float *x, uint32_t k, const uint8_t *row, enum launch_act act)
{
    const int16_t *sums = (const int16_t *)(const void *)(row + launch_act_sums_at(act, k));
    uint8_t *packed;

    if (act == LAUNCH_ACT_F32) {
        assert_floats_equal("packed floats", (const float *)(const void *)row, x, k);
        return;
    }
    packed = aligned_alloc(64, linear_pack_bytes(&scalar, (enum act_format)act, k, 1));
    assert_non_null(packed);
    linear_pack(&scalar, (enum act_format)act, x, k, k, 1, 0, 1, packed);
    assert_memory_equal(row, packed, k);
    assert_floats_equal("scales", (const float *)(const void *)(row + launch_act_scales_at(k)),
                        act == LAUNCH_ACT_Q8_32 ? act_tokens_32_at(packed, k, 0).d : act_tokens_256_at(packed, k, 0).d,
                        k / launch_act_block(act));
    for (uint32_t j = 0; j < k / 16; j++) {
        int sum = 0;

        for (uint32_t i = 0; i < 16; i++)
            sum += ((const int8_t *)row)[16 * j + i];
        assert_int_equal(sums[j], sum);
    }
    free(packed);
}

static void check_norm(uint32_t n, bool is_layer, bool has_bias, bool adds, bool picks, uint64_t *seed)
{
    enum { ROWS = 3 };
    static const uint32_t rows[ROWS] = {4, 0, 2};
    static float expected[ROWS * FLOATS / 4], added[FLOATS], in[FLOATS];
    const struct vector_table *v = &scalar.vector;
    struct launch_norm a = {.n_rows = ROWS, .n_cols = n, .is_layer_norm = is_layer, .epsilon = 1e-5f};
    uint32_t n_in = picks ? 5 : ROWS;

    fill(in, (size_t)n_in * n, seed);
    fill(added, ROWS * n, seed);
    fill(more, n, seed);
    fill(others, n, seed);
    a.in = device_new((size_t)n_in * n * sizeof(float));
    memcpy(device_memory(a.in), in, (size_t)n_in * n * sizeof(float));
    a.weight = device_copy(more, n * sizeof(float));
    a.bias = has_bias ? device_copy(others, n * sizeof(float)) : 0;
    a.rows = picks ? device_copy(rows, sizeof(rows)) : 0;
    if (adds) {
        a.add = device_new(ROWS * n * sizeof(float));
        memcpy(device_memory(a.add), added, ROWS * n * sizeof(float));
        a.add_weight = a.weight;
    }
    a.out = device_new(ROWS * n * sizeof(float));
    a.packs[LAUNCH_ACT_F32] = device_new(ROWS * launch_act_row_bytes(LAUNCH_ACT_F32, n));
    if (n % 32 == 0)
        a.packs[LAUNCH_ACT_Q8_32] = device_new(ROWS * launch_act_row_bytes(LAUNCH_ACT_Q8_32, n));
    if (n % 256 == 0)
        a.packs[LAUNCH_ACT_Q8_256] = device_new(ROWS * launch_act_row_bytes(LAUNCH_ACT_Q8_256, n));
    device_launch(LAUNCH_NORM, &a);
    for (uint32_t i = 0; i < ROWS; i++) {
        float *x = in + (picks ? rows[i] : i) * n, *y = expected + i * n;

        if (adds) {
            v->rms_norm(added + i * n, added + i * n, more, n, 1e-5f);
            v->add(x, added + i * n, n);
        }
        if (is_layer)
            v->layer_norm(y, x, more, has_bias ? others : NULL, n, 1e-5f);
        else
            v->rms_norm(y, x, more, n, 1e-5f);
        for (uint32_t act = 0; act < 3; act++)
            if (a.packs[act])
                compare_packed(y, n, (uint8_t *)device_memory(a.packs[act]) + i * launch_act_row_bytes(act, n), act);
    }
    assert_floats_equal("norm", device_memory(a.out), expected, ROWS * n);
    assert_floats_equal("in", device_memory(a.in), in, (size_t)n_in * n);
    device_reset();
}

static void test_norms(void **state)
{
    static const uint32_t sizes[] = {1, 15, 17, 96, 256, 1000, 1536};
    uint64_t seed = 8;

    (void)state;
    for (uint32_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
        for (uint32_t what = 0; what < 16; what++)
            check_norm(sizes[i], what & 1, what & 2, what & 4, (what & 12) == 8, &seed);
}

/* More than one piece of shared memory; and packing of what no scale can hold. */
static void test_long_norm_and_broken_rows(void **state)
{
    static const float odd[8] = {0.0f, -0.0f, 0x1p-121f, 0x1p-120f, 3e38f, -1e-40f, 1.0f, 0.0f};
    static float x[2048];
    struct launch_norm a = {.n_rows = 1, .n_cols = FLOATS, .epsilon = 1e-6f};
    struct launch_pack p = {.n_rows = 1, .n_cols = 2048, .in_stride = 2048, .n_parts = 1};
    uint64_t seed = 4;

    (void)state;
    fill(floats, FLOATS, &seed);
    a.in = device_copy(floats, sizeof(floats));
    a.out = device_new(sizeof(floats));
    device_launch(LAUNCH_NORM, &a);
    scalar.vector.rms_norm(others, floats, NULL, FLOATS, 1e-6f);
    assert_floats_equal("norm", device_memory(a.out), others, FLOATS);
    device_reset();

    for (uint32_t i = 0; i < 2048; i++)
        x[i] = i / 32 % 8 == 7 ? random_float(&seed) : odd[i / 32 % 8] * (i % 2 ? 1.0f : -0.5f);
    x[300] = __builtin_inff();
    x[1700] = -__builtin_nanf("");
    p.in = device_copy(x, sizeof(x));
    p.packs[LAUNCH_ACT_Q8_32] = device_new(launch_act_row_bytes(LAUNCH_ACT_Q8_32, 2048));
    p.packs[LAUNCH_ACT_Q8_256] = device_new(launch_act_row_bytes(LAUNCH_ACT_Q8_256, 2048));
    device_launch(LAUNCH_PACK, &p);
    compare_packed(x, 2048, device_memory(p.packs[LAUNCH_ACT_Q8_32]), LAUNCH_ACT_Q8_32);
    compare_packed(x, 2048, device_memory(p.packs[LAUNCH_ACT_Q8_256]), LAUNCH_ACT_Q8_256);
    device_reset();
}

static void test_glu(void **state)
{
    const struct vector_table *v = &scalar.vector;
    float gate[1000], up[1000], expected[1000];
    static const float odd[] = {0.0f, -0.0f, 100.0f, -100.0f, 88.7f, -104.5f, 1e-30f, 3e38f, -3e38f, 0.6249f, 0.626f};
    uint64_t seed = 15;

    (void)state;
    fill(gate, 1000, &seed);
    fill(up, 1000, &seed);
    for (uint32_t i = 0; i < 1000; i++)
        gate[i] *= 6.0f;
    memcpy(gate, odd, sizeof(odd));
    gate[20] = __builtin_inff();
    gate[21] = -__builtin_inff();
    gate[22] = __builtin_nanf("");
    for (uint32_t kind = 0; kind < 3; kind++) {
        struct launch_glu a = {.n = 1000, .kind = kind, .alpha = 1.702f, .limit = 7.0f};

        a.gate = device_copy(gate, sizeof(gate));
        a.up = device_copy(up, sizeof(up));
        a.out = device_new(sizeof(expected));
        device_launch(LAUNCH_GLU, &a);
        if (kind == GRAPH_SILU)
            v->silu_mul(expected, gate, up, 1000);
        else if (kind == GRAPH_GELU)
            v->gelu_mul(expected, gate, up, 1000);
        else
            v->swiglu_clamped(expected, gate, up, 1000, 1.702f, 7.0f);
        assert_floats_equal("glu", device_memory(a.out), expected, 1000);
        a.up = 0;
        device_launch(LAUNCH_GLU, &a);
        v->map[kind == GRAPH_GELU ? VECTOR_GELU : VECTOR_SILU](expected, gate, 1000);
        assert_floats_equal("activation", device_memory(a.out), expected, 1000);
        device_reset();
    }
}

static void test_join(void **state)
{
    enum { TOKENS = 3, HEADS = 4 };
    float x[TOKENS * 50], y[TOKENS * 6], expected[TOKENS * HEADS * 11];
    uint64_t seed = 1;
    struct launch_join a = {.n_parts = 2, .n_heads = HEADS, .n_tokens = TOKENS,
                            .parts = {{.n_cols = 50, .stride = 12, .first = 1, .n = 8}, {.n_cols = 6, .first = 2, .n = 3}}};

    (void)state;
    fill(x, TOKENS * 50, &seed);
    fill(y, TOKENS * 6, &seed);
    for (uint32_t t = 0, at = 0; t < TOKENS; t++)
        for (uint32_t h = 0; h < HEADS; h++) {
            for (uint32_t i = 0; i < 8; i++)
                expected[at++] = x[t * 50 + h * 12 + 1 + i];
            for (uint32_t i = 0; i < 3; i++)
                expected[at++] = y[t * 6 + 2 + i];
        }
    a.parts[0].in = device_copy(x, sizeof(x));
    a.parts[1].in = device_copy(y, sizeof(y));
    a.out = device_new(sizeof(expected));
    device_launch(LAUNCH_JOIN, &a);
    assert_floats_equal("join", device_memory(a.out), expected, TOKENS * HEADS * 11);
    device_reset();
}

static void test_top_k(void **state)
{
    enum { COLS = 1003, ROWS = 2, K = 9 };
    static float x[ROWS * COLS];
    static const uint32_t expected[ROWS][K] = {{500, 3, 700, 701, 999, 0, 1, 2, 4}, {1002, 0, 1, 2, 3, 4, 5, 6, 7}};
    struct launch_top_k a = {.n_rows = ROWS, .n_cols = COLS, .k = K};
    const uint32_t *indices;

    (void)state;
    for (uint32_t i = 0; i < COLS; i++) {
        x[i] = i % 2 ? -0.0f : 0.0f;
        x[COLS + i] = -__builtin_inff();
    }
    x[500] = __builtin_inff();
    x[3] = 9.0f;
    x[700] = x[701] = x[999] = 2.0f;
    x[10] = __builtin_nanf("");
    x[COLS + 1002] = -1.0f;
    x[COLS + 8] = __builtin_nanf("");
    a.in = device_copy(x, sizeof(x));
    a.indices = device_new(ROWS * K * 4);
    a.values = device_new(ROWS * K * 4);
    device_launch(LAUNCH_TOP_K, &a);
    indices = device_memory(a.indices);
    for (uint32_t i = 0; i < ROWS * K; i++) {
        float value = ((float *)device_memory(a.values))[i], want = x[i / K * COLS + expected[i / K][i % K]];

        assert_int_equal(indices[i], expected[i / K][i % K]);
        assert_floats_equal("value", &value, &want, 1);
    }
    a = (struct launch_top_k){.in = a.in, .indices = a.indices, .values = a.values, .n_rows = 1, .n_cols = COLS, .k = 1};
    device_launch(LAUNCH_TOP_K, &a);
    assert_int_equal(indices[0], 500);
    device_reset();
}

/* Rows of several blocks, whose parts are put together: what one sort of all gives. Values come often, so that ties go
 * over parts; some parts have too few, and the last is short. */
static void test_top_k_of_many(void **state)
{
    enum { COLS = 2 * LAUNCH_TOP_K_COLUMNS + 5, ROWS = 2, K = LAUNCH_TOP_K_MAX, PARTS = 3 };
    static float x[ROWS * COLS];
    struct launch_top_k a = {.n_rows = ROWS, .n_cols = COLS, .k = K}, b = {.n_rows = ROWS, .n_cols = PARTS * K, .k = K};

    (void)state;
    for (uint32_t i = 0; i < ROWS * COLS; i++)
        x[i] = (float)((i * 2654435761u >> 8) % 300) - 150.0f;
    for (uint32_t i = 0; i < COLS; i++)
        if (i % 100 != 7)
            x[COLS + i] = i % 3 ? -__builtin_inff() : __builtin_nanf("");
    a.in = device_copy(x, sizeof(x));
    a.indices = b.from = device_new(ROWS * PARTS * K * 4);
    a.values = b.in = device_new(ROWS * PARTS * K * 4);
    b.indices = device_new(ROWS * K * 4);
    b.values = device_new(ROWS * K * 4);
    device_launch(LAUNCH_TOP_K, &a);
    device_launch(LAUNCH_TOP_K, &b);
    for (uint32_t r = 0; r < ROWS; r++) {
        struct candidate expected[K];
        uint32_t n = candidates_top(x + r * COLS, COLS, K, expected);
        const uint32_t *indices = (const uint32_t *)device_memory(b.indices) + r * K;
        const float *values = (const float *)device_memory(b.values) + r * K;

        assert_int_equal(n, K);
        for (uint32_t i = 0; i < n; i++) {
            assert_int_equal(indices[i], expected[i].id);
            assert_floats_equal("value", &values[i], &expected[i].key, 1);
        }
    }
    /* Fewer values than wanted. */
    a = (struct launch_top_k){.in = a.in, .indices = a.indices, .values = a.values, .n_rows = 1, .n_cols = 5, .k = 7};
    device_launch(LAUNCH_TOP_K, &a);
    for (uint32_t i = 5; i < 7; i++)
        assert_int_equal(((const uint32_t *)device_memory(a.indices))[i], UINT32_MAX);
    device_reset();
}

static void test_pages(void **state)
{
    enum { BYTES = 4112, PAGES = 4 };
    static const uint32_t zeroed[2] = {3, 1}, from[1] = {0}, to[1] = {1};
    struct launch_zero_pages z = {.page_bytes = BYTES, .n_pages = 2};
    struct launch_copy_pages c = {.page_bytes = BYTES, .n_pages = 1};
    const uint8_t *memory;

    (void)state;
    z.memory = c.memory = device_new(PAGES * BYTES);
    memory = device_memory(z.memory);
    z.pages = device_copy(zeroed, sizeof(zeroed));
    device_launch(LAUNCH_ZERO_PAGES, &z);
    for (uint32_t i = 0; i < PAGES * BYTES; i++)
        assert_int_equal(memory[i], i / BYTES % 2 ? 0 : 0xFF);
    c.from = device_copy(from, sizeof(from));
    c.to = device_copy(to, sizeof(to));
    device_launch(LAUNCH_COPY_PAGES, &c);
    for (uint32_t i = 0; i < PAGES * BYTES; i++)
        assert_int_equal(memory[i], i / BYTES == 3 ? 0 : 0xFF);
    device_reset();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embedding_of_every_type),
        cmocka_unit_test(test_rope_tables),
        cmocka_unit_test(test_norms),
        cmocka_unit_test(test_long_norm_and_broken_rows),
        cmocka_unit_test(test_glu),
        cmocka_unit_test(test_join),
        cmocka_unit_test(test_top_k),
        cmocka_unit_test(test_top_k_of_many),
        cmocka_unit_test(test_pages),
    };

    kernels_select(0, &scalar);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
