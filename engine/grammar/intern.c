/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/grammar/intern.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "engine/grammar/nodes.h"

static bool grow(uint32_t **array, uint32_t wanted, uint32_t *allocated, size_t *bytes)
{
    uint32_t room = *allocated ? *allocated : 64, *grown;

    if (wanted <= *allocated)
        return true;
    if (wanted > UINT32_MAX / 4)
        return false;
    while (room < wanted)
        room *= 2;
    grown = reallocarray(*array, room, sizeof(*grown));
    if (!grown)
        return false;
    *bytes += (room - *allocated) * sizeof(*grown);
    *array = grown;
    *allocated = room;
    return true;
}

static bool rehash(struct intern *t, size_t *bytes)
{
    uint32_t n_slots = t->n_slots ? 2 * t->n_slots : 128, *slots = calloc(n_slots, sizeof(*slots));

    if (!slots)
        return false;
    *bytes += (n_slots - t->n_slots) * sizeof(*slots);
    free(t->slots);
    t->slots = slots;
    t->n_slots = n_slots;
    for (uint32_t i = 0; i < t->n; i++) {
        uint32_t at = t->hashes[i] & (n_slots - 1);

        while (slots[at])
            at = (at + 1) & (n_slots - 1);
        slots[at] = i + 1;
    }
    return true;
}

static bool make_room(struct intern *t, uint32_t n, size_t *bytes)
{
    uint32_t allocated = t->n_allocated;

    if (2 * (t->n + 1) > t->n_slots && !rehash(t, bytes))
        return false;
    if (!grow(&t->words, t->n_words + n + 1, &t->words_allocated, bytes) ||
        !grow(&t->at, t->n + 2, &t->n_allocated, bytes))
        return false;
    if (t->n_allocated != allocated || !t->hashes) {
        uint32_t *grown = reallocarray(t->hashes, t->n_allocated, sizeof(*grown));

        if (!grown)
            return false;
        t->hashes = grown;
    }
    return true;
}

uint32_t intern_put(struct intern *t, const uint32_t *words, uint32_t n, size_t *ret_bytes)
{
    uint32_t hash = nodes_hash(words, n * sizeof(*words)), at;

    if (!make_room(t, n, ret_bytes))
        return INTERN_NONE;
    for (at = hash & (t->n_slots - 1); t->slots[at]; at = (at + 1) & (t->n_slots - 1)) {
        uint32_t row = t->slots[at] - 1, n_row;
        const uint32_t *other = intern_get(t, row, &n_row);

        if (t->hashes[row] == hash && n_row == n && (n == 0 || memcmp(other, words, n * sizeof(*words)) == 0))
            return row;
    }
    if (n > 0)
        memcpy(t->words + t->n_words, words, n * sizeof(*words));
    t->at[t->n] = t->n_words;
    t->n_words += n;
    t->at[t->n + 1] = t->n_words;
    t->hashes[t->n] = hash;
    t->slots[at] = t->n + 1;
    return t->n++;
}

void intern_clear(struct intern *t)
{
    if (t->slots)
        memset(t->slots, 0, t->n_slots * sizeof(*t->slots));
    t->n = 0;
    t->n_words = 0;
}

void intern_done(struct intern *t)
{
    free(t->words);
    free(t->at);
    free(t->hashes);
    free(t->slots);
    *t = (struct intern){0};
}
