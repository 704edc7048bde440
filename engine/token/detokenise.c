/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Streaming detokenisation. The buffer holds what was handed out last, and behind it at most three bytes of a character
 * that is not whole yet. Called by the worker for each token of each answer.
 */
#include "engine/token/detokenise.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "engine/token/tokenizer.h"

/* U+FFFD, for what can't become a character: three bytes in place of at least one. */
static const char replacement[] = "\xEF\xBF\xBD";

#define REPLACEMENT_BYTES 3

void detokenizer_init(struct detokenizer *d, const struct tokenizer *t_borrow, unsigned flags)
{
    *d = (struct detokenizer){.tokenizer = t_borrow, .flags = flags};
}

void detokenizer_done(struct detokenizer *d)
{
    free(d->text);
    *d = (struct detokenizer){0};
}

static int reserve(struct detokenizer *d, size_t n)
{
    char *more;

    if (n <= d->n_allocated)
        return 0;
    n += n / 2 + 32;
    more = realloc(d->text, n);
    if (!more)
        return -ENOMEM;
    d->text = more;
    d->n_allocated = n;
    return 0;
}

/*
 * Turns the @n bytes of @bytes into valid UTF-8 at the start of the buffer, which has room for it, and keeps a cut-off
 * character behind it unless this is the end.
 */
static void hand_out(struct detokenizer *d, const char *bytes, size_t n, bool end)
{
    size_t at = 0;

    d->n_text = 0;
    d->n_held = 0;
    while (at < n) {
        uint32_t character;
        int length = utf8_decode(bytes + at, n - at, &character);

        if (length == 0 && !end) {
            memcpy(d->text + d->n_text, bytes + at, n - at);
            d->n_held = n - at;
            return;
        }
        if (length > 0) {
            memcpy(d->text + d->n_text, bytes + at, (size_t)length);
            d->n_text += (size_t)length;
            at += (size_t)length;
        } else {
            memcpy(d->text + d->n_text, replacement, REPLACEMENT_BYTES);
            d->n_text += REPLACEMENT_BYTES;
            at += length == 0 ? n - at : 1;
        }
    }
}

static int add(struct detokenizer *d, const char *piece, size_t n, bool end, const char **ret, size_t *ret_n)
{
    char held[UTF8_BYTES_MAX];
    size_t n_held = d->n_held;
    int r;

    /* Every byte may become a replacement character, and the input lies behind the output until it is read. */
    r = reserve(d, (REPLACEMENT_BYTES + 1) * (n_held + n) + 1);
    if (r < 0)
        return r;
    if (n_held > 0)
        memcpy(held, d->text + d->n_text, n_held);
    if (n_held + n > 0) {
        char *input = d->text + REPLACEMENT_BYTES * (n_held + n);

        if (n_held > 0)
            memcpy(input, held, n_held);
        if (n > 0)
            memcpy(input + n_held, piece, n);
        hand_out(d, input, n_held + n, end);
    } else {
        d->n_text = 0;
    }
    *ret = d->text;
    *ret_n = d->n_text;
    return 0;
}

int detokenizer_push(struct detokenizer *d, int32_t id, const char **ret, size_t *ret_n)
{
    const char *piece;
    size_t n = tokenizer_piece(d->tokenizer, id, d->flags & DETOKENIZE_SPECIAL, &piece);

    if (n > 0 && !d->began) {
        d->began = true;
        if ((d->flags & DETOKENIZE_STRIP_SPACE) && *piece == ' ' && !tokenizer_is_control(d->tokenizer, id)) {
            piece++;
            n--;
        }
    }
    return add(d, piece, n, /* end= */ false, ret, ret_n);
}

int detokenizer_flush(struct detokenizer *d, const char **ret, size_t *ret_n)
{
    return add(d, "", 0, /* end= */ true, ret, ret_n);
}
