/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Cutting is of use for prompts only: their tokens, but for the last one, want no logits. What comes of a token depends
 * on nothing but those before it in its sequence (the rule of sums), so any cut gives the same bits.
 */

#include "engine/engine-gpu-pieces.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* More of them are no prompts, and comparing each with each takes time. */
#define RUNS_MAX 64

struct engine_pieces {
    uint32_t piece_tokens;
    /* [tokens_max] of all pieces, one behind the other. */
    int32_t *tokens;
    uint32_t *positions, *token_runs, *adapters;
    uint32_t *outputs;     /* [outputs_max] */
    struct exec_run *runs; /* [tokens_max] */
    struct exec_batch batches[ENGINE_PIECES_MAX];
    uint32_t n, n_tokens, n_runs; /* pieces that are begun, tokens and runs in them */
    uint32_t taken[RUNS_MAX];     /* of each run of the batch */
};

int engine_pieces_new(uint32_t tokens_max, uint32_t outputs_max, uint32_t piece_tokens, struct engine_pieces **ret)
{
    _cleanup_(engine_pieces_freep) struct engine_pieces *p = calloc(1, sizeof(*p));

    if (!p)
        return -ENOMEM;
    p->piece_tokens = piece_tokens;
    p->tokens = calloc(tokens_max, sizeof(*p->tokens));
    p->positions = calloc(tokens_max, sizeof(*p->positions));
    p->token_runs = calloc(tokens_max, sizeof(*p->token_runs));
    p->adapters = calloc(tokens_max, sizeof(*p->adapters));
    p->outputs = calloc(outputs_max ? outputs_max : 1, sizeof(*p->outputs));
    p->runs = calloc(tokens_max, sizeof(*p->runs));
    if (!p->tokens || !p->positions || !p->token_runs || !p->adapters || !p->outputs || !p->runs)
        return -ENOMEM;
    *ret = TAKE_PTR(p);
    return 0;
}

struct engine_pieces *engine_pieces_free(struct engine_pieces *p)
{
    if (!p)
        return NULL;
    free(p->tokens);
    free(p->positions);
    free(p->token_runs);
    free(p->adapters);
    free(p->outputs);
    free(p->runs);
    free(p);
    return NULL;
}

/* Tokens of each run that come before its first output: *ret [n_runs]. Returns how many they are in all; 0 where runs
 * belong together, or are too many. */
static uint32_t find_early(const struct exec_batch *b, uint32_t ret[RUNS_MAX])
{
    uint32_t n_early = 0, i_output = 0;

    if (b->n_runs > RUNS_MAX || b->wants_embeddings)
        return 0;
    for (uint32_t i = 0; i < b->n_runs; i++) {
        uint32_t past = b->runs[i].token0 + b->runs[i].n_tokens, first = past;

        for (uint32_t k = 0; k < i; k++)
            if (b->runs[k].tables == b->runs[i].tables)
                return 0;
        if (i_output < b->n_outputs && b->outputs[i_output] < past)
            first = b->outputs[i_output];
        while (i_output < b->n_outputs && b->outputs[i_output] < past)
            i_output++;
        ret[i] = first - b->runs[i].token0;
        n_early += ret[i];
    }
    return n_early;
}

static void piece_begin(struct engine_pieces *p, const struct exec_batch *b)
{
    p->batches[p->n++] = (struct exec_batch){
        .tokens = p->tokens + p->n_tokens,
        .positions = p->positions + p->n_tokens,
        .token_runs = p->token_runs + p->n_tokens,
        .adapters = b->adapters ? p->adapters + p->n_tokens : NULL,
        .outputs = p->outputs,
        .runs = p->runs + p->n_runs,
    };
}

/* The next @n tokens of run @i go to the last piece that was begun. */
static void piece_add(struct engine_pieces *p, const struct exec_batch *b, uint32_t i, uint32_t n)
{
    struct exec_batch *piece = &p->batches[p->n - 1];
    const struct exec_run *run = &b->runs[i];
    uint32_t from = run->token0 + p->taken[i];

    p->runs[p->n_runs++] = (struct exec_run){.token0 = piece->n_tokens,
                                             .n_tokens = n,
                                             .position0 = run->position0 + p->taken[i],
                                             .tables = run->tables};
    memcpy(p->tokens + p->n_tokens, b->tokens + from, n * sizeof(*p->tokens));
    memcpy(p->positions + p->n_tokens, b->positions + from, n * sizeof(*p->positions));
    if (b->adapters)
        memcpy(p->adapters + p->n_tokens, b->adapters + from, n * sizeof(*p->adapters));
    for (uint32_t k = 0; k < n; k++)
        p->token_runs[p->n_tokens + k] = piece->n_runs;
    p->taken[i] += n;
    p->n_tokens += n;
    piece->n_tokens += n;
    piece->n_runs++;
}

/* What is left of all runs, and all outputs. */
static void last_piece(struct engine_pieces *p, const struct exec_batch *b)
{
    struct exec_batch *piece;

    piece_begin(p, b);
    piece = &p->batches[p->n - 1];
    for (uint32_t i = 0; i < b->n_runs; i++) {
        const struct exec_run *run = &b->runs[i];
        uint32_t before = p->taken[i], row0 = piece->n_tokens;

        if (before == run->n_tokens)
            continue;
        piece_add(p, b, i, run->n_tokens - before);
        while (piece->n_outputs < b->n_outputs && b->outputs[piece->n_outputs] < run->token0 + run->n_tokens) {
            p->outputs[piece->n_outputs] = row0 + b->outputs[piece->n_outputs] - run->token0 - before;
            piece->n_outputs++;
        }
    }
}

uint32_t engine_pieces_cut(struct engine_pieces *p, const struct exec_batch *b, const struct exec_batch **ret)
{
    uint32_t early[RUNS_MAX], n_pieces = b->n_tokens / p->piece_tokens, n_early, size;

    n_pieces = n_pieces < ENGINE_PIECES_MAX ? n_pieces : ENGINE_PIECES_MAX;
    ret[0] = b;
    if (n_pieces < 2)
        return 1;
    size = (b->n_tokens + n_pieces - 1) / n_pieces;
    n_early = find_early(b, early) / size * size;
    if (n_early == 0)
        return 1;
    n_early = n_early < size * (n_pieces - 1) ? n_early : size * (n_pieces - 1);
    p->n = p->n_tokens = p->n_runs = 0;
    memset(p->taken, 0, sizeof(p->taken));
    for (uint32_t i = 0; i < b->n_runs; i++) {
        while (p->taken[i] < early[i] && p->n_tokens < n_early) {
            uint32_t n = early[i] - p->taken[i], room;

            if (p->n_tokens == p->n * size)
                piece_begin(p, b);
            room = p->n * size - p->n_tokens;
            piece_add(p, b, i, n < room ? n : room);
        }
    }
    last_piece(p, b);
    for (uint32_t i = 0; i < p->n; i++)
        ret[i] = &p->batches[i];
    return p->n;
}

void engine_pieces_forget(struct engine_pieces *p)
{
    explicit_bzero(p->tokens, p->n_tokens * sizeof(*p->tokens));
    p->n_tokens = 0;
}
