/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Interface texts: what parses, what does not and where, and values against types.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "client/varlink/idl.h"
#include "client/varlink/interfaces.h"

static struct idl *parse(const char *text)
{
    struct idl_mistake mistake = {0};
    struct idl *idl = NULL;
    int r = idl_parse(text, strlen(text), &idl, &mistake);

    if (r < 0)
        fail_msg("%u:%u: expected %s", mistake.line, mistake.column, mistake.expected);
    return idl;
}

static void every_interface_of_ours_parses(void **state)
{
    unsigned n = 0;

    for (const struct interface_text *row = interface_texts; row->name; row++, n++) {
        _cleanup_(idl_freep) struct idl *idl = parse(row->text);

        assert_string_equal(idl_name(idl), row->name);
        assert_int_equal(row->n, strlen(row->text));
        assert_ptr_equal(interface_text_find(row->name), row);
    }
    assert_int_equal(n, 5);
    assert_null(interface_text_find("io.residentd.Nothing"));
}

static void the_fault_table_names_errors_of_the_interfaces(void **state)
{
    _cleanup_(idl_freep) struct idl *ours = parse(interface_text_find("io.residentd")->text);
    _cleanup_(idl_freep) struct idl *service = parse(interface_text_find("org.varlink.service")->text);

    for (enum fault_kind kind = 1; kind < FAULT_KIND_MAX; kind++) {
        const char *name = fault_error_name(kind), *dot = strrchr(name, '.');
        const struct idl_error *error =
            idl_find_error(strncmp(name, "io.", 3) == 0 ? ours : service, dot + 1);
        _cleanup_json_ json_object *parameters = NULL;
        struct fault fault, wrong;

        assert_non_null(error);
        fault_set(&fault, kind, "subject", "%s", "reason");
        assert_int_equal(fault_to_json(&fault, &parameters), 0);
        if (idl_check(error->parameters, parameters, 0, &wrong) < 0)
            fail_msg("%s: %s: %s", name, wrong.subject, wrong.reason);
    }
}

static void methods_have_types_and_flags(void **state)
{
    _cleanup_(idl_freep) struct idl *idl = parse(interface_text_find("io.residentd.Models")->text);
    const struct idl_method *method = idl_find_method(idl, "Load");
    const struct idl_type *type;

    assert_int_equal(idl_n_methods(idl), 9);
    assert_string_equal(idl_method(idl, 0)->name, "Load");
    assert_int_equal(method->more, IDL_MORE_SUPPORTED);
    assert_int_equal(idl_find_method(idl, "Watch")->more, IDL_MORE_REQUIRED);
    assert_int_equal(idl_find_method(idl, "Plan")->more, IDL_MORE_NO);
    assert_null(idl_find_method(idl, "Explode"));
    assert_int_equal(method->in->n_members, 1);
    assert_string_equal(method->in->members[0].name, "model");
    assert_int_equal(method->in->members[0].type->kind, IDL_STRING);
    assert_false(method->in->members[0].type->nullable);

    type = idl_find_method(idl, "Plan")->in->members[3].type; /* vram_bytes: ?[]int */
    assert_true(type->nullable);
    assert_int_equal(type->kind, IDL_ARRAY);
    assert_int_equal(type->target->kind, IDL_INT);
    type = method->out->members[0].type; /* state: ModelState */
    assert_int_equal(type->kind, IDL_NAMED);
    assert_int_equal(type->target->kind, IDL_ENUM);
    assert_int_equal(type->target->n_members, 5);
    assert_ptr_equal(type->target, idl_find_type(idl, "ModelState"));
}

/* A blank line parts a comment from what follows. */
static void a_flag_belongs_to_the_comment_right_above(void **state)
{
    _cleanup_(idl_freep) struct idl *idl =
        parse("interface a.b\n# [Supports 'more' flag]\n\nmethod A() -> ()\n"
              "# [Supports 'more' flag]\n# more words\nmethod B() -> ()\n");

    assert_int_equal(idl_find_method(idl, "A")->more, IDL_MORE_NO);
    assert_int_equal(idl_find_method(idl, "B")->more, IDL_MORE_SUPPORTED);
}

