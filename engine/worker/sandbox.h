/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a worker gives up before it looks at a single byte of a model: it never needs a file, a network,
 * another process or a core dump. The unit file says the same from outside; this holds without systemd, too.
 */

#include <stddef.h>

/**
 * sandbox_close_files() - close what was inherited
 * @keep: [@n_keep] descriptors that stay open besides 0, 1 and 2, negative ones mean none. Sorted in place
 * Returns 0 or a negative errno.
 */
int sandbox_close_files(int *keep, size_t n_keep);

/**
 * sandbox_enter() - for this process and all its threads; call it with all files open that it will need, and before
 * any thread of one's own: those of a GPU's driver, which are there already, lose system calls only
 * Returns 0, or a negative errno when something that every supported kernel has was refused. Landlock is used
 * where there is one.
 */
int sandbox_enter(void);
