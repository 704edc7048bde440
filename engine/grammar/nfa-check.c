/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/grammar/nfa-check.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "engine/grammar/ir.h"
#include "engine/grammar/nfa.h"

/* ---- backwards from the end ---- */

/* Who leads to a state, and who calls a net: lists in two arrays, as compressed rows. */
struct edges {
    uint32_t *begin; /* [n + 1] */
    uint32_t *from;
};

static void edges_done(struct edges *e)
{
    free(e->begin);
    free(e->from);
}

static unsigned targets(const struct nfa_state *s, uint32_t *ret)
{
    switch ((enum nfa_op)s->op) {
    case NFA_BYTE:
    case NFA_TOKEN:
    case NFA_CALL:
        ret[0] = s->x;
        return 1;
    case NFA_SPLIT:
        ret[0] = s->x;
        ret[1] = s->y;
        return 2;
    case NFA_ACCEPT:
    case NFA_FAIL:
        break;
    }
    return 0;
}

static unsigned callee(const struct nfa_state *s, uint32_t *ret)
{
    ret[0] = s->y;
    return s->op == NFA_CALL;
}

static bool edges_make(const struct nfa *nfa, uint32_t n,
                       unsigned (*list)(const struct nfa_state *, uint32_t *), struct edges *ret)
{
    uint32_t to[2];

    ret->begin = calloc((size_t)n + 2, sizeof(*ret->begin));
    ret->from = calloc(2 * (size_t)nfa->n_states + 1, sizeof(*ret->from));
    if (!ret->begin || !ret->from)
        return false;
    for (uint32_t i = 0; i < nfa->n_states; i++)
        for (unsigned k = list(&nfa->states[i], to); k > 0; k--)
            ret->begin[to[k - 1] + 2]++;
    for (uint32_t i = 0; i < n; i++)
        ret->begin[i + 2] += ret->begin[i + 1];
    for (uint32_t i = 0; i < nfa->n_states; i++)
        for (unsigned k = list(&nfa->states[i], to); k > 0; k--)
            ret->from[ret->begin[to[k - 1] + 1]++] = i;
    return true;
}

struct reach {
    const struct nfa *nfa;
    struct edges before, callers;
    bool *good; /* [n_states] */
    bool *good_net;
    uint32_t *queue; /* [n_states] */
    uint32_t n_queue;
    bool reads; /* bytes may be read on the way */
};

static void reach_add(struct reach *r, uint32_t state)
{
    if (!r->good[state]) {
        r->good[state] = true;
        r->queue[r->n_queue++] = state;
    }
}

static void reach_step(struct reach *r, uint32_t state, const uint32_t *net_of_start)
{
    for (uint32_t i = r->before.begin[state]; i < r->before.begin[state + 1]; i++) {
        const struct nfa_state *s = &r->nfa->states[r->before.from[i]];

        if (s->op == NFA_SPLIT || (r->reads && (s->op == NFA_BYTE || s->op == NFA_TOKEN)) ||
            (s->op == NFA_CALL && r->good_net[s->y]))
            reach_add(r, r->before.from[i]);
    }
    /* Nets may begin at the same state; the list of those is short. */
    for (uint32_t net = net_of_start[state]; net != UINT32_MAX; net = net_of_start[r->nfa->n_states + net]) {
        r->good_net[net] = true;
        for (uint32_t i = r->callers.begin[net]; i < r->callers.begin[net + 1]; i++)
            if (r->good[r->nfa->states[r->callers.from[i]].x])
                reach_add(r, r->callers.from[i]);
    }
}

/* From which states the end of their net can be reached. */
static bool reach(const struct nfa *nfa, bool reads, bool *good, bool *good_net)
{
    struct reach r = {.nfa = nfa, .good = good, .good_net = good_net, .reads = reads};
    uint32_t *net_of_start = malloc(((size_t)nfa->n_states + nfa->n_nets) * sizeof(*net_of_start));
    bool ok;

    r.queue = malloc(((size_t)nfa->n_states + 1) * sizeof(*r.queue));
    ok = r.queue && net_of_start && edges_make(nfa, nfa->n_states, targets, &r.before) &&
         edges_make(nfa, nfa->n_nets, callee, &r.callers);
    if (ok) {
        for (uint32_t i = 0; i < nfa->n_states; i++)
            net_of_start[i] = UINT32_MAX;
        for (uint32_t i = 0; i < nfa->n_nets; i++) {
            net_of_start[nfa->n_states + i] = net_of_start[nfa->nets[i].start];
            net_of_start[nfa->nets[i].start] = i;
        }
        reach_add(&r, 0);
        while (r.n_queue > 0)
            reach_step(&r, r.queue[--r.n_queue], net_of_start);
    }
    edges_done(&r.before);
    edges_done(&r.callers);
    free(r.queue);
    free(net_of_start);
    return ok;
}

/* ---- nets that are called before anything is read ---- */

struct order {
    struct nfa *nfa;
    struct ir *ir;
    uint32_t *seen;  /* [n_states] the last net whose beginning was walked over this state, plus 1 */
    uint32_t *stack; /* [n_states] of that walk */
    uint32_t *calls; /* nets that are called first, of all nets on the path, one after the other */
    uint32_t n_calls, calls_allocated;
    uint8_t *state; /* [n_nets] 0 new, 1 on the path, 2 done */
    uint32_t next_rank;
};

