/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A mask is made once for each configuration and kept, as long as there is room: the oldest goes first. To
 * make one, classes of text are tried from the largest to the smallest; where one is taken as a whole its
 * tokens come from a table, and only the rest of the vocabulary is walked.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/grammar/grammar-internal.h"
#include "engine/grammar/limits.h"
#include "engine/grammar/machine.h"
#include "engine/grammar/runs.h"
#include "engine/grammar/trie.h"

#define NO_SLOT      UINT32_MAX
#define LOOP_UNKNOWN UINT8_MAX

/* How far ahead is looked, and through configurations of how many threads. */
#define GUESS_BYTES_MAX   64
#define GUESS_THREADS_MAX 8

struct slot {
    uint64_t *mask;
    uint32_t config;
    int32_t only;
};

struct first {
    uint8_t byte;
    uint32_t config;
};

struct matcher {
    struct grammar *grammar;
    const struct grammar_vocabulary *vocabulary;
    struct machine machine;
    struct runs runs;
    uint32_t config;
    bool strips; /* nothing has been said yet, and a first space does not count */

    struct slot *slots; /* [n_slots_max], n_slots of them used */
    uint32_t n_slots, n_slots_max, i_oldest;
    uint32_t *slot_of; /* [n_configs] NO_SLOT: none */
    uint32_t n_configs;
    uint64_t n_made;
    uint32_t *stack; /* [depth + 1] configurations on the way down the trie */
    uint8_t *loops;  /* [n_loops] loop_of() of configurations */
    uint32_t n_loops;
    struct first firsts[256];
    unsigned n_firsts;
};

int matcher_new(struct grammar *grammar_take, const struct grammar_vocabulary *v, unsigned flags,
                struct matcher **ret)
{
    _cleanup_(matcher_freep) struct matcher *m = calloc(1, sizeof(*m));
    int r;

    if (!m) {
        grammar_free(grammar_take);
        return -ENOMEM;
    }
    m->grammar = grammar_take;
    m->vocabulary = v;
    m->strips = flags & MATCHER_STRIP_SPACE;
    m->n_slots_max = (uint32_t)(GRAMMAR_MASK_BYTES_MAX / (v->n_words * sizeof(uint64_t)));
    if (m->n_slots_max < 8)
        m->n_slots_max = 8;
    else if (m->n_slots_max > 4096)
        m->n_slots_max = 4096;
    m->slots = calloc(m->n_slots_max, sizeof(*m->slots));
    m->stack = calloc((size_t)v->depth + 2, sizeof(*m->stack));
    if (!m->slots || !m->stack)
        return -ENOMEM;
    r = machine_init(&m->machine, &m->grammar->nfa);
    if (r == 0)
        r = runs_init(&m->runs, &m->grammar->nfa);
    if (r < 0)
        return r;
    m->config = machine_start(&m->machine);
    if (m->machine.error)
        return m->machine.error;
    *ret = TAKE_PTR(m);
    return 0;
}

struct matcher *matcher_free(struct matcher *m)
{
    if (!m)
        return NULL;
    for (uint32_t i = 0; i < m->n_slots; i++)
        free(m->slots[i].mask);
    free(m->slots);
    free(m->slot_of);
    free(m->loops);
    free(m->stack);
    runs_done(&m->runs);
    machine_done(&m->machine);
    grammar_free(m->grammar);
    free(m);
    return NULL;
}

/* ---- making masks ---- */

/* The token that ends at a node, and those of the same bytes; -1: none. */
static int32_t token_of(const struct trie *t, const struct trie_node *node)
{
    return node->is_token ? t->tokens[node->before] : -1;
}

static void allow(const struct grammar_vocabulary *v, const struct trie *t, const struct trie_node *node,
                  uint64_t *mask)
{
    int32_t token = token_of(t, node);

    if (token < 0)
        return;
    mask_set(mask, token);
    while (node->has_same && (token = v->same[token]) >= 0)
        mask_set(mask, token);
}

/* Those that end at a node or below. */
static void allow_all(const struct trie *t, const struct trie_node *node, uint64_t *mask)
{
    const uint32_t end = t->nodes[node->next].before;

    for (uint32_t i = node->before; i < end; i++)
        mask_set(mask, t->tokens[i]);
}

/*
 * The largest class of characters all of which lead from @config to itself, as inside a word; 0: not even the
 * smallest, 1: that, and so on. Only steps that were taken before are looked at, *ret_sure is false where one
 * would be new: where texts are counted there are no loops, and looking for them would cost many new steps.
 */
