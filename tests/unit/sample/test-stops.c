/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/sample/stops.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"

DEFINE_CLEANUP(struct stops *, stops_free)

static struct stops *make(const char *const *strings, size_t n)
{
    struct stops_string list[8] = {{NULL, 0}};
    struct stops *s;

    for (size_t i = 0; i < n; i++)
        list[i] = (struct stops_string){strings[i], strlen(strings[i])};
    assert_int_equal(stops_new(list, n, &s), 0);
    return s;
}

/* Pushes one piece and expects exactly @expected to be handed on. */
static void push(struct stops *s, const char *piece, const char *expected, bool expected_hit)
{
    const char *text;
    size_t n;
    bool hit;

    assert_int_equal(stops_push(s, piece, strlen(piece), &text, &n, &hit), 0);
    assert_int_equal(n, strlen(expected));
    assert_memory_equal(text, expected, n);
    assert_int_equal(hit, expected_hit);
}

static void flush(struct stops *s, const char *expected)
{
    const char *text;
    size_t n = stops_flush(s, &text);

    assert_int_equal(n, strlen(expected));
    assert_memory_equal(text, expected, n);
}

#define STOPS(...) \
    make((const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static void holds_nothing_back_without_strings(void **state)
{
    _cleanup_(stops_freep) struct stops *s = make(NULL, 0);

    push(s, "", "", false);
    push(s, "abc", "abc", false);
    push(s, "", "", false);
    flush(s, "");
    assert_int_equal(stops_hit(s), -1);
}

static void holds_back_only_what_may_become_a_stop(void **state)
{
    _cleanup_(stops_freep) struct stops *s = STOPS("</s>", "END");

    push(s, "hello", "hello", false);
    push(s, " <", " ", false);
    push(s, "b>", "<b>", false);
    push(s, "x</", "x", false);
    push(s, "s", "", false);
    push(s, "E", "</s", false);
    push(s, "N", "", false);
    push(s, "ENE", "ENEN", false); /* "EN" from before, and of "ENE" all but what can begin END */
    flush(s, "E");
}

static void finds_a_stop_across_pieces(void **state)
{
    _cleanup_(stops_freep) struct stops *s = STOPS("</s>", "END");

    push(s, "text<", "text", false);
    push(s, "/s", "", false);
    push(s, "> and more", "", true);
    assert_int_equal(stops_hit(s), 0);
    push(s, "swallowed", "", true);
    flush(s, "");
}

static void hands_on_what_came_before(void **state)
{
    _cleanup_(stops_freep) struct stops *s = STOPS("x", "END");

    push(s, "ENaENDx", "ENa", true);
    assert_int_equal(stops_hit(s), 1);
}

/* A failed match can contain the beginning of the next one. */
static void falls_back_to_shorter_beginnings(void **state)
{
    _cleanup_(stops_freep) struct stops *s = STOPS("aabaaa");

    push(s, "aab", "", false);
    push(s, "aab", "aab", false);
    push(s, "aa", "", false);
    push(s, "a", "", true);
}

static void the_first_that_is_complete_wins(void **state)
{
    _cleanup_(stops_freep) struct stops *s = STOPS("abc", "b");
    _cleanup_(stops_freep) struct stops *t = STOPS("bc", "abc", "c");

    push(s, "abc", "a", true);
    assert_int_equal(stops_hit(s), 1);
    push(t, "xabc", "x", true);
    assert_int_equal(stops_hit(t), 1);
}

static void gives_back_the_tail_at_the_end(void **state)
{
    _cleanup_(stops_freep) struct stops *s = STOPS("\n\nUser:");

    push(s, "bye\n\nUse", "bye", false);
    flush(s, "\n\nUse");
    flush(s, "");
}

/* Every way of cutting a text in three gives the same text and the same hit. */
static void does_not_depend_on_the_cut(void **state)
{
    static const char text[] = "aabaabaaab<|im_e<|im_end|>tail";
    static const char whole[] = "aabaabaaab<|im_e";
    const size_t n_text = sizeof(text) - 1;

    for (size_t i = 0; i <= n_text; i++) {
        for (size_t j = i; j <= n_text; j++) {
            _cleanup_(stops_freep) struct stops *s = STOPS("<|im_end|>", "aabaac", "<|im_end|>t", "tail");
            const size_t cuts[] = {0, i, j, n_text};
            char out[64];
            size_t n_out = 0;
            bool hit = false;

            for (int k = 0; k < 3; k++) {
                const char *piece;
                size_t n;

                assert_int_equal(stops_push(s, text + cuts[k], cuts[k + 1] - cuts[k], &piece, &n, &hit), 0);
                memcpy(out + n_out, piece, n);
                n_out += n;
            }
            assert_true(hit);
            assert_int_equal(stops_hit(s), 0);
            assert_int_equal(n_out, sizeof(whole) - 1);
            assert_memory_equal(out, whole, n_out);
        }
    }
}

/* Against a search that looks at the whole text so far after every byte. */
static void agrees_with_a_plain_search(void **state)
{
    uint32_t seed = 1;

    for (int round = 0; round < 2000; round++) {
        char strings[4][6], text[40], out[40];
        const char *list[4];
        size_t n_out = 0, n_expected = sizeof(text), length;
        int expected_hit = -1;
        _cleanup_(stops_freep) struct stops *s = NULL;
        const char *piece;
        size_t n;
        bool hit;

#define NEXT(n) ((seed = seed * 1664525u + 1013904223u) >> 16) % (n)
        for (int i = 0; i < 4; i++) {
            length = 1 + NEXT(5);
            for (size_t j = 0; j < length; j++)
                strings[i][j] = (char)('a' + NEXT(2));
            strings[i][length] = 0;
            list[i] = strings[i];
        }
        for (size_t i = 0; i < sizeof(text); i++)
            text[i] = (char)('a' + NEXT(3));
        for (size_t end = 1; end <= sizeof(text) && expected_hit < 0; end++) {
            size_t longest = 0;

            for (int i = 0; i < 4; i++) {
                length = strlen(list[i]);
                if (length <= end && length > longest && memcmp(text + end - length, list[i], length) == 0) {
                    longest = length;
                    expected_hit = i;
                    n_expected = end - length;
                }
            }
        }
        s = make(list, 4);
        for (size_t at = 0; at < sizeof(text); at += length) {
            length = 1 + NEXT(6);
            if (length > sizeof(text) - at)
                length = sizeof(text) - at;
            assert_int_equal(stops_push(s, text + at, length, &piece, &n, &hit), 0);
            memcpy(out + n_out, piece, n);
            n_out += n;
        }
        n = stops_flush(s, &piece);
        memcpy(out + n_out, piece, n);
        n_out += n;
        assert_int_equal(stops_hit(s), expected_hit);
        assert_int_equal(n_out, n_expected);
        assert_memory_equal(out, text, n_out);
    }
}

static void refuses_what_it_can_not_watch(void **state)
{
    static char big[STOPS_BYTES_MAX + 1];
    struct stops_string list[STOPS_MAX + 1];
    struct stops *s = NULL;

    memset(big, 'a', sizeof(big));
    for (size_t i = 0; i <= STOPS_MAX; i++)
        list[i] = (struct stops_string){"a", 1};
    assert_int_equal(stops_new(list, STOPS_MAX + 1, &s), -E2BIG);
    assert_int_equal(stops_new(list, STOPS_MAX, &s), 0);
    s = stops_free(s);
    list[1].n_bytes = 0;
    assert_int_equal(stops_new(list, 2, &s), -EINVAL);
    list[0] = (struct stops_string){big, STOPS_BYTES_MAX + 1};
    assert_int_equal(stops_new(list, 1, &s), -E2BIG);
    list[0].n_bytes = STOPS_BYTES_MAX;
    assert_int_equal(stops_new(list, 1, &s), 0);
    s = stops_free(s);
    list[1].n_bytes = 1;
    assert_int_equal(stops_new(list, 2, &s), -E2BIG);
    assert_null(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(holds_nothing_back_without_strings),
        cmocka_unit_test(holds_back_only_what_may_become_a_stop),
        cmocka_unit_test(finds_a_stop_across_pieces),
        cmocka_unit_test(hands_on_what_came_before),
        cmocka_unit_test(falls_back_to_shorter_beginnings),
        cmocka_unit_test(the_first_that_is_complete_wins),
        cmocka_unit_test(gives_back_the_tail_at_the_end),
        cmocka_unit_test(does_not_depend_on_the_cut),
        cmocka_unit_test(agrees_with_a_plain_search),
        cmocka_unit_test(refuses_what_it_can_not_watch),
    };

    return cmocka_run_group_tests_name("sample/stops", tests, NULL, NULL);
}
