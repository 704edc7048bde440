/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What stands for a user towards workers for longer than a tenant's number does, which ends with the daemon that gave
 * it: the uid under a secret cipher. A worker that goes on under the next daemon says by it whose shares it remembers
 * and what was computed for whom, and still learns no uid. The key is in what daemons leave each other (snapshot.h).
 *
 * Speck64/128 (R. Beaulieu and others, The SIMON and SPECK Families of Lightweight Block Ciphers, 2013): one block has
 * room for a uid and 32 bits that have to come out as zero, so a mark that was made up is not taken for a user's.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define MARK_KEY_WORDS 4

struct mark_key {
    uint32_t words[MARK_KEY_WORDS];
};

/**
 * mark_key_new() - a random one. Returns 0 or a negative errno.
 */
int mark_key_new(struct mark_key *ret);

/**
 * mark_of() - the mark of @uid under @key
 */
uint64_t mark_of(const struct mark_key *key, uid_t uid);

/**
 * mark_uid() - whose mark it is; false: it was not made with this key
 */
bool mark_uid(const struct mark_key *key, uint64_t mark, uid_t *ret);
