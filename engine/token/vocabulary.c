/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads a vocabulary out of a model's metadata. Called by tokenizer.c.
 *
 * What a file may get wrong, and what happens then: arrays of different lengths, ids out of range, byte tokens that are
 * not spelled <0xXX>, scores that are no numbers, types that are none: refused. A spelling that is there twice: the
 * first one is found by text, the other one by id only. An empty spelling: exists by id only.
 */
#include "engine/token/vocabulary.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/fault.h"
#include "base/utf8.h"
#include "engine/gguf/read.h"
#include "engine/token/bytes.h"
#include "engine/token/limits.h"
#include "engine/token/table.h"

/* U+2581, which SentencePiece writes for a space. */
static const char underline[] = "\xE2\x96\x81";

/*
 * Names by which models end a turn or a text without saying so in their metadata. They are control tokens whatever the
 * file's types say: converters often get this wrong, and a user's text must not be able to end a turn.
 */
static const char *const end_names[] = {
    "<|eot_id|>",     "<|eom_id|>",       "<|im_end|>",    "<|end|>",
    "<|return|>",     "<|call|>",         "<end_of_turn>", "<|endoftext|>",
    "<|end_of_text|>", "<end_of_utterance>", "</s>",       "<EOT>",
    "_<EOT>",         "[EOT]",            "[EOS]",         "<eos>",
    "<\xEF\xBD\x9C" "end" "\xE2\x96\x81" "of" "\xE2\x96\x81" "sentence\xEF\xBD\x9C>",
};

/* Marks for filling in the middle: control tokens too, for the same reason. */
static const char *const control_names[] = {
    "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<PRE>",      "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>",
    "<SUF>",          "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<MID>",      "<|fim_pad|>",  "<fim-pad>",
    "<fim_pad>",      "<PAD>",        "[PAD]",        "<|fim_repo|>", "<|repo_name|>", "<fim-repo>",  "<REPO>",
    "<reponame>",     "<|file_sep|>",
    "<\xEF\xBD\x9C" "fim\xE2\x96\x81" "begin\xEF\xBD\x9C>",
    "<\xEF\xBD\x9C" "fim\xE2\x96\x81" "hole\xEF\xBD\x9C>",
    "<\xEF\xBD\x9C" "fim\xE2\x96\x81" "end\xEF\xBD\x9C>",
};

#define N_ELEMENTS(array) (sizeof(array) / sizeof(*(array)))

