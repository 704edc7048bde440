/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Putting values into texts. Private to engine/chat.
 */

#include <stddef.h>

#include "engine/chat/value.h"

struct arguments;
struct eval;

/**
 * format_escape() - & < > " ' as HTML writes them; the result is marked as safe
 */
int format_escape(struct eval *e, struct text text, struct value *ret);

/**
 * format_braces() - text.format(arguments): {} {0} {name}, each with !r or !s, and {{ }}
 */
int format_braces(struct eval *e, struct text text, const struct arguments *arguments, struct value *ret);

/**
 * format_percents() - text % values [n_values]: %s %r %d %i %%
 */
int format_percents(struct eval *e, struct text text, const struct value *values, size_t n_values, struct value *ret);
