/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Schemas: what exactly may be written for some of them, and what their errors say. That random texts satisfy
 * their schemas is check-jsonschema.py's business.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka.h wants those before it */
#include <cmocka.h>

#include "base/fault.h"
#include "base/json.h"
#include "engine/grammar/grammar.h"
#include "tests/unit/grammar/checker.h"

static int compile(const char *text, struct grammar **ret, struct fault *reterr)
{
    const struct json_limits limits = {.bytes_max = 1 << 22, .depth_max = 200, .values_max = 1 << 20};
    _cleanup_json_ json_object *schema = NULL;

    if (json_parse(text, strlen(text), &limits, &schema, NULL, NULL) != 0)
        fail_msg("no JSON: %s", text);
    return grammar_from_schema(schema, ret, reterr);
}

/* Byte by byte: whether all of it may be written, and may end there. */
static bool may_write(const struct grammar_vocabulary *v, const char *schema, const char *text)
{
    struct grammar *g = NULL;
    struct matcher *m = NULL;
    struct fault fault = {0};
    bool ok = true;

    if (compile(schema, &g, &fault) != 0)
        fail_msg("%s: %s", schema, fault.reason);
    assert_int_equal(matcher_new(g, v, 0, &m), 0);
    for (; *text && ok; text++)
        ok = matcher_accept(m, (uint8_t)*text) == 0;
    ok = ok && matcher_may_end(m);
    matcher_free(m);
    return ok;
}

