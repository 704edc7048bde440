/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "daemon/internal.h"

static void expect(enum request_kind kind, const char *given, const char *defaults, uint32_t max_tokens,
                   uint64_t output_tokens, const char *result)
{
    _cleanup_json_ json_object *parameters = json_tokener_parse(given);
    _cleanup_json_ json_object *object = defaults ? json_tokener_parse(defaults) : NULL;
    const struct policy_model rules = {.defaults = object, .max_tokens = max_tokens};
    const struct policy_quota quota = {.output_tokens = output_tokens};
    struct fault fault;
    char *text = NULL;
    uint64_t output;
    size_t n;

    assert_non_null(parameters);
    assert_int_equal(request_parameters(kind, parameters, &rules, &quota, &text, &n, &output, &fault), 0);
    assert_string_equal(text, result);
    assert_int_equal(n, strlen(result));
    free(text);
}

static void keeps_what_is_the_daemons_business(void **state)
{
    expect(REQUEST_COMPLETE,
           "{\"model\": \"m\", \"prompt\": \"p\", \"app\": \"a\", \"priority\": 1, \"deadline_ms\": 2, \"seed\": null}",
           NULL, POLICY_AUTO, POLICY_UNLIMITED, "{\"prompt\":\"p\"}");
}

static void lays_defaults_under_the_parameters(void **state)
{
    static const char defaults[] = "{\"temperature\": 0.5, \"top_k\": 3, \"system\": \"be kind\"}";

    expect(REQUEST_COMPLETE, "{\"prompt\": \"p\", \"top_k\": 9}", defaults, POLICY_AUTO, POLICY_UNLIMITED,
           "{\"prompt\":\"p\",\"top_k\":9,\"temperature\":0.5}");
    expect(REQUEST_CHAT, "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}", "{\"system\": \"be kind\"}",
           POLICY_AUTO, POLICY_UNLIMITED,
           "{\"messages\":[{\"role\":\"system\",\"content\":\"be kind\"},{\"role\":\"user\",\"content\":\"x\"}]}");
    expect(REQUEST_CHAT, "{\"messages\": [{\"role\": \"system\", \"content\": \"mine\"}]}", "{\"system\": \"be kind\"}",
           POLICY_AUTO, POLICY_UNLIMITED, "{\"messages\":[{\"role\":\"system\",\"content\":\"mine\"}]}");
    expect(REQUEST_TOKENIZE, "{\"text\": \"x\"}", defaults, 5, 5, "{\"text\":\"x\"}");
}

static void keeps_output_under_both_limits(void **state)
{
    expect(REQUEST_COMPLETE, "{\"prompt\": \"p\"}", NULL, 100, POLICY_UNLIMITED, "{\"prompt\":\"p\",\"max_tokens\":100}");
    expect(REQUEST_COMPLETE, "{\"max_tokens\": 200}", NULL, 100, 150, "{\"max_tokens\":100}");
    expect(REQUEST_COMPLETE, "{\"max_tokens\": 200}", NULL, 100, 50, "{\"max_tokens\":50}");
    expect(REQUEST_COMPLETE, "{\"max_tokens\": 20}", NULL, 100, 50, "{\"max_tokens\":20}");
    expect(REQUEST_COMPLETE, "{}", "{\"max_tokens\": 70}", 100, 50, "{\"max_tokens\":50}");
    expect(REQUEST_COMPLETE, "{}", NULL, POLICY_AUTO, POLICY_UNLIMITED, "{}");
}

static void leaves_the_callers_object_alone(void **state)
{
    _cleanup_json_ json_object *parameters = json_tokener_parse("{\"messages\": [{\"role\": \"user\"}], \"max_tokens\": 9}");
    _cleanup_json_ json_object *defaults = json_tokener_parse("{\"system\": \"s\", \"top_k\": 1}");
    const struct policy_model rules = {.defaults = defaults, .max_tokens = 3};
    const struct policy_quota quota = {.output_tokens = 5};
    struct fault fault;
    char *text = NULL;
    uint64_t output;
    size_t n;

    assert_int_equal(request_parameters(REQUEST_CHAT, parameters, &rules, &quota, &text, &n, &output, &fault), 0);
    assert_string_equal(json_text(parameters), "{\"messages\":[{\"role\":\"user\"}],\"max_tokens\":9}");
    assert_string_equal(json_text(defaults), "{\"system\":\"s\",\"top_k\":1}");
    free(text);
}

static void takes_listed_adapters_only(void **state)
{
    _cleanup_json_ json_object *known = json_tokener_parse("{\"adapter\": \"legal\"}");
    _cleanup_json_ json_object *other = json_tokener_parse("{\"adapter\": \"/etc/passwd\"}");
    struct policy_pair adapters[] = {{.name = (char *)(uintptr_t)"legal", .value = (char *)(uintptr_t)"/a"}};
    const struct policy_model rules = {.adapters = adapters, .n_adapters = 1, .max_tokens = POLICY_AUTO};
    const struct policy_quota quota = {.output_tokens = POLICY_UNLIMITED};
    struct fault fault;
    char *text = NULL;
    uint64_t output;
    size_t n;

    assert_int_equal(request_parameters(REQUEST_CHAT, known, &rules, &quota, &text, &n, &output, &fault), 0);
    free(text);
    assert_int_equal(request_parameters(REQUEST_CHAT, other, &rules, &quota, &text, &n, &output, &fault), REQUEST_REFUSED);
    assert_int_equal(fault.kind, FAULT_INVALID_PARAMETER);
    assert_string_equal(fault.subject, "adapter");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_what_is_the_daemons_business),
        cmocka_unit_test(lays_defaults_under_the_parameters),
        cmocka_unit_test(keeps_output_under_both_limits),
        cmocka_unit_test(leaves_the_callers_object_alone),
        cmocka_unit_test(takes_listed_adapters_only),
    };

    return cmocka_run_group_tests_name("request-parameters", tests, NULL, NULL);
}
