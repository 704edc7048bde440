/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The splitting patterns, as the model makers publish them in tokenizer.json or in their tokenizer's source, and the
 * names that GGUF gives them. Where a published pattern asks for "(?i:'s|'t…)", the letters are ASCII only here: the
 * long s and the Kelvin sign fold to s and k in Unicode, and no vocabulary was made with that in mind.
 */
#include "engine/token/families.h"

#include <string.h>

const char families_threes[] = "(?<!\\p{Nd})\\p{Nd}++(?![\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}])";

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"
#define SUFFIXES "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
#define SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LLAMA3(numbers)                                                                                            \
    "(?:" SUFFIXES ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" numbers "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES
/* Words by case: capitals, then small letters; or capitals only. Marks and letters without case belong to either. */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(suffix, numbers)                                                                                     \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" suffix "|"                                                           \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" suffix "|" numbers                                                   \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES
#define O200K CASED("(?:" SUFFIXES ")?", "\\p{N}{1,3}")
/* Chinese, Japanese and Korean, as the DeepSeek models group them. */
#define CJK "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"
#define PUNCTUATED                                                                                                 \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"     \
    " ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACES
/* What ends a sentence in the scripts of BLOOM's languages. */
#define BLOOM " ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C})]+"

static const char *const gpt2[] = {GPT2, NULL};
static const char *const llama3[] = {LLAMA3("\\p{N}{1,3}"), NULL};
static const char *const minicpm5[] = {"\\p{N}{1,3}", LLAMA3("\\p{N}+"), NULL};
static const char *const qwen2[] = {LLAMA3("\\p{N}"), NULL};
static const char *const laguna[] = {"[^\\n]+|\\n+", LLAMA3("\\p{N}"), NULL};
static const char *const qwen35[] = {
    "(?:" SUFFIXES ")|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES,
    NULL,
};
static const char *const o200k[] = {O200K, NULL};
static const char *const tekken[] = {CASED("", "\\p{N}"), NULL};
static const char *const youtu[] = {
    "[\\x{AC00}-\\x{D7A3}\\x{3131}-\\x{318E}]+|"
    "[\\x{2026}\\x{201C}\\x{201D}\\x{2018}\\x{2019}\\x{2014}\\x{FF01}\\x{FF1A}\\x{FF1B}\\x{FF0C}"
    "\\x{3001}-\\x{303F}\\x{FE30}-\\x{FE4F}]+|[\\x{3105}-\\x{312F}]+|[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{30FF}]+",
    CASED("(?:" SUFFIXES ")?", "\\p{N}"),
    NULL,
};
static const char *const tiny_aya[] = {families_threes, O200K, NULL};
/* Kimi's words are o200k's without Han, which makes words of its own. */
#define KIMI_UPPER "(?:(?!\\p{sc:Han})" UPPER ")"
#define KIMI_LOWER "(?:(?!\\p{sc:Han})" LOWER ")"
static const char *const kimi_k2[] = {
    "\\p{sc:Han}+|[^\\r\\n\\p{L}\\p{N}]?" KIMI_UPPER "*" KIMI_LOWER "+(?:" SUFFIXES ")?|"
    "[^\\r\\n\\p{L}\\p{N}]?" KIMI_UPPER "+" KIMI_LOWER "*(?:" SUFFIXES ")?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    SPACES,
    NULL,
};
static const char *const starcoder[] = {"\\p{N}", GPT2, NULL};
static const char *const falcon[] = {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]", NULL};
static const char *const fallback[] = {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]", NULL};
static const char *const bloom[] = {BLOOM, NULL};
static const char *const viking[] = {BLOOM, "\\p{N}", NULL};
/*
 * The look-behind is not in the published pattern: behind a cut inside a run of spaces no line feed can follow (the run
 * would not have been cut), and not to look for it at each cut keeps long runs from taking quadratic time.
 */
