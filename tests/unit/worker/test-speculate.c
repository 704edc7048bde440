/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long drafts are, and where the sequence's own come from.
 */
#include "engine/sched/speculate.h"

#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static uint32_t lookup(const char *text, uint32_t n_max, char *ret)
{
    int32_t tokens[256];
    uint32_t n_tokens = (uint32_t)strlen(text), n;

    for (uint32_t i = 0; i < n_tokens; i++)
        tokens[i] = text[i];
    n = speculate_lookup(tokens, n_tokens, n_max);
    for (uint32_t i = 0; i < n; i++)
        ret[i] = (char)tokens[n_tokens + i];
    ret[n] = 0;
    return n;
}

static void test_what_followed_last_time(void **state)
{
    char draft[64];

    assert_int_equal(lookup("the cat sat. the c", 6, draft), 6);
    assert_string_equal(draft, "at sat");
    /* The longer place counts, then the later one. */
    assert_int_equal(lookup("xabcd1 abcd2 xabcd", 1, draft), 1);
    assert_string_equal(draft, "1");
    assert_int_equal(lookup("abcd1 abcd2 abcd", 1, draft), 1);
    assert_string_equal(draft, "2");
    /* Into itself: a repetition goes on. */
    assert_int_equal(lookup("-ababab", 7, draft), 7);
    assert_string_equal(draft, "abababa");
}

static void test_nothing_like_it(void **state)
{
    char draft[64];

    assert_int_equal(lookup("abcdefgh", 4, draft), 0);
    /* Two tokens are too few to go by. */
    assert_int_equal(lookup("ab1 ab", 4, draft), 0);
    assert_int_equal(lookup("ab", 4, draft), 0);
    assert_int_equal(lookup("aaa", 4, draft), 0);
    assert_int_equal(lookup("aaaa", 4, draft), 4);
    assert_int_equal(lookup("abc abc", 0, draft), 0);
}

static void test_how_far_back(void **state)
{
    static int32_t tokens[100000];

    for (int32_t i = 0; i < 99990; i++)
        tokens[i] = i;
    for (int32_t i = 0; i < 3; i++)
        tokens[99980 + i] = 40000 + i;
    assert_int_equal(speculate_lookup(tokens, 99983, 2), 2);
    assert_int_equal(tokens[99983], 40003);
    for (int32_t i = 0; i < 3; i++)
        tokens[99980 + i] = 20000 + i;
    assert_int_equal(speculate_lookup(tokens, 99983, 2), 0);
}

static void test_length_follows_luck_and_cost(void **state)
{
    struct speculation s = {0};

    /* Nothing is known: 1 + 0.7 + 0.49 + … against the steps. */
    assert_int_equal(speculate_length(&s, 0, 8), 8);
    assert_int_equal(speculate_length(&s, 0.15, 8), 3);
    assert_int_equal(speculate_length(&s, 0.7, 8), 0);
    for (int i = 0; i < 20; i++)
        speculate_learn(&s, 8, 8);
    assert_int_equal(speculate_length(&s, 0.15, 8), 8);
    assert_int_equal(speculate_length(&s, 0.15, 3), 3);
    assert_int_equal(speculate_length(&s, 0.15, 1000), SPECULATE_TOKENS_MAX);
    assert_int_equal(speculate_length(&s, 1, 8), 0);
    for (int i = 0; i < 20; i++)
        speculate_learn(&s, 8, 0);
    assert_int_equal(speculate_length(&s, 0.15, 8), 0);
}

static void test_what_failed_is_tried_again(void **state)
{
    struct speculation s = {0};
    int n = 0;

    for (int i = 0; i < 20; i++)
        speculate_learn(&s, 4, 0);
    for (; speculate_length(&s, 0.15, 8) == 0; n++)
        speculate_learn(&s, 0, 0);
    assert_in_range(n, 20, 150);
    /* Once more in vain, and it waits again. */
    speculate_learn(&s, 4, 0);
    assert_int_equal(speculate_length(&s, 0.15, 8), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_followed_last_time),
        cmocka_unit_test(test_nothing_like_it),
        cmocka_unit_test(test_how_far_back),
        cmocka_unit_test(test_length_follows_luck_and_cost),
        cmocka_unit_test(test_what_failed_is_tried_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
