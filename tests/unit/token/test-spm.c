/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SentencePiece's BPE on small vocabularies, and against a plain quadratic implementation on random texts.
 */
#include <errno.h>
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
#include "tests/model-writer/random_blocks.h"
#include "vocabularies.h"

#define U "\xE2\x96\x81"

/* 0-8 fixed, then what each test adds, and no byte tokens: what is unknown becomes token 0. */
static const struct test_token small[] = {
    {"<unk>", TOKEN_UNKNOWN, 0}, {"<s>", TOKEN_CONTROL, 0}, {"</s>", TOKEN_CONTROL, 0}, {U, 0, -9}, {"a", 0, -9},
    {"b", 0, -9}, {"c", 0, -9}, {"ab", 0, -2}, {"bc", 0, -1}, {"abc", 0, -5}, {U "a", 0, -3}, {"aa", 0, -4},
    {"<", 0, -9}, {"s", 0, -9}, {">", 0, -9}, {"<s", 0, -1}, {"\xC3\xA9", 0, -9},
};

#define N_SMALL (sizeof(small) / sizeof(*small))

static struct tokenizer *small_tokenizer(void)
{
    return vocabulary_tokenizer(vocabulary_writer("llama", small, N_SMALL));
}

static void merges_by_score_then_from_the_left(void **state)
{
    struct tokenizer *t = small_tokenizer();

    /* "bc" scores higher than "ab", and a lone "a" then joins the space. */
    expect_ids(t, "abc", 0, IDS(10, 8));
    expect_ids(t, "babc", 0, IDS(3, 5, 9));
    /* Equal scores: the left pair of "aaa" first. The space takes none, as its pair scores higher. */
    expect_ids(t, "baaa", 0, IDS(3, 5, 11, 4));
    expect_ids(t, "", 0, IDS(-1));
    expect_ids(t, " ", 0, IDS(3, 3));
    tokenizer_free(t);
}

static void a_token_over_a_word_border_is_found(void **state)
{
    struct test_token tokens[N_SMALL + 1];
    struct tokenizer *t;

    memcpy(tokens, small, sizeof(small));
    tokens[N_SMALL] = (struct test_token){"a" U, 0, -0.5f};
    t = vocabulary_tokenizer(vocabulary_writer("llama", tokens, N_SMALL + 1));
    expect_ids(t, "ba b", 0, IDS(3, 5, (int32_t)N_SMALL, 5));
    tokenizer_free(t);
    t = small_tokenizer();
    expect_ids(t, "ba b", 0, IDS(3, 5, 4, 3, 5));
    tokenizer_free(t);
}

static void what_has_no_token_is_unknown_once_a_character(void **state)
{
    struct tokenizer *t = small_tokenizer();

    expect_ids(t, "a\xE2\x82\xAC", 0, IDS(10, 0));
    expect_ids(t, "bz\xC3\xA9", 0, IDS(3, 5, 0, 16));
    tokenizer_free(t);
}

static void the_space_in_front_can_be_switched_off(void **state)
{
    struct model_writer *w = vocabulary_writer("llama", small, N_SMALL);
    struct tokenizer *t;

    model_writer_bool(w, "tokenizer.ggml.add_space_prefix", false);
    t = vocabulary_tokenizer(w);
    expect_ids(t, "abc", 0, IDS(9));
    expect_ids(t, " abc", 0, IDS(10, 8));
    tokenizer_free(t);
}

static void control_tokens_come_only_when_asked_for(void **state)
{
    struct tokenizer *t = small_tokenizer();

    /* "<s" is a token, and merging it with ">" would spell "<s>". */
    expect_ids(t, "<s>", 0, IDS(3, 15, 14));
    expect_ids(t, "<s>", TOKENIZE_BOS_EOS, IDS(1, 3, 15, 14));
    expect_ids(t, "<s>", TOKENIZE_SPECIAL, IDS(1));
    /* Behind a control token a text begins again. */
    expect_ids(t, "a<s>a</s>", TOKENIZE_SPECIAL | TOKENIZE_BOS_EOS, IDS(1, 10, 1, 10, 2));
    expect_ids(t, "<unk>a", TOKENIZE_SPECIAL, IDS(0, 10));
    expect_ids(t, "", TOKENIZE_BOS_EOS, IDS(1));
    tokenizer_free(t);
}

