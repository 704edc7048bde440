/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unigram tokenisation: normalise, then the best path by Viterbi's algorithm.
 *
 * The text is taken word by word where no token reaches over a word's beginning (so it is in T5 and XLM-R):
 * every path then passes each beginning, and what is remembered is as long as one word instead of the whole
 * text. The sum of scores is carried from word to word all the same: scores are doubles as in
 * SentencePiece, and how a sum rounds decides ties.
 */
#include "engine/token/ugm.h"

#include <errno.h>
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "engine/gguf/read.h"
#include "engine/token/ids.h"
#include "engine/token/limits.h"
#include "engine/token/spm.h"
#include "engine/token/vocabulary.h"

/* How much worse than the worst token an unknown character is, as SentencePiece has it. */
#define UNKNOWN_PENALTY 10.0f

/* U+2581, which stands for a space, and U+FFFD. */
static const char underline[] = "\xE2\x96\x81";
static const char replacement[] = "\xEF\xBF\xBD";

#define UNDERLINE_BYTES 3

/* The best way to write the beginning of a word up to some byte. */
struct best {
    double score;
    uint32_t from; /* where its last token begins */
    int32_t id;
};

/* One call of ugm_encode(). */
struct path {
    const struct ugm *ugm;
    const struct vocabulary *v;
    struct ids *to;
    char *word; /* normalised, not yet encoded */
    struct best *best; /* [n_allocated + 1] */
    size_t n_word, n_allocated, n_normalised;
    double score;       /* of all words before */
    bool letters;       /* the word has something besides leading underlines */
    bool after_unknown; /* the last token was the unknown one */
};

static int read_flag(const struct gguf *g, const char *key, bool *value, struct fault *reterr)
{
    int r = gguf_get_bool(g, key, value, reterr);

    return r == -ENOENT ? 0 : r;
}

int ugm_init(struct ugm *u, const struct vocabulary *v, const struct gguf *g, struct fault *reterr)
{
    float lowest = FLT_MAX;
    int r;

    r = read_flag(g, "tokenizer.ggml.add_space_prefix", &u->space_prefix, reterr);
    if (r < 0)
        return r;
    r = read_flag(g, "tokenizer.ggml.remove_extra_whitespaces", &u->merge_spaces, reterr);
    if (r < 0)
        return r;
    r = charsmap_init(&u->charsmap, g, reterr);
    if (r < 0)
        return r;
    for (uint32_t id = 0; id < v->n; id++) {
        if (v->types[id] == TOKEN_NORMAL && v->scores[id] < lowest)
            lowest = v->scores[id];
    }
    u->unknown_score = (double)((lowest == FLT_MAX ? 0 : lowest) - UNKNOWN_PENALTY);
    u->words_apart = spm_words_apart(v);
    return trie_init(&u->trie, v, reterr);
}

void ugm_done(struct ugm *u)
{
    charsmap_done(&u->charsmap);
    trie_done(&u->trie);
}

static size_t character_bytes(const char *text, size_t n)
{
    uint8_t first = (uint8_t)*text;
    size_t length = first < 0xC0 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;

    return length < n ? length : n;
}

static void offer(struct best *at, double score, size_t from, int32_t id)
{
    if (score > at->score)
        *at = (struct best){.score = score, .from = (uint32_t)from, .id = id};
}

static void find_best(const struct path *p)
{
    const struct trie *t = &p->ugm->trie;
    struct best *best = p->best;
    size_t n = p->n_word, length;

    best[0].score = p->score;
    for (size_t i = 1; i <= n; i++)
        best[i] = (struct best){.score = -DBL_MAX, .id = p->v->unknown};
    for (size_t i = 0; i < n; i += length) {
        bool covered = false;
        uint32_t node = 0;

        length = character_bytes(p->word + i, n - i);
        for (size_t k = i; k < n; k++) {
            double score;
            int32_t id;

            node = trie_step(t, node, (uint8_t)p->word[k]);
            if (node == 0)
                break;
            id = t->tokens[node];
            if (id < 0)
                continue;
            covered |= k + 1 == i + length;
            /* Added tokens count nothing, which makes them better than all others. */
            score = p->v->types[id] == TOKEN_USER_DEFINED ? 0 : (double)p->v->scores[id];
            offer(&best[k + 1], best[i].score + score, i, id);
        }
        if (!covered)
            offer(&best[i + length], best[i].score + p->ugm->unknown_score, i, p->v->unknown);
    }
}

