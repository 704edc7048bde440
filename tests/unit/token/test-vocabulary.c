/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Vocabularies that are not what they should be: refused with the place and the reason, or put up with as documented.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fault.h"
#include "engine/token/limits.h"
#include "engine/token/tokenizer.h"
#include "engine/token/vocabulary.h"
#include "vocabularies.h"

static const struct test_token good[] = {
    {"<unk>", TOKEN_UNKNOWN, 0}, {"<s>", TOKEN_CONTROL, 0}, {"</s>", TOKEN_CONTROL, 0}, {"a", 0, -1}, {"<0x0A>", TOKEN_BYTE, 0},
};

static void expect_refused(struct model_writer *w_take, int64_t offset, const char *reason)
{
    struct tokenizer *t = NULL;
    struct fault fault = {0};

    assert_int_equal(vocabulary_tokenizer_try(w_take, &t, &fault), -EINVAL);
    assert_null(t);
    assert_int_equal(fault.kind, FAULT_MODEL_INVALID);
    if (!strstr(fault.reason, reason))
        fail_msg("\"%s\" does not say \"%s\"", fault.reason, reason);
    assert_int_equal(fault.offset, offset);
}

static struct model_writer *bare(const char *kind)
{
    struct model_writer *w = model_writer_new();

    model_writer_string(w, "tokenizer.ggml.model", kind);
    return w;
}

static void a_model_may_have_no_tokenizer(void **state)
{
    struct tokenizer *t = NULL;
    struct fault fault = {0};

    assert_int_equal(vocabulary_tokenizer_try(model_writer_new(), &t, &fault), -ENOENT);
    assert_null(t);
    assert_int_equal(fault.kind, FAULT_NONE);
}

static void unknown_kinds_are_named(void **state)
{
    struct model_writer *w = model_writer_new();
    uint64_t at = model_writer_string(w, "tokenizer.ggml.model", "berg\x1B[2J");

    expect_refused(w, (int64_t)at, "tokenizers of the kind \"berg?[2J\" are not read, only \"llama\", \"gpt2\", "
                                    "\"gemma4\", \"bert\" and \"t5\"");
    w = model_writer_new();
    at = model_writer_u32(w, "tokenizer.ggml.model", 1);
    expect_refused(w, (int64_t)at, "key tokenizer.ggml.model is of type u32, string is wanted");
    w = vocabulary_writer("gpt2", good, 4);
    at = model_writer_string(w, "tokenizer.ggml.pre", "gpt-3");
    expect_refused(w, (int64_t)at, "the pre-tokenizer \"gpt-3\" is not known");
}

static void tokens_have_to_be_there(void **state)
{
    struct model_writer *w = bare("llama");
    char *longest = malloc(TOKEN_BYTES_MAX + 2);
    const char *texts[2] = {"a", longest};
    uint64_t at;

    assert_non_null(longest);
    expect_refused(w, FAULT_NO_OFFSET, "the tokenizer has no tokens (tokenizer.ggml.tokens)");
    w = bare("llama");
    at = model_writer_strings(w, "tokenizer.ggml.tokens", NULL, 0);
    expect_refused(w, (int64_t)at, "the tokenizer has 0 tokens, 1 to 2097152 are allowed");
    w = bare("llama");
    at = model_writer_u32(w, "tokenizer.ggml.tokens", 5);
    expect_refused(w, (int64_t)at, "key tokenizer.ggml.tokens is of type u32, an array is wanted");
    memset(longest, 'x', TOKEN_BYTES_MAX + 1);
    longest[TOKEN_BYTES_MAX + 1] = 0;
    w = bare("llama");
    at = model_writer_strings(w, "tokenizer.ggml.tokens", texts, 2);
    expect_refused(w, (int64_t)at + 8 + 1, "token 1 is 4097 bytes long, at most 4096 are read");
    free(longest);
}

