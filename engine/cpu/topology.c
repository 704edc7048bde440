/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A core is represented by its lowest CPU that the process may use: a CPU is skipped when a lower, usable one names it
 * as its sibling in /sys/devices/system/cpu/cpuN/topology/thread_siblings_list ("0,64" or "0-1").
 */

#include "engine/cpu/topology.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"

/* The lowest usable CPU that @text lists, or @cpu itself when the text makes no sense. */
static size_t first_usable(const char *text, const cpu_set_t *usable, size_t set_bytes, size_t cpu)
{
    const char *p = text;

    while (*p >= '0' && *p <= '9') {
        char *end;
        unsigned long first = strtoul(p, &end, 10), last = first;

        if (*end == '-')
            last = strtoul(end + 1, &end, 10);
        for (unsigned long i = first; i <= last && i < TOPOLOGY_CPUS_MAX; i++)
            if (CPU_ISSET_S(i, set_bytes, usable))
                return i;
        p = *end == ',' ? end + 1 : end;
    }
    return cpu;
}

static bool read_siblings(size_t cpu, char *buffer, size_t size)
{
    char path[96];
    _cleanup_close_ int fd = -EBADF;
    ssize_t n;

    snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%zu/topology/thread_siblings_list", cpu);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    n = read(fd, buffer, size - 1);
    if (n <= 0)
        return false;
    buffer[n] = '\0';
    return true;
}

void topology_read(struct topology *ret)
{
    union {
        cpu_set_t set;
        unsigned char bytes[TOPOLOGY_CPUS_MAX / 8];
    } usable = {.bytes = {0}};

    ret->n_cores = 0;
    if (sched_getaffinity(0, sizeof(usable.bytes), &usable.set) == 0) {
        for (size_t cpu = 0; cpu < TOPOLOGY_CPUS_MAX; cpu++) {
            char siblings[256];

            if (!CPU_ISSET_S(cpu, sizeof(usable.bytes), &usable.set))
                continue;
            if (read_siblings(cpu, siblings, sizeof(siblings)) &&
                first_usable(siblings, &usable.set, sizeof(usable.bytes), cpu) != cpu)
                continue;
            ret->cpus[ret->n_cores++] = (uint16_t)cpu;
        }
    }
    if (ret->n_cores == 0)
        ret->cpus[ret->n_cores++] = 0;
}
