/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A step: every thread's set takes the symbol; threads whose net is through return into the frames that wait
 * for them, which are older and so have lower numbers; then nets are called, callers before callees (their
 * ranks), and all calls of one net at one place share a frame. A call that has nothing left to do afterwards
 * hands on its own callers instead of itself, so that right recursion does not pile up frames.
 */
#include "engine/grammar/machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/grammar/limits.h"

static uint32_t fail(struct machine *m, int error)
{
    if (!m->error)
        m->error = error;
    return MACHINE_DEAD;
}

static uint32_t put(struct machine *m, struct intern *t, const uint32_t *words, uint32_t n)
{
    uint32_t row = intern_put(t, words, n, &m->bytes);

    m->work += n;
    if (row == INTERN_NONE || m->bytes > GRAMMAR_MACHINE_BYTES_MAX || m->work > GRAMMAR_WORK_MAX)
        return fail(m, row == INTERN_NONE ? -ENOMEM : -E2BIG);
    return row;
}

/* Rows of a table of steps for rows up to @row. */
static bool reserve(struct machine *m, uint32_t **table, uint32_t row, uint32_t *allocated)
{
    uint32_t room = *allocated ? *allocated : 16, *grown;

    if (row < *allocated)
        return true;
    while (room <= row)
        room *= 2;
    grown = reallocarray(*table, (size_t)room * m->n_symbols, sizeof(*grown));
    if (!grown) {
        fail(m, -ENOMEM);
        return false;
    }
    memset(grown + (size_t)*allocated * m->n_symbols, 0xFF,
           (size_t)(room - *allocated) * m->n_symbols * sizeof(*grown));
    m->bytes += (size_t)(room - *allocated) * m->n_symbols * sizeof(*grown);
    *table = grown;
    *allocated = room;
    return true;
}

/* ---- sets ---- */

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static void sort(uint32_t *list, uint32_t n)
{
    if (n > 32) {
        qsort(list, n, sizeof(*list), by_number);
        return;
    }
    for (uint32_t i = 1; i < n; i++) {
        uint32_t x = list[i], k = i;

        for (; k > 0 && list[k - 1] > x; k--)
            list[k] = list[k - 1];
        list[k] = x;
    }
}

static uint32_t put_set(struct machine *m, uint32_t *list, uint32_t n)
{
    uint32_t set;

    sort(list, n);
    set = put(m, &m->sets, list, n);
    if (m->error || !reserve(m, &m->set_next, set, &m->sets_allocated))
        return 0;
    return set;
}

/* Adds to m->list what can be reached from @state without reading anything; @n and the result: its length. */
static uint32_t close_state(struct machine *m, uint32_t state, uint32_t n)
{
    uint32_t n_stack = 0;

    if (m->marks[state] == m->mark)
        return n;
    m->marks[state] = m->mark;
    m->stack[n_stack++] = state;
    while (n_stack > 0) {
        uint32_t at = m->stack[--n_stack], to[2], n_to = 0;
        const struct nfa_state *s = &m->nfa->states[at];

        if (!s->live)
            continue;
        if (s->op == NFA_SPLIT) {
            to[n_to++] = s->x;
            to[n_to++] = s->y;
        } else {
            m->list[n++] = at;
            if (s->op == NFA_CALL && m->nfa->nets[s->y].nullable)
                to[n_to++] = s->x;
        }
        while (n_to-- > 0) {
            if (m->marks[to[n_to]] == m->mark)
                continue;
            m->marks[to[n_to]] = m->mark;
            m->stack[n_stack++] = to[n_to];
        }
    }
    return n;
}

static void begin_list(struct machine *m)
{
    m->work++;
    if (++m->mark == 0) {
        memset(m->marks, 0, m->nfa->n_states * sizeof(*m->marks));
        m->mark = 1;
    }
}

static uint32_t closure(struct machine *m, uint32_t state)
{
    if (m->closures[state] == MACHINE_UNKNOWN) {
        begin_list(m);
        m->closures[state] = put_set(m, m->list, close_state(m, state, 0));
    }
    return m->closures[state];
}

static uint32_t join(struct machine *m, uint32_t a, uint32_t b)
{
    const uint32_t *x, *y;
    uint32_t n_x, n_y, i = 0, k = 0, n = 0;

    if (a == b)
        return a;
    x = intern_get(&m->sets, a, &n_x);
    y = intern_get(&m->sets, b, &n_y);
    while (i < n_x || k < n_y) {
        uint32_t state = k == n_y || (i < n_x && x[i] <= y[k]) ? x[i] : y[k];

        i += i < n_x && x[i] == state;
        k += k < n_y && y[k] == state;
        m->list[n++] = state;
    }
    return put_set(m, m->list, n);
}

