/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Byte-level BPE: spelling of bytes, merges, whole words, and splitting into words by the pre-tokenizers.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fault.h"
#include "base/utf8.h"
#include "engine/token/bytes.h"
#include "engine/token/families.h"
#include "engine/token/limits.h"
#include "engine/token/pretokenise.h"
#include "engine/token/tokenizer.h"
#include "engine/token/vocabulary.h"
#include "tests/model-writer/random_blocks.h"
#include "vocabularies.h"

#define G "\xC4\xA0" /* U+0120, the space */

static const struct test_token small[] = {
    {"a", 0, 0},  {"b", 0, 0},   {"c", 0, 0},  {G, 0, 0},     {"ab", 0, 0},
    {"bc", 0, 0}, {"abc", 0, 0}, {G "a", 0, 0}, {"cab", 0, 0}, {"<|end_of_text|>", TOKEN_CONTROL, 0},
};

#define N_SMALL (sizeof(small) / sizeof(*small))

static struct tokenizer *tokenizer_with(const char *pre, const char *const *merges, size_t n)
{
    struct model_writer *w = vocabulary_writer("gpt2", small, N_SMALL);

    model_writer_string(w, "tokenizer.ggml.pre", pre);
    model_writer_strings(w, "tokenizer.ggml.merges", merges, n);
    return vocabulary_tokenizer(w);
}

static void every_byte_has_a_spelling_of_its_own(void **state)
{
    bool seen[0x200] = {0};

    for (unsigned byte = 0; byte < 256; byte++) {
        uint32_t character = byte_to_character((uint8_t)byte);

        assert_true(character < 0x200 && !seen[character]);
        seen[character] = true;
        assert_int_equal(byte_from_character(character), byte);
    }
    assert_int_equal(byte_to_character(' '), 0x120);
    assert_int_equal(byte_to_character('\n'), 0x10A);
    assert_int_equal(byte_to_character('!'), '!');
    assert_int_equal(byte_to_character(0xAD), 0x143);
    assert_int_equal(byte_from_character(0xAD), -1);
    assert_int_equal(byte_from_character(' '), -1);
    assert_int_equal(byte_from_character(0x144), -1);
    assert_int_equal(byte_from_character(0x10FFFF), -1);
}

static void merges_in_the_order_of_the_list(void **state)
{
    static const char *const merges[] = {"b c", "a bc", "a b", G " a"};
    static const char *const other[] = {"a b", "ab c", "c ab"};
    struct tokenizer *t = tokenizer_with("gpt-2", merges, 4);

    expect_ids(t, "abc", 0, IDS(6));
    expect_ids(t, "ab", 0, IDS(4));
    expect_ids(t, "cab abc", 0, IDS(2, 4, 3, 6));
    tokenizer_free(t);
    t = tokenizer_with("gpt-2", other, 3);
    expect_ids(t, "abcabc", 0, IDS(6, 6));
    expect_ids(t, "cab", 0, IDS(8));
    tokenizer_free(t);
}

static void merges_that_name_no_tokens_are_left_out(void **state)
{
    static const char *const merges[] = {"a x", "x y", "c a", "b c", "a b", "b c"};
    struct tokenizer *t = tokenizer_with("gpt-2", merges, 6);

    /* "ca" is no token; "bc" keeps its first place before "ab". */
    expect_ids(t, "ca", 0, IDS(2, 0));
    expect_ids(t, "abc", 0, IDS(0, 5));
    tokenizer_free(t);
}

static void whole_words_need_no_merges_where_the_family_says_so(void **state)
{
    static const char *const merges[] = {"a b"};
    struct tokenizer *t = tokenizer_with("llama-bpe", merges, 1);

    expect_ids(t, "cab", 0, IDS(8));
    expect_ids(t, "cabb", 0, IDS(2, 4, 1));
    tokenizer_free(t);
    t = tokenizer_with("qwen2", merges, 1);
    expect_ids(t, "cab", 0, IDS(2, 4));
    tokenizer_free(t);
}

static void bytes_without_a_token_are_left_out(void **state)
{
    static const char *const merges[] = {"a b"};
    struct tokenizer *t = tokenizer_with("gpt-2", merges, 1);

    expect_ids(t, "azb", 0, IDS(4));
    expect_ids(t, "zzz", 0, IDS(-1));
    tokenizer_free(t);
}

