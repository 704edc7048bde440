/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every matrix kernel of the registry that this machine can run, against the scalar one: bit for bit, on random and on
 * extreme input, with unreadable pages behind weights, activations, scratch and results.
 *
 * test-kernels-linear --bench [TYPE [ISA [K]]] times the kernels instead; the tests never do.
 */
#include "engine/kernels/linear.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/gguf/half.h"
#include "engine/kernels/dequantise.h"
#include "engine/kernels/kernels.h"
#include "engine/kernels/registry.h"
#include "tests/unit/kernels/linear-cases.h"

/* --- comparing --- */

/* Any NaN equals any other: which operand's payload survives is not part of the promise. */
static bool same_bits(float a, float b)
{
    return float_to_bits(a) == float_to_bits(b) || (a != a && b != b);
}

static void assert_same(const char *name, const struct linear_case *c, const struct outcome *got, const struct outcome *expected)
{
    for (uint32_t t = 0; t < c->m; t++) {
        for (uint32_t r = c->row0; r < c->n; r++) {
            float a = got->y[t * c->y_stride + r], b = expected->y[t * c->y_stride + r];

            if (!same_bits(a, b))
                fail_msg("%s: k %u n %u m %u weights %d activations %d: y[%u, %u] is %.9g (%08x), expected %.9g (%08x)", name,
                         c->k, c->n, c->m, (int)c->weights, (int)c->activations, t, r, (double)a, float_to_bits(a),
                         (double)b, float_to_bits(b));
        }
    }
}

static void run_kernels(const struct kernels *kernels, const struct linear_case *c, struct outcome *ret)
{
    case_pack(kernels, c, ret);
    case_rows(kernels, c, ret);
    case_check_borders(c, ret);
}

/* --- every row of the registry --- */

static void check_rows_kernel(const struct kernel_row *row, const struct kernels *scalar)
{
    struct kernels one = *scalar;
    enum linear_shape shape = row->op == KERNEL_LINEAR_LANES ? LINEAR_LANES : LINEAR_TOKENS;
    bool is_float = linear_format(scalar, row->type) == ACT_F32;
    uint64_t seed = 1;

    one.linear.rows[row->type][shape] = row->fn.rows;
    for (uint32_t i = 0; i < 100; i++) {
        struct linear_case c;
        struct outcome expected, got;

        case_make(&c, row->type, i, shape == LINEAR_LANES ? 5 : 1, shape == LINEAR_LANES || is_float ? 40 : 4, &seed);
        outcome_init(scalar, &c, &expected);
        outcome_init(scalar, &c, &got);
        run_kernels(scalar, &c, &expected);
        run_kernels(&one, &c, &got);
        assert_same(row->name, &c, &got, &expected);
        outcome_done(&got);
        outcome_done(&expected);
        case_done(&c);
    }
}

static void check_pack_kernel(const struct kernel_row *row, const struct kernels *scalar)
{
    static const enum tensor_type types[ACT_FORMAT_MAX] = {TENSOR_F32, TENSOR_Q8_0, TENSOR_Q4_K};
    struct kernels one = *scalar;
    uint64_t seed = 2;

    one.linear.pack[row->type] = row->fn.pack;
    for (uint32_t i = 0; i < 150; i++) {
        struct linear_case c;
        struct outcome expected, got;
        const uint8_t *a, *b;

        case_make(&c, types[row->type], i, 1, 40, &seed);
        outcome_init(scalar, &c, &expected);
        outcome_init(scalar, &c, &got);
        case_pack(scalar, &c, &expected);
        case_pack(&one, &c, &got);
        a = got.act.data;
        b = expected.act.data;
        for (size_t at = 0; at < c.act_bytes; at++) {
            if (a[at] != b[at])
                fail_msg("%s: k %u m %u activations %d: byte %zu of %zu is %u, expected %u", row->name, c.k, c.m,
                         (int)c.activations, at, c.act_bytes, a[at], b[at]);
        }
        outcome_done(&got);
        outcome_done(&expected);
        case_done(&c);
    }
}

