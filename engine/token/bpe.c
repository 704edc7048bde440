/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Byte-pair encoding. Spellings matter while the merges are read only: after that a symbol is a token id, a
 * merge is a pair of ids, and no text is compared any more.
 */
#include "engine/token/bpe.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fault.h"
#include "base/utf8.h"
#include "engine/gguf/read.h"
#include "engine/token/bytes.h"
#include "engine/token/families.h"
#include "engine/token/ids.h"
#include "engine/token/limits.h"
#include "engine/token/merge.h"
#include "engine/token/table.h"
#include "engine/token/vocabulary.h"

/* U+2581, which stands for a space in raw vocabularies. */
static const char underline[] = "\xE2\x96\x81";

#define UNDERLINE_BYTES 3

void merges_done(struct merges *m)
{
    free(m->slots);
    *m = (struct merges){0};
}

/* The slot of a pair, or the empty one where it belongs. */
static struct merge *slot_of(const struct merges *m, uint64_t pair)
{
    unsigned __int128 product = (unsigned __int128)(pair ^ m->seed) * (m->seed | 1);
    uint64_t i = (uint64_t)product ^ (uint64_t)(product >> 64);

    for (;; i++) {
        struct merge *slot = &m->slots[i & m->mask];

        if (slot->rank == MERGE_NONE || slot->pair == pair)
            return slot;
    }
}

static int allocate(struct merges *m, uint64_t n)
{
    uint64_t n_slots = 16;

    while (n_slots < n + n / 2)
        n_slots *= 2;
    m->mask = n_slots - 1;
    /* All bits 1: the rank of an empty slot. */
    m->slots = table_new(n_slots * sizeof(*m->slots), 0xFF);
    return m->slots ? 0 : -ENOMEM;
}

/*
 * @space: where the space between the two spellings is. @last: what the last merge made; vocabularies are
 *         usually in the
 * order of their merges, so that the next one makes the next token.
 */
static void add_merge(struct merges *m, const struct vocabulary *v, const char *text, size_t n, size_t space,
                      uint32_t rank, int32_t *last)
{
    char whole[2 * TOKEN_BYTES_MAX];
    size_t n_right = n - space - 1;
    struct merge *slot;
    int32_t left, right, id;

    if (space > TOKEN_BYTES_MAX || n_right > TOKEN_BYTES_MAX)
        return;
    left = vocabulary_find_plain(v, text, space);
    right = vocabulary_find_plain(v, text + space + 1, n_right);
    memcpy(whole, text, space);
    memcpy(whole + space, text + space + 1, n_right);
    id = vocabulary_find_near(v, *last + 1, whole, space + n_right);
    if (left < 0 || right < 0 || id < 0)
        return;
    *last = id;
    slot = slot_of(m, (uint64_t)left << 32 | (uint32_t)right);
    /* A pair that is listed twice has its first rank. */
    if (slot->rank != MERGE_NONE)
        return;
    *slot = (struct merge){.pair = (uint64_t)left << 32 | (uint32_t)right, .rank = rank, .id = id};
}

int merges_init(struct merges *m, const struct vocabulary *v, const struct gguf *g, struct fault *reterr)
{
    struct gguf_array merges;
    int32_t last = -1;
    int r;

    r = gguf_get_array(g, "tokenizer.ggml.merges", GGUF_STRING, &merges, reterr);
    if (r == -ENOENT) {
        fault_model_invalid(reterr, FAULT_NO_OFFSET, "the tokenizer has no merges (tokenizer.ggml.merges)");
        return -EINVAL;
    }
    if (r < 0)
        return r;
    if (merges.n > MERGES_MAX) {
        fault_model_invalid(reterr, (int64_t)merges.offset, "the tokenizer has %" PRIu64 " merges, at most %u are read",
                            merges.n, MERGES_MAX);
        return -EINVAL;
    }
    m->seed = v->seed;
    r = allocate(m, merges.n);
    if (r < 0)
        return r;
    for (uint64_t i = 0; i < merges.n; i++) {
        struct gguf_string text = gguf_array_string(&merges, i);
        const char *space = text.n_bytes > 2 ? memchr(text.data + 1, ' ', text.n_bytes - 2) : NULL;

        if (!space) {
            fault_model_invalid(reterr, (int64_t)gguf_array_offset(&merges, i), "merge %" PRIu64
                                " is no pair of tokens with a space between", i);
            return -EINVAL;
        }
        add_merge(m, v, text.data, text.n_bytes, (size_t)(space - text.data), (uint32_t)i, &last);
    }
    return 0;
}

static uint32_t rank(const void *context, const char *word, const struct symbol *left, const struct symbol *right,
                     int32_t *ret_id)
{
    const struct merge *slot = slot_of(context, (uint64_t)left->id << 32 | (uint32_t)right->id);

    *ret_id = slot->id;
    return slot->rank;
}