/* The bytes around @byte that the same states take: their step is the same, too. */
static void widen(const struct nfa_state *s, uint8_t byte, uint8_t *low, uint8_t *high)
{
    if (s->low > byte)
        *high = s->low <= *high ? (uint8_t)(s->low - 1) : *high;
    else if (s->high < byte)
        *low = s->high >= *low ? (uint8_t)(s->high + 1) : *low;
    else {
        *low = s->low > *low ? s->low : *low;
        *high = s->high < *high ? s->high : *high;
    }
}

static uint32_t set_take_byte(struct machine *m, uint32_t set, uint8_t byte)
{
    uint32_t n_states, n = 0, next, *row;
    const uint32_t *states = intern_get(&m->sets, set, &n_states);
    uint8_t low = 0, high = UINT8_MAX;

    for (uint32_t i = 0; i < n_states; i++) {
        const struct nfa_state *s = &m->nfa->states[states[i]];

        if (s->op != NFA_BYTE)
            continue;
        widen(s, byte, &low, &high);
        if (s->low <= byte && byte <= s->high)
            n = close_state(m, s->x, n);
    }
    next = put_set(m, m->list, n);
    row = m->set_next + (size_t)set * m->n_symbols;
    for (uint32_t class = m->nfa->class_of[low]; class <= m->nfa->class_of[high] && !m->error; class ++)
        row[class] = next;
    return next;
}

static uint32_t set_take(struct machine *m, uint32_t set, uint32_t symbol)
{
    size_t at = (size_t)set * m->n_symbols + symbol;
    uint32_t n_states, n = 0, next;
    const uint32_t *states;

    if (m->set_next[at] != MACHINE_UNKNOWN)
        return m->set_next[at];
    states = intern_get(&m->sets, set, &n_states);
    begin_list(m);
    m->work += n_states;
    if (symbol < m->nfa->n_classes)
        return set_take_byte(m, set, m->nfa->byte_of[symbol]);
    for (uint32_t i = 0; i < n_states; i++) {
        const struct nfa_state *s = &m->nfa->states[states[i]];

        if (s->op == NFA_TOKEN && s->y == symbol - m->nfa->n_classes)
            n = close_state(m, s->x, n);
    }
    next = put_set(m, m->list, n);
    if (!m->error)
        m->set_next[at] = next;
    return next;
}

/* ---- threads ---- */

/* Threads are sorted by falling frame: returns go to older frames, which come later. */
static void add_thread(struct machine *m, uint32_t frame, uint32_t set)
{
    uint32_t at = 0;

    while (at < m->n_threads && m->threads[at].frame > frame)
        at++;
    if (at < m->n_threads && m->threads[at].frame == frame) {
        m->threads[at].set = join(m, m->threads[at].set, set);
        return;
    }
    if (m->n_threads == GRAMMAR_THREADS_MAX) {
        fail(m, -E2BIG);
        return;
    }
    memmove(&m->threads[at + 1], &m->threads[at], (m->n_threads - at) * sizeof(*m->threads));
    m->threads[at] = (struct machine_thread){frame, set};
    m->n_threads++;
}

static bool is_through(const struct machine *m, uint32_t set)
{
    uint32_t n;
    const uint32_t *states = intern_get(&m->sets, set, &n);

    return n > 0 && states[0] == 0;
}

static bool can_read(const struct machine *m, uint32_t set)
{
    uint32_t n;
    const uint32_t *states = intern_get(&m->sets, set, &n);

    for (uint32_t i = 0; i < n; i++)
        if (m->nfa->states[states[i]].op == NFA_BYTE || m->nfa->states[states[i]].op == NFA_TOKEN)
            return true;
    return false;
}

static void return_from_nets(struct machine *m)
{
    for (uint32_t i = 0; i < m->n_threads && !m->error; i++) {
        uint32_t frame = m->threads[i].frame, n;

        if (frame == 0 || !is_through(m, m->threads[i].set))
            continue;
        (void)intern_get(&m->frames, frame, &n);
        for (uint32_t k = 0; k + 1 < n && !m->error; k += 2) {
            const uint32_t *links = intern_get(&m->frames, frame, &n);
            uint32_t parent = links[k + 1];

            add_thread(m, parent, closure(m, links[k]));
        }
    }
}

/* ---- calls ---- */

