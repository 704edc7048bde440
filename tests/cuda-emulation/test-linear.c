/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The GPU's matrix kernels against the scalar ones, bit for bit: every type, one to many tokens, ragged shapes, extreme
 * weights and activations; the packing before them; experts' and heads' matrices; what happens to a finished sum.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/kernels/kernels.h"
#include "tests/cuda-emulation/emulated-device.h"
#include "tests/unit/kernels/linear-cases.h"

static struct kernels scalar;

/* Rows of the case, packed as a kernel of the GPU does it. */
static launch_address pack(const struct linear_case *c, uint32_t m)
{
    enum launch_act act = launch_act_of(c->type);
    struct launch_pack a = {.n_rows = m, .n_cols = c->k, .in_stride = (uint32_t)c->x_stride, .n_parts = 1};

    a.in = device_copy(c->x, ((size_t)(m - 1) * c->x_stride + c->k) * sizeof(float));
    a.packs[act] = device_new((size_t)m * launch_act_row_bytes(act, c->k));
    device_launch(LAUNCH_PACK, &a);
    return a.packs[act];
}

static struct launch_linear linear_of(const struct linear_case *c)
{
    return (struct launch_linear){
        .weight = device_copy(c->w.data, c->n * c->row_bytes),
        .row_bytes = c->row_bytes,
        .act = pack(c, c->m),
        .out = device_new((size_t)c->m * c->y_stride * sizeof(float)),
        .type = c->type,
        .n_rows = c->n,
        .n_cols = c->k,
        .n_tokens = c->m,
        .out_stride = (uint32_t)c->y_stride,
        .n_matrices = 1,
        .act_token_step = 1,
        .scale = 1.0f,
    };
}

static void compare(const struct linear_case *c, const struct outcome *o, const float *y, const char *name)
{
    for (uint32_t t = 0; t < c->m; t++)
        assert_floats_equal(name, y + t * c->y_stride + c->row0, o->y + t * c->y_stride + c->row0, c->n - c->row0);
}

static void check_case(struct linear_case *c)
{
    struct launch_linear a = linear_of(c);
    struct outcome o;

    outcome_init(&scalar, c, &o);
    case_pack(&scalar, c, &o);
    case_rows(&scalar, c, &o);
    device_launch(LAUNCH_LINEAR + c->type, &a);
    compare(c, &o, device_memory(a.out), launch_kernel_name(LAUNCH_LINEAR + c->type));
    if (launch_kernel_name(LAUNCH_LINEAR_TILES + c->type)) {
        a.out = device_new((size_t)c->m * c->y_stride * sizeof(float));
        device_launch(LAUNCH_LINEAR_TILES + c->type, &a);
        compare(c, &o, device_memory(a.out), launch_kernel_name(LAUNCH_LINEAR_TILES + c->type));
    }
    outcome_done(&o);
    case_done(c);
    device_reset();
}

static void test_every_type_gives_the_scalar_bits(void **state)
{
    uint64_t seed = 11;

    (void)state;
    for (uint32_t type = 0; type < TENSOR_TYPE_MAX; type++) {
        if (!launch_has_type(type))
            continue;
        for (uint32_t i = 0; i < 8; i++) {
            struct linear_case c;
            const uint32_t block = launch_act_of(type) == LAUNCH_ACT_Q8_256 ? 256 : 32;
            static const uint32_t rows[] = {1, 3, 5, 17, 64, 67}, tokens[] = {1, 2, 7, 16, 18, 33, 65};
            uint32_t k = block * (uint32_t)(1 + random_next(&seed) % (block == 32 ? 41 : 6));

            if (launch_act_of(type) == LAUNCH_ACT_F32)
                k = (uint32_t)(1 + random_next(&seed) % 300);
            case_make_sized(&c, type, k, rows[random_next(&seed) % 6], tokens[i % 7],
                            i % 3 ? WEIGHTS_USUAL : (enum case_weights)(random_next(&seed) % WEIGHTS_MAX),
                            i % 2 ? ACTIVATIONS_USUAL : (enum case_activations)(random_next(&seed) % ACTIVATIONS_MAX), &seed);
            check_case(&c);
        }
    }
}

