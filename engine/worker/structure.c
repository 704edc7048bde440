/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/structure.h"

#include <errno.h>

#include "base/fault.h"
#include "engine/grammar/grammar.h"
#include "engine/grammar/vocabulary.h"
#include "engine/token/tokenizer.h"
#include "engine/worker/member.h"

static size_t piece(const void *userdata, int32_t token, const char **ret)
{
    return tokenizer_piece(userdata, token, /* special= */ false, ret);
}

static bool is_end(const void *userdata, int32_t token)
{
    return tokenizer_is_end(userdata, token);
}

int structure_vocabulary(const struct tokenizer *t, uint32_t n_vocab, struct grammar_vocabulary **ret)
{
    uint32_t n = tokenizer_n_vocab(t);

    return grammar_vocabulary_new(n, n_vocab > n ? n_vocab : n, piece, is_end, t, ret);
}

static int compile(json_object *call, struct grammar **ret, const char **ret_name, struct fault *reterr)
{
    json_object *schema = NULL;
    const char *text;
    size_t n;
    int r_schema = member_object(call, "json_schema", &schema, reterr);
    int r_text = member_string(call, "grammar", &text, &n, reterr);

    if (r_schema == -EINVAL || r_text == -EINVAL)
        return -EINVAL;
    *ret_name = r_schema == 0 ? "json_schema" : "grammar";
    if (r_schema == 0 && r_text == 0) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, "grammar", "json_schema and grammar exclude each other");
        return -EINVAL;
    }
    if (r_schema == 0)
        return grammar_from_schema(schema, ret, reterr);
    return r_text == 0 ? grammar_from_gbnf(text, n, ret, reterr) : 0;
}

int structure_matcher(json_object *call, const struct grammar_vocabulary *vocabulary, bool strips,
                      struct matcher **ret, struct fault *reterr)
{
    struct grammar *g = NULL;
    const char *name;
    int r = compile(call, &g, &name, reterr);

    if (r < 0 || !g)
        return r;
    if (!vocabulary) {
        grammar_free(g);
        fault_set(reterr, FAULT_INVALID_PARAMETER, name, "the model has no tokenizer");
        return -EINVAL;
    }
    r = matcher_new(g, vocabulary, strips ? MATCHER_STRIP_SPACE : 0, ret);
    if (r == -E2BIG) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, name, "it is too ambiguous");
        return -EINVAL;
    }
    return r;
}
