/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/watchdog.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#include "base/cleanup.h"

int watchdog_open(struct watchdog *ret)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    _cleanup_close_ int fd = -EBADF;
    uint64_t watchdog_us = 0;
    size_t n;

    *ret = (struct watchdog){.fd = -EBADF};
    if (!path || sd_watchdog_enabled(/* unset_environment= */ 0, &watchdog_us) <= 0)
        return 0;
    n = strlen(path);
    if (n < 2 || n >= sizeof(address.sun_path))
        return -EINVAL;
    memcpy(address.sun_path, path, n);
    if (path[0] == '@') /* an abstract name */
        address.sun_path[0] = 0;
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) < 0)
        return -errno;
    *ret = (struct watchdog){.fd = TAKE_FD(fd), .interval_ns = watchdog_us / 2 * 1000};
    return 0;
}

int watchdog_feed(struct watchdog *w, uint64_t now_ns)
{
    static const char alive[] = "WATCHDOG=1";

    if (w->fd < 0)
        return -1;
    if (now_ns >= w->next_ns) {
        /* One that is lost for a full queue is followed by another well in time. */
        (void)!send(w->fd, alive, sizeof(alive) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        w->next_ns = now_ns + w->interval_ns;
    }
    return (int)((w->next_ns - now_ns) / 1000000) + 1;
}
