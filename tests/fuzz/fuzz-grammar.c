/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Grammars and schemas: the input is 'G' and GBNF, or 'S' and a JSON Schema. What compiles is followed for
 * some tokens: no state may be a dead end, and what a mask allows has to be accepted.
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

static void follow(struct matcher *m, uint64_t seed)
{
    for (int i = 0; i < TOKENS && !matcher_is_complete(m); i++) {
        int32_t allowed[1024], n = 0, only;
        const uint64_t *mask;

        if (matcher_mask(m, &mask, &only) < 0)
            return;
        for (int32_t token = 0; token < (int32_t)checker_n_tokens(); token++)
            if (mask[token / 64] >> (token % 64) & 1)
                allowed[n++] = token;
        if (n == 0)
            abort();
        only = allowed[checker_random(&seed) % (uint64_t)n];
        if (only == CHECKER_END)
            return;
        if (matcher_accept(m, only) == -EINVAL)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct grammar_vocabulary *v;
    struct matcher *m = NULL;
    struct grammar *g;

    if (size < 2 || (data[0] != 'G' && data[0] != 'S'))
        return 0;
    g = compile((const char *)data + 1, size - 1, data[0] == 'S');
    if (!g)
        return 0;
    v = checker_vocabulary();
    if (matcher_new(g, v, 0, &m) == 0)
        follow(m, size);
    matcher_free(m);
    grammar_vocabulary_free(v);
    return 0;
}