void vocabulary_done(struct vocabulary *v)
{
    free(v->texts);
    free(v->text_at);
    free(v->pieces);
    free(v->piece_at);
    free(v->types);
    free(v->flags);
    free(v->scores);
    free(v->slots);
    *v = (struct vocabulary){0};
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t hash(uint64_t seed, const char *text, size_t n)
{
    uint64_t h = seed ^ mix(n + 1, 0x9E3779B97F4A7C15u), word;

    for (; n >= sizeof(word); n -= sizeof(word), text += sizeof(word)) {
        memcpy(&word, text, sizeof(word));
        h = mix(h ^ word, 0xD6E8FEB86659FD93u ^ seed);
    }
    word = 0;
    if (n > 0)
        memcpy(&word, text, n);
    return mix(h ^ word, 0xA0761D6478BD642Fu ^ seed);
}

const char *vocabulary_text(const struct vocabulary *v, uint32_t id, size_t *ret_n)
{
    *ret_n = v->text_at[id + 1] - v->text_at[id];
    return v->texts + v->text_at[id];
}

bool vocabulary_is_special(const struct vocabulary *v, uint32_t id)
{
    return v->types[id] == TOKEN_CONTROL || v->types[id] == TOKEN_UNKNOWN;
}

/* The slot that holds the spelling, or the empty one where it belongs. */
static uint64_t *slot_of(const struct vocabulary *v, const char *text, size_t n, uint64_t tag)
{
    for (uint64_t i = tag & v->slot_mask;; i = (i + 1) & v->slot_mask) {
        uint64_t slot = v->slots[i];
        const char *other;
        size_t n_other;

        if (slot == 0)
            return &v->slots[i];
        if (slot >> 32 != tag >> 32)
            continue;
        other = vocabulary_text(v, (uint32_t)slot - 1, &n_other);
        if (n_other == n && memcmp(other, text, n) == 0)
            return &v->slots[i];
    }
}

int32_t vocabulary_find(const struct vocabulary *v, const char *text, size_t n_bytes)
{
    uint64_t slot;

    if (n_bytes == 0 || n_bytes > v->longest)
        return -1;
    slot = *slot_of(v, text, n_bytes, hash(v->seed, text, n_bytes));
    return (int32_t)((uint32_t)slot - 1);
}

int32_t vocabulary_find_plain(const struct vocabulary *v, const char *text, size_t n_bytes)
{
    int32_t id = vocabulary_find(v, text, n_bytes);

    if (id < 0 || vocabulary_is_special(v, (uint32_t)id) || v->types[id] == TOKEN_BYTE)
        return -1;
    return id;
}

int32_t vocabulary_find_near(const struct vocabulary *v, int32_t guess, const char *text, size_t n_bytes)
{
    if (guess >= 0 && (uint32_t)guess < v->n && !(v->flags[guess] & TOKEN_IS_SHADOWED) &&
        !vocabulary_is_special(v, (uint32_t)guess) && v->types[guess] != TOKEN_BYTE) {
        size_t n;
        const char *guessed = vocabulary_text(v, (uint32_t)guess, &n);

        if (n > 0 && n == n_bytes && memcmp(guessed, text, n) == 0)
            return guess;
    }
    return vocabulary_find_plain(v, text, n_bytes);
}

static int allocate(struct vocabulary *v, uint64_t n_text_bytes)
{
    uint64_t n_slots = 16;

    while (n_slots < 2ull * v->n)
        n_slots *= 2;
    v->slot_mask = n_slots - 1;
    v->slots = table_new(n_slots * sizeof(*v->slots), 0);
    v->texts = malloc(n_text_bytes + 1);
    v->pieces = malloc(n_text_bytes + 1);
    v->text_at = malloc((v->n + 1) * sizeof(*v->text_at));
    v->piece_at = malloc((v->n + 1) * sizeof(*v->piece_at));
    v->types = calloc(v->n, sizeof(*v->types));
    v->flags = calloc(v->n, sizeof(*v->flags));
    if (!v->slots || !v->texts || !v->pieces || !v->text_at || !v->piece_at || !v->types || !v->flags)
        return -ENOMEM;
    if (getrandom(&v->seed, sizeof(v->seed), GRND_NONBLOCK) != sizeof(v->seed))
        v->seed = (uint64_t)(uintptr_t)v->texts;
    return 0;
}

static int read_texts(struct vocabulary *v, const struct gguf *g, struct fault *reterr)
{
    struct gguf_array tokens;
    uint64_t n_bytes = 0;
    uint32_t at = 0;
    int r;

    r = gguf_get_array(g, "tokenizer.ggml.tokens", GGUF_STRING, &tokens, reterr);
    if (r == -ENOENT) {
        fault_model_invalid(reterr, FAULT_NO_OFFSET, "the tokenizer has no tokens (tokenizer.ggml.tokens)");
        return -EINVAL;
    }
    if (r < 0)
        return r;
    if (tokens.n == 0 || tokens.n > TOKENS_MAX) {
        fault_model_invalid(reterr, (int64_t)tokens.offset, "the tokenizer has %" PRIu64 " tokens, 1 to %u are allowed",
                            tokens.n, TOKENS_MAX);
        return -EINVAL;
    }
    for (uint64_t i = 0; i < tokens.n; i++) {
        uint64_t n = gguf_array_string(&tokens, i).n_bytes;

        if (n > TOKEN_BYTES_MAX) {
            fault_model_invalid(reterr, (int64_t)gguf_array_offset(&tokens, i), "token %" PRIu64 " is %" PRIu64
                                " bytes long, at most %u are read", i, n, TOKEN_BYTES_MAX);
            return -EINVAL;
        }
        n_bytes += n;
    }
    v->n = (uint32_t)tokens.n;
    r = allocate(v, n_bytes);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < v->n; i++) {
        struct gguf_string text = gguf_array_string(&tokens, i);
        uint64_t tag, *slot;

        memcpy(v->texts + at, text.data, text.n_bytes);
        v->text_at[i] = at;
        at += (uint32_t)text.n_bytes;
        v->text_at[i + 1] = at;
        if (text.n_bytes > v->longest)
            v->longest = (uint32_t)text.n_bytes;
        if (text.n_bytes == 0)
            continue;
        tag = hash(v->seed, text.data, text.n_bytes);
        slot = slot_of(v, v->texts + v->text_at[i], text.n_bytes, tag);
        if (*slot == 0)
            *slot = (tag >> 32) << 32 | (i + 1);
        else
            v->flags[i] |= TOKEN_IS_SHADOWED;
    }
    return 0;
}

