/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Grammars in GBNF: every mask on random ways through them against the slow recogniser, errors with their
 * places, limits.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
/* cmocka.h wants those before it */
#include <cmocka.h>

#include "base/fault.h"
#include "engine/grammar/gbnf.h"
#include "engine/grammar/grammar.h"
#include "tests/unit/grammar/checker.h"

static struct grammar *compile(const char *text)
{
    struct grammar *g = NULL;
    struct fault fault = {0};
    int r = grammar_from_gbnf(text, strlen(text), &g, &fault);

    if (r != 0)
        fail_msg("%s: %s", text, fault.reason);
    return g;
}

static struct matcher *start(const struct grammar_vocabulary *v, const char *text, unsigned flags)
{
    struct matcher *m = NULL;

    assert_int_equal(matcher_new(compile(text), v, flags, &m), 0);
    return m;
}

static bool allows(struct matcher *m, int32_t token)
{
    const uint64_t *mask;
    int32_t only;

    assert_int_equal(matcher_mask(m, &mask, &only), 0);
    return mask[token / 64] >> (token % 64) & 1;
}

static int32_t token_of(const char *text)
{
    const char *piece;

    for (uint32_t i = 0; i < checker_n_tokens(); i++)
        if (checker_piece(NULL, (int32_t)i, &piece) == strlen(text) && memcmp(piece, text, strlen(text)) == 0)
            return (int32_t)i;
    fail_msg("no token \"%s\"", text);
    return -1;
}

/* What is guessed, as text. */
static const char *guess(struct matcher *m, uint32_t n_max, char *buffer)
{
    int32_t tokens[64];
    uint32_t n = matcher_guess(m, tokens, n_max);
    char *at = buffer;

    assert_true(n <= n_max);
    for (uint32_t i = 0; i < n; i++) {
        const char *piece;
        size_t n_piece = checker_piece(NULL, tokens[i], &piece);

        memcpy(at, piece, n_piece);
        at += n_piece;
    }
    *at = 0;
    return buffer;
}

static void accept_text(struct matcher *m, const char *text)
{
    for (; *text; text++)
        assert_int_equal(matcher_accept(m, (uint8_t)*text), 0);
}

static void guesses_where_there_is_no_choice(void **state)
{
    struct grammar_vocabulary *v = checker_vocabulary();
    struct matcher *m = start(v, "root ::= \"{\\\"name\\\": \" (\"yes\" | \"no\") \", \" [a-z] \"end\" \"x\"?", 0);
    char text[512];

    assert_string_equal(guess(m, 64, text), "{\"name\": ");
    assert_int_equal(strlen(guess(m, 1, text)) < 10, 1);
    assert_string_equal(guess(m, 0, text), "");
    accept_text(m, "{\"na");
    assert_string_equal(guess(m, 64, text), "me\": ");
    accept_text(m, "me\": ");
    assert_string_equal(guess(m, 64, text), "");
    accept_text(m, "n");
    assert_string_equal(guess(m, 64, text), "o, ");
    accept_text(m, "o, ");
    assert_string_equal(guess(m, 64, text), "");
    accept_text(m, "q");
    /* Behind that the text may end. */
    assert_string_equal(guess(m, 64, text), "end");
    accept_text(m, "end");
    assert_string_equal(guess(m, 64, text), "");
    matcher_free(m);
    grammar_vocabulary_free(v);
}

/* Tokens are as long as they may be, and what was guessed is allowed, token by token. */
static void guesses_are_allowed(void **state)
{
    struct grammar_vocabulary *v = checker_vocabulary();
    struct matcher *m = start(v, "root ::= (\"the quick brown fox, \"){40} \"and nothing else\"", 0);
    uint32_t n_tokens = 0, n_bytes = 0;

    while (!matcher_is_complete(m)) {
        int32_t tokens[12];
        uint32_t n = matcher_guess(m, tokens, 12);

        assert_true(n > 0);
        for (uint32_t i = 0; i < n; i++) {
            const char *piece;

            assert_true(allows(m, tokens[i]));
            assert_int_equal(matcher_accept(m, tokens[i]), 0);
            n_bytes += (uint32_t)checker_piece(NULL, tokens[i], &piece);
        }
        n_tokens += n;
    }
    assert_int_equal(n_bytes, 40 * 21 + 16);
    assert_true(n_tokens < n_bytes);
    matcher_free(m);
    grammar_vocabulary_free(v);
}

