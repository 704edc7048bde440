/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/kernels/dequantise.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "engine/gguf/blocks.h"
#include "engine/gguf/half.h"

/* Reads DIR/blocks/NAME.SUFFIX whole; NULL when it is not there. */
static void *read_reference(const char *name, const char *suffix, size_t *ret_n)
{
    const char *dir = getenv("RESIDENTD_REFERENCE");
    _cleanup_fclose_ FILE *f = NULL;
    char path[4096];
    void *data;
    long n;

    if (!dir || snprintf(path, sizeof(path), "%s/blocks/%s.%s", dir, name, suffix) >= (int)sizeof(path))
        return NULL;
    f = fopen(path, "re");
    if (!f || fseek(f, 0, SEEK_END) != 0 || (n = ftell(f)) < 0 || fseek(f, 0, SEEK_SET) != 0)
        return NULL;
    data = malloc((size_t)n + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, (size_t)n, f), n);
    *ret_n = (size_t)n;
    return data;
}

/* Distance in units of the last place, along the line of all floats; zeros of both signs are one point. */
static uint32_t ulps(float a, float b)
{
    int64_t x = float_to_bits(a) & 0x7FFFFFFF, y = float_to_bits(b) & 0x7FFFFFFF;

    x = float_to_bits(a) >> 31 ? -x : x;
    y = float_to_bits(b) >> 31 ? -y : y;
    return (uint32_t)(x > y ? x - y : y - x);
}

static void check_type(enum tensor_type type)
{
    const struct tensor_traits *traits = tensor_traits(type);
    size_t n_bytes, n_values_bytes;
    _cleanup_free_ uint8_t *blocks = read_reference(traits->name, "bin", &n_bytes);
    _cleanup_free_ float *expected = read_reference(traits->name, "f32", &n_values_bytes);
    _cleanup_free_ float *values = NULL;
    uint32_t n;

    if (!blocks || !expected)
        skip();
    n = (uint32_t)(n_values_bytes / 4);
    assert_int_equal(n_bytes / traits->block_bytes * traits->block_values, n);
    values = malloc(n_values_bytes);
    assert_non_null(values);
    dequantise_row(type, blocks, n, values);
    for (uint32_t i = 0; i < n; i++) {
        if (ulps(values[i], expected[i]) > 1)
            fail_msg("%s value %u: %.9g, expected %.9g", traits->name, i, (double)values[i], (double)expected[i]);
    }
}

#define TYPES(X)                                                                                                   \
    X(F16) X(BF16) X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q8_0) X(IQ4_NL) X(MXFP4)                                      \
    X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K) X(IQ4_XS)                                                                    \
    X(IQ2_XXS) X(IQ2_XS) X(IQ2_S) X(IQ3_XXS) X(IQ3_S) X(IQ1_S) X(IQ1_M) X(TQ1_0) X(TQ2_0)

#define DEFINE_TEST(type)                                                                                          \
    static void reference_##type(void **state)                                                                     \
    {                                                                                                              \
        check_type(TENSOR_##type);                                                                                 \
    }
TYPES(DEFINE_TEST)

/* Independent of the reference files: hand-made blocks whose values can be told by looking. */
static void values_are_in_their_places(void **state)
{
    struct block_q4_0 q4 = {.d = 0x3C00};
    struct block_q6_k q6 = {.d = 0x4000};
    float values[256];

    q4.qs[0] = 0xF1;
    q4.qs[15] = 0x08;
    dequantise_row(TENSOR_Q4_0, &q4, 32, values);
    assert_true(values[0] == -7.0f && values[16] == 7.0f && values[15] == 0.0f && values[31] == -8.0f && values[1] == -8.0f);

    q6.scales[15] = -3;
    q6.ql[127] = 0xA0;
    q6.qh[63] = 0xC0;
    dequantise_row(TENSOR_Q6_K, &q6, 256, values);
    assert_true(values[255] == 2.0f * -3.0f * (0x3A - 32));
    assert_true(values[240] == 2.0f * -3.0f * -32 && values[239] == 0.0f);
}

/* binary16 has few enough values to try them all, by arithmetic instead of bits. */
static void halves_are_exact(void **state)
{
    for (uint32_t bits = 0; bits < 65536; bits++) {
        uint32_t exponent = bits >> 10 & 31, mantissa = bits & 1023;
        float value = half_to_float((uint16_t)bits);
        double expected = exponent ? (double)(1024 + mantissa) : (double)mantissa;

        if (exponent == 31 && mantissa) {
            assert_true(value != value);
            assert_int_equal(float_to_half(value) & 0x7E00, 0x7E00);
            continue;
        }
        for (int32_t e = exponent ? (int32_t)exponent : 1; e > 25; e--)
            expected *= 2;
        for (int32_t e = exponent ? (int32_t)exponent : 1; e < 25; e++)
            expected /= 2;
        if (exponent == 31)
            expected = __builtin_inf();
        assert_true(value == (float)(bits >> 15 ? -expected : expected));
        assert_int_equal(float_to_half(value), bits);
    }
}

static void narrowing_rounds_to_even(void **state)
{
    assert_int_equal(float_to_half(1.0f + 0x1p-11f), 0x3C00);              /* a tie, down to even */
    assert_int_equal(float_to_half(1.0f + 3 * 0x1p-11f), 0x3C02);          /* a tie, up to even */
    assert_int_equal(float_to_half(1.0f + 0x1p-11f + 0x1p-20f), 0x3C01);
    assert_int_equal(float_to_half(65519.996f), 0x7BFF);
    assert_int_equal(float_to_half(65520.0f), 0x7C00);
    assert_int_equal(float_to_half(-0x1p-25f), 0x8000);                    /* a tie between 0 and the least subnormal */
    assert_int_equal(float_to_half(0x1.8p-24f), 0x0002);
    assert_int_equal(float_to_half(0x1.ffep-15f), 0x0400);
    assert_int_equal(float_to_bf16(float_from_bits(0x3F808000)), 0x3F80);
    assert_int_equal(float_to_bf16(float_from_bits(0x3F818000)), 0x3F82);
    assert_int_equal(float_to_bf16(float_from_bits(0x7F7FFFFF)), 0x7F80);
    assert_int_equal(float_to_bf16(float_from_bits(0x7F800001)), 0x7FC0);
}

static void knows_its_types(void **state)
{
    assert_true(dequantise_has_type(TENSOR_F32) && dequantise_has_type(TENSOR_IQ4_XS));
    assert_false(dequantise_has_type(TENSOR_I32) || dequantise_has_type(4) || dequantise_has_type(0xFFFFFFFF));
}

#define LIST_TEST(type) cmocka_unit_test(reference_##type),

int main(void)
{
    const struct CMUnitTest tests[] = {
        TYPES(LIST_TEST)
        cmocka_unit_test(values_are_in_their_places),
        cmocka_unit_test(halves_are_exact),
        cmocka_unit_test(narrowing_rounds_to_even),
        cmocka_unit_test(knows_its_types),
    };

    return cmocka_run_group_tests_name("kernels/dequantise", tests, NULL, NULL);
}
