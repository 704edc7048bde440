/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What is left on a stack of what was called before: a fault with a user's own words in it, a buffer that a text was
 * cut in. wiping-heap.c does the same for the heap.
 */

/**
 * wipe_stack() - zero what lies below the caller's frame, 64 KiB of it
 * Called by loops between two pieces of work, from which nothing deeper is needed any more. Takes about a microsecond.
 */
void wipe_stack(void);
