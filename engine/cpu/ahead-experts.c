/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A piece is one expert's matrix of one product. Pieces are numbered by product, then by expert. Which of them goes
 * when one more has to come is found as by a clock's hand: it goes round all pieces, and each that is in memory loses
 * one of the marks that it got when it was needed (at most USES_MAX); one without any goes. That keeps what is needed
 * often, forgets what was, and looks at a few pieces for each that goes. Where experts are needed alike it is as good
 * as any other choice.
 *
 * Small pieces are read by 4 KiB pages: of 2 MiB around one, most would be its neighbours'.
 */
#include "engine/cpu/ahead-experts.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/memlock.h"

#define USES_MAX          3
#define HUGE_PIECES_BYTES (UINT64_C(8) << 20)

/* The matrices of one product, one an expert. */
struct expert_set {
    const uint8_t *data;
    uint64_t n_bytes; /* of each */
};

struct expert_op {
    size_t first_set, n_sets; /* n_sets 0: an operation without experts */
    size_t next;              /* the operation behind it that has the same tokens' experts; its own number: none */
};

struct expert_piece {
    uint64_t needed; /* the number of the call that needed it last */
    uint8_t uses;
    bool is_here, is_locked;
};

struct experts {
    const struct ahead_files *files;
    struct expert_op *ops; /* [graph's n_ops] */
    struct expert_set *sets; /* [n_sets] */
    size_t n_sets;
    struct expert_piece *pieces; /* [n_sets, n_experts] */
    size_t n_experts, n_pieces, hand;
    size_t *passing; /* [n_pieces] n_passing in use: read, and to be let go of */
    size_t n_passing;
    uint64_t n_calls, bytes_max, bytes_here, bytes_locked, bytes_read;
    bool lock;
};

static bool is_of_experts(const struct graph_op *op)
{
    return op->type == GRAPH_EXPERTS_GLU || op->type == GRAPH_EXPERTS_DOWN;
}

uint64_t experts_bytes(const struct graph *g, uint64_t *ret_at_least)
{
    uint64_t total = 0, largest = 0, of_layer = 0;

    for (size_t i = 0; i < g->n_ops; i++) {
        const struct graph_linear *linears[GRAPH_LINEAR_MAX];
        uint32_t n = is_of_experts(&g->ops[i]) ? graph_op_linears(&g->ops[i], linears) : 0;

        if (g->ops[i].type == GRAPH_EXPERTS_GLU)
            of_layer = 0;
        for (uint32_t k = 0; k < n; k++)
            of_layer += linears[k]->weight.matrix_bytes;
        for (uint32_t k = 0; k < n; k++)
            total += linears[k]->weight.matrix_bytes * g->n_experts;
        largest = of_layer > largest ? of_layer : largest;
    }
    *ret_at_least = largest * g->n_experts_used;
    return total;
}

static const struct expert_set *set_of(const struct experts *e, size_t piece)
{
    return &e->sets[piece / e->n_experts];
}

static const uint8_t *data_of(const struct experts *e, size_t piece)
{
    return set_of(e, piece)->data + piece % e->n_experts * set_of(e, piece)->n_bytes;
}

/* Pages at the ends are a neighbour's as well, and are left out. What can't be locked (a process may have so many
 * mappings) is in memory all the same, until the kernel wants it. */
static void bring(struct experts *e, size_t piece)
{
    struct expert_piece *p = &e->pieces[piece];
    uint64_t n_bytes = set_of(e, piece)->n_bytes;
    void *from;
    size_t n;

    ahead_populate(data_of(e, piece), n_bytes);
    p->is_here = true;
    p->is_locked = e->lock && ahead_whole_pages(data_of(e, piece), n_bytes, &from, &n) && memlock(from, n) == 0;
    e->bytes_here += n_bytes;
    e->bytes_locked += p->is_locked ? n_bytes : 0;
}

static void evict(struct experts *e, size_t piece)
{
    struct expert_piece *p = &e->pieces[piece];
    uint64_t n_bytes = set_of(e, piece)->n_bytes;
    void *from;
    size_t n;

    if (p->is_locked && ahead_whole_pages(data_of(e, piece), n_bytes, &from, &n))
        (void)munlock(from, n);
    ahead_let_go(e->files, data_of(e, piece), n_bytes);
    e->bytes_here -= n_bytes;
    e->bytes_locked -= p->is_locked ? n_bytes : 0;
    p->is_here = p->is_locked = false;
}

/* False: all that is in memory is needed now. */
static bool make_room(struct experts *e, uint64_t n_bytes)
{
    size_t n_looked = 0;

    while (e->bytes_here + n_bytes > e->bytes_max) {
        struct expert_piece *p = &e->pieces[e->hand];

        if (n_looked++ > (USES_MAX + 1) * e->n_pieces)
            return false;
        if (p->is_here && p->needed != e->n_calls) {
            if (p->uses == 0)
                evict(e, e->hand);
            else
                p->uses--;
        }
        e->hand = (e->hand + 1) % e->n_pieces;
    }
    return true;
}

/* ---- made and ended ---- */

