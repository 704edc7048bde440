/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Signs of life for systemd, where the worker's unit has WatchdogSec=: the backstop behind the daemon's PING, for a
 * process that does not run at all. sd_watchdog_notify() makes a socket each time, which the sandbox forbids; this one
 * is made before.
 */

#include <stdint.h>

struct watchdog {
    int fd;               /* -EBADF: nobody watches */
    uint64_t interval_ns; /* half of WATCHDOG_USEC */
    uint64_t next_ns;     /* CLOCK_MONOTONIC; of the link thread */
};

/**
 * watchdog_open() - connect to $NOTIFY_SOCKET if $WATCHDOG_USEC asks for it; before sandbox_enter()
 * *ret: fd is -EBADF when nobody watches. Returns 0 or a negative errno.
 */
int watchdog_open(struct watchdog *ret);

/**
 * watchdog_feed() - send a sign of life if it is time for one
 * Returns milliseconds until the next, -1: never.
 */
int watchdog_feed(struct watchdog *w, uint64_t now_ns);
