/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Which CPUs the process may use and which of them share a physical core. Read from sched_getaffinity() and, where the
 * sandbox leaves it readable, /sys; without it each CPU counts as a core.
 */

#include <stddef.h>
#include <stdint.h>

#define TOPOLOGY_CPUS_MAX 4096

struct topology {
    size_t n_cores;
    uint16_t cpus[TOPOLOGY_CPUS_MAX]; /* one CPU of each core, ascending */
};

/**
 * topology_read() - fill in @ret; never fails, n_cores is at least 1
 */
void topology_read(struct topology *ret);
