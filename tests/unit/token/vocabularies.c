/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vocabularies.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fault.h"
#include "engine/token/tokenizer.h"
#include "engine/token/vocabulary.h"

struct model_writer *vocabulary_writer(const char *kind, const struct test_token *tokens, size_t n)
{
    struct model_writer *w = model_writer_new();
    const char **texts = calloc(n + 1, sizeof(*texts));
    int32_t *types = calloc(n + 1, sizeof(*types));
    float *scores = calloc(n + 1, sizeof(*scores));

    assert_true(texts && types && scores);
    for (size_t i = 0; i < n; i++) {
        texts[i] = tokens[i].text;
        types[i] = tokens[i].type ? tokens[i].type : TOKEN_NORMAL;
        scores[i] = tokens[i].score;
    }
    model_writer_string(w, "tokenizer.ggml.model", kind);
    model_writer_strings(w, "tokenizer.ggml.tokens", texts, n);
    model_writer_array(w, "tokenizer.ggml.token_type", GGUF_I32, types, n, n * sizeof(*types));
    if (strcmp(kind, "llama") == 0 || strcmp(kind, "t5") == 0)
        model_writer_array(w, "tokenizer.ggml.scores", GGUF_F32, scores, n, n * sizeof(*scores));
    free(texts);
    free(types);
    free(scores);
    return w;
}

int vocabulary_tokenizer_try(struct model_writer *w_take, struct tokenizer **ret, struct fault *fault)
{
    struct gguf_part part;
    struct gguf *g = NULL;
    size_t n;
    uint8_t *bytes = model_writer_bytes(w_take, &n);
    int r;

    part = (struct gguf_part){.data = bytes, .n_bytes = n};
    model_writer_free(w_take);
    assert_int_equal(gguf_read(&part, 1, &g, fault), 0);
    r = tokenizer_new(g, ret, fault);
    /* The tokenizer keeps nothing of the file. */
    gguf_free(g);
    memset(bytes, 0, n);
    free(bytes);
    return r;
}

struct tokenizer *vocabulary_tokenizer(struct model_writer *w_take)
{
    struct tokenizer *t = NULL;
    struct fault fault = {0};

    if (vocabulary_tokenizer_try(w_take, &t, &fault) < 0)
        fail_msg("%s", fault.reason);
    return t;
}

void expect_ids(const struct tokenizer *t, const char *text, unsigned flags, const int32_t *expected)
{
    int32_t *ids = NULL;
    size_t n = 0;

    assert_int_equal(tokenizer_encode(t, text, strlen(text), flags, &ids, &n), 0);
    assert_non_null(ids);
    for (size_t i = 0; i < n; i++) {
        if (ids[i] != expected[i])
            fail_msg("\"%s\": token %zu is %d, not %d", text, i, ids[i], expected[i]);
    }
    if (expected[n] != -1)
        fail_msg("\"%s\": token %zu is missing", text, n);
    free(ids);
}
