/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Reading the policy again, in a helper thread: its files may lie on a slow disk, and its names are asked of NSS, which
 * may ask a network server. One reading at a time; whoever asks while one is under way waits for another, since the
 * files may have changed behind it. All functions belong to the event loop's thread.
 */

#include <json-c/json.h>

#include "base/fault.h"
#include "daemon/manager.h"

struct reload;

/**
 * reload_new() - nothing is read yet. Returns 0 or a negative errno
 * @m: for manager_take_policy(); borrowed, and so are what @options point to until reload_free()
 */
int reload_new(struct manager *m, const struct policy_options *options, struct reload **ret);

/**
 * reload_free() - waits for the reading under way, if any, and drops it; nobody may wait. NULL is fine, returns NULL
 */
struct reload *reload_free(struct reload *reload);

/**
 * reload_start() - read the policy now, or once more as soon as it has been read
 * Returns 0 or a negative errno: nothing will be read.
 */
int reload_start(struct reload *reload);

/**
 * reload_wait() - the same, and have @done called, from the loop, when the policy that was read is in force, or refused
 * @ret: to call it off; gone once @done was called
 * Returns 0 or a negative errno.
 */
int reload_wait(struct reload *reload, manager_reloaded_t done, void *userdata, struct reload_wait **ret);
