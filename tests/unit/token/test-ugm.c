/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unigram vocabularies: the best path against trying all of them, the map of characters, and hostile maps.
 */
#include <errno.h>
#include <float.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fault.h"
#include "engine/token/charsmap.h"
#include "engine/token/limits.h"
#include "engine/token/tokenizer.h"
#include "engine/token/vocabulary.h"
#include "tests/model-writer/random_blocks.h"
#include "vocabularies.h"

#define U "\xE2\x96\x81"

enum { PAD, END, UNK, SPACE, A, B, AB, ABA, SPACE_A, BA, ADDED, C_AB, UNUSED, N_TOKENS };

/* Scores are sums of few powers of two, so that sums are exact and ties are ties. */
static const struct test_token small[N_TOKENS] = {
    [PAD] = {"<pad>", TOKEN_CONTROL, 0}, [END] = {"</s>", TOKEN_CONTROL, 0}, [UNK] = {"<unk>", TOKEN_UNKNOWN, 0},
    [SPACE] = {U, 0, -2}, [A] = {"a", 0, -3}, [B] = {"b", 0, -3.5f}, [AB] = {"ab", 0, -4}, [ABA] = {"aba", 0, -8},
    [SPACE_A] = {U "a", 0, -4.25f}, [BA] = {"ba", 0, -4.5f}, [ADDED] = {"<x>", TOKEN_USER_DEFINED, -90},
    [C_AB] = {"cab", 0, -20}, [UNUSED] = {"bb", TOKEN_UNUSED, -1},
};

static struct model_writer *writer(bool space_prefix, bool merge_spaces)
{
    struct model_writer *w = vocabulary_writer("t5", small, N_TOKENS);

    model_writer_bool(w, "tokenizer.ggml.add_space_prefix", space_prefix);
    model_writer_bool(w, "tokenizer.ggml.remove_extra_whitespaces", merge_spaces);
    return w;
}

static void the_best_sum_of_scores_is_taken(void **state)
{
    struct tokenizer *t = vocabulary_tokenizer(writer(false, false));

    assert_string_equal(tokenizer_kind(t), "t5");
    expect_ids(t, "ab", 0, IDS(AB));
    /* -4 - 3 = -7 beats -8, and ties go to the path that was found first. */
    expect_ids(t, "aba", 0, IDS(AB, A));
    expect_ids(t, "abab", 0, IDS(AB, AB));
    expect_ids(t, "bba", 0, IDS(UNUSED, A));
    expect_ids(t, "ab<x>ab", 0, IDS(AB, ADDED, AB));
    expect_ids(t, "ab", TOKENIZE_BOS_EOS, IDS(AB, END));
    tokenizer_free(t);
}

static void spaces_are_as_the_metadata_say(void **state)
{
    struct tokenizer *t = vocabulary_tokenizer(writer(true, true));

    expect_ids(t, "a  ab ", 0, IDS(SPACE_A, SPACE, AB));
    expect_ids(t, "  ", 0, IDS(-1));
    tokenizer_free(t);
    t = vocabulary_tokenizer(writer(true, false));
    expect_ids(t, "ab  a ", 0, IDS(SPACE, AB, SPACE, SPACE_A, SPACE));
    expect_ids(t, " a", 0, IDS(SPACE, SPACE_A));
    expect_ids(t, " ", 0, IDS(SPACE, SPACE));
    tokenizer_free(t);
    t = vocabulary_tokenizer(writer(false, true));
    expect_ids(t, " ab  a ", 0, IDS(AB, SPACE_A));
    tokenizer_free(t);
    t = vocabulary_tokenizer(writer(false, false));
    expect_ids(t, "ab  a ", 0, IDS(AB, SPACE, SPACE_A, SPACE));
    tokenizer_free(t);
}

static void unknown_characters_in_a_row_are_one_token(void **state)
{
    struct tokenizer *t = vocabulary_tokenizer(writer(false, false));

    expect_ids(t, "xyz\xE4\xBD\xA0" "a\xFF\xFE", 0, IDS(UNK, A, UNK));
    /* "c" alone is unknown, -30 with what follows; "cab" is -20. */
    expect_ids(t, "cab", 0, IDS(C_AB));
    expect_ids(t, "cb", 0, IDS(UNK, B));
    expect_ids(t, "x y", 0, IDS(UNK, SPACE, UNK));
    tokenizer_free(t);
}

