/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Text to token ids and back, as a model's own vocabulary says: SentencePiece with byte fallback ("llama"), byte-level
 * BPE ("gpt2"), BPE over characters ("gemma4"), WordPiece ("bert") and SentencePiece's unigram model ("t5").
 * A tokenizer does not change once it is made: any number of threads may use it at once.
 *
 * Control tokens (<s>, <|im_start|> …) never come out of plain text: only where the caller passes TOKENIZE_SPECIAL is
 * their spelling looked for.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fault;
struct gguf;
struct tokenizer;

enum tokenizer_flags {
    TOKENIZE_SPECIAL = 1 << 0, /* control tokens that are spelled out in the text become those tokens */
    TOKENIZE_BOS_EOS = 1 << 1, /* begin- and end-of-text tokens round the text, where the metadata say so */
    TOKENIZE_SHIELDED = 1 << 2, /* with SPECIAL: parts of the text are what tokenizer_shield() made of users' texts */
};

/* Longer texts are refused: positions are kept as 32-bit numbers, and a frame of the protocol has 16 MiB. */
#define TOKENIZE_BYTES_MAX (64u << 20)

/**
 * tokenizer_new() - the tokenizer of a model, from its tokenizer.* metadata
 * @g:      borrowed for the call only; everything that is needed is copied
 * @reterr: on -EINVAL: what is wrong with the vocabulary, and where
 * Returns 0; -ENOENT (the model has no tokenizer: no tokenizer.ggml.model); -EINVAL; -ENOMEM.
 */
int tokenizer_new(const struct gguf *g, struct tokenizer **ret, struct fault *reterr);

/**
 * tokenizer_free() - takes NULL, returns NULL
 */
struct tokenizer *tokenizer_free(struct tokenizer *t);

/**
 * tokenizer_encode() - the token ids of a text
 * @text:    [n_bytes], need not be UTF-8: bytes that are not become byte tokens, or U+FFFD ("t5"), or nothing ("bert")
 * @flags:   enum tokenizer_flags
 * @ret_ids: [*ret_n], the caller frees it; never NULL on success
 * Returns 0; -E2BIG (more than TOKENIZE_BYTES_MAX bytes); -ERANGE (splitting the text takes too many steps); -ENOMEM.
 * Time is O(n log n) in the length of the text's longest word, which may be the whole text.
 */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n_bytes, unsigned flags, int32_t **ret_ids,
                     size_t *ret_n);

/**
 * tokenizer_shield() - a copy of a user's text that may become part of one that is tokenised with TOKENIZE_SPECIAL
 * Whatever it spells out, tokenised with TOKENIZE_SHIELDED it is text: the copy has marks in it that are dropped then.
 * (Control tokens of a single character can't be told from that character; published vocabularies have none.)
 * Returns 1 with *ret, terminated, which the caller frees; 0 when the text can stay as it is; -ENOMEM.
 */
int tokenizer_shield(const struct tokenizer *t, const char *text, size_t n_bytes, char **ret, size_t *ret_n);

/**
 * tokenizer_piece() - the bytes that a token stands for in a text; they need not be whole UTF-8
 * @id:      any number; one that is no token has no bytes
 * @special: control tokens give their spelling, else nothing
 * @ret:     points into @t
 * Returns the number of bytes.
 */
size_t tokenizer_piece(const struct tokenizer *t, int32_t id, bool special, const char **ret);

/**
 * tokenizer_token_text() - a token as the vocabulary spells it ("▁the", "Ġthe", "<0x0A>"); *ret_n bytes, not terminated
 * NULL and 0 for a number that is no token. Points into @t.
 */
const char *tokenizer_token_text(const struct tokenizer *t, int32_t id, size_t *ret_n);

/**
 * tokenizer_find() - the token with exactly this spelling, control tokens too; -1 when there is none
 */
int32_t tokenizer_find(const struct tokenizer *t, const char *text, size_t n_bytes);

/**
 * tokenizer_n_vocab() - number of tokens; ids are 0 … n - 1
 */
uint32_t tokenizer_n_vocab(const struct tokenizer *t);

/**
 * tokenizer_bos() - tokenizer_eos(): the begin- and end-of-text token, -1 when the model has none
 */
int32_t tokenizer_bos(const struct tokenizer *t);
int32_t tokenizer_eos(const struct tokenizer *t);

/**
 * tokenizer_is_end() - whether a generated @id ends an answer: end of text, of turn or of message
 * Besides the tokens that the metadata name, the control tokens with the usual names of such (<|im_end|>,
 * <|eot_id|> …).
 */
bool tokenizer_is_end(const struct tokenizer *t, int32_t id);

/**
 * tokenizer_is_control() - whether @id is a control token (or the unknown token), which stands for no text
 */
bool tokenizer_is_control(const struct tokenizer *t, int32_t id);

/**
 * tokenizer_adds_bos() - whether TOKENIZE_BOS_EOS puts a begin-of-text token before a text
 */
bool tokenizer_adds_bos(const struct tokenizer *t);

/**
 * tokenizer_kind() - "llama", "gpt2", "gemma4", "bert" or "t5"
 */
const char *tokenizer_kind(const struct tokenizer *t);
