/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Emission goes backwards: each node is given the state that follows it and returns the state to enter, so
 * that nothing has to be patched but loops. Sizes are counted before anything is written out, with
 * saturation, so that "(x{9999}){9999}" costs nothing but its error.
 */
#include "engine/grammar/nfa.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "engine/grammar/ir.h"
#include "engine/grammar/limits.h"
#include "engine/grammar/nfa-check.h"

#define NO_NET UINT32_MAX

enum visit { UNSEEN, OPEN, DONE };

struct build {
    struct nfa *nfa;
    struct ir *ir;
    uint64_t *sizes;    /* [n_nodes] states of a node written out, 0: not counted yet */
    uint32_t *node_net; /* [n_nodes] the net that a repeated node became, NO_NET: none */
    uint64_t *rule_sizes;
    uint32_t *rule_net;  /* [n_rules] NO_NET: written out */
    uint32_t *rule_uses; /* [n_rules] */
    uint8_t *rule_seen;  /* enum visit */
    unsigned depth;
};

static bool too_deep(struct build *b, uint32_t node)
{
    if (b->depth < 8 * GRAMMAR_DEPTH_MAX)
        return false;
    ir_fail(b->ir, b->ir->nodes[node].place, "rules are nested too deeply");
    return true;
}

/* ---- which rules are recursive, how large is what ---- */

static uint64_t saturate(uint64_t n)
{
    return n < GRAMMAR_STATES_MAX ? n : GRAMMAR_STATES_MAX + 1;
}

static uint64_t count(struct build *b, uint32_t node);

static uint64_t count_rule(struct build *b, uint32_t rule)
{
    if (b->rule_seen[rule] == OPEN) {
        b->rule_net[rule] = 0; /* recursive: its number comes later */
        return 1;
    }
    if (b->rule_seen[rule] == UNSEEN) {
        b->rule_seen[rule] = OPEN;
        b->rule_sizes[rule] = count(b, b->ir->rules[rule].body);
        b->rule_seen[rule] = DONE;
    }
    if (b->rule_net[rule] != NO_NET)
        return 1;
    if (b->rule_uses[rule] > 1 && b->rule_sizes[rule] > GRAMMAR_INLINE_MAX) {
        b->rule_net[rule] = 0;
        return 1;
    }
    return b->rule_sizes[rule];
}

static uint64_t count_repeat(struct build *b, const struct ir_node *n)
{
    uint64_t one = count(b, n->at), times = n->max == IR_FOREVER ? (n->min > 1 ? n->min : 1) : n->max;

    /* Many copies of something large are calls of it. */
    if (one > GRAMMAR_INLINE_MAX && times > 2) {
        b->node_net[n->at] = 0;
        one = 1;
    }
    return saturate((one + 1) * times + 1);
}

/* Bytes of the longest spelling times the ways to get there; an upper bound is enough. */
static uint64_t count_class(const struct build *b, const struct ir_node *n)
{
    if (n->n == 0)
        return 1;
    return 2 * (uint64_t)n->n +
           (b->ir->ranges[n->at + n->n - 1].high < 0x80 ? 0 : 12 * (uint64_t)n->n + 8);
}

static uint64_t count(struct build *b, uint32_t node)
{
    const struct ir_node *n = &b->ir->nodes[node];
    uint64_t size = 1;

    if (b->sizes[node] || b->ir->error || too_deep(b, node))
        return b->sizes[node];
    b->depth++;
    switch (n->kind) {
    case IR_EMPTY:
    case IR_TOKEN:
        break;
    case IR_BYTES:
        size = n->n;
        break;
    case IR_CLASS:
        size = count_class(b, n);
        break;
    case IR_CAT:
    case IR_ALT:
    case IR_LIST:
        for (uint32_t i = 0; i < n->n; i++)
            size += count(b, b->ir->children[n->at + i]) + 2;
        if (n->kind == IR_LIST)
            size += (count(b, b->ir->children[n->at]) + 2) * n->n;
        break;
    case IR_REPEAT:
        size = count_repeat(b, n);
        break;
    case IR_RULE:
        size = count_rule(b, n->at);
        break;
    }
    b->depth--;
    size = saturate(size);
    if (size > GRAMMAR_STATES_MAX)
        ir_fail(b->ir, n->place, "written out, this needs more than %u states: ask for fewer repetitions",
                GRAMMAR_STATES_MAX);
    b->sizes[node] = size;
    return size;
}

