/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/json.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const struct json_limits limits = {.bytes_max = 1 << 16, .depth_max = 8, .values_max = 1000};
static const struct json_limits policy_limits = {
    .bytes_max = 1 << 16, .depth_max = 8, .values_max = 1000, .comments = true};

static int parse(const char *text, const struct json_limits *l, struct json_error *error)
{
    _cleanup_json_ json_object *object = NULL;

    return json_parse(text, strlen(text), l, &object, NULL, error);
}

static void takes_what_rfc_8259_takes(void **state)
{
    static const char *const good[] = {
        "{}", "[]", " [ ] ", "null", "0", "-0", "1", "-1", "1.5e+10", "1E-400", "\"\"", "\"\\u0000\"", "\"\\ud83d\\ude00\"",
        "18446744073709551615", "-9223372036854775808", "[[[[[[[[]]]]]]]]", "{\"a\":{\"a\":1},\"b\":{\"a\":1}}", "\"\xE2\x82\xAC\"",
        "[true,false,null]", "{\"\":0}",
    };

    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        struct json_error e = {0};

        if (parse(good[i], &limits, &e) != 0)
            fail_msg("%s: %s at %u:%u", good[i], e.reason, e.line, e.column);
    }
}

static void refuses_what_json_c_lets_through(void **state)
{
    static const struct {
        const char *text;
        int error;
        uint32_t line, column;
    } bad[] = {
        {"", -EINVAL, 1, 1},
        {"{\"a\":1,\n \"a\":2}", -EINVAL, 2, 2},
        {"{\"\\u0061\":1,\"a\":2}", -EINVAL, 1, 13},
        {"[NaN]", -EINVAL, 1, 2},
        {"[Infinity]", -EINVAL, 1, 2},
        {"[-Infinity]", -EINVAL, 1, 2},
        {"[nan]", -EINVAL, 1, 2},
        {"[1e999]", -EINVAL, 1, 2},
        {"[18446744073709551616]", -EINVAL, 1, 2},
        {"[-9223372036854775809]", -EINVAL, 1, 2},
        {"[01]", -EINVAL, 1, 3},
        {"[1.]", -EINVAL, 1, 2},
        {"[.5]", -EINVAL, 1, 2},
        {"[+1]", -EINVAL, 1, 2},
        {"[1,]", -EINVAL, 1, 4},
        {"{\"a\":1,}", -EINVAL, 1, 8},
        {"{a:1}", -EINVAL, 1, 2},
        {"['a']", -EINVAL, 1, 2},
        {"[\"a\tb\"]", -EINVAL, 1, 4},
        {"[\"\x80\"]", -EINVAL, 1, 3},
        {"[\"\xED\xA0\x80\"]", -EINVAL, 1, 3},
        {"\"\\ud800\"", -EINVAL, 1, 2},
        {"\"\\udc00\"", -EINVAL, 1, 2},
        {"\"\\x41\"", -EINVAL, 1, 2},
        {"{\"a\\u0000b\":1}", -EINVAL, 1, 4},
        {"[1] x", -EINVAL, 1, 5},
        {"[1}", -EINVAL, 1, 3},
        {"{\"a\":1]", -EINVAL, 1, 7},
        {"[/* c */1]", -EINVAL, 1, 2},
        {"[[[[[[[[[1]]]]]]]]]", -E2BIG, 1, 9},
        {"[\"abc", -EINVAL, 1, 2},
        {"[TRUE]", -EINVAL, 1, 2},
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct json_error e = {0};
        int r = parse(bad[i].text, &limits, &e);

        if (r != bad[i].error || e.line != bad[i].line || e.column != bad[i].column)
            fail_msg("%s: %d (%s at %u:%u)", bad[i].text, r, e.reason, e.line, e.column);
    }
}

static void names_the_doubled_key(void **state)
{
    struct json_error e;

    assert_int_equal(parse("{\"one\":1,\"two\":{\"x\":1,\"x\":2}}", &limits, &e), -EINVAL);
    assert_string_equal(e.key, "x");
    assert_int_equal(e.offset, 22);
}

