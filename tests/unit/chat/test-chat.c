/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The template interpreter: limits, errors and the reference renderings. What it makes of templates in
 * general is compared with Jinja2 itself by compare-jinja2.py.
 */
#include "engine/chat/chat.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/json.h"

static const struct tm now = {.tm_year = 125,
                              .tm_mon = 2,
                              .tm_mday = 14,
                              .tm_hour = 15,
                              .tm_min = 9,
                              .tm_sec = 26,
                              .tm_wday = 5,
                              .tm_yday = 72};

static int render(const char *source, const char *variables, const struct chat_limits *limits, char **ret,
                  struct fault *fault)
{
    _cleanup_chat_template_ struct chat_template *t = NULL;
    _cleanup_json_ json_object *object = json_tokener_parse(variables);
    size_t n;
    int r = chat_template_new(source, strlen(source), &t, fault);

    return r < 0 ? r : chat_render(t, object, limits, &now, ret, &n, fault);
}

static void writes_what_the_template_says(void **state)
{
    static const struct {
        const char *source, *variables, *text;
    } cases[] = {
        {"", "{}", ""},
        {"a\n", "{}", "a"},
        {"{% for m in messages %}<{{ m.role }}>{{ m['content'] | trim }}\n{% endfor %}",
         "{\"messages\":[{\"role\":\"user\",\"content\":\" hi "
         "\"},{\"role\":\"assistant\",\"content\":\"yo\"}]}",
         "<user>hi\n<assistant>yo\n"},
        {"  {% if x %}\n  yes\n  {% else %}\n  no\n  {% endif %}\nend", "{\"x\":1}", "  yes\nend"},
        {"{%- set ns = namespace(n=0) -%} {% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor %}{{ "
         "ns.n }}",
         "{}", "6"},
        {"{% macro f(a, b='x') %}[{{ a }}{{ b }}]{% endmacro %}{{ f(1) }}{{ f(2, b=3) }}", "{}", "[1x][23]"},
        {"{{ [1, 'a', none, true, 1.0, {'k': (1,)}] }}", "{}", "[1, 'a', None, True, 1.0, {'k': (1,)}]"},
        {"{{ messages[1:][::-1] | map(attribute='r') | join(',') }}",
         "{\"messages\":[{\"r\":1},{\"r\":2},{\"r\":3}]}", "3,2"},
        {"{{ strftime_now('%d %b %Y') }}", "{}", "14 Mar 2025"},
        {"{{ {'a': '\xC3\xA9<', 'b': [1, 2.5]} | tojson }}", "{}", "{\"a\": \"\xC3\xA9<\", \"b\": [1, 2.5]}"},
        {"{% raw %}{{ x }}{% endraw %}{# gone #}|", "{}", "{{ x }}|"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        _cleanup_free_ char *text = NULL;
        struct fault fault = {0};
        char why[600];

        if (render(cases[i].source, cases[i].variables, NULL, &text, &fault) < 0)
            fail_msg("%s: %s", cases[i].source, fault_describe(&fault, why, sizeof(why)));
        assert_string_equal(text, cases[i].text);
    }
}

static void errors_name_the_line_and_the_cause(void **state)
{
    static const struct {
        const char *source;
        enum fault_kind kind;
        const char *reason;
    } cases[] = {
        {"a\n{% if x %}b", FAULT_MODEL_INVALID, "chat template, line 2: the template ends before 'elif'"},
        {"{% frob %}", FAULT_MODEL_INVALID, "chat template, line 1: unknown tag 'frob'"},
        {"{% include 'x' %}", FAULT_MODEL_INVALID, "chat template, line 1: unknown tag 'include'"},
        {"{{ 'a }}", FAULT_MODEL_INVALID, "chat template, line 1: a string does not end"},
        {"{# a", FAULT_MODEL_INVALID, "chat template, line 1: the comment that begins here does not end"},
        {"{% break %}", FAULT_MODEL_INVALID, "chat template, line 1: break and continue stand in loops only"},
        {"\n\n{{ x.y }}", FAULT_INVALID_PARAMETER, "chat template, line 3: 'x' is undefined"},
        {"{{ raise_exception('no ' ~ 'system') }}", FAULT_INVALID_PARAMETER, "no system"},
        {"{{ 1 | frob }}", FAULT_INVALID_PARAMETER, "chat template, line 1: no filter named 'frob'"},
        {"{{ [].append(1) }}", FAULT_INVALID_PARAMETER, "chat template, line 1: 'append' is undefined"},
        {"{{ 9223372036854775807 + 1 }}", FAULT_INVALID_PARAMETER,
         "chat template, line 1: the result of this computation is out of range"},
        {"{{ 1 // 0 }}", FAULT_INVALID_PARAMETER, "chat template, line 1: division by zero"},
        {"{{ ''.__class__.__mro__ }}", FAULT_INVALID_PARAMETER,
         "chat template, line 1: '__class__' is undefined"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        _cleanup_free_ char *text = NULL;
        struct fault fault = {0};

        assert_int_equal(render(cases[i].source, "{}", NULL, &text, &fault), -EINVAL);
        assert_int_equal(fault.kind, cases[i].kind);
        assert_string_equal(fault.reason, cases[i].reason);
    }
}

static void hostile_templates_meet_limits(void **state)
{
    static const char *const sources[] = {
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(9999) %}{{ 'aaaaaaaaaaaaaaaa' * 64 }}{% endfor %}",
        "{{ 'a' * 9999999999 }}",
        "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ "
        "ns.x }}",
        "{% set ns = namespace(x='') %}{% for i in range(99999) %}{% set ns.x = ns.x ~ 'abcdefgh' %}{% "
        "endfor %}",
    };
    const struct chat_limits limits = {
        .steps_max = 2000000, .memory_max = 16 << 20, .output_max = 1 << 20, .depth_max = 32};

    for (size_t i = 0; i < sizeof(sources) / sizeof(*sources); i++) {
        _cleanup_free_ char *text = NULL;
        struct fault fault = {0};
        int r = render(sources[i], "{}", &limits, &text, &fault);

        if (r != -E2BIG || fault.kind != FAULT_INVALID_PARAMETER)
            fail_msg("%s: %d %s", sources[i], r, fault.reason);
    }
}

static void nesting_is_bounded(void **state)
{
    enum { N = 20000 };
    static const struct {
        const char *begin, *middle, *end;
    } shapes[] = {
        {"(", "1", ")"},   {"[", "", "]"},         {"-", "1", ""},   {"not ", "1", ""},
        {"1 + ", "1", ""}, {"{'a':", "1", "}"},    {"x[", "1", "]"}, {"1 if 1 else ", "1", ""},
        {"f(", "", ")"},   {"", "'a'", " | trim"}, {"", "x", ".y"},
    };

    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
        size_t room = N * (strlen(shapes[i].begin) + strlen(shapes[i].end)) + 64;
        _cleanup_free_ char *source = malloc(room), *text = NULL;
        struct fault fault = {0};
        char *at = source;

        at = stpcpy(at, "{{ ");
        for (size_t k = 0; k < N; k++)
            at = stpcpy(at, shapes[i].begin);
        at = stpcpy(at, shapes[i].middle);
        for (size_t k = 0; k < N; k++)
            at = stpcpy(at, shapes[i].end);
        stpcpy(at, " }}");
        /* Taken or refused, but never a crash. */
        if (render(source, "{}", NULL, &text, &fault) == 0)
            assert_non_null(text);
        else
            assert_true(fault.kind == FAULT_MODEL_INVALID || fault.kind == FAULT_INVALID_PARAMETER);
    }
}

