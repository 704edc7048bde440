/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * systemd's file descriptor store: what is put there outlives this process, also one that was killed, and comes back to
 * the next one. It ends with the unit: when that stops, systemd closes everything.
 *
 * systemd throws out a socket whose other end is gone (FDPOLL=, left on: a link to a worker that died is of no use).
 * Names are ours to give: each is used once.
 */

#include <stdbool.h>

#include "base/cleanup.h"

struct fdstore;

/**
 * fdstore_open() - take what an earlier process left
 * @is_wanted: false: nothing is ever put there, and what is there already is thrown out at once
 * Without systemd ($NOTIFY_SOCKET) there is no store: it is empty, and putting something into it does nothing.
 * Returns 0 or a negative errno.
 */
int fdstore_open(bool is_wanted, struct fdstore **ret);

/**
 * fdstore_close() - close our copies of what was not taken; the store keeps its own. Takes NULL, returns NULL
 */
struct fdstore *fdstore_close(struct fdstore *s);

DEFINE_CLEANUP(struct fdstore *, fdstore_close)

/**
 * fdstore_is_there() - whether what is put is kept
 */
bool fdstore_is_there(const struct fdstore *s);

/**
 * fdstore_take() - our copy of what was put under @name, the caller's from here on; the store keeps its own
 * Returns the descriptor or -ENOENT.
 */
int fdstore_take(struct fdstore *s, const char *name);

/**
 * fdstore_has() - whether fdstore_take() would give something
 */
bool fdstore_has(const struct fdstore *s, const char *name);

/**
 * fdstore_next() - a name that begins with @prefix and was not taken yet; borrowed until then. NULL: none
 */
const char *fdstore_next(const struct fdstore *s, const char *prefix);

/**
 * fdstore_put() - have a copy of @fd kept as @name (at most 63 printable characters, no colon)
 * systemd does not say whether it did. Returns 0 or a negative errno.
 */
int fdstore_put(struct fdstore *s, const char *name, int fd);

/**
 * fdstore_remove() - throw out what was put as @name
 */
void fdstore_remove(struct fdstore *s, const char *name);

/**
 * fdstore_drop_rest() - throw out all that was left and not taken; sockets are shut down, so that the other end sees it
 * Returns how many there were.
 */
unsigned fdstore_drop_rest(struct fdstore *s);
