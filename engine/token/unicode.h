/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The properties of characters that BERT's normaliser asks for. Private to engine/token.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UNICODE_BASES_MAX 3

/**
 * unicode_is_space() - White_Space
 */
bool unicode_is_space(uint32_t code);

/**
 * unicode_is_other() - general category C: control, format, private, unassigned
 */
bool unicode_is_other(uint32_t code);

/**
 * unicode_is_punctuation() - general category P
 */
bool unicode_is_punctuation(uint32_t code);

/**
 * unicode_is_mark() - general category Mn, marks without a width of their own
 */
bool unicode_is_mark(uint32_t code);

/**
 * unicode_is_ideograph() - Chinese characters, as BERT lists their blocks
 */
bool unicode_is_ideograph(uint32_t code);

/**
 * unicode_to_lower() - the small letter; the character itself when there is none, or more than one
 */
uint32_t unicode_to_lower(uint32_t code);

/**
 * unicode_to_bases() - the canonical decomposition without its marks, into @to; returns how many characters it has
 */
size_t unicode_to_bases(uint32_t code, uint32_t to[UNICODE_BASES_MAX]);
