/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading the map and walking its trie. The map comes from a hostile file. What can be checked at once is:
 * sizes, and the length and end of every replacement. Whether each unit points into the array depends on
 * the path to it, so that is checked at every step.
 */
#include "engine/token/charsmap.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "engine/gguf/read.h"

#define KEY "tokenizer.ggml.precompiled_charsmap"

/* Parts of a unit. */
#define UNIT_LABEL 0x800000FFu
#define UNIT_VALUE 0x7FFFFFFFu
#define UNIT_HAS_LEAF 0x100u
#define UNIT_IS_FAR 0x200u

void charsmap_done(struct charsmap *c)
{
    free(c->units);
    free(c->texts);
    *c = (struct charsmap){0};
}

static uint32_t byte_at(const struct gguf_array *a, uint64_t i)
{
    return (uint32_t)gguf_array_i32(a, i) & 0xFF;
}

static uint32_t word_at(const struct gguf_array *a, uint64_t i)
{
    return byte_at(a, i) | byte_at(a, i + 1) << 8 | byte_at(a, i + 2) << 16 | byte_at(a, i + 3) << 24;
}

/* Every replacement has to end, and within bounds. */
static int check_texts(const struct charsmap *c, const struct gguf_array *a, struct fault *reterr)
{
    uint64_t first = a->n - c->n_text_bytes;
    size_t begin = 0;

    for (size_t i = 0; i < c->n_text_bytes; i++) {
        if (c->texts[i] == 0) {
            begin = i + 1;
        } else if (i - begin >= CHARSMAP_REPLACEMENT_BYTES_MAX || i + 1 == c->n_text_bytes) {
            fault_model_invalid(reterr, (int64_t)gguf_array_offset(a, first + begin),
                                KEY ": a replacement does not end within %u bytes", CHARSMAP_REPLACEMENT_BYTES_MAX);
            return -EINVAL;
        }
    }
    return 0;
}

int charsmap_init(struct charsmap *c, const struct gguf *g, struct fault *reterr)
{
    struct gguf_array a;
    uint32_t n_trie_bytes;
    int r;

    r = gguf_get_array(g, KEY, GGUF_I32, &a, reterr);
    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return r;
    if ((a.type != GGUF_U8 && a.type != GGUF_I8) || a.n < 4 || a.n > CHARSMAP_BYTES_MAX) {
        fault_model_invalid(reterr, (int64_t)a.offset, KEY " is no array of 4 to %u bytes", CHARSMAP_BYTES_MAX);
        return -EINVAL;
    }
    n_trie_bytes = word_at(&a, 0);
    if (n_trie_bytes % 4 != 0 || n_trie_bytes > a.n - 4) {
        fault_model_invalid(reterr, (int64_t)a.offset, KEY " says that its trie has %" PRIu32 " bytes, of %" PRIu64
                            " that there are", n_trie_bytes, a.n - 4);
        return -EINVAL;
    }
    c->n_units = n_trie_bytes / 4;
    c->n_text_bytes = a.n - 4 - n_trie_bytes;
    c->units = reallocarray(NULL, c->n_units + 1, sizeof(*c->units));
    c->texts = malloc(c->n_text_bytes + 1);
    if (!c->units || !c->texts)
        return -ENOMEM;
    for (size_t i = 0; i < c->n_units; i++)
        c->units[i] = word_at(&a, 4 + 4 * i);
    for (size_t i = 0; i < c->n_text_bytes; i++)
        c->texts[i] = (char)byte_at(&a, 4 + n_trie_bytes + i);
    return check_texts(c, &a, reterr);
}

static uint32_t children_of(uint32_t unit)
{
    return (unit >> 10) << ((unit & UNIT_IS_FAR) >> 6);
}

size_t charsmap_match(const struct charsmap *c, const char *text, size_t n_bytes, const char **ret)
{
    size_t n_longest = 0;
    uint32_t at;

    if (c->n_units == 0)
        return 0;
    at = children_of(c->units[0]);
    for (size_t i = 0; i < n_bytes; i++) {
        uint8_t byte = (uint8_t)text[i];
        uint32_t unit;

        at ^= byte;
        if (byte == 0 || at >= c->n_units || (c->units[at] & UNIT_LABEL) != byte)
            break;
        unit = c->units[at];
        at ^= children_of(unit);
        if (unit & UNIT_HAS_LEAF) {
            uint32_t value = at < c->n_units ? c->units[at] & UNIT_VALUE : UINT32_MAX;

            if (value >= c->n_text_bytes)
                break;
            n_longest = i + 1;
            *ret = c->texts + value;
        }
    }
    return n_longest;
}
