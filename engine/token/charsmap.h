/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * SentencePiece's precompiled map of characters (NFKC and the like, with the model maker's own rules): which beginnings
 * of a text are replaced, and by what. Private to engine/token.
 *
 * Format: u32 size of the trie in bytes; the trie, a double array of u32 units; the replacements, each ended by NUL. A
 * unit has its label in bits 0 to 7 (and 31), in bit 8 whether a replacement ends here, and where its children lie in
 * bits 10 to 30, times 256 if bit 9 is set; the unit of a replacement has bit 31 set and the place of the text in the
 * others. (From SentencePiece's normalizer and Darts-clone's documentation.)
 */

#include <stddef.h>
#include <stdint.h>

struct fault;
struct gguf;

/* Published maps have up to 400 kB. */
#define CHARSMAP_BYTES_MAX (16u << 20)

/* NFKC's longest is U+FDFA, 18 characters in 33 bytes. Bounds how much longer a text can become. */
#define CHARSMAP_REPLACEMENT_BYTES_MAX 255u

struct charsmap {
    uint32_t *units; /* [n_units] */
    size_t n_units;
    char *texts; /* [n_text_bytes], the last one is NUL */
    size_t n_text_bytes;
};

/**
 * charsmap_init() - read tokenizer.ggml.precompiled_charsmap; without that key the map is empty. @c is all zero
 * Returns 0, -EINVAL (with *reterr), -ENOMEM; charsmap_done() has to be called even then.
 */
int charsmap_init(struct charsmap *c, const struct gguf *g, struct fault *reterr);

/**
 * charsmap_done() - release the copies
 */
void charsmap_done(struct charsmap *c);

/**
 * charsmap_match() - the longest beginning of a text that is replaced
 * @ret: the replacement, NUL-terminated, at most CHARSMAP_REPLACEMENT_BYTES_MAX bytes; may be ""
 * Returns the number of bytes of @text that it replaces; 0 (and *ret untouched) when the map has nothing for it.
 * A trie whose units point out of it simply ends there.
 */
size_t charsmap_match(const struct charsmap *c, const char *text, size_t n_bytes, const char **ret);
