/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/grammar/vocabulary.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "engine/grammar/trie.h"

enum run_class trie_class(uint32_t code)
{
    if (code >= 'a' && code <= 'z')
        return RUN_LOWER;
    if (code >= 'A' && code <= 'Z')
        return RUN_LETTERS;
    if (code == ' ')
        return RUN_WORDS;
    if ((code >= '0' && code <= '9') || code == '_' || code == '-')
        return RUN_NAMES;
    if (code < 0x20 || code == '"' || code == '\\' || code == 0x7F)
        return RUN_CLASS_MAX;
    return code < 0x80 ? RUN_ASCII : RUN_TEXT;
}

/* The part that a token belongs to, and how many characters it has (0: it is no run). */
static unsigned part_of(const char *bytes, size_t n, unsigned *ret_characters)
{
    enum run_class class = RUN_LOWER;
    unsigned n_characters = 0;

    *ret_characters = 0;
    for (size_t at = 0; at < n; n_characters++) {
        uint32_t code;
        int length = utf8_decode(bytes + at, n - at, &code);
        enum run_class of = length > 0 ? trie_class(code) : RUN_CLASS_MAX;

        if (of == RUN_CLASS_MAX)
            return PART_OTHER;
        class = of > class ? of : class;
        at += (size_t)length;
    }
    *ret_characters = n_characters;
    return n_characters > RUN_CHARACTERS_MAX ? PART_LONG(class) : PART_SHORT(class);
}

struct entry {
    const char *bytes;
    uint32_t n;
    int32_t token;
    uint8_t part, n_characters;
};

/* By part, then by bytes, then by number. */
static int by_bytes(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    int order;

    if (x->part != y->part)
        return x->part < y->part ? -1 : 1;
    order = memcmp(x->bytes, y->bytes, x->n < y->n ? x->n : y->n);
    if (order != 0)
        return order;
    if (x->n != y->n)
        return x->n < y->n ? -1 : 1;
    return x->token < y->token ? -1 : 1;
}

static uint32_t common(const struct entry *a, const struct entry *b)
{
    uint32_t n = 0;

    while (n < a->n && n < b->n && a->bytes[n] == b->bytes[n])
        n++;
    return n;
}

/* Children come behind their parents: backwards, all below a node is known when it is reached. */
static void find_rests(struct trie *t)
{
    for (uint32_t i = t->n; i-- > 0;) {
        struct trie_node *node = &t->nodes[i];
        unsigned rest = 0;

        for (uint32_t k = i + 1; k < node->next; k = t->nodes[k].next) {
            unsigned of = t->nodes[k].byte < 0x80 ? (unsigned)trie_class(t->nodes[k].byte) : RUN_CLASS_MAX;
            bool is_leaf = t->nodes[k].next == k + 1;

            rest = of > rest ? of : rest;
            rest = !is_leaf && t->nodes[k].rest > rest ? t->nodes[k].rest : rest;
        }
        node->rest = node->next == i + 1 ? RUN_CLASS_MAX : (uint8_t)(rest & 15u);
    }
}

/* @entries: sorted, of one part. @open: [longest] the nodes on the way to the last one. */
static int make_trie(struct grammar_vocabulary *v, const struct entry *entries, uint32_t n, uint32_t *open,
                     struct trie *ret)
{
    size_t n_nodes = 0;
    uint32_t n_open = 0;

    for (uint32_t i = 0; i < n; i++)
        n_nodes += entries[i].n - (i > 0 ? common(&entries[i - 1], &entries[i]) : 0);
    ret->nodes = calloc(n_nodes + 1, sizeof(*ret->nodes));
    ret->tokens = calloc((size_t)n + 1, sizeof(*ret->tokens));
    if (!ret->nodes || !ret->tokens)
        return -ENOMEM;
    for (uint32_t i = 0; i < n; i++) {
        const struct entry *e = &entries[i];
        uint32_t shared = i > 0 ? common(&entries[i - 1], e) : 0;

        ret->tokens[ret->n_tokens++] = e->token;
        if (i > 0 && shared == e->n) { /* the same bytes */
            v->same[entries[i - 1].token] = e->token;
            ret->nodes[ret->n - 1].has_same = true;
            continue;
        }
        while (n_open > shared)
            ret->nodes[open[--n_open]].next = ret->n;
        for (; n_open < e->n; n_open++) {
            open[n_open] = ret->n;
            ret->nodes[ret->n++] =
                (struct trie_node){.before = i, .depth = (uint16_t)n_open, .byte = (uint8_t)e->bytes[n_open]};
        }
        ret->nodes[ret->n - 1].is_token = true;
    }
    while (n_open > 0)
        ret->nodes[open[--n_open]].next = ret->n;
    ret->nodes[ret->n].before = n;
    find_rests(ret);
    for (uint32_t i = 0; i < ret->n; i = ret->nodes[i].next)
        ret->first[ret->nodes[i].byte + 1] = ret->nodes[i].next;
    for (unsigned byte = 0; byte < 256; byte++)
        if (ret->first[byte + 1] == 0)
            ret->first[byte + 1] = ret->first[byte];
    return 0;
}