/* All that can follow a sum, each alone and all together, as the CPU's executor does it. */
static void test_finish(void **state)
{
    const struct vector_table *v = &scalar.vector;
    uint64_t seed = 5;

    (void)state;
    for (uint32_t what = 0; what < 32; what++) {
        const uint32_t n = 37, m = 19, k = 256;
        float bias[37], x[19 * 37], gate[19], one;
        struct linear_case c;
        struct launch_linear a, behind;
        struct outcome o;

        case_make_sized(&c, TENSOR_Q4_K, k, n, m, WEIGHTS_USUAL, ACTIVATIONS_USUAL, &seed);
        c.y_stride = n;
        outcome_init(&scalar, &c, &o);
        case_pack(&scalar, &c, &o);
        case_rows(&scalar, &c, &o);
        for (uint32_t i = 0; i < m * n; i++)
            x[i] = random_float(&seed);
        for (uint32_t i = 0; i < n; i++)
            bias[i] = random_float(&seed);
        for (uint32_t i = 0; i < m; i++)
            gate[i] = random_float(&seed);
        a = linear_of(&c);
        a.bias = what & 1 ? device_copy(bias, sizeof(bias)) : 0;
        a.scale = what & 2 ? 0.125f : 1.0f;
        a.softcap = what & 4 ? 3.0f : 0.0f;
        if (what & 8) {
            a.residual = device_new(sizeof(x));
            memcpy(device_memory(a.residual), x, sizeof(x));
            a.gate = what & 16 ? device_copy(gate, sizeof(gate)) : 0;
        }
        /* The same behind a sum with its bias, in a launch of its own. */
        behind = a;
        behind.bias = 0;
        behind.out = device_new(m * n * sizeof(float));
        for (uint32_t t = 0; t < m; t++) {
            memcpy((float *)device_memory(behind.out) + t * n, o.y + t * n, n * sizeof(float));
            if (what & 1)
                v->add((float *)device_memory(behind.out) + t * n, bias, n);
        }
        if (what & 8) {
            behind.residual = device_new(sizeof(x));
            memcpy(device_memory(behind.residual), x, sizeof(x));
        }
        device_launch(LAUNCH_LINEAR_FINISH, &behind);
        device_launch(what & 1 ? LAUNCH_LINEAR + TENSOR_Q4_K : LAUNCH_LINEAR_TILES + TENSOR_Q4_K, &a);
        for (uint32_t t = 0; t < m; t++) {
            float *y = o.y + t * n;

            if (what & 1)
                v->add(y, bias, n);
            if (what & 2)
                v->scale(y, y, 0.125f, n);
            if (what & 4)
                v->softcap(y, y, 3.0f, n);
            v->map[VECTOR_SIGMOID](&one, &gate[t], 1);
            if (what & 16)
                v->add_scaled(x + t * n, y, one, n);
            else
                v->add(x + t * n, y, n);
        }
        assert_floats_equal("out", device_memory(a.out), o.y, m * n);
        assert_floats_equal("out behind", device_memory(behind.out), o.y, m * n);
        if (what & 8) {
            assert_floats_equal("residual", device_memory(a.residual), x, m * n);
            assert_floats_equal("residual behind", device_memory(behind.residual), x, m * n);
        }
        outcome_done(&o);
        case_done(&c);
        device_reset();
    }
}

/* What an adapter adds, to rows that are others than the tokens'. */
static void check_adds(enum tensor_type type, uint32_t rank, uint32_t n, uint32_t m, bool tiles, uint64_t *seed)
{
    enum { ROWS_MAX = 80, COLS_MAX = 70 };
    static float x[ROWS_MAX * COLS_MAX];
    uint32_t rows[ROWS_MAX], n_rows = m + 7;
    struct linear_case c;
    struct launch_linear a;
    struct outcome o;

    assert_true(n <= COLS_MAX && n_rows <= ROWS_MAX);
    case_make_sized(&c, type, rank, n, m, WEIGHTS_USUAL, ACTIVATIONS_USUAL, seed);
    c.y_stride = n;
    outcome_init(&scalar, &c, &o);
    case_pack(&scalar, &c, &o);
    case_rows(&scalar, &c, &o);
    for (uint32_t i = 0; i < n_rows * n; i++)
        x[i] = random_float(seed);
    /* Each row once at most, in no order. */
    for (uint32_t t = 0; t < m; t++)
        rows[t] = (3 + t * 2) % n_rows;
    assert_true(n_rows % 2 == 1);
    a = linear_of(&c);
    a.out = device_new(n_rows * n * sizeof(float));
    memcpy(device_memory(a.out), x, n_rows * n * sizeof(float));
    a.rows = device_copy(rows, m * sizeof(*rows));
    a.scale = 0.3f;
    a.adds = 1;
    device_launch((tiles ? LAUNCH_LINEAR_TILES : LAUNCH_LINEAR) + type, &a);
    for (uint32_t t = 0; t < m; t++)
        scalar.vector.add_scaled(x + rows[t] * n, o.y + t * n, 0.3f, n);
    assert_floats_equal(tensor_traits(type)->name, device_memory(a.out), x, n_rows * n);
    outcome_done(&o);
    case_done(&c);
    device_reset();
}