static void what_is_wrong_is_said_with_its_place(void **state)
{
    static const struct {
        const char *text;
        uint32_t line, column;
    } cases[] = {
        {"", 1, 1},
        {"interface", 1, 10},
        {"interface nodots", 1, 11},
        {"interface 1a.b", 1, 11},
        {"interface a.b-", 1, 14},
        {"interface a.b\nmethod a() -> ()", 2, 8},
        {"interface a.b\nmethod A()", 2, 11},
        {"interface a.b\nmethod A() -> (", 2, 16},
        {"interface a.b\nmethod A() -> (x)", 2, 15},
        {"interface a.b\nmethod A(x: ) -> ()", 2, 13},
        {"interface a.b\nmethod A(x: int,) -> ()", 2, 17},
        {"interface a.b\nmethod A(x: int x: int) -> ()", 2, 17},
        {"interface a.b\nmethod A(x: int, x: int) -> ()", 2, 18},
        {"interface a.b\nmethod A(x: ??int) -> ()", 2, 14},
        {"interface a.b\nmethod A(x: integer) -> ()", 2, 13},
        {"interface a.b\nmethod A(x: [int]string) -> ()", 2, 13},
        {"interface a.b\nmethod A(x_: int) -> ()", 2, 11},
        {"interface a.b\ntype T (a, b: int)", 2, 13},
        {"interface a.b\ntype T (a: int, b)", 2, 18},
        {"interface a.b\ntype T ()\nmethod T() -> ()", 3, 8},
        {"interface a.b\nmethod A(x: T) -> ()", 2, 21},
        {"interface a.b\nstruct T ()", 2, 1},
        {"interface a.b\ntype T int", 2, 8},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct idl_mistake mistake = {0};
        struct idl *idl = NULL;

        if (idl_parse(cases[i].text, strlen(cases[i].text), &idl, &mistake) != -EINVAL)
            fail_msg("accepted: %s", cases[i].text);
        if (mistake.line != cases[i].line || mistake.column != cases[i].column)
            fail_msg("%s: said %u:%u (%s)", cases[i].text, mistake.line, mistake.column, mistake.expected);
        assert_non_null(mistake.expected);
        assert_null(idl);
    }
}

static void a_text_cut_at_every_byte_is_refused_or_whole(void **state)
{
    const struct interface_text *row = interface_text_find("io.residentd.Inference");

    for (size_t n = 0; n < row->n; n++) {
        struct idl *idl = NULL;
        int r = idl_parse(row->text, n, &idl, NULL);

        assert_true(r == 0 || r == -EINVAL);
        assert_true((r == 0) == (idl != NULL));
        idl_free(idl);
    }
}

static void types_nest_only_so_deep(void **state)
{
    char text[256] = "interface a.b\ntype T (a: ";
    struct idl *idl = NULL;

    for (unsigned i = 0; i < 15; i++)
        strcat(text, "[]");
    strcat(text, "int)");
    idl_free(parse(text));
    text[strlen(text) - 4] = 0;
    strcat(text, "[]int)");
    assert_int_equal(idl_parse(text, strlen(text), &idl, NULL), -EINVAL);
}

static const char *const check_text = "interface a.b\n"
                                      "type Kind (one, two)\n"
                                      "type Inner (n: int, more: ?Inner)\n"
                                      "method M(b: bool, i: int, f: float, s: string, o: object, k: Kind, a: "
                                      "[]Inner, m: [string]float, x: ?(y: ?int)) -> ()\n";

#define WHOLE "\"b\":true,\"i\":1,\"f\":0.5,\"s\":\"\",\"o\":{\"any\":null},\"k\":\"one\",\"a\":[],\"m\":{}"

