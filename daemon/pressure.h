/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the kernel says of memory pressure (PSI): how much of the last ten seconds somebody waited for memory, of the
 * service's own cgroup where it has one, else of the machine.
 */

#include <stdbool.h>
#include <stddef.h>

/* Percent of the time. Caches are given back above the first; above the second, idle models leave, one at a time. Both
 * are far above what a machine shows that only starts something large. */
#define PRESSURE_TRIM 10.0
#define PRESSURE_UNLOAD 20.0

/**
 * pressure_parse() - the ten-second average of the "some" line of a pressure file
 * @text: terminated. Returns false when there is no such line.
 */
bool pressure_parse(const char *text, double *ret);

/**
 * pressure_path() - the file to look at: memory.pressure of this process' cgroup if that can be read, else the
 * machine's; owned by the caller
 * Returns 0, -ENOENT (the kernel has none), -ENOMEM.
 */
int pressure_path(char **ret);

/**
 * pressure_read() - the same as pressure_parse() of a file's content
 * Returns 0, -EINVAL (no pressure file), or the errno of reading it.
 */
int pressure_read(const char *path, double *ret);
