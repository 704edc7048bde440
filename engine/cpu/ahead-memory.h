/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Pieces of mapped files brought into memory and let go of. Private to ahead*.c.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/cpu/ahead.h"

/* Mapped files with descriptors of our own. */
struct ahead_files {
    struct ahead_file *all; /* [n] */
    size_t n;
};

/* Returns 0, -ENOMEM or what fcntl(2) says; to be released on failure, too. */
int ahead_files_copy(const struct ahead_config *config, struct ahead_files *ret);
void ahead_files_done(struct ahead_files *files);

/* Reads and maps @n_bytes at @data; what can't be read shows when it is computed with. */
void ahead_populate(const uint8_t *data, uint64_t n_bytes);

/* Begins to read them, and does not wait. */
void ahead_begin_to_read(const uint8_t *data, uint64_t n_bytes);

/* Whole pages only: the ones at the ends are a neighbour's, too. Not of what is locked. */
void ahead_let_go(const struct ahead_files *files, const uint8_t *data, uint64_t n_bytes);

/* The whole pages between: false where there are none. */
bool ahead_whole_pages(const uint8_t *data, uint64_t n_bytes, void **ret, size_t *ret_n);
