/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The emulation of a GPU: it computes what a GPU would, in every order of threads, and sees the faults that were planted.
 */
#include "tests/cuda-emulation/emulation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#include <cmocka.h>

#include "engine/cuda/launch.h"
#include "tests/cuda-emulation/planted.h"

enum { BLOCKS = 3, ORDERS = 12 };

static const int expected[PLANTED_MAX] = {
    [PLANTED_NO_BARRIER] = EMULATION_RACE,
    [PLANTED_NO_WARP_SYNC] = EMULATION_RACE,
    [PLANTED_WRITE_AFTER_READ] = EMULATION_RACE,
    [PLANTED_UNINITIALISED] = EMULATION_UNINITIALISED,
    [PLANTED_OUT_OF_BOUNDS] = EMULATION_OUT_OF_BOUNDS,
    [PLANTED_SHARED_BOUNDS] = EMULATION_OUT_OF_BOUNDS,
    [PLANTED_READ_ONLY] = EMULATION_READ_ONLY,
    [PLANTED_MISALIGNED] = EMULATION_MISALIGNED,
    [PLANTED_MISALIGNED_VECTOR] = EMULATION_MISALIGNED,
    [PLANTED_DIVERGED_BARRIER] = EMULATION_DIVERGED,
    [PLANTED_DIVERGED_SHUFFLE] = EMULATION_DIVERGED,
    [PLANTED_BLOCKS] = EMULATION_RACE,
    [PLANTED_BLOCKS_READ] = EMULATION_RACE,
};

static int run_planted(uint32_t which, uint32_t order, uint32_t out[BLOCKS])
{
    static const unsigned grid[3] = {BLOCKS, 1, 1}, block[3] = {64, 1, 1};
    uint32_t in[64 * BLOCKS] __attribute__((aligned(16)));
    struct planted args = {.in = (uintptr_t)in, .out = (uintptr_t)out, .n = 64 * BLOCKS, .which = which};
    void *params[] = {&args};
    int r;

    for (uint32_t i = 0; i < 64 * BLOCKS; i++)
        in[i] = i;
    emulation_allow(in, sizeof(in), 0);
    emulation_allow(out, BLOCKS * sizeof(*out), 1);
    emulation_order(order);
    r = emulated_kernel("kernel_planted")->run(grid, block, 0, params);
    emulation_forget();
    return r;
}

/* A fault that is only seen in some order of threads would be a fault that is not seen. */
static void test_planted_faults_are_seen_in_every_order(void **state)
{
    (void)state;
    for (uint32_t which = PLANTED_NONE + 1; which < PLANTED_MAX; which++) {
        for (uint32_t order = 0; order < ORDERS; order++) {
            uint32_t out[BLOCKS];
            int r = run_planted(which, order, out);

            if (r != expected[which])
                fail_msg("fault %u, order %u: %d, expected %d: %s", which, order, r, expected[which], emulation_message());
            assert_non_null(strstr(emulation_message(), "planted"));
        }
    }
}

static void test_sums_are_right_in_every_order(void **state)
{
    (void)state;
    for (uint32_t order = 0; order < ORDERS; order++) {
        uint32_t out[BLOCKS];

        assert_int_equal(run_planted(PLANTED_NONE, order, out), EMULATION_OK);
        for (uint32_t b = 0; b < BLOCKS; b++)
            assert_int_equal(out[b], 64 * 64 * b + 63 * 32);
    }
}

/* Both instructions against the product written out. */
static void test_mma_multiplies_matrices(void **state)
{
    struct {
        launch_address a, b, c;
        uint32_t k16, reserved;
    } args;
    static const unsigned grid[3] = {1, 1, 1}, block[3] = {32, 1, 1};
    int8_t a[16][32] __attribute__((aligned(16))), b[8][32] __attribute__((aligned(16)));
    int32_t c[16][8];
    void *params[] = {&args};

    (void)state;
    for (int i = 0; i < 16 * 32; i++)
        a[i / 32][i % 32] = (int8_t)(i * 37 + i / 7);
    for (int i = 0; i < 8 * 32; i++)
        b[i / 32][i % 32] = (int8_t)(i * 91 - i / 5);
    emulation_allow(a, sizeof(a), 0);
    emulation_allow(b, sizeof(b), 0);
    for (uint32_t k16 = 0; k16 < 2; k16++) {
        memset(&args, 0, sizeof(args));
        args.a = (uintptr_t)a;
        args.b = (uintptr_t)b;
        args.c = (uintptr_t)c;
        args.k16 = k16;
        emulation_allow(c, sizeof(c), 1);
        assert_int_equal(emulated_kernel("kernel_planted_mma")->run(grid, block, 0, params), EMULATION_OK);
        for (int r = 0; r < 16; r++)
            for (int n = 0; n < 8; n++) {
                int sum = 0;

                for (int k = 0; k < 32; k++)
                    sum += a[r][k] * b[n][k];
                assert_int_equal(c[r][n], sum);
            }
    }
    emulation_forget();
}