/* ---- masks against the recogniser ---- */

static const char *const grammars[] = {
    "root ::= \"a\"",
    "root ::= \"yes\" | \"no\" | \"maybe\"",
    "root ::= [a-z]+",
    "root ::= [a-z]{3,20}",
    "root ::= [a-zA-Z ]* \".\"",
    "root ::= [^\"\\\\]* \"\\\"\"",
    "root ::= .{2,4}",
    "root ::= [^a-z\\n]+ | \"\\n\"?",
    "root ::= \"(\" root \")\" | \"\"",
    "root ::= a b c\na ::= \"a\"*\nb ::= \"b\"*\nc ::= \"c\"?",
    "root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"ab\"",
    "root ::= item (\",\" root)?\nitem ::= [0-9]+ | \"[\" root? \"]\"",
    "root ::= expr\nexpr ::= term ((\"+\" | \"-\") expr)?\nterm ::= [ab] | \"(\" expr \")\"",
    "root ::= \"x\" | many\nmany ::= \"a\" many many | \"b\"",
    "root ::= one | two\none ::= \"a\" one | \"a\"\ntwo ::= \"a\" two \"b\" | \"\"",
    "root ::= (\"a\"? \"b\"?){3} \"c\"",
    "root ::= (\"ab\" | \"a\" | \"aab\")+ \"zz\"",
    "root ::= [\\u00e0-\\u00ff\\u20ac\\U0001F600]+ \"!\"?",
    "root ::= value\n"
    "value ::= object | array | string | number | \"true\" | \"false\" | \"null\"\n"
    "object ::= \"{\" ws (pair (\",\" ws pair)*)? \"}\"\n"
    "pair ::= string \":\" ws value # a comment\n"
    "array ::= \"[\" ws (value (\",\" ws value)*)? \"]\"\n"
    "string ::= \"\\\"\" ([^\"\\\\\\x00-\\x1F] | \"\\\\\" ([\"\\\\/bfnrt] | \"u\" [0-9a-fA-F]{4}))* "
    "\"\\\"\"\n"
    "number ::= \"-\"? (\"0\" | [1-9] [0-9]{0,15}) (\".\" [0-9]+)?\n"
    "ws ::= (\" \" | \"\\n\" [ \\t]{0,4})?\n",
    "root ::= \"\\\"\" [^\"]{0,18} \"\\\"\" | \"\\\"\" [a-z]{0,30} \"\\\"\"",
    "root ::= any{0,20} \"<\"\nany ::= [^<] | esc esc\nesc ::= \"<\" \"<\" | \">\"",
};

static size_t append(char *to, int32_t token)
{
    const char *piece;
    size_t n = checker_piece(NULL, token, &piece);

    memcpy(to, piece, n);
    return n;
}

/* One token after the other, chosen by chance; before each, the mask against what the recogniser says of
 * every token. */