/* ---- emission ---- */

static uint32_t emit(struct build *b, uint32_t node, uint32_t next);

static uint32_t add(struct build *b, struct nfa_state state)
{
    struct nfa *nfa = b->nfa;

    if (b->ir->error)
        return 0;
    if (nfa->n_states == nfa->states_allocated) {
        uint32_t n = nfa->states_allocated ? 2 * nfa->states_allocated : 256;
        struct nfa_state *grown;

        if (nfa->n_states >= 2 * GRAMMAR_STATES_MAX) {
            ir_fail(b->ir, 0, "the grammar needs more than %u states", 2 * GRAMMAR_STATES_MAX);
            return 0;
        }
        grown = reallocarray(nfa->states, n, sizeof(*grown));
        if (!grown) {
            b->ir->error = -ENOMEM;
            return 0;
        }
        nfa->states = grown;
        nfa->states_allocated = n;
    }
    nfa->states[nfa->n_states] = state;
    return nfa->n_states++;
}

static uint32_t add_byte(struct build *b, uint32_t low, uint32_t high, uint32_t next)
{
    return add(b, (struct nfa_state){.op = NFA_BYTE, .low = (uint8_t)low, .high = (uint8_t)high, .x = next});
}

static uint32_t add_split(struct build *b, uint32_t x, uint32_t y)
{
    return add(b, (struct nfa_state){.op = NFA_SPLIT, .x = x, .y = y});
}

static uint32_t add_call(struct build *b, uint32_t net, uint32_t next)
{
    return add(b, (struct nfa_state){.op = NFA_CALL, .x = next, .y = net});
}

static uint32_t add_net(struct build *b, uint32_t rule)
{
    struct nfa *nfa = b->nfa;

    if (nfa->n_nets == nfa->nets_allocated) {
        uint32_t n = nfa->nets_allocated ? 2 * nfa->nets_allocated : 64;
        struct nfa_net *grown = reallocarray(nfa->nets, n, sizeof(*grown));

        if (!grown) {
            b->ir->error = -ENOMEM;
            return 0;
        }
        nfa->nets = grown;
        nfa->nets_allocated = n;
    }
    nfa->nets[nfa->n_nets] = (struct nfa_net){.rule = rule};
    return nfa->n_nets++;
}

/* Alternatives are collected in one entry state. */
struct choice {
    uint32_t entry;
    bool any;
};

static void choose(struct build *b, struct choice *c, uint32_t entry)
{
    c->entry = c->any ? add_split(b, entry, c->entry) : entry;
    c->any = true;
}

/*
 * The characters from @low to @high, whose spellings have the same length, by their bytes from number @i on.
 * @tails[k]: a state that takes any k continuation bytes and goes on with tails[0]; 0: not made yet.
 */
static uint32_t emit_spelling(struct build *b, const char *low, const char *high, size_t n, size_t i,
                              uint32_t *tails);

static uint32_t tail(struct build *b, uint32_t *tails, size_t k)
{
    if (k > 0 && !tails[k])
        tails[k] = add_byte(b, 0x80, 0xBF, tail(b, tails, k - 1));
    return tails[k];
}

static bool is_all(const char *bytes, size_t from, size_t n, int value)
{
    for (; from < n; from++)
        if ((unsigned char)bytes[from] != value)
            return false;
    return true;
}

static uint32_t emit_spelling(struct build *b, const char *low, const char *high, size_t n, size_t i,
                              uint32_t *tails)
{
    static const char least[] = "\x80\x80\x80\x80", most[] = "\xBF\xBF\xBF\xBF";
    unsigned from = (unsigned char)low[i], to = (unsigned char)high[i];
    struct choice c = {0};

    if (i + 1 == n)
        return add_byte(b, from, to, tails[0]);
    if (is_all(low, i + 1, n, 0x80) && is_all(high, i + 1, n, 0xBF))
        return add_byte(b, from, to, tail(b, tails, n - i - 1));
    if (from == to)
        return add_byte(b, from, to, emit_spelling(b, low, high, n, i + 1, tails));
    if (!is_all(low, i + 1, n, 0x80)) {
        choose(b, &c, add_byte(b, from, from, emit_spelling(b, low, most, n, i + 1, tails)));
        from++;
    }
    if (!is_all(high, i + 1, n, 0xBF)) {
        choose(b, &c, add_byte(b, to, to, emit_spelling(b, least, high, n, i + 1, tails)));
        to--;
    }
    if (from <= to)
        choose(b, &c, add_byte(b, from, to, tail(b, tails, n - i - 1)));
    return c.entry;
}

