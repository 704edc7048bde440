/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Each string is followed by its own Knuth-Morris-Pratt automaton; the number of bytes it has matched is the
 * longest tail of the text that is a beginning of the string, so the longest of these is what has to be held
 * back. One table for all strings (Aho and Corasick) would be faster for hundreds of them and cost 512 bytes
 * per byte of pattern; users give a handful.
 */
#include "engine/sample/stops.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

struct pattern {
    char *data;        /* in bytes[] */
    uint32_t *borders; /* borders[i]: length of the longest proper border of data[0 ... i] */
    uint32_t n_bytes;
    uint32_t n_matched;
};

struct stops {
    size_t n_patterns;
    struct pattern *patterns;
    char *bytes;
    uint32_t *borders;
    char *text; /* what was handed on last, then the tail that is held back */
    size_t n_text, n_text_max;
    size_t n_handed; /* of text: to be dropped with the next call */
    int hit;
};

DEFINE_CLEANUP(struct stops *, stops_free)

static void borders_fill(struct pattern *p)
{
    uint32_t n = 0;

    p->borders[0] = 0;
    for (uint32_t i = 1; i < p->n_bytes; i++) {
        while (n > 0 && p->data[i] != p->data[n])
            n = p->borders[n - 1];
        if (p->data[i] == p->data[n])
            n++;
        p->borders[i] = n;
    }
}

int stops_new(const struct stops_string *strings, size_t n_strings, struct stops **ret)
{
    _cleanup_(stops_freep) struct stops *s = NULL;
    size_t n_bytes = 0, at = 0;

    if (n_strings > STOPS_MAX)
        return -E2BIG;
    for (size_t i = 0; i < n_strings; i++) {
        if (strings[i].n_bytes == 0)
            return -EINVAL;
        if (strings[i].n_bytes > STOPS_BYTES_MAX - n_bytes)
            return -E2BIG;
        n_bytes += strings[i].n_bytes;
    }

    s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->hit = -1;
    s->n_patterns = n_strings;
    s->patterns = calloc(n_strings + 1, sizeof(*s->patterns));
    s->bytes = malloc(n_bytes + 1);
    s->borders = calloc(n_bytes + 1, sizeof(*s->borders));
    if (!s->patterns || !s->bytes || !s->borders)
        return -ENOMEM;
    for (size_t i = 0; i < n_strings; i++) {
        struct pattern *p = &s->patterns[i];

        p->data = s->bytes + at;
        p->borders = s->borders + at;
        p->n_bytes = (uint32_t)strings[i].n_bytes;
        memcpy(p->data, strings[i].data, p->n_bytes);
        borders_fill(p);
        at += p->n_bytes;
    }
    *ret = TAKE_PTR(s);
    return 0;
}

struct stops *stops_free(struct stops *s)
{
    if (!s)
        return NULL;
    free(s->patterns);
    free(s->bytes);
    free(s->borders);
    free(s->text);
    free(s);
    return NULL;
}

/* One byte for all strings. Returns the longest string that ends here, or NULL. */
static const struct pattern *advance(struct stops *s, char byte)
{
    const struct pattern *found = NULL;

    for (size_t i = 0; i < s->n_patterns; i++) {
        struct pattern *p = &s->patterns[i];

        while (p->n_matched > 0 && p->data[p->n_matched] != byte)
            p->n_matched = p->borders[p->n_matched - 1];
        if (p->data[p->n_matched] == byte)
            p->n_matched++;
        if (p->n_matched == p->n_bytes && (!found || p->n_bytes > found->n_bytes))
            found = p;
    }
    return found;
}

static size_t longest_tail(const struct stops *s)
{
    size_t n = 0;

    for (size_t i = 0; i < s->n_patterns; i++)
        n = s->patterns[i].n_matched > n ? s->patterns[i].n_matched : n;
    return n;
}

/* Forgets what was handed on, keeps the tail, makes room for @n more bytes. */
static int make_room(struct stops *s, size_t n)
{
    size_t n_tail = s->n_text - s->n_handed, n_max;
    char *text;

    if (__builtin_add_overflow(n_tail, n, &n_max))
        return -ENOMEM;
    if (n_max > s->n_text_max) {
        n_max = n_max < 256 ? 256 : n_max + n_max / 2;
        text = realloc(s->text, n_max);
        if (!text)
            return -ENOMEM;
        s->text = text;
        s->n_text_max = n_max;
    }
    if (s->n_handed > 0 && n_tail > 0)
        memmove(s->text, s->text + s->n_handed, n_tail);
    s->n_text = n_tail;
    s->n_handed = 0;
    return 0;
}

int stops_push(struct stops *s, const char *text, size_t n_bytes, const char **ret_text, size_t *ret_n,
               bool *ret_hit)
{
    int r = make_room(s, s->hit >= 0 ? 0 : n_bytes);

    if (r < 0)
        return r;
    for (size_t i = 0; i < n_bytes && s->hit < 0; i++) {
        const struct pattern *found = advance(s, text[i]);

        s->text[s->n_text++] = text[i];
        if (found) {
            s->hit = (int)(found - s->patterns);
            s->n_text -= found->n_bytes;
        }
    }
    s->n_handed = s->hit >= 0 ? s->n_text : s->n_text - longest_tail(s);
    *ret_text = s->text ? s->text : "";
    *ret_n = s->n_handed;
    *ret_hit = s->hit >= 0;
    return 0;
}

size_t stops_flush(struct stops *s, const char **ret_text)
{
    size_t n = s->n_text - s->n_handed;

    *ret_text = n > 0 ? s->text + s->n_handed : "";
    s->n_handed = s->n_text;
    for (size_t i = 0; i < s->n_patterns; i++)
        s->patterns[i].n_matched = 0;
    return n;
}

int stops_hit(const struct stops *s)
{
    return s->hit;
}
