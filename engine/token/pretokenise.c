/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The splitting patterns and their use. Patterns are those that the model makers publish in tokenizer.json, in the form
 * in which GGUF names them; add a row to `families` (and a pattern) for a new one.
 *
 * Each pattern is applied to the pieces that the one before left: matches become pieces, and so does what lies between
 * them. A piece is a subject of its own, so that anchors and look-aheads see its ends and nothing beyond.
 *
 * PCRE2 checks a subject's UTF-8 before each match, which would make a long text quadratic: so it is checked
 * here, once,
 * and PCRE2 is told not to.
 */
#include "engine/token/pretokenise.h"

#include <errno.h>
#include <string.h>

#include "base/utf8.h"
#include "engine/token/limits.h"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"
#define SUFFIXES "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
#define LLAMA3(numbers)                                                                                            \
    "(?:" SUFFIXES ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" numbers "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"     \
    "\\s+(?!\\S)|\\s+"
/* Chinese, Japanese and Korean, as the DeepSeek models group them. */
#define CJK "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"

static const char *const gpt2[] = {GPT2, NULL};
static const char *const llama3[] = {LLAMA3("\\p{N}{1,3}"), NULL};
static const char *const qwen2[] = {LLAMA3("\\p{N}"), NULL};
static const char *const starcoder[] = {"\\p{N}", GPT2, NULL};
static const char *const falcon[] = {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]", NULL};
static const char *const fallback[] = {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]", NULL};
static const char *const deepseek_coder[] = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK, "\\p{N}", NULL};
static const char *const deepseek_v3[] = {
    "\\p{N}{1,3}",
    "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
    " ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    NULL,
};
static const char *const deepseek_llm[] = {
    "[\\r\\n]",
    /* Cased letters, as the model's own list has them. */
    "\\s?[A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}"
    "\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}"
    "\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}"
    "\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}"
    "\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}"
    "\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}"
    "\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}"
    "\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}\\x{210A}-\\x{2113}\\x{2115}"
    "\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}"
    "\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}"
    "\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}"
    "\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}"
    "\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}"
    "\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}]+",
    "\\s?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+",
    "\\s+$",
    CJK,
    "\\p{N}+",
    NULL,
};

static const struct family {
    const char *name; /* as tokenizer.ggml.pre spells it */
    const char *const *patterns;
    bool whole_words, adds_bos;
} families[] = {
    /* clang-format off */
    {"default",          fallback,       false, false},
    {"gpt-2",            gpt2,           false, false},
    {"phi-2",            gpt2,           false, false},
    {"mpt",              gpt2,           false, false},
    {"olmo",             gpt2,           false, false},
    {"llama-bpe",        llama3,         true,  true},
    {"llama3",           llama3,         true,  true},
    {"llama-v3",         llama3,         true,  true},
    {"falcon3",          llama3,         true,  true},
    {"dbrx",             llama3,         false, false},
    {"smaug-bpe",        llama3,         false, false},
    {"qwen2",            qwen2,          false, false},
    {"deepseek-r1-qwen", qwen2,          false, false},
    {"stablelm2",        qwen2,          false, false},
    {"deepseek-llm",     deepseek_llm,   false, false},
    {"deepseek-coder",   deepseek_coder, false, false},
    {"deepseek-v3",      deepseek_v3,    false, false},
    {"falcon",           falcon,         false, false},
    {"starcoder",        starcoder,      false, false},
    {"refact",           starcoder,      false, false},
    {"command-r",        starcoder,      false, false},
    {"smollm",           starcoder,      false, false},
    {"codeshell",        starcoder,      false, false},
    /* clang-format on */
};

/* What one call of pretokenizer_split() carries along. */
struct split {
    const struct pretokenizer *p;
    pcre2_match_data *match;
    pretokenizer_word_fn fn;
    void *context;
};

