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
        {"{\"type\": \"integer\", \"multipleOf\": 25}",
         {"0", "25", "-150", "100000", "99999999999999975"},
         {"5", "26", "250.0", "2", "025", "-1"}},
        {"{\"type\": \"integer\", \"multipleOf\": 7, \"minimum\": 10, \"maximum\": 200}",
         {"14", "98", "105", "196"},
         {"7", "10", "0", "203", "1", "15", "112112"}},
        {"{\"type\": \"number\", \"multipleOf\": 0.01}",
         {"0", "12", "0.5", "-3.14", "7.10"},
         {"0.001", "1.005", "1.", ".5", "1e2", "3.141"}},
        {"{\"type\": \"number\", \"multipleOf\": 0.25, \"maximum\": 1}",
         {"0.25", "0.5", "-7.75", "1", "1.0"},
         {"0.2", "0.3", "1.25", "0.255", "-0.1"}},
        {"{\"type\": \"array\", \"items\": {\"enum\": [\"a\", \"b\", 3]}, \"uniqueItems\": true, "
         "\"minItems\": 1}",
         {"[\"b\"]", "[3,\"a\"]", "[\"b\", 3, \"a\"]"},
         {"[]", "[3,3]", "[\"a\",\"b\",\"a\"]", "[\"c\"]", "[\"a\",]"}},
        {"{\"type\": \"string\", \"not\": {\"enum\": [\"no\", \"not\"]}, \"maxLength\": 4}",
         {"\"\"", "\"n\"", "\"nor\"", "\"nots\"", "\"yes\""},
         {"\"no\"", "\"not\"", "\"n\\u006f\"", "\"knots\"", "1"}},
        {"{\"type\": \"integer\", \"not\": {\"enum\": [0, 10]}}", {"1", "-1", "9", "11", "100"}, {"0", "10"}},
        {"{\"type\": [\"string\", \"boolean\", \"null\"], \"not\": {\"type\": \"string\"}}",
         {"true", "null"},
         {"\"a\"", "1"}},
        {"{\"type\": \"object\", \"properties\": {\"a\": {\"enum\": [1, 2]}, \"b\": {\"const\": 3}}, "
         "\"required\": [\"a\"], \"if\": {\"properties\": {\"a\": {\"const\": 1}}}, \"then\": {\"required\": "
         "[\"b\"]}, \"else\": {\"properties\": {\"b\": false}}}",
         {"{\"a\":1,\"b\":3}", "{\"a\":2}"},
         {"{\"a\":1}", "{\"a\":2,\"b\":3}", "{\"b\":3}", "{}"}},
        {"{\"type\": \"integer\", \"minimum\": 0, \"maximum\": 40, \"if\": {\"minimum\": 20}, \"then\": "
         "{\"multipleOf\": 10}, \"else\": {\"multipleOf\": 3}}",
         {"0", "18", "20", "30", "40"},
         {"10", "19", "21", "24", "27", "50"}},
        {"{\"type\": \"object\", \"properties\": {\"a\": {\"const\": 1}, \"b\": {\"const\": 2}}, "
         "\"dependentRequired\": {\"a\": [\"b\"]}}",
         {"{}", "{\"b\":2}", "{\"a\":1,\"b\":2}"},
         {"{\"a\":1}"}},
        {"{\"oneOf\": [{\"type\": \"integer\", \"maximum\": 5}, {\"type\": \"integer\", \"minimum\": 4}]}",
         {"3", "6", "-9"},
         {"4", "5"}},
        {"{\"type\": \"array\", \"items\": {\"type\": \"integer\"}, \"contains\": {\"minimum\": 7}, "
         "\"maxItems\": 3}",
         {"[7]", "[1,9]", "[8,1,2]", "[7, 7, 7]", "[1,2,100]"},
         {"[]", "[6]", "[1,2,3]", "[7,1,1,1]", "[1,2,"}},
        {"{\"type\": \"array\", \"items\": {\"enum\": [1, 2]}, \"contains\": {\"const\": 2}, \"minItems\": "
         "3}",
         {"[1,1,2]", "[2,2,2,2]", "[2,1,1,1,1]"},
         {"[1,2]", "[1,1,1,1]", "[]"}},
        {"{\"type\": \"array\", \"items\": {\"enum\": [1, 2]}, \"not\": {\"contains\": {\"const\": 2}}}",
         {"[]", "[1,1]"},
         {"[2]", "[1,2]"}},
        {"{\"type\": \"object\", \"properties\": {\"a\": {\"const\": 1}, \"b\": {\"const\": 2}, \"c\": "
         "{\"const\": 3}}, "
         "\"minProperties\": 1, \"maxProperties\": 2}",
         {"{\"a\":1}", "{\"c\":3}", "{\"a\":1,\"c\":3}", "{\"b\":2, \"c\":3}"},
         {"{}", "{\"a\":1,\"b\":2,\"c\":3}", "{,\"b\":2}", "{\"a\":1,}"}},
        {"{\"type\": \"object\", \"properties\": {\"a\": {\"const\": 1}}, \"additionalProperties\": "
         "{\"const\": 0}, "
         "\"minProperties\": 2, \"maxProperties\": 3}",
         {"{\"a\":1,\"x\":0}", "{\"a\":1,\"x\":0,\"y\":0}"},
         {"{\"a\":1}", "{\"x\":0}", "{\"x\":0,\"y\":0}", "{\"a\":1,\"x\":0,\"y\":0,\"z\":0}"}},
        {"{\"enum\": [1, 5, \"x\", 2.0], \"minimum\": 2, \"type\": \"integer\"}",
         {"5", "2.0"},
         {"1", "\"x\"", "2"}},
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
    refuse("{\"dependentSchemas\": {}}",
           "#: the keyword dependentSchemas is not supported: write the cases as anyOf");
    refuse(
        "{\"properties\": {\"a\": {\"items\": {\"unevaluatedProperties\": false}}}}",
        "#/properties/a/items: the keyword unevaluatedProperties is not supported: use additionalProperties");
    refuse("{\"properties\": {\"a/b~\": {\"maxLenght\": 3}}}",
           "#/properties/a~1b~0: the keyword maxLenght is not supported: leave it out and check the answer; "
           "docs/structured-output.md lists what is supported");
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
    refuse(
        "{\"enum\": [\"a\"], \"pattern\": \"a\"}",
        "#: pattern, format and keywords about names are not supported beside enum or const: list the values "
        "that satisfy them");
    refuse("{\"minimum\": \"1\"}",
           "#: minimum: expected a number of at most 40 digits before and behind the point");
}