static char *read_file(const char *folder, const char *name, const char *suffix)
{
    _cleanup_free_ char *path = NULL;
    _cleanup_fclose_ FILE *f = NULL;
    char *data = NULL;
    size_t room = 0;

    if (asprintf(&path, "%s/%s%s", folder, name, suffix) < 0)
        return NULL;
    f = fopen(path, "r");
    if (!f)
        return NULL;
    if (getdelim(&data, &room, -1, f) < 0) {
        free(data);
        return NULL;
    }
    return data;
}

static void check_case(const struct chat_template *t, json_object *file, json_object *one, const char *name,
                       size_t i)
{
    json_object *variables = NULL, *expected = NULL, *bos = NULL, *eos = NULL;
    _cleanup_free_ char *text = NULL;
    struct fault fault = {0};
    size_t n;
    int r;

    json_object_object_get_ex(file, "bos_token", &bos);
    json_object_object_get_ex(file, "eos_token", &eos);
    json_object_object_get_ex(one, "expected", &expected);
    assert_int_equal(json_object_deep_copy(one, &variables, NULL), 0);
    json_object_object_del(variables, "expected");
    json_object_object_del(variables, "error");
    json_object_object_add(variables, "bos_token", json_object_get(bos));
    json_object_object_add(variables, "eos_token", json_object_get(eos));
    r = chat_render(t, variables, NULL, &now, &text, &n, &fault);
    json_object_put(variables);
    if (expected ? r < 0 || strcmp(text, json_object_get_string(expected)) != 0 : r == 0)
        fail_msg("%s, case %zu: %s", name, i, r < 0 ? fault.reason : text);
}

static void renders_as_the_reference(void **state)
{
    static const char *const names[] = {
        "chatml",       "deepseek-r1-distill-llama",
        "gemma-2",      "llama-3.1",
        "llama2",       "llama3",
        "mistral-nemo", "mistral-v1",
        "phi-3.5",      "qwen2.5",
        "qwen3",        "zephyr",
    };
    const char *reference = getenv("RESIDENTD_REFERENCE");
    _cleanup_free_ char *folder = NULL;

    if (asprintf(&folder, "%s/chat-templates", reference ? reference : "") < 0 || access(folder, R_OK) < 0)
        skip();
    for (size_t k = 0; k < sizeof(names) / sizeof(*names); k++) {
        _cleanup_free_ char *source = read_file(folder, names[k], ".jinja"),
                            *text = read_file(folder, names[k], ".json");
        _cleanup_chat_template_ struct chat_template *t = NULL;
        _cleanup_json_ json_object *file = NULL;
        json_object *cases;

        assert_non_null(source);
        assert_non_null(text);
        file = json_tokener_parse(text);
        assert_int_equal(chat_template_new(source, strlen(source), &t, NULL), 0);
        assert_true(json_object_object_get_ex(file, "cases", &cases));
        assert_true(json_object_array_length(cases) >= 3);
        for (size_t i = 0; i < json_object_array_length(cases); i++)
            check_case(t, file, json_object_array_get_idx(cases, i), names[k], i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_what_the_template_says), cmocka_unit_test(errors_name_the_line_and_the_cause),
        cmocka_unit_test(hostile_templates_meet_limits), cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(renders_as_the_reference),
    };

    return cmocka_run_group_tests_name("chat", tests, NULL, NULL);
}