static void roles_and_flags_are_those_of_the_file(void **state)
{
    static const char *const merges[] = {"a b"};
    struct model_writer *w = vocabulary_writer("gpt2", small, N_SMALL);
    struct tokenizer *t;

    model_writer_strings(w, "tokenizer.ggml.merges", merges, 1);
    model_writer_u32(w, "tokenizer.ggml.bos_token_id", 9);
    model_writer_bool(w, "tokenizer.ggml.add_bos_token", true);
    t = vocabulary_tokenizer(w);
    assert_string_equal(tokenizer_kind(t), "gpt2");
    assert_int_equal(tokenizer_bos(t), 9);
    assert_int_equal(tokenizer_eos(t), -1);
    assert_true(tokenizer_is_end(t, 9));
    expect_ids(t, "ab", TOKENIZE_BOS_EOS, IDS(9, 4));
    expect_ids(t, "<|end_of_text|>", TOKENIZE_SPECIAL, IDS(9));
    tokenizer_free(t);
    /* Without an id nothing is put in front, whatever the family usually does. */
    t = tokenizer_with("llama-bpe", merges, 1);
    assert_false(tokenizer_adds_bos(t));
    expect_ids(t, "ab", TOKENIZE_BOS_EOS, IDS(4));
    tokenizer_free(t);
}

static void names_of_control_tokens_outrank_their_types(void **state)
{
    static const struct test_token tokens[] = {{"a", 0, 0}, {"<|im_end|>", TOKEN_USER_DEFINED, 0},
                                               {"<|fim_prefix|>", TOKEN_NORMAL, 0}, {"<tool>", TOKEN_USER_DEFINED, 0}};
    struct model_writer *w = vocabulary_writer("gpt2", tokens, 4);
    struct tokenizer *t;

    model_writer_strings(w, "tokenizer.ggml.merges", NULL, 0);
    t = vocabulary_tokenizer(w);
    assert_true(tokenizer_is_end(t, 1));
    assert_true(tokenizer_is_control(t, 1));
    assert_true(tokenizer_is_control(t, 2));
    assert_false(tokenizer_is_end(t, 2));
    assert_false(tokenizer_is_control(t, 3));
    expect_ids(t, "a<|im_end|>a<tool>", 0, IDS(0, 0, 3));
    expect_ids(t, "a<|im_end|>a<tool>", TOKENIZE_SPECIAL, IDS(0, 1, 0, 3));
    tokenizer_free(t);
}

static struct tokenizer *writer_tokenizer(void)
{
    struct model_writer *w = model_writer_new();

    model_writer_vocabulary(w, "gpt2", 512);
    return vocabulary_tokenizer(w);
}

static void check_round_trip(const struct tokenizer *t, const char *text, size_t n_text)
{
    size_t n, at = 0;
    int32_t *ids;

    assert_int_equal(tokenizer_encode(t, text, n_text, 0, &ids, &n), 0);
    for (size_t i = 0; i < n; i++) {
        const char *piece;
        size_t n_piece = tokenizer_piece(t, ids[i], false, &piece);

        assert_true(n_piece > 0 && n_piece <= n_text - at);
        assert_memory_equal(piece, text + at, n_piece);
        at += n_piece;
    }
    assert_int_equal(at, n_text);
    free(ids);
}

static void any_bytes_survive(void **state)
{
    static const char *const scraps[] = {"<|im_start|>", "I'll", " the cat", "\xC3", "\xE4\xBD\xA0", "\xF0\x9F\x98\x80", " \n", "123"};
    struct tokenizer *t = writer_tokenizer();
    uint64_t random = 3;

    for (int round = 0; round < 2000; round++) {
        char text[64];
        size_t n = 0;

        while (n < sizeof(text) - 16) {
            uint64_t bits = random_next(&random);
            const char *scrap = scraps[bits >> 8 & 7];

            if (bits & 1) {
                text[n++] = (char)(bits >> 16);
            } else {
                memcpy(text + n, scrap, strlen(scrap));
                n += strlen(scrap);
            }
        }
        check_round_trip(t, text, n);
    }
    tokenizer_free(t);
}

