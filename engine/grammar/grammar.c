/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdlib.h>

#include "engine/grammar/gbnf.h"
#include "engine/grammar/grammar-internal.h"
#include "engine/grammar/ir.h"
#include "engine/grammar/nodes.h"
#include "engine/grammar/schema.h"

int grammar_from_ir(struct ir *ir, struct grammar **ret)
{
    _cleanup_(grammar_freep) struct grammar *g = NULL;

    if (ir->error)
        return ir->error;
    g = calloc(1, sizeof(*g));
    if (!g)
        return -ENOMEM;
    nfa_build(&g->nfa, ir);
    if (ir->error)
        return ir->error;
    *ret = TAKE_PTR(g);
    return 0;
}

int grammar_from_gbnf(const char *text, size_t n, struct grammar **ret, struct fault *reterr)
{
    _cleanup_(ir_done) struct ir ir;
    int r = ir_init(&ir, /* is_schema= */ false, reterr);

    if (r < 0)
        return r;
    gbnf_parse(&ir, text, n);
    return grammar_from_ir(&ir, ret);
}

int grammar_from_schema(struct json_object *schema, struct grammar **ret, struct fault *reterr)
{
    _cleanup_(ir_done) struct ir ir;
    int r = ir_init(&ir, /* is_schema= */ true, reterr);

    if (r < 0)
        return r;
    schema_compile(&ir, schema);
    return grammar_from_ir(&ir, ret);
}

static uint32_t sequence(struct ir *ir, const struct grammar_part *parts, size_t n)
{
    _cleanup_nodes_ struct nodes list = {0};

    for (size_t i = 0; i < n; i++) {
        if (parts[i].text)
            nodes_add(ir, &list, ir_text(ir, parts[i].text));
        else if (parts[i].schema)
            nodes_add(ir, &list, schema_compile_node(ir, parts[i].schema, parts[i].path));
        else
            nodes_add(ir, &list, ir_token(ir, parts[i].token));
    }
    return ir_cat(ir, list.nodes, list.n);
}

int grammar_from_parts(const struct grammar_part *const *parts, const size_t *n_parts, size_t n_alternatives,
                       struct grammar **ret, struct fault *reterr)
{
    _cleanup_(ir_done) struct ir ir;
    _cleanup_nodes_ struct nodes list = {0};
    int r = ir_init(&ir, /* is_schema= */ true, reterr);

    if (r < 0)
        return r;
    ir.root = ir_rule_new(&ir, "", 0);
    for (size_t i = 0; i < n_alternatives; i++)
        nodes_add(&ir, &list, sequence(&ir, parts[i], n_parts[i]));
    ir_rule_set(&ir, ir.root, ir_alt(&ir, list.nodes, list.n));
    return grammar_from_ir(&ir, ret);
}

struct grammar *grammar_free(struct grammar *g)
{
    if (!g)
        return NULL;
    nfa_done(&g->nfa);
    free(g);
    return NULL;
}

uint32_t grammar_n_states(const struct grammar *g)
{
    return g->nfa.n_states;
}