static json_object *json(const char *text)
{
    static const struct json_limits limits = {.bytes_max = 65536, .depth_max = 200, .values_max = 10000};
    json_object *value = NULL;

    if (json_parse(text, strlen(text), &limits, &value, NULL, NULL) < 0)
        fail_msg("no JSON: %s", text);
    return value;
}

static void what_has_the_type_passes(void **state)
{
    static const char *const cases[] = {
        "{" WHOLE "}",
        "{" WHOLE ",\"x\":null}",
        "{" WHOLE ",\"x\":{}}",
        "{" WHOLE ",\"x\":{\"y\":-9223372036854775808}}",
        "{\"b\":false,\"i\":9223372036854775807,\"f\":-3,\"s\":\"é\",\"o\":{},\"k\":\"two\",\"a\":[{\"n\":1,"
        "\"more\":{\"n\":2}}],"
        "\"m\":{\"1\":1e3,\"2\":0}}",
    };
    _cleanup_(idl_freep) struct idl *idl = parse(check_text);

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        _cleanup_json_ json_object *value = json(cases[i]);
        struct fault fault = {0};

        if (idl_check(idl_find_method(idl, "M")->in, value, 0, &fault) < 0)
            fail_msg("%s: %s: %s", cases[i], fault.subject, fault.reason);
    }
}

static void what_has_not_is_named(void **state)
{
    static const struct {
        const char *value, *subject;
    } cases[] = {
        {"{}", "b"},
        {"{" WHOLE ",\"modle\":1}", "modle"},
        {"{" WHOLE ",\"modle\":null}", "modle"},
        {"{" WHOLE ",\"x\":{\"z\":1}}", "x.z"},
        {"{" WHOLE ",\"x\":{\"y\":1.0}}", "x.y"},
        {"{" WHOLE ",\"x\":{\"y\":9223372036854775808}}", "x.y"},
        {"{" WHOLE ",\"x\":{\"y\":\"1\"}}", "x.y"},
        {"{" WHOLE ",\"x\":[]}", "x"},
        {"{\"b\":1,\"i\":1,\"f\":0.5,\"s\":\"\",\"o\":{},\"k\":\"one\",\"a\":[],\"m\":{}}", "b"},
        {"{\"b\":true,\"i\":null,\"f\":0.5,\"s\":\"\",\"o\":{},\"k\":\"one\",\"a\":[],\"m\":{}}", "i"},
        {"{\"b\":true,\"i\":true,\"f\":0.5,\"s\":\"\",\"o\":{},\"k\":\"one\",\"a\":[],\"m\":{}}", "i"},
        {"{\"b\":true,\"i\":1,\"f\":\"0.5\",\"s\":\"\",\"o\":{},\"k\":\"one\",\"a\":[],\"m\":{}}", "f"},
        {"{\"b\":true,\"i\":1,\"f\":0.5,\"s\":1,\"o\":{},\"k\":\"one\",\"a\":[],\"m\":{}}", "s"},
        {"{\"b\":true,\"i\":1,\"f\":0.5,\"s\":\"\",\"o\":[],\"k\":\"one\",\"a\":[],\"m\":{}}", "o"},
        {"{\"b\":true,\"i\":1,\"f\":0.5,\"s\":\"\",\"o\":{},\"k\":\"three\",\"a\":[],\"m\":{}}", "k"},
        {"{\"b\":true,\"i\":1,\"f\":0.5,\"s\":\"\",\"o\":{},\"k\":\"one\\u0000\",\"a\":[],\"m\":{}}", "k"},
        {"{\"b\":true,\"i\":1,\"f\":0.5,\"s\":\"\",\"o\":{},\"k\":\"one\",\"a\":{},\"m\":{}}", "a"},
        {"{\"b\":true,\"i\":1,\"f\":0.5,\"s\":\"\",\"o\":{},\"k\":\"one\",\"a\":[{\"n\":1},{\"n\":1,\"more\":"
         "{}}],\"m\":{}}",
         "a[1].more.n"},
        {"{\"b\":true,\"i\":1,\"f\":0.5,\"s\":\"\",\"o\":{},\"k\":\"one\",\"a\":[null],\"m\":{}}", "a[0]"},
        {"{\"b\":true,\"i\":1,\"f\":0.5,\"s\":\"\",\"o\":{},\"k\":\"one\",\"a\":[],\"m\":{\"q\":\"\"}}",
         "m.q"},
        {"{\"b\":true,\"i\":1,\"f\":0.5,\"s\":\"\",\"o\":{},\"k\":\"one\",\"a\":[],\"m\":[]}", "m"},
    };
    _cleanup_(idl_freep) struct idl *idl = parse(check_text);

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        _cleanup_json_ json_object *value = json(cases[i].value);
        struct fault fault = {0};

        if (idl_check(idl_find_method(idl, "M")->in, value, 0, &fault) != -EINVAL)
            fail_msg("accepted: %s", cases[i].value);
        assert_int_equal(fault.kind, FAULT_INVALID_PARAMETER);
        assert_string_equal(fault.subject, cases[i].subject);
        assert_string_not_equal(fault.reason, "");
    }
}