/* Encodes the word that has been gathered; unknown characters in a row are one unknown token. */
static int end_word(struct path *p)
{
    size_t n = p->n_word, first = p->to->n;

    if (n == 0)
        return 0;
    find_best(p);
    p->score = p->best[n].score;
    p->n_word = 0;
    p->letters = false;
    for (size_t at = n; at > 0; at = p->best[at].from) {
        int32_t id = p->best[at].id;

        if (id == p->v->unknown && p->to->n > first && p->to->ids[p->to->n - 1] == id)
            continue;
        if (ids_add(p->to, id) < 0)
            return -ENOMEM;
    }
    if (p->after_unknown && p->to->ids[p->to->n - 1] == p->v->unknown)
        p->to->n--;
    p->after_unknown = p->best[n].id == p->v->unknown;
    for (size_t i = first, k = p->to->n; i + 1 < k; i++, k--) {
        int32_t id = p->to->ids[i];

        p->to->ids[i] = p->to->ids[k - 1];
        p->to->ids[k - 1] = id;
    }
    return 0;
}

static int reserve(struct path *p, size_t n)
{
    size_t n_more = p->n_allocated ? 2 * p->n_allocated : 256;
    char *word;
    struct best *best;

    if (n <= p->n_allocated)
        return 0;
    if (n_more < n)
        n_more = n;
    word = realloc(p->word, n_more);
    if (word)
        p->word = word;
    best = reallocarray(p->best, n_more + 1, sizeof(*best));
    if (best)
        p->best = best;
    if (!word || !best)
        return -ENOMEM;
    p->n_allocated = n_more;
    return 0;
}

/* A normalised character (or an underline for a space). */
static int append(struct path *p, const char *text, size_t n)
{
    bool space = n == UNDERLINE_BYTES && memcmp(text, underline, UNDERLINE_BYTES) == 0;
    int r = 0;

    if ((space && p->letters && p->ugm->words_apart) || p->n_word + n > WORD_BYTES_MAX)
        r = end_word(p);
    if (r < 0)
        return r;
    p->n_normalised += n;
    if (p->n_normalised > NORMALISED_BYTES_MAX)
        return -ERANGE;
    r = reserve(p, p->n_word + n);
    if (r < 0)
        return r;
    memcpy(p->word + p->n_word, text, n);
    p->n_word += n;
    p->letters |= !space;
    return 0;
}

/* What the beginning of a text becomes; returns how many bytes of it. */
static size_t normalise(const struct ugm *u, const char *text, size_t n_bytes, const char **ret, size_t *ret_n)
{
    size_t n = charsmap_match(&u->charsmap, text, n_bytes, ret);
    uint32_t code;
    int length;

    if (n > 0) {
        *ret_n = strlen(*ret);
        return n;
    }
    length = utf8_decode(text, n_bytes, &code);
    *ret = length > 0 ? text : replacement;
    *ret_n = length > 0 ? (size_t)length : sizeof(replacement) - 1;
    return length > 0 ? (size_t)length : 1;
}

static int encode(struct path *p, const char *text, size_t n_bytes)
{
    const struct ugm *u = p->ugm;
    bool in_word = false, first = true;

    for (size_t at = 0; at < n_bytes;) {
        const char *piece;
        size_t n_piece, n;

        at += normalise(u, text + at, n_bytes - at, &piece, &n_piece);
        for (size_t i = 0; i < n_piece; i += n) {
            bool space = piece[i] == ' ', dropped = space && u->merge_spaces;
            int r = 0;

            n = character_bytes(piece + i, n_piece - i);
            /* Merged spaces are written before the word behind them; before the first one only as a prefix. */
            if (first ? u->space_prefix && !dropped : !space && !in_word && u->merge_spaces)
                r = append(p, underline, UNDERLINE_BYTES);
            first = first && dropped;
            in_word = !space;
            if (r == 0 && !space)
                r = append(p, piece + i, n);
            else if (r == 0 && !dropped)
                r = append(p, underline, UNDERLINE_BYTES);
            if (r < 0)
                return r;
        }
    }
    return end_word(p);
}

int ugm_encode(const struct ugm *u, const struct vocabulary *v, const char *text, size_t n_bytes, struct ids *to)
{
    struct path p = {.ugm = u, .v = v, .to = to};
    int r = encode(&p, text, n_bytes);

    free(p.word);
    free(p.best);
    return r;
}
