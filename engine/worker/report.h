/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * `resident-worker --report SOCKET`, the ExecStopPost= of a worker's unit: hands on to residentd what systemd
 * says of the end of the main process (daemon/worker-report.h has the format).
 */

/**
 * report_send() - send $SERVICE_RESULT $EXIT_CODE $EXIT_STATUS to the datagram socket at @path
 * Returns 0; -EINVAL when the environment does not have them; another negative errno.
 */
int report_send(const char *path);