/* The best way to write text[at …] by trying all, longest first tokens last, as one that is better replaces. */
static double try_all(const char *text, size_t n)
{
    double best[64];

    assert_true(n < 64);
    best[0] = 0;
    for (size_t end = 1; end <= n; end++) {
        best[end] = -DBL_MAX;
        for (size_t begin = 0; begin < end; begin++) {
            for (size_t id = SPACE; id < N_TOKENS; id++) {
                double score = small[id].type == TOKEN_USER_DEFINED ? 0 : (double)small[id].score;

                if (strlen(small[id].text) == end - begin && memcmp(small[id].text, text + begin, end - begin) == 0 &&
                    best[begin] + score > best[end])
                    best[end] = best[begin] + score;
            }
        }
    }
    return best[n];
}

static void no_other_way_is_better(void **state)
{
    static const char *const scraps[] = {"a", "b", "ab", "ba", " ", "aab"};
    struct tokenizer *t = vocabulary_tokenizer(writer(false, false));
    uint64_t random = 11;

    for (int round = 0; round < 1000; round++) {
        char text[32] = "", normalised[64] = "";
        double sum = 0;
        int32_t *ids;
        size_t n;

        while (strlen(text) < 12) {
            const char *scrap = scraps[random_next(&random) % 6];

            strcat(text, scrap);
            strcat(normalised, *scrap == ' ' ? U : scrap);
        }
        assert_int_equal(tokenizer_encode(t, text, strlen(text), 0, &ids, &n), 0);
        for (size_t i = 0; i < n; i++)
            sum += (double)small[ids[i]].score;
        assert_true(sum == try_all(normalised, strlen(normalised)));
        free(ids);
    }
    tokenizer_free(t);
}

static void long_texts_take_no_more_than_their_words(void **state)
{
    struct tokenizer *t = vocabulary_tokenizer(writer(false, false));
    size_t n_text = (size_t)WORD_BYTES_MAX * 2 + 10, n;
    char *text = malloc(n_text);
    int32_t *ids;

    assert_non_null(text);
    for (size_t i = 0; i < n_text; i++)
        text[i] = "ab"[i % 2];
    assert_int_equal(tokenizer_encode(t, text, n_text, 0, &ids, &n), 0);
    assert_int_equal(n, n_text / 2);
    free(ids);
    memset(text, ' ', n_text);
    assert_int_equal(tokenizer_encode(t, text, n_text, 0, &ids, &n), 0);
    assert_int_equal(n, n_text);
    free(ids);
    free(text);
    tokenizer_free(t);
}

/* ---- the map of characters */

#define BASE(offset) ((uint32_t)(offset) << 10)
#define LEAF (1u << 8)
#define VALUE(place) (0x80000000u | (uint32_t)(place))

/* "A" → "a", "AA" → "b", "\t" → " ", "\x01" → nothing. The unit of label c below a unit at p with base b is p ^ b ^ c. */
static size_t build_map(uint8_t *to)
{
    static const char texts[] = "a\0b\0 \0";
    uint32_t units[512] = {[0] = BASE(256)};
    size_t n = 0;

    units[256 ^ 'A'] = 'A' | LEAF | BASE(128 ^ 'A' ^ 256); /* children of "A" at 128 */
    units[128] = VALUE(0);
    units[128 ^ 'A'] = 'A' | LEAF | BASE(128 ^ 'A' ^ 130);
    units[130] = VALUE(2);
    units[256 ^ '\t'] = '\t' | LEAF | BASE(256 ^ '\t' ^ 140);
    units[140] = VALUE(4);
    units[256 ^ 1] = 1 | LEAF | BASE(256 ^ 1 ^ 141);
    units[141] = VALUE(1);
    to[n++] = (uint8_t)(sizeof(units) & 0xFF);
    to[n++] = (uint8_t)(sizeof(units) >> 8);
    to[n++] = 0;
    to[n++] = 0;
    for (size_t i = 0; i < 512; i++) {
        for (int k = 0; k < 4; k++)
            to[n++] = (uint8_t)(units[i] >> 8 * k);
    }
    memcpy(to + n, texts, sizeof(texts) - 1);
    return n + sizeof(texts) - 1;
}

static struct model_writer *map_writer(const uint8_t *map, size_t n)
{
    struct model_writer *w = writer(false, false);

    model_writer_array(w, "tokenizer.ggml.precompiled_charsmap", GGUF_U8, map, n, n);
    return w;
}

