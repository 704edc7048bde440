/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SentencePiece's BPE. A text is one long word to it; but where no token spans the beginning of a word (in Llama's
 * vocabulary none does), merging word by word gives the same ids with a heap that stays in cache.
 */
#include "engine/token/spm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/token/ids.h"
#include "engine/token/limits.h"
#include "engine/token/merge.h"
#include "engine/token/vocabulary.h"

/* U+2581, which stands for a space. */
static const char underline[] = "\xE2\x96\x81";

#define UNDERLINE_BYTES 3

/* By the first byte only, as SentencePiece does: in a text that is no UTF-8 the rest becomes byte tokens anyhow. */
static size_t character_bytes(const char *text, size_t n)
{
    uint8_t first = (uint8_t)*text;
    size_t length = first < 0xC0 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;

    return length < n ? length : n;
}

static bool is_underline(const char *text, size_t n)
{
    return n == UNDERLINE_BYTES && memcmp(text, underline, UNDERLINE_BYTES) == 0;
}

bool spm_words_apart(const struct vocabulary *v)
{
    for (uint32_t id = 0; id < v->n; id++) {
        bool letters = false;
        size_t n, length;
        const char *text = vocabulary_text(v, id, &n);

        if (vocabulary_is_special(v, id) || v->types[id] == TOKEN_BYTE)
            continue;
        for (size_t at = 0; at < n; at += length) {
            length = character_bytes(text + at, n - at);
            if (!is_underline(text + at, length))
                letters = true;
            else if (letters)
                return false;
        }
    }
    return true;
}

/* The higher the score, the lower the rank; as a number that orders like the float does. */
static uint32_t rank_of_score(float score)
{
    float value = score + 0.0f; /* -0 and 0 are the same score */
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    return bits & 0x80000000u ? bits : ~(bits | 0x80000000u);
}

static uint32_t rank(const void *context, const char *word, const struct symbol *left, const struct symbol *right,
                     int32_t *ret_id)
{
    const struct vocabulary *v = context;
    int32_t id = vocabulary_find_plain(v, word + left->start, (size_t)left->n_bytes + right->n_bytes);

    if (id < 0)
        return MERGE_NONE;
    *ret_id = id;
    return rank_of_score(v->scores[id]);
}

static int add_bytes(const struct vocabulary *v, const char *text, size_t n, struct ids *to)
{
    bool unknown = false;

    for (size_t i = 0; i < n; i++) {
        int32_t id = v->bytes[(uint8_t)text[i]];

        /* The unknown token stands for the whole character, however many of its bytes have no token. */
        if (id < 0 && unknown)
            continue;
        unknown = id < 0;
        if (ids_add(to, unknown ? v->unknown : id) < 0)
            return -ENOMEM;
    }
    return 0;
}

/* The word lies in @word; its symbols have been added. */
static int encode_word(const struct vocabulary *v, struct merger *m, const char *word, struct ids *to)
{
    int r;

    merger_run(m, word, rank, v);
    for (int32_t i = 0; i >= 0 && m->n_symbols > 0; i = m->symbols[i].next) {
        const struct symbol *s = &m->symbols[i];

        r = s->id >= 0 ? ids_add(to, s->id) : add_bytes(v, word + s->start, s->n_bytes, to);
        if (r < 0)
            return r;
    }
    m->n_symbols = 0;
    return 0;
}

/* Where the word that begins at @at ends: the number of bytes of @text, and of the word once spaces are written out. */
static size_t word_bytes(const char *text, size_t n, bool words_apart, size_t n_written, size_t *ret_written)
{
    bool letters = false;
    size_t at = 0;

    while (at < n && n_written < WORD_BYTES_MAX) {
        size_t length = character_bytes(text + at, n - at);
        bool space = text[at] == ' ' || is_underline(text + at, length);

        if (space && letters && (words_apart || n_written > WORD_BYTES_MAX / 2))
            break;
        letters |= !space;
        n_written += text[at] == ' ' ? UNDERLINE_BYTES : length;
        at += length;
    }
    *ret_written = n_written;
    return at;
}

int spm_encode(const struct vocabulary *v, bool words_apart, struct merger *m, const char *text, size_t n_bytes,
               bool space_first, struct ids *to)
{
    _cleanup_free_ char *word = NULL;
    size_t n_allocated = 0;

    while (n_bytes > 0) {
        size_t n_written, n_word = 0;
        size_t n = word_bytes(text, n_bytes, words_apart, space_first ? UNDERLINE_BYTES : 0, &n_written);
        int r;

        if (n_written > n_allocated) {
            free(word);
            n_allocated = n_written + n_written / 2 + 64;
            word = malloc(n_allocated);
            if (!word)
                return -ENOMEM;
        }
        r = merger_begin(m, n_written);
        if (r < 0)
            return r;
        for (size_t at = 0; at < n || space_first;) {
            size_t length = space_first || text[at] == ' ' ? UNDERLINE_BYTES : character_bytes(text + at, n - at);

            if (space_first || text[at] == ' ')
                memcpy(word + n_word, underline, UNDERLINE_BYTES);
            else
                memcpy(word + n_word, text + at, length);
            merger_add(m, (uint32_t)length, vocabulary_find_plain(v, word + n_word, length));
            n_word += length;
            if (!space_first)
                at += text[at] == ' ' ? 1 : length;
            space_first = false;
        }
        r = encode_word(v, m, word, to);
        if (r < 0)
            return r;
        text += n;
        n_bytes -= n;
    }
    return 0;
}