static void test_what_does_not_fit_is_refused(void **state)
{
    static const unsigned grid[3] = {1, 1, 1}, many[3] = {2048, 1, 1}, deep[3] = {32, 2, 1}, block[3] = {32, 1, 1};
    const struct emulation_kernel *k = emulated_kernel("kernel_planted");
    struct planted args = {0};
    void *params[] = {&args};

    (void)state;
    assert_int_equal(k->run(grid, many, 0, params), EMULATION_SHAPE);
    assert_int_equal(k->run(grid, deep, 0, params), EMULATION_SHAPE);
    assert_int_equal(k->run(grid, block, 49153, params), EMULATION_SHAPE);
    assert_null(emulated_kernel("kernel_of_no_name"));
}

/* Every name that the engine asks for is there, and no kernel is without a name. */
static void test_every_kernel_is_there(void **state)
{
    uint32_t n = 0;

    (void)state;
    for (uint32_t i = 0; i < LAUNCH_KERNEL_MAX; i++) {
        const char *name = launch_kernel_name(i);

        if (!name)
            continue;
        n++;
        if (!emulated_kernel(name))
            fail_msg("%s is missing", name);
    }
    assert_int_equal(n, LAUNCH_LINEAR + 25 + 22);
    assert_null(launch_kernel_name(LAUNCH_KERNEL_MAX));
    assert_null(launch_kernel_name(LAUNCH_LINEAR + TENSOR_I8));
    assert_false(launch_has_type(TENSOR_I8));
    assert_false(launch_has_type(UINT32_MAX));
    assert_true(launch_has_type(TENSOR_Q4_K));
}

/* A build with nvcc has an image of NVIDIA's format; another says that it has none. */
static void test_image(void **state)
{
    size_t n_bytes = 1;
    const void *image = launch_image(&n_bytes);
    uint32_t magic = 0;

    (void)state;
    if (!image) {
        assert_int_equal(n_bytes, 0);
        return;
    }
    assert_true(n_bytes > 100000);
    memcpy(&magic, image, sizeof(magic));
    assert_int_equal(magic, 0xBA55ED50);
}

static void test_grids(void **state)
{
    struct launch_linear l = {.type = TENSOR_Q4_K, .n_rows = 4097, .n_cols = 4096, .n_tokens = 1, .n_matrices = 1};
    struct launch_attention a = {.n_heads = 32, .n_tokens = 1, .n_queries = 1, .split = 1, .n_segments = 3,
                                 .kv = {.n_kv_heads = 8, .k_dim = 128, .v_dim = 128, .v_stride = 128}};
    struct launch_glu g = {.n = 0};
    struct launch_shape s;

    (void)state;
    assert_int_equal(launch_linear_kernel(&l), LAUNCH_LINEAR + TENSOR_Q4_K);
    assert_int_equal(launch_shape(LAUNCH_LINEAR + TENSOR_Q4_K, &l, &s), 0);
    assert_int_equal(s.grid[0], 1025);
    assert_int_equal(s.grid[1], 1);
    assert_int_equal(s.block, 128);
    l.n_tokens = 17;
    assert_int_equal(launch_linear_kernel(&l), LAUNCH_LINEAR_TILES + TENSOR_Q4_K);
    assert_int_equal(launch_shape(LAUNCH_LINEAR_TILES + TENSOR_Q4_K, &l, &s), 0);
    assert_int_equal(s.grid[0], 65);
    assert_int_equal(launch_shape(LAUNCH_ATTENTION, &a, &s), 0);
    assert_int_equal(s.grid[1], 8);
    assert_int_equal(s.grid[2], 3);
    assert_true(s.shared_bytes <= 49152);
    assert_int_equal(launch_attention_heads(&a), 4);
    assert_int_equal(launch_attention_queries(&a), 4);
    assert_int_equal(launch_shape(LAUNCH_GLU, &g, &s), -22);
    g.n = 1ull << 40;
    assert_int_equal(launch_shape(LAUNCH_GLU, &g, &s), -34);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_planted_faults_are_seen_in_every_order),
        cmocka_unit_test(test_sums_are_right_in_every_order),
        cmocka_unit_test(test_mma_multiplies_matrices),
        cmocka_unit_test(test_what_does_not_fit_is_refused),
        cmocka_unit_test(test_every_kernel_is_there),
        cmocka_unit_test(test_image),
        cmocka_unit_test(test_grids),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
