/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a vocabulary or a text may cost. Published vocabularies have up to 262,144 tokens and 600,000 merges, and tokens
 * of up to some hundred bytes.
 */

#define TOKENS_MAX (1u << 21)
#define MERGES_MAX (1u << 22)

/* Candidates for merging are looked up by their bytes, so this bounds the cost of one step. */
#define TOKEN_BYTES_MAX 4096u

/* Spellings that are searched for in texts. Longer control tokens exist by id only: nobody can type them. */
#define SPECIAL_BYTES_MAX 256u

/*
 * Merging needs about 50 bytes of memory for each byte of a word, and a hostile text is one word. Longer words are cut,
 * so that a text's tokens then differ from those of an unbounded tokenizer; no language has such words.
 */
#define WORD_BYTES_MAX (1u << 20)

/*
 * A map of characters may make a text longer: NFKC by a few percent in any real text, a hostile one by 255 times.
 */
#define NORMALISED_BYTES_MAX (256u << 20)

/* Per match of a splitting pattern. Steps are linear in the text for all patterns here; this is for the unforeseen. */
#define MATCH_STEPS_MAX (1u << 28)
#define MATCH_HEAP_KIB_MAX (64u << 10)