static void counts_values_and_bytes(void **state)
{
    const struct json_limits small = {.bytes_max = 10, .depth_max = 2, .values_max = 4};

    assert_int_equal(parse("[1,2,3]", &small, NULL), 0);
    assert_int_equal(parse("[1,2,3,4]", &small, NULL), -E2BIG);
    assert_int_equal(parse("\"12345678\"", &small, NULL), 0);
    assert_int_equal(parse("\"123456789\"", &small, NULL), -E2BIG);
    assert_int_equal(parse("{\"a\":1}", &small, NULL), 0);
    assert_int_equal(parse("{\"a\":[1]}", &small, NULL), 0);
}

static void finds_places_behind_comments(void **state)
{
    static const char text[] = "// head\n{ \"models\": { /* one\n */ \"a/b\": { \"k~\": [1, 22] } },\n\"z\": \"// no comment\" }";
    _cleanup_json_ json_object *object = NULL;
    _cleanup_(json_index_freep) struct json_index *index = NULL;
    json_object *z;
    uint32_t line, column;

    assert_int_equal(json_parse(text, strlen(text), &policy_limits, &object, &index, NULL), 0);
    assert_true(json_index_find(index, "", &line, &column));
    assert_int_equal(line, 2);
    assert_int_equal(column, 1);
    assert_true(json_index_find(index, "/models/a~1b/k~0/1", &line, &column));
    assert_int_equal(line, 3);
    assert_int_equal(column, 24);
    assert_true(json_index_find(index, "/z", &line, &column));
    assert_int_equal(line, 4);
    assert_false(json_index_find(index, "/models/a", &line, &column));
    assert_true(json_object_object_get_ex(object, "z", &z));
    assert_string_equal(json_object_get_string(z), "// no comment");
}

static void refuses_a_comment_without_end(void **state)
{
    struct json_error e;

    assert_int_equal(parse("{} /* x", &policy_limits, &e), -EINVAL);
    assert_int_equal(e.column, 4);
    assert_int_equal(parse("{} // x", &policy_limits, &e), 0);
    assert_int_equal(parse("{} / x", &policy_limits, &e), -EINVAL);
}

static void a_cut_text_is_never_taken(void **state)
{
    static const char text[] = "{\"a\":[1,2.5,\"x\\u00e9\",{\"b\":null}],\"c\":true}";

    for (size_t n = 0; n < strlen(text); n++) {
        _cleanup_json_ json_object *object = NULL;
        _cleanup_free_ char *copy = malloc(n ? n : 1);

        memcpy(copy, text, n); /* exactly as long, so that a sanitizer sees a read behind the end */
        assert_int_equal(json_parse(copy, n, &limits, &object, NULL, NULL), -EINVAL);
    }
}

static void keeps_numbers_exactly(void **state)
{
    _cleanup_json_ json_object *object = NULL;

    assert_int_equal(json_parse("[18446744073709551615,-9223372036854775808,0.1]", 47, &limits, &object, NULL, NULL), 0);
    assert_true(json_object_get_uint64(json_object_array_get_idx(object, 0)) == UINT64_MAX);
    assert_true(json_object_get_int64(json_object_array_get_idx(object, 1)) == INT64_MIN);
    assert_string_equal(json_text(object), "[18446744073709551615,-9223372036854775808,0.1]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_what_rfc_8259_takes),
        cmocka_unit_test(refuses_what_json_c_lets_through),
        cmocka_unit_test(names_the_doubled_key),
        cmocka_unit_test(counts_values_and_bytes),
        cmocka_unit_test(finds_places_behind_comments),
        cmocka_unit_test(refuses_a_comment_without_end),
        cmocka_unit_test(a_cut_text_is_never_taken),
        cmocka_unit_test(keeps_numbers_exactly),
    };

    return cmocka_run_group_tests_name("base/json", tests, NULL, NULL);
}