static void test_what_may_be_written(void **state)
{
    static const struct {
        const char *schema, *yes[5], *no[8];
    } cases[] = {
        {"{\"type\": \"boolean\"}", {"true", "false"}, {"\"true\"", "null", "tru", " true"}},
        {"{\"type\": \"integer\"}",
         {"0", "-7", "123456789012345678"},
         {"01", "1.0", "1e3", "+1", "-", "1234567890123456789"}},
        {"{\"type\": \"number\"}", {"0", "-0.5", "1e-9", "12.25E+10"}, {".5", "1.", "1e", "1e100", "0x1"}},
        {"{\"type\": \"integer\", \"minimum\": -12, \"maximum\": 105}",
         {"-12", "-1", "0", "99", "105"},
         {"-13", "106", "-0", "1000", "05"}},
        {"{\"type\": \"integer\", \"exclusiveMinimum\": 9, \"exclusiveMaximum\": 11}",
         {"10"},
         {"9", "11", "1", "100"}},
        {"{\"type\": \"number\", \"minimum\": 0.25, \"exclusiveMaximum\": 2}",
         {"0.25", "0.3", "1", "1.999", "0.2500"},
         {"0.24", "2", "2.0", "0", "0.2", "10"}},
        {"{\"type\": \"string\", \"minLength\": 2, \"maxLength\": 3}",
         {"\"ab\"", "\"\xC3\xA9\xE2\x82\xAC\"", "\"\\n\\u00e9\\\\\""},
         {"\"a\"", "\"abcd\"", "ab", "\"\\ud800a\""}},
        {"{\"type\": \"string\", \"pattern\": \"^(?:\\\\d{2}|x)+$\"}",
         {"\"12\"", "\"x12x\""},
         {"\"1\"", "\"\"", "\"a\""}},
        {"{\"type\": \"string\", \"pattern\": \"b\"}", {"\"b\"", "\"abc\""}, {"\"\"", "\"ac\""}},
        {"{\"type\": \"string\", \"pattern\": \"^(?<y>\\\\d)\\\"$\"}",
         {"\"1\\\"\""},
         {"\"1\"", "\"1\\u0022\""}},
        {"{\"type\": \"string\", \"format\": \"date\"}",
         {"\"2024-02-29\"", "\"2023-12-31\"", "\"2000-02-29\""},
         {"\"2023-02-29\"", "\"1900-02-29\"", "\"2024-04-31\"", "\"2024-13-01\"", "\"24-01-01\""}},
        {"{\"type\": \"string\", \"format\": \"ipv4\"}",
         {"\"0.10.199.255\""},
         {"\"256.1.1.1\"", "\"1.1.1\"", "\"01.1.1.1\""}},
        {"{\"enum\": [\"a\", 1, null, {\"x\": [1, 2]}]}",
         {"\"a\"", "1", "null", "{\"x\":[1,2]}", "{ \"x\": [ 1, 2 ] }"},
         {"\"b\"", "2", "{}"}},
        {"{\"type\": \"object\", \"properties\": {\"a\": {\"const\": 1}, \"b\": {\"const\": 2}, \"c\": "
         "{\"const\": 3}}, \"required\": [\"b\"]}",
         {"{\"b\":2}", "{\"a\": 1, \"b\": 2}", "{\n  \"a\": 1,\n  \"b\": 2,\n  \"c\": 3\n}"},
         {"{}", "{\"a\":1}", "{\"b\":2,\"a\":1}", "{\"b\":2,}", "{,\"b\":2}", "{\"b\":2,\"b\":2}",
          "{\"b\":2,\"d\":1}"}},
        {"{\"type\": \"object\", \"properties\": {\"ab\": {\"const\": 1}}, \"additionalProperties\": "
         "{\"const\": 2}}",
         {"{}", "{\"ab\":1}", "{\"a\":2}", "{\"ab\":1,\"abc\":2,\"\":2}"},
         {"{\"ab\":2}", "{\"a\":2,\"ab\":2}", "{\"\\u0061b\":2}"}},
        {"{\"type\": \"array\", \"prefixItems\": [{\"const\": 1}, {\"const\": 2}], \"items\": {\"const\": "
         "3}, \"maxItems\": 3}",
         {"[]", "[1]", "[1,2]", "[1, 2, 3]"},
         {"[2]", "[1,3]", "[1,2,3,3]", "[1,]"}},
        {"{\"type\": \"array\", \"items\": {\"const\": 1}, \"minItems\": 2}",
         {"[1,1]", "[1,1,1]"},
         {"[]", "[1]", "[1,2]"}},
        {"{\"allOf\": [{\"type\": \"integer\", \"minimum\": 3}, {\"maximum\": 5}]}", {"3", "5"}, {"2", "6"}},
        {"{\"anyOf\": [{\"const\": 1}, {\"const\": 2}], \"enum\": [2, 3]}", {"2"}, {"1", "3"}},
        {"{\"$ref\": \"#/$defs/l\", \"$defs\": {\"l\": {\"type\": \"array\", \"items\": {\"$ref\": "
         "\"#/$defs/l\"}}}}",
         {"[]", "[[],[[]]]"},
         {"[1]", "[[]"}},
        {"{\"type\": \"string\", \"nullable\": true, \"maxLength\": 1}", {"null", "\"a\""}, {"\"ab\"", "1"}},
        {"{}", {"null", "{\"a\":[{}]}", "\"x\""}, {"", "nul", "[1,]"}},
    };
    struct grammar_vocabulary *v = checker_vocabulary();

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t k = 0; k < 5 && cases[i].yes[k]; k++)
            if (!may_write(v, cases[i].schema, cases[i].yes[k]))
                fail_msg("%s refuses %s", cases[i].schema, cases[i].yes[k]);
        for (size_t k = 0; k < 8 && cases[i].no[k]; k++)
            if (may_write(v, cases[i].schema, cases[i].no[k]))
                fail_msg("%s allows %s", cases[i].schema, cases[i].no[k]);
    }
    grammar_vocabulary_free(v);
}

static void refuse(const char *schema, const char *message)
{
    struct grammar *g = NULL;
    struct fault fault = {0};

    assert_int_equal(compile(schema, &g, &fault), -EINVAL);
    assert_int_equal(fault.kind, FAULT_INVALID_PARAMETER);
    assert_string_equal(fault.subject, "json_schema");
    assert_string_equal(fault.reason, message);
    assert_null(g);
}

