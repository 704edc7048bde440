/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Finding tokens that are looked for by their spelling, before anything is merged: those added to a vocabulary by its
 * users (always) and control tokens (where the caller allows it). Private to engine/token.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vocabulary;

struct special {
    uint32_t *ids; /* [n] sorted by spelling, byte by byte */
    uint32_t n, n_added; /* all; those that are no control tokens */
    uint32_t first[257]; /* first[b] … first[b + 1] - 1 begin with the byte b */
    bool added_first[256]; /* some token that is no control token begins with this byte */
};

/**
 * special_init() - collect them; 0 or -ENOMEM. @s is all zero
 */
int special_init(struct special *s, const struct vocabulary *v);

/**
 * special_done() - release the list
 */
void special_done(struct special *s);

/**
 * special_find() - the leftmost spelling in a text, the longest one of those that begin there
 * @control: look for control and unknown tokens too
 * Returns the id and sets *ret_at; -1 when there is none. O(n_bytes), times SPECIAL_BYTES_MAX at worst.
 */
int32_t special_find(const struct special *s, const struct vocabulary *v, const char *text, size_t n_bytes,
                     bool control, size_t *ret_at);
