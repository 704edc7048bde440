/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * WordPiece, after BERT's BasicTokenizer and WordpieceTokenizer. In GGUF a token that begins a word is spelled with
 * U+2581 before it, and one that goes on without the "##" that BERT's own list has.
 */
#include "engine/token/wpm.h"

#include <errno.h>
#include <string.h>

#include "base/utf8.h"
#include "engine/gguf/read.h"
#include "engine/token/ids.h"
#include "engine/token/unicode.h"
#include "engine/token/vocabulary.h"

/* Longer words are unknown, as in BERT (max_input_chars_per_word). */
#define WORD_CHARACTERS_MAX 100

/* U+2581: here begins a word. */
static const char underline[] = "\xE2\x96\x81";

#define UNDERLINE_BYTES 3

struct word {
    char text[UNDERLINE_BYTES + WORD_CHARACTERS_MAX * UTF8_BYTES_MAX]; /* behind the underline that is always there */
    size_t n_bytes, n_characters;
};

/* A flag that *value already has a default for. */
static int read_flag(const struct gguf *g, const char *key, bool *value, struct fault *reterr)
{
    int r = gguf_get_bool(g, key, value, reterr);

    return r == -ENOENT ? 0 : r;
}

int wpm_init(struct wpm *w, const struct vocabulary *v, const struct gguf *g, struct fault *reterr)
{
    int r;

    w->lowercase = true;
    r = read_flag(g, "tokenizer.ggml.normalizer.lowercase", &w->lowercase, reterr);
    if (r < 0)
        return r;
    w->strip_accents = w->lowercase;
    r = read_flag(g, "tokenizer.ggml.normalizer.strip_accents", &w->strip_accents, reterr);
    if (r < 0)
        return r;
    return trie_init(&w->trie, v, reterr);
}

void wpm_done(struct wpm *w)
{
    trie_done(&w->trie);
}

/* The longest token at the beginning of a text; -1 when there is none. */
static int32_t longest(const struct trie *t, const char *text, size_t n, size_t *ret_n)
{
    uint32_t node = 0;
    int32_t best = -1;

    for (size_t i = 0; i < n; i++) {
        node = trie_step(t, node, (uint8_t)text[i]);
        if (node == 0)
            break;
        if (t->tokens[node] >= 0) {
            best = t->tokens[node];
            *ret_n = i + 1;
        }
    }
    return best;
}

static int end_word(const struct wpm *w, const struct vocabulary *v, struct word *word, struct ids *to)
{
    size_t n_before = to->n, n = 0;
    bool whole = word->n_characters <= WORD_CHARACTERS_MAX;

    if (word->n_characters == 0)
        return 0;
    for (size_t at = 0; whole && at < word->n_bytes; at += n) {
        int32_t id = longest(&w->trie, word->text + at, word->n_bytes - at, &n);

        if (id >= 0 && ids_add(to, id) < 0)
            return -ENOMEM;
        whole = id >= 0;
    }
    word->n_bytes = UNDERLINE_BYTES;
    word->n_characters = 0;
    if (whole)
        return 0;
    to->n = n_before;
    return ids_add(to, v->unknown);
}

static void add_character(struct word *word, uint32_t code)
{
    if (word->n_characters < WORD_CHARACTERS_MAX)
        word->n_bytes += utf8_encode(code, word->text + word->n_bytes);
    word->n_characters++;
}

/* ASCII that is printable and neither letter nor digit: punctuation to BERT, "$" and "+" too. */
static bool is_sign(uint32_t code)
{
    uint32_t letter = code | 0x20;

    return code > 0x20 && code < 0x7F && (code < '0' || code > '9') && (letter < 'a' || letter > 'z');
}

/* A normalised character: punctuation and ideographs are words of their own. */
static int add(const struct wpm *w, const struct vocabulary *v, struct word *word, uint32_t code, bool alone,
               struct ids *to)
{
    int r = 0;

    alone = alone || is_sign(code) || unicode_is_punctuation(code);
    if (alone)
        r = end_word(w, v, word, to);
    if (r < 0)
        return r;
    add_character(word, code);
    return alone ? end_word(w, v, word, to) : 0;
}

static int add_normalised(const struct wpm *w, const struct vocabulary *v, struct word *word, uint32_t code,
                          struct ids *to)
{
    uint32_t bases[UNICODE_BASES_MAX] = {code};
    size_t n = w->strip_accents ? unicode_to_bases(code, bases) : 1;
    int r = 0;

    for (size_t i = 0; i < n && r == 0; i++) {
        if (w->strip_accents && unicode_is_mark(bases[i]))
            continue;
        r = add(w, v, word, w->lowercase ? unicode_to_lower(bases[i]) : bases[i], unicode_is_ideograph(code), to);
    }
    return r;
}

int wpm_encode(const struct wpm *w, const struct vocabulary *v, const char *text, size_t n_bytes, struct ids *to)
{
    struct word word = {.n_bytes = UNDERLINE_BYTES};
    int r = 0;

    memcpy(word.text, underline, UNDERLINE_BYTES);
    for (size_t at = 0; at < n_bytes && r == 0;) {
        uint32_t code;
        int length = utf8_decode(text + at, n_bytes - at, &code);

        at += length > 0 ? (size_t)length : 1;
        if (length <= 0 || code == 0xFFFD)
            continue;
        if (unicode_is_space(code))
            r = end_word(w, v, &word, to);
        else if (!unicode_is_other(code))
            r = add_normalised(w, v, &word, code, to);
    }
    return r < 0 ? r : end_word(w, v, &word, to);
}
