/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/mark.h"

#include <errno.h>
#include <sys/random.h>

#define ROUNDS 27

static uint32_t rotate(uint32_t x, unsigned n)
{
    return x << n | x >> (32 - n);
}

static void expand(const struct mark_key *key, uint32_t ret[ROUNDS])
{
    uint32_t l[ROUNDS + MARK_KEY_WORDS - 2];

    for (unsigned i = 0; i < MARK_KEY_WORDS - 1; i++)
        l[i] = key->words[i + 1];
    ret[0] = key->words[0];
    for (unsigned i = 0; i < ROUNDS - 1; i++) {
        l[i + MARK_KEY_WORDS - 1] = (ret[i] + rotate(l[i], 24)) ^ i;
        ret[i + 1] = rotate(ret[i], 3) ^ l[i + MARK_KEY_WORDS - 1];
    }
}

int mark_key_new(struct mark_key *ret)
{
    /* So few bytes come whole or not at all. */
    return getrandom(ret, sizeof(*ret), 0) == (ssize_t)sizeof(*ret) ? 0 : -errno;
}

uint64_t mark_of(const struct mark_key *key, uid_t uid)
{
    uint32_t keys[ROUNDS], x = 0, y = uid;

    expand(key, keys);
    for (unsigned i = 0; i < ROUNDS; i++) {
        x = (rotate(x, 24) + y) ^ keys[i];
        y = rotate(y, 3) ^ x;
    }
    return (uint64_t)x << 32 | y;
}

bool mark_uid(const struct mark_key *key, uint64_t mark, uid_t *ret)
{
    uint32_t keys[ROUNDS], x = (uint32_t)(mark >> 32), y = (uint32_t)mark;

    expand(key, keys);
    for (unsigned i = ROUNDS; i-- > 0;) {
        y = rotate(y ^ x, 29);
        x = rotate((x ^ keys[i]) - y, 8);
    }
    if (x != 0)
        return false;
    *ret = y;
    return true;
}