static void wander(const struct grammar_vocabulary *v, const struct ir *ir, const char *source,
                   uint64_t *seed)
{
    struct matcher *m = start(v, source, 0);
    char text[CHECKER_BYTES_MAX + 64];
    size_t n = 0;

    while (n <= 24) {
        int32_t only, allowed[512], n_allowed = 0, n_text = 0;
        const uint64_t *mask;

        assert_int_equal(matcher_mask(m, &mask, &only), 0);
        for (int32_t token = 0; token < (int32_t)checker_n_tokens(); token++) {
            const char *piece;
            size_t n_piece = checker_piece(NULL, token, &piece);
            bool is_in = mask[token / 64] >> (token % 64) & 1, expected = false;

            if (n_piece > 0 && n + n_piece > CHECKER_BYTES_MAX)
                continue;
            if (n_piece > 0) {
                memcpy(text + n, piece, n_piece);
                expected = checker_ask(ir, text, n + n_piece) != 0;
            } else if (token == CHECKER_END) {
                expected = checker_ask(ir, text, n) & CHECKER_WHOLE;
                assert_int_equal(matcher_may_end(m), expected);
            }
            if (is_in != expected)
                fail_msg("%s: after \"%.*s\" token %d \"%.*s\" is %s", source, (int)n, text, token,
                         (int)n_piece, piece, is_in ? "allowed" : "not allowed");
            n_text += is_in && n_piece > 0;
            if (is_in)
                allowed[n_allowed++] = token;
        }
        /* Bits without a token, behind the vocabulary, are never set; nothing ends dead. */
        for (uint32_t bit = checker_n_tokens(); bit < checker_n_tokens() + 70; bit++)
            assert_false(mask[bit / 64] >> (bit % 64) & 1);
        assert_true(n_allowed > 0);
        assert_int_equal(only, n_allowed == 1 ? allowed[0] : -1);
        assert_int_equal(matcher_is_complete(m), n_text == 0);
        only = allowed[checker_random(seed) % (uint64_t)n_allowed];
        if (only == CHECKER_END)
            break;
        assert_int_equal(matcher_accept(m, only), 0);
        n += append(text + n, only);
    }
    matcher_free(m);
}

static void test_masks_are_what_trying_each_token_gives(void **state)
{
    struct grammar_vocabulary *v = checker_vocabulary();
    uint64_t seed = 1;

    for (size_t i = 0; i < sizeof(grammars) / sizeof(grammars[0]); i++) {
        struct ir ir;

        assert_int_equal(ir_init(&ir, false, NULL), 0);
        gbnf_parse(&ir, grammars[i], strlen(grammars[i]));
        assert_int_equal(ir.error, 0);
        for (int walk = 0; walk < 6; walk++)
            wander(v, &ir, grammars[i], &seed);
        ir_done(&ir);
    }
    grammar_vocabulary_free(v);
}

/* ---- particular tokens ---- */

static void test_control_tokens_are_never_matched_by_text(void **state)
{
    struct grammar_vocabulary *v = checker_vocabulary();
    struct matcher *m = start(v, "root ::= .*", 0);

    assert_false(allows(m, CHECKER_CONTROL));
    assert_true(allows(m, CHECKER_END));
    assert_int_equal(matcher_accept(m, CHECKER_CONTROL), -EINVAL);
    assert_int_equal(matcher_accept(m, CHECKER_END), -EINVAL);
    assert_int_equal(matcher_accept(m, -1), -EINVAL);
    assert_int_equal(matcher_accept(m, (int32_t)checker_n_tokens()), -EINVAL);
    matcher_free(m);
    grammar_vocabulary_free(v);
}

static void test_a_token_may_cross_lexemes(void **state)
{
    struct grammar_vocabulary *v = checker_vocabulary();
    struct matcher *m = start(v, "root ::= \"{\\\"\" name \"\\\": \" [0-9] \"}\"\nname ::= [a-z]{2,8}", 0);

    assert_true(allows(m, token_of("{\"")));
    assert_int_equal(matcher_accept(m, token_of("{\"")), 0);
    assert_int_equal(matcher_accept(m, token_of("name")), 0);
    assert_true(allows(m, token_of("\": ")));
    assert_false(allows(m, token_of("\",")));
    assert_int_equal(matcher_accept(m, token_of("\",")), -EINVAL);
    assert_int_equal(matcher_accept(m, token_of("\": ")), 0);
    assert_int_equal(matcher_accept(m, token_of("1")), 0);
    assert_false(matcher_is_complete(m));
    assert_int_equal(matcher_accept(m, '}'), 0);
    assert_true(matcher_is_complete(m));
    matcher_free(m);
    grammar_vocabulary_free(v);
}

