/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/sched/speculate.h"

/* Before anything is known a draft counts as right with 0.7, as firmly as if one token had been tried. */
#define PRIOR_RIGHT 0.7
#define PRIOR_TRIED 1.0

/* What is forgotten with each draft, and with each step without one: after some 100 of those a bad one is history. */
#define KEEP_DRAFT 0.75
#define KEEP_IDLE  0.99

/* A draft has to bring so much more than it costs: the estimates are rough. */
#define MARGIN 1.05

/* Shorter places say too little, longer ones no more. */
#define PLACE_MIN 3
#define PLACE_MAX 8
/* How far back is looked: some 20 µs. */
#define LOOK_BACK_MAX 65536

uint32_t speculate_length(const struct speculation *s, double token_cost, uint32_t n_max)
{
    double p = (s->n_right + PRIOR_RIGHT) / (s->n_tried + PRIOR_TRIED), best = MARGIN, brings = 1, power = 1;
    uint32_t length = 0;

    for (uint32_t k = 1; k <= n_max && k <= SPECULATE_TOKENS_MAX; k++) {
        power *= p;
        brings += power;
        if (brings / (1 + k * token_cost) > best) {
            best = brings / (1 + k * token_cost);
            length = k;
        }
    }
    return length;
}

void speculate_learn(struct speculation *s, uint32_t n_drafted, uint32_t n_right)
{
    double keep = n_drafted > 0 ? KEEP_DRAFT : KEEP_IDLE;

    /* What stands behind the first wrong one was not tried. */
    s->n_tried = s->n_tried * keep + n_right + (n_right < n_drafted);
    s->n_right = s->n_right * keep + n_right;
}

/* How many of the tokens before the first @n_a and before the first @n_b are the same; n_a < n_b. */
static uint32_t same_before(const int32_t *tokens, uint32_t n_a, uint32_t n_b)
{
    uint32_t n = 0;

    while (n < PLACE_MAX && n < n_a && tokens[n_a - 1 - n] == tokens[n_b - 1 - n])
        n++;
    return n;
}

uint32_t speculate_lookup(int32_t *tokens, uint32_t n_tokens, uint32_t n_max)
{
    uint32_t first = n_tokens > LOOK_BACK_MAX ? n_tokens - LOOK_BACK_MAX : 0, longest = PLACE_MIN - 1, at = 0;

    for (uint32_t i = n_tokens; n_max > 0 && i-- > first + 1 && longest < PLACE_MAX;) {
        uint32_t n = same_before(tokens, i, n_tokens);

        if (n > longest) {
            longest = n;
            at = i;
        }
    }
    if (at == 0)
        return 0;
    /* It may run into the draft itself: then that repeats. */
    for (uint32_t i = 0; i < n_max; i++)
        tokens[n_tokens + i] = tokens[at + i];
    return n_max;
}