static void expect_shielded(const struct tokenizer *t, const char *text, const char *expected, const int32_t *ids)
{
    char *shielded = NULL;
    size_t n = 0;
    int r = tokenizer_shield(t, text, strlen(text), &shielded, &n);

    assert_int_equal(r, strcmp(text, expected) != 0);
    if (r == 1) {
        assert_string_equal(shielded, expected);
        assert_int_equal(n, strlen(expected));
    }
    expect_ids(t, shielded ? shielded : text, TOKENIZE_SPECIAL | TOKENIZE_SHIELDED, ids);
    free(shielded);
}

#define MARK "\xEF\xB7\x90"

static void shielded_texts_spell_no_control_tokens(void **state)
{
    struct tokenizer *t = small_tokenizer();

    /* As plain text has them. */
    expect_shielded(t, "<s>", "<" MARK "s>", IDS(3, 15, 14));
    expect_shielded(t, "abc", "abc", IDS(10, 8));
    expect_shielded(t, "a<s>a</s>", "a<" MARK "s>a<" MARK "/s>", IDS(10, 15, 14, 4, 12, 0, 13, 14));
    /* Nobody can bring marks of their own. */
    expect_shielded(t, "<" MARK "s>", "<\xEF\xBF\xBDs>", IDS(3, 12, 0, 13, 14));
    /* Around it the service's own control tokens stay what they are. */
    expect_ids(t, "<s><" MARK "s></s>", TOKENIZE_SPECIAL | TOKENIZE_SHIELDED, IDS(1, 3, 15, 14, 2));
    tokenizer_free(t);
}

static void metadata_say_what_surrounds_a_text(void **state)
{
    struct model_writer *w = vocabulary_writer("llama", small, N_SMALL);
    struct tokenizer *t;

    model_writer_bool(w, "tokenizer.ggml.add_bos_token", false);
    model_writer_bool(w, "tokenizer.ggml.add_eos_token", true);
    model_writer_u32(w, "tokenizer.ggml.eos_token_id", 2);
    t = vocabulary_tokenizer(w);
    expect_ids(t, "a", TOKENIZE_BOS_EOS, IDS(10, 2));
    expect_ids(t, "a", 0, IDS(10));
    assert_false(tokenizer_adds_bos(t));
    assert_int_equal(tokenizer_bos(t), 1);
    assert_int_equal(tokenizer_eos(t), 2);
    assert_true(tokenizer_is_end(t, 2));
    assert_false(tokenizer_is_end(t, 1));
    assert_false(tokenizer_is_end(t, -1));
    assert_false(tokenizer_is_end(t, 1000000));
    tokenizer_free(t);
}

static void added_tokens_are_found_in_any_text(void **state)
{
    struct test_token tokens[N_SMALL + 3];
    struct tokenizer *t;

    memcpy(tokens, small, sizeof(small));
    tokens[N_SMALL] = (struct test_token){"ca", TOKEN_USER_DEFINED, 0};
    tokens[N_SMALL + 1] = (struct test_token){"cab", TOKEN_USER_DEFINED, 0};
    tokens[N_SMALL + 2] = (struct test_token){"<ctl>", TOKEN_CONTROL, 0};
    t = vocabulary_tokenizer(vocabulary_writer("llama", tokens, N_SMALL + 3));
    expect_ids(t, "bcab", 0, IDS(3, 5, (int32_t)N_SMALL + 1));
    /* Behind it the text begins again, with a space of its own. */
    expect_ids(t, "bcaab", 0, IDS(3, 5, (int32_t)N_SMALL, 3, 7));
    expect_ids(t, "cabca", 0, IDS((int32_t)N_SMALL + 1, (int32_t)N_SMALL));
    expect_ids(t, "cab<ctl>", TOKENIZE_SPECIAL, IDS((int32_t)N_SMALL + 1, (int32_t)N_SMALL + 2));
    assert_true(tokenizer_is_control(t, (int32_t)N_SMALL + 2));
    assert_false(tokenizer_is_control(t, (int32_t)N_SMALL));
    tokenizer_free(t);
}

