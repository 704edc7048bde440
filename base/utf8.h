/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * UTF-8 as RFC 3629 has it: no surrogates, no overlong forms, nothing above U+10FFFF.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UTF8_BYTES_MAX 4

/**
 * utf8_decode() - the first code point of @n bytes
 * Returns the number of bytes it takes (1 to 4); 0 when the bytes are a valid beginning that is cut off (or n is 0);
 * -1 when they are no UTF-8. *ret is set only on a positive result.
 */
int utf8_decode(const char *s, size_t n, uint32_t *ret);

/**
 * utf8_encode() - write @code point into @to, which has room for UTF8_BYTES_MAX bytes
 * Returns the number of bytes, 0 for a surrogate or a value above U+10FFFF.
 */
size_t utf8_encode(uint32_t code, char *to);

/**
 * utf8_is_valid() - whether @n bytes are whole UTF-8; if not and @ret_offset is given, where the fault begins
 */
bool utf8_is_valid(const char *s, size_t n, size_t *ret_offset);

/**
 * utf8_cut() - the largest length <= @n at which @s (longer than @n bytes) can be cut between characters
 */
size_t utf8_cut(const char *s, size_t n);

/**
 * utf8_whole() - how many of @n bytes can be shown now: all but a cut-off character at the end
 * Bytes that can never become UTF-8 count as whole; the caller replaces them.
 */
size_t utf8_whole(const char *s, size_t n);