static void arrays_have_to_be_as_long_as_the_tokens(void **state)
{
    static const char *const texts[] = {"a", "b", "c"};
    static const int32_t types[] = {1, 1, 1, 1};
    static const float scores[] = {0, 0, NAN, 0};
    struct model_writer *w;
    uint64_t at;

    for (size_t n = 0; n <= 4; n++) {
        if (n == 3)
            continue;
        w = bare("llama");
        model_writer_strings(w, "tokenizer.ggml.tokens", texts, 3);
        at = model_writer_array(w, "tokenizer.ggml.token_type", GGUF_I32, types, n, n * 4);
        expect_refused(w, (int64_t)at, "elements for 3 tokens");
        w = bare("llama");
        model_writer_strings(w, "tokenizer.ggml.tokens", texts, 3);
        at = model_writer_array(w, "tokenizer.ggml.scores", GGUF_F32, scores, n, n * 4);
        expect_refused(w, (int64_t)at, "elements for 3 tokens");
    }
    w = bare("llama");
    model_writer_strings(w, "tokenizer.ggml.tokens", texts, 3);
    expect_refused(w, FAULT_NO_OFFSET, "the tokenizer has no scores (tokenizer.ggml.scores)");
    w = bare("llama");
    model_writer_strings(w, "tokenizer.ggml.tokens", texts, 3);
    at = model_writer_array(w, "tokenizer.ggml.scores", GGUF_F32, scores, 3, 12);
    expect_refused(w, (int64_t)at + 8, "the score of token 2 is no number");
}

static void types_have_to_be_known(void **state)
{
    struct test_token tokens[5];
    struct model_writer *w;
    struct tokenizer *t = NULL;
    struct fault fault = {0};

    memcpy(tokens, good, sizeof(good));
    tokens[3].type = 7;
    w = vocabulary_writer("llama", tokens, 5);
    assert_int_equal(vocabulary_tokenizer_try(w, &t, &fault), -EINVAL);
    assert_string_equal(fault.reason, "token 3 has the unknown type 7");
    tokens[3].type = -1;
    w = vocabulary_writer("llama", tokens, 5);
    assert_int_equal(vocabulary_tokenizer_try(w, &t, &fault), -EINVAL);
    assert_string_equal(fault.reason, "token 3 has the unknown type -1");
}

static void byte_tokens_have_to_be_what_they_claim(void **state)
{
    static const char *const bad[] = {"", "x", "<0x", "<0x0>", "<0xG0>", "<0x0A", "<0x0A>x", "<0X0A>", "\xFF\xFF\xFF\xFF\xFF\xFF"};

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct test_token tokens[5];
        struct tokenizer *t = NULL;
        struct fault fault = {0};

        memcpy(tokens, good, sizeof(good));
        tokens[4].text = bad[i];
        assert_int_equal(vocabulary_tokenizer_try(vocabulary_writer("llama", tokens, 5), &t, &fault), -EINVAL);
        assert_string_equal(fault.reason, "token 4 is of the type for single bytes, but is not spelled like <0x0A>");
        assert_true(fault.offset > 0);
    }
}

static void ids_have_to_be_tokens(void **state)
{
    static const char *const keys[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                                       "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    static const uint32_t bad[] = {5, 1u << 31, UINT32_MAX};

    for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
        struct model_writer *w;
        uint64_t at;

        for (size_t k = 0; k < sizeof(bad) / sizeof(*bad); k++) {
            w = vocabulary_writer("llama", good, 5);
            at = model_writer_u32(w, keys[i], bad[k]);
            expect_refused(w, (int64_t)at, "there are 5 tokens");
        }
        w = vocabulary_writer("llama", good, 5);
        at = model_writer_i32(w, keys[i], -1);
        expect_refused(w, (int64_t)at, "is -1, outside 0 to 4294967295");
    }
}

static void every_byte_needs_some_token(void **state)
{
    static const struct test_token tokens[] = {{"a", 0, 0}};
    struct model_writer *w = vocabulary_writer("llama", tokens, 1);
    struct tokenizer *t;

    /* The format's own id for unknown text is 0; a vocabulary of one token has that. */
    t = vocabulary_tokenizer(w);
    expect_ids(t, "b", 0, IDS(0, 0));
    tokenizer_free(t);
}