static uint32_t emit_class(struct build *b, const struct ir_node *n, uint32_t next)
{
    static const uint32_t ends[] = {0x7F, 0x7FF, 0xFFFF, 0x10FFFF};
    uint32_t tails[UTF8_BYTES_MAX] = {next};
    struct choice c = {0};

    if (n->n == 0)
        return add(b, (struct nfa_state){.op = NFA_FAIL});
    for (uint32_t i = 0; i < n->n && !b->ir->error; i++) {
        uint32_t low = b->ir->ranges[n->at + i].low, high = b->ir->ranges[n->at + i].high;

        for (size_t k = 0; k < 4 && low <= high; k++) {
            uint32_t end = high < ends[k] ? high : ends[k];
            char first[UTF8_BYTES_MAX], last[UTF8_BYTES_MAX];

            if (low > ends[k])
                continue;
            utf8_encode(low, first);
            utf8_encode(end, last);
            choose(b, &c, emit_spelling(b, first, last, k + 1, 0, tails));
            low = end + 1;
        }
    }
    return c.entry;
}

/* A child that is repeated, or the call of the net that it became. */
static uint32_t emit_once(struct build *b, uint32_t node, uint32_t next)
{
    if (b->node_net[node] != NO_NET)
        return add_call(b, b->node_net[node], next);
    return emit(b, node, next);
}

static uint32_t emit_repeat(struct build *b, const struct ir_node *n, uint32_t next)
{
    uint32_t entry = next, i = 0;

    if (n->max == IR_FOREVER) {
        uint32_t loop = add_split(b, 0, next), body = emit_once(b, n->at, loop);

        if (b->ir->error)
            return 0;
        b->nfa->states[loop].x = body;
        entry = n->min == 0 ? loop : body;
        i = n->min == 0 ? 0 : 1;
    } else {
        for (uint32_t k = n->min; k < n->max && !b->ir->error; k++)
            entry = add_split(b, emit_once(b, n->at, entry), next);
    }
    for (; i < n->min && !b->ir->error; i++)
        entry = emit_once(b, n->at, entry);
    return entry;
}

/* Two tracks, with and without something before: what follows an item is emitted once. */
static uint32_t emit_list(struct build *b, const struct ir_node *n, uint32_t next)
{
    const uint32_t at = n->at, n_items = n->n - 1;
    uint32_t first = next, later = next;

    for (uint32_t i = n_items; i > 0 && !b->ir->error; i--) {
        uint32_t body = emit(b, b->ir->children[at + i], later);
        uint32_t behind = emit(b, b->ir->children[at], body);

        if (b->ir->needed[at + i]) {
            first = body;
            later = behind;
        } else {
            first = add_split(b, body, first);
            later = add_split(b, behind, later);
        }
    }
    return first;
}

static uint32_t emit(struct build *b, uint32_t node, uint32_t next)
{
    const struct ir_node n = b->ir->nodes[node];
    uint32_t entry = next;
    struct choice c = {0};

    if (b->ir->error || too_deep(b, node))
        return 0;
    b->depth++;
    switch (n.kind) {
    case IR_EMPTY:
        break;
    case IR_BYTES:
        for (uint32_t i = n.n; i > 0; i--) {
            uint8_t byte = (uint8_t)b->ir->bytes[n.at + i - 1];

            entry = add_byte(b, byte, byte, entry);
        }
        break;
    case IR_CLASS:
        entry = emit_class(b, &n, next);
        break;
    case IR_TOKEN:
        entry = add(b, (struct nfa_state){.op = NFA_TOKEN, .x = next, .y = n.at});
        break;
    case IR_CAT:
        for (uint32_t i = n.n; i > 0; i--)
            entry = emit(b, b->ir->children[n.at + i - 1], entry);
        break;
    case IR_ALT:
        for (uint32_t i = 0; i < n.n; i++)
            choose(b, &c, emit(b, b->ir->children[n.at + i], next));
        entry = c.any ? c.entry : add(b, (struct nfa_state){.op = NFA_FAIL});
        break;
    case IR_LIST:
        entry = emit_list(b, &n, next);
        break;
    case IR_REPEAT:
        entry = emit_repeat(b, &n, next);
        break;
    case IR_RULE:
        entry = b->rule_net[n.at] != NO_NET ? add_call(b, b->rule_net[n.at], next)
                                            : emit(b, b->ir->rules[n.at].body, next);
        break;
    }
    b->depth--;
    return entry;
}

