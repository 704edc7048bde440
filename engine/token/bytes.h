/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * How byte-level BPE spells bytes: each of the 256 is one printable character. Those that are printable in
 * Latin-1 stand
 * for themselves, the others are U+0100, U+0101 … in order. (From GPT-2; "Ġ" is the space, "Ċ" the line feed.)
 */

#include <stddef.h>
#include <stdint.h>

/**
 * byte_to_character() - the code point that spells @byte
 */
uint32_t byte_to_character(uint8_t byte);

/**
 * byte_from_character() - the byte that @character spells, -1 when it spells none
 */
int byte_from_character(uint32_t character);

/**
 * bytes_spell() - spell @n bytes into @to, which has room for 2 * n bytes; returns the number of bytes written
 */
size_t bytes_spell(const char *bytes, size_t n, char *to);

/**
 * bytes_unspell() - the bytes that a spelling of @n bytes stands for, into @to, which has room for @n
 * A spelling with other characters in it stands for itself. Returns the number of bytes written.
 */
size_t bytes_unspell(const char *text, size_t n, char *to);