static void phi_3_eats_the_space_behind_control_tokens(void **state)
{
    struct test_token tokens[N_SMALL + 1];
    struct model_writer *w;
    struct tokenizer *t;

    memcpy(tokens, small, sizeof(small));
    tokens[N_SMALL] = (struct test_token){"<|user|>", TOKEN_CONTROL, 0};
    w = vocabulary_writer("llama", tokens, N_SMALL + 1);
    model_writer_string(w, "general.name", "My Phi-3 mini");
    t = vocabulary_tokenizer(w);
    expect_ids(t, "<|user|> \n\ta", TOKENIZE_SPECIAL, IDS((int32_t)N_SMALL, 10));
    expect_ids(t, "<s> a", TOKENIZE_SPECIAL, IDS(1, 3, 10));
    tokenizer_free(t);
    t = vocabulary_tokenizer(vocabulary_writer("llama", tokens, N_SMALL + 1));
    expect_ids(t, "<|user|> a", TOKENIZE_SPECIAL, IDS((int32_t)N_SMALL, 3, 10));
    tokenizer_free(t);
}

static void pieces_are_the_text_again(void **state)
{
    struct tokenizer *t = small_tokenizer();
    const char *piece, *text;
    size_t n;

    assert_int_equal(tokenizer_n_vocab(t), N_SMALL);
    assert_string_equal(tokenizer_kind(t), "llama");
    assert_int_equal(tokenizer_piece(t, 10, false, &piece), 2);
    assert_memory_equal(piece, " a", 2);
    text = tokenizer_token_text(t, 10, &n);
    assert_int_equal(n, 4);
    assert_memory_equal(text, U "a", 4);
    assert_int_equal(tokenizer_piece(t, 1, false, &piece), 0);
    assert_int_equal(tokenizer_piece(t, 1, true, &piece), 3);
    assert_memory_equal(piece, "<s>", 3);
    assert_int_equal(tokenizer_piece(t, -1, true, &piece), 0);
    assert_int_equal(tokenizer_piece(t, N_SMALL, true, &piece), 0);
    assert_null(tokenizer_token_text(t, INT32_MIN, &n));
    assert_int_equal(n, 0);
    assert_int_equal(tokenizer_find(t, "<s>", 3), 1);
    assert_int_equal(tokenizer_find(t, "<s>", 2), 15);
    assert_int_equal(tokenizer_find(t, "none", 4), -1);
    assert_int_equal(tokenizer_find(t, "", 0), -1);
    tokenizer_free(t);
}

static struct tokenizer *writer_tokenizer(void)
{
    struct model_writer *w = model_writer_new();

    model_writer_vocabulary(w, "llama", 512);
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

        assert_false(tokenizer_is_control(t, ids[i]));
        /* The space in front is the tokenizer's own. */
        if (i == 0 && *piece == ' ') {
            piece++;
            n_piece--;
        }
        assert_true(n_piece <= n_text - at);
        assert_memory_equal(piece, text + at, n_piece);
        at += n_piece;
    }
    assert_int_equal(at, n_text);
    free(ids);
}