static uint8_t find_loop(const struct matcher *m, uint32_t config, bool *ret_sure)
{
    const uint32_t *steps = m->machine.next + (size_t)config * m->machine.n_symbols;

    *ret_sure = true;
    for (unsigned class = 0; class < RUN_TEXT; class ++) {
        const uint16_t *symbols = m->runs.symbols + (size_t) class * m->runs.n_classes;

        for (unsigned i = 0; i < m->runs.n_symbols[class]; i++) {
            if (steps[symbols[i]] == config)
                continue;
            *ret_sure = steps[symbols[i]] != MACHINE_UNKNOWN;
            return (uint8_t) class;
        }
    }
    return RUN_TEXT;
}

static uint8_t loop_of(struct matcher *m, uint32_t config)
{
    uint8_t loop;
    bool sure;

    if (config >= m->n_loops) {
        uint32_t n = m->machine.configs.n + m->machine.configs.n / 2 + 64;
        uint8_t *grown = realloc(m->loops, n);

        /* Without it, everything is looked at. */
        if (!grown)
            return 0;
        memset(grown + m->n_loops, LOOP_UNKNOWN, n - m->n_loops);
        m->loops = grown;
        m->n_loops = n;
    }
    if (m->loops[config] == LOOP_UNKNOWN) {
        loop = find_loop(m, config, &sure);
        if (!sure)
            return loop;
        m->loops[config] = loop;
    }
    return m->loops[config];
}

/*
 * The tokens of a trie that begin with one byte. This is where masks are made: the table of steps is kept at
 * hand, and only a step that was never taken leaves the loop.
 */
static void walk_byte(struct matcher *m, const struct trie *t, uint8_t byte, uint32_t first, uint64_t *mask)
{
    const uint16_t *class_of = m->grammar->nfa.class_of;
    const uint32_t *steps = m->machine.next;
    const size_t n_symbols = m->machine.n_symbols;
    const uint32_t end = t->first[byte + 1];
    uint32_t i = t->first[byte], *stack = m->stack;

    if (i == end)
        return;
    allow(m->vocabulary, t, &t->nodes[i], mask);
    stack[1] = first;
    for (i++; i < end;) {
        const struct trie_node *node = &t->nodes[i];
        uint32_t config = stack[node->depth], symbol = class_of[node->byte],
                 next = steps[config * n_symbols + symbol];

        if (next == MACHINE_UNKNOWN) {
            next = machine_take(&m->machine, config, symbol);
            steps = m->machine.next;
        }
        if (next == MACHINE_DEAD) {
            i = node->next;
            continue;
        }
        if (node->rest < RUN_TEXT && node->rest < loop_of(m, next)) {
            allow_all(t, node, mask);
            i = node->next;
            continue;
        }
        allow(m->vocabulary, t, node, mask);
        stack[node->depth + 1] = next;
        i++;
    }
}

/* The bytes that a token may begin with, and where they lead. */
static void find_firsts(struct matcher *m)
{
    const uint16_t *class_of = m->grammar->nfa.class_of;

    m->n_firsts = 0;
    for (unsigned byte = 0; byte < 256; byte++) {
        uint32_t next =
            m->strips && byte == ' ' ? m->config : machine_step(&m->machine, m->config, class_of[byte]);

        if (next != MACHINE_DEAD)
            m->firsts[m->n_firsts++] = (struct first){(uint8_t)byte, next};
    }
}

static void walk(struct matcher *m, unsigned part, uint64_t *mask)
{
    for (unsigned i = 0; i < m->n_firsts; i++)
        walk_byte(m, &m->vocabulary->parts[part], m->firsts[i].byte, m->firsts[i].config, mask);
}

static void add_mask(uint64_t *mask, const uint64_t *more, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        mask[i] |= more[i];
}

static void make_text(struct matcher *m, uint64_t *mask)
{
    const struct grammar_vocabulary *v = m->vocabulary;

    for (int class = RUN_CLASS_MAX - 1; class >= 0; class --) {
        unsigned n = RUN_CHARACTERS_MAX + 1;
        enum run_kind kind =
            m->strips ? RUN_MIXED : runs_find(&m->runs, &m->machine, m->config, (enum run_class) class, &n);

        if (kind == RUN_MIXED) {
            walk(m, PART_SHORT(class), mask);
            walk(m, PART_LONG(class), mask);
            continue;
        }
        if (kind == RUN_LONG) {
            n = RUN_CHARACTERS_MAX;
            for (int smaller = class; smaller >= 0; smaller--)
                walk(m, PART_LONG(smaller), mask);
        }
        if (n > 0)
            add_mask(mask, trie_run(v, (enum run_class) class, n), v->n_words);
        break;
    }
    walk(m, PART_OTHER, mask);
}

