/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fork and exec by hand, because the child's environment has to name its own pid. Between the two only functions that
 * are safe after fork in a process with threads are called, and everything that needs memory is made before.
 *
 * A failed exec is told through a close-on-exec pipe, so that "no such file" is an error of starting and not a worker
 * that died.
 */
#include "daemon/worker-start.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

/* Newer than the headers of Debian 12. */
#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif

enum { LINK_FD = 3, REPORT_FD = 4, ENVIRONMENT_MAX = 16 };

/* What a worker may inherit: switches to diagnose it, and what sanitizers and coverage need. */
static const char *const passed_on[] = {
    "RESIDENT_ISA", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS", "LLVM_PROFILE_FILE", "GCOV_PREFIX",
};

struct plan {
    const char *path;
    bool gpu;
    int link_fd, report_fd, null_fd;
    bool keep_lock; /* CAP_IPC_LOCK */
    pid_t parent;
    char listen_pid[32];
    char *environment[ENVIRONMENT_MAX];
};

static size_t put_number(char *to, unsigned long n)
{
    char digits[24];
    size_t n_digits = 0;

    do {
        digits[n_digits++] = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    for (size_t i = 0; i < n_digits; i++)
        to[i] = digits[n_digits - 1 - i];
    to[n_digits] = 0;
    return n_digits;
}

static int keep_capabilities(bool lock)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}}, wanted[2] = {{0}};
    const uint32_t bit = 1u << CAP_IPC_LOCK;

    if (syscall(SYS_capget, &head, data) < 0)
        return -errno;
    if (lock && (data[0].permitted & bit)) {
        wanted[0] = (struct __user_cap_data_struct){.effective = bit, .permitted = bit, .inheritable = bit};
    }
    if (syscall(SYS_capset, &head, wanted) < 0)
        return -errno;
    if (wanted[0].permitted && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_IPC_LOCK, 0, 0) < 0)
        return -errno;
    return 0;
}

static void __attribute__((noreturn)) child(struct plan *plan)
{
    char *const arguments[] = {(char *)(uintptr_t)"resident-worker", plan->gpu ? (char *)(uintptr_t)"--gpu" : NULL,
                               NULL};
    struct sigaction fresh = {.sa_handler = SIG_DFL};
    sigset_t none;
    int error;

    put_number(plan->listen_pid + strlen("LISTEN_PID="), (unsigned long)getpid());
    for (int i = 1; i < 32; i++)
        sigaction(i, &fresh, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* The link's end tells a worker that the daemon is gone; this one is for a worker that no longer listens. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != plan->parent)
        _exit(1);
    /* First out of the way of the numbers that they are going to have. */
    plan->report_fd = fcntl(plan->report_fd, F_DUPFD_CLOEXEC, 16);
    plan->link_fd = fcntl(plan->link_fd, F_DUPFD_CLOEXEC, 16);
    if (plan->report_fd < 0 || plan->link_fd < 0)
        _exit(1);
    if (dup2(plan->null_fd, 0) < 0 || dup2(plan->null_fd, 1) < 0 || dup2(plan->link_fd, LINK_FD) < 0 ||
        dup3(plan->report_fd, REPORT_FD, O_CLOEXEC) < 0)
        goto failed;
    if (syscall(SYS_close_range, REPORT_FD + 1, ~0u, 0) < 0)
        goto failed;
    plan->report_fd = REPORT_FD;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        goto failed;
    error = keep_capabilities(plan->keep_lock);
    if (error < 0) {
        errno = -error;
        goto failed;
    }
    execve(plan->path, arguments, plan->environment);
failed:
    error = errno;
    (void)!write(plan->report_fd, &error, sizeof(error));
    _exit(1);
}

static int make_environment(struct plan *plan)
{
    size_t n = 0;

    for (size_t i = 0; i < sizeof(passed_on) / sizeof(*passed_on); i++) {
        const char *value = getenv(passed_on[i]);

        if (!value)
            continue;
        if (asprintf(&plan->environment[n], "%s=%s", passed_on[i], value) < 0) {
            plan->environment[n] = NULL;
            return -ENOMEM;
        }
        n++;
    }
    plan->environment[n] = strdup("LISTEN_FDS=1");
    if (!plan->environment[n])
        return -ENOMEM;
    snprintf(plan->listen_pid, sizeof(plan->listen_pid), "LISTEN_PID=");
    plan->environment[n + 1] = plan->listen_pid;
    return 0;
}

static void free_environment(struct plan *plan)
{
    for (size_t i = 0; i < ENVIRONMENT_MAX; i++) {
        if (plan->environment[i] != plan->listen_pid)
            free(plan->environment[i]);
    }
}

static int start(struct plan *plan, int report_fd, struct worker_process *ret)
{
    _cleanup_close_ int pidfd = -EBADF;
    int error = 0;
    ssize_t n;
    pid_t pid;

    plan->parent = getpid();
    pid = fork();
    if (pid < 0)
        return -errno;
    if (pid == 0)
        child(plan);
    pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0) {
        error = errno;
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return -error;
    }
    close(plan->report_fd);
    plan->report_fd = -EBADF;
    do
        n = read(report_fd, &error, sizeof(error));
    while (n < 0 && errno == EINTR);
    if (n != 0) {
        waitpid(pid, NULL, 0);
        return n == sizeof(error) ? -error : -EIO;
    }
    ret->pid = pid;
    ret->uid = geteuid();
    ret->pidfd = TAKE_FD(pidfd);
    ret->is_child = true;
    return 0;
}