/* ---- all of it ---- */

static void number_nets(struct build *b)
{
    struct ir *ir = b->ir;

    add_net(b, ir->root);
    for (uint32_t i = 0; i < ir->n_rules && !ir->error; i++)
        if (b->rule_net[i] != NO_NET)
            b->rule_net[i] = add_net(b, i);
    for (uint32_t i = 0; i < ir->n_nodes && !ir->error; i++)
        if (b->node_net[i] != NO_NET)
            b->node_net[i] = add_net(b, IR_NO_RULE);
}

static void emit_nets(struct build *b)
{
    struct ir *ir = b->ir;

    add(b, (struct nfa_state){.op = NFA_ACCEPT});
    for (uint32_t i = 0; i < ir->n_rules && !ir->error; i++)
        if (b->rule_net[i] != NO_NET)
            b->nfa->nets[b->rule_net[i]].start = emit(b, ir->rules[i].body, 0);
    for (uint32_t i = 0; i < ir->n_nodes && !ir->error; i++)
        if (b->node_net[i] != NO_NET)
            b->nfa->nets[b->node_net[i]].start = emit(b, i, 0);
    /* The root may be a net that others call, too. */
    if (!ir->error)
        b->nfa->nets[0].start = b->rule_net[ir->root] != NO_NET ? add_call(b, b->rule_net[ir->root], 0)
                                                                : emit(b, ir->rules[ir->root].body, 0);
}

static void divide_bytes(struct nfa *nfa)
{
    bool begins[257] = {true};
    uint16_t class = 0;

    for (uint32_t i = 0; i < nfa->n_states; i++)
        if (nfa->states[i].op == NFA_BYTE)
            begins[nfa->states[i].low] = begins[nfa->states[i].high + 1] = true;
    for (unsigned byte = 0; byte < 256; byte++) {
        if (begins[byte] && byte > 0)
            class ++;
        nfa->class_of[byte] = class;
        nfa->byte_of[class] = (uint8_t)byte;
    }
    nfa->n_classes = (uint16_t)(class + 1);
}

void nfa_build(struct nfa *nfa, struct ir *ir)
{
    struct build b = {.nfa = nfa, .ir = ir};

    b.sizes = calloc(ir->n_nodes + 1, sizeof(*b.sizes));
    b.node_net = malloc((ir->n_nodes + 1) * sizeof(*b.node_net));
    b.rule_sizes = calloc(ir->n_rules + 1, sizeof(*b.rule_sizes));
    b.rule_net = malloc((ir->n_rules + 1) * sizeof(*b.rule_net));
    b.rule_uses = calloc(ir->n_rules + 1, sizeof(*b.rule_uses));
    b.rule_seen = calloc(ir->n_rules + 1, 1);
    nfa->tokens = calloc(GRAMMAR_TOKENS_MAX, sizeof(*nfa->tokens));
    if (!b.sizes || !b.node_net || !b.rule_sizes || !b.rule_net || !b.rule_uses || !b.rule_seen ||
        !nfa->tokens)
        ir->error = -ENOMEM;
    if (!ir->error) {
        memset(b.node_net, 0xFF, (ir->n_nodes + 1) * sizeof(*b.node_net));
        memset(b.rule_net, 0xFF, (ir->n_rules + 1) * sizeof(*b.rule_net));
        for (uint32_t i = 0; i < ir->n_nodes; i++)
            if (ir->nodes[i].kind == IR_RULE)
                b.rule_uses[ir->nodes[i].at]++;
        count_rule(&b, ir->root);
        number_nets(&b);
        emit_nets(&b);
        memcpy(nfa->tokens, ir->tokens, ir->n_tokens * sizeof(*nfa->tokens));
        nfa->n_tokens = ir->n_tokens;
    }
    if (!ir->error)
        divide_bytes(nfa);
    if (!ir->error)
        nfa_check(nfa, ir);
    free(b.sizes);
    free(b.node_net);
    free(b.rule_sizes);
    free(b.rule_net);
    free(b.rule_uses);
    free(b.rule_seen);
}

void nfa_done(struct nfa *nfa)
{
    free(nfa->states);
    free(nfa->nets);
    free(nfa->tokens);
    *nfa = (struct nfa){0};
}
