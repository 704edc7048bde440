/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Character by character: from the configurations that one character of the class leads to, all characters
 * must lead on, or none. When a character leads nowhere new, all texts of the class are taken.
 */
#include "engine/grammar/runs.h"

#include <errno.h>
#include <stdlib.h>

/* More configurations side by side than that are no plain text. */
#define SIDE_MAX 4

/* Steps for one answer: a class of bytes or two for each byte of a character, in any sane grammar. */
#define STEPS_MAX 8192

struct side {
    uint32_t configs[SIDE_MAX];
    unsigned n;
};

struct search {
    struct machine *m;
    struct side next;
    unsigned n_steps;
    bool lives, dies; /* some character leads on; some does not */
};

int runs_init(struct runs *r, const struct nfa *nfa)
{
    r->n_classes = nfa->n_classes;
    r->symbols = calloc((size_t)RUN_CLASS_MAX * nfa->n_classes, sizeof(*r->symbols));
    if (!r->symbols)
        return -ENOMEM;
    for (unsigned class = 0; class < RUN_CLASS_MAX; class ++) {
        uint16_t *symbols = r->symbols + (size_t) class * nfa->n_classes, n = 0;

        for (uint32_t byte = 0; byte < 0x80; byte++)
            if (trie_class(byte) <= class && (n == 0 || symbols[n - 1] != nfa->class_of[byte]))
                symbols[n++] = nfa->class_of[byte];
        r->n_symbols[class] = n;
    }
    return 0;
}

void runs_done(struct runs *r)
{
    free(r->symbols);
    *r = (struct runs){0};
}

static bool is_undecided(const struct search *s)
{
    return !(s->lives && s->dies) && s->n_steps < STEPS_MAX && s->next.n <= SIDE_MAX;
}

static void arrive(struct search *s, uint32_t config)
{
    if (config == MACHINE_DEAD) {
        s->dies = true;
        return;
    }
    s->lives = true;
    for (unsigned i = 0; i < s->next.n && i < SIDE_MAX; i++)
        if (s->next.configs[i] == config)
            return;
    if (s->next.n < SIDE_MAX)
        s->next.configs[s->next.n] = config;
    s->next.n++;
}

/* The bytes of characters beyond ASCII: ranges for the first and the second one, and how many follow (RFC
 * 3629). */
static const struct {
    uint8_t first[2], second[2], n_more;
} spellings[] = {
    {{0xC2, 0xDF}, {0x80, 0xBF}, 0}, {{0xE0, 0xE0}, {0xA0, 0xBF}, 1}, {{0xE1, 0xEC}, {0x80, 0xBF}, 1},
    {{0xED, 0xED}, {0x80, 0x9F}, 1}, {{0xEE, 0xEF}, {0x80, 0xBF}, 1}, {{0xF0, 0xF0}, {0x90, 0xBF}, 2},
    {{0xF1, 0xF3}, {0x80, 0xBF}, 2}, {{0xF4, 0xF4}, {0x80, 0x8F}, 2},
};

static void take_more(struct search *s, uint32_t config, unsigned low, unsigned high, unsigned n_more)
{
    const struct nfa *nfa = s->m->nfa;
    uint32_t last = MACHINE_DEAD;

    for (uint32_t symbol = nfa->class_of[low]; symbol <= nfa->class_of[high] && is_undecided(s); symbol++) {
        uint32_t next = machine_step(s->m, config, symbol);

        s->n_steps++;
        if (next == MACHINE_DEAD)
            arrive(s, next);
        else if (next == last)
            continue;
        else if (n_more == 0)
            arrive(s, next);
        else
            take_more(s, next, 0x80, 0xBF, n_more - 1);
        last = next;
    }
}

static void take_beyond_ascii(struct search *s, uint32_t config)
{
    const struct nfa *nfa = s->m->nfa;

    for (unsigned i = 0; i < sizeof(spellings) / sizeof(spellings[0]); i++) {
        uint32_t last = MACHINE_DEAD;

        for (uint32_t symbol = nfa->class_of[spellings[i].first[0]];
             symbol <= nfa->class_of[spellings[i].first[1]] && is_undecided(s); symbol++) {
            uint32_t next = machine_step(s->m, config, symbol);

            s->n_steps++;
            if (next == MACHINE_DEAD)
                arrive(s, next);
            else if (next != last)
                take_more(s, next, spellings[i].second[0], spellings[i].second[1], spellings[i].n_more);
            last = next;
        }
    }
}

static bool holds_all(const struct side *all, const struct side *some)
{
    for (unsigned i = 0; i < some->n; i++) {
        bool found = false;

        for (unsigned k = 0; k < all->n && !found; k++)
            found = all->configs[k] == some->configs[i];
        if (!found)
            return false;
    }
    return true;
}

enum run_kind runs_find(const struct runs *r, struct machine *m, uint32_t config, enum run_class class,
                        unsigned *ret_n)
{
    const uint16_t *symbols = r->symbols + (size_t) class * r->n_classes;
    struct side at = {.configs = {config}, .n = 1};
    struct search s = {.m = m};

    for (unsigned n = 0; n <= RUN_CHARACTERS_MAX; n++) {
        s.next.n = 0;
        s.lives = s.dies = false;
        for (unsigned i = 0; i < at.n; i++) {
            for (unsigned k = 0; k < r->n_symbols[class] && is_undecided(&s); k++, s.n_steps++)
                arrive(&s, machine_step(m, at.configs[i], symbols[k]));
            if (class == RUN_TEXT)
                take_beyond_ascii(&s, at.configs[i]);
        }
        if (!is_undecided(&s))
            return RUN_MIXED;
        if (!s.lives) {
            *ret_n = n;
            return RUN_UP_TO;
        }
        if (holds_all(&at, &s.next))
            return RUN_ALL;
        at = s.next;
    }
    return RUN_LONG;
}