static void a_long_word_is_cut_but_kept(void **state)
{
    struct tokenizer *t = writer_tokenizer();
    size_t n = WORD_BYTES_MAX + 7;
    char *text = malloc(n);

    assert_non_null(text);
    for (size_t i = 0; i < n; i++)
        text[i] = "theing"[i % 6];
    check_round_trip(t, text, n);
    memset(text, ' ', n);
    check_round_trip(t, text, n);
    memset(text, 0xFF, n);
    check_round_trip(t, text, n);
    free(text);
    tokenizer_free(t);
}

/* ---- splitting */

struct words {
    char text[512]; /* each word behind a '|' */
};

static int add_word(void *context, const char *word, size_t n_bytes)
{
    struct words *words = context;
    size_t n = strlen(words->text);

    assert_true(n + n_bytes + 2 < sizeof(words->text));
    words->text[n++] = '|';
    memcpy(words->text + n, word, n_bytes);
    words->text[n + n_bytes] = 0;
    return 0;
}

static void expect_words(const char *family, const char *text, const char *expected)
{
    struct pretokenizer p = {0};
    struct words words = {0};

    assert_non_null(family_find(family, strlen(family)));
    assert_int_equal(pretokenizer_init(&p, family_find(family, strlen(family))), 0);
    assert_int_equal(pretokenizer_split(&p, text, strlen(text), add_word, &words), 0);
    if (strcmp(words.text, expected) != 0)
        fail_msg("%s: \"%s\" is not \"%s\"", family, words.text, expected);
    pretokenizer_done(&p);
}

static void families_split_as_their_models_do(void **state)
{
    static const char text[] = "I'LL pay  12345 euros, we'll see!\n\n  ok";

    expect_words("gpt-2", text, "|I|'|LL| pay| | 12345| euros|,| we|'ll| see|!|\n\n | ok");
    expect_words("llama-bpe", text, "|I|'LL| pay| | |123|45| euros|,| we|'ll| see|!\n\n| | ok");
    expect_words("qwen2", text, "|I|'LL| pay| | |1|2|3|4|5| euros|,| we|'ll| see|!\n\n| | ok");
    expect_words("starcoder", text, "|I|'|LL| pay|  |1|2|3|4|5| euros|,| we|'ll| see|!|\n\n | ok");
    expect_words("refact", text, "|I|'|LL| pay|  |1|2|3|4|5| euros|,| we|'ll| see|!|\n\n | ok");
    expect_words("falcon", text, "|I|'|LL| pay| | |123|45| euros|,| we|'|ll| see|!|\n\n | ok");
    expect_words("default", text, "|I|'|LL| pay| | |123|45| euros|,| we|'|ll| see|!|\n\n | ok");
    expect_words("deepseek-coder", text, "|I|'|LL| pay|  |1|2|3|4|5| euros|,| we|'|ll| see|!|\n|\n| | ok");
    expect_words("deepseek-llm", text, "|I|'|LL| pay|  |12345| euros|,| we|'|ll| see|!|\n|\n| | ok");
    expect_words("deepseek-v3", text, "|I|'LL| pay|  |123|45| euros|,| we|'ll| see|!\n\n| | ok");
}

