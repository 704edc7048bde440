/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/pressure.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

#define MACHINE "/proc/pressure/memory"

bool pressure_parse(const char *text, double *ret)
{
    static const char key[] = "some avg10=";
    const char *at = strstr(text, key);
    char *end = NULL;
    double value;

    if (!at || (at != text && at[-1] != '\n'))
        return false;
    value = strtod(at + strlen(key), &end);
    if (end == at + strlen(key) || !(value >= 0 && value <= 100))
        return false;
    *ret = value;
    return true;
}

int pressure_read(const char *path, double *ret)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    char text[256];
    ssize_t n;

    if (fd < 0)
        return -errno;
    n = read(fd, text, sizeof(text) - 1);
    if (n < 0)
        return -errno;
    text[n] = 0;
    return pressure_parse(text, ret) ? 0 : -EINVAL;
}

static int own_cgroup(char **ret)
{
    _cleanup_fclose_ FILE *f = fopen("/proc/self/cgroup", "re");
    char line[PATH_MAX];

    while (f && fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, "0::/", 4) == 0)
            return asprintf(ret, "/sys/fs/cgroup%s/memory.pressure", line + 3) < 0 ? -ENOMEM : 0;
    }
    return -ENOENT;
}

int pressure_path(char **ret)
{
    _cleanup_free_ char *path = NULL;
    double value;
    int r;

    r = own_cgroup(&path);
    if (r == -ENOMEM)
        return r;
    if (r < 0 || pressure_read(path, &value) < 0) {
        free(path);
        path = strdup(MACHINE);
        if (!path)
            return -ENOMEM;
        if (pressure_read(path, &value) < 0)
            return -ENOENT;
    }
    *ret = TAKE_PTR(path);
    return 0;
}