static void every_row_has_the_bits_of_the_scalar_one(void **state)
{
    uint32_t n_groups, n_run = 0, n_left = 0, isa = kernels_isa_detect();
    const struct kernel_rows *groups = kernel_registry(&n_groups);
    struct kernels scalar;

    kernels_select(0, &scalar);
    for (uint32_t i = 0; i < n_groups; i++) {
        for (uint32_t j = 0; j < groups[i].n_rows; j++) {
            const struct kernel_row *row = &groups[i].rows[j];

            assert_true(row->bound == 0.0f); /* a row with a tolerance needs another comparison than this one */
            if ((row->isa & isa) != row->isa) {
                n_left++;
                continue;
            }
            n_run++;
            if (row->op == KERNEL_PACK)
                check_pack_kernel(row, &scalar);
            else
                check_rows_kernel(row, &scalar);
        }
    }
    print_message("# %u kernels run, %u that this machine lacks instructions for\n", n_run, n_left);
    assert_true(n_run >= 30);
}

/* --- the promises of linear.h --- */

static const char *const isa_names[] = {"scalar", "avx2", "avx-vnni", "avx512f", "avx512-vnni", "avx512-vbmi", "all"};

#define N_ISA_NAMES (sizeof(isa_names) / sizeof(*isa_names))

static void select_named(const char *name, struct kernels *ret)
{
    uint32_t mask = 0;

    assert_int_equal(kernels_isa_parse(name, &mask), 0);
    kernels_select(mask & kernels_isa_detect(), ret);
}

static const enum tensor_type all_types[] = {
    TENSOR_F32,  TENSOR_F16,  TENSOR_BF16, TENSOR_Q4_0, TENSOR_Q4_1, TENSOR_Q5_0, TENSOR_Q5_1,   TENSOR_Q8_0,
    TENSOR_Q2_K, TENSOR_Q3_K, TENSOR_Q4_K, TENSOR_Q5_K, TENSOR_Q6_K, TENSOR_IQ4_NL, TENSOR_IQ4_XS,
    TENSOR_MXFP4, TENSOR_IQ2_XXS, TENSOR_IQ2_XS, TENSOR_IQ2_S, TENSOR_IQ3_XXS, TENSOR_IQ3_S, TENSOR_IQ1_S, TENSOR_IQ1_M,
    TENSOR_TQ1_0, TENSOR_TQ2_0,
};

#define N_TYPES (sizeof(all_types) / sizeof(*all_types))

/* A token's row is the same alone and among others, and however rows and tokens are dealt to threads. */
static void check_invariance(const struct kernels *kernels, enum tensor_type type, uint64_t *seed)
{
    struct linear_case c;
    struct outcome whole;

    case_make(&c, type, 8, 1, 40, seed);
    outcome_init(kernels, &c, &whole);
    run_kernels(kernels, &c, &whole);
    for (uint32_t t = 0; t < c.m; t++) {
        struct linear_case alone = c;
        struct outcome got;

        alone.x = c.x + t * c.x_stride;
        alone.m = 1;
        alone.split = random_next(seed);
        outcome_init(kernels, &alone, &got);
        run_kernels(kernels, &alone, &got);
        for (uint32_t r = c.row0; r < c.n; r++) {
            if (!same_bits(got.y[r], whole.y[t * c.y_stride + r]))
                fail_msg("%s, %s: y[%u, %u] of %u tokens differs from the token alone", kernels_isa_name(kernels->isa),
                         tensor_traits(type)->name, t, r, c.m);
        }
        outcome_done(&got);
    }
    outcome_done(&whole);
    case_done(&c);
}

static void a_row_alone_equals_the_row_in_a_batch(void **state)
{
    uint64_t seed = 3;

    for (size_t i = 0; i < N_ISA_NAMES; i++) {
        struct kernels kernels;

        select_named(isa_names[i], &kernels);
        for (size_t j = 0; j < N_TYPES; j++)
            for (uint32_t round = 0; round < 2; round++)
                check_invariance(&kernels, all_types[j], &seed);
    }
}

