/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How a step is cut for several devices: every token is in one piece, after those before it in its sequence, and the
 * last piece has all outputs in their order.
 */
#include "engine/engine-gpu-pieces.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TOKENS_MAX = 64, RUNS_MAX = 80 };

/* A batch of @n runs of so many tokens, of which the last so many are outputs. */
struct batch {
    struct exec_batch b;
    int32_t tokens[TOKENS_MAX];
    uint32_t positions[TOKENS_MAX], token_runs[TOKENS_MAX], outputs[TOKENS_MAX];
    struct exec_run runs[RUNS_MAX];
    struct page_table tables[RUNS_MAX];
};

struct part {
    uint32_t n_tokens, n_outputs;
};

static void batch_make(struct batch *x, const struct part *parts, uint32_t n)
{
    *x = (struct batch){.b = {.n_runs = n}};
    for (uint32_t i = 0; i < n; i++) {
        x->runs[i] = (struct exec_run){.token0 = x->b.n_tokens,
                                       .n_tokens = parts[i].n_tokens,
                                       .position0 = 1000 * i + 7,
                                       .tables = &x->tables[i]};
        for (uint32_t k = 0; k < parts[i].n_tokens; k++) {
            uint32_t t = x->b.n_tokens++;

            x->tokens[t] = (int32_t)t + 100;
            x->positions[t] = x->runs[i].position0 + k;
            x->token_runs[t] = i;
            if (k + parts[i].n_outputs >= parts[i].n_tokens)
                x->outputs[x->b.n_outputs++] = t;
        }
    }
    x->b.tokens = x->tokens;
    x->b.positions = x->positions;
    x->b.token_runs = x->token_runs;
    x->b.outputs = x->outputs;
    x->b.runs = x->runs;
}

/* Cuts with pieces of at least 8 tokens, checks what holds of every cut, and returns how many pieces there are. */
static uint32_t cut(const struct batch *x, uint32_t sizes[ENGINE_PIECES_MAX])
{
    _cleanup_(engine_pieces_freep) struct engine_pieces *p = NULL;
    const struct exec_batch *pieces[ENGINE_PIECES_MAX];
    uint32_t seen[TOKENS_MAX] = {0}, next[RUNS_MAX] = {0}, n;

    assert_int_equal(engine_pieces_new(TOKENS_MAX, TOKENS_MAX, 8, &p), 0);
    n = engine_pieces_cut(p, &x->b, pieces);
    assert_in_range(n, 1, ENGINE_PIECES_MAX);
    for (uint32_t i = 0; i < n; i++) {
        const struct exec_batch *b = pieces[i];
        uint32_t at = 0;

        sizes[i] = b->n_tokens;
        assert_int_equal(b->n_outputs, i + 1 == n ? x->b.n_outputs : 0);
        for (uint32_t r = 0; r < b->n_runs; r++) {
            const struct exec_run *run = &b->runs[r];

            assert_int_equal(run->token0, at);
            for (uint32_t k = 0; k < run->n_tokens; k++, at++) {
                uint32_t token = (uint32_t)b->tokens[at] - 100, of = x->token_runs[token];

                assert_int_equal(seen[token]++, 0);
                assert_int_equal(b->token_runs[at], r);
                assert_int_equal(b->positions[at], x->positions[token]);
                assert_int_equal(run->position0 + k, x->positions[token]);
                assert_ptr_equal(run->tables, x->runs[of].tables);
                assert_int_equal(token, x->runs[of].token0 + next[of]++);
            }
        }
        assert_int_equal(at, b->n_tokens);
        for (uint32_t k = 0; k < b->n_outputs; k++)
            assert_int_equal(b->tokens[b->outputs[k]], x->tokens[x->outputs[k]]);
    }
    for (uint32_t i = 0; i < x->b.n_tokens; i++)
        assert_int_equal(seen[i], 1);
    engine_pieces_forget(p);
    for (uint32_t i = 0; n > 1 && i < x->b.n_tokens; i++)
        assert_int_equal(pieces[0]->tokens[i], 0);
    return n;
}

static void cuts(void **state)
{
    static const struct {
        struct part parts[5];
        uint32_t n_parts, n_pieces, sizes[ENGINE_PIECES_MAX];
    } cases[] = {
        /* A prompt, without its end and with it. */
        {{{64, 0}}, 1, 4, {16, 16, 16, 16}},
        {{{64, 1}}, 1, 4, {16, 16, 16, 16}},
        {{{17, 1}}, 1, 2, {9, 8}},
        {{{15, 0}}, 1, 1, {15}},
        /* Who decodes goes last, wherever it stands. */
        {{{1, 1}, {30, 0}, {1, 1}}, 3, 4, {8, 8, 8, 8}},
        {{{1, 1}, {20, 1}, {1, 1}, {9, 1}}, 4, 3, {11, 11, 9}},
        /* Two prompts, of which a piece has the end of one and the beginning of the other. */
        {{{13, 1}, {25, 1}, {2, 2}}, 3, 4, {10, 10, 10, 10}},
        /* Nothing that could go first. */
        {{{20, 20}, {20, 14}}, 2, 1, {40}},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        uint32_t sizes[ENGINE_PIECES_MAX];
        struct batch x;

        batch_make(&x, cases[i].parts, cases[i].n_parts);
        assert_int_equal(cut(&x, sizes), cases[i].n_pieces);
        for (uint32_t k = 0; k < cases[i].n_pieces; k++)
            assert_int_equal(sizes[k], cases[i].sizes[k]);
    }
}

static void what_is_not_cut(void **state)
{
    struct part ones[TOKENS_MAX];
    uint32_t sizes[ENGINE_PIECES_MAX];
    struct batch x;

    /* All states are wanted, which are where only the last piece left its own. */
    batch_make(&x, &(struct part){64, 0}, 1);
    x.b.wants_embeddings = true;
    assert_int_equal(cut(&x, sizes), 1);
    /* One sequence in two runs. */
    batch_make(&x, (struct part[]){{30, 0}, {30, 1}}, 2);
    x.runs[1].tables = x.runs[0].tables;
    assert_int_equal(cut(&x, sizes), 1);
    /* Nobody but such as decode. */
    for (uint32_t i = 0; i < TOKENS_MAX; i++)
        ones[i] = (struct part){1, 1};
    batch_make(&x, ones, TOKENS_MAX);
    assert_int_equal(cut(&x, sizes), 1);
}

static void adapters_go_with_their_tokens(void **state)
{
    _cleanup_(engine_pieces_freep) struct engine_pieces *p = NULL;
    const struct exec_batch *pieces[ENGINE_PIECES_MAX];
    uint32_t adapters[TOKENS_MAX], n;
    struct batch x;

    batch_make(&x, (struct part[]){{1, 1}, {30, 1}}, 2);
    for (uint32_t i = 0; i < x.b.n_tokens; i++)
        adapters[i] = i % 3;
    x.b.adapters = adapters;
    assert_int_equal(engine_pieces_new(TOKENS_MAX, TOKENS_MAX, 8, &p), 0);
    n = engine_pieces_cut(p, &x.b, pieces);
    assert_int_equal(n, 3);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < pieces[i]->n_tokens; k++)
            assert_int_equal(pieces[i]->adapters[k], adapters[pieces[i]->tokens[k] - 100]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts),
        cmocka_unit_test(what_is_not_cut),
        cmocka_unit_test(adapters_go_with_their_tokens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