static void nulls_are_dropped_from_structs_only(void **state)
{
    _cleanup_(idl_freep) struct idl *idl = parse(check_text);
    _cleanup_json_ json_object *value = json("{" WHOLE ",\"x\":null}");
    struct fault fault = {0};

    assert_int_equal(idl_check(idl_find_method(idl, "M")->in, value, IDL_DROP_NULLS, &fault), 0);
    assert_string_equal(json_text(value), "{" WHOLE "}");
}

static void replies_may_have_more_than_the_type(void **state)
{
    _cleanup_(idl_freep) struct idl *idl = parse("interface a.b\nerror E (n: int)\n");
    _cleanup_json_ json_object *value = json("{\"n\":1,\"later\":true}");

    assert_int_equal(idl_check(idl_find_error(idl, "E")->parameters, value, 0, NULL), -EINVAL);
    assert_int_equal(idl_check(idl_find_error(idl, "E")->parameters, value, IDL_ALLOW_UNKNOWN, NULL), 0);
    assert_int_equal(idl_check(idl_find_error(idl, "E")->parameters, NULL, 0, NULL), -EINVAL);
}

/* A type that contains itself, fed a value as deep as the reader allows, ends at the check's own limit. */
static void depth_ends_somewhere(void **state)
{
    _cleanup_(idl_freep) struct idl *idl = parse(check_text);
    _cleanup_json_ json_object *value = NULL;
    struct fault fault = {0};
    char text[4096] = "";

    for (unsigned i = 0; i < 100; i++)
        strcat(text, "{\"n\":1,\"more\":");
    strcat(text, "{\"n\":1}");
    for (unsigned i = 0; i < 100; i++)
        strcat(text, "}");
    value = json(text);
    assert_int_equal(idl_check(idl_find_type(idl, "Inner"), value, 0, &fault), -EINVAL);
    assert_true(strlen(fault.subject) < sizeof(fault.subject));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_interface_of_ours_parses),
        cmocka_unit_test(the_fault_table_names_errors_of_the_interfaces),
        cmocka_unit_test(methods_have_types_and_flags),
        cmocka_unit_test(a_flag_belongs_to_the_comment_right_above),
        cmocka_unit_test(what_is_wrong_is_said_with_its_place),
        cmocka_unit_test(a_text_cut_at_every_byte_is_refused_or_whole),
        cmocka_unit_test(types_nest_only_so_deep),
        cmocka_unit_test(what_has_the_type_passes),
        cmocka_unit_test(what_has_not_is_named),
        cmocka_unit_test(nulls_are_dropped_from_structs_only),
        cmocka_unit_test(replies_may_have_more_than_the_type),
        cmocka_unit_test(depth_ends_somewhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
