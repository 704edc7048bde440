/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Those who want to hear when models or requests change (Models.Watch). Changes come at every step of every model, so
 * they are told at most a few times a second, all together.
 */

#include <systemd/sd-event.h>

#include "base/cleanup.h"

struct manager;
struct watch;

/**
 * manager_watch() - call @changed, from the loop, after something has changed; it may not call watch_free()
 * Returns 0 or -ENOMEM.
 */
int manager_watch(struct manager *m, void (*changed)(void *userdata), void *userdata, struct watch **ret);

/**
 * watch_free() - no more of it. Takes NULL, returns NULL
 */
struct watch *watch_free(struct watch *w);
