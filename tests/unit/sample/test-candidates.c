/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/sample/candidates.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static int by_order(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;

    if (x->key != y->key)
        return x->key < y->key ? 1 : -1;
    return x->id < y->id ? -1 : 1;
}

/* Few different keys, so that there are many ties; some that don't count. */
static void top_is_a_beginning_of_the_sorted_list(void **state)
{
    static const uint32_t sizes[] = {1, 2, 15, 16, 17, 31, 33, 100, 1000};
    float keys[1000];
    struct candidate all[1000], top[1000];
    uint32_t seed = 7;

    for (size_t s = 0; s < sizeof(sizes) / sizeof(*sizes); s++) {
        for (int kind = 0; kind < 4; kind++) {
            uint32_t n = sizes[s], n_all = 0;

            for (uint32_t i = 0; i < n; i++) {
                seed = seed * 1664525u + 1013904223u;
                keys[i] = kind == 0   ? (float)(seed >> 28)
                          : kind == 1 ? (float)i
                          : kind == 2 ? -(float)i
                                      : (float)(int32_t)seed;
                if (seed >> 16 & 8)
                    keys[i] = seed >> 16 & 16 ? NAN : -INFINITY;
                else
                    all[n_all++] = (struct candidate){.key = keys[i], .id = (int32_t)i};
            }
            qsort(all, n_all, sizeof(*all), by_order);
            assert_int_equal(candidates_best(keys, n), n_all > 0 ? all[0].id : -1);
            for (uint32_t k = 0; k <= n; k += 1 + k / 8) {
                uint32_t n_top = candidates_top(keys, n, k, top);

                assert_int_equal(n_top, k < n_all ? k : n_all);
                for (uint32_t i = 0; i < n_top; i++)
                    assert_int_equal(top[i].id, all[i].id);
            }
        }
    }
}

static void sorts(void **state)
{
    struct candidate c[50];

    for (uint32_t n = 0; n <= 50; n++) {
        for (uint32_t i = 0; i < n; i++)
            c[i] = (struct candidate){.key = (float)(i * 7 % 5), .id = (int32_t)(i * 31 % 50)};
        candidates_sort(c, n);
        for (uint32_t i = 1; i < n; i++)
            assert_true(by_order(&c[i - 1], &c[i]) < 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(top_is_a_beginning_of_the_sorted_list),
        cmocka_unit_test(sorts),
    };

    return cmocka_run_group_tests_name("sample/candidates", tests, NULL, NULL);
}
