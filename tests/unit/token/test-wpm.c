/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * WordPiece: BERT's words, its normaliser, and what is unknown.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fault.h"
#include "engine/token/detokenise.h"
#include "engine/token/tokenizer.h"
#include "engine/token/vocabulary.h"
#include "vocabularies.h"

#define U "\xE2\x96\x81"

enum { PAD, UNK, CLS, SEP, HUG, HUGS, G_S, BIG, EXCLAIM, E, CAFE, JAMO_G, JAMO_A, NI, UPPER_E, ING, N_TOKENS };

static const struct test_token small[N_TOKENS] = {
    [PAD] = {"[PAD]", TOKEN_CONTROL, 0}, [UNK] = {"[UNK]", TOKEN_UNKNOWN, 0}, [CLS] = {"[CLS]", TOKEN_CONTROL, 0},
    [SEP] = {"[SEP]", TOKEN_CONTROL, 0}, [HUG] = {U "hug", 0, 0}, [HUGS] = {U "hugs", 0, 0}, [G_S] = {"s", 0, 0},
    [BIG] = {U "big", 0, 0}, [EXCLAIM] = {U "!", 0, 0}, [E] = {U "e", 0, 0}, [CAFE] = {U "cafe", 0, 0},
    [JAMO_G] = {U "\xE1\x84\x80", 0, 0}, [JAMO_A] = {"\xE1\x85\xA1", 0, 0}, [NI] = {U "\xE4\xBD\xA0", 0, 0},
    [UPPER_E] = {U "\xC3\x89", 0, 0}, [ING] = {"ging", 0, 0},
};

static struct model_writer *writer(void)
{
    struct model_writer *w = vocabulary_writer("bert", small, N_TOKENS);

    model_writer_u32(w, "tokenizer.ggml.unknown_token_id", UNK);
    model_writer_u32(w, "tokenizer.ggml.bos_token_id", CLS);
    model_writer_u32(w, "tokenizer.ggml.seperator_token_id", SEP);
    return w;
}

static void the_longest_token_is_taken_from_the_left(void **state)
{
    struct tokenizer *t = vocabulary_tokenizer(writer());

    assert_string_equal(tokenizer_kind(t), "bert");
    expect_ids(t, "hug hugs hugss hugging", 0, IDS(HUG, HUGS, HUGS, G_S, HUG, ING));
    expect_ids(t, "  hug\t\n\xC2\xA0" "big\xE3\x80\x80", 0, IDS(HUG, BIG));
    expect_ids(t, "", 0, IDS(-1));
    tokenizer_free(t);
}

static void a_word_that_does_not_fit_wholly_is_unknown_once(void **state)
{
    struct tokenizer *t = vocabulary_tokenizer(writer());
    char text[128] = "hug";

    expect_ids(t, "hugx hug xhug", 0, IDS(UNK, HUG, UNK));
    expect_ids(t, "s", 0, IDS(UNK));
    memset(text + 3, 's', 97);
    assert_int_equal(strlen(text), 100);
    {
        int32_t *ids;
        size_t n;

        assert_int_equal(tokenizer_encode(t, text, 100, 0, &ids, &n), 0);
        assert_int_equal(n, 97);
        assert_int_equal(ids[0], HUGS);
        free(ids);
    }
    text[100] = 's';
    expect_ids(t, text, 0, IDS(UNK));
    tokenizer_free(t);
}

static void punctuation_and_ideographs_stand_alone(void **state)
{
    struct tokenizer *t = vocabulary_tokenizer(writer());

    expect_ids(t, "hug!big!!", 0, IDS(HUG, EXCLAIM, BIG, EXCLAIM, EXCLAIM));
    expect_ids(t, "hug\xE4\xBD\xA0\xE4\xBD\xA0" "big", 0, IDS(HUG, NI, NI, BIG));
    expect_ids(t, "hug$big \xE2\x80\x9C" "hug", 0, IDS(HUG, UNK, BIG, UNK, HUG));
    tokenizer_free(t);
}

