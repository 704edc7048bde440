/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Keeping users' texts from spelling control tokens. Private to engine/token; tokenizer.h has what others use.
 */

#include <stdbool.h>
#include <stddef.h>

struct special;
struct vocabulary;

/**
 * shield_add() - a copy of a text in which the spelling of each control token is broken by a mark
 * A mark that was in the text becomes U+FFFD. A spelling of one character can't be broken and stays.
 * Returns 1 with *ret (the caller frees it), 0 when the text is fine as it is, -ENOMEM.
 */
int shield_add(const struct special *s, const struct vocabulary *v, const char *text, size_t n_bytes, char **ret,
               size_t *ret_n);

/**
 * shield_remove() - take all marks out of @text, in place; returns what is left of @n_bytes
 */
size_t shield_remove(char *text, size_t n_bytes);

/**
 * shield_is_in() - whether there is a mark in a text
 */
bool shield_is_in(const char *text, size_t n_bytes);
