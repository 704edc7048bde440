/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Answers as models write them, cut in two at every place and into single bytes: the parts are always the
 * same.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
/* cmocka.h wants those before it */
#include <cmocka.h>

#include "engine/reply/reply.h"

struct sample {
    enum reply_form form;
    unsigned flags;
    const char *answer;
    const char *text, *reasoning, *calls; /* calls: name(arguments) one after the other */
};

#define TOOLS REPLY_HAS_TOOLS

static const struct sample samples[] = {
    {REPLY_PLAIN, 0, "Hello <tool_call>{\"name\": \"f\"}</tool_call>",
     "Hello <tool_call>{\"name\": \"f\"}</tool_call>", "", ""},
    {REPLY_PLAIN, REPLY_THINKS, "<think>\nLet me see.\n\nTwo.\n</think>\n\nIt is 2.", "It is 2.",
     "Let me see.\n\nTwo.\n", ""},
    {REPLY_PLAIN, REPLY_THINKS, "\n<think></think>x", "x", "", ""},
    {REPLY_PLAIN, REPLY_THINKS, "No thoughts, <think>", "No thoughts, <think>", "", ""},
    {REPLY_PLAIN, REPLY_THINKS, "<thin", "<thin", "", ""},
    {REPLY_PLAIN, REPLY_THINKS, "<think>cut off </thi", "", "cut off </thi", ""},
    {REPLY_PLAIN, REPLY_THINKS | REPLY_IN_THOUGHT, "First this.\n</think>\n\nThen \xE2\x82\xAC.",
     "Then \xE2\x82\xAC.", "First this.\n", ""},
    {REPLY_PLAIN, REPLY_THINKS | REPLY_IN_THOUGHT, "</think>\n\n", "", "", ""},

    {REPLY_HERMES, TOOLS, "The sum is 4.\n", "The sum is 4.\n", "", ""},
    {REPLY_HERMES, TOOLS,
     "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>", "", "",
     "get_weather({\"city\":\"Paris\"})"},
    {REPLY_HERMES, TOOLS,
     "I'll look.\n\n<tool_call>\n{\"name\": \"a\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": "
     "\"b\", \"arguments\": "
     "{\"x\": [1, \"</tool\"]}}\n</tool_call>\n",
     "I'll look.", "", "a({})b({\"x\":[1,\"</tool\"]})"},
    {REPLY_HERMES, TOOLS, "<tool_call>not JSON</tool_call> and <tool",
     "<tool_call>not JSON</tool_call> and <tool", "", ""},
    {REPLY_HERMES, TOOLS, "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}", "", "",
     "f({\"a\": 1})"},
    {REPLY_HERMES, TOOLS, "<tool_call>{\"name\": \"f\", \"arg", "<tool_call>{\"name\": \"f\", \"arg", "", ""},
    {REPLY_HERMES, TOOLS | REPLY_THINKS,
     "<think>\nI need <tool_call> here.\n</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"n\": "
     "1}}\n</tool_call>",
     "", "I need <tool_call> here.\n", "f({\"n\":1})"},
    {REPLY_HERMES, 0, "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>",
     "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>", "", ""},

    {REPLY_LLAMA, TOOLS, "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Oslo\"}}", "", "",
     "get_weather({\"city\":\"Oslo\"})"},
    {REPLY_LLAMA, TOOLS,
     "\n {\"name\": \"a\", \"parameters\": {}}; {\"name\": \"b\", \"parameters\": {\"s\": \"}\\\"{\"}}", "",
     "", "a({})b({\"s\":\"}\\\"{\"})"},
    {REPLY_LLAMA, TOOLS, "{\"city\": \"Oslo\"}", "{\"city\": \"Oslo\"}", "", ""},
    {REPLY_LLAMA, TOOLS, "{\"name\": \"a\", \"parameters\": {}} is a call",
     "{\"name\": \"a\", \"parameters\": {}} is a call", "", ""},
    {REPLY_LLAMA, TOOLS, "<|python_tag|>{\"name\": \"f\", \"parameters\": {\"q\": null}}", "", "",
     "f({\"q\":null})"},
    {REPLY_LLAMA, TOOLS, "<|python_tag|>print(1 + 1)\n", "", "", "python({\"code\":\"print(1 + 1)\\n\"})"},
    {REPLY_LLAMA, TOOLS, "Plain text with { braces }.", "Plain text with { braces }.", "", ""},
    {REPLY_LLAMA, TOOLS, "  ", "  ", "", ""},

    {REPLY_MISTRAL, TOOLS,
     "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"g\", \"arguments\": {}}]", "",
     "", "f({\"a\":1})g({})"},
    {REPLY_MISTRAL, TOOLS, "[TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS]g[CALL_ID]x[ARGS]{}", "", "",
     "f({\"a\": 1})g({})"},
    {REPLY_MISTRAL, TOOLS, "Sure.[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {}}]", "Sure.", "", "f({})"},
    {REPLY_MISTRAL, TOOLS, "[TOOL_CALLS]nothing", "[TOOL_CALLS]nothing", "", ""},
    {REPLY_MISTRAL, TOOLS, "Brackets [TOOL_CALL] are text", "Brackets [TOOL_CALL] are text", "", ""},

    {REPLY_HARMONY, 0,
     "<|channel|>analysis<|message|>Simple sum.<|end|><|start|>assistant<|channel|>final<|message|>2 + 2 = "
     "4<|return|>",
     "2 + 2 = 4", "Simple sum.", ""},
    {REPLY_HARMONY, TOOLS,
     "<|channel|>analysis<|message|>Need the weather.<|end|><|start|>assistant<|channel|>commentary "
     "to=functions.get_weather "
     "<|constrain|>json<|message|>{\"city\": \"Rome\"}<|call|>",
     "", "Need the weather.", "get_weather({\"city\": \"Rome\"})"},
    {REPLY_HARMONY, TOOLS, " to=functions.f<|channel|>commentary json<|message|>{}", "", "", "f({})"},
    {REPLY_HARMONY, TOOLS,
     "<|channel|>commentary<|message|>I'll do two "
     "things.<|end|><|start|>assistant<|channel|>final<|message|>Done",
     "I'll do two "
     "things.Done",
     "", ""},
    {REPLY_HARMONY, 0, "<|channel|>final<|message|>a < b <| c", "a < b <| c", "", ""},
    {REPLY_HARMONY, 0, "Just text", "Just text", "", ""},
    {REPLY_HARMONY, 0, "<|channel|>analysis<|message|>cut", "", "cut", ""},
    {REPLY_HARMONY, 0, "<|channel|>anal", "", "", ""},
};