static void merges_have_to_be_pairs(void **state)
{
    static const char *const bad[] = {"", " ", "a", "ab", "a ", " a", "ab "};
    struct model_writer *w = vocabulary_writer("gpt2", good, 4);

    expect_refused(w, FAULT_NO_OFFSET, "the tokenizer has no merges (tokenizer.ggml.merges)");
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        const char *const merges[] = {"a a", bad[i]};
        uint64_t at;

        w = vocabulary_writer("gpt2", good, 4);
        at = model_writer_strings(w, "tokenizer.ggml.merges", merges, 2);
        expect_refused(w, (int64_t)at + 8 + 3, "merge 1 is no pair of tokens with a space between");
    }
}

static void of_equal_tokens_the_first_is_found(void **state)
{
    static const struct test_token tokens[] = {{"<unk>", TOKEN_UNKNOWN, 0}, {"<s>", TOKEN_CONTROL, 0}, {"</s>", TOKEN_CONTROL, 0},
                                               {"a", 0, -1}, {"a", 0, -1}, {"", 0, 0}, {"aa", 0, -1}, {"aa", 0, 0}};
    struct tokenizer *t = vocabulary_tokenizer(vocabulary_writer("llama", tokens, 8));
    const char *piece;

    assert_int_equal(tokenizer_find(t, "a", 1), 3);
    assert_int_equal(tokenizer_find(t, "aa", 2), 6);
    expect_ids(t, "aaa", 0, IDS(0, 6, 3));
    assert_int_equal(tokenizer_piece(t, 4, false, &piece), 1);
    assert_int_equal(tokenizer_piece(t, 5, false, &piece), 0);
    tokenizer_free(t);
}

static void files_without_types_are_guessed_at(void **state)
{
    static const char *const texts[] = {"<unk>", "<s>", "</s>", "a", "<0x62>"};
    static const float scores[5] = {0};
    struct model_writer *w = bare("llama");
    struct tokenizer *t;

    model_writer_strings(w, "tokenizer.ggml.tokens", texts, 5);
    model_writer_array(w, "tokenizer.ggml.scores", GGUF_F32, scores, 5, sizeof(scores));
    t = vocabulary_tokenizer(w);
    assert_true(tokenizer_is_control(t, 0));
    assert_true(tokenizer_is_control(t, 1));
    assert_true(tokenizer_is_end(t, 2));
    expect_ids(t, "ab", 0, IDS(0, 3, 4));
    tokenizer_free(t);
}

static void large_vocabularies_are_found_through(void **state)
{
    enum { N = 50000 };
    struct test_token *tokens = calloc(N, sizeof(*tokens));
    char(*texts)[16] = calloc(N, sizeof(*texts));
    struct tokenizer *t;

    assert_true(tokens && texts);
    for (int i = 0; i < N; i++) {
        snprintf(texts[i], sizeof(texts[i]), "%x", i * 2654435761u);
        tokens[i] = (struct test_token){texts[i], 0, 0};
    }
    t = vocabulary_tokenizer(vocabulary_writer("llama", tokens, N));
    for (int i = 0; i < N; i++)
        assert_int_equal(tokenizer_find(t, texts[i], strlen(texts[i])), i);
    assert_int_equal(tokenizer_n_vocab(t), N);
    tokenizer_free(t);
    free(texts);
    free(tokens);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_may_have_no_tokenizer),
        cmocka_unit_test(unknown_kinds_are_named),
        cmocka_unit_test(tokens_have_to_be_there),
        cmocka_unit_test(arrays_have_to_be_as_long_as_the_tokens),
        cmocka_unit_test(types_have_to_be_known),
        cmocka_unit_test(byte_tokens_have_to_be_what_they_claim),
        cmocka_unit_test(ids_have_to_be_tokens),
        cmocka_unit_test(every_byte_needs_some_token),
        cmocka_unit_test(merges_have_to_be_pairs),
        cmocka_unit_test(of_equal_tokens_the_first_is_found),
        cmocka_unit_test(files_without_types_are_guessed_at),
        cmocka_unit_test(large_vocabularies_are_found_through),
    };

    return cmocka_run_group_tests_name("token/vocabulary", tests, NULL, NULL);
}