/* What can't be held exactly is refused by name, with what to write instead. */
static void test_conditions_that_are_refused(void **state)
{
    refuse(
        "{\"contains\": {\"const\": 1}, \"minContains\": 2}",
        "#: contains is not supported beside prefixItems, uniqueItems, minContains and maxContains: give the "
        "item its place by prefixItems, or check the answer");
    refuse("{\"properties\": {\"a\": {}}, \"minProperties\": 2}",
           "#: minProperties is 2, but only 1 properties are named; name more, or allow others by "
           "additionalProperties");
    refuse(
        "{\"minProperties\": 2}",
        "#: minProperties: beside named properties one more can be asked for, since nothing remembers which "
        "further names were written; name them in properties");
    refuse("{\"allOf\": [{\"prefixItems\": [{\"type\": \"integer\"}]}, {\"items\": {\"minimum\": 5}}]}",
           "#/allOf/1: prefixItems and items of schemas that hold together can't be combined: write them in "
           "one");
    refuse("{\"multipleOf\": 0}", "#: multipleOf: expected a number above 0");
    refuse("{\"type\": \"integer\", \"multipleOf\": 99991, \"minimum\": 0, \"maximum\": 1000000000000}",
           "#: multipleOf: telling apart the remainders of so large a number is not supported; ask for a "
           "divisor "
           "of it, or for fewer digits by minimum and maximum");
    refuse(
        "{\"type\": \"array\", \"items\": {\"type\": \"string\"}, \"uniqueItems\": true}",
        "#: uniqueItems is supported for items of an enum, of const alternatives, of bounded integers or of "
        "booleans, without prefixItems; give such items, or leave it out and check the answer");
    refuse(
        "{\"properties\": {\"a\": {\"type\": \"array\", \"items\": {\"type\": \"integer\", \"minimum\": 1, "
        "\"maximum\": 13}, \"uniqueItems\": true}}}",
        "#/properties/a: uniqueItems: 13 different items are too many to remember which are there already "
        "(4096 "
        "sets of them can be told apart, and at most 64 items); ask for fewer by maxItems, or leave it out "
        "and "
        "check the answer");
    refuse(
        "{\"type\": \"array\", \"items\": {\"type\": \"boolean\"}, \"uniqueItems\": true, \"minItems\": 3}",
        "#: minItems is 3, but there are only 2 different items");
    refuse("{\"type\": \"array\", \"uniqueItems\": 1}", "#: uniqueItems: expected true or false");
    refuse("{\"type\": \"string\", \"not\": {\"pattern\": \"a\"}}",
           "#: not: pattern inside it can't be turned into what may be written; say what is allowed instead "
           "(type, "
           "enum, bounds, anyOf)");
    refuse(
        "{\"not\": {\"enum\": [[1]]}}",
        "#: not: enum inside it can't be turned into what may be written; say what is allowed instead (type, "
        "enum, bounds, anyOf)");
    refuse(
        "{\"items\": {\"if\": {\"format\": \"date\"}, \"then\": {\"minLength\": 1}}}",
        "#/items: if: that format does not hold can't be turned into what may be written; write the cases as "
        "anyOf");
    refuse("{\"oneOf\": [{\"type\": \"string\"}, {\"pattern\": \"a\"}]}",
           "#/oneOf/0: alternative 1 may hold as well, and that pattern does not hold can't be written; use "
           "anyOf "
           "if both may hold, or tell them apart by a const property");
    refuse("{\"propertyNames\": {\"anyOf\": [{\"maxLength\": 1}, {\"minLength\": 4}]}, \"type\": \"object\"}",
           "#: propertyNames: anyOf is not supported in it; use pattern, lengths or enum");
    refuse(
        "{\"propertyNames\": {\"pattern\": \"a\"}, \"required\": [\"b\"]}",
        "#: propertyNames has to allow the required name b; beside a pattern name it in properties instead");
    refuse("{\"allOf\": [null]}", "#: a schema is an object, true or false");
    refuse("{\"type\": \"string\", \"not\": {\"minLength\": 0}}", "#: nothing can satisfy the schema");
}