static int32_t only_one(const uint64_t *mask, uint32_t n_words)
{
    int32_t only = -1;

    for (uint32_t i = 0; i < n_words; i++) {
        if (mask[i] == 0)
            continue;
        if (only >= 0 || (mask[i] & (mask[i] - 1)) != 0)
            return -1;
        only = (int32_t)(64 * i) + __builtin_ctzll(mask[i]);
    }
    return only;
}

static void make_mask(struct matcher *m, uint64_t *mask)
{
    const struct grammar_vocabulary *v = m->vocabulary;
    const struct nfa *nfa = &m->grammar->nfa;

    memset(mask, 0, v->n_words * sizeof(*mask));
    m->machine.work = 0;
    find_firsts(m);
    make_text(m, mask);
    for (uint32_t i = 0; i < nfa->n_tokens; i++)
        if (machine_step(&m->machine, m->config, nfa->n_classes + i) != MACHINE_DEAD)
            mask_set(mask, nfa->tokens[i]);
    if (machine_accepts(&m->machine, m->config))
        add_mask(mask, v->ends, v->n_words);
}

/* ---- keeping them ---- */

static int reserve_configs(struct matcher *m)
{
    uint32_t n = m->machine.configs.n, *grown;

    if (n <= m->n_configs)
        return 0;
    n += n / 2;
    grown = reallocarray(m->slot_of, n, sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    memset(grown + m->n_configs, 0xFF, (n - m->n_configs) * sizeof(*grown));
    m->slot_of = grown;
    m->n_configs = n;
    return 0;
}

static int take_slot(struct matcher *m, struct slot **ret)
{
    struct slot *slot;

    if (m->n_slots < m->n_slots_max) {
        slot = &m->slots[m->n_slots];
        slot->mask = malloc(m->vocabulary->n_words * sizeof(*slot->mask));
        if (!slot->mask)
            return -ENOMEM;
        m->n_slots++;
    } else {
        slot = &m->slots[m->i_oldest];
        m->i_oldest = (m->i_oldest + 1) % m->n_slots_max;
        if (slot->config != MACHINE_DEAD)
            m->slot_of[slot->config] = NO_SLOT;
    }
    slot->config = MACHINE_DEAD;
    *ret = slot;
    return 0;
}

/* The machine found so much that it has to begin anew; masks go with the numbers that they were kept under.
 */
static int forget(struct matcher *m)
{
    m->machine.work = 0;
    m->config = machine_forget(&m->machine, m->config);
    for (uint32_t i = 0; i < m->n_slots; i++)
        m->slots[i].config = MACHINE_DEAD;
    if (m->n_configs > 0)
        memset(m->slot_of, 0xFF, m->n_configs * sizeof(*m->slot_of));
    if (m->n_loops > 0)
        memset(m->loops, LOOP_UNKNOWN, m->n_loops);
    return m->machine.error;
}

int matcher_mask(struct matcher *m, const uint64_t **ret_mask, int32_t *ret_only)
{
    struct slot *slot;
    int r;

    if (m->machine.error)
        return m->machine.error;
    if (m->config >= m->n_configs || m->slot_of[m->config] == NO_SLOT) {
        if (m->machine.bytes > GRAMMAR_MACHINE_BYTES_SOFT) {
            r = forget(m);
            if (r < 0)
                return r;
        }
        r = take_slot(m, &slot);
        if (r < 0)
            return r;
        make_mask(m, slot->mask);
        m->n_made++;
        if (m->machine.error)
            return m->machine.error;
        r = reserve_configs(m);
        if (r < 0)
            return r;
        slot->only = only_one(slot->mask, m->vocabulary->n_words);
        /* The first mask, with its spaces that do not count, is of no other place. */
        if (!m->strips) {
            slot->config = m->config;
            m->slot_of[m->config] = (uint32_t)(slot - m->slots);
        }
    } else {
        slot = &m->slots[m->slot_of[m->config]];
    }
    *ret_mask = slot->mask;
    *ret_only = slot->only;
    return 0;
}

/* ---- going on ---- */

static uint32_t after_text(struct matcher *m, int32_t token)
{
    const struct grammar_vocabulary *v = m->vocabulary;
    const char *bytes = v->bytes + v->at[token], *end = v->bytes + v->at[token + 1];
    uint32_t config = m->config;

    if (bytes == end)
        return MACHINE_DEAD;
    if (m->strips && *bytes == ' ')
        bytes++;
    for (; bytes < end && config != MACHINE_DEAD; bytes++)
        config = machine_step(&m->machine, config, m->grammar->nfa.class_of[(uint8_t)*bytes]);
    return config;
}

int matcher_accept(struct matcher *m, int32_t token)
{
    const struct nfa *nfa = &m->grammar->nfa;
    uint32_t config = MACHINE_DEAD;

    if (m->machine.error)
        return m->machine.error;
    if (token < 0 || (uint32_t)token >= m->vocabulary->n_tokens)
        return -EINVAL;
    m->machine.work = 0;
    for (uint32_t i = 0; i < nfa->n_tokens && config == MACHINE_DEAD; i++)
        if (nfa->tokens[i] == token)
            config = machine_step(&m->machine, m->config, nfa->n_classes + i);
    if (config == MACHINE_DEAD && !mask_has(m->vocabulary->ends, token))
        config = after_text(m, token);
    if (m->machine.error)
        return m->machine.error;
    if (config == MACHINE_DEAD)
        return -EINVAL;
    m->config = config;
    m->strips = false;
    return 0;
}

/* ---- guessing ---- */

/* One configuration's number of threads is far from what a step may refuse, so looking ahead refuses nothing.
 */
static bool is_simple(const struct matcher *m, uint32_t config)
{
    uint32_t n_words;

    intern_get(&m->machine.configs, config, &n_words);
    return n_words / 2 <= GUESS_THREADS_MAX;
}

/* The only byte that may come next; -1: there are several, a token, or the end. */
static int only_byte(struct matcher *m, uint32_t config, uint32_t *ret_next)
{
    const struct nfa *nfa = &m->grammar->nfa;
    int found = -1;

    if (!is_simple(m, config) || machine_accepts(&m->machine, config))
        return -1;
    for (uint32_t i = 0; i < nfa->n_tokens; i++)
        if (machine_step(&m->machine, config, nfa->n_classes + i) != MACHINE_DEAD)
            return -1;
    for (unsigned byte = 0; byte < 256; byte++) {
        uint32_t next = machine_step(&m->machine, config, nfa->class_of[byte]);

        if (next == MACHINE_DEAD)
            continue;
        if (found >= 0)
            return -1;
        found = (int)byte;
        *ret_next = next;
    }
    return found;
}

/* Of tokens with the same bytes the last: a byte's own token comes before the one that models say it with. */
static int32_t last_same(const struct grammar_vocabulary *v, int32_t token)
{
    int32_t last = token;

    for (; token >= 0; token = v->same[token])
        last = token > last ? token : last;
    return last;
}

/* The longest token of @t that @text begins with, and its length in *ret_n; -1: none. */
static int32_t longest(const struct trie *t, const uint8_t *text, uint32_t n_text, uint32_t *ret_n)
{
    uint32_t i = t->first[text[0]], end = t->first[text[0] + 1], n = 1;
    int32_t token = -1;

    *ret_n = 0;
    while (i < end) {
        const struct trie_node *node = &t->nodes[i];

        /* Its bytes are those on the way here and its own; the first node of a byte stands for that alone. */
        if (n > 1 && node->byte != text[n - 1]) {
            i = node->next;
            continue;
        }
        if (node->is_token) {
            token = token_of(t, node);
            *ret_n = n;
        }
        if (n++ == n_text)
            break;
        end = node->next;
        i++;
    }
    return token;
}

uint32_t matcher_guess(struct matcher *m, int32_t *ret, uint32_t n_max)
{
    uint32_t config = m->config, n_text = 0, n = 0;
    uint8_t text[GUESS_BYTES_MAX];
    int byte;

    if (m->machine.error || m->strips || m->machine.bytes > GRAMMAR_MACHINE_BYTES_SOFT / 2)
        return 0;
    m->machine.work = 0;
    while (n_text < GUESS_BYTES_MAX && (byte = only_byte(m, config, &config)) >= 0)
        text[n_text++] = (uint8_t)byte;
    for (uint32_t at = 0; at < n_text && n < n_max;) {
        uint32_t best = 0;

        for (unsigned part = 0; part < PART_MAX; part++) {
            uint32_t length;
            int32_t token = longest(&m->vocabulary->parts[part], text + at, n_text - at, &length);

            if (length <= best)
                continue;
            best = length;
            ret[n] = last_same(m->vocabulary, token);
        }
        if (best == 0)
            break;
        at += best;
        n++;
    }
    return n;
}

bool matcher_is_complete(const struct matcher *m)
{
    return machine_ends(&m->machine, m->config);
}

bool matcher_may_end(const struct matcher *m)
{
    return machine_accepts(&m->machine, m->config);
}

uint64_t matcher_n_made(const struct matcher *m)
{
    return m->n_made;
}
