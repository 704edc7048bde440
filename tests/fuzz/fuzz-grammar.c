/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Grammars and schemas: the input is 'G' and GBNF, or 'S' and a JSON Schema. What compiles is followed for
 * some tokens: no state may be a dead end, and what a mask allows has to be accepted. A second matcher that guesses
 * along the way says the same, and what it guesses is allowed.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/json.h"
#include "engine/grammar/grammar.h"
#include "tests/unit/grammar/checker.h"

#define TOKENS 12

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct grammar *compile(const char *text, size_t n, bool is_schema)
{
    const struct json_limits limits = {.bytes_max = 1 << 16, .depth_max = 64, .values_max = 1 << 14};
    _cleanup_json_ json_object *schema = NULL;
    struct grammar *g = NULL;
    struct fault fault = {0};
    int r;

    if (!is_schema)
        r = grammar_from_gbnf(text, n, &g, &fault);
    else if (json_parse(text, n, &limits, &schema, NULL, NULL) == 0)
        r = grammar_from_schema(schema, &g, &fault);
    else
        return NULL;
    if (r < 0 && r != -ENOMEM && !fault.reason[0])
        abort();
    return g;
}

/* The matcher that guesses before each token: its mask has to be @mask and to hold what was guessed. NULL: the other
 * one could make none. */
static void check_guesses(struct matcher *m, const uint64_t *mask)
{
    int32_t guess[4] = {0}, only;
    uint32_t n = matcher_guess(m, guess, 4);
    const uint64_t *own = NULL;
    int r = matcher_mask(m, &own, &only);

    if ((r < 0) != !mask)
        abort();
    if (!mask)
        return;
    for (int32_t token = 0; token < (int32_t)checker_n_tokens(); token++)
        if ((own[token / 64] ^ mask[token / 64]) >> (token % 64) & 1)
            abort();
    if (n > 0 && !(mask[guess[0] / 64] >> (guess[0] % 64) & 1))
        abort();
}

static void follow(struct matcher *m, struct matcher *guesses, uint64_t seed)
{
    for (int i = 0; i < TOKENS && !matcher_is_complete(m); i++) {
        int32_t allowed[1024], n = 0, only;
        const uint64_t *mask;

        if (matcher_mask(m, &mask, &only) < 0) {
            check_guesses(guesses, NULL);
            return;
        }
        check_guesses(guesses, mask);
        for (int32_t token = 0; token < (int32_t)checker_n_tokens(); token++)
            if (mask[token / 64] >> (token % 64) & 1)
                allowed[n++] = token;
        if (n == 0)
            abort();
        only = allowed[checker_random(&seed) % (uint64_t)n];
        if (only == CHECKER_END)
            return;
        if (matcher_accept(m, only) == -EINVAL || matcher_accept(guesses, only) == -EINVAL)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct grammar_vocabulary *v;
    struct matcher *m = NULL, *guesses = NULL;
    struct grammar *g, *same;

    if (size < 2 || (data[0] != 'G' && data[0] != 'S'))
        return 0;
    g = compile((const char *)data + 1, size - 1, data[0] == 'S');
    if (!g)
        return 0;
    same = compile((const char *)data + 1, size - 1, data[0] == 'S');
    v = checker_vocabulary();
    if (matcher_new(g, v, 0, &m) < 0 || !same)
        grammar_free(same);
    else if (matcher_new(same, v, 0, &guesses) == 0)
        follow(m, guesses, size);
    matcher_free(m);
    matcher_free(guesses);
    grammar_vocabulary_free(v);
    return 0;
}