static void characters_are_replaced_by_the_longest_rule(void **state)
{
    uint8_t map[4096];
    struct tokenizer *t = vocabulary_tokenizer(map_writer(map, build_map(map)));

    expect_ids(t, "A", 0, IDS(A));
    expect_ids(t, "AA", 0, IDS(B));
    expect_ids(t, "AAA", 0, IDS(BA));
    expect_ids(t, "a\tA", 0, IDS(A, SPACE_A));
    expect_ids(t, "a\x01" "b", 0, IDS(AB));
    expect_ids(t, "B", 0, IDS(UNK));
    tokenizer_free(t);
}

static void expect_map_refused(const uint8_t *map, size_t n, const char *reason)
{
    struct tokenizer *t = NULL;
    struct fault fault = {0};

    assert_int_equal(vocabulary_tokenizer_try(map_writer(map, n), &t, &fault), -EINVAL);
    if (!strstr(fault.reason, reason))
        fail_msg("\"%s\" does not say \"%s\"", fault.reason, reason);
}

static void maps_have_to_be_whole(void **state)
{
    static const int32_t integers[4] = {0};
    uint8_t map[4096];
    size_t n = build_map(map);
    struct model_writer *w = writer(false, false);
    struct tokenizer *t = NULL;
    struct fault fault = {0};

    expect_map_refused(map, 3, "is no array of 4 to 16777216 bytes");
    expect_map_refused(map, 4, "says that its trie has 2048 bytes, of 0 that there are");
    expect_map_refused(map, 2051, "says that its trie has 2048 bytes, of 2047 that there are");
    expect_map_refused(map, n - 1, "a replacement does not end within 255 bytes");
    map[0] = 1;
    expect_map_refused(map, n, "says that its trie has 2049 bytes");
    memset(map, 'x', sizeof(map));
    memset(map, 0, 4);
    map[4 + 255] = 0;
    tokenizer_free(vocabulary_tokenizer(map_writer(map, 4 + 256)));
    map[4 + 255] = 'x';
    map[4 + 256] = 0;
    expect_map_refused(map, 4 + 257, "a replacement does not end within 255 bytes");
    model_writer_array(w, "tokenizer.ggml.precompiled_charsmap", GGUF_I32, integers, 4, 16);
    assert_int_equal(vocabulary_tokenizer_try(w, &t, &fault), -EINVAL);
}

/* Whatever the units say, matching stays inside (sanitizers look) and gives a text that ends. */
static void units_may_point_anywhere(void **state)
{
    static const char *const texts[] = {"A", "AA\tA", "\x01\x02 abc", "\xFF\xFE\xFD", "ab A\tab"};
    uint64_t random = 21;
    uint8_t map[4096];
    size_t n = build_map(map);

    for (int round = 0; round < 400; round++) {
        uint8_t bad[4096];
        struct tokenizer *t = NULL;
        struct fault fault = {0};

        memcpy(bad, map, n);
        for (int i = 0; i < 40; i++)
            bad[4 + random_next(&random) % 2048] = (uint8_t)random_next(&random);
        /* The units that texts really come by. */
        bad[4 + 4 * (256 ^ 'A') + random_next(&random) % 4] = (uint8_t)random_next(&random);
        bad[4 + random_next(&random) % 4] = (uint8_t)random_next(&random);
        assert_int_equal(vocabulary_tokenizer_try(map_writer(bad, n), &t, &fault), 0);
        for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
            int32_t *ids;
            size_t n_ids;

            assert_int_equal(tokenizer_encode(t, texts[i], strlen(texts[i]), 0, &ids, &n_ids), 0);
            for (size_t k = 0; k < n_ids; k++)
                assert_in_range(ids[k], 0, N_TOKENS - 1);
            free(ids);
        }
        tokenizer_free(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_best_sum_of_scores_is_taken),
        cmocka_unit_test(spaces_are_as_the_metadata_say),
        cmocka_unit_test(unknown_characters_in_a_row_are_one_token),
        cmocka_unit_test(no_other_way_is_better),
        cmocka_unit_test(long_texts_take_no_more_than_their_words),
        cmocka_unit_test(characters_are_replaced_by_the_longest_rule),
        cmocka_unit_test(maps_have_to_be_whole),
        cmocka_unit_test(units_may_point_anywhere),
    };

    return cmocka_run_group_tests_name("token/ugm", tests, NULL, NULL);
}
