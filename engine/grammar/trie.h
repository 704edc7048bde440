/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Inside of grammar_vocabulary. Private to engine/grammar.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum run_class {
    RUN_LOWER,   /* a-z */
    RUN_LETTERS, /* and A-Z */
    RUN_WORDS,   /* and spaces */
    RUN_NAMES,   /* and 0-9 _ - */
    RUN_ASCII,   /* and all of ASCII that JSON strings have as it is */
    RUN_TEXT,    /* and all other characters */
    RUN_CLASS_MAX,
};

/* Tokens of more characters are rare, and are looked at one by one where a grammar counts. */
#define RUN_CHARACTERS_MAX 16

/* Parts of the vocabulary: each class's short and long tokens, and everything else. */
#define PART_SHORT(class) (2 * (unsigned)(class))
#define PART_LONG(class)  (2 * (unsigned)(class) + 1)
#define PART_OTHER        (2 * (unsigned)RUN_CLASS_MAX)
#define PART_MAX          (PART_OTHER + 1)

struct trie_node {
    uint32_t next;   /* the first node that does not begin with these bytes */
    uint32_t before; /* how many of the trie's tokens come before those that begin with these bytes */
    uint16_t depth;
    uint8_t byte;
    uint8_t is_token : 1; /* tokens[before] ends here */
    uint8_t has_same : 1; /* other tokens have the same bytes */
    uint8_t rest : 4; /* the class of all that follows below (enum run_class); RUN_CLASS_MAX: nothing, or of
                         none */
};

_Static_assert(sizeof(struct trie_node) == 12, "walks are as fast as nodes come from memory");

struct trie {
    struct trie_node *nodes; /* [n + 1] the last one only says `before` */
    int32_t *tokens;         /* in the order of their bytes, those of the same bytes next to each other */
    uint32_t n, n_tokens;
    uint32_t first[257]; /* where the tokens that begin with a byte begin, and end */
};

struct grammar_vocabulary {
    uint32_t n_tokens, n_words; /* words: of a mask */
    char *bytes;
    uint32_t *at;   /* [n_tokens + 1] */
    int32_t *same;  /* [n_tokens] the next token with the same bytes, -1: none */
    uint32_t depth; /* bytes of the longest token */
    uint64_t *ends; /* mask of the tokens that end an answer */
    struct trie parts[PART_MAX];
    /* [RUN_CLASS_MAX][RUN_CHARACTERS_MAX + 1][n_words]: tokens of a class and those in it with at most 1 ...
     * 16 characters, and with any number */
    uint64_t *runs;
};

/**
 * trie_run() - the mask of the tokens of @class and those in it, with at most @n characters (above 16: any
 * number)
 */
static inline const uint64_t *trie_run(const struct grammar_vocabulary *v, enum run_class class, unsigned n)
{
    if (n > RUN_CHARACTERS_MAX)
        n = RUN_CHARACTERS_MAX + 1;
    return v->runs + ((size_t) class * (RUN_CHARACTERS_MAX + 1) + n - 1) * v->n_words;
}

/**
 * trie_class() - the smallest class that a character is in, RUN_CLASS_MAX: none
 */
enum run_class trie_class(uint32_t code);

static inline void mask_set(uint64_t *mask, int32_t token)
{
    mask[token / 64] |= UINT64_C(1) << (token % 64);
}

static inline bool mask_has(const uint64_t *mask, int32_t token)
{
    return mask[token / 64] >> (token % 64) & 1;
}