struct parts {
    char text[1024], reasoning[1024], calls[1024];
};

static void collect(struct parts *p, const struct reply_part *part)
{
    assert_true(strlen(p->text) + part->n_text < sizeof(p->text));
    strncat(p->text, part->n_text ? part->text : "", part->n_text);
    strncat(p->reasoning, part->n_reasoning ? part->reasoning : "", part->n_reasoning);
    for (size_t i = 0; part->calls && i < json_object_array_length(part->calls); i++) {
        json_object *call = json_object_array_get_idx(part->calls, i);
        json_object *id = NULL, *name = NULL, *arguments = NULL;

        assert_true(json_object_object_get_ex(call, "id", &id) &&
                    json_object_object_get_ex(call, "name", &name) &&
                    json_object_object_get_ex(call, "arguments", &arguments));
        assert_int_equal(strlen(json_object_get_string(id)), 9);
        strcat(p->calls, json_object_get_string(name));
        strcat(p->calls, "(");
        strcat(p->calls, json_object_get_string(arguments));
        strcat(p->calls, ")");
    }
}

static void push(struct reply *r, const char *text, size_t n, bool end, struct parts *p)
{
    struct reply_part part;

    assert_int_equal(reply_push(r, text, n, end, &part), 0);
    collect(p, &part);
}

/* Pieces of @size bytes after a first one of @first. */
static void check(const struct sample *s, size_t first, size_t size)
{
    size_t n = strlen(s->answer), at = first;
    struct parts p = {.text = ""};
    struct reply *r = NULL;

    assert_int_equal(reply_new(s->form, s->flags, 7, &r), 0);
    push(r, s->answer, first, false, &p);
    for (; at < n; at += size)
        push(r, s->answer + at, size < n - at ? size : n - at, false, &p);
    push(r, "", 0, true, &p);
    if (strcmp(p.text, s->text) != 0 || strcmp(p.reasoning, s->reasoning) != 0 ||
        strcmp(p.calls, s->calls) != 0)
        fail_msg("\"%s\" cut at %zu into %zu: text \"%s\" reasoning \"%s\" calls \"%s\"", s->answer, first,
                 size, p.text, p.reasoning, p.calls);
    reply_free(r);
}

