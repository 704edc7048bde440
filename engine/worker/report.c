/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/cleanup.h"

int report_send(const char *path)
{
    const char *result = getenv("SERVICE_RESULT"), *code = getenv("EXIT_CODE"), *status = getenv("EXIT_STATUS");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    _cleanup_close_ int fd = -EBADF;
    char text[128];
    int n;

    if (!result || !code || !status)
        return -EINVAL;
    n = snprintf(text, sizeof(text), "%s %s %s", result, code, status);
    if (n < 0 || (size_t)n >= sizeof(text))
        return -EINVAL;
    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    return sendto(fd, text, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)&address,
                  sizeof(address)) < 0
               ? -errno
               : 0;
}
