/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Reading a mapped file that may be cut short meanwhile, or whose device may fail. The kernel says so by SIGBUS, which
 * would end the process; here it is a result. It saves the copy that read(2) makes of every byte.
 */

#include "base/cleanup.h"

struct mapread;

/**
 * mapread_new() - for one thread at a time; the process handles SIGBUS by it from then on
 * A SIGBUS that is met elsewhere ends the process as ever. Returns 0 or a negative errno.
 */
int mapread_new(struct mapread **ret);

/**
 * mapread_call() - @fn(@userdata) in the calling thread
 * @fn: is left where it stands when it meets a page that is gone, so it only computes: it holds no lock, allocates
 *      nothing, and what it was writing is of no use afterwards
 * Returns 0, or -EFAULT: a page was gone.
 */
int mapread_call(struct mapread *m, void (*fn)(void *userdata), void *userdata);

/**
 * mapread_free() - takes NULL, returns NULL
 */
struct mapread *mapread_free(struct mapread *m);

DEFINE_CLEANUP(struct mapread *, mapread_free)