/* K panels, chunks of tokens and blocks of rows have their seams far apart: one case that is large in each of them. */
static void large_shapes_agree(void **state)
{
    static const struct {
        enum tensor_type type;
        uint32_t k, n, m;
    } shapes[] = {
        {TENSOR_Q4_K, 256 * 35, 16, 5},   {TENSOR_Q4_K, 256 * 17, 290, 9},  {TENSOR_Q6_K, 256 * 18, 33, 150},
        {TENSOR_Q8_0, 32 * 137, 40, 140}, {TENSOR_Q3_K, 256 * 33, 20, 131}, {TENSOR_F16, 2048 + 7, 21, 133},
        {TENSOR_Q4_1, 32 * 300, 36, 30},  {TENSOR_Q5_K, 256 * 19, 36, 3},
        {TENSOR_MXFP4, 32 * 91, 50, 150}, {TENSOR_IQ2_S, 256 * 18, 20, 131}, {TENSOR_IQ3_XXS, 256 * 17, 35, 20},
    };
    uint64_t seed = 4;
    struct kernels scalar, best;

    kernels_select(0, &scalar);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
        struct linear_case c;
        struct outcome expected;

        case_make_sized(&c, shapes[i].type, shapes[i].k, shapes[i].n, shapes[i].m, WEIGHTS_USUAL, ACTIVATIONS_USUAL, &seed);
        outcome_init(&scalar, &c, &expected);
        run_kernels(&scalar, &c, &expected);
        for (size_t j = 1; j < N_ISA_NAMES; j++) {
            struct outcome got;

            select_named(isa_names[j], &best);
            outcome_init(&best, &c, &got);
            run_kernels(&best, &c, &got);
            assert_same(isa_names[j], &c, &got, &expected);
            outcome_done(&got);
        }
        outcome_done(&expected);
        case_done(&c);
    }
}

/* The scalar kernels themselves, against sums in double over dequantised weights; the difference is that of 8-bit activations. */
static void scalar_results_are_right(void **state)
{
    struct kernels scalar;
    uint64_t seed = 5;

    kernels_select(0, &scalar);
    for (size_t i = 0; i < N_TYPES; i++) {
        bool is_float = linear_format(&scalar, all_types[i]) == ACT_F32;
        struct linear_case c;
        struct outcome got;
        float *row;

        case_make_sized(&c, all_types[i], 512, 20, 6, WEIGHTS_USUAL, ACTIVATIONS_USUAL, &seed);
        outcome_init(&scalar, &c, &got);
        run_kernels(&scalar, &c, &got);
        row = calloc(c.k, sizeof(float));
        assert_non_null(row);
        for (uint32_t r = c.row0; r < c.n; r++) {
            dequantise_row(all_types[i], (const uint8_t *)c.w.data + r * c.row_bytes, c.k, row);
            for (uint32_t t = 0; t < c.m; t++) {
                double sum = 0, size = 0, error;

                for (uint32_t j = 0; j < c.k; j++) {
                    double term = (double)row[j] * (double)c.x[t * c.x_stride + j];

                    sum += term;
                    size += term < 0 ? -term : term;
                }
                error = (double)got.y[t * c.y_stride + r] - sum;
                error = error < 0 ? -error : error;
                if (!(error <= size * (is_float ? 1e-6 : 4e-3) + 1e-30))
                    fail_msg("%s: y[%u, %u] is %g, expected %g (sum of sizes %g)", tensor_traits(all_types[i])->name, t, r,
                             (double)got.y[t * c.y_stride + r], sum, size);
            }
        }
        free(row);
        outcome_done(&got);
        case_done(&c);
    }
}

