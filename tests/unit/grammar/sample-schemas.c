/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For check-jsonschema.py: a JSON object with `schema`, `n` and `seed` a line on stdin, one with `texts`,
 * drawn at random under the schema's masks, or `error` a line on stdout.
 */
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "base/json.h"
#include "engine/grammar/grammar.h"
#include "tests/unit/grammar/checker.h"

#define TOKENS_MAX 3000

static bool has(const uint64_t *mask, int32_t token)
{
    return mask[token / 64] >> (token % 64) & 1;
}

/* Any token at first; later on and more and more often one that may lead to the end. */
static int32_t choose(const uint64_t *mask, unsigned n_before, uint64_t *seed)
{
    static const int32_t ways_out[] = {'}', ']', '"', '1', '0', ':', ',', '-', '.', '@', 'a', 'b'};
    bool hurries = checker_random(seed) % 60 < n_before;
    int32_t allowed[1024], n = 0;

    if (hurries && has(mask, CHECKER_END))
        return CHECKER_END;
    for (size_t i = 0; i < sizeof(ways_out) / sizeof(ways_out[0]) && hurries; i++)
        if (has(mask, ways_out[i]))
            allowed[n++] = ways_out[i];
    if (n == 0)
        for (int32_t token = 0; token < (int32_t)checker_n_tokens(); token++)
            if (has(mask, token))
                allowed[n++] = token;
    return n == 0 ? -1 : allowed[checker_random(seed) % (uint64_t)n];
}

/* Returns NULL, or what went wrong. */
static const char *sample(const struct grammar_vocabulary *v, json_object *schema, uint64_t *seed,
                          json_object *texts)
{
    static char text[64 * TOKENS_MAX];
    _cleanup_(matcher_freep) struct matcher *m = NULL;
    struct grammar *g = NULL;
    size_t n_text = 0;

    if (grammar_from_schema(schema, &g, NULL) < 0 || matcher_new(g, v, 0, &m) < 0)
        return "it does not compile a second time";
    for (unsigned n = 0; n < TOKENS_MAX; n++) {
        const uint64_t *mask;
        const char *piece;
        int32_t token;

        if (matcher_mask(m, &mask, &token) < 0)
            return "no mask";
        token = choose(mask, n, seed);
        if (token < 0)
            return "a dead end";
        if (token == CHECKER_END) {
            json_object_array_add(texts, json_object_new_string_len(text, (int)n_text));
            return NULL;
        }
        if (matcher_accept(m, token) < 0)
            return "a token of the mask is refused";
        n_text += checker_piece(NULL, token, &piece);
        memcpy(text + n_text - checker_piece(NULL, token, &piece), piece, checker_piece(NULL, token, &piece));
    }
    return "no end";
}

int main(void)
{
    struct grammar_vocabulary *v = checker_vocabulary();
    _cleanup_free_ char *line = NULL;
    size_t room = 0;

    while (getline(&line, &room, stdin) > 0) {
        _cleanup_json_ json_object *in = json_tokener_parse(line), *out = json_object_new_object();
        json_object *schema = json_object_object_get(in, "schema"), *texts = json_object_new_array();
        uint64_t seed = (uint64_t)json_object_get_int64(json_object_object_get(in, "seed"));
        struct grammar *g = NULL;
        struct fault fault = {0};
        const char *error = NULL;

        json_object_object_add(out, "texts", texts);
        if (grammar_from_schema(schema, &g, &fault) < 0)
            error = fault.reason;
        grammar_free(g);
        for (int64_t i = json_object_get_int64(json_object_object_get(in, "n")); i > 0 && !error; i--)
            error = sample(v, schema, &seed, texts);
        if (error)
            json_object_object_add(out, "error", json_object_new_string(error));
        puts(json_text(out));
    }
    grammar_vocabulary_free(v);
    return 0;
}
