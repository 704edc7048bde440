/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Getting a worker process: by starting the binary with one end of a socketpair (tests, containers, a terminal), or by
 * connecting to the socket of residentd-worker.socket, which makes systemd start a unit of its own for it. The worker
 * can't tell which. One for GPUs is the same binary with --gpu, or of a unit that may see them: its socket is
 * "gpu-worker" in the same folder, where it is installed.
 */

#include <stdbool.h>
#include <sys/types.h>

#include "base/log.h"

struct worker_process {
    int link_fd;   /* our end of the SOCK_SEQPACKET connection */
    int pidfd;     /* readable when the process has ended; -EBADF: of a unit that has not said HELLO yet */
    pid_t pid;     /* 0: the same */
    uid_t uid;     /* that it runs as; (uid_t)-1: the same */
    bool is_child; /* it has to be waited for, and may be signalled */
};

/**
 * worker_start_child() - start @path with the connection as descriptor 3
 * It gets LISTEN_FDS=1 and LISTEN_PID as from systemd, the daemon's stderr, nothing else that is open, a
 * minimal environment, no privileges that it could gain, and of capabilities at most CAP_IPC_LOCK, and that
 * only where the limit on locked memory would keep it from locking its mapping.
 * @gpu: with --gpu
 * @ret: descriptors owned by the caller. Returns 0 or a negative errno (also that of a failed exec).
 */
int worker_start_child(const char *path, bool gpu, struct worker_process *ret);

/**
 * worker_start_unit() - have systemd start an instance of residentd-worker@.service, by connecting to @path
 * Who answers is known from the credentials of its HELLO only: SO_PEERCRED would say process 1.
 * @ret: descriptors owned by the caller. Returns 0 or a negative errno.
 */
int worker_start_unit(const char *path, struct worker_process *ret);

/**
 * worker_start_is_unit() - whether @path is a socket, so that workers are units of systemd
 */
bool worker_start_is_unit(const char *path);

/**
 * worker_start_has_gpu() - whether there are workers for GPUs beside @path
 */
bool worker_start_has_gpu(const char *path);

/**
 * worker_start() - worker_start_unit() or worker_start_child(), by what @path is
 * @gpu: one for GPUs; -ENOENT where there is none
 */
int worker_start(const char *path, bool gpu, struct worker_process *ret);

/**
 * worker_start_find() - where the worker's binary is: @given, or beside the daemon's own, or in libexecdir
 * @ret: owned by the caller. Returns 0, -ENOENT, -ENOMEM.
 */
int worker_start_find(const char *given, char **ret);