/* Every number with up to four digits: what is written is exactly what a division says. */
static void test_multiples_are_complete(void **state)
{
    static const unsigned divisors[] = {1, 3, 8, 12, 25, 70, 125, 999};
    struct grammar_vocabulary *v = checker_vocabulary();

    for (size_t i = 0; i < sizeof(divisors) / sizeof(divisors[0]); i++) {
        char schema[80];
        struct grammar *g = NULL;
        struct matcher *m = NULL;

        snprintf(schema, sizeof(schema), "{\"type\": \"integer\", \"multipleOf\": %u, \"minimum\": 17}",
                 divisors[i]);
        for (unsigned n = 0; n < 10000; n += n < 300 ? 1 : 37) {
            char text[16];
            bool ok = true;

            assert_int_equal(compile(schema, &g, NULL), 0);
            assert_int_equal(matcher_new(g, v, 0, &m), 0);
            snprintf(text, sizeof(text), "%u", n);
            for (const char *c = text; *c && ok; c++)
                ok = matcher_accept(m, (uint8_t)*c) == 0;
            ok = ok && matcher_may_end(m);
            matcher_free(m);
            if (ok != (n % divisors[i] == 0 && n >= 17))
                fail_msg("%u of %u", n, divisors[i]);
        }
    }
    grammar_vocabulary_free(v);
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
        cmocka_unit_test(test_conditions_that_are_refused),
        cmocka_unit_test(test_multiples_are_complete),
        cmocka_unit_test(test_what_nothing_satisfies_is_refused),
        cmocka_unit_test(test_circles_are_refused),
        cmocka_unit_test(test_references_that_multiply_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
