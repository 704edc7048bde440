/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/worker-report.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/proto/worker-proto.h"

/* systemd's words are short; what is longer is none of them. */
#define REPORT_BYTES_MAX 128
#define REPORT_WORD_MAX  32

struct worker_reports {
    int fd;
    sd_event_source *io;
    worker_report_t callback;
    void *userdata;
};

static bool is_word(const char *text)
{
    size_t n = strlen(text);

    if (n == 0 || n > REPORT_WORD_MAX)
        return false;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];

        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') && c != '-' && c != '+')
            return false;
    }
    return true;
}

/* -1 for what is none. */
static int exit_status(const char *text)
{
    char *end;
    long n = strtol(text, &end, 10);

    return *end || n < 0 || n > 255 ? -1 : (int)n;
}

bool worker_signal_is_crash(const char *name)
{
    static const char *const names[] = {"SEGV", "ABRT", "ILL", "FPE", "SYS", "TRAP"};

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        if (strcmp(name, names[i]) == 0)
            return true;
    }
    return false;
}

enum worker_end worker_exit_describe(int status, char *buffer, size_t size)
{
    if (status == PROTO_EXIT_PAGES_LOST) {
        snprintf(buffer, size, "the worker could not read the model's file any more");
        return WORKER_END_PAGES_LOST;
    }
    if (status == PROTO_EXIT_GPU_LOST) {
        snprintf(buffer, size, "the worker lost its GPU");
        return WORKER_END_GPU_LOST;
    }
    snprintf(buffer, size, "the worker ended with status %d", status);
    return WORKER_END_OTHER;
}

int worker_report_describe(const char *text, size_t n, char *buffer, size_t size, enum worker_end *ret_end)
{
    char copy[REPORT_BYTES_MAX + 1], *rest = NULL;
    const char *result, *code, *status;

    if (n > REPORT_BYTES_MAX || memchr(text, 0, n))
        return -EBADMSG;
    memcpy(copy, text, n);
    copy[n] = 0;
    result = strtok_r(copy, " ", &rest);
    code = strtok_r(NULL, " ", &rest);
    status = strtok_r(NULL, " ", &rest);
    if (!result || !code || !status || strtok_r(NULL, " ", &rest) || !is_word(result) || !is_word(code) ||
        !is_word(status))
        return -EBADMSG;
    *ret_end =
        (strcmp(result, "signal") == 0 || strcmp(result, "core-dump") == 0) && worker_signal_is_crash(status)
            ? WORKER_END_CRASH
            : WORKER_END_OTHER;
    if (strcmp(result, "oom-kill") == 0)
        snprintf(buffer, size, "the worker was killed because memory ran out");
    else if (strcmp(result, "watchdog") == 0)
        snprintf(buffer, size, "the worker was killed because it hung (watchdog)");
    else if (strcmp(code, "exited") == 0)
        *ret_end = worker_exit_describe(exit_status(status), buffer, size);
    else
        snprintf(buffer, size, "the worker was killed by signal %s", status);
    return 0;
}

static int on_datagram(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
    struct worker_reports *r = userdata;
    union {
        char bytes[CMSG_SPACE(sizeof(struct ucred))];
        struct cmsghdr align;
    } control;
    char text[REPORT_BYTES_MAX + 1], reason[128];
    struct iovec iov = {.iov_base = text, .iov_len = sizeof(text)};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    struct ucred sender;
    struct cmsghdr *h;
    enum worker_end end;

    if (n <= 0 || (m.msg_flags & MSG_TRUNC))
        return 0;
    h = CMSG_FIRSTHDR(&m);
    if (!h || h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_CREDENTIALS ||
        h->cmsg_len != CMSG_LEN(sizeof(sender)))
        return 0;
    memcpy(&sender, CMSG_DATA(h), sizeof(sender));
    if (worker_report_describe(text, (size_t)n, reason, sizeof(reason), &end) == 0)
        r->callback(sender.uid, reason, end, r->userdata);
    return 0;
}

static int bind_beside(int fd, const char *worker_socket)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *slash = strrchr(worker_socket, '/');
    int n = snprintf(address.sun_path, sizeof(address.sun_path), "%.*s/daemon/report",
                     slash ? (int)(slash - worker_socket) : 1, slash ? worker_socket : ".");

    if (n < 0 || (size_t)n >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    /* The one that a daemon before this left. */
    if (unlink(address.sun_path) < 0 && errno != ENOENT)
        return -errno;
    if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        return -errno;
    /* Workers run as users that nobody knows beforehand. */
    return chmod(address.sun_path, 0666) < 0 ? -errno : 0;
}

int worker_reports_new(sd_event *event, const char *worker_socket, worker_report_t callback, void *userdata,
                       struct worker_reports **ret)
{
    _cleanup_(worker_reports_freep) struct worker_reports *r = malloc(sizeof(*r));
    const int yes = 1;
    int result;

    if (!r)
        return -ENOMEM;
    *r = (struct worker_reports){.callback = callback, .userdata = userdata};
    r->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (r->fd < 0)
        return -errno;
    if (setsockopt(r->fd, SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes)) < 0)
        return -errno;
    result = bind_beside(r->fd, worker_socket);
    if (result == 0)
        result = sd_event_add_io(event, &r->io, r->fd, EPOLLIN, on_datagram, r);
    if (result < 0)
        return result;
    *ret = TAKE_PTR(r);
    return 0;
}

struct worker_reports *worker_reports_free(struct worker_reports *r)
{
    if (!r)
        return NULL;
    sd_event_source_disable_unref(r->io);
    if (r->fd >= 0)
        close(r->fd);
    free(r);
    return NULL;
}
