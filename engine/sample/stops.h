/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Stop strings in a stream of text: what may be handed on now, and whether it ends here. A stop string may
 * begin in one piece and end in a later one, so exactly that tail is held back which a stop string could
 * still begin with. The result does not depend on how the text is cut into pieces: the stop string that is
 * complete first wins; of those that end at the same byte, the longest. The stop string itself is not handed
 * on.
 *
 * Works on bytes. If the pieces and the stop strings are whole UTF-8, so is what comes out.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct stops;

struct stops_string {
    const char *data;
    size_t n_bytes;
};

#define STOPS_MAX       256   /* strings: each costs a step per byte of text */
#define STOPS_BYTES_MAX 65536 /* all together */

/**
 * stops_new() - watch for any of @strings
 * Copies them. @n_strings may be 0: then nothing is ever held back.
 * Returns 0; -EINVAL for an empty string; -E2BIG beyond STOPS_MAX or STOPS_BYTES_MAX; -ENOMEM.
 */
int stops_new(const struct stops_string *strings, size_t n_strings, struct stops **ret);

/**
 * stops_free() - takes NULL, returns NULL
 */
struct stops *stops_free(struct stops *s);

/**
 * stops_push() - the next piece of text
 * @ret_text, @ret_n: what may be handed on now; owned by @s, valid until the next call
 * @ret_hit: true when a stop string was found: this was the last text, and further pieces are swallowed
 * Returns 0, or -ENOMEM (the piece was not taken; memory grows with the longest piece only).
 */
int stops_push(struct stops *s, const char *text, size_t n_bytes, const char **ret_text, size_t *ret_n,
               bool *ret_hit);

/**
 * stops_flush() - the text has ended: what was held back
 * @ret_text: as above. Returns the number of bytes.
 */
size_t stops_flush(struct stops *s, const char **ret_text);

/**
 * stops_hit() - index of the string that was found, -1: none so far
 */
int stops_hit(const struct stops *s);