/* An array that runs along the tokens; -ENOENT when it is absent. */
static int read_parallel(const struct vocabulary *v, const struct gguf *g, const char *key,
                         enum gguf_value_type type, struct gguf_array *ret, struct fault *reterr)
{
    int r = gguf_get_array(g, key, type, ret, reterr);

    if (r < 0)
        return r;
    if (ret->n != v->n) {
        fault_model_invalid(reterr, (int64_t)ret->offset, "%s has %" PRIu64 " elements for %" PRIu32 " tokens", key,
                            ret->n, v->n);
        return -EINVAL;
    }
    return 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that "<0x0A>" spells; -1 when the text is not of this form. */
static int spelled_byte(const char *text, size_t n)
{
    int high, low;

    if (n != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    high = hex_digit(text[3]);
    low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

static int read_types(struct vocabulary *v, const struct gguf *g, struct fault *reterr)
{
    struct gguf_array types;
    int r;

    r = read_parallel(v, g, "tokenizer.ggml.token_type", GGUF_I32, &types, reterr);
    if (r < 0 && r != -ENOENT)
        return r;
    for (uint32_t i = 0; i < v->n; i++) {
        int32_t type = r == 0 ? gguf_array_i32(&types, i) : TOKEN_NORMAL;
        const char *text;
        size_t n;

        if (type < 0 || type >= TOKEN_TYPE_MAX) {
            fault_model_invalid(reterr, (int64_t)gguf_array_offset(&types, i),
                                "token %" PRIu32 " has the unknown type %" PRId32, i, type);
            return -EINVAL;
        }
        text = vocabulary_text(v, i, &n);
        if (r == -ENOENT && v->kind != VOCABULARY_BPE && spelled_byte(text, n) >= 0)
            type = TOKEN_BYTE;
        if (type == TOKEN_BYTE && spelled_byte(text, n) < 0) {
            fault_model_invalid(reterr, (int64_t)gguf_array_offset(&types, i), "token %" PRIu32
                                " is of the type for single bytes, but is not spelled like <0x0A>", i);
            return -EINVAL;
        }
        v->types[i] = (uint8_t)type;
    }
    return 0;
}

static int read_scores(struct vocabulary *v, const struct gguf *g, struct fault *reterr)
{
    struct gguf_array scores;
    int r;

    r = read_parallel(v, g, "tokenizer.ggml.scores", GGUF_F32, &scores, reterr);
    if (r == -ENOENT) {
        fault_model_invalid(reterr, FAULT_NO_OFFSET, "the tokenizer has no scores (tokenizer.ggml.scores)");
        return -EINVAL;
    }
    if (r < 0)
        return r;
    v->scores = malloc(v->n * sizeof(*v->scores));
    if (!v->scores)
        return -ENOMEM;
    for (uint32_t i = 0; i < v->n; i++) {
        v->scores[i] = gguf_array_f32(&scores, i);
        if (isnan(v->scores[i])) {
            fault_model_invalid(reterr, (int64_t)gguf_array_offset(&scores, i), "the score of token %" PRIu32
                                " is no number", i);
            return -EINVAL;
        }
    }
    return 0;
}

/* @absent: what the format takes for granted without the key; nothing (-1) where the vocabulary is too small for it. */
static int read_id(const struct vocabulary *v, const struct gguf *g, const char *key, int32_t absent, int32_t *ret,
                   struct fault *reterr)
{
    uint32_t id;
    int r;

    r = gguf_get_u32(g, key, &id, reterr);
    if (r == -ENOENT) {
        *ret = absent >= 0 && (uint32_t)absent < v->n ? absent : -1;
        return 0;
    }
    if (r < 0)
        return r;
    if (id >= v->n) {
        fault_model_invalid(reterr, (int64_t)gguf_find_key(g, key)->offset, "%s is %" PRIu32 ", there are %" PRIu32
                            " tokens", key, id, v->n);
        return -EINVAL;
    }
    *ret = (int32_t)id;
    return 0;
}

/* What the format takes for granted of each kind. */
static const struct roles {
    int32_t bos, eos, unknown, separator;
} usual_roles[VOCABULARY_KIND_MAX] = {
    [VOCABULARY_SPM] = {.bos = 1, .eos = 2, .unknown = 0, .separator = -1},
    [VOCABULARY_BPE] = {.bos = -1, .eos = -1, .unknown = -1, .separator = -1},
    [VOCABULARY_RAW_BPE] = {.bos = -1, .eos = -1, .unknown = -1, .separator = -1},
    [VOCABULARY_WPM] = {.bos = 101, .eos = -1, .unknown = 100, .separator = 102},
    [VOCABULARY_UGM] = {.bos = -1, .eos = 1, .unknown = 2, .separator = -1},
};

static int read_roles(struct vocabulary *v, const struct gguf *g, struct fault *reterr)
{
    const struct roles *usual = &usual_roles[v->kind];
    int32_t eot, eom;
    int r;

    r = read_id(v, g, "tokenizer.ggml.bos_token_id", usual->bos, &v->bos, reterr);
    if (r < 0)
        return r;
    r = read_id(v, g, "tokenizer.ggml.eos_token_id", usual->eos, &v->eos, reterr);
    if (r < 0)
        return r;
    r = read_id(v, g, "tokenizer.ggml.unknown_token_id", usual->unknown, &v->unknown, reterr);
    if (r < 0)
        return r;
    /* Spelled like this in the format. */
    r = read_id(v, g, "tokenizer.ggml.seperator_token_id", usual->separator, &v->separator, reterr);
    if (r < 0)
        return r;
    r = read_id(v, g, "tokenizer.ggml.eot_token_id", -1, &eot, reterr);
    if (r < 0)
        return r;
    r = read_id(v, g, "tokenizer.ggml.eom_token_id", -1, &eom, reterr);
    if (r < 0)
        return r;
    if (v->eos >= 0)
        v->flags[v->eos] |= TOKEN_IS_END;
    if (eot >= 0)
        v->flags[eot] |= TOKEN_IS_END;
    if (eom >= 0)
        v->flags[eom] |= TOKEN_IS_END;
    return 0;
}

static int32_t find_name(const struct vocabulary *v, const char *name)
{
    return vocabulary_find(v, name, strlen(name));
}

static void mark_names(struct vocabulary *v)
{
    int32_t end = find_name(v, "<|end|>");

    for (size_t i = 0; i < N_ELEMENTS(end_names); i++) {
        int32_t id = find_name(v, end_names[i]);

        if (id < 0)
            continue;
        v->types[id] = TOKEN_CONTROL;
        v->flags[id] |= TOKEN_IS_END;
    }
    for (size_t i = 0; i < N_ELEMENTS(control_names); i++) {
        int32_t id = find_name(v, control_names[i]);

        if (id >= 0)
            v->types[id] = TOKEN_CONTROL;
    }
    /* Where answers end with <|return|> or <|call|> (gpt-oss), <|end|> ends a part of an answer only. */
    if (end >= 0 && end != v->eos && find_name(v, "<|return|>") >= 0 && find_name(v, "<|call|>") >= 0)
        v->flags[end] &= (uint8_t)~TOKEN_IS_END;
}

/* Files without types are old; what begins and ends a text is all that is known of their control tokens. */
static void mark_untyped(struct vocabulary *v, const struct gguf *g)
{
    if (gguf_find_key(g, "tokenizer.ggml.token_type"))
        return;
    if (v->bos >= 0)
        v->types[v->bos] = TOKEN_CONTROL;
    if (v->eos >= 0)
        v->types[v->eos] = TOKEN_CONTROL;
    if (v->unknown >= 0 && v->types[v->unknown] == TOKEN_NORMAL && v->kind != VOCABULARY_BPE)
        v->types[v->unknown] = TOKEN_UNKNOWN;
}

static bool contains(const char *text, size_t n, const char *wanted)
{
    size_t n_wanted = strlen(wanted);

    for (size_t i = 0; i + n_wanted <= n; i++) {
        if (strncasecmp(text + i, wanted, n_wanted) == 0)
            return true;
    }
    return false;
}

/*
 * Phi-3 was trained with white space removed behind control tokens. GGUF has no field for it: the model's name is the
 * only sign there is.
 */
static void mark_eaters(struct vocabulary *v, const struct gguf *g)
{
    static const char *const exceptions[] = {"<unk>", "<s>", "<|endoftext|>"};
    struct gguf_string name;

    if (gguf_get_string(g, "general.name", &name, NULL) < 0)
        return;
    if (!contains(name.data, name.n_bytes, "phi-3") && !contains(name.data, name.n_bytes, "phi3"))
        return;
    for (uint32_t i = 0; i < v->n; i++) {
        if (vocabulary_is_special(v, i) || v->types[i] == TOKEN_USER_DEFINED)
            v->flags[i] |= TOKEN_EATS_SPACE;
    }
    for (size_t i = 0; i < N_ELEMENTS(exceptions); i++) {
        int32_t id = find_name(v, exceptions[i]);

        if (id >= 0)
            v->flags[id] &= (uint8_t)~TOKEN_EATS_SPACE;
    }
}

static size_t spaces_for_underlines(const char *text, size_t n, char *to)
{
    size_t n_to = 0;

    for (size_t i = 0; i < n;) {
        if (n - i >= 3 && memcmp(text + i, underline, 3) == 0) {
            to[n_to++] = ' ';
            i += 3;
        } else {
            to[n_to++] = text[i++];
        }
    }
    return n_to;
}

static void make_pieces(struct vocabulary *v)
{
    uint32_t at = 0;

    for (uint32_t i = 0; i < v->n; i++) {
        size_t n, n_piece = 0;
        const char *text = vocabulary_text(v, i, &n);
        char *to = v->pieces + at;

        switch ((enum token_type)v->types[i]) {
        case TOKEN_CONTROL:
        case TOKEN_UNKNOWN:
        case TOKEN_USER_DEFINED:
            memcpy(to, text, n);
            n_piece = n;
            break;
        case TOKEN_BYTE:
            to[0] = (char)spelled_byte(text, n);
            n_piece = 1;
            break;
        case TOKEN_NORMAL:
        case TOKEN_UNDEFINED:
            n_piece = v->kind == VOCABULARY_BPE ? bytes_unspell(text, n, to) : spaces_for_underlines(text, n, to);
            break;
        case TOKEN_UNUSED:
        case TOKEN_TYPE_MAX:
            break;
        }
        v->piece_at[i] = at;
        at += (uint32_t)n_piece;
    }
    v->piece_at[v->n] = at;
}

static void find_bytes(struct vocabulary *v)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[UTF8_BYTES_MAX];

        v->bytes[byte] = -1;
        if (v->kind == VOCABULARY_BPE)
            v->bytes[byte] = vocabulary_find_plain(v, text, utf8_encode(byte_to_character((uint8_t)byte), text));
    }
    for (uint32_t i = 0; i < v->n; i++) {
        size_t n;
        const char *text = vocabulary_text(v, i, &n);
        int byte = v->types[i] == TOKEN_BYTE ? spelled_byte(text, n) : -1;

        if (byte >= 0 && v->bytes[byte] < 0)
            v->bytes[byte] = (int32_t)i;
    }
}

/*
 * SentencePiece promises a token for every text: through byte tokens, or through the unknown token, which the kinds
 * without byte tokens need. Byte-pair vocabularies promise nothing.
 */
static int check_unknown(const struct vocabulary *v, struct fault *reterr)
{
    if (v->unknown >= 0 || v->kind == VOCABULARY_BPE || v->kind == VOCABULARY_RAW_BPE)
        return 0;
    if (v->kind != VOCABULARY_SPM) {
        fault_model_invalid(reterr, FAULT_NO_OFFSET, "the tokenizer has no unknown token "
                            "(tokenizer.ggml.unknown_token_id)");
        return -EINVAL;
    }
    for (unsigned byte = 0; byte < 256; byte++) {
        if (v->bytes[byte] < 0) {
            fault_model_invalid(reterr, FAULT_NO_OFFSET,
                                "the tokenizer has no token for the byte 0x%02x and no unknown "
                                "token",
                                byte);
            return -EINVAL;
        }
    }
    return 0;
}

int vocabulary_init(struct vocabulary *v, const struct gguf *g, enum vocabulary_kind kind, struct fault *reterr)
{
    int r;

    v->kind = kind;
    r = read_texts(v, g, reterr);
    if (r < 0)
        return r;
    r = read_types(v, g, reterr);
    if (r < 0)
        return r;
    if (kind == VOCABULARY_SPM || kind == VOCABULARY_UGM) {
        r = read_scores(v, g, reterr);
        if (r < 0)
            return r;
    }
    r = read_roles(v, g, reterr);
    if (r < 0)
        return r;
    mark_untyped(v, g);
    mark_names(v);
    mark_eaters(v, g);
    make_pieces(v);
    find_bytes(v);
    return check_unknown(v, reterr);
}