static void the_normaliser_drops_case_accents_and_what_can_not_be_seen(void **state)
{
    struct tokenizer *t = vocabulary_tokenizer(writer());

    expect_ids(t, "HuG CAF\xC3\x89 cafe\xCC\x81 \xC3\xA9", 0, IDS(HUG, CAFE, CAFE, E));
    expect_ids(t, "h\xC2\xADu\xE2\x80\x8Bg\x01 \xEF\xBF\xBDhug\xFF \x7F", 0, IDS(HUG, HUG));
    /* A Hangul syllable is its letters. */
    expect_ids(t, "\xEA\xB0\x80", 0, IDS(JAMO_G, JAMO_A));
    tokenizer_free(t);
}

static void the_metadata_can_switch_the_normaliser_off(void **state)
{
    struct model_writer *w = writer();
    struct tokenizer *t;

    model_writer_bool(w, "tokenizer.ggml.normalizer.lowercase", false);
    t = vocabulary_tokenizer(w);
    expect_ids(t, "hug Hug \xC3\x89 \xEA\xB0\x80", 0, IDS(HUG, UNK, UPPER_E, UNK));
    tokenizer_free(t);
    w = writer();
    model_writer_bool(w, "tokenizer.ggml.normalizer.strip_accents", false);
    t = vocabulary_tokenizer(w);
    expect_ids(t, "HUG \xC3\x89", 0, IDS(HUG, UNK));
    tokenizer_free(t);
}

static void texts_stand_between_cls_and_sep(void **state)
{
    struct model_writer *w = writer();
    struct tokenizer *t;

    model_writer_bool(w, "tokenizer.ggml.add_bos_token", false);
    t = vocabulary_tokenizer(w);
    expect_ids(t, "hug", TOKENIZE_BOS_EOS, IDS(CLS, HUG, SEP));
    expect_ids(t, "hug[SEP]big", TOKENIZE_BOS_EOS | TOKENIZE_SPECIAL, IDS(CLS, HUG, SEP, BIG, SEP));
    /* Plain text can't end it: brackets are words. */
    expect_ids(t, "[SEP]", 0, IDS(UNK, UNK, UNK));
    tokenizer_free(t);
}

static void text_comes_back_in_words(void **state)
{
    struct tokenizer *t = vocabulary_tokenizer(writer());
    static const int32_t ids[] = {CLS, HUG, ING, BIG, EXCLAIM, SEP};
    char all[64] = "";
    struct detokenizer d;

    detokenizer_init(&d, t, DETOKENIZE_STRIP_SPACE);
    for (size_t i = 0; i < 6; i++) {
        const char *part;
        size_t n;

        assert_int_equal(detokenizer_push(&d, ids[i], &part, &n), 0);
        strncat(all, part, n);
    }
    assert_string_equal(all, "hugging big !");
    detokenizer_done(&d);
    tokenizer_free(t);
}

static void there_has_to_be_an_unknown_token(void **state)
{
    struct model_writer *w = vocabulary_writer("bert", small, N_TOKENS);
    struct tokenizer *t = NULL;
    struct fault fault = {0};

    assert_int_equal(vocabulary_tokenizer_try(w, &t, &fault), -EINVAL);
    assert_string_equal(fault.reason, "the tokenizer has no unknown token (tokenizer.ggml.unknown_token_id)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_longest_token_is_taken_from_the_left),
        cmocka_unit_test(a_word_that_does_not_fit_wholly_is_unknown_once),
        cmocka_unit_test(punctuation_and_ideographs_stand_alone),
        cmocka_unit_test(the_normaliser_drops_case_accents_and_what_can_not_be_seen),
        cmocka_unit_test(the_metadata_can_switch_the_normaliser_off),
        cmocka_unit_test(texts_stand_between_cls_and_sep),
        cmocka_unit_test(text_comes_back_in_words),
        cmocka_unit_test(there_has_to_be_an_unknown_token),
    };

    return cmocka_run_group_tests_name("token/wpm", tests, NULL, NULL);
}