static bool first_calls(struct order *o, uint32_t net)
{
    uint32_t n = 0;

    o->stack[n++] = o->nfa->nets[net].start;
    o->seen[o->nfa->nets[net].start] = net + 1;
    while (n > 0) {
        const struct nfa_state *s = &o->nfa->states[o->stack[--n]];
        uint32_t to[2], n_to = 0;

        if (!s->live)
            continue;
        if (s->op == NFA_SPLIT) {
            n_to = targets(s, to);
        } else if (s->op == NFA_CALL) {
            if (o->n_calls == o->calls_allocated) {
                uint32_t room = o->calls_allocated ? 2 * o->calls_allocated : 64;
                uint32_t *grown = reallocarray(o->calls, room, sizeof(*grown));

                if (!grown)
                    return false;
                o->calls = grown;
                o->calls_allocated = room;
            }
            o->calls[o->n_calls++] = s->y;
            if (o->nfa->nets[s->y].nullable)
                to[n_to++] = s->x;
        }
        while (n_to-- > 0) {
            if (o->seen[to[n_to]] == net + 1)
                continue;
            o->seen[to[n_to]] = net + 1;
            o->stack[n++] = to[n_to];
        }
    }
    return true;
}

static void left_recursion(struct order *o, const uint32_t *path, uint32_t n_path)
{
    struct ir *ir = o->ir;

    for (uint32_t i = n_path; i > 0; i--) {
        uint32_t rule = o->nfa->nets[path[i - 1]].rule;

        if (rule == IR_NO_RULE)
            continue;
        if (ir->is_schema)
            ir_fail(ir, ir->rules[rule].place, "the schema refers to itself without anything in between");
        else
            ir_fail(ir, ir->rules[rule].place,
                    "the rule %.64s is left-recursive: it calls itself before it reads anything",
                    ir_rule_name(ir, rule));
        return;
    }
    ir_fail(ir, 0, "it calls itself before it reads anything");
}

/* Depth first without recursion; ranks are given on the way back, the last one to the net that calls all
 * others. */
static bool order_from(struct order *o, uint32_t root, uint32_t *path, uint32_t *path_calls)
{
    uint32_t n = 0;

    path[n] = root;
    path_calls[n++] = o->n_calls;
    o->state[root] = 1;
    if (!first_calls(o, root))
        return false;
    while (n > 0) {
        uint32_t net;

        if (o->n_calls == path_calls[n - 1]) {
            o->state[path[n - 1]] = 2;
            o->nfa->nets[path[n - 1]].rank = o->next_rank--;
            n--;
            continue;
        }
        net = o->calls[--o->n_calls];
        if (o->state[net] == 1) {
            uint32_t from = n;

            while (path[from - 1] != net)
                from--;
            left_recursion(o, path + from - 1, n - from + 1);
            return true;
        }
        if (o->state[net] == 2)
            continue;
        path[n] = net;
        path_calls[n++] = o->n_calls;
        o->state[net] = 1;
        if (!first_calls(o, net))
            return false;
    }
    return true;
}

static bool order_nets(struct nfa *nfa, struct ir *ir)
{
    struct order o = {.nfa = nfa, .ir = ir, .next_rank = nfa->n_nets - 1};
    uint32_t *path = calloc(nfa->n_nets, sizeof(*path)),
             *path_calls = calloc(nfa->n_nets, sizeof(*path_calls));
    bool ok;

    o.seen = calloc(nfa->n_states, sizeof(*o.seen));
    o.stack = calloc(nfa->n_states, sizeof(*o.stack));
    o.state = calloc(nfa->n_nets, 1);
    ok = o.seen && o.stack && o.state && path && path_calls;
    for (uint32_t i = 0; i < nfa->n_nets && ok && !ir->error; i++)
        if (o.state[i] == 0)
            ok = order_from(&o, i, path, path_calls);
    free(o.seen);
    free(o.stack);
    free(o.calls);
    free(o.state);
    free(path);
    free(path_calls);
    return ok;
}

void nfa_check(struct nfa *nfa, struct ir *ir)
{
    _cleanup_free_ bool *live = calloc(nfa->n_states, 1), *empty = calloc(nfa->n_states, 1);
    _cleanup_free_ bool *live_nets = calloc(nfa->n_nets, 1), *nullable = calloc(nfa->n_nets, 1);

    if (!live || !empty || !live_nets || !nullable || !reach(nfa, true, live, live_nets) ||
        !reach(nfa, false, empty, nullable)) {
        ir->error = -ENOMEM;
        return;
    }
    for (uint32_t i = 0; i < nfa->n_states; i++)
        nfa->states[i].live = live[i] && (nfa->states[i].op != NFA_CALL || live_nets[nfa->states[i].y]);
    for (uint32_t i = 0; i < nfa->n_nets; i++)
        nfa->nets[i].nullable = nullable[i];
    if (!live_nets[0])
        ir_fail(ir, 0, ir->is_schema ? "nothing can satisfy the schema" : "no text satisfies the grammar");
    else if (!order_nets(nfa, ir))
        ir->error = -ENOMEM;
}
