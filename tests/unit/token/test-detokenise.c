/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Streaming: whatever the tokens, each piece of text is whole UTF-8, and together they are the whole text.
 */
#include "engine/token/detokenise.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/utf8.h"
#include "engine/token/tokenizer.h"
#include "engine/token/vocabulary.h"
#include "tests/model-writer/random_blocks.h"
#include "vocabularies.h"

#define U "\xE2\x96\x81"
#define REPLACEMENT "\xEF\xBF\xBD"

/* <0xXX> is token 3 + XX. */
#define BYTE(byte) (3 + (byte))
#define TOKEN_A (3 + 256)
#define TOKEN_SPACE_A (TOKEN_A + 1)

static struct tokenizer *make(void)
{
    struct test_token tokens[3 + 256 + 2] = {{"<unk>", TOKEN_UNKNOWN, 0}, {"<s>", TOKEN_CONTROL, 0}, {"</s>", TOKEN_CONTROL, 0}};
    char texts[256][8];
    struct tokenizer *t;

    for (int byte = 0; byte < 256; byte++) {
        snprintf(texts[byte], sizeof(texts[byte]), "<0x%02X>", (unsigned)byte);
        tokens[BYTE(byte)] = (struct test_token){texts[byte], TOKEN_BYTE, 0};
    }
    tokens[TOKEN_A] = (struct test_token){"a", 0, 0};
    tokens[TOKEN_SPACE_A] = (struct test_token){U "a", 0, 0};
    t = vocabulary_tokenizer(vocabulary_writer("llama", tokens, 3 + 256 + 2));
    return t;
}

static void expect_push(struct detokenizer *d, int32_t id, const char *expected)
{
    const char *text;
    size_t n;

    assert_int_equal(detokenizer_push(d, id, &text, &n), 0);
    assert_int_equal(n, strlen(expected));
    assert_memory_equal(text, expected, n);
}

static void expect_flush(struct detokenizer *d, const char *expected)
{
    const char *text;
    size_t n;

    assert_int_equal(detokenizer_flush(d, &text, &n), 0);
    assert_int_equal(n, strlen(expected));
    assert_memory_equal(text, expected, n);
}

static void a_character_waits_until_it_is_whole(void **state)
{
    struct tokenizer *t = make();
    struct detokenizer d;

    detokenizer_init(&d, t, 0);
    expect_push(&d, TOKEN_A, "a");
    expect_push(&d, BYTE(0xF0), "");
    expect_push(&d, BYTE(0x9F), "");
    expect_push(&d, BYTE(0x98), "");
    expect_push(&d, BYTE(0x80), "\xF0\x9F\x98\x80");
    expect_push(&d, TOKEN_SPACE_A, " a");
    expect_flush(&d, "");
    expect_flush(&d, "");
    detokenizer_done(&d);
    tokenizer_free(t);
}

static void what_never_becomes_whole_is_replaced(void **state)
{
    struct tokenizer *t = make();
    struct detokenizer d;

    detokenizer_init(&d, t, 0);
    expect_push(&d, BYTE(0x80), REPLACEMENT);
    expect_push(&d, BYTE(0xE2), "");
    expect_push(&d, BYTE(0x82), "");
    /* One mark for each byte that turned out to be none of a character, then what comes behind. */
    expect_push(&d, TOKEN_A, REPLACEMENT REPLACEMENT "a");
    expect_push(&d, BYTE(0xE2), "");
    expect_push(&d, BYTE(0xE2), REPLACEMENT);
    expect_push(&d, BYTE(0x82), "");
    /* At the end one for all that is left of a character. */
    expect_flush(&d, REPLACEMENT);
    expect_flush(&d, "");
    detokenizer_done(&d);
    tokenizer_free(t);
}

static void control_tokens_show_only_when_asked_for(void **state)
{
    struct tokenizer *t = make();
    struct detokenizer d;

    detokenizer_init(&d, t, 0);
    expect_push(&d, 1, "");
    expect_push(&d, BYTE(0xC3), "");
    expect_push(&d, 1, "");
    expect_push(&d, BYTE(0xA9), "\xC3\xA9");
    expect_push(&d, -5, "");
    detokenizer_done(&d);
    detokenizer_init(&d, t, DETOKENIZE_SPECIAL);
    expect_push(&d, 1, "<s>");
    expect_push(&d, 0, "<unk>");
    detokenizer_done(&d);
    tokenizer_free(t);
}

static void the_first_space_is_stripped_only_when_asked_for(void **state)
{
    struct tokenizer *t = make();
    struct detokenizer d;

    detokenizer_init(&d, t, DETOKENIZE_STRIP_SPACE);
    expect_push(&d, 1, "");
    expect_push(&d, TOKEN_SPACE_A, "a");
    expect_push(&d, TOKEN_SPACE_A, " a");
    detokenizer_done(&d);
    detokenizer_init(&d, t, DETOKENIZE_STRIP_SPACE);
    expect_push(&d, TOKEN_A, "a");
    expect_push(&d, TOKEN_SPACE_A, " a");
    detokenizer_done(&d);
    detokenizer_init(&d, t, 0);
    expect_push(&d, TOKEN_SPACE_A, " a");
    detokenizer_done(&d);
    tokenizer_free(t);
}

static void random_bytes_always_give_utf_8(void **state)
{
    struct tokenizer *t = make();
    struct detokenizer d;
    uint64_t random = 5;
    const char *text;
    size_t n, n_all = 0;

    detokenizer_init(&d, t, DETOKENIZE_SPECIAL);
    for (int i = 0; i < 100000; i++) {
        static const uint8_t starts[] = {0xC3, 0xE2, 0xF0, 0x80, 0xBF, 0x9F};
        uint64_t bits = random_next(&random);

        assert_int_equal(detokenizer_push(&d, bits & 1 ? BYTE(starts[bits % 6]) : BYTE((int)(bits >> 8 & 0xFF)), &text, &n), 0);
        assert_true(utf8_is_valid(text, n, NULL));
        n_all += n;
    }
    assert_int_equal(detokenizer_flush(&d, &text, &n), 0);
    assert_true(utf8_is_valid(text, n, NULL));
    assert_true(n_all > 100000);
    detokenizer_done(&d);
    tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_character_waits_until_it_is_whole),
        cmocka_unit_test(what_never_becomes_whole_is_replaced),
        cmocka_unit_test(control_tokens_show_only_when_asked_for),
        cmocka_unit_test(the_first_space_is_stripped_only_when_asked_for),
        cmocka_unit_test(random_bytes_always_give_utf_8),
    };

    return cmocka_run_group_tests_name("token/detokenise", tests, NULL, NULL);
}
