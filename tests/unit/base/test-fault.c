/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/fault.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"

static void every_kind_survives_the_wire(void **state)
{
    for (enum fault_kind kind = 1; kind < FAULT_KIND_MAX; kind++) {
        _cleanup_json_ json_object *parameters = NULL, *again = NULL;
        struct fault f, g;
        char a[512], b[512];

        fault_set(&f, kind, "subject", "reason %d", 7);
        f.limit = 4;
        f.used = 5;
        f.line = 6;
        f.column = 7;
        f.offset = 8;
        f.retry_after_ms = 9;
        f.request = 10;
        strcpy(f.file, "file");
        assert_int_equal(fault_to_json(&f, &parameters), 0);
        assert_int_equal(fault_from_json(fault_error_name(kind), parameters, &g), 0);
        assert_int_equal(fault_to_json(&g, &again), 0);
        assert_string_equal(json_text(parameters), json_text(again));
        assert_string_equal(fault_describe(&f, a, sizeof(a)), fault_describe(&g, b, sizeof(b)));
    }
}

static void leaves_out_what_is_unknown(void **state)
{
    _cleanup_json_ json_object *parameters = NULL;
    struct fault f;

    fault_set(&f, FAULT_MODEL_UNAVAILABLE, "m", "the worker died");
    assert_int_equal(fault_to_json(&f, &parameters), 0);
    assert_string_equal(json_text(parameters), "{\"model\":\"m\",\"reason\":\"the worker died\"}");
}

static void cuts_long_texts_between_characters(void **state)
{
    char longer[600];
    struct fault f;

    memset(longer, 'a', sizeof(longer));
    longer[sizeof(longer) - 1] = 0;
    memcpy(longer + 446, "\xE2\x82\xAC", 3);
    fault_set(&f, FAULT_CANCELLED, NULL, "%s", longer);
    assert_int_equal(strlen(f.reason), 446);
}

static void refuses_names_that_are_not_its_own(void **state)
{
    struct fault f;

    assert_int_equal(fault_from_json("io.residentd.Nonsense", NULL, &f), -ENOENT);
    assert_int_equal(fault_from_json("io.residentd.ShuttingDown", NULL, &f), 0);
    assert_int_equal(f.retry_after_ms, FAULT_NO_RETRY);
    assert_null(fault_error_name(FAULT_NONE));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_survives_the_wire),
        cmocka_unit_test(leaves_out_what_is_unknown),
        cmocka_unit_test(cuts_long_texts_between_characters),
        cmocka_unit_test(refuses_names_that_are_not_its_own),
    };

    return cmocka_run_group_tests_name("base/fault", tests, NULL, NULL);
}