static void test_errors_say_where(void **state)
{
    refuse("{\"not\": {}}", "#: the keyword not is not supported");
    refuse("{\"properties\": {\"a\": {\"items\": {\"uniqueItems\": true}}}}",
           "#/properties/a/items: the keyword uniqueItems is not supported");
    refuse("{\"anyOf\": [{}, {\"maxLenght\": 3}]}", "#/anyOf/1: the keyword maxLenght is not supported");
    refuse("{\"type\": \"text\"}",
           "#: type: expected null, boolean, integer, number, string, array or object, or a list of them");
    refuse("{\"properties\": {\"a\": 3}}", "#/properties/a: a schema is an object, true or false");
    refuse("{\"$ref\": \"#/$defs/x\"}", "#: $ref: #/$defs/x: there is no such schema");
    refuse("{\"$ref\": \"http://x/y\"}",
           "#: $ref: http://x/y: only references into the schema itself are supported (\"#/$defs/name\")");
    refuse("{\"format\": \"iri\"}",
           "#: the format iri is not supported; known are date, time, date-time, duration, uuid, email, "
           "hostname, ipv4, ipv6, uri");
    refuse("{\"pattern\": \"(?=a)\"}", "#: pattern, character 3: looking ahead or behind is not supported");
    refuse("{\"pattern\": \"(a)\\\\1\"}", "#: pattern, character 5: back references are not supported");
    refuse("{\"pattern\": \"a{1000000000}\"}", "#: at most 100000 repetitions can be asked for");
    refuse("{\"pattern\": \"^ab?$\", \"maxLength\": 1}",
           "#: minLength and maxLength beside a pattern or format are supported where they follow from it, "
           "or where it is one "
           "repeated character such as \"^[a-z]+$\"");
    refuse("{\"minLength\": 5, \"maxLength\": 4}", "#: maxLength is smaller than minLength");
    refuse("{\"type\": \"array\", \"maxItems\": 1000000000}", "#: at most 100000 items can be asked for");
    refuse("{\"minItems\": -1}", "#: minItems: expected a whole number from 0 to 2147483647");
    refuse("{\"enum\": [1], \"minimum\": 0}", "#: minimum is not supported beside enum or const");
    refuse("{\"minimum\": \"1\"}",
           "#: minimum: expected a number of at most 40 digits before and behind the point");
}

static void test_what_nothing_satisfies_is_refused(void **state)
{
    refuse("false", "#: nothing can satisfy the schema");
    refuse("{\"allOf\": [{\"type\": \"string\"}, {\"type\": \"integer\"}]}",
           "#: nothing can satisfy the schema");
    refuse("{\"type\": \"integer\", \"minimum\": 5, \"maximum\": 4}", "#: nothing can satisfy the schema");
    refuse("{\"type\": \"object\", \"properties\": {\"a\": {\"$ref\": \"#\"}}, \"required\": [\"a\"]}",
           "#: nothing can satisfy the schema");
    refuse("{\"additionalProperties\": false, \"required\": [\"a\"], \"type\": \"object\"}",
           "#: nothing can satisfy the schema");
}

static void test_circles_are_refused(void **state)
{
    struct grammar *g = NULL;
    struct fault fault = {0};

    refuse("{\"$ref\": \"#\"}", "#: nothing can satisfy the schema");
    refuse("{\"$defs\": {\"a\": {\"anyOf\": [{\"$ref\": \"#/$defs/a\"}, {\"const\": 1}]}}, \"$ref\": "
           "\"#/$defs/a\"}",
           "#: the schema refers to itself without anything in between");
    assert_int_equal(compile("{\"allOf\": [{\"$ref\": \"#\"}, {\"type\": \"string\"}]}", &g, &fault),
                     -EINVAL);
    assert_non_null(strstr(fault.reason, "references are nested too deeply, or lead in a circle"));
}

/* Each level doubles: 2^40 schemas when followed without a bound. */
static void test_references_that_multiply_are_bounded(void **state)
{
    char schema[8192] = "{\"$defs\": {\"d0\": {\"minimum\": 1}";
    size_t n = strlen(schema);
    struct grammar *g = NULL;
    struct fault fault = {0};

    for (int i = 1; i <= 40; i++)
        n += (size_t)snprintf(
            schema + n, sizeof(schema) - n,
            ", \"d%d\": {\"allOf\": [{\"$ref\": \"#/$defs/d%d\"}, {\"$ref\": \"#/$defs/d%d\"}]}", i, i - 1,
            i - 1);
    snprintf(schema + n, sizeof(schema) - n, "}, \"$ref\": \"#/$defs/d40\"}");
    assert_int_equal(compile(schema, &g, &fault), -EINVAL);
    assert_non_null(strstr(fault.reason, "the schema is too large, or its references multiply"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_may_be_written),
        cmocka_unit_test(test_errors_say_where),
        cmocka_unit_test(test_what_nothing_satisfies_is_refused),
        cmocka_unit_test(test_circles_are_refused),
        cmocka_unit_test(test_references_that_multiply_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