/* The token that the word is as it stands, -1 when it is none. */
static int32_t whole_word(const struct vocabulary *v, const char *word, size_t n_bytes)
{
    char spelling[2 * TOKEN_BYTES_MAX];

    if (n_bytes > TOKEN_BYTES_MAX)
        return -1;
    return vocabulary_find_plain(v, spelling, bytes_spell(word, n_bytes, spelling));
}

static int encode_part(const struct vocabulary *v, const struct merges *merges, struct merger *m, const char *word,
                       size_t n_bytes, struct ids *to)
{
    int r;

    r = merger_begin(m, n_bytes);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n_bytes; i++) {
        int32_t id = v->bytes[(uint8_t)word[i]];

        if (id >= 0)
            merger_add(m, 1, id);
    }
    merger_run(m, word, rank, merges);
    for (int32_t i = 0; i >= 0 && m->n_symbols > 0; i = m->symbols[i].next) {
        r = ids_add(to, m->symbols[i].id);
        if (r < 0)
            return r;
    }
    return 0;
}

int bpe_encode_word(const struct vocabulary *v, const struct merges *merges, unsigned flags, struct merger *m,
                    const char *word, size_t n_bytes, struct ids *to)
{
    int32_t id = flags & FAMILY_WHOLE_WORDS ? whole_word(v, word, n_bytes) : -1;

    if (id >= 0)
        return ids_add(to, id);
    while (n_bytes > 0) {
        size_t n = n_bytes < WORD_BYTES_MAX ? n_bytes : WORD_BYTES_MAX;
        int r = encode_part(v, merges, m, word, n, to);

        if (r < 0)
            return r;
        word += n;
        n_bytes -= n;
    }
    return 0;
}

static int add_bytes(const struct vocabulary *v, const char *text, size_t n, struct ids *to)
{
    for (size_t i = 0; i < n; i++) {
        int32_t id = v->bytes[(uint8_t)text[i]];

        if (id >= 0 && ids_add(to, id) < 0)
            return -ENOMEM;
    }
    return 0;
}

/* The next character of a text, or a byte that is none. */
static size_t character_bytes(const char *text, size_t n)
{
    uint32_t code;
    int length = utf8_decode(text, n, &code);

    return length > 0 ? (size_t)length : 1;
}

/* @spelled has room for UNDERLINE_BYTES times @n bytes. */
static int encode_raw_part(const struct vocabulary *v, const struct merges *merges, struct merger *m, const char *word,
                           size_t n, char *spelled, struct ids *to)
{
    size_t n_spelled = 0, length;
    int r;

    r = merger_begin(m, n);
    if (r < 0)
        return r;
    for (size_t at = 0; at < n; at += length) {
        bool space = word[at] == ' ';
        size_t n_symbol;

        length = character_bytes(word + at, n - at);
        n_symbol = space ? UNDERLINE_BYTES : length;
        memcpy(spelled + n_spelled, space ? underline : word + at, n_symbol);
        merger_add(m, (uint32_t)n_symbol, vocabulary_find_plain(v, spelled + n_spelled, n_symbol));
        n_spelled += n_symbol;
    }
    merger_run(m, spelled, rank, merges);
    for (int32_t i = 0; i >= 0 && m->n_symbols > 0; i = m->symbols[i].next) {
        const struct symbol *s = &m->symbols[i];

        r = s->id >= 0 ? ids_add(to, s->id) : add_bytes(v, spelled + s->start, s->n_bytes, to);
        if (r < 0)
            return r;
    }
    return 0;
}

static bool is_line_feeds(const char *word, size_t n)
{
    while (n > 0 && word[n - 1] == '\n')
        n--;
    return n == 0;
}

int bpe_encode_raw_word(const struct vocabulary *v, const struct merges *merges, unsigned flags, struct merger *m,
                        const char *word, size_t n_bytes, struct ids *to)
{
    _cleanup_free_ char *spelled = NULL;
    int32_t id = -1;

    if ((flags & FAMILY_WHOLE_LINE_FEEDS) && is_line_feeds(word, n_bytes))
        id = vocabulary_find_plain(v, word, n_bytes);
    if (id >= 0)
        return ids_add(to, id);
    spelled = malloc(UNDERLINE_BYTES * (n_bytes < WORD_BYTES_MAX ? n_bytes : WORD_BYTES_MAX) + 1);
    if (!spelled)
        return -ENOMEM;
    while (n_bytes > 0) {
        size_t n = n_bytes < WORD_BYTES_MAX ? n_bytes : utf8_cut(word, WORD_BYTES_MAX);
        int r;

        /* Nothing but the inside of characters: no UTF-8, so it does not matter where it is cut. */
        n = n > 0 ? n : WORD_BYTES_MAX;
        r = encode_raw_part(v, merges, m, word, n, spelled, to);
        if (r < 0)
            return r;
        word += n;
        n_bytes -= n;
    }
    return 0;
}