/* Each kind of pattern once; names that share one are in the table only. */
static void newer_families_split_as_theirs_do(void **state)
{
    static const char text[] = "I'LL pay 1234567 (CamelCase) don't/x !?\n\n  ok \xE4\xBD\xA0\xE5\xA5\xBDz";

    expect_words("gpt-4o", text, "|I'LL| pay| |123|456|7| (|Camel|Case|)| don't|/x| !?\n\n| | ok| \xE4\xBD\xA0\xE5\xA5\xBDz");
    expect_words("tekken", text, "|I|'LL| pay| |1|2|3|4|5|6|7| (|Camel|Case|)| don|'t|/x| !?\n\n| | ok| "
                                 "\xE4\xBD\xA0\xE5\xA5\xBDz");
    expect_words("kimi-k2", text, "|I'LL| pay| |123|456|7| (|Camel|Case|)| don't|/x| !?\n\n| | ok| |"
                                  "\xE4\xBD\xA0\xE5\xA5\xBD|z");
    expect_words("tiny_aya", text, "|I'LL| pay| |1|234|567| (|Camel|Case|)| don't|/x| !?\n\n| | ok| "
                                   "\xE4\xBD\xA0\xE5\xA5\xBDz");
    expect_words("afmoe", text, "|I|'LL| pay| |1|234|567| (|CamelCase|)| don|'t|/x| !?\n\n| | ok| |"
                                "\xE4\xBD\xA0\xE5\xA5\xBD|z");
    expect_words("qwen35", "e\xCC\x81t 12", "|e\xCC\x81t| |1|2");
    expect_words("qwen2", "e\xCC\x81t 12", "|e|\xCC\x81t| |1|2");
    expect_words("minicpm5", "1234 5", "|123|4| |5");
    expect_words("laguna", "a\n\n b", "|a|\n\n| b");
    expect_words("bloom", text, "|I'LL| pay| 1234567| (|CamelCase|)| don't/x| !?\n\n | ok| \xE4\xBD\xA0\xE5\xA5\xBDz");
    expect_words("viking", "a 12", "|a| |1|2");
    expect_words("jais-2", "a       b \n c", "|a|    |  | b| \n| c");
    expect_words("bailingmoe", "a's\n\n'D", "|a|'s|\n\n|'D");
    expect_words("seed-coder", "!?\n\na", "|!?|\n\n|a");
    expect_words("exaone-moe", "a b cd 1 e\n\n", "|a b cd| |1| e|\n\n");
    expect_words("chameleon", "<sentinel:12>IMGIMGABZ  a", "|<|sentinel|:|1|2|>|IMGIMGABZ|  |a");
    expect_words("youtu", "\xEA\xB0\x80" "a\xEF\xBC\x81 B", "|\xEA\xB0\x80|a|\xEF\xBC\x81| B");
    expect_words("gemma4", text, "|I'LL pay 1234567 (CamelCase) don't/x !?|\n\n|  ok \xE4\xBD\xA0\xE5\xA5\xBDz");
}

static void numbers_in_threes_are_those_that_end_a_word(void **state)
{
    expect_words("tiny_aya", "1234", "|1|234");
    expect_words("tiny_aya", "123456", "|123|456");
    expect_words("tiny_aya", "12345a", "|123|45|a");
    expect_words("tiny_aya", "12345_", "|123|45|_");
    expect_words("tiny_aya", "a12345.6789", "|a|12|345|.|6|789");
    /* Arabic digits have two bytes each. */
    expect_words("tiny_aya", "\xD9\xA1\xD9\xA2\xD9\xA3\xD9\xA4", "|\xD9\xA1|\xD9\xA2\xD9\xA3\xD9\xA4");
}

static void every_family_is_there_once_and_compiles(void **state)
{
    size_t n = 0;

    for (const struct family *f; (f = family_at(n)); n++) {
        struct pretokenizer p = {0};
        struct words words = {0};

        assert_ptr_equal(family_find(f->name, strlen(f->name)), f);
        assert_int_equal(pretokenizer_init(&p, f), 0);
        assert_int_equal(pretokenizer_split(&p, "a  1\n", 5, add_word, &words), 0);
        pretokenizer_done(&p);
    }
    assert_int_equal(n, 85);
}

/* ---- raw vocabularies */

#define U "\xE2\x96\x81"