static int list_sets(struct experts *e, const struct graph *g)
{
    size_t before = g->n_ops;

    for (size_t i = 0; i < g->n_ops; i++) {
        const struct graph_linear *linears[GRAPH_LINEAR_MAX];
        uint32_t n = is_of_experts(&g->ops[i]) ? graph_op_linears(&g->ops[i], linears) : 0;

        e->ops[i] = (struct expert_op){.first_set = e->n_sets, .n_sets = n, .next = i};
        for (uint32_t k = 0; k < n; k++)
            e->sets[e->n_sets++] = (struct expert_set){linears[k]->weight.data, linears[k]->weight.matrix_bytes};
        if (g->ops[i].type == GRAPH_EXPERTS_DOWN && before < i)
            e->ops[before].next = i;
        before = g->ops[i].type == GRAPH_EXPERTS_GLU ? i : n > 0 ? g->n_ops : before;
    }
    e->n_experts = g->n_experts;
    e->n_pieces = e->n_sets * e->n_experts;
    e->pieces = calloc(e->n_pieces + 1, sizeof(*e->pieces));
    e->passing = calloc(e->n_pieces + 1, sizeof(*e->passing));
    return e->pieces && e->passing ? 0 : -ENOMEM;
}

static void choose_pages(const struct experts *e)
{
    for (size_t i = 0; i < e->n_sets; i++) {
        void *from;
        size_t n;

        if (e->sets[i].n_bytes < HUGE_PIECES_BYTES &&
            ahead_whole_pages(e->sets[i].data, e->sets[i].n_bytes * e->n_experts, &from, &n))
            (void)madvise(from, n, MADV_NOHUGEPAGE);
    }
}

/* As even a mixture as that of dense matrices. */
static void fill(struct experts *e, uint64_t total)
{
    double due = 0;

    for (size_t i = 0; i < e->n_pieces; i++) {
        uint64_t n_bytes = set_of(e, i)->n_bytes;

        due += (double)e->bytes_max * (double)n_bytes / (double)total;
        if (total <= e->bytes_max || (double)(e->bytes_here + n_bytes) <= due)
            bring(e, i);
    }
}

int experts_new(const struct ahead_config *config, const struct ahead_files *files, uint64_t bytes_max,
                struct experts **ret)
{
    _cleanup_(experts_freep) struct experts *e = calloc(1, sizeof(*e));
    uint64_t at_least;
    int r;

    if (!e)
        return -ENOMEM;
    *e = (struct experts){.files = files, .bytes_max = bytes_max, .lock = config->lock};
    e->ops = calloc(config->graph->n_ops + 1, sizeof(*e->ops));
    e->sets = calloc(config->graph->n_ops * GRAPH_LINEAR_MAX + 1, sizeof(*e->sets));
    if (!e->ops || !e->sets)
        return -ENOMEM;
    r = list_sets(e, config->graph);
    if (r < 0)
        return r;
    choose_pages(e);
    fill(e, experts_bytes(config->graph, &at_least));
    *ret = TAKE_PTR(e);
    return 0;
}

struct experts *experts_free(struct experts *e)
{
    if (!e)
        return NULL;
    free(e->ops);
    free(e->sets);
    free(e->pieces);
    free(e->passing);
    free(e);
    return NULL;
}

/* ---- the step ---- */

/* Marks what is needed, and begins to read what of it is missing. */
static void begin(struct experts *e, size_t i_op, const uint32_t *active, uint32_t n)
{
    const struct expert_op *op = &e->ops[i_op];

    for (size_t s = op->first_set; s < op->first_set + op->n_sets; s++) {
        for (uint32_t i = 0; i < n; i++) {
            struct expert_piece *p = &e->pieces[s * e->n_experts + active[i]];

            p->needed = e->n_calls;
            if (!p->is_here && e->sets[s].n_bytes < HUGE_PIECES_BYTES)
                ahead_begin_to_read(data_of(e, s * e->n_experts + active[i]), e->sets[s].n_bytes);
        }
    }
}

void experts_need(struct experts *e, size_t i_op, const uint32_t *active, uint32_t n)
{
    const struct expert_op *op = &e->ops[i_op];

    while (e->n_passing > 0) {
        size_t piece = e->passing[--e->n_passing];

        ahead_let_go(e->files, data_of(e, piece), set_of(e, piece)->n_bytes);
    }
    e->n_calls++;
    begin(e, i_op, active, n);
    if (op->next != i_op)
        begin(e, op->next, active, n);
    for (size_t s = op->first_set; s < op->first_set + op->n_sets; s++) {
        for (uint32_t i = 0; i < n; i++) {
            size_t piece = s * e->n_experts + active[i];
            struct expert_piece *p = &e->pieces[piece];

            p->uses += p->uses < USES_MAX;
            if (p->is_here)
                continue;
            e->bytes_read += e->sets[s].n_bytes;
            if (make_room(e, e->sets[s].n_bytes))
                bring(e, piece);
            else
                e->passing[e->n_passing++] = piece;
        }
    }
}

uint64_t experts_bytes_locked(const struct experts *e)
{
    return e->bytes_locked;
}

uint64_t experts_bytes_read(const struct experts *e)
{
    return e->bytes_read;
}