static void test_parts_do_not_depend_on_pieces(void **state)
{
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        for (size_t first = 0; first <= strlen(samples[i].answer); first++)
            check(&samples[i], first, 4096);
        for (size_t size = 1; size < 8; size++)
            check(&samples[i], 0, size);
    }
}

/* Text goes on to the reader as soon as it can't become a marker. */
static void test_text_is_not_held_up(void **state)
{
    struct reply_part part;
    struct reply *r = NULL;

    assert_int_equal(reply_new(REPLY_HERMES, TOOLS, 1, &r), 0);
    assert_int_equal(reply_push(r, "Hello", 5, false, &part), 0);
    assert_int_equal(part.n_text, 5);
    assert_int_equal(reply_push(r, " world <to", 10, false, &part), 0);
    assert_int_equal(part.n_text, 6);
    assert_memory_equal(part.text, " world", 6);
    assert_int_equal(reply_push(r, "y", 1, false, &part), 0);
    assert_int_equal(part.n_text, 5);
    assert_memory_equal(part.text, " <toy", 5);
    reply_free(r);
}

static void test_ids_differ(void **state)
{
    static const char calls[] =
        "<tool_call>{\"name\": \"a\"}</tool_call><tool_call>{\"name\": \"a\"}</tool_call>";
    struct reply_part part;
    struct reply *r = NULL;
    json_object *first, *second;

    assert_int_equal(reply_new(REPLY_HERMES, TOOLS, 1, &r), 0);
    assert_int_equal(reply_push(r, calls, strlen(calls), true, &part), 0);
    assert_int_equal(reply_n_calls(r), 2);
    first = json_object_object_get(json_object_array_get_idx(part.calls, 0), "id");
    second = json_object_object_get(json_object_array_get_idx(part.calls, 1), "id");
    assert_string_not_equal(json_object_get_string(first), json_object_get_string(second));
    reply_free(r);
}

static void test_forms_are_known_by_their_templates(void **state)
{
    static const struct {
        const char *template;
        enum reply_form form;
        bool thinks;
    } cases[] = {
        {"{% for m in messages %}{{ m.content }}{% endfor %}", REPLY_PLAIN, false},
        {"{% if tools %}<tool_call>{% endif %}", REPLY_HERMES, false},
        {"{% if tools %}<tool_call>{% endif %}{{ content.split('</think>')[-1] }}", REPLY_HERMES, true},
        {"{% if tools is not none %}{\"name\": function name, \"parameters\": x}{% endif %}<|python_tag|>",
         REPLY_LLAMA, false},
        {"{% if tools %}[TOOL_CALLS]{% endif %}", REPLY_MISTRAL, false},
        {"<|start|>{{ role }}<|channel|>final<|message|>", REPLY_HARMONY, false},
        {"{{ '<think>' }}", REPLY_PLAIN, true},
    };
    bool thinks;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(reply_form_of(cases[i].template, strlen(cases[i].template), &thinks), cases[i].form);
        assert_int_equal(thinks, cases[i].thinks);
    }
}

static void test_control_tokens_that_matter(void **state)
{
    struct reply *r = NULL;

    assert_int_equal(reply_new(REPLY_HARMONY, 0, 1, &r), 0);
    assert_true(reply_is_marker(r, "<|channel|>", 11));
    assert_false(reply_is_marker(r, "<|other|>", 9));
    assert_true(reply_goes_on(r, "<|end|>", 7));
    assert_false(reply_goes_on(r, "<|call|>", 8));
    reply_free(r);
    assert_int_equal(reply_new(REPLY_LLAMA, TOOLS | REPLY_THINKS, 1, &r), 0);
    assert_true(reply_is_marker(r, "<|python_tag|>", 14));
    assert_true(reply_is_marker(r, "<think>", 7));
    assert_false(reply_goes_on(r, "<|end|>", 7));
    reply_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_do_not_depend_on_pieces),
        cmocka_unit_test(test_text_is_not_held_up),
        cmocka_unit_test(test_ids_differ),
        cmocka_unit_test(test_forms_are_known_by_their_templates),
        cmocka_unit_test(test_control_tokens_that_matter),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