static void raw_vocabularies_merge_characters(void **state)
{
    static const struct test_token tokens[] = {
        {"<bos>", TOKEN_CONTROL, 0}, {"a", 0, 0}, {"b", 0, 0}, {U, 0, 0}, {U "a", 0, 0}, {"ab", 0, 0}, {"\n", 0, 0},
        {"\n\n", 0, 0}, {U U, 0, 0}, {"<0xC3>", TOKEN_BYTE, 0}, {"<0xA9>", TOKEN_BYTE, 0}, {"a" U, 0, 0},
    };
    static const char two_spaces[] = U " " U;
    const char *const merges[] = {U " a", "a b", two_spaces, "a " U};
    struct model_writer *w = vocabulary_writer("gemma4", tokens, 12);
    struct tokenizer *t;

    model_writer_strings(w, "tokenizer.ggml.merges", merges, 4);
    model_writer_u32(w, "tokenizer.ggml.bos_token_id", 0);
    model_writer_bool(w, "tokenizer.ggml.add_bos_token", false);
    t = vocabulary_tokenizer(w);
    assert_string_equal(tokenizer_kind(t), "gemma4");
    expect_ids(t, "ab a  b", 0, IDS(5, 4, 8, 2));
    expect_ids(t, "a\n\nb\n", 0, IDS(1, 7, 2, 6));
    expect_ids(t, "\n\n\n", 0, IDS(6, 6, 6));
    /* Bytes of what has no token; bytes without a token are left out. */
    expect_ids(t, "a\xC3\xA9" "b\xC3" "a\xFFz", 0, IDS(1, 9, 10, 2, 9, 1));
    expect_ids(t, "a", TOKENIZE_BOS_EOS, IDS(0, 1));
    check_round_trip(t, "ab  a\n\n\xC3\xA9 a", 11);
    tokenizer_free(t);
}

static void letters_are_those_of_unicode(void **state)
{
    expect_words("gpt-2", "\xD0\x9F\xD1\x80\xD0\xB8 \xE4\xBD\xA0\xE5\xA5\xBD \xC2\xB2",
                 "|\xD0\x9F\xD1\x80\xD0\xB8| \xE4\xBD\xA0\xE5\xA5\xBD| \xC2\xB2");
    expect_words("deepseek-llm", "\xE4\xBD\xA0\xE5\xA5\xBD" "abc", "|\xE4\xBD\xA0\xE5\xA5\xBD|abc");
    expect_words("gpt-2", "a\xC2\xA0\xE3\x80\x80" "b", "|a|\xC2\xA0|\xE3\x80\x80|b");
}

static void what_is_no_utf_8_is_a_word_of_its_own(void **state)
{
    expect_words("gpt-2", "ab\xFF\xFE" "cd\xE2\x82", "|ab|\xFF\xFE|cd|\xE2\x82");
    expect_words("llama-bpe", "\xC3", "|\xC3");
    expect_words("llama-bpe", "", "");
}

static int refuse_second(void *context, const char *word, size_t n_bytes)
{
    int *n = context;

    return ++*n == 2 ? -ECANCELED : 0;
}

static void what_the_caller_returns_ends_the_splitting(void **state)
{
    struct pretokenizer p = {0};
    int n = 0;

    assert_int_equal(pretokenizer_init(&p, family_find("falcon", 6)), 0);
    assert_int_equal(pretokenizer_split(&p, "a b c d", 7, refuse_second, &n), -ECANCELED);
    assert_int_equal(n, 2);
    pretokenizer_done(&p);
    assert_null(family_find("falco", 5));
    assert_null(family_find("", 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_has_a_spelling_of_its_own),
        cmocka_unit_test(merges_in_the_order_of_the_list),
        cmocka_unit_test(merges_that_name_no_tokens_are_left_out),
        cmocka_unit_test(whole_words_need_no_merges_where_the_family_says_so),
        cmocka_unit_test(bytes_without_a_token_are_left_out),
        cmocka_unit_test(roles_and_flags_are_those_of_the_file),
        cmocka_unit_test(names_of_control_tokens_outrank_their_types),
        cmocka_unit_test(any_bytes_survive),
        cmocka_unit_test(a_long_word_is_cut_but_kept),
        cmocka_unit_test(families_split_as_their_models_do),
        cmocka_unit_test(newer_families_split_as_theirs_do),
        cmocka_unit_test(numbers_in_threes_are_those_that_end_a_word),
        cmocka_unit_test(every_family_is_there_once_and_compiles),
        cmocka_unit_test(raw_vocabularies_merge_characters),
        cmocka_unit_test(letters_are_those_of_unicode),
        cmocka_unit_test(what_is_no_utf_8_is_a_word_of_its_own),
        cmocka_unit_test(what_the_caller_returns_ends_the_splitting),
    };

    return cmocka_run_group_tests_name("token/bpe", tests, NULL, NULL);
}