static void add_call(struct machine *m, uint32_t net, uint32_t back, uint32_t frame)
{
    if (m->n_calls == m->calls_allocated) {
        uint32_t n = m->calls_allocated ? 2 * m->calls_allocated : 64;
        struct machine_call *grown;

        if (n > 16 * GRAMMAR_LINKS_MAX) {
            fail(m, -E2BIG);
            return;
        }
        grown = reallocarray(m->calls, n, sizeof(*grown));
        if (!grown) {
            fail(m, -ENOMEM);
            return;
        }
        m->calls = grown;
        m->calls_allocated = n;
    }
    m->calls[m->n_calls++] = (struct machine_call){net, back, frame};
}

static void add_calls_of(struct machine *m, uint32_t frame, uint32_t set)
{
    uint32_t n;

    (void)intern_get(&m->sets, set, &n);
    for (uint32_t i = 0; i < n && !m->error; i++) {
        const struct nfa_state *s = &m->nfa->states[intern_get(&m->sets, set, &n)[i]];

        if (s->op == NFA_CALL)
            add_call(m, s->y, s->x, frame);
    }
}

static void add_link(struct machine *m, uint32_t back, uint32_t frame)
{
    if (m->n_links == GRAMMAR_LINKS_MAX) {
        fail(m, -E2BIG);
        return;
    }
    m->links[2 * m->n_links] = back;
    m->links[2 * m->n_links + 1] = frame;
    m->n_links++;
}

static int by_pair(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;

    return x[0] != y[0] ? (x[0] < y[0] ? -1 : 1) : x[1] < y[1] ? -1 : x[1] > y[1];
}

static uint32_t make_frame(struct machine *m)
{
    uint32_t n = 0;

    if (m->n_links > 1)
        qsort(m->links, m->n_links, 2 * sizeof(*m->links), by_pair);
    for (uint32_t i = 0; i < m->n_links; i++) {
        if (n > 0 && by_pair(m->links + 2 * i, m->links + 2 * (n - 1)) == 0)
            continue;
        memmove(m->links + 2 * n, m->links + 2 * i, 2 * sizeof(*m->links));
        n++;
    }
    return put(m, &m->frames, m->links, 2 * n);
}

static void link_call(struct machine *m, const struct machine_call *c)
{
    uint32_t n;

    if (closure(m, c->back) != m->only_end) {
        add_link(m, c->back, c->frame);
    } else if (c->frame == 0) {
        add_link(m, 0, 0);
    } else {
        (void)intern_get(&m->frames, c->frame, &n);
        for (uint32_t k = 0; k + 1 < n && !m->error; k += 2) {
            const uint32_t *links = intern_get(&m->frames, c->frame, &n);

            add_link(m, links[k], links[k + 1]);
        }
    }
}

static void call_nets(struct machine *m)
{
    m->n_calls = 0;
    for (uint32_t i = 0; i < m->n_threads && !m->error; i++)
        add_calls_of(m, m->threads[i].frame, m->threads[i].set);
    while (m->n_calls > 0 && !m->error) {
        uint32_t net = m->calls[0].net, n_left = 0, frame, set;

        for (uint32_t i = 1; i < m->n_calls; i++)
            if (m->nfa->nets[m->calls[i].net].rank < m->nfa->nets[net].rank)
                net = m->calls[i].net;
        m->n_links = 0;
        m->work += m->n_calls;
        for (uint32_t i = 0; i < m->n_calls; i++) {
            if (m->calls[i].net == net)
                link_call(m, &m->calls[i]);
            else
                m->calls[n_left++] = m->calls[i];
        }
        m->n_calls = n_left;
        if (m->error)
            return;
        frame = make_frame(m);
        set = closure(m, m->nfa->nets[net].start);
        if (m->error)
            return;
        add_thread(m, frame, set);
        add_calls_of(m, frame, set);
    }
}

/* ---- configurations ---- */

static uint32_t put_config(struct machine *m)
{
    uint32_t n = 0, config;
    bool accepts = false;

    for (uint32_t i = 0; i < m->n_threads; i++) {
        const struct machine_thread t = m->threads[i];

        accepts |= t.frame == 0 && is_through(m, t.set);
        if (can_read(m, t.set))
            m->threads[n++] = t;
    }
    m->n_threads = n;
    if (n == 0 && !accepts)
        return MACHINE_DEAD;
    for (uint32_t i = 0; i < n; i++) {
        m->links[2 * i] = m->threads[i].frame;
        m->links[2 * i + 1] = m->threads[i].set;
    }
    m->links[2 * n] = accepts;
    config = put(m, &m->configs, m->links, 2 * n + 1);
    if (m->error || !reserve(m, &m->next, config, &m->configs_allocated))
        return MACHINE_DEAD;
    return config;
}