static const char *const jais2[] = {
    "(?:" SUFFIXES ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "(?<![^\\S\\r\\n])\\s*[\\r\\n]+|"
    "\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!\\S)|\\s{8}(?!\\S)|"
    "\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}",
    NULL,
};
static const char *const bailing[] = {
    "'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|"
    "\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
    NULL,
};
static const char *const seed_coder[] = {
    "(?:" SUFFIXES ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" SPACES,
    NULL,
};
/* Published without the possessive signs. Nothing that follows can fail, so they change no match and save stack. */
static const char *const exaone_moe[] = {
    "(?:" SUFFIXES ")|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*+(?: \\p{L}\\p{M}*+)*+)++|"
    "\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|"
    "\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
    NULL,
};
static const char *const chameleon[] = {
    "<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", "[\\t\\n]|    |  ", "\\p{N}", "[\\p{P}!-/:-@\\[-`{-~]", GPT2, NULL,
};
static const char *const deepseek_coder[] = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK, "\\p{N}", NULL};
static const char *const deepseek_v3[] = {
    "\\p{N}{1,3}", "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+", PUNCTUATED, NULL,
};
static const char *const afmoe[] = {
    families_threes,
    "[\\x{4E00}-\\x{9FFF}\\x{3400}-\\x{4DBF}\\x{F900}-\\x{FAFF}\\x{3040}-\\x{30FF}\\x{FF65}-\\x{FF9F}"
    "\\x{2F00}-\\x{2FDF}\\x{E40}-\\x{EFF}\\x{1780}-\\x{17FF}\\x{1000}-\\x{109F}\\x{AA60}-\\x{AA7F}"
    "\\x{A9E0}-\\x{A9FF}\\x{AC00}-\\x{D7AF}\\x{1100}-\\x{11FF}]+",
    PUNCTUATED,
    NULL,
};
/* Whole lines: what merges goes over words, and no token has a line feed in it with something else. */
static const char *const lines[] = {"[^\\n]+|\\n+", NULL};
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


