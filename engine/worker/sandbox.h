/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a worker gives up before it looks at a single byte of a model: it never needs a file, a network,
 * another process or a core dump. The unit file says the same from outside; this holds without systemd, too.
 */

#include <stddef.h>

/**
 * sandbox_enter() - for this process and all threads that it will have; call it before the first one, with
 * all files open that it will need
 * @keep: [@n_keep] descriptors that stay open besides 0, 1 and 2, negative ones mean none; all others are closed.
 *        Sorted in place
 * Returns 0, or a negative errno when something that every supported kernel has was refused. Landlock is used
 * where there is one.
 */
int sandbox_enter(int *keep, size_t n_keep);