static uint32_t settle(struct machine *m)
{
    return_from_nets(m);
    if (!m->error)
        call_nets(m);
    return m->error ? MACHINE_DEAD : put_config(m);
}

/* Most steps leave one thread, and most symbols of a set lead to few others. */
static uint32_t settle_one(struct machine *m)
{
    const struct machine_thread t = m->threads[0];
    struct machine_memo *memo = &m->memo[(t.frame * 0x9E3779B1u ^ t.set * 0x85EBCA6Bu) >> 22];

    _Static_assert(MACHINE_MEMOS == 1u << (32 - 22), "the hash has as many bits as there are memos");
    if (memo->config == MACHINE_DEAD || memo->frame != t.frame || memo->set != t.set)
        *memo = (struct machine_memo){t.frame, t.set, settle(m)};
    return memo->config;
}

/* Symbols that all threads' sets take alike lead to the same configuration. */
static void fill_row(struct machine *m, uint32_t config, uint32_t symbol, uint32_t next)
{
    uint32_t n, *row = m->next + (size_t)config * m->n_symbols;
    const uint32_t *threads = intern_get(&m->configs, config, &n);
    const uint32_t *first = m->set_next + (size_t)threads[1] * m->n_symbols;
    const uint32_t *second = n > 4 ? m->set_next + (size_t)threads[3] * m->n_symbols : first;

    row[symbol] = next;
    /* More threads than two are rare, and each would cost another pass. */
    if (n > 5)
        return;
    for (uint32_t other = 0; other < m->nfa->n_classes; other++)
        if (first[other] == first[symbol] && second[other] == second[symbol])
            row[other] = next;
}

uint32_t machine_take(struct machine *m, uint32_t config, uint32_t symbol)
{
    uint32_t n, next = MACHINE_DEAD;

    if (m->error)
        return MACHINE_DEAD;
    m->n_threads = 0;
    (void)intern_get(&m->configs, config, &n);
    for (uint32_t i = 0; i + 1 < n && !m->error; i += 2) {
        const uint32_t *threads = intern_get(&m->configs, config, &n);
        uint32_t frame = threads[i], set = set_take(m, threads[i + 1], symbol);

        if (set != 0)
            add_thread(m, frame, set);
    }
    if (m->n_threads == 1 && !m->error)
        next = settle_one(m);
    else if (m->n_threads > 0 && !m->error)
        next = settle(m);
    if (m->error)
        return MACHINE_DEAD;
    if (n > 1)
        fill_row(m, config, symbol, next);
    else
        m->next[(size_t)config * m->n_symbols + symbol] = next;
    return next;
}

/* Set 0 is empty, frame 0 has no callers, configuration 0 is dead. */
static void put_zeros(struct machine *m)
{
    uint32_t end = 0;

    put_set(m, &end, 0);
    put(m, &m->frames, NULL, 0);
    put(m, &m->configs, &end, 1);
    m->only_end = put_set(m, &end, 1);
    if (!m->error && reserve(m, &m->next, 0, &m->configs_allocated))
        memset(m->next, 0, m->n_symbols * sizeof(*m->next));
}

int machine_init(struct machine *m, const struct nfa *nfa)
{
    m->nfa = nfa;
    m->n_symbols = nfa->n_classes + nfa->n_tokens;
    m->closures = malloc(nfa->n_states * sizeof(*m->closures));
    m->marks = calloc(nfa->n_states, sizeof(*m->marks));
    m->list = calloc((size_t)nfa->n_states + 1, sizeof(*m->list));
    m->stack = calloc((size_t)nfa->n_states + 1, sizeof(*m->stack));
    m->threads = calloc(GRAMMAR_THREADS_MAX + 1, sizeof(*m->threads));
    m->links = calloc(2 * GRAMMAR_LINKS_MAX + 1, sizeof(*m->links));
    m->memo = calloc(MACHINE_MEMOS, sizeof(*m->memo));
    if (!m->closures || !m->marks || !m->list || !m->stack || !m->threads || !m->links || !m->memo)
        return -ENOMEM;
    memset(m->closures, 0xFF, nfa->n_states * sizeof(*m->closures));
    put_zeros(m);
    return m->error;
}