int pretokenizer_init(struct pretokenizer *p, const char *name, size_t n_name)
{
    const struct family *family = NULL;

    for (size_t i = 0; i < sizeof(families) / sizeof(*families) && !family; i++) {
        if (strlen(families[i].name) == n_name && memcmp(families[i].name, name, n_name) == 0)
            family = &families[i];
    }
    if (!family)
        return -ENOENT;
    p->context = pcre2_match_context_create(NULL);
    if (!p->context)
        return -ENOMEM;
    pcre2_set_match_limit(p->context, MATCH_STEPS_MAX);
    pcre2_set_heap_limit(p->context, MATCH_HEAP_KIB_MAX);
    for (const char *const *pattern = family->patterns; *pattern; pattern++) {
        PCRE2_SIZE offset;
        int error;
        pcre2_code *code = pcre2_compile((PCRE2_SPTR)*pattern, PCRE2_ZERO_TERMINATED,
                                         PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &error, &offset, NULL);

        /* The patterns are ours and right (a test compiles them all), so only memory can be missing. */
        if (!code)
            return -ENOMEM;
        p->codes[p->n_codes++] = code;
        /* Without the right to make code executable (a sandbox) this fails, and matching is interpreted. */
        pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    }
    p->whole_words = family->whole_words;
    p->adds_bos = family->adds_bos;
    return 0;
}

void pretokenizer_done(struct pretokenizer *p)
{
    for (size_t i = 0; i < p->n_codes; i++)
        pcre2_code_free(p->codes[i]);
    pcre2_match_context_free(p->context);
    *p = (struct pretokenizer){0};
}

/* Returns 1 and the bounds of the first match from @from on, 0 when there is none. */
static int find(const struct split *s, size_t level, const char *text, size_t n, size_t from, size_t *ret_start,
                size_t *ret_end)
{
    uint32_t options = PCRE2_NO_UTF_CHECK;
    int r;

    do {
        r = pcre2_match(s->p->codes[level], (PCRE2_SPTR)text, n, from, options, s->match, s->p->context);
        /* The stack of compiled code is small; the interpreter's grows. */
        options |= PCRE2_NO_JIT;
    } while (r == PCRE2_ERROR_JIT_STACKLIMIT);
    if (r == PCRE2_ERROR_NOMATCH)
        return 0;
    if (r == PCRE2_ERROR_NOMEMORY)
        return -ENOMEM;
    if (r < 0)
        return -ERANGE;
    *ret_start = pcre2_get_ovector_pointer(s->match)[0];
    *ret_end = pcre2_get_ovector_pointer(s->match)[1];
    return 1;
}

/* Recursion is as deep as there are patterns. */
static int split_piece(const struct split *s, size_t level, const char *text, size_t n)
{
    size_t done = 0;

    if (n == 0)
        return 0;
    if (level == s->p->n_codes)
        return s->fn(s->context, text, n);
    while (done < n) {
        size_t start = n, end = n;
        int r = find(s, level, text, n, done, &start, &end);

        if (r < 0)
            return r;
        r = split_piece(s, level + 1, text + done, start - done);
        if (r != 0)
            return r;
        r = split_piece(s, level + 1, text + start, end - start);
        if (r != 0)
            return r;
        done = end;
    }
    return 0;
}

int pretokenizer_split(const struct pretokenizer *p, const char *text, size_t n_bytes, pretokenizer_word_fn fn,
                       void *context)
{
    struct split s = {.p = p, .fn = fn, .context = context};
    int r = 0;

    s.match = pcre2_match_data_create(1, NULL);
    if (!s.match)
        return -ENOMEM;
    for (size_t at = 0; at < n_bytes && r == 0;) {
        size_t n_valid = n_bytes - at, n_bad = 0;
        uint32_t character;

        utf8_is_valid(text + at, n_bytes - at, &n_valid);
        r = split_piece(&s, 0, text + at, n_valid);
        at += n_valid;
        while (at + n_bad < n_bytes && utf8_decode(text + at + n_bad, n_bytes - at - n_bad, &character) <= 0)
            n_bad++;
        if (r == 0 && n_bad > 0)
            r = fn(context, text + at, n_bad);
        at += n_bad;
    }
    pcre2_match_data_free(s.match);
    return r;
}