static void test_a_first_space_may_not_count(void **state)
{
    struct grammar_vocabulary *v = checker_vocabulary();
    struct matcher *m = start(v, "root ::= \"the\" \" world\"", MATCHER_STRIP_SPACE);

    assert_true(allows(m, token_of(" the")));
    assert_true(allows(m, token_of("the")));
    assert_true(allows(m, ' '));
    assert_false(allows(m, token_of("  ")));
    assert_false(allows(m, token_of(" world")));
    assert_int_equal(matcher_accept(m, token_of(" the")), 0);
    assert_true(allows(m, token_of(" world")));
    assert_false(allows(m, token_of(" the")));
    assert_int_equal(matcher_accept(m, token_of(" world")), 0);
    assert_true(matcher_is_complete(m));
    matcher_free(m);
    m = start(v, "root ::= \"the\"", 0);
    assert_false(allows(m, token_of(" the")));
    matcher_free(m);
    grammar_vocabulary_free(v);
}

/* ---- depth and memory ---- */

static void test_right_recursion_does_not_pile_up(void **state)
{
    struct grammar_vocabulary *v = checker_vocabulary();
    struct matcher *m = start(v, "root ::= list\nlist ::= \"a\" list | \"b\" list | \"c\"", 0);

    for (int i = 0; i < 200000; i++)
        assert_int_equal(matcher_accept(m, i % 3 ? 'a' : 'b'), 0);
    assert_true(allows(m, 'c'));
    matcher_free(m);
    grammar_vocabulary_free(v);
}

/* Every depth is a configuration of its own: more than the memory for them holds, so that they are forgotten
 * on the way. */
static void test_deep_nesting_goes_on_and_comes_back(void **state)
{
    enum { DEPTH = 120000 };
    struct grammar_vocabulary *v = checker_vocabulary();
    struct matcher *m = start(v, "root ::= \"(\" root \")\" | [a-z]", 0);

    for (int i = 0; i < DEPTH; i++) {
        if (i % 1000 == 0)
            assert_true(allows(m, '('));
        assert_int_equal(matcher_accept(m, '('), 0);
    }
    assert_int_equal(matcher_accept(m, 'x'), 0);
    for (int i = 0; i < DEPTH; i++) {
        if (i % 1000 == 0) {
            assert_true(allows(m, ')'));
            assert_false(allows(m, CHECKER_END));
        }
        assert_int_equal(matcher_accept(m, ')'), 0);
    }
    assert_true(matcher_is_complete(m));
    matcher_free(m);
    grammar_vocabulary_free(v);
}

static void test_ambiguity_ends_in_an_error_or_not_at_all(void **state)
{
    struct grammar_vocabulary *v = checker_vocabulary();
    struct matcher *m = start(v, "root ::= s\ns ::= \"a\" s s s | \"a\" s s | \"a\" s | \"a\"", 0);
    int r = 0;

    for (int i = 0; i < 3000 && r == 0; i++)
        r = matcher_accept(m, 'a');
    assert_true(r == 0 || r == -E2BIG);
    matcher_free(m);
    grammar_vocabulary_free(v);
}

/* ---- errors ---- */

static void refuse(const char *text, const char *message)
{
    struct grammar *g = NULL;
    struct fault fault = {0};

    assert_int_equal(grammar_from_gbnf(text, strlen(text), &g, &fault), -EINVAL);
    assert_int_equal(fault.kind, FAULT_INVALID_PARAMETER);
    assert_string_equal(fault.subject, "grammar");
    assert_string_equal(fault.reason, message);
    assert_null(g);
}

