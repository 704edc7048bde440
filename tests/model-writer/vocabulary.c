/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Small vocabularies for model_writer.h.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "tests/model-writer/model_writer.h"
#include "tests/model-writer/random_blocks.h"

/* Values of tokenizer.ggml.token_type. */
enum {
    TYPE_NORMAL = 1,
    TYPE_UNKNOWN = 2,
    TYPE_CONTROL = 3,
    TYPE_UNUSED = 5,
    TYPE_BYTE = 6,
};

const char model_chatml_template[] =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/* Words of the SPM vocabulary, and of the BPE vocabulary after merging; a leading space is part of the word. */
static const char *const words[] = {
    " the", " a",    " and",  " to",  " was", " he",   " she",  " it",  " in",  " of",   " one",  " day",
    " cat", " dog",  " sun",  " big", " old", " said", " time", " upon", "ing", "ed",    "er",    "ly",
    " once", " there", " little",
};

#define N_WORDS (sizeof(words) / sizeof(*words))

struct vocabulary {
    char **tokens;
    float *scores;
    int32_t *types;
    uint32_t n, n_max;
    char **merges;
    size_t n_merges;
};

__attribute__((format(printf, 1, 2))) static char *format(const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        abort();
    va_end(ap);
    return text;
}

static void add(struct vocabulary *v, char *token_take, float score, int32_t type)
{
    if (v->n >= v->n_max || !token_take)
        abort();
    v->tokens[v->n] = token_take;
    v->scores[v->n] = score;
    v->types[v->n++] = type;
}

static bool has(const struct vocabulary *v, const char *token)
{
    for (uint32_t i = 0; i < v->n; i++) {
        if (strcmp(v->tokens[i], token) == 0)
            return true;
    }
    return false;
}

/* " word" as SPM writes it: U+2581 for the space. */
static char *with_underline(const char *word)
{
    char *text = calloc(1, 3 * strlen(word) + 1);
    size_t n = 0;

    if (!text)
        abort();
    for (; *word; word++) {
        if (*word == ' ')
            n += utf8_encode(0x2581, text + n);
        else
            text[n++] = *word;
    }
    return text;
}

/*
 * Pieces are reached by merging neighbours, so every prefix of a word gets a place too; longer ones score higher, which
 * makes the merging run from left to right.
 */
static void add_spm_word(struct vocabulary *v, const char *word)
{
    char *text = with_underline(word);
    size_t n = strlen(text);

    for (size_t end = 1; end <= n; end++) {
        char *prefix;

        if (end < n && ((uint8_t)text[end] & 0xC0) == 0x80)
            continue;
        prefix = strndup(text, end);
        if (!prefix)
            abort();
        if (has(v, prefix))
            free(prefix);
        else
            add(v, prefix, -100.0f + (float)end, TYPE_NORMAL);
    }
    free(text);
}

static void fill_spm(struct vocabulary *v)
{
    add(v, strdup("<unk>"), 0, TYPE_UNKNOWN);
    add(v, strdup("<s>"), 0, TYPE_CONTROL);
    add(v, strdup("</s>"), 0, TYPE_CONTROL);
    for (unsigned byte = 0; byte < 256; byte++)
        add(v, format("<0x%02X>", byte), 0, TYPE_BYTE);
    add(v, strdup("<|im_start|>"), 0, TYPE_CONTROL);
    add(v, strdup("<|im_end|>"), 0, TYPE_CONTROL);
    add(v, strdup("\xE2\x96\x81"), -200, TYPE_NORMAL);
    for (int c = 'a'; c <= 'z'; c++)
        add(v, format("%c", c), -300.0f - (float)c, TYPE_NORMAL);
    for (size_t i = 0; i < N_WORDS && v->n + 16 < v->n_max; i++)
        add_spm_word(v, words[i]);
}

/* The character that stands for a byte in byte-level BPE: printable Latin-1 as itself, the others from U+0100 on. */
static uint32_t byte_character(unsigned byte)
{
    uint32_t next = 256;

    for (unsigned b = 0; b < 256; b++) {
        bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;

        if (b == byte)
            return printable ? b : next;
        next += !printable;
    }
    return 0;
}

static char *byte_text(const char *bytes, size_t n)
{
    char *text = calloc(1, 2 * n + 1);
    size_t at = 0;

    if (!text)
        abort();
    for (size_t i = 0; i < n; i++)
        at += utf8_encode(byte_character((uint8_t)bytes[i]), text + at);
    return text;
}