static void any_bytes_survive(void **state)
{
    static const char *const scraps[] = {"<|im_start|>", "<s>", "the ", "\xC3", "\xE2\x82", "\xF0\x9F\x98\x80", "  ", "cat"};
    struct tokenizer *t = writer_tokenizer();
    uint64_t random = 3;

    for (int round = 0; round < 2000; round++) {
        char text[64];
        size_t n = 0;

        while (n < sizeof(text) - 16) {
            uint64_t bits = random_next(&random);

            if (bits & 1) {
                text[n++] = (char)(bits >> 8);
            } else {
                const char *scrap = scraps[bits >> 8 & 7];

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
    size_t n = 2 * WORD_BYTES_MAX + 7;
    char *text = malloc(n);

    assert_non_null(text);
    for (size_t i = 0; i < n; i++)
        text[i] = "theing"[i % 6];
    check_round_trip(t, text, n);
    memset(text, ' ', n);
    check_round_trip(t, text, n);
    free(text);
    tokenizer_free(t);
}

static void too_long_texts_are_refused(void **state)
{
    struct tokenizer *t = writer_tokenizer();
    int32_t *ids = NULL;
    size_t n;

    /* The length is looked at before the text. */
    assert_int_equal(tokenizer_encode(t, "", TOKENIZE_BYTES_MAX + 1, 0, &ids, &n), -E2BIG);
    assert_null(ids);
    tokenizer_free(t);
}

/* The definition, step by step: merge the neighbours whose union scores highest, until there are none. */
struct naive {
    char parts[64][64];
    size_t n;
};

static void append(char *to, size_t size, const char *more)
{
    size_t n = strlen(to), n_more = strlen(more);

    assert_true(n + n_more < size);
    memmove(to + n, more, n_more + 1);
}

static float score_of(const struct tokenizer *t, const struct test_token *tokens, const char *a, const char *b, bool *ret)
{
    char text[160];
    int32_t id;

    snprintf(text, sizeof(text), "%s%s", a, b);
    id = tokenizer_find(t, text, strlen(text));
    *ret = id >= 0 && !tokenizer_is_control(t, id);
    return *ret ? tokens[id].score : 0;
}

static void naive_merge(struct naive *w, const struct tokenizer *t, const struct test_token *tokens)
{
    for (;;) {
        size_t best = SIZE_MAX;
        float best_score = 0;

        for (size_t i = 0; i + 1 < w->n; i++) {
            bool is_token;
            float score = score_of(t, tokens, w->parts[i], w->parts[i + 1], &is_token);

            if (is_token && (best == SIZE_MAX || score > best_score)) {
                best = i;
                best_score = score;
            }
        }
        if (best == SIZE_MAX)
            return;
        append(w->parts[best], sizeof(w->parts[best]), w->parts[best + 1]);
        memmove(w->parts[best + 1], w->parts[best + 2], (w->n - best - 2) * sizeof(w->parts[0]));
        w->n--;
    }
}

/* Random vocabularies of strings over three letters and the space, random texts of up to 40 characters. */
static void agrees_with_the_definition(void **state)
{
    uint64_t random = 11;

    for (int round = 0; round < 60; round++) {
        struct test_token tokens[64] = {{"<unk>", TOKEN_UNKNOWN, 0}, {"<s>", TOKEN_CONTROL, 0}, {"</s>", TOKEN_CONTROL, 0},
                                        {U, 0, -99}, {"a", 0, -99}, {"b", 0, -99}, {"c", 0, -99}};
        char texts[64][32];
        struct tokenizer *t;
        size_t n = 7;

        while (n < 40) {
            size_t length = 2 + random_next(&random) % 4;

            texts[n][0] = 0;
            for (size_t i = 0; i < length; i++) {
                uint64_t pick = random_next(&random) % 7;

                /* In half of the rounds no token reaches over the beginning of a word. */
                bool space = pick == 6 && (i == 0 || round % 2);

                append(texts[n], sizeof(texts[n]), space ? U : tokens[4 + pick % 3].text);
            }
            /* Few different scores, so that ties are common. */
            tokens[n] = (struct test_token){texts[n], 0, -(float)(random_next(&random) % 5)};
            n++;
        }
        t = vocabulary_tokenizer(vocabulary_writer("llama", tokens, n));
        for (int k = 0; k < 20; k++) {
            struct naive word = {.n = 1, .parts = {U}};
            char text[64] = "";
            int32_t expected[64];
            size_t length = 1 + random_next(&random) % 40;

            for (size_t i = 0; i < length; i++) {
                uint64_t pick = random_next(&random) % 4;

                append(text, sizeof(text), pick == 3 ? " " : tokens[4 + pick].text);
                append(word.parts[word.n++], sizeof(word.parts[0]), pick == 3 ? U : tokens[4 + pick].text);
            }
            naive_merge(&word, t, tokens);
            for (size_t i = 0; i < word.n; i++)
                expected[i] = tokenizer_find(t, word.parts[i], strlen(word.parts[i]));
            expected[word.n] = -1;
            expect_ids(t, text, 0, expected);
        }
        tokenizer_free(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_by_score_then_from_the_left),
        cmocka_unit_test(a_token_over_a_word_border_is_found),
        cmocka_unit_test(what_has_no_token_is_unknown_once_a_character),
        cmocka_unit_test(the_space_in_front_can_be_switched_off),
        cmocka_unit_test(control_tokens_come_only_when_asked_for),
        cmocka_unit_test(shielded_texts_spell_no_control_tokens),
        cmocka_unit_test(metadata_say_what_surrounds_a_text),
        cmocka_unit_test(added_tokens_are_found_in_any_text),
        cmocka_unit_test(phi_3_eats_the_space_behind_control_tokens),
        cmocka_unit_test(pieces_are_the_text_again),
        cmocka_unit_test(any_bytes_survive),
        cmocka_unit_test(a_long_word_is_cut_but_kept),
        cmocka_unit_test(too_long_texts_are_refused),
        cmocka_unit_test(agrees_with_the_definition),
    };

    return cmocka_run_group_tests_name("token/spm", tests, NULL, NULL);
}