static void make_runs(struct grammar_vocabulary *v, const struct entry *entries, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct entry *e = &entries[i];

        if (e->part == PART_OTHER)
            continue;
        for (unsigned class = e->part / 2; class < RUN_CLASS_MAX; class ++)
            for (unsigned k = e->n_characters; k <= RUN_CHARACTERS_MAX + 1; k++)
                mask_set((uint64_t *)trie_run(v, class, k), e->token);
    }
}

static int copy_bytes(struct grammar_vocabulary *v, grammar_vocabulary_piece piece, const void *userdata)
{
    const char *bytes;
    size_t n_bytes = 0;

    for (uint32_t i = 0; i < v->n_tokens; i++)
        n_bytes += piece(userdata, (int32_t)i, &bytes);
    if (n_bytes > UINT32_MAX)
        return -ENOMEM;
    v->bytes = malloc(n_bytes + 1);
    if (!v->bytes)
        return -ENOMEM;
    n_bytes = 0;
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        size_t n = piece(userdata, (int32_t)i, &bytes);

        v->at[i] = (uint32_t)n_bytes;
        /* A token that no trie of 16-bit depths holds is never allowed. */
        if (n == 0 || n > UINT16_MAX)
            continue;
        memcpy(v->bytes + n_bytes, bytes, n);
        n_bytes += n;
        if (n > v->depth)
            v->depth = (uint32_t)n;
    }
    v->at[v->n_tokens] = (uint32_t)n_bytes;
    return 0;
}

static int make_parts(struct grammar_vocabulary *v)
{
    _cleanup_free_ struct entry *entries = calloc((size_t)v->n_tokens + 1, sizeof(*entries));
    _cleanup_free_ uint32_t *open = calloc((size_t)v->depth + 1, sizeof(*open));
    uint32_t n = 0, from = 0;
    int r = 0;

    if (!entries || !open)
        return -ENOMEM;
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        uint32_t n_bytes = v->at[i + 1] - v->at[i];
        unsigned n_characters;

        if (n_bytes == 0 || mask_has(v->ends, (int32_t)i))
            continue;
        entries[n] = (struct entry){.bytes = v->bytes + v->at[i], .n = n_bytes, .token = (int32_t)i};
        entries[n].part = (uint8_t)part_of(entries[n].bytes, n_bytes, &n_characters);
        entries[n].n_characters =
            n_characters > RUN_CHARACTERS_MAX ? RUN_CHARACTERS_MAX + 1 : (uint8_t)n_characters;
        n++;
    }
    qsort(entries, n, sizeof(*entries), by_bytes);
    for (unsigned part = 0; part < PART_MAX && r == 0; part++) {
        uint32_t end = from;

        while (end < n && entries[end].part == part)
            end++;
        r = make_trie(v, entries + from, end - from, open, &v->parts[part]);
        from = end;
    }
    make_runs(v, entries, n);
    return r;
}

int grammar_vocabulary_new(uint32_t n_tokens, uint32_t n_mask_tokens, grammar_vocabulary_piece piece,
                           grammar_vocabulary_is_end is_end, const void *userdata,
                           struct grammar_vocabulary **ret)
{
    _cleanup_(grammar_vocabulary_freep) struct grammar_vocabulary *v = calloc(1, sizeof(*v));
    int r;

    if (!v)
        return -ENOMEM;
    v->n_tokens = n_tokens;
    v->n_words = (n_mask_tokens + 63) / 64 + 1;
    v->at = calloc((size_t)n_tokens + 1, sizeof(*v->at));
    v->same = malloc(((size_t)n_tokens + 1) * sizeof(*v->same));
    v->ends = calloc(v->n_words, sizeof(*v->ends));
    v->runs = calloc((size_t)RUN_CLASS_MAX * (RUN_CHARACTERS_MAX + 1) * v->n_words, sizeof(*v->runs));
    if (!v->at || !v->same || !v->ends || !v->runs)
        return -ENOMEM;
    memset(v->same, 0xFF, ((size_t)n_tokens + 1) * sizeof(*v->same));
    for (uint32_t i = 0; i < n_tokens; i++)
        if (is_end(userdata, (int32_t)i))
            mask_set(v->ends, (int32_t)i);
    r = copy_bytes(v, piece, userdata);
    if (r == 0)
        r = make_parts(v);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(v);
    return 0;
}

struct grammar_vocabulary *grammar_vocabulary_free(struct grammar_vocabulary *v)
{
    if (!v)
        return NULL;
    for (unsigned i = 0; i < PART_MAX; i++) {
        free(v->parts[i].nodes);
        free(v->parts[i].tokens);
    }
    free(v->bytes);
    free(v->at);
    free(v->same);
    free(v->ends);
    free(v->runs);
    free(v);
    return NULL;
}