static void add_bpe_word(struct vocabulary *v, const char *word)
{
    for (size_t n = 2; n <= strlen(word); n++) {
        char *whole = byte_text(word, n), *left = byte_text(word, n - 1), *right = byte_text(word + n - 1, 1);

        if (has(v, whole)) {
            free(whole);
        } else {
            if (asprintf(&v->merges[v->n_merges++], "%s %s", left, right) < 0)
                abort();
            add(v, whole, 0, TYPE_NORMAL);
        }
        free(left);
        free(right);
    }
}

static void fill_bpe(struct vocabulary *v)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char c = (char)byte;

        add(v, byte_text(&c, 1), 0, TYPE_NORMAL);
    }
    add(v, strdup("<|endoftext|>"), 0, TYPE_CONTROL);
    add(v, strdup("<|im_start|>"), 0, TYPE_CONTROL);
    add(v, strdup("<|im_end|>"), 0, TYPE_CONTROL);
    for (size_t i = 0; i < N_WORDS && v->n + 16 < v->n_max; i++)
        add_bpe_word(v, words[i]);
}

/* Pieces of words, and those that begin one with U+2581 before them, as converters write BERT's "##". */
static void add_wpm(struct vocabulary *v, const char *word, bool begins)
{
    char *text = begins ? format("\xE2\x96\x81%s", word) : strdup(word);

    if (!text)
        abort();
    if (has(v, text))
        free(text);
    else
        add(v, text, 0, TYPE_NORMAL);
}

static void fill_wpm(struct vocabulary *v)
{
    static const char *const specials[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    static const char characters[] = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-";

    for (size_t i = 0; i < sizeof(specials) / sizeof(*specials); i++)
        add(v, strdup(specials[i]), 0, i == 1 ? TYPE_UNKNOWN : TYPE_CONTROL);
    for (int begins = 0; begins < 2; begins++)
        for (const char *c = characters; *c; c++)
            add_wpm(v, (const char[]){*c, 0}, begins);
    for (size_t i = 0; i < N_WORDS; i++)
        add_wpm(v, words[i] + (*words[i] == ' '), *words[i] == ' ');
}

void model_writer_vocabulary(struct model_writer *w, const char *kind, uint32_t n)
{
    bool spm = strcmp(kind, "llama") == 0, wpm = strcmp(kind, "bert") == 0;
    struct vocabulary v = {.n_max = n};

    v.tokens = calloc(n, sizeof(*v.tokens));
    v.scores = calloc(n, sizeof(*v.scores));
    v.types = calloc(n, sizeof(*v.types));
    v.merges = calloc(n, sizeof(*v.merges));
    if (n < MODEL_VOCABULARY_MIN || !v.tokens || !v.scores || !v.types || !v.merges)
        abort();
    if (spm)
        fill_spm(&v);
    else if (wpm)
        fill_wpm(&v);
    else
        fill_bpe(&v);
    while (v.n < n)
        add(&v, format("<unused_%u>", v.n), -1000, TYPE_UNUSED);

    model_writer_string(w, "tokenizer.ggml.model", kind);
    model_writer_strings(w, "tokenizer.ggml.tokens", (const char *const *)v.tokens, n);
    model_writer_array(w, "tokenizer.ggml.token_type", GGUF_I32, v.types, n, n * sizeof(*v.types));
    if (spm) {
        model_writer_array(w, "tokenizer.ggml.scores", GGUF_F32, v.scores, n, n * sizeof(*v.scores));
        model_writer_u32(w, "tokenizer.ggml.bos_token_id", 1);
        model_writer_u32(w, "tokenizer.ggml.eos_token_id", 2);
        model_writer_u32(w, "tokenizer.ggml.unknown_token_id", 0);
        model_writer_bool(w, "tokenizer.ggml.add_bos_token", true);
        model_writer_bool(w, "tokenizer.ggml.add_eos_token", false);
    } else if (wpm) {
        model_writer_u32(w, "tokenizer.ggml.unknown_token_id", 1);
        model_writer_u32(w, "tokenizer.ggml.bos_token_id", 2);
        model_writer_u32(w, "tokenizer.ggml.cls_token_id", 2);
        model_writer_u32(w, "tokenizer.ggml.seperator_token_id", 3); /* spelled so in the format */
    } else {
        model_writer_string(w, "tokenizer.ggml.pre", "gpt-2");
        model_writer_strings(w, "tokenizer.ggml.merges", (const char *const *)v.merges, v.n_merges);
        model_writer_u32(w, "tokenizer.ggml.bos_token_id", 256);
        model_writer_u32(w, "tokenizer.ggml.eos_token_id", 256);
        model_writer_bool(w, "tokenizer.ggml.add_bos_token", false);
    }
    for (uint32_t i = 0; i < n; i++)
        free(v.tokens[i]);
    for (size_t i = 0; i < v.n_merges; i++)
        free(v.merges[i]);
    free(v.tokens);
    free(v.scores);
    free(v.types);
    free(v.merges);
}
