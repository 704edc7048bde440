/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The worker's end of the connection. The link thread reads packets, answers PING and does what takes no
 * time; it never computes, so it sees the end of the daemon, or a CANCEL, while a step runs. Everything else
 * it hands to intake.h. When the connection ends, so does the process, at once and from wherever it is: there
 * is nobody left to work for.
 *
 * Any thread may send. What can't be sent (the daemon is gone, or reads nothing for too long) ends the
 * process, too, so that no caller has to deal with it.
 */

#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "engine/proto/worker-proto.h"

struct intake;
struct link;
struct watchdog;

/* The epoch for packets that are true of the worker, whoever listens: facts, progress, logs. */
#define LINK_EPOCH_ANY UINT64_C(0)

/**
 * link_new() - take over the connection
 * @fd_take: consumed, on failure too
 * @intake:  where commands go; borrowed, must outlive the link
 * @log:     stderr, for the reason when the process ends; borrowed
 * @build:   the build id; static
 * @watchdog: fed by the link thread; copied
 * Returns 0, -EINVAL (no SOCK_SEQPACKET socket) or another negative errno.
 */
int link_new(int fd_take, struct intake *intake, const struct log *log, const char *build,
             const struct watchdog *watchdog, struct link **ret);

/**
 * link_start() - begin to read, in a thread of its own. Returns 0 or a negative errno
 */
int link_start(struct link *l);

/**
 * link_send() - send a packet; from any thread, never blocks, does not return when the connection is lost
 * @epoch: that of the request in question: if the daemon has been replaced since, the packet is dropped
 */
void link_send(struct link *l, uint64_t epoch, enum packet_type type, const void *fixed, size_t n_fixed,
               const void *blob, size_t n_blob);

/**
 * link_log() - a sink of struct log: the line goes to the daemon, which knows the model's and the user's names
 * @link: the struct link
 */
void link_log(int level, const struct log_fields *fields, const char *text, void *link);

/**
 * link_set_facts() - send FACTS now, and again to each daemon that takes over
 * @text: JSON; kept
 * Returns 0 or -ENOMEM.
 */
int link_set_facts(struct link *l, const char *text, size_t n);

/**
 * link_backlog() - bytes that wait for the daemon to read
 */
uint64_t link_backlog(struct link *l);

/**
 * link_step_begins(), link_step_ends() - for PONG: whether and for how long the compute thread has been in a
 * step
 */
void link_step_begins(struct link *l, uint64_t now_ns);
void link_step_ends(struct link *l);

/**
 * link_n_steps() - steps that ended so far
 */
uint64_t link_n_steps(const struct link *l);

/**
 * link_finish() - send what waits, for at most a few seconds, and end the process with @status
 */
_Noreturn void link_finish(struct link *l, int status);
