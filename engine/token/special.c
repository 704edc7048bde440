/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The search for spelled-out tokens. The sorted list is narrowed byte by byte, by bisection: as quick as a trie for the
 * few hundred tokens there are, with nothing to build.
 */
#include "engine/token/special.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/token/limits.h"
#include "engine/token/vocabulary.h"

static int compare(const void *a, const void *b, void *vocabulary)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    size_t n_x, n_y;
    const char *text_x = vocabulary_text(vocabulary, x, &n_x), *text_y = vocabulary_text(vocabulary, y, &n_y);
    int c = memcmp(text_x, text_y, n_x < n_y ? n_x : n_y);

    if (c == 0)
        c = (n_x > n_y) - (n_x < n_y);
    return c ? c : (x > y) - (x < y);
}

static bool is_searched(const struct vocabulary *v, uint32_t id)
{
    size_t n;

    vocabulary_text(v, id, &n);
    return n > 0 && n <= SPECIAL_BYTES_MAX && (vocabulary_is_special(v, id) || v->types[id] == TOKEN_USER_DEFINED);
}

int special_init(struct special *s, const struct vocabulary *v)
{
    uint32_t n = 0;

    for (uint32_t id = 0; id < v->n; id++)
        n += is_searched(v, id);
    s->ids = reallocarray(NULL, n + 1, sizeof(*s->ids));
    if (!s->ids)
        return -ENOMEM;
    for (uint32_t id = 0; id < v->n; id++) {
        if (is_searched(v, id))
            s->ids[s->n++] = id;
    }
    qsort_r(s->ids, s->n, sizeof(*s->ids), compare, (void *)v);
    for (uint32_t i = 0; i < s->n; i++) {
        size_t n_text;
        uint8_t first = (uint8_t)*vocabulary_text(v, s->ids[i], &n_text);

        for (unsigned byte = first + 1u; byte <= 256; byte++)
            s->first[byte] = i + 1;
        if (!vocabulary_is_special(v, s->ids[i])) {
            s->n_added++;
            s->added_first[first] = true;
        }
    }
    return 0;
}

void special_done(struct special *s)
{
    free(s->ids);
    *s = (struct special){0};
}

/* The byte at @i of the spelling of list entry @entry, -1 behind its end. */
static int byte_at(const struct special *s, const struct vocabulary *v, uint32_t entry, size_t i)
{
    size_t n;
    const char *text = vocabulary_text(v, s->ids[entry], &n);

    return i < n ? (uint8_t)text[i] : -1;
}

/* The first entry from @low on, before @high, whose byte at @i is at least @byte. */
static uint32_t bisect(const struct special *s, const struct vocabulary *v, uint32_t low, uint32_t high, size_t i,
                       int byte)
{
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (byte_at(s, v, middle, i) < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest spelling that the text begins with. */
static int32_t match(const struct special *s, const struct vocabulary *v, const char *text, size_t n_bytes,
                     bool control)
{
    uint32_t low = s->first[(uint8_t)*text], high = s->first[(uint8_t)*text + 1];
    int32_t best = -1;

    for (size_t i = 1; low < high; i++) {
        /* Entries that end here come first; the first of equals has the lowest id. */
        if (byte_at(s, v, low, i) < 0 && (control || !vocabulary_is_special(v, s->ids[low])))
            best = (int32_t)s->ids[low];
        if (i >= n_bytes)
            break;
        low = bisect(s, v, low, high, i, (uint8_t)text[i]);
        high = bisect(s, v, low, high, i, (uint8_t)text[i] + 1);
    }
    return best;
}

int32_t special_find(const struct special *s, const struct vocabulary *v, const char *text, size_t n_bytes,
                     bool control, size_t *ret_at)
{
    if (control ? s->n == 0 : s->n_added == 0)
        return -1;
    for (size_t at = 0; at < n_bytes; at++) {
        uint8_t byte = (uint8_t)text[at];
        int32_t id;

        if (control ? s->first[byte] == s->first[byte + 1] : !s->added_first[byte])
            continue;
        id = match(s, v, text + at, n_bytes - at, control);
        if (id >= 0) {
            *ret_at = at;
            return id;
        }
    }
    return -1;
}
