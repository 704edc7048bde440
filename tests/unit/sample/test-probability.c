/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/sample/probability.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void exp_is_accurate(void **state)
{
    assert_true(probability_exp(0) == 1);
    assert_true(probability_exp(-INFINITY) == 0);
    assert_true(probability_exp(-87.5f) == 0);
    for (float x = 0; x >= -87.0f; x -= 0.00391f) {
        double e = exp((double)x);

        assert_true(fabs((double)probability_exp(x) - e) <= 1.2e-7 * e);
    }
}

static void log_is_accurate(void **state)
{
    assert_true(probability_log(1) == 0);
    for (double x = 1e-300; x < 1e300; x *= 1.37)
        assert_true(fabs(probability_log(x) - log(x)) <= 1e-15 * fmax(1, fabs(log(x))));
    for (double x = 0.5; x < 2; x += 0.001)
        assert_true(fabs(probability_log(x) - log(x)) <= 1e-15);
}

static void clean_leaves_no_traps(void **state)
{
    assert_true(probability_clean(NAN) == -INFINITY);
    assert_true(probability_clean(INFINITY) == __FLT_MAX__);
    assert_true(probability_clean(-INFINITY) == -INFINITY);
    assert_true(probability_clean(1.5f) == 1.5f);
}

static void sums_over_odd_sizes(void **state)
{
    float logits[2100];
    double chunks[3];

    for (uint32_t i = 0; i < 2100; i++)
        logits[i] = i % 7 == 3 ? NAN : i % 7 == 4 ? -INFINITY : sinf((float)i) * 4;
    for (uint32_t n = 1; n <= 2100; n += n < 40 ? 1 : 206) {
        float most = probability_max(logits, n);
        double sum = 0, distance = 0, total;

        for (uint32_t i = 0; i < n; i++) {
            double d = (double)most - (double)logits[i];

            if (isfinite(d)) {
                sum += exp(-d / 0.5);
                distance += d * exp(-d);
            }
        }
        total = probability_sum(logits, n, most, 0.5f, chunks);
        assert_true(fabs(total - sum) <= 1e-6 * sum);
        assert_true(fabs(probability_mean_distance(logits, n, most) - distance) <= 1e-6 * (distance + 1));
        for (uint32_t i = 0; i < (n + PROBABILITY_CHUNK - 1) / PROBABILITY_CHUNK; i++)
            total -= chunks[i];
        assert_true(fabs(total) < 1e-9);
    }
    assert_true(probability_max((const float[]){NAN, -INFINITY}, 2) == -INFINITY);
    assert_true(probability_max((const float[]){NAN, INFINITY}, 2) == __FLT_MAX__);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_accurate),
        cmocka_unit_test(log_is_accurate),
        cmocka_unit_test(clean_leaves_no_traps),
        cmocka_unit_test(sums_over_odd_sizes),
    };

    return cmocka_run_group_tests_name("sample/probability", tests, NULL, NULL);
}
