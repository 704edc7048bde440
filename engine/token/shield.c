/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Texts of users inside a text that the service writes. A chat template puts its control tokens and the users' words
 * into one text, and there is no telling them apart afterwards; a user's "<|im_end|>" would end the turn. So before the
 * template sees them, the spellings of control tokens in users' texts are broken by a mark, which is taken out again
 * when the result is tokenised, behind the search for control tokens.
 *
 * The mark is U+FDD0, a noncharacter that no text is meant to hold: templates trim, split and compare around it. (To
 * mark where a user's text begins and ends would not survive that.)
 */
#include "engine/token/shield.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "engine/token/special.h"
#include "engine/token/vocabulary.h"

static const char mark[] = "\xEF\xB7\x90";
static const char replacement[] = "\xEF\xBF\xBD";

#define MARK_BYTES 3

/* The first character; a spelling that is no UTF-8 can't be in a text that is. */
static size_t first_bytes(const char *text, size_t n)
{
    uint32_t code;
    int length = utf8_decode(text, n, &code);

    return length > 0 ? (size_t)length : 1;
}

static void replace_marks(char *text, size_t n)
{
    for (char *at = text; (at = memmem(at, n - (size_t)(at - text), mark, MARK_BYTES));)
        memcpy(at, replacement, MARK_BYTES);
}

int shield_add(const struct special *s, const struct vocabulary *v, const char *text, size_t n_bytes, char **ret,
               size_t *ret_n)
{
    size_t n_marks = 0, n_to = 0, at = 0, n_token = 0;
    int32_t id;
    char *to;

    /* As the search when tokenising goes: leftmost, longest, and on behind an added token. */
    for (size_t from = 0; (id = special_find(s, v, text + from, n_bytes - from, true, &at)) >= 0;) {
        vocabulary_text(v, (uint32_t)id, &n_token);
        n_marks += vocabulary_is_special(v, (uint32_t)id);
        from += at + (vocabulary_is_special(v, (uint32_t)id) ? first_bytes(text + from + at, n_token) : n_token);
    }
    if (n_marks == 0 && !memmem(text, n_bytes, mark, MARK_BYTES))
        return 0;
    to = malloc(n_bytes + n_marks * MARK_BYTES + 1);
    if (!to)
        return -ENOMEM;
    for (size_t from = 0;;) {
        bool control;
        size_t n;

        id = special_find(s, v, text + from, n_bytes - from, true, &at);
        if (id < 0) {
            memcpy(to + n_to, text + from, n_bytes - from);
            replace_marks(to + n_to, n_bytes - from);
            n_to += n_bytes - from;
            break;
        }
        vocabulary_text(v, (uint32_t)id, &n_token);
        control = vocabulary_is_special(v, (uint32_t)id);
        n = at + (control ? first_bytes(text + from + at, n_token) : n_token);
        memcpy(to + n_to, text + from, n);
        replace_marks(to + n_to, n);
        n_to += n;
        from += n;
        if (control) {
            memcpy(to + n_to, mark, MARK_BYTES);
            n_to += MARK_BYTES;
        }
    }
    to[n_to] = 0;
    *ret = to;
    *ret_n = n_to;
    return 1;
}

size_t shield_remove(char *text, size_t n_bytes)
{
    char *from = text, *to = text, *end = text + n_bytes, *found;

    while ((found = memmem(from, (size_t)(end - from), mark, MARK_BYTES))) {
        memmove(to, from, (size_t)(found - from));
        to += found - from;
        from = found + MARK_BYTES;
    }
    memmove(to, from, (size_t)(end - from));
    return (size_t)(to - text) + (size_t)(end - from);
}

bool shield_is_in(const char *text, size_t n_bytes)
{
    return memmem(text, n_bytes, mark, MARK_BYTES) != NULL;
}
