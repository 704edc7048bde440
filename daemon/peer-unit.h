/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Which systemd unit a client runs in: a label for ps, never a right. Its control group's name says so, and that can
 * only be asked for by pid, which another process may have by then; so only the pidfd that came with the connection
 * makes the answer good (SO_PEERPIDFD, Linux 6.5). Without one nothing is asked.
 */

#include <sys/types.h>

/* Of unit names, systemd's own limit. */
#define PEER_UNIT_MAX 255

/**
 * peer_unit() - the unit, or the user's own one, or scope of the process that @pidfd stands for
 * @pid:   what SO_PEERCRED says of the same process
 * @pidfd: borrowed; negative: none
 * @ret:   owned by the caller. Reads one file of /proc, waits for nobody.
 * Returns 0; -ENOENT: it runs in none; -ESRCH: it has ended, or never was in our sight; -EOPNOTSUPP: no pidfd; -ENOMEM.
 */
int peer_unit(pid_t pid, int pidfd, char **ret);

/**
 * peer_unit_of_cgroup() - the same from the text of a /proc/PID/cgroup
 * Returns 0, -ENOENT or -ENOMEM.
 */
int peer_unit_of_cgroup(const char *text, char **ret);