void machine_done(struct machine *m)
{
    intern_done(&m->sets);
    intern_done(&m->frames);
    intern_done(&m->configs);
    free(m->closures);
    free(m->set_next);
    free(m->next);
    free(m->marks);
    free(m->list);
    free(m->stack);
    free(m->threads);
    free(m->calls);
    free(m->links);
    free(m->memo);
    *m = (struct machine){0};
}

uint32_t machine_start(struct machine *m)
{
    m->n_threads = 0;
    add_thread(m, 0, closure(m, m->nfa->nets[0].start));
    return m->error ? MACHINE_DEAD : settle(m);
}

bool machine_accepts(const struct machine *m, uint32_t config)
{
    uint32_t n;
    const uint32_t *words = intern_get(&m->configs, config, &n);

    return words[n - 1] != 0;
}

bool machine_ends(const struct machine *m, uint32_t config)
{
    uint32_t n;
    const uint32_t *words = intern_get(&m->configs, config, &n);

    return n == 1 && words[0] != 0;
}

/* ---- forgetting ---- */

/* What a configuration leans on, in order: frames only point to frames before them. */
struct keep {
    struct intern sets, frames, configs; /* the old ones */
    uint32_t *new_frames;                /* [old frames] 0: not needed or the first */
    uint8_t *needed;                     /* [old frames] */
};

static void need_frames(const struct keep *k, uint32_t from)
{
    for (uint32_t f = from + 1; f-- > 0;) {
        uint32_t n;
        const uint32_t *links = intern_get(&k->frames, f, &n);

        for (uint32_t i = 0; k->needed[f] && i + 1 < n; i += 2)
            k->needed[links[i + 1]] = 1;
    }
}

static uint32_t keep_config(struct machine *m, const struct keep *k, uint32_t config)
{
    uint32_t n, top = 0, n_links;
    const uint32_t *words = intern_get(&k->configs, config, &n);

    for (uint32_t i = 0; i + 1 < n; i += 2) {
        k->needed[words[i]] = 1;
        top = words[i] > top ? words[i] : top;
    }
    need_frames(k, top);
    for (uint32_t f = 1; f <= top && !m->error; f++) {
        const uint32_t *links = intern_get(&k->frames, f, &n_links);

        if (!k->needed[f])
            continue;
        for (uint32_t i = 0; i + 1 < n_links; i += 2) {
            m->links[i] = links[i];
            m->links[i + 1] = k->new_frames[links[i + 1]];
        }
        k->new_frames[f] = put(m, &m->frames, m->links, n_links);
    }
    /* Frames keep their order, so the threads do. */
    m->n_threads = 0;
    for (uint32_t i = 0; i + 1 < n && !m->error; i += 2) {
        uint32_t n_states;
        const uint32_t *states = intern_get(&k->sets, words[i + 1], &n_states);

        memcpy(m->list, states, n_states * sizeof(*states));
        m->threads[m->n_threads++] =
            (struct machine_thread){k->new_frames[words[i]], put_set(m, m->list, n_states)};
    }
    for (uint32_t i = 0; i < m->n_threads; i++) {
        m->links[2 * i] = m->threads[i].frame;
        m->links[2 * i + 1] = m->threads[i].set;
    }
    m->links[n - 1] = words[n - 1];
    config = put(m, &m->configs, m->links, n);
    return m->error || !reserve(m, &m->next, config, &m->configs_allocated) ? MACHINE_DEAD : config;
}

uint32_t machine_forget(struct machine *m, uint32_t config)
{
    struct keep k = {.sets = m->sets, .frames = m->frames, .configs = m->configs};
    uint32_t kept = MACHINE_DEAD;

    if (m->error)
        return MACHINE_DEAD;
    k.new_frames = calloc(k.frames.n, sizeof(*k.new_frames));
    k.needed = calloc(k.frames.n, 1);
    m->sets = m->frames = m->configs = (struct intern){0};
    free(m->set_next);
    free(m->next);
    m->set_next = m->next = NULL;
    m->sets_allocated = m->configs_allocated = 0;
    m->bytes = 0;
    memset(m->closures, 0xFF, m->nfa->n_states * sizeof(*m->closures));
    memset(m->memo, 0, MACHINE_MEMOS * sizeof(*m->memo));
    put_zeros(m);
    if (!k.new_frames || !k.needed)
        fail(m, -ENOMEM);
    if (!m->error)
        kept = keep_config(m, &k, config);
    intern_done(&k.sets);
    intern_done(&k.frames);
    intern_done(&k.configs);
    free(k.new_frames);
    free(k.needed);
    return kept;
}