/* The formula of the rule, with numbers that can be told by hand. */
static void activations_are_quantised_by_the_rule(void **state)
{
    _Alignas(64) uint8_t act[8192];
    struct kernels scalar;
    float x[256] = {0};
    const int8_t *q = (const int8_t *)act;
    float d;

    kernels_select(0, &scalar);
    x[0] = 254.0f;
    x[1] = -254.0f;
    x[2] = 1.0f;  /* a tie: 0.5 goes to 0 */
    x[3] = 3.0f;  /* 1.5 goes to 2 */
    x[4] = -5.0f; /* -2.5 goes to -2 */
    assert_true(linear_pack_bytes(&scalar, ACT_Q8_256, 256, 1) <= sizeof(act));
    linear_pack(&scalar, ACT_Q8_256, x, 256, 256, 1, 0, 1, act);
    assert_true(q[0] == 127 && q[1] == -127 && q[2] == 0 && q[3] == 2 && q[4] == -2 && q[5] == 0);
    memcpy(&d, act + 4 * 304, sizeof(d));
    assert_true(d == 2.0f);

    x[7] = __builtin_inff();
    linear_pack(&scalar, ACT_Q8_256, x, 256, 256, 1, 0, 1, act);
    memcpy(&d, act + 4 * 304, sizeof(d));
    assert_true(d != d && q[0] == 0);
}

static void sizes_grow_with_the_batch(void **state)
{
    struct kernels kernels;

    kernels_select(0, &kernels);
    for (uint32_t format = 0; format < ACT_FORMAT_MAX; format++) {
        for (uint32_t k = 256; k <= 2048; k += 256) {
            for (uint32_t m = 0; m < 300; m++) {
                size_t bytes = linear_pack_bytes(&kernels, format, k, m);

                assert_int_equal(bytes % LINEAR_ALIGN, 0);
                assert_true(linear_pack_bytes(&kernels, format, k, m + 1) >= bytes);
                assert_true(linear_scratch_bytes(&kernels, k, m + 1) >= linear_scratch_bytes(&kernels, k, m));
            }
        }
    }
}

static void instruction_sets_have_names(void **state)
{
    uint32_t mask = 1;

    for (size_t i = 0; i < N_ISA_NAMES - 1; i++) {
        assert_int_equal(kernels_isa_parse(isa_names[i], &mask), 0);
        assert_string_equal(kernels_isa_name(mask), isa_names[i]);
    }
    assert_int_equal(kernels_isa_parse("avx512", &mask), 0);
    assert_int_equal(mask, ISA_ALL);
    assert_int_equal(kernels_isa_parse("", &mask), -22);
    assert_int_equal(kernels_isa_parse("avx3", &mask), -22);
    assert_string_equal(kernels_isa_name(ISA_AVX512 | ISA_AVX512_VNNI), "scalar"); /* no AVX2: nothing stands on that */
}

/* Every type must have a kernel for every shape under every limit, or the executor would call nothing. */
static void every_limit_leaves_a_kernel(void **state)
{
    for (uint32_t mask = 0; mask <= ISA_ALL; mask++) {
        struct kernels kernels;

        kernels_select(mask, &kernels);
        for (size_t i = 0; i < N_TYPES; i++) {
            enum act_format format = linear_format(&kernels, all_types[i]);

            assert_true(format != ACT_FORMAT_MAX && kernels.linear.pack[format]);
            assert_non_null(kernels.linear.rows[all_types[i]][LINEAR_TOKENS]);
            assert_true(format == ACT_F32 || kernels.linear.rows[all_types[i]][LINEAR_LANES]);
        }
    }
    assert_false(linear_has_type(TENSOR_I32) || linear_has_type(4) || linear_has_type(0xFFFFFFFF));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalar_results_are_right),
        cmocka_unit_test(activations_are_quantised_by_the_rule),
        cmocka_unit_test(every_row_has_the_bits_of_the_scalar_one),
        cmocka_unit_test(a_row_alone_equals_the_row_in_a_batch),
        cmocka_unit_test(large_shapes_agree),
        cmocka_unit_test(sizes_grow_with_the_batch),
        cmocka_unit_test(instruction_sets_have_names),
        cmocka_unit_test(every_limit_leaves_a_kernel),
    };

    if (argc > 1 && strcmp(argv[1], "--bench") == 0)
        return bench(argc > 2 ? argv[2] : NULL, argc > 3 ? argv[3] : NULL,
                     argc > 4 ? (uint32_t)strtoul(argv[4], NULL, 10) : 4096);
    return cmocka_run_group_tests_name("kernels/linear", tests, NULL, NULL);
}