static void test_adapters_add(void **state)
{
    static const uint32_t tokens[] = {2, 6, 16, 34, 66};
    uint64_t seed = 91;

    (void)state;
    for (uint32_t i = 0; i < sizeof(tokens) / sizeof(*tokens); i++) {
        check_adds(TENSOR_F32, 5, 67, tokens[i], false, &seed);
        check_adds(TENSOR_F16, 16, 1, tokens[i], false, &seed);
        check_adds(TENSOR_BF16, 129, 33, tokens[i], false, &seed);
        check_adds(TENSOR_Q8_0, 32, 65, tokens[i], false, &seed);
        check_adds(TENSOR_Q8_0, 64, 3, tokens[i], true, &seed);
        check_adds(TENSOR_Q4_K, 256, 17, tokens[i], i % 2, &seed);
    }
}

/* Tokens' slots by expert: each expert's product is that of its tokens alone. */
static void check_experts(enum tensor_type type, bool is_shared, bool tiles, bool adapted)
{
    enum { TOKENS = 23, EXPERTS = 5, USED = 2, ROWS = 19, COLS = 512, SLOTS = TOKENS * USED };
    uint64_t seed = 31 + type;
    uint32_t words[2 + 2 * EXPERTS + 4 * SLOTS] = {0}, slot = 0;
    struct launch_routes r = launch_routes_at((uintptr_t)words, EXPERTS, SLOTS);
    uint32_t *active = device_memory(r.active), *slot0 = device_memory(r.slot0), *slot_tokens = device_memory(r.slot_tokens);
    static float bias[EXPERTS * ROWS], expected[SLOTS * ROWS], before[SLOTS * ROWS];
    uint32_t token_adapters[TOKENS];
    struct linear_case c;
    struct launch_linear a;

    case_make_sized(&c, type, COLS, EXPERTS * ROWS, is_shared ? TOKENS : SLOTS, WEIGHTS_USUAL, ACTIVATIONS_USUAL, &seed);
    for (uint32_t i = 0; i < EXPERTS * ROWS; i++)
        bias[i] = adapted ? 0.0f : random_float(&seed);
    for (uint32_t i = 0; i < SLOTS * ROWS; i++)
        before[i] = random_float(&seed);
    for (uint32_t i = 0; i < TOKENS; i++)
        token_adapters[i] = (uint32_t)(random_next(&seed) % 3);
    /* Expert 1 has none; the others 18, 1, 20 and 7. */
    for (uint32_t i = 0; i < 4; i++) {
        static const uint32_t n[4] = {18, 1, 20, 7}, experts[4] = {0, 2, 3, 4};

        active[i] = experts[i];
        slot0[i] = slot;
        for (uint32_t j = 0; j < n[i]; j++)
            slot_tokens[slot++] = (uint32_t)(random_next(&seed) % TOKENS);
    }
    assert_int_equal(slot, SLOTS);
    slot0[4] = SLOTS;
    *(uint32_t *)device_memory(r.n_active) = 4;

    for (uint32_t i = 0; i < 4; i++) {
        uint32_t m = slot0[i + 1] - slot0[i], rows[SLOTS];
        uint8_t *act, *scratch;

        for (uint32_t j = 0; j < m; j++)
            rows[j] = is_shared ? slot_tokens[slot0[i] + j] : slot0[i] + j;
        act = aligned_alloc(64, linear_pack_bytes(&scalar, linear_format(&scalar, type), COLS, m));
        scratch = aligned_alloc(64, (linear_scratch_bytes(&scalar, COLS, m) + 64) / 64 * 64);
        assert_true(act && scratch);
        linear_pack_rows(&scalar, linear_format(&scalar, type), c.x, c.x_stride, rows, COLS, m, 0, m, act);
        linear_rows(&scalar, type, (uint8_t *)c.w.data + active[i] * ROWS * c.row_bytes, c.row_bytes, COLS, 0, ROWS, act, m,
                    expected + slot0[i] * ROWS, ROWS, scratch);
        for (uint32_t j = 0; j < m && !adapted; j++)
            scalar.vector.add(expected + (slot0[i] + j) * ROWS, bias + active[i] * ROWS, ROWS);
        free(act);
        free(scratch);
    }

    a = linear_of(&c);
    a.out = device_new(sizeof(expected));
    a.out_stride = ROWS;
    a.n_rows = ROWS;
    a.matrix_bytes = ROWS * c.row_bytes;
    a.n_tokens = TOKENS;
    a.n_matrices = EXPERTS;
    a.n_experts = EXPERTS;
    a.n_used = USED;
    a.act_is_shared = is_shared;
    a.bias = adapted ? 0 : device_copy(bias, sizeof(bias));
    a.routes = device_copy(words, sizeof(words));
    if (adapted) {
        /* Of two adapters in the step the second one's turn; others' slots stay as they are. */
        a.adapters = device_copy(token_adapters, sizeof(token_adapters));
        a.adapter = 2;
        a.adds = 1;
        a.scale = -0.7f;
        memcpy(device_memory(a.out), before, sizeof(before));
        for (uint32_t i = 0; i < SLOTS; i++) {
            if (token_adapters[slot_tokens[i]] == 2)
                scalar.vector.add_scaled(before + i * ROWS, expected + i * ROWS, -0.7f, ROWS);
            memcpy(expected + i * ROWS, before + i * ROWS, ROWS * sizeof(float));
        }
    }
    device_launch((tiles ? LAUNCH_LINEAR_TILES : LAUNCH_LINEAR) + type, &a);
    assert_floats_equal("experts", device_memory(a.out), expected, SLOTS * ROWS);
    case_done(&c);
    device_reset();
}

