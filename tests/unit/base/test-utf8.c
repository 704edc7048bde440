/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void refuses_what_rfc_3629_refuses(void **state)
{
    static const char *const bad[] = {
        "\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80",
        "\xE2\x28\xA1",
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        uint32_t code;

        assert_int_equal(utf8_decode(bad[i], __builtin_strlen(bad[i]), &code), -1);
    }
}

static void encodes_what_it_decodes(void **state)
{
    for (uint32_t code = 0; code <= 0x110000; code++) {
        char bytes[UTF8_BYTES_MAX];
        size_t n = utf8_encode(code, bytes);
        uint32_t again;

        if ((code >= 0xD800 && code < 0xE000) || code > 0x10FFFF) {
            assert_int_equal(n, 0);
            continue;
        }
        assert_int_equal(utf8_decode(bytes, n, &again), n);
        assert_int_equal(again, code);
        for (size_t cut = 1; cut < n; cut++)
            assert_int_equal(utf8_decode(bytes, cut, &again), 0);
    }
}

static void holds_back_a_cut_character_only(void **state)
{
    assert_int_equal(utf8_whole("a\xE2\x82", 3), 1);
    assert_int_equal(utf8_whole("a\xE2\x82\xAC", 4), 4);
    assert_int_equal(utf8_whole("\xF0\x9F\x98", 3), 0);
    assert_int_equal(utf8_whole("a\x80", 2), 2);
    assert_int_equal(utf8_whole("", 0), 0);
    assert_int_equal(utf8_cut("a\xE2\x82\xAC" "b", 3), 1);
    assert_int_equal(utf8_cut("a\xE2\x82\xAC" "b", 4), 4);
}

static void says_where_the_fault_is(void **state)
{
    size_t at = 0;

    assert_true(utf8_is_valid("\xE2\x82\xAC" "abc", 6, &at));
    assert_false(utf8_is_valid("ab\xFFxyz", 6, &at));
    assert_int_equal(at, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_what_rfc_3629_refuses),
        cmocka_unit_test(encodes_what_it_decodes),
        cmocka_unit_test(holds_back_a_cut_character_only),
        cmocka_unit_test(says_where_the_fault_is),
    };

    return cmocka_run_group_tests_name("base/utf8", tests, NULL, NULL);
}