int worker_start_child(const char *path, bool gpu, struct worker_process *ret)
{
    _cleanup_close_ int ours = -EBADF, theirs = -EBADF, null_fd = -EBADF, report_fd = -EBADF;
    struct plan plan = {.path = path, .gpu = gpu, .report_fd = -EBADF};
    const int yes = 1;
    struct rlimit limit;
    int pair[2], r;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    ours = pair[0];
    theirs = pair[1];
    /* Before the worker can have said anything. */
    if (setsockopt(ours, SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes)) < 0)
        return -errno;
    null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null_fd < 0)
        return -errno;
    if (pipe2(pair, O_CLOEXEC) < 0)
        return -errno;
    report_fd = pair[0];
    plan.report_fd = pair[1];
    plan.link_fd = theirs;
    plan.null_fd = null_fd;
    plan.keep_lock = getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
    r = make_environment(&plan);
    if (r >= 0)
        r = start(&plan, report_fd, ret);
    free_environment(&plan);
    if (plan.report_fd >= 0)
        close(plan.report_fd);
    if (r < 0)
        return r;
    ret->link_fd = TAKE_FD(ours);
    return 0;
}

int worker_start_unit(const char *path, struct worker_process *ret)
{
    _cleanup_close_ int fd = -EBADF;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t n = strlen(path);
    const int yes = 1;

    if (n >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, n + 1);
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    /* Before the worker can have said anything. A kernel before 6.5 has no pidfds here; the pid has to do. */
    if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes)) < 0)
        return -errno;
    (void)setsockopt(fd, SOL_SOCKET, SO_PASSPIDFD, &yes, sizeof(yes));
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        return -errno;
    *ret = (struct worker_process){.link_fd = TAKE_FD(fd), .pidfd = -EBADF, .uid = (uid_t)-1};
    return 0;
}

bool worker_start_is_unit(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

/* The socket in the folder of @path. Returns 0, -ENOENT, -ENOMEM. */
static int find_gpu_socket(const char *path, char **ret)
{
    const char *slash = strrchr(path, '/');
    char *socket;

    if (asprintf(&socket, "%.*sgpu-worker", slash ? (int)(slash - path) + 1 : 0, path) < 0)
        return -ENOMEM;
    if (!worker_start_is_unit(socket)) {
        free(socket);
        return -ENOENT;
    }
    *ret = socket;
    return 0;
}

bool worker_start_has_gpu(const char *path)
{
    _cleanup_free_ char *socket = NULL;

    return !worker_start_is_unit(path) || find_gpu_socket(path, &socket) == 0;
}

int worker_start(const char *path, bool gpu, struct worker_process *ret)
{
    _cleanup_free_ char *socket = NULL;
    int r;

    if (!worker_start_is_unit(path))
        return worker_start_child(path, gpu, ret);
    if (!gpu)
        return worker_start_unit(path, ret);
    r = find_gpu_socket(path, &socket);
    return r < 0 ? r : worker_start_unit(socket, ret);
}

int worker_start_find(const char *given, char **ret)
{
    static const char name[] = "resident-worker";
    char own[PATH_MAX], *slash, *path;
    ssize_t n;

    if (given) {
        path = strdup(given);
        if (!path)
            return -ENOMEM;
        *ret = path;
        return 0;
    }
    n = readlink("/proc/self/exe", own, sizeof(own) - 1);
    if (n > 0) {
        own[n] = 0;
        slash = strrchr(own, '/');
        /* Beside it when installed in one folder, and where the build puts it. */
        static const char *const places[] = {"", "../engine/worker/"};

        for (size_t i = 0; slash && i < 2; i++) {
            if (asprintf(&path, "%.*s/%s%s", (int)(slash - own), own, places[i], name) < 0)
                return -ENOMEM;
            if (access(path, X_OK) == 0) {
                *ret = path;
                return 0;
            }
            free(path);
        }
    }
    if (asprintf(&path, "%s/%s", RESIDENTD_LIBEXECDIR, name) < 0)
        return -ENOMEM;
    if (access(path, X_OK) < 0) {
        free(path);
        return -ENOENT;
    }
    *ret = path;
    return 0;
}