static void test_errors_say_where(void **state)
{
    refuse("", "the rule root is not defined");
    refuse("a ::= \"x\"", "the rule root is not defined");
    refuse("root ::= a", "line 1, column 10: the rule a is not defined");
    refuse("root ::= \"x\nroot2 ::= \"y\"", "line 1, column 12: the line ends inside a text or class");
    refuse("root ::= [a-", "line 1, column 13: the line ends inside a text or class");
    refuse("root ::= [z-a]", "line 1, column 14: the range is upside down");
    refuse("root ::= (\"a\"", "line 1, column 14: expected )");
    refuse("root = \"a\"", "line 1, column 6: expected ::= after the name of a rule");
    refuse("root ::= \"a\"\nroot ::= \"b\"", "line 2, column 1: the rule root is there twice");
    refuse("root ::= \"a\" )",
           "line 1, column 14: expected a text, a class, a rule, a group or the end of the line");
    refuse("root ::= \"\\q\"", "line 1, column 12: no such escape; known are \\n \\r \\t \\xHH \\uHHHH "
                               "\\UHHHHHHHH \\\" \\\\ \\[ \\] "
                               "\\^ \\-");
    refuse("root ::= \"\\ud800\"", "line 1, column 17: that is no character");
    refuse("root ::= \"a\"{3,2}", "line 1, column 18: the repetitions are upside down");
    refuse("root ::= \"a\"{1000000000}", "line 1, column 14: at most 100000 repetitions can be asked for");
    refuse("root ::= (\"abcd\"{60000}){60000}",
           "line 1, column 17: written out, this needs more than 262144 states: ask for fewer repetitions");
}

static void test_left_recursion_is_refused(void **state)
{
    refuse("root ::= a\na ::= a \"x\" | \"y\"",
           "line 2, column 1: the rule a is left-recursive: it calls itself before it reads anything");
    refuse("root ::= \"x\" b\nb ::= \"\" c\nc ::= d* b \"y\" | \"z\"\nd ::= \"d\"",
           "line 2, column 1: the rule b is left-recursive: it calls itself before it reads anything");
    refuse("root ::= root | \"x\"",
           "line 1, column 1: the rule root is left-recursive: it calls itself before it reads anything");
}

static void test_what_matches_nothing_is_refused(void **state)
{
    refuse("root ::= \"a\" root", "no text satisfies the grammar");
    refuse("root ::= []", "no text satisfies the grammar");
    refuse("root ::= \"a\" b\nb ::= \"c\" b | [] \"x\"", "no text satisfies the grammar");
}

/* Alternatives that can't end are no way to go. */
static void test_dead_alternatives_are_left_out(void **state)
{
    struct grammar_vocabulary *v = checker_vocabulary();
    struct matcher *m = start(v, "root ::= \"a\" x | \"b\"\nx ::= \"c\" x", 0);

    assert_false(allows(m, 'a'));
    assert_true(allows(m, 'b'));
    matcher_free(m);
    grammar_vocabulary_free(v);
}

static void test_nesting_is_bounded(void **state)
{
    char text[4096] = "root ::= ";
    size_t n = strlen(text);

    for (int i = 0; i < 129; i++)
        text[n++] = '(';
    refuse(text, "line 1, column 138: too many parentheses inside each other");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guesses_where_there_is_no_choice),
        cmocka_unit_test(guesses_are_allowed),
        cmocka_unit_test(test_masks_are_what_trying_each_token_gives),
        cmocka_unit_test(test_control_tokens_are_never_matched_by_text),
        cmocka_unit_test(test_a_token_may_cross_lexemes),
        cmocka_unit_test(test_a_first_space_may_not_count),
        cmocka_unit_test(test_right_recursion_does_not_pile_up),
        cmocka_unit_test(test_deep_nesting_goes_on_and_comes_back),
        cmocka_unit_test(test_ambiguity_ends_in_an_error_or_not_at_all),
        cmocka_unit_test(test_errors_say_where),
        cmocka_unit_test(test_left_recursion_is_refused),
        cmocka_unit_test(test_what_matches_nothing_is_refused),
        cmocka_unit_test(test_dead_alternatives_are_left_out),
        cmocka_unit_test(test_nesting_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