static const struct family families[] = {
    /* clang-format off */
    {"default",                  fallback,       0},
    {"gpt-2",                    gpt2,           0},
    {"phi-2",                    gpt2,           0},
    {"mpt",                      gpt2,           0},
    {"olmo",                     gpt2,           0},
    {"jais",                     gpt2,           0},
    {"trillion",                 gpt2,           0},
    {"granite-docling",          gpt2,           0},
    {"exaone4",                  gpt2,           0},
    {"gigachat",                 gpt2,           0},
    {"a.x-4.0",                  gpt2,           0},
    {"mellum",                   gpt2,           0},
    {"modern-bert",              gpt2,           0},
    {"roberta-bpe",              gpt2,           0},
    {"jina-es",                  gpt2,           0},
    {"jina-de",                  gpt2,           0},
    {"jina-v1-en",               gpt2,           0},
    {"jina-v2-es",               gpt2,           0},
    {"jina-v2-de",               gpt2,           0},
    {"jina-v2-code",             gpt2,           0},
    {"llama-bpe",                llama3,         FAMILY_WHOLE_WORDS | FAMILY_ADDS_BOS},
    {"llama3",                   llama3,         FAMILY_WHOLE_WORDS | FAMILY_ADDS_BOS},
    {"llama-v3",                 llama3,         FAMILY_WHOLE_WORDS | FAMILY_ADDS_BOS},
    {"falcon3",                  llama3,         FAMILY_WHOLE_WORDS | FAMILY_ADDS_BOS},
    {"falcon-h1",                llama3,         FAMILY_WHOLE_WORDS | FAMILY_ADDS_BOS},
    {"pixtral",                  llama3,         FAMILY_WHOLE_WORDS | FAMILY_ADDS_BOS},
    {"midm-2.0",                 llama3,         FAMILY_WHOLE_WORDS | FAMILY_ADDS_BOS},
    {"lfm2",                     llama3,         FAMILY_WHOLE_WORDS | FAMILY_ADDS_BOS},
    {"jina-v5-nano",             llama3,         FAMILY_WHOLE_WORDS | FAMILY_ADDS_BOS},
    {"dbrx",                     llama3,         0},
    {"smaug-bpe",                llama3,         0},
    {"glm4",                     llama3,         0},
    {"chatglm-bpe",              llama3,         0},
    {"minicpm5",                 minicpm5,       FAMILY_WHOLE_WORDS},
    {"qwen2",                    qwen2,          0},
    {"deepseek-r1-qwen",         qwen2,          0},
    {"stablelm2",                qwen2,          0},
    {"hunyuan",                  qwen2,          0},
    {"megrez",                   qwen2,          0},
    {"kormo",                    qwen2,          0},
    {"f2llmv2",                  qwen2,          0},
    {"solar-open",               qwen2,          0},
    {"grok-2",                   qwen2,          0},
    {"qwen35",                   qwen35,         0},
    {"laguna",                   laguna,         0},
    {"gpt-4o",                   o200k,          0},
    {"llama4",                   o200k,          0},
    {"kanana2",                  o200k,          0},
    {"talkie",                   o200k,          0},
    {"minimax-m2",               o200k,          0},
    {"granite-embed-multi-97m",  o200k,          FAMILY_WHOLE_WORDS},
    {"tekken",                   tekken,         FAMILY_WHOLE_WORDS | FAMILY_ADDS_BOS},
    {"tiny_aya",                 tiny_aya,       0},
    {"cohere2moe",               tiny_aya,       0},
    {"kimi-k2",                  kimi_k2,        0},
    {"youtu",                    youtu,          FAMILY_WHOLE_WORDS},
    {"deepseek-llm",             deepseek_llm,   0},
    {"deepseek-coder",           deepseek_coder, 0},
    {"deepseek-v3",              deepseek_v3,    0},
    {"hunyuan-dense",            deepseek_v3,    0},
    {"joyai-llm",                deepseek_v3,    0},
    {"afmoe",                    afmoe,          0},
    {"falcon",                   falcon,         0},
    {"starcoder",                starcoder,      0},
    {"refact",                   starcoder,      0},
    {"command-r",                starcoder,      0},
    {"smollm",                   starcoder,      0},
    {"codeshell",                starcoder,      0},
    {"exaone",                   starcoder,      0},
    {"minerva-7b",               starcoder,      0},
    {"mellum2",                  starcoder,      0},
    {"bloom",                    bloom,          0},
    {"poro-chat",                bloom,          0},
    {"gpt3-finnish",             bloom,          0},
    {"viking",                   viking,         0},
    {"jais-2",                   jais2,          0},
    {"bailingmoe",               bailing,        0},
    {"bailingmoe2",              bailing,        0},
    {"llada-moe",                bailing,        0},
    {"seed-coder",               seed_coder,     0},
    {"exaone-moe",               exaone_moe,     0},
    {"chameleon",                chameleon,      FAMILY_ADDS_BOS},
    {"gemma4",                   lines,          FAMILY_RAW | FAMILY_ADDS_BOS | FAMILY_WHOLE_LINE_FEEDS},
    {"granite-embed-multi-311m", lines,          FAMILY_RAW | FAMILY_ADDS_BOS | FAMILY_WHOLE_LINE_FEEDS},
    {"sarvam-moe",               lines,          FAMILY_RAW},
    /* clang-format on */
};

const struct family *family_find(const char *name, size_t n_name)
{
    for (size_t i = 0; i < sizeof(families) / sizeof(*families); i++) {
        if (strlen(families[i].name) == n_name && memcmp(families[i].name, name, n_name) == 0)
            return &families[i];
    }
    return NULL;
}

const struct family *family_at(size_t i)
{
    return i < sizeof(families) / sizeof(*families) ? &families[i] : NULL;
}
