/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Why a worker that is a unit of systemd ended. The daemon is not its parent; systemd is, and tells the unit's
 * ExecStopPost=, which is `resident-worker --report SOCKET` and sends it on in one datagram:
 *
 *     SERVICE_RESULT EXIT_CODE EXIT_STATUS      as systemd.exec(5) has them, e.g. "signal killed SEGV"
 *
 * Anybody may be able to send to the socket; the kernel's word for the sender's uid says which worker is meant, since
 * each instance runs as a user of its own.
 */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"

struct worker_reports;

/* Whose fault a worker's end was. */
enum worker_end {
    WORKER_END_OTHER,      /* its own will, the kernel's or the administrator's, or unknown */
    WORKER_END_CRASH,      /* of its program (worker_signal_is_crash()) */
    WORKER_END_PAGES_LOST, /* of a model's file or its device (PROTO_EXIT_PAGES_LOST) */
    WORKER_END_GPU_LOST,   /* of a GPU (PROTO_EXIT_GPU_LOST) */
};

/* @reason is a sentence for people; borrowed for the call. */
typedef void (*worker_report_t)(uid_t uid, const char *reason, enum worker_end end, void *userdata);

/**
 * worker_reports_new() - bind the socket "daemon/report" beside @worker_socket and listen from the loop
 * The folder is there: it is all of that place that the daemon may write to.
 * Returns 0 or a negative errno.
 */
int worker_reports_new(sd_event *event, const char *worker_socket, worker_report_t callback, void *userdata,
                       struct worker_reports **ret);

/**
 * worker_reports_free() - close it; takes NULL, returns NULL. The socket's name stays for the next daemon to replace
 */
struct worker_reports *worker_reports_free(struct worker_reports *r);

DEFINE_CLEANUP(struct worker_reports *, worker_reports_free)

/**
 * worker_report_describe() - the sentence for a datagram of @n bytes
 * @buffer: [@size]
 * Returns 0, -EBADMSG for what systemd would not say.
 */
int worker_report_describe(const char *text, size_t n, char *buffer, size_t size, enum worker_end *ret_end);

/**
 * worker_exit_describe() - the same for a process that ended by itself with @status
 */
enum worker_end worker_exit_describe(int status, char *buffer, size_t size);

/**
 * worker_signal_is_crash() - whether a signal ("SEGV") is one that a fault of the program ends in
 * KILL is what ends whoever takes too much memory or does not answer, BUS is a file or a device that can't be read.
 */
bool worker_signal_is_crash(const char *name);
