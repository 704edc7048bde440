/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whole random models for model_writer.h: keys, a vocabulary, and tensors whose weights keep activations near 1, so
 * that nothing overflows and every part of the network has a say in the logits.
 */
#include <math.h>
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

void model_writer_vocabulary(struct model_writer *w, const char *kind, uint32_t n)
{
    bool spm = strcmp(kind, "llama") == 0;
    struct vocabulary v = {.n_max = n};

    v.tokens = calloc(n, sizeof(*v.tokens));
    v.scores = calloc(n, sizeof(*v.scores));
    v.types = calloc(n, sizeof(*v.types));
    v.merges = calloc(n, sizeof(*v.merges));
    if (n < MODEL_VOCABULARY_MIN || !v.tokens || !v.scores || !v.types || !v.merges)
        abort();
    if (spm)
        fill_spm(&v);
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

struct model_shape model_shape_default(void)
{
    return (struct model_shape){
        .architecture = "llama",
        .name = "random test model",
        .n_layers = 2,
        .dim = 256,
        .ff = 512,
        .n_heads = 8,
        .n_kv_heads = 2,
        .n_vocab = 512,
        .context = 256,
        .type = TENSOR_F32,
        .embedding_type = TENSOR_TYPE_MAX,
        .output_type = TENSOR_TYPE_MAX,
        .v_type = TENSOR_TYPE_MAX,
        .down_type = TENSOR_TYPE_MAX,
        .rope_base = 10000.0f,
        .rms_epsilon = 1e-5f,
        .rope_factor = 4.0f,
        .rope_original_context = 64,
        .tokenizer = "llama",
        .chat_template = model_chatml_template,
        .seed = 1,
    };
}

static void key_u32(struct model_writer *w, const struct model_shape *s, const char *name, uint32_t value)
{
    char key[128];

    snprintf(key, sizeof(key), "%s.%s", s->architecture, name);
    model_writer_u32(w, key, value);
}

static void key_f32(struct model_writer *w, const struct model_shape *s, const char *name, float value)
{
    char key[128];

    snprintf(key, sizeof(key), "%s.%s", s->architecture, name);
    model_writer_f32(w, key, value);
}

static void write_keys(struct model_writer *w, const struct model_shape *s)
{
    uint32_t head_dim = s->head_dim ? s->head_dim : s->dim / s->n_heads;
    char key[128];

    model_writer_string(w, "general.architecture", s->architecture);
    model_writer_string(w, "general.name", s->name);
    model_writer_u32(w, "general.quantization_version", 2);
    key_u32(w, s, "context_length", s->context);
    key_u32(w, s, "embedding_length", s->dim);
    key_u32(w, s, "block_count", s->n_layers);
    key_u32(w, s, "feed_forward_length", s->ff);
    key_u32(w, s, "attention.head_count", s->n_heads);
    key_u32(w, s, "attention.head_count_kv", s->n_kv_heads);
    if (s->head_dim) {
        key_u32(w, s, "attention.key_length", head_dim);
        key_u32(w, s, "attention.value_length", head_dim);
    }
    key_f32(w, s, "attention.layer_norm_rms_epsilon", s->rms_epsilon);
    key_u32(w, s, "rope.dimension_count", head_dim);
    key_f32(w, s, "rope.freq_base", s->rope_base);
    key_u32(w, s, "vocab_size", s->n_vocab);
    if (s->rope_scaling && strcmp(s->rope_scaling, "llama3") != 0) {
        snprintf(key, sizeof(key), "%s.rope.scaling.type", s->architecture);
        model_writer_string(w, key, s->rope_scaling);
        key_f32(w, s, "rope.scaling.factor", s->rope_factor);
        key_u32(w, s, "rope.scaling.original_context_length", s->rope_original_context);
    }
    if (s->tokenizer)
        model_writer_vocabulary(w, s->tokenizer, s->n_vocab);
    if (s->chat_template)
        model_writer_string(w, "tokenizer.chat_template", s->chat_template);
}

struct tensor_context {
    struct model_writer *w;
    const struct model_shape *shape;
    uint64_t n_added; /* so that each tensor has a seed of its own */
};

static void matrix(struct tensor_context *c, const char *name, enum tensor_type type, uint64_t n_in, uint64_t n_out,
                   float std)
{
    uint64_t dims[] = {n_in, n_out}, row_bytes;

    if (type == TENSOR_TYPE_MAX)
        type = c->shape->type;
    if (tensor_row_bytes(type, n_in, &row_bytes) < 0)
        type = TENSOR_F16;
    model_writer_tensor_random(c->w, name, type, 2, dims, std, c->shape->seed * 1000003 + c->n_added++);
}

static void norm(struct tensor_context *c, const char *name, uint64_t n)
{
    uint64_t state = c->shape->seed * 1000003 + c->n_added++;
    float *values = calloc(n, sizeof(*values));

    if (!values)
        abort();
    for (uint64_t i = 0; i < n; i++)
        values[i] = 1.0f + 0.1f * random_normal(&state);
    model_writer_tensor(c->w, name, TENSOR_F32, 1, &n, values, n * sizeof(*values));
    free(values);
}

/* What a Llama 3 converter writes: a divisor for each pair's frequency, by its wavelength against the old context. */
static void rope_freqs(struct tensor_context *c, uint32_t head_dim)
{
    const struct model_shape *s = c->shape;
    uint64_t n = head_dim / 2;
    float *values = calloc(n, sizeof(*values));

    if (!values)
        abort();
    for (uint64_t i = 0; i < n; i++) {
        double wavelength = 2 * M_PI * pow(s->rope_base, 2.0 * (double)i / head_dim);
        double low = s->rope_original_context / 1.0, high = s->rope_original_context / 4.0;
        double smooth = (s->rope_original_context / wavelength - 1.0) / (4.0 - 1.0);

        if (wavelength < high)
            values[i] = 1.0f;
        else if (wavelength > low)
            values[i] = s->rope_factor;
        else
            values[i] = (float)(1.0 / ((1 - smooth) / s->rope_factor + smooth));
    }
    model_writer_tensor(c->w, "rope_freqs.weight", TENSOR_F32, 1, &n, values, n * sizeof(*values));
    free(values);
}

static void layer(struct tensor_context *c, uint32_t i, uint32_t head_dim)
{
    const struct model_shape *s = c->shape;
    uint64_t n_q = (uint64_t)s->n_heads * head_dim, n_kv = (uint64_t)s->n_kv_heads * head_dim;
    float in = 1.0f / sqrtf((float)s->dim);
    char name[64];

#define NAME(part) (snprintf(name, sizeof(name), "blk.%u." part ".weight", i), name)
    norm(c, NAME("attn_norm"), s->dim);
    matrix(c, NAME("attn_q"), TENSOR_TYPE_MAX, s->dim, n_q, in);
    matrix(c, NAME("attn_k"), TENSOR_TYPE_MAX, s->dim, n_kv, in);
    matrix(c, NAME("attn_v"), s->v_type, s->dim, n_kv, in);
    matrix(c, NAME("attn_output"), TENSOR_TYPE_MAX, n_q, s->dim, 1.0f / sqrtf((float)n_q));
    norm(c, NAME("ffn_norm"), s->dim);
    matrix(c, NAME("ffn_gate"), TENSOR_TYPE_MAX, s->dim, s->ff, in);
    matrix(c, NAME("ffn_up"), TENSOR_TYPE_MAX, s->dim, s->ff, in);
    matrix(c, NAME("ffn_down"), s->down_type, s->ff, s->dim, 1.0f / sqrtf((float)s->ff));
#undef NAME
}

void model_writer_llama(struct model_writer *w, const struct model_shape *s)
{
    struct tensor_context c = {.w = w, .shape = s};
    uint32_t head_dim = s->head_dim ? s->head_dim : s->dim / s->n_heads;

    write_keys(w, s);
    matrix(&c, "token_embd.weight", s->embedding_type, s->dim, s->n_vocab, 1.0f);
    for (uint32_t i = 0; i < s->n_layers; i++)
        layer(&c, i, head_dim);
    norm(&c, "output_norm.weight", s->dim);
    if (!s->tied)
        matrix(&c, "output.weight", s->output_type, s->dim, s->n_vocab, 3.0f / sqrtf((float)s->dim));
    if (s->rope_scaling && strcmp(s->rope_scaling, "llama3") == 0)
        rope_freqs(&c, head_dim);
}