static void test_experts(void **state)
{
    (void)state;
    for (uint32_t what = 0; what < 4; what++) {
        bool shared = what & 1, adapted = what & 2;

        check_experts(TENSOR_F16, shared, false, adapted);
        for (uint32_t tiles = 0; tiles < 2; tiles++) {
            check_experts(TENSOR_Q4_K, shared, tiles, adapted);
            check_experts(TENSOR_MXFP4, shared, tiles, adapted);
        }
    }
}

/* Each head's own matrix times its own part of the input. */
static void test_heads(void **state)
{
    enum { TOKENS = 18, HEADS = 3, ROWS = 10, COLS = 64, STRIDE = 96, FIRST = 32 };
    static float x[TOKENS * HEADS * STRIDE], expected[TOKENS * HEADS * ROWS];
    uint64_t seed = 77;
    struct linear_case c;
    struct launch_pack p = {.n_rows = TOKENS * HEADS, .n_cols = COLS, .in_stride = HEADS * STRIDE,
                            .n_parts = HEADS, .part_stride = STRIDE, .part_first = FIRST};
    struct launch_linear a;

    (void)state;
    for (uint32_t i = 0; i < TOKENS * HEADS * STRIDE; i++)
        x[i] = random_float(&seed);
    case_make_sized(&c, TENSOR_Q8_0, COLS, HEADS * ROWS, 1, WEIGHTS_USUAL, ACTIVATIONS_USUAL, &seed);
    for (uint32_t h = 0; h < HEADS; h++) {
        uint8_t *act = aligned_alloc(64, linear_pack_bytes(&scalar, ACT_Q8_32, COLS, TOKENS));
        uint8_t *scratch = aligned_alloc(64, (linear_scratch_bytes(&scalar, COLS, TOKENS) + 64) / 64 * 64);

        assert_true(act && scratch);
        linear_pack(&scalar, ACT_Q8_32, x + h * STRIDE + FIRST, HEADS * STRIDE, COLS, TOKENS, 0, TOKENS, act);
        linear_rows(&scalar, TENSOR_Q8_0, (uint8_t *)c.w.data + h * ROWS * c.row_bytes, c.row_bytes, COLS, 0, ROWS, act,
                    TOKENS, expected + h * ROWS, HEADS * ROWS, scratch);
        free(act);
        free(scratch);
    }
    a = linear_of(&c);
    p.in = device_copy(x, sizeof(x));
    p.packs[LAUNCH_ACT_Q8_32] = a.act = device_new(TOKENS * HEADS * launch_act_row_bytes(LAUNCH_ACT_Q8_32, COLS));
    device_launch(LAUNCH_PACK, &p);
    a.out = device_new(sizeof(expected));
    a.n_rows = ROWS;
    a.n_tokens = TOKENS;
    a.n_matrices = HEADS;
    a.matrix_bytes = ROWS * c.row_bytes;
    a.act_token_step = HEADS;
    a.act_matrix_step = 1;
    a.out_stride = HEADS * ROWS;
    a.out_matrix_step = ROWS;
    for (uint32_t tiles = 0; tiles < 2; tiles++) {
        device_launch((tiles ? LAUNCH_LINEAR_TILES : LAUNCH_LINEAR) + TENSOR_Q8_0, &a);
        assert_floats_equal("heads", device_memory(a.out), expected, TOKENS * HEADS * ROWS);
    }
    case_done(&c);
    device_reset();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type_gives_the_scalar_bits),
        cmocka_unit_test(test_finish),
        cmocka_unit_test(test_adapters_add),
        cmocka_unit_test(test_experts),
        cmocka_unit_test(test_heads),
    };

    kernels_select(0, &scalar);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
